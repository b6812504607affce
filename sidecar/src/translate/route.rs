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
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost, route};

use super::{OUTBOUND, Part, PortOf, Sourced, tags};
use crate::model::filter::Scheme;
use crate::model::matching::{Match, PathMatch};
use crate::model::sidecar::Sidecar;
use crate::model::{Mesh, Routing, Rule};

/// As what clients know the place at which a route is attached.
#[derive(Debug, Clone, Copy)]
struct Frontend {
    scheme: Scheme,
    port: u16,
}

/// The outbound route configuration without its virtual hosts, which are made of the services one by one.
pub(super) fn outbound(mesh: &Mesh) -> Sourced<RouteConfiguration> {
    let message = RouteConfiguration {
        name: OUTBOUND.into(),
        request_headers_to_add: tags::request_headers(&mesh.sidecar),
        metadata: tags::metadata(&mesh.sidecar),
        ..RouteConfiguration::default()
    };
    Sourced { name: OUTBOUND.into(), message, parts: Vec::new() }
}

/// The virtual host of a port.
pub(super) fn host(sidecar: &Sidecar, of: PortOf<'_>) -> Sourced<VirtualHost> {
    let metadata = tags::metadata(sidecar);
    let message = host::virtual_host(sidecar, of, metadata.as_ref());
    Sourced { name: message.name.clone(), message, parts: parts(of) }
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
