//! Host names, as the Gateway API writes them: Hostname and PreciseHostname of its shared types.

use std::fmt;
use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::read::Node;
use crate::read::decode::{Report, text};

/// A DNS name in lower case, or one whose first label is `*`. Never an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hostname(String);

impl Hostname {
    /// Reads a Hostname, in which `*.` may stand for one or more labels.
    pub fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let given = text(node, report)?;
        Self::parse(&given).or_else(|| report.add(node.span, mistake(&given)))
    }

    /// A Hostname, if `text` is one.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("*.").unwrap_or(text);
        (is_dns_name(rest) && text.len() <= 253).then(|| Self(text.to_owned()))
    }

    /// Reads a PreciseHostname, which has no wildcard.
    pub fn precise(node: &Node, report: &mut Report) -> Option<Self> {
        let name = Self::decode(node, report)?;
        if name.suffix().is_none() {
            return Some(name);
        }
        report.error(node.span, format!("{name} has a wildcard, and this must be one host"))
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every host that `other` means is one that this means.
    pub fn covers(&self, other: &Self) -> bool {
        match self.suffix() {
            Some(suffix) => other.0.ends_with(suffix),
            None => self == other,
        }
    }

    /// The hosts that both mean, if there are any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            return Some(other.clone());
        }
        other.covers(self).then(|| self.clone())
    }

    /// Of `*.example.com`: `.example.com`, which every host that it means ends with.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn mistake(given: &str) -> Diagnostic {
    if given.parse::<IpAddr>().is_ok() {
        return Diagnostic::error(format!("{given} is an IP address, and this must be a name"));
    }
    Diagnostic::error(format!("{given:?} is not a host name"))
        .help("use lower-case letters, digits, dashes and dots, as in www.example.com")
}

/// Nothing that could be read as an IPv4 address is a name.
fn is_dns_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(label) && text.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_names_both_mean() {
        let of = |text: &str| Hostname::parse(text).expect("a name");
        for (one, other, both) in [
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.org", None),
            ("*.example.com", "*.example.com", Some("*.example.com")),
        ] {
            assert_eq!(of(one).intersection(&of(other)), both.map(of), "{one} {other}");
            assert_eq!(of(other).intersection(&of(one)), both.map(of), "{other} {one}");
        }
    }

    #[test]
    fn a_host_name_is_a_dns_name_that_may_begin_with_a_wildcard() {
        for text in ["a", "example.com", "*.example.com", "1.example", "*.com"] {
            assert!(Hostname::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "*",
            "a*.example.com",
            "*.*.com",
            "Example.com",
            "a..b",
            "-a",
            "10.0.0.1",
            "::1",
            "a.",
            "a:80",
        ] {
            assert!(Hostname::parse(text).is_none(), "{text}");
        }
    }
}
