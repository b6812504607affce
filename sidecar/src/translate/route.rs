//! The route configuration: a virtual host for each port of each service.

mod action;
mod cors;
mod headers;
mod host;
mod matching;
mod path;
mod retry;
mod rule;
mod session;

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, route};

use super::{OUTBOUND, Part, PortOf, Sourced, tags};
use crate::model::filter::Scheme;
use crate::model::matching::{Match, PathMatch};
use crate::model::{Mesh, Routing, Rule};

/// As what clients know the place at which a route is attached.
#[derive(Debug, Clone, Copy)]
struct Frontend {
    scheme: Scheme,
    port: u16,
}

pub(super) fn outbound(mesh: &Mesh, ports: &[PortOf<'_>]) -> Sourced<RouteConfiguration> {
    let metadata = tags::metadata(&mesh.sidecar);
    let message = RouteConfiguration {
        name: OUTBOUND.into(),
        virtual_hosts: ports.iter().map(|port| host::virtual_host(mesh, *port, metadata.as_ref())).collect(),
        request_headers_to_add: tags::request_headers(&mesh.sidecar),
        metadata: metadata.clone(),
        ..RouteConfiguration::default()
    };
    let parts = ports.iter().flat_map(|port| parts(*port)).collect();
    Sourced { name: OUTBOUND.into(), message, parts }
}

/// The routes of a port, in the order in which they are tried.
fn routes(of: PortOf<'_>, metadata: Option<&Metadata>) -> Vec<Route> {
    let frontend = Frontend { scheme: Scheme::Http, port: of.port.number };
    let routes = match &of.port.routing {
        Routing::Direct => vec![straight(of)],
        Routing::Rules(rules) => rules.iter().flat_map(|rule| rule::routes(rule, frontend)).collect(),
    };
    routes.into_iter().map(|route| Route { metadata: metadata.cloned(), ..route }).collect()
}

fn straight(of: PortOf<'_>) -> Route {
    Route {
        name: of.cluster_name(),
        r#match: Some(matching::route_match(&Match::default())),
        action: Some(route::Action::Route(action::forward(ClusterSpecifier::Cluster(of.cluster_name())))),
        ..Route::default()
    }
}

fn parts(of: PortOf<'_>) -> Vec<Part> {
    let host = Part { origin: of.service.origin.clone(), mentions: vec![of.cluster_name()] };
    let rules = match &of.port.routing {
        Routing::Direct => &[][..],
        Routing::Rules(rules) => rules,
    };
    let rules =
        rules.iter().map(|rule| Part { origin: rule.action.origin.clone(), mentions: mentions(rule) });
    std::iter::once(host).chain(rules).collect()
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
