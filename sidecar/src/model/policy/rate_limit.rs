//! `rateLimit`: how many requests this Envoy lets through; more are answered with 429.

use std::time::Duration;

use super::value::some_time;
use crate::model::matching::header_name;
use crate::read::Node;
use crate::read::decode::{Report, boolean, integer};

/// A bucket of tokens; a request takes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens added at once after each interval.
    pub requests: u32,
    /// How often; at least 50 ms, which is Envoy's limit.
    pub interval: Duration,
    /// Tokens that the bucket holds.
    pub burst: u32,
    /// Each value of this header has a bucket of its own; requests without it share one.
    pub per_header: Option<String>,
    /// Whether answers say what is left, in `x-ratelimit-` headers.
    pub headers: bool,
}

/// How many values of a header have a bucket at a time; then the one that was used the longest ago is forgotten.
pub const MAX_BUCKETS: u32 = 10_000;

/// Envoy rejects a shorter one.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Reads `rateLimit`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<RateLimit> {
    let mut fields = report.fields(node, "rateLimit")?;
    let requests = fields.required("requests", integer(1, u32::MAX));
    let interval = fields.optional("interval", interval).unwrap_or(Duration::from_secs(1));
    let burst = fields.optional("burst", integer(1, u32::MAX));
    let per_header = fields.optional("perHeader", header_name);
    let headers = fields.optional("headers", boolean).unwrap_or(false);
    let span = fields.key_span("burst");
    fields.finish();
    let requests = requests?;
    let burst = burst.unwrap_or(requests);
    if burst < requests {
        return report.error(span, "the burst is smaller than what each interval adds");
    }
    Some(RateLimit { requests, interval, burst, per_header, headers })
}

fn interval(node: &Node, report: &mut Report) -> Option<Duration> {
    let given = some_time(node, report)?;
    if given >= SHORTEST_INTERVAL {
        return Some(given);
    }
    report.error(node.span, "an interval of at least 50ms is expected")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn a_bucket_holds_what_one_interval_adds_unless_told_otherwise() {
        let limit = good("{requests: 10}", decode);
        assert_eq!((limit.burst, limit.interval), (10, Duration::from_secs(1)));
        assert_eq!(good("{requests: 10, burst: 50}", decode).burst, 50);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{requests: 10, burst: 5}", decode),
            ["1:19 the burst is smaller than what each interval adds"]
        );
        assert_eq!(
            mistakes("{interval: 10ms}", decode),
            ["1:4 rateLimit has no \"requests\"", "1:15 an interval of at least 50ms is expected"]
        );
    }
}
