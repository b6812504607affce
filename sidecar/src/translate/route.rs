//! The route configuration: a virtual host for each port of each service.

pub(super) mod action;
mod cors;
mod gateway;
mod headers;
mod host;
pub(super) mod matching;
mod path;
mod retry;
mod rule;
mod session;

pub(super) use matching::header_matcher;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, VirtualHost, route};

use super::{OUTBOUND, Part, PortOf, Sourced, policy, tags};
use crate::model::filter::Scheme;
use crate::model::matching::{Match, PathMatch};
use crate::model::sidecar::Sidecar;
use crate::model::tag::merged;
use crate::model::{Proxy, Routing, Rule};

pub(super) use gateway::gateway;

/// As what clients know the place at which a route is attached.
#[derive(Debug, Clone, Copy)]
struct Frontend {
    scheme: Scheme,
    port: u16,
}

/// The outbound route configuration without its virtual hosts, which are made of the services one by one.
pub(super) fn outbound(proxy: &Proxy) -> Sourced<RouteConfiguration> {
    let message = RouteConfiguration {
        name: OUTBOUND.into(),
        request_headers_to_add: tags::request_headers(&proxy.telemetry),
        typed_per_filter_config: tags::response_headers(&proxy.telemetry),
        metadata: tags::metadata(&proxy.sidecar.tags),
        ..RouteConfiguration::default()
    };
    Sourced { name: OUTBOUND.into(), message, parts: Vec::new() }
}

/// The virtual host of a port.
pub(super) fn host(sidecar: &Sidecar, of: PortOf<'_>) -> Sourced<VirtualHost> {
    let message = host::virtual_host(sidecar, of);
    Sourced { name: message.name.clone(), message, parts: parts(of) }
}

/// The routes of a port, in the order in which they are tried.
fn routes(sidecar: &Sidecar, of: PortOf<'_>) -> Vec<Route> {
    let frontend = Frontend { scheme: Scheme::Http, port: of.port.number };
    match &of.port.routing {
        Routing::Direct => vec![policy::of_port(straight(sidecar, of), of.port)],
        Routing::Rules(rules) => {
            let routes = |rule: &Arc<Rule>| {
                policy::of_rule(
                    ruled(sidecar, rule, frontend).collect(),
                    &rule.action,
                    of.port.policy.as_deref(),
                )
            };
            rules.iter().flat_map(routes).collect()
        }
    }
}

fn straight(sidecar: &Sidecar, of: PortOf<'_>) -> Route {
    let authority = of.port.dns.as_ref().and_then(|dns| dns.authority());
    let forward = action::forward(ClusterSpecifier::Cluster(of.cluster_name()));
    let forward = RouteAction { host_rewrite_specifier: action::authority(authority.as_deref()), ..forward };
    Route {
        name: of.cluster_name(),
        r#match: Some(matching::route_match(&Match::default())),
        action: Some(route::Action::Route(forward)),
        metadata: tags::metadata(&sidecar.tags),
        ..Route::default()
    }
}

/// The routes of a rule, whose requests have the tags of the workload and of the route.
fn ruled(sidecar: &Sidecar, rule: &Rule, frontend: Frontend) -> impl Iterator<Item = Route> {
    let metadata = tags::metadata(&merged(&sidecar.tags, &rule.action.route.tags));
    rule::routes(rule, frontend).into_iter().map(move |route| Route { metadata: metadata.clone(), ..route })
}

fn parts(of: PortOf<'_>) -> Vec<Part> {
    let host = Part { origin: of.service.origin.clone(), mentions: vec![of.cluster_name()] };
    let rules = match &of.port.routing {
        Routing::Direct => &[][..],
        Routing::Rules(rules) => rules,
    };
    let policies = of.port.policy.iter().flat_map(|policy| policy::parts(policy));
    std::iter::once(host).chain(rule_parts(rules)).chain(policies).collect()
}

fn rule_parts(rules: &[Arc<Rule>]) -> impl Iterator<Item = Part> {
    let policies = rules.iter().filter_map(|rule| rule.action.policy.as_ref());
    let policies = policies.flat_map(|policy| policy::parts(policy));
    let rules =
        rules.iter().map(|rule| Part { origin: rule.action.origin.clone(), mentions: mentions(rule) });
    rules.chain(policies)
}

fn mentions(rule: &Rule) -> Vec<String> {
    let path = match rule.matching.path.plain() {
        PathMatch::Regex(value) => Some(value),
        _ => None,
    };
    let values = rule.matching.headers.iter().chain(&rule.matching.query);
    let expressions = values.filter(|value| value.regex).map(|value| value.value.clone());
    let all: BTreeSet<String> = path.into_iter().chain(expressions).chain([rule.name.clone()]).collect();
    all.into_iter().collect()
}
