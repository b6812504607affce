//! What an `HTTPRoute` and a `GRPCRoute` have in common once they are read: whom they attach to, and rules.

mod retry;
mod session;

use std::sync::Arc;
use std::time::Duration;

pub use retry::Retry;
pub use session::{Lifetime, Session};

use super::filter::Filters;
use super::hostname::Hostname;
use super::matching::{Match, PathMatch};
use super::metadata::dns_name;
use super::reference::{ParentRef, WeightedRef, backend_ref, parent_ref};
use crate::diagnostic::{Diagnostic, Span};
use crate::read::decode::{Fields, Report};
use crate::read::{Node, Value};

/// A route as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which kind it is of.
    pub kind: RouteKind,
    /// Whose requests it distributes.
    pub parents: Vec<ParentRef>,
    /// The hosts it is for, at a Gateway; at a Service they mean nothing (GEP-1426).
    pub hostnames: Vec<Hostname>,
    /// Where `hostnames` stands.
    pub hostnames_span: Span,
    /// Its rules, in the order of the document. Never empty.
    pub rules: Vec<RouteRule>,
}

/// The kinds of routes that are about requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
}

/// A rule: any of the matches leads to the backends.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRule {
    /// Where the rule stands.
    pub span: Span,
    /// Its name, where it has one; unique within the route.
    pub name: Option<String>,
    /// Never empty: a rule without matches matches every request.
    pub matches: Vec<Match>,
    /// What is done to the requests, and to their answers.
    pub filters: Option<Arc<Filters>>,
    /// Where requests go.
    pub backends: Vec<WeightedRef>,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// When they are tried again.
    pub retry: Option<Retry>,
    /// How a client stays with its endpoint.
    pub session: Option<Session>,
}

/// How long requests may take: HTTPRouteTimeouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request to the end of the answer, all tries together; `None` means for ever.
    pub request: Option<Duration>,
    /// The same of each try.
    pub backend_request: Option<Duration>,
}

