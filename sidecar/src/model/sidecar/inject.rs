//! `inject`: which tags go where, and which requests are written down.

use crate::diagnostic::Span;
use crate::read::decode::{Report, one_of, text};
use crate::read::{Node, Value};

/// What is injected, by name; whether there are such tags is for the whole configuration to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inject {
    /// The tags that upstreams see as request headers; where it is absent, those of `tags`.
    pub request_headers: Option<Vec<Named>>,
    /// The tags that callers see as response headers.
    pub response_headers: Vec<Named>,
    /// The tags by which requests are counted.
    pub stats: Vec<Named>,
    /// Which requests are written to the access log.
    pub access_log: Logged,
    /// The share of requests that is traced; where it is absent, tracing is off.
    pub tracing: Option<Share>,
}

/// The name of a tag, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The tag's key.
    pub key: String,
    /// Its place.
    pub span: Span,
}

/// Which requests are written to the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logged {
    /// None.
    #[default]
    None,
    /// Those answered with 500 or more, and those that Envoy itself answered or broke off.
    Errors,
    /// Every one.
    All,
}

/// A share of requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// How many of a million requests.
    pub fn of_a_million(self) -> u32 {
        self.0
    }
}

/// Reads `inject`.
pub fn inject(node: &Node, report: &mut Report) -> Option<Inject> {
    let mut fields = report.fields(node, "inject")?;
    let given = node.get("requestHeaders").is_some_and(|node| node.value != Value::Null);
    let request_headers = fields.list("requestHeaders", named);
    let inject = Inject {
        request_headers: given.then_some(request_headers),
        response_headers: fields.list("responseHeaders", named),
        stats: fields.list("stats", named),
        access_log: fields.optional("accessLog", one_of(LOGGED)).unwrap_or_default(),
        tracing: fields.optional("tracing", traced).flatten(),
    };
    fields.finish();
    Some(inject)
}

const LOGGED: &[(&str, Logged)] = &[("all", Logged::All), ("errors", Logged::Errors), ("none", Logged::None)];

fn named(node: &Node, report: &mut Report) -> Option<Named> {
    Some(Named { key: text(node, report)?, span: node.span })
}

fn traced(node: &Node, report: &mut Report) -> Option<Option<Share>> {
    match text(node, report)?.as_str() {
        "all" => Some(Some(Share::ALL)),
        "none" => Some(None),
        given => match parse_share(given) {
            Some(share) => Some(Some(share).filter(|share| share.0 > 0)),
            None => report.error(node.span, format!("{given:?} is not all, none or a share as 5%")),
        },
    }
}

/// A share as `5%` or `0.01%`.
pub fn share(node: &Node, report: &mut Report) -> Option<Share> {
    let given = text(node, report)?;
    parse_share(&given)
        .or_else(|| report.error(node.span, format!("{given:?} is not a share as 5% or 0.01%")))
}

/// Millionths are ten-thousandths of a percent, so that four decimals are all that can be told apart.
fn parse_share(given: &str) -> Option<Share> {
    let number = given.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 3) || !digits(decimals, 4) {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()? * 10_000 + format!("{decimals:0<4}").parse::<u32>().ok()?;
    (millionths <= Share::ALL.0).then_some(Share(millionths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_of_at_most_four_decimals() {
        for (given, millionths) in
            [("5%", 50_000), ("100%", 1_000_000), ("0.01%", 100), ("12.3456%", 123_456), ("0%", 0)]
        {
            assert_eq!(parse_share(given), Some(Share(millionths)), "{given}");
        }
        for given in ["", "%", "5", "101%", "100.0001%", "1.23456%", "-1%", ".5%", "5.%", "1e1%", "5 %"] {
            assert_eq!(parse_share(given), None, "{given}");
        }
    }
}
