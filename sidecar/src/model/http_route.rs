//! `HTTPRoute` (gateway.networking.k8s.io/v1), attached to Services as the Gateway API defines it for meshes.

use super::matching::{Match, http_match};
use super::reference::{backend_ref, parent_ref};
use super::route::{Route, RouteRule};
use crate::read::Node;
use crate::read::decode::Report;

/// Reads the `spec` of an `HTTPRoute`.
pub fn decode(spec: &Node, report: &mut Report) -> Option<Route> {
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
    Some(Route { parents, rules })
}

fn rule(node: &Node, report: &mut Report) -> Option<RouteRule> {
    let mut fields = report.fields(node, "rule")?;
    fields.accept(&["name"]);
    let mut matches = fields.list("matches", http_match);
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
