//! `HTTPRoute` (gateway.networking.k8s.io/v1), attached to Services as the Gateway API defines it for meshes.

use super::metadata::dns_name;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Report, integer, one_of, port, text};

/// A route as its document has it.
#[derive(Debug, Clone)]
pub struct HttpRoute {
    /// The services whose requests it distributes.
    pub parents: Vec<ParentRef>,
    /// Its rules, in the order of the document.
    pub rules: Vec<RouteRule>,
}

/// A service, or one port of it, that a route attaches to.
#[derive(Debug, Clone)]
pub struct ParentRef {
    /// Where the reference stands.
    pub span: Span,
    /// The service's namespace, where it is given.
    pub namespace: Option<String>,
    /// The service's name.
    pub name: String,
    /// Only this port.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section_name: Option<String>,
}

/// A rule: any of the matches leads to the backends.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// Where the rule stands.
    pub span: Span,
    /// Never empty: a rule without matches matches every request.
    pub matches: Vec<Match>,
    /// Where requests go.
    pub backends: Vec<BackendRef>,
}

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

/// A service's port as the destination of requests.
#[derive(Debug, Clone)]
pub struct BackendRef {
    /// Where the reference stands.
    pub span: Span,
    /// The service's namespace, where it is given.
    pub namespace: Option<String>,
    /// The service's name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Its share; 0 means none.
    pub weight: u32,
}

/// What a regular expression is, in Gateway API words.
const EXACT_OR_REGEX: &[(&str, bool)] = &[("Exact", false), ("RegularExpression", true)];

const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

/// The largest weight of the Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

impl HttpRoute {
    /// Reads the `spec` of an `HTTPRoute`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "HTTPRoute spec")?;
        let parents = fields.list("parentRefs", parent_ref);
        if spec.get("parentRefs").is_none_or(Node::is_empty) {
            fields.error::<()>("the route is attached to nothing: it has no \"parentRefs\"");
        }
        let mut rules = fields.list("rules", rule);
        if spec.get("rules").is_none_or(Node::is_empty) {
            rules.push(RouteRule { span: spec.span, matches: vec![Match::default()], backends: Vec::new() });
        }
        // For a Service the name that clients use is the Service's.
        fields.unsupported(&["hostnames", "useDefaultGateways"]);
        fields.finish();
        Some(Self { parents, rules })
    }
}

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
}

fn parent_ref(node: &Node, report: &mut Report) -> Option<ParentRef> {
    let mut fields = report.fields(node, "parentRef")?;
    let group = fields.optional("group", text);
    let kind = fields.optional("kind", text);
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
    let port = fields.optional("port", port);
    let section_name = fields.optional("sectionName", text);
    let span = fields.key_span("name");
    check_parent_kind(group.as_deref(), kind.as_deref(), span, fields.report());
    fields.finish();
    Some(ParentRef { span, namespace, name: name?, port, section_name })
}

/// Group and kind default to a Gateway (ParentReference in the API reference).
fn check_parent_kind(group: Option<&str>, kind: Option<&str>, span: Span, report: &mut Report) {
    match (group, kind.unwrap_or("Gateway")) {
        (Some("" | "core"), "Service") => {}
        (None, "Service") => {
            let mistake = Diagnostic::error("a parentRef to a Service must name its group")
                .help("add group: \"\" (the default is gateway.networking.k8s.io)");
            report.add::<()>(span, mistake);
        }
        (_, kind) => {
            let mistake = Diagnostic::error(format!("a parentRef to a {kind} is not supported yet"))
                .help("attach the route to a Service: group: \"\", kind: Service");
            report.add::<()>(span, mistake);
        }
    }
}

fn rule(node: &Node, report: &mut Report) -> Option<RouteRule> {
    let mut fields = report.fields(node, "rule")?;
    fields.accept(&["name"]);
    let mut matches = fields.list("matches", route_match);
    if node.get("matches").is_none_or(Node::is_empty) {
        matches.push(Match::default());
    }
    let backends = fields.list("backendRefs", backend_ref);
    if backends.iter().map(|backend| u64::from(backend.weight)).sum::<u64>() > u64::from(u32::MAX) {
        let span = fields.key_span("backendRefs");
        fields.report().error::<()>(span, format!("the weights add up to more than {}", u32::MAX));
    }
    fields.unsupported(&["filters", "timeouts", "retry", "sessionPersistence"]);
    fields.finish();
    Some(RouteRule { span: node.span, matches, backends })
}

fn route_match(node: &Node, report: &mut Report) -> Option<Match> {
    let mut fields = report.fields(node, "match")?;
    let path = fields.optional("path", path_match).unwrap_or_else(|| PathMatch::prefix("/"));
    let method = fields.optional("method", one_of(METHODS));
    let headers = fields.list("headers", header_match);
    let query = fields.list("queryParams", query_match);
    fields.finish();
    Some(Match { path, method, headers: first_of_each(headers), query: first_of_each(query) })
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

fn path_match(node: &Node, report: &mut Report) -> Option<PathMatch> {
    let mut fields = report.fields(node, "path")?;
    let kind = fields.optional("type", one_of(PATH_KINDS)).unwrap_or(PathKind::Prefix);
    let value = fields.optional("value", |node, report| match kind {
        PathKind::Regex => regex(node, report),
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
    if given.ends_with("/..") || given.ends_with("/.") {
        return report.error(node.span, format!("the path {given:?} must not end with dots"));
    }
    if given.contains('?') || given.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return report.error(node.span, format!("the path {given:?} has a character that no path has"));
    }
    Some(given)
}

fn header_match(node: &Node, report: &mut Report) -> Option<ValueMatch> {
    let header_name = |node: &Node, report: &mut Report| {
        let given = text(node, report)?;
        if is_token(&given) {
            return Some(given.to_ascii_lowercase());
        }
        report.error(node.span, format!("{given:?} is not a header name"))
    };
    value_match(node, report, "header match", header_name)
}

fn query_match(node: &Node, report: &mut Report) -> Option<ValueMatch> {
    value_match(node, report, "query parameter match", query_name)
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
) -> Option<ValueMatch> {
    let mut fields = report.fields(node, what)?;
    let is_regex = fields.optional("type", one_of(EXACT_OR_REGEX)).unwrap_or(false);
    let name = fields.required("name", name);
    let value = fields.required("value", if is_regex { regex } else { header_value });
    fields.finish();
    Some(ValueMatch { name: name?, value: value?, regex: is_regex })
}

fn header_value(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if given.is_empty() || given.chars().any(char::is_control) {
        return report.error(node.span, "the value must not be empty or contain control characters");
    }
    Some(given)
}

fn regex(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    match super::regex::check(&given) {
        Ok(()) => Some(given),
        Err(why) => report.error(node.span, format!("{given:?} is not a regular expression: {why}")),
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(part)
}

fn backend_ref(node: &Node, report: &mut Report) -> Option<BackendRef> {
    let mut fields = report.fields(node, "backendRef")?;
    let group = fields.optional("group", text).unwrap_or_default();
    let kind = fields.optional("kind", text).unwrap_or_else(|| "Service".into());
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
    let port = fields.required("port", port);
    let weight = fields.optional("weight", integer(0, MAX_WEIGHT)).unwrap_or(1);
    fields.unsupported(&["filters"]);
    let span = fields.key_span("name");
    if kind != "Service" || !matches!(group.as_str(), "" | "core") {
        fields.report().error::<()>(span, format!("a backendRef to a {kind} is not supported yet"));
    }
    fields.finish();
    Some(BackendRef { span, namespace, name: name?, port: port?, weight })
}
