//! Which requests a rule is about: HTTPRouteMatch of the Gateway API.

use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// Which requests are meant: those for which all of it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The path, without the query.
    pub path: PathMatch,
    /// The method, if only one is meant.
    pub method: Option<&'static str>,
    /// The headers; names are in lower case and differ from each other.
    pub headers: Vec<ValueMatch>,
    /// The query parameters; names differ from each other.
    pub query: Vec<ValueMatch>,
}

/// Which paths are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// Those that begin with these elements: `/foo` means `/foo` and `/foo/bar`, not `/foobar`. Has no slash at its
    /// end; empty means every path.
    Prefix(String),
    /// Those that this expression matches from beginning to end.
    Regex(String),
    /// Those of these gRPC methods.
    Rpc(RpcMatch),
}

/// Which gRPC methods are meant: those whose path, `/service/method`, fits. What is absent means any; not both are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcMatch {
    /// The service with its package.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// Whether both are expressions, to match from beginning to end.
    pub regex: bool,
}

/// Which values of a header or query parameter are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// The name.
    pub name: String,
    /// The value, or an expression for it.
    pub value: String,
    /// Whether the value is an expression, to match from beginning to end.
    pub regex: bool,
}

/// What a regular expression is, in Gateway API words.
const EXACT_OR_REGEX: &[(&str, bool)] = &[("Exact", false), ("RegularExpression", true)];

/// The longest values of the Gateway API: of a path, a header, a query parameter.
const MAX_PATH: usize = 1_024;
const MAX_HEADER_VALUE: usize = 4_096;
const MAX_QUERY_VALUE: usize = 1_024;

/// The methods that CORS can allow (HTTPMethodWithWildcard).
pub(super) const METHODS_OR_ALL: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
    ("*", "*"),
];

/// The methods that routes can ask for (HTTPMethod): those, without the wildcard.
pub(super) const METHODS: &[(&str, &str)] = METHODS_OR_ALL.split_at(9).0;

impl Default for Match {
    fn default() -> Self {
        Self { path: PathMatch::Prefix(String::new()), method: None, headers: Vec::new(), query: Vec::new() }
    }
}

impl PathMatch {
    /// Reads the value of a path match of the Gateway API. A slash at the end of a prefix says nothing there.
    pub fn prefix(value: &str) -> Self {
        Self::Prefix(value.trim_end_matches('/').to_owned())
    }

    /// The same without [`PathMatch::Rpc`]: as a path, a prefix or an expression.
    pub fn plain(&self) -> Self {
        match self {
            Self::Rpc(rpc) => rpc.path(),
            other => other.clone(),
        }
    }
}

impl RpcMatch {
    fn path(&self) -> PathMatch {
        match (&self.service, &self.method) {
            (Some(service), Some(method)) if !self.regex => PathMatch::Exact(format!("/{service}/{method}")),
            (Some(service), None) if !self.regex => PathMatch::Prefix(format!("/{service}")),
            (service, method) => PathMatch::Regex(format!("/{}/{}", self.part(service), self.part(method))),
        }
    }

    fn part(&self, name: &Option<String>) -> String {
        match name {
            Some(name) if self.regex => format!("(?:{name})"),
            Some(name) => regex_syntax::escape(name),
            None => "[^/]+".into(),
        }
    }
}

/// Reads an HTTPRouteMatch of the Gateway API.
pub(super) fn http_match(node: &Node, report: &mut Report) -> Option<Match> {
    let mut fields = report.fields(node, "match")?;
    let path = fields.optional("path", path_match).unwrap_or_else(|| PathMatch::prefix("/"));
    let method = fields.optional("method", one_of(METHODS));
    let headers = fields.list("headers", header_match);
    let query = fields.list("queryParams", query_match);
    fields.finish();
    if method == Some("CONNECT") && path != PathMatch::prefix("/") {
        return report.error(node.span, "a CONNECT request has no path that could be matched");
    }
    Some(Match { path, method, headers: first_of_each(headers), query: first_of_each(query) })
}

