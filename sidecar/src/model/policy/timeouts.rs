//! `timeouts`: how long things may take.

use std::time::Duration;

use super::value::some_time;
use crate::read::Node;
use crate::read::decode::{Report, duration};

/// How long a request may take. `Some(0)` says that there is no limit, `None` says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, all tries together.
    pub request: Option<Duration>,
    /// Between two signs of life in either direction.
    pub idle: Option<Duration>,
}

/// What the policy says about requests, and how long a connection to an endpoint may take to be made.
pub(super) type Decoded = (Option<Timeouts>, Option<Duration>);

/// Reads `timeouts`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Decoded> {
    let mut fields = report.fields(node, "timeouts")?;
    let request = fields.optional("request", duration);
    let idle = fields.optional("idle", duration);
    let connect = fields.optional("connect", some_time);
    fields.finish();
    let timeouts = Timeouts { request, idle };
    Some(((timeouts != Timeouts::default()).then_some(timeouts), connect))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn zero_is_no_limit_except_for_connecting() {
        let (timeouts, connect) = good("{request: 0s, connect: 250ms}", decode);
        assert_eq!(timeouts, Some(Timeouts { request: Some(Duration::ZERO), idle: None }));
        assert_eq!(connect, Some(Duration::from_millis(250)));
        assert_eq!(
            mistakes("{connect: 0s, reqest: 1s}", decode),
            [
                "1:14 a duration above 0s is expected",
                "1:18 unknown field \"reqest\" in timeouts (did you mean \"request\"?)"
            ]
        );
    }
}
