//! `targetRefs`: what a policy is about (GEP-713, direct policy attachment).

use std::fmt;

use crate::diagnostic::{Diagnostic, Span};
use crate::model::metadata::dns_name;
use crate::model::route::RouteKind;
use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// An object of the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRef {
    /// Where the name stands.
    pub span: Span,
    /// What it is.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// The port of this name of a service, or the rule of this name of a route; without it all of them.
    pub section: Option<String>,
    /// Where that stands; where the name does, without it.
    pub section_span: Span,
}

/// What a policy can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKind {
    /// A `Service`.
    Service,
    /// An `HTTPRoute`.
    HttpRoute,
    /// A `GRPCRoute`.
    GrpcRoute,
}

const KINDS: &[(&str, TargetKind)] = &[
    ("Service", TargetKind::Service),
    ("HTTPRoute", TargetKind::HttpRoute),
    ("GRPCRoute", TargetKind::GrpcRoute),
];

impl TargetKind {
    /// A route of this kind.
    pub fn of(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Http => Self::HttpRoute,
            RouteKind::Grpc => Self::GrpcRoute,
        }
    }

    /// Whether it is a route.
    pub fn is_route(self) -> bool {
        self != Self::Service
    }

    fn group(self) -> &'static str {
        if self.is_route() { "gateway.networking.k8s.io" } else { "" }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

/// Reads one of `targetRefs` (LocalPolicyTargetReferenceWithSectionName in the Gateway API).
pub(super) fn target_ref(node: &Node, report: &mut Report) -> Option<TargetRef> {
    let mut fields = report.fields(node, "targetRef")?;
    let group = fields.required("group", text);
    let kind = fields.required("kind", one_of(KINDS));
    let name = fields.required("name", |node, report| dns_name(node, report, false));
    let section = fields.optional("sectionName", text);
    let (span, group_span) = (fields.key_span("name"), fields.key_span("group"));
    fields.finish();
    let (group, kind) = (group?, kind?);
    if group != kind.group() {
        let mistake = Diagnostic::error(format!("{kind} is not in the group {group:?}"));
        return report.add(group_span, mistake.help(format!("its group is {:?}", kind.group())));
    }
    let span = node.get("name").map_or(span, |name| name.span);
    let section_span = node.get("sectionName").map_or(span, |section| section.span);
    Some(TargetRef { span, kind, name: name?, section, section_span })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn a_target_is_a_service_or_a_route_or_a_section_of_one() {
        let target = good("{group: '', kind: Service, name: web, sectionName: http}", target_ref);
        assert_eq!((target.kind, target.section.as_deref()), (TargetKind::Service, Some("http")));
        assert_eq!(
            mistakes("{group: '', kind: HTTPRoute, name: web}", target_ref),
            ["1:5 HTTPRoute is not in the group \"\" (its group is \"gateway.networking.k8s.io\")"]
        );
        assert_eq!(
            mistakes("{group: '', kind: Gateway, name: web}", target_ref),
            ["1:22 \"Gateway\" is not one of Service, HTTPRoute, GRPCRoute"]
        );
    }
}