impl RouteKind {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

impl Route {
    /// Reads the `spec` of a route; `match_of` reads one match, and `rest` the fields of a rule that only one kind has.
    pub(super) fn decode(
        kind: RouteKind,
        spec: &Node,
        report: &mut Report,
        match_of: fn(&Node, &mut Report) -> Option<Match>,
        rest: fn(&mut Fields<'_, '_>, &mut RouteRule),
    ) -> Option<Self> {
        let what = if kind == RouteKind::Http { "HTTPRoute spec" } else { "GRPCRoute spec" };
        let mut fields = report.fields(spec, what)?;
        let parents = fields.list("parentRefs", parent_ref);
        if spec.get("parentRefs").is_none_or(Node::is_empty) {
            let warning = Diagnostic::warning("the route has no effect: it has no \"parentRefs\"");
            fields.report().add::<()>(spec.span, warning);
        }
        let hostnames = fields.list("hostnames", Hostname::decode);
        let hostnames_span = fields.key_span("hostnames");
        let mut rules = fields.list("rules", |node, report| rule(kind, node, report, match_of, rest));
        if spec.get("rules").is_none_or(Node::is_empty) {
            rules.push(RouteRule::of(spec.span));
        }
        fields.unsupported(&["useDefaultGateways"]);
        fields.finish();
        report_repeated_names(spec, &rules, report);
        report_repeated_parents(spec, report);
        Some(Self { kind, parents, hostnames, hostnames_span, rules })
    }
}

impl RouteRule {
    fn of(span: Span) -> Self {
        Self {
            span,
            name: None,
            matches: vec![Match::default()],
            filters: None,
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        }
    }
}

fn rule(
    kind: RouteKind,
    node: &Node,
    report: &mut Report,
    match_of: fn(&Node, &mut Report) -> Option<Match>,
    rest: fn(&mut Fields<'_, '_>, &mut RouteRule),
) -> Option<RouteRule> {
    let mut fields = report.fields(node, "rule")?;
    let mut rule = RouteRule::of(node.span);
    rule.name = fields.optional("name", |node, report| dns_name(node, report, false));
    let matches = fields.list("matches", match_of);
    if node.get("matches").is_some_and(|matches| !matches.is_empty()) {
        rule.matches = matches;
    }
    rule.filters = Filters::decode(&mut fields, kind);
    rule.backends = fields.list("backendRefs", |node, report| backend_ref(node, report, kind));
    rule.session = fields.optional("sessionPersistence", Session::decode);
    rest(&mut fields, &mut rule);
    fields.finish();
    rule.report_conflicts(node, report);
    Some(rule)
}

/// What the API's own validation says about the parts of a rule together (HTTPRouteRule).
impl RouteRule {
    fn report_conflicts(&self, node: &Node, report: &mut Report) {
        let place = |field: &str| node.get(field).map_or(node.span, |value| value.span);
        let weights: u64 = self.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        if weights > u64::from(u32::MAX) {
            report.error::<()>(place("backendRefs"), format!("the weights add up to more than {}", u32::MAX));
        }
        let redirects = self.filters.as_ref().is_some_and(|filters| filters.redirect.is_some());
        if redirects && !self.backends.is_empty() {
            let mistake = "a rule that redirects cannot have backendRefs";
            report.error::<()>(place("backendRefs"), mistake);
        }
        let filters = self.filters.iter().map(|filters| (filters, "filters"));
        let of_backends =
            self.backends.iter().filter_map(|backend| Some((backend.filters.as_ref()?, "backendRefs")));
        for (filters, field) in filters.chain(of_backends) {
            if filters.replaces_prefix() && !self.matches_one_prefix() {
                let mistake =
                    Diagnostic::error("ReplacePrefixMatch goes with exactly one match, by PathPrefix")
                        .help("give each prefix a rule of its own");
                report.add::<()>(place(field), mistake);
            }
        }
        if self.session.is_some() && self.backends.iter().filter(|backend| backend.weight > 0).count() > 1 {
            let mistake = Diagnostic::error("sessionPersistence goes with one backendRef only")
                .help("Envoy keeps a session within one Service");
            report.add::<()>(place("sessionPersistence"), mistake);
        }
    }

    fn matches_one_prefix(&self) -> bool {
        matches!(self.matches.as_slice(), [Match { path: PathMatch::Prefix(_), .. }])
    }
}

/// Several references to one parent must each name another port or section of it (CommonRouteSpec.parentRefs).
fn report_repeated_parents(spec: &Node, report: &mut Report) {
    let Some(Node { value: Value::List(parents), .. }) = spec.get("parentRefs") else { return };
    let fields = |parent: &Node, names: &[&str]| -> Vec<Option<Value>> {
        names.iter().map(|name| parent.get(name).map(|field| field.value.clone())).collect()
    };
    for (at, parent) in parents.iter().enumerate() {
        let same = |other: &&Node| {
            let whole = |of: &Node| of.get("port").is_none() && of.get("sectionName").is_none();
            let (which, part) = (["kind", "namespace", "name"], ["port", "sectionName"]);
            fields(other, &which) == fields(parent, &which)
                && (whole(other) || whole(parent) || fields(other, &part) == fields(parent, &part))
        };
        if parents.iter().take(at).find(same).is_some() {
            let mistake = Diagnostic::error("the route is attached twice to the same place");
            report
                .add::<()>(parent.span, mistake.help("give each reference a port or sectionName of its own"));
        }
    }
}

fn report_repeated_names(spec: &Node, rules: &[RouteRule], report: &mut Report) {
    for (at, rule) in rules.iter().enumerate() {
        let earlier = rules.iter().take(at);
        if rule.name.is_some() && earlier.clone().any(|other| other.name == rule.name) {
            let name = rule.name.as_deref().unwrap_or_default();
            let span = if rule.span == spec.span { spec.span } else { rule.span };
            report.error::<()>(span, format!("two rules are called {name:?}"));
        }
    }
}
