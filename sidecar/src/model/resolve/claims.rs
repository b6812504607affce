//! Rules about claims where no token is verified: an `Allow` never holds there, and neither does a `Deny`, which would
//! leave open what was to be closed.

use std::sync::Arc;

use super::index::Index;
use super::policies::Policies;
use crate::diagnostic::Diagnostic;
use crate::model::policy::access::Access;
use crate::model::policy::target::TargetKind;
use crate::model::policy::{Policy, TrafficPolicy};
use crate::model::reference::ParentKind;
use crate::model::route::Route;
use crate::model::service::ServicePort;
use crate::model::{Document, Object, ServiceKey};

/// Names the policies whose `access` needs claims in some place where no `jwt` is in force.
pub(super) fn check(
    index: &Index<'_>,
    documents: &[&Document],
    policies: &Policies,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let of_claims = || documents.iter().filter_map(|document| Some((*document, claiming(document)?)));
    if of_claims().next().is_none() {
        return;
    }
    let unverified = unverified(index, documents, policies);
    for (document, (policy, access)) in of_claims() {
        let Some(rule) = access.first_of_claims() else { continue };
        if unverified.iter().any(|other| Arc::ptr_eq(other, access)) {
            let mistake =
                Diagnostic::error("access rules need claims where no jwt is in force: none of them holds")
                    .help(way_out(policy));
            diagnostics.push(mistake.at(&document.origin.with_span(rule.span)));
        }
    }
}

fn way_out(policy: &TrafficPolicy) -> &'static str {
    if policy.targets.iter().any(|target| target.kind.is_route()) {
        "say \"jwt\" here, or for the Services that the route is attached to"
    } else {
        "say \"jwt\" here, or in another policy for the same Service"
    }
}

fn claiming(document: &Document) -> Option<(&TrafficPolicy, &Arc<Access>)> {
    let Object::TrafficPolicy(policy) = &document.object else { return None };
    let access = policy.policy.access.as_ref()?;
    access.first_of_claims().map(|_| (policy.as_ref(), access))
}

/// The rules in force, at a port, at a rule over it or at a rule of a Gateway, beside which there is no `jwt`.
fn unverified(index: &Index<'_>, documents: &[&Document], policies: &Policies) -> Vec<Arc<Access>> {
    let at_ports = index.services.iter().flat_map(|(key, (_, service))| {
        service.ports.iter().flat_map(move |port| at_port(index, policies, key, port))
    });
    let at_gateways = documents.iter().filter_map(|document| match &document.object {
        Object::HttpRoute(route) | Object::GrpcRoute(route) => Some((index.key(document), route)),
        _ => None,
    });
    let at_gateways = at_gateways
        .filter(|(_, route)| route.parents.iter().any(|parent| parent.kind == ParentKind::Gateway))
        .flat_map(|(key, route)| of_rules(policies, &key, route));
    at_ports
        .chain(at_gateways.flatten())
        .filter(|policy| policy.jwt.is_none())
        .filter_map(|policy| policy.access.clone())
        .collect()
}

fn at_port(index: &Index<'_>, policies: &Policies, key: &ServiceKey, port: &ServicePort) -> Vec<Arc<Policy>> {
    let of_port = policies.of_port(key, &port.name);
    let attached = index.attached(key, port);
    if attached.is_empty() {
        return of_port.into_iter().collect();
    }
    let rules = attached.iter().flat_map(|at| of_rules(policies, &index.key(at.document), at.route));
    rules
        .filter_map(|of_rule| match (of_rule, &of_port) {
            (Some(rule), Some(port)) => Some(Arc::new(rule.over(port))),
            (rule, port) => rule.or_else(|| port.clone()),
        })
        .collect()
}

fn of_rules(policies: &Policies, key: &ServiceKey, route: &Route) -> Vec<Option<Arc<Policy>>> {
    let kind = TargetKind::of(route.kind);
    route.rules.iter().map(|rule| policies.of(kind, key, rule.name.as_deref())).collect()
}
