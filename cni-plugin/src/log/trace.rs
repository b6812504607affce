//! W3C trace context (<https://www.w3.org/TR/trace-context/#traceparent-header>), as `TRACEPARENT` in the environment.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Where this run stands in somebody's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    /// The span of whoever runs the plugin.
    pub(crate) parent: String,
    /// The plugin's own.
    pub(crate) span: String,
    flags: String,
}

impl Trace {
    /// The trace that `text` names, with a new span in it; `None` where it is malformed.
    pub(crate) fn continued(text: &str) -> Option<Self> {
        Self::with_span(text, random())
    }

    fn with_span(text: &str, span: u64) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits && is_hex(part));
        let (version, id, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may say more, and none is ff.
        let says_more = parts.next().is_some();
        let is_nothing = |id: &str| id.bytes().all(|digit| digit == b'0');
        if version == "ff" || (version == "00" && says_more) || is_nothing(id) || is_nothing(parent) {
            return None;
        }
        let [id, parent, flags] = [id, parent, flags].map(str::to_owned);
        // A span of zeros is none.
        Some(Self { id, parent, span: format!("{:016x}", span.max(1)), flags })
    }
}

/// What a program is told that this run starts: the plugin's span is its parent.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", self.id, self.span, self.flags)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// From the keys that the standard library draws for its hash maps, once for each process.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn a_trace_goes_on_with_the_plugins_span() {
        let trace = Trace::with_span(&format!("00-{ID}-{PARENT}-01"), 0xabc).unwrap();
        assert_eq!(
            (trace.id.as_str(), trace.parent.as_str(), trace.span.as_str()),
            (ID, PARENT, "0000000000000abc")
        );
        assert_eq!(trace.to_string(), format!("00-{ID}-0000000000000abc-01"));
        let later = Trace::with_span(&format!("01-{ID}-{PARENT}-00-more-of-it"), 0).unwrap();
        assert_eq!(later.to_string(), format!("00-{ID}-0000000000000001-00"));
        assert_ne!(random(), random());
    }

    #[test]
    fn what_is_malformed_is_none() {
        let (zeros, short) = ("0".repeat(32), &ID[1..]);
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{ID}-{PARENT}"),
            format!("00-{ID}-{PARENT}-01-more"),
            format!("ff-{ID}-{PARENT}-01"),
            format!("0-{ID}-{PARENT}-01"),
            format!("00-{short}-{PARENT}-01"),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-{PARENT}-01", ID.to_uppercase()),
            format!("00-{ID}-{PARENT}-0x"),
            format!("00-{ID}-{PARENT}-01 "),
        ] {
            assert_eq!(Trace::with_span(&text, 1), None, "{text}");
        }
    }
}