/// Reads a GRPCRouteMatch of the Gateway API.
pub(super) fn grpc_match(node: &Node, report: &mut Report) -> Option<Match> {
    let mut fields = report.fields(node, "match")?;
    let rpc = fields.optional("method", rpc_match);
    let headers = fields.list("headers", header_match);
    fields.finish();
    let path = rpc.map_or_else(|| PathMatch::prefix("/"), PathMatch::Rpc);
    Some(Match { path, headers: first_of_each(headers), ..Match::default() })
}

/// At least one of the two is not empty (GRPCMethodMatch).
fn rpc_match(node: &Node, report: &mut Report) -> Option<RpcMatch> {
    let mut fields = report.fields(node, "method")?;
    let regex = fields.optional("type", one_of(EXACT_OR_REGEX)).unwrap_or(false);
    let service = fields.optional("service", |node, report| rpc_name(node, report, regex, true));
    let method = fields.optional("method", |node, report| rpc_name(node, report, regex, false));
    fields.finish();
    let some = |name: Option<String>| name.filter(|name| !name.is_empty());
    let rpc = RpcMatch { service: some(service), method: some(method), regex };
    if rpc.service.is_none() && rpc.method.is_none() {
        return report.error(node.span, "one of service and method must be given");
    }
    Some(rpc)
}

