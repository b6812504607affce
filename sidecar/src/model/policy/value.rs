//! Values that several groups of a policy have.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::read::decode::{Report, Shape, boolean, duration, text};
use crate::read::{Node, Value};

/// A part of all requests, in millionths, as finely as Envoy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// Whole percents; more than 100 are 100.
    pub const fn whole(percent: u32) -> Self {
        Self(if percent > 100 { 1_000_000 } else { percent * 10_000 })
    }

    /// In millionths of the whole.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// In percent.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// An address and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The bits that count.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A percentage from 0 to 100, with up to four decimals: `5`, `0.1`.
pub(super) fn percent(node: &Node, report: &mut Report) -> Option<Percent> {
    report.saw(|| Shape::Any);
    let value = match node.value {
        Value::Integer(value) => u32::try_from(value).ok().filter(|value| *value <= 100).map(Percent::whole),
        Value::Float(value) if (0.0..=100.0).contains(&value) => millionths(value),
        _ => None,
    };
    value.or_else(|| {
        let expected = "a percentage from 0 to 100 is expected";
        report.error(node.span, format!("{expected}, this is {}", node.described()))
    })
}

/// `value` percent, which is from 0 to 100; the text is how a float becomes an integer without a cast.
fn millionths(value: f64) -> Option<Percent> {
    format!("{:.0}", value * 10_000.0).parse().ok().map(Percent)
}

/// A number above 0.
pub(super) fn positive(node: &Node, report: &mut Report) -> Option<f64> {
    report.saw(|| Shape::Any);
    let value = match node.value {
        Value::Integer(value) => i32::try_from(value).ok().map(f64::from),
        Value::Float(value) => Some(value),
        _ => None,
    };
    value.filter(|value| value.is_finite() && *value > 0.0).or_else(|| {
        report.error(node.span, format!("a number above 0 is expected, this is {}", node.described()))
    })
}

/// A duration above 0.
pub(super) fn some_time(node: &Node, report: &mut Report) -> Option<Duration> {
    match duration(node, report)? {
        Duration::ZERO => report.error(node.span, "a duration above 0s is expected"),
        some => Some(some),
    }
}

/// A field that is switched on by `true`; `false` is as if it were absent.
pub(super) fn switch(node: &Node, report: &mut Report) -> Option<()> {
    boolean(node, report)?.then_some(())
}

/// An address, or a network as `10.0.0.0/8`.
pub(super) fn cidr(node: &Node, report: &mut Report) -> Option<Cidr> {
    let given = text(node, report)?;
    parse_cidr(&given).or_else(|| {
        let mistake = Diagnostic::error(format!("{given:?} is not an address or a network"))
            .help("write it as 10.0.0.0/8, fd00::/8 or 10.1.2.3");
        report.add(node.span, mistake)
    })
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= most)?,
        None => most,
    };
    Some(Cidr { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn percentages_are_kept_to_the_ten_thousandth() {
        for (text, millionths) in
            [("0", 0), ("100", 1_000_000), ("0.1", 1_000), ("12.5", 125_000), ("0.0001", 1)]
        {
            assert_eq!(good(text, percent).millionths(), millionths, "{text}");
        }
        assert_eq!(
            mistakes("101", percent),
            ["1:4 a percentage from 0 to 100 is expected, this is the number 101"]
        );
        assert_eq!(mistakes("-0.5", percent).len(), 1);
    }

    #[test]
    fn networks_are_told_from_what_only_looks_like_one() {
        assert_eq!(good("10.0.0.0/8", cidr).to_string(), "10.0.0.0/8");
        assert_eq!(good("\"fd00::1\"", cidr).to_string(), "fd00::1/128");
        for text in ["10.0.0.0/33", "10.0.0/8", "web", "10.0.0.1/"] {
            assert_eq!(mistakes(text, cidr).len(), 1, "{text}");
        }
    }
}
