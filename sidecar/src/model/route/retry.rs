//! When a request is tried again: HTTPRouteRetry of the Gateway API.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::read::Node;
use crate::read::decode::{Report, duration, integer};

/// When a request is tried again, beside when no endpoint can have seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// After answers with these codes, too.
    pub codes: Vec<u16>,
    /// How often at most. 0 means never.
    pub attempts: u32,
    /// How long about before the first retry; it doubles from one to the next. More than 0.
    pub backoff: Option<Duration>,
}

/// How often a request is tried again where the document does not say it: the API leaves it open.
const ATTEMPTS: u32 = 2;

impl Retry {
    pub(in crate::model) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "retry")?;
        let mut codes = fields.list("codes", integer(400_u16, 599));
        let attempts = fields.optional("attempts", integer(0, i32::MAX.cast_unsigned()));
        let backoff = fields.optional("backoff", backoff);
        fields.finish();
        codes.sort_unstable();
        codes.dedup();
        Some(Self { codes, attempts: attempts.unwrap_or(ATTEMPTS), backoff })
    }
}

fn backoff(node: &Node, report: &mut Report) -> Option<Duration> {
    let value = duration(node, report)?;
    if value.is_zero() {
        let mistake = Diagnostic::error("Envoy does not try again at once").help("give at least 1ms");
        return report.add(node.span, mistake);
    }
    Some(value)
}
