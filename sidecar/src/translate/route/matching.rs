//! Which requests Envoy takes a route for.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::{ConnectMatcher, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::model::matching::{Match, PathMatch, ValueMatch};

/// As [`route_match`], for `below` of a million requests: the number is the same for all routes that a request is compared
/// with.
pub(super) fn share_match(matching: &Match, below: Option<u32>) -> RouteMatch {
    RouteMatch { runtime_fraction: below.map(fraction), ..route_match(matching) }
}

/// The question of a browser whether a request with this method, by a page of another origin, would be permitted.
pub(super) fn preflight_match(matching: &Match, method: &str) -> RouteMatch {
    let asked = header_matcher("access-control-request-method", method, false);
    let mut preflight = route_match(&Match { method: Some("OPTIONS"), ..matching.clone() });
    preflight.headers.push(asked);
    preflight
}

/// So many of a million.
pub(super) fn fraction(millionths: u32) -> RuntimeFractionalPercent {
    let percent = FractionalPercent { numerator: millionths, denominator: DenominatorType::Million.into() };
    RuntimeFractionalPercent { default_value: Some(percent), runtime_key: String::new() }
}

pub(in crate::translate) fn route_match(matching: &Match) -> RouteMatch {
    let method = matching.method.map(|method| header_matcher(":method", method, false));
    let headers = matching
        .headers
        .iter()
        .map(|header| header_matcher(name_in_envoy(&header.name), &header.value, header.regex));
    RouteMatch {
        path_specifier: Some(path_of(matching)),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: matching.query.iter().map(query_matcher).collect(),
        ..RouteMatch::default()
    }
}

/// Whatever the version of HTTP, Envoy has the host as HTTP/2 has it.
fn name_in_envoy(header: &str) -> &str {
    if header == "host" { ":authority" } else { header }
}

/// What CONNECT asks for is a host and a port; Envoy compares it with no path.
fn path_of(matching: &Match) -> PathSpecifier {
    match matching.method {
        Some("CONNECT") => PathSpecifier::ConnectMatcher(ConnectMatcher::default()),
        _ => path(&matching.path),
    }
}

fn path(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Rpc(_) => self::path(&path.plain()),
        PathMatch::Exact(value) => PathSpecifier::Path(value.clone()),
        PathMatch::Prefix(value) if value.is_empty() => PathSpecifier::Prefix("/".into()),
        // By elements, as the Gateway API has it: /foo is /foo and /foo/bar, not /foobar.
        PathMatch::Prefix(value) => PathSpecifier::PathSeparatedPrefix(value.clone()),
        PathMatch::Regex(value) => PathSpecifier::SafeRegex(regex(value)),
    }
}

pub(in crate::translate) fn header_matcher(name: &str, value: &str, is_regex: bool) -> HeaderMatcher {
    HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_matcher(value, is_regex))),
        ..HeaderMatcher::default()
    }
}

fn query_matcher(query: &ValueMatch) -> QueryParameterMatcher {
    let matcher = string_matcher(&query.value, query.regex);
    QueryParameterMatcher {
        name: query.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(matcher)),
    }
}

fn string_matcher(value: &str, is_regex: bool) -> StringMatcher {
    let pattern =
        if is_regex { MatchPattern::SafeRegex(regex(value)) } else { MatchPattern::Exact(value.into()) };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub(in crate::translate) fn regex(value: &str) -> RegexMatcher {
    RegexMatcher { regex: value.into(), ..RegexMatcher::default() }
}
