//! `retry`: which failed requests are tried again, how often and how soon.

use std::time::Duration;

use super::value::{Percent, percent, some_time};
use crate::diagnostic::Diagnostic;
use crate::read::Node;
use crate::read::decode::{Report, boolean, integer, one_of};

/// What is done about a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How many more times it is tried.
    pub attempts: u32,
    /// How long each try may take, the first included; none: as long as the request.
    pub per_try_timeout: Option<Duration>,
    /// The pause before the first retry, which doubles from then on, randomised; and its upper bound.
    pub backoff: Option<Backoff>,
    /// The failures that are tried again, in Envoy's words; never empty unless there are codes.
    pub on: Vec<&'static str>,
    /// The response codes that are tried again.
    pub codes: Vec<u32>,
    /// Whether a retry goes to an endpoint that has not been tried yet, as long as there is one.
    pub other_endpoint: bool,
}

/// How long to wait between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first retry, at most.
    pub base: Duration,
    /// Before any, at most; ten times the base unless given.
    pub max: Option<Duration>,
}

/// How many of the requests to a service may be retries. A property of the service, shared by all routes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Of the active requests.
    pub percent: Percent,
    /// So many are always allowed.
    pub min_concurrency: u32,
}

/// Nothing has reached the application in these cases, so that trying again repeats nothing.
const SAFE: &[&str] = &["connect-failure", "refused-stream", "reset-before-request"];

/// `x-envoy-retry-on` and `x-envoy-retry-grpc-on` in Envoy's documentation of the router.
const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// What the policy says about retries, and the budget that goes with the service.
pub(super) type Decoded = (Option<Retry>, Option<Budget>);

/// Reads `retry`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Decoded> {
    let mut fields = report.fields(node, "retry")?;
    let attempts = fields.optional("attempts", integer(0, 100));
    let per_try_timeout = fields.optional("perTryTimeout", some_time);
    let backoff = fields.optional("backoff", backoff);
    let given_on = fields.list("on", condition);
    let codes = fields.list("codes", integer(400, 599));
    let other_endpoint = fields.optional("otherEndpoint", boolean);
    let budget = fields.optional("budget", budget);
    fields.finish();
    let only_budget = budget.is_some() && node_says_only_budget(node);
    let on = if given_on.is_empty() && codes.is_empty() { SAFE.to_vec() } else { given_on };
    let retry = Retry {
        attempts: attempts.unwrap_or(2),
        per_try_timeout,
        backoff,
        on,
        codes,
        other_endpoint: other_endpoint.unwrap_or(true),
    };
    Some(((!only_budget).then_some(retry), budget))
}

fn node_says_only_budget(node: &Node) -> bool {
    ["attempts", "perTryTimeout", "backoff", "on", "codes", "otherEndpoint"]
        .iter()
        .all(|field| node.get(field).is_none())
}

fn condition(node: &Node, report: &mut Report) -> Option<&'static str> {
    let words: Vec<(&str, &'static str)> = CONDITIONS.iter().map(|word| (*word, *word)).collect();
    one_of(&words)(node, report)
}

fn backoff(node: &Node, report: &mut Report) -> Option<Backoff> {
    let mut fields = report.fields(node, "backoff")?;
    let base = fields.required("base", some_time);
    let max = fields.optional("max", some_time);
    let span = fields.key_span("max");
    fields.finish();
    let base = base?;
    if max.is_some_and(|max| max < base) {
        return report.add(span, Diagnostic::error("the longest pause is shorter than the first"));
    }
    Some(Backoff { base, max })
}

fn budget(node: &Node, report: &mut Report) -> Option<Budget> {
    let mut fields = report.fields(node, "budget")?;
    let percent = fields.optional("percent", percent).unwrap_or(Percent::whole(20));
    let min_concurrency = fields.optional("minConcurrency", integer(0, u32::MAX)).unwrap_or(3);
    fields.finish();
    Some(Budget { percent, min_concurrency })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn what_is_tried_again_by_default_has_reached_nobody() {
        let (retry, budget) = good("{}", decode);
        let retry = retry.expect("a retry");
        assert_eq!((retry.attempts, retry.on.as_slice(), budget), (2, SAFE, None));
        assert!(retry.other_endpoint);
    }

    #[test]
    fn codes_alone_mean_only_these() {
        let (retry, _) = good("{codes: [503], backoff: {base: 10ms}}", decode);
        let retry = retry.expect("a retry");
        assert_eq!((retry.on, retry.codes), (vec![], vec![503]));
    }

    #[test]
    fn a_budget_alone_makes_nothing_be_tried_again() {
        let (retry, budget) = good("{budget: {percent: 10}}", decode);
        assert_eq!(retry, None);
        assert_eq!(budget, Some(Budget { percent: Percent::whole(10), min_concurrency: 3 }));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{attempts: -1, on: [5x], codes: [200], backoff: {base: 1s, max: 10ms}}", decode),
            [
                "1:15 a whole number from 0 to 100 is expected, this is the number -1",
                "1:63 the longest pause is shorter than the first",
                "1:24 \"5x\" is not one of 5xx, gateway-error, reset, reset-before-request, connect-failure, envoy-ratelimited, retriable-4xx, refused-stream, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable (did you mean \"5xx\"?)",
                "1:37 a whole number from 400 to 599 is expected, this is the number 200",
            ]
        );
    }
}
