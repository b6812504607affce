//! `faults`: delays and errors made on purpose.

use std::time::Duration;

use super::value::{Percent, percent, some_time};
use crate::model::matching::{ValueMatch, header_match};
use crate::read::Node;
use crate::read::decode::{Report, integer};

/// What is done to requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// They wait before they are sent on.
    pub delay: Option<Delay>,
    /// They are answered instead of being sent on.
    pub abort: Option<Abort>,
    /// Only those with all of these headers.
    pub headers: Vec<ValueMatch>,
}

/// A delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// How many of the requests.
    pub percent: Percent,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// What the client sees.
    pub status: AbortStatus,
    /// How many of the requests.
    pub percent: Percent,
}

/// What the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status code.
    Http(u32),
    /// A gRPC status code.
    Grpc(u32),
}

/// Reads `faults`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Faults> {
    let mut fields = report.fields(node, "faults")?;
    let delay = fields.optional("delay", delay);
    let abort = fields.optional("abort", abort);
    let headers = fields.list("headers", header_match);
    if node.get("delay").is_none() && node.get("abort").is_none() {
        fields.error::<()>("faults has neither \"delay\" nor \"abort\"");
    }
    fields.finish();
    Some(Faults { delay, abort, headers })
}

fn delay(node: &Node, report: &mut Report) -> Option<Delay> {
    let mut fields = report.fields(node, "delay")?;
    let duration = fields.required("duration", some_time);
    let percent = fields.optional("percent", percent).unwrap_or(Percent::ALL);
    fields.finish();
    Some(Delay { duration: duration?, percent })
}

fn abort(node: &Node, report: &mut Report) -> Option<Abort> {
    let mut fields = report.fields(node, "abort")?;
    let http = fields.optional("status", integer(200, 599)).map(AbortStatus::Http);
    let grpc = fields.optional("grpcStatus", integer(0, 16)).map(AbortStatus::Grpc);
    let percent = fields.optional("percent", percent).unwrap_or(Percent::ALL);
    if node.get("status").is_some() == node.get("grpcStatus").is_some() {
        fields.error::<()>("abort has either \"status\" or \"grpcStatus\"");
    }
    fields.finish();
    Some(Abort { status: http.or(grpc)?, percent })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn a_fault_without_a_percentage_happens_always() {
        let faults = good("{abort: {status: 503}, delay: {duration: 1s, percent: 0.5}}", decode);
        let abort = Abort { status: AbortStatus::Http(503), percent: Percent::ALL };
        assert_eq!(faults.abort, Some(abort));
        assert_eq!(faults.delay.map(|delay| delay.percent.millionths()), Some(5_000));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(mistakes("{}", decode), ["1:4 faults has neither \"delay\" nor \"abort\""]);
        assert_eq!(
            mistakes("{abort: {status: 503, grpcStatus: 14}, delay: {}}", decode),
            ["1:50 delay has no \"duration\"", "1:12 abort has either \"status\" or \"grpcStatus\""]
        );
    }
}
