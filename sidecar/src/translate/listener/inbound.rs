//! Inbound listeners: where requests for the application enter Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::address::Address::SocketAddress;
use envoy_types::pb::envoy::config::core::v3::{Address, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::http;
use crate::model::Proxy;
use crate::model::matching::Match;
use crate::model::sidecar::inbound::{Inbound, Whose};
use crate::translate::endpoint::{address, single};
use crate::translate::{Part, Sourced, cluster, route, tags};

/// The name of the listener, its route configuration, its cluster and its statistics: without dots and colons, which
/// those would cut or replace.
pub(in crate::translate) fn name(of: &Inbound) -> String {
    format!("inbound/{}", of.port)
}

/// One listener for each port.
pub(in crate::translate) fn listener(proxy: &Proxy, of: &Inbound) -> Sourced<Listener> {
    let name = name(of);
    let forged = if of.request_tags == Whose::Own { http::Forged::Removed } else { http::Forged::Kept };
    let message = Listener {
        name: name.clone(),
        address: Some(any_family(address(SocketAddr::new(of.address, of.port)), of.address)),
        stat_prefix: name.clone(),
        traffic_direction: TrafficDirection::Inbound.into(),
        filter_chains: vec![FilterChain {
            filters: vec![http::filter(proxy, &name, forged)],
            ..FilterChain::default()
        }],
        metadata: tags::metadata(&proxy.sidecar.tags),
        ..Listener::default()
    };
    sourced(proxy, of, name, message)
}

/// Everything goes to the application.
pub(in crate::translate) fn routes(proxy: &Proxy, of: &Inbound) -> Sourced<RouteConfiguration> {
    let name = name(of);
    let metadata = tags::metadata(&proxy.sidecar.tags);
    let all = Route {
        name: name.clone(),
        r#match: Some(route::matching::route_match(&Match::default())),
        action: Some(Action::Route(route::action::forward(ClusterSpecifier::Cluster(name.clone())))),
        metadata: metadata.clone(),
        ..Route::default()
    };
    let own =
        if of.request_tags == Whose::Own { tags::request_headers(&proxy.telemetry) } else { Vec::new() };
    let message = RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![VirtualHost {
            name: name.clone(),
            domains: vec!["*".into()],
            routes: vec![all],
            ..VirtualHost::default()
        }],
        request_headers_to_add: own,
        typed_per_filter_config: tags::response_headers(&proxy.telemetry),
        metadata,
        ..RouteConfiguration::default()
    };
    sourced(proxy, of, name, message)
}

/// The application on the loopback address.
pub(in crate::translate) fn cluster(proxy: &Proxy, of: &Inbound) -> Sourced<Cluster> {
    let name = name(of);
    let application = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), of.to);
    let message = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(single(&name, application)),
        ..cluster::plain(&proxy.sidecar, &name, of.protocol)
    };
    sourced(proxy, of, name, message)
}

/// The address of all IPv6 interfaces takes IPv4 connections too, as servers usually do.
pub(super) fn any_family(mut address: Address, ip: IpAddr) -> Address {
    if let Some(SocketAddress(socket)) = &mut address.address {
        socket.ipv4_compat = ip.is_ipv6() && ip.is_unspecified();
    }
    address
}

fn sourced<M>(proxy: &Proxy, of: &Inbound, name: String, message: M) -> Sourced<M> {
    let origin = proxy.sidecar_origin.with_span(of.span);
    Sourced { name, message, parts: vec![Part { origin, mentions: Vec::new() }] }
}