/// The patterns are those of the API's own validation; a leading dot of a service says nothing.
fn rpc_name(node: &Node, report: &mut Report, is_regex: bool, dots: bool) -> Option<String> {
    let given = text(node, report)?;
    if given.is_empty() {
        return Some(given);
    }
    if is_regex {
        return regex(MAX_PATH)(node, report);
    }
    let word = |word: &str| {
        let mut bytes = word.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let fits =
        if dots { given.strip_prefix('.').unwrap_or(&given).split('.').all(word) } else { word(&given) };
    if fits {
        return Some(given.trim_start_matches('.').to_owned());
    }
    let what = if dots { "service" } else { "method" };
    report.error(node.span, format!("{given:?} is not the name of a gRPC {what}"))
}

/// Of several entries for one name only the first counts (HTTPRouteMatch in the API reference).
fn first_of_each(matches: Vec<ValueMatch>) -> Vec<ValueMatch> {
    let mut kept: Vec<ValueMatch> = Vec::new();
    for candidate in matches {
        if kept.iter().all(|earlier| earlier.name != candidate.name) {
            kept.push(candidate);
        }
    }
    kept
}

#[derive(Clone, Copy)]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

const PATH_KINDS: &[(&str, PathKind)] =
    &[("Exact", PathKind::Exact), ("PathPrefix", PathKind::Prefix), ("RegularExpression", PathKind::Regex)];

pub(super) fn path_match(node: &Node, report: &mut Report) -> Option<PathMatch> {
    let mut fields = report.fields(node, "path")?;
    let kind = fields.optional("type", one_of(PATH_KINDS)).unwrap_or(PathKind::Prefix);
    let value = fields.optional("value", |node, report| match kind {
        PathKind::Regex => regex(MAX_PATH)(node, report),
        PathKind::Exact | PathKind::Prefix => path(node, report),
    });
    fields.finish();
    let value = value.unwrap_or_else(|| "/".into());
    Some(match kind {
        PathKind::Exact => PathMatch::Exact(value),
        PathKind::Prefix => PathMatch::prefix(&value),
        PathKind::Regex => PathMatch::Regex(value),
    })
}

/// The rules that the Gateway API's own validation has for Exact and PathPrefix.
fn path(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let lower = given.to_ascii_lowercase();
    let forbidden = ["//", "/./", "/../", "%2f", "#"].into_iter().find(|part| lower.contains(part));
    if !given.starts_with('/') {
        return report.error(node.span, format!("the path {given:?} must begin with a slash"));
    }
    if let Some(part) = forbidden {
        return report.error(node.span, format!("the path {given:?} must not contain {part:?}"));
    }
    if given.len() > MAX_PATH {
        return report.error(node.span, format!("the path has more than {MAX_PATH} bytes"));
    }
    if given.ends_with("/..") || given.ends_with("/.") {
        return report.error(node.span, format!("the path {given:?} must not end with dots"));
    }
    if !has_characters_of_a_path(&given) {
        return report.error(node.span, format!("the path {given:?} has a character that no path has"));
    }
    Some(given)
}

/// RFC 3986's `pchar` and slashes, as the Gateway API's own validation has it.
fn has_characters_of_a_path(text: &str) -> bool {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let fits = match byte {
            b'%' => rest.by_ref().take(2).filter(u8::is_ascii_hexdigit).count() == 2,
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !fits {
            return false;
        }
    }
    true
}

pub(super) fn header_match(node: &Node, report: &mut Report) -> Option<ValueMatch> {
    value_match(node, report, "header match", header_name, MAX_HEADER_VALUE)
}

/// The name of a header, in lower case.
pub(super) fn header_name(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if is_token(&given) {
        return Some(given.to_ascii_lowercase());
    }
    report.error(node.span, format!("{given:?} is not a header name"))
}

fn query_match(node: &Node, report: &mut Report) -> Option<ValueMatch> {
    value_match(node, report, "query parameter match", query_name, MAX_QUERY_VALUE)
}

/// Envoy rejects an empty one and one of more than 1 024 bytes; the Gateway API takes 256.
fn query_name(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if (1..=256).contains(&given.len()) {
        return Some(given);
    }
    report.error(node.span, "the name of a query parameter has 1 to 256 bytes")
}

fn value_match(
    node: &Node,
    report: &mut Report,
    what: &'static str,
    name: impl FnOnce(&Node, &mut Report) -> Option<String>,
    longest: usize,
) -> Option<ValueMatch> {
    let mut fields = report.fields(node, what)?;
    let is_regex = fields.optional("type", one_of(EXACT_OR_REGEX)).unwrap_or(false);
    let name = fields.required("name", name);
    let value = fields.required("value", |node, report| {
        if is_regex { regex(longest)(node, report) } else { value_of(longest)(node, report) }
    });
    fields.finish();
    Some(ValueMatch { name: name?, value: value?, regex: is_regex })
}

/// The value of a header; never empty.
pub(super) fn header_value(node: &Node, report: &mut Report) -> Option<String> {
    value_of(MAX_HEADER_VALUE)(node, report)
}

fn value_of(longest: usize) -> impl Fn(&Node, &mut Report) -> Option<String> {
    move |node, report| {
        let given = text(node, report)?;
        if given.is_empty() || given.chars().any(char::is_control) {
            return report.error(node.span, "the value must not be empty or contain control characters");
        }
        short_enough(given, longest, node, report)
    }
}

fn regex(longest: usize) -> impl Fn(&Node, &mut Report) -> Option<String> {
    move |node, report| {
        let given = text(node, report)?;
        match super::regex::check(&given) {
            Ok(()) => short_enough(given, longest, node, report),
            Err(why) => report.error(node.span, format!("{given:?} is not a regular expression: {why}")),
        }
    }
}

fn short_enough(given: String, longest: usize, node: &Node, report: &mut Report) -> Option<String> {
    if given.len() <= longest {
        return Some(given);
    }
    report.error(node.span, format!("the value has more than {longest} bytes"))
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_method_is_a_path() {
        let rpc = |service: &str, method: &str, regex| {
            let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
            PathMatch::Rpc(RpcMatch { service: some(service), method: some(method), regex }).plain()
        };
        for (path, expected) in [
            (rpc("a.B", "C", false), PathMatch::Exact("/a.B/C".into())),
            (rpc("a.B", "", false), PathMatch::Prefix("/a.B".into())),
            (rpc("", "C", false), PathMatch::Regex("/[^/]+/C".into())),
            (rpc("a|b", "C.*", true), PathMatch::Regex("/(?:a|b)/(?:C.*)".into())),
            (rpc("a|b", "", true), PathMatch::Regex("/(?:a|b)/[^/]+".into())),
        ] {
            assert_eq!(path, expected);
        }
    }

    #[test]
    fn a_path_has_the_characters_that_the_gateway_api_lets_it_have() {
        for path in ["/a-Z0.9/_~!$&'()*+,;=:@", "/%20%Ff", "/"] {
            assert!(has_characters_of_a_path(path), "{path}");
        }
        for path in ["/ ", "/%2", "/%", "/%zz", "/a?b", "/\"", "/é", "/a\\b", "/[", "/^"] {
            assert!(!has_characters_of_a_path(path), "{path}");
        }
    }
}
