//! What is told about requests, once every name in it leads somewhere.

use super::Backend;
use super::sidecar::inject::{Logged, Share};
use super::sidecar::observe::{Collector, Sink};

/// Which tags go where, and which requests are written down where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// The keys of all tags that a request may have, sorted.
    pub keys: Vec<String>,
    /// The tags that upstreams see, sorted by header.
    pub request_headers: Vec<Injected>,
    /// The tags that callers see, sorted by header.
    pub response_headers: Vec<Injected>,
    /// The tags by which requests are counted, in the order of the document.
    pub stats: Vec<String>,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Tracing, if it is on.
    pub tracing: Option<Tracing>,
}

/// A tag as a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The tag's key.
    pub key: String,
    /// Whether every request has the tag. Its header is then there even if its value is empty.
    pub always: bool,
}

/// The access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Which requests are written.
    pub which: Logged,
    /// The share of them.
    pub sample: Share,
    /// Where to. Never empty.
    pub sinks: Vec<Sink<Backend>>,
}

/// Tracing.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The share of requests that is traced, of those whose caller has not decided it.
    pub share: Share,
    /// Where spans go; without it, trace ids are made and passed on, and spans are forgotten.
    pub collector: Option<Collector<Backend>>,
}

/// What one set of values of the tags that requests are counted by costs in Envoy: two counters of 0.4 KB each and a
/// histogram of 3.5 KB, as calculated for Envoy 1.40 with two workers.
pub const BYTES_PER_SERIES: usize = 4_300;

/// More is refused: it would double what an Envoy takes that serves nothing.
pub const MAX_STATS_BYTES: usize = 16 << 20;

/// The name of a tag among the labels of a Prometheus series.
pub fn label(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
