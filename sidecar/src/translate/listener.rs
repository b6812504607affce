//! The outbound listener: where the application's requests enter Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, TrafficDirection,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
    http_connection_manager::{RouteSpecifier, ServerHeaderTransformation},
    http_filter::ConfigType,
};
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use super::cluster::address;
use super::{OUTBOUND, Part, Sourced, any, duration, tags};
use crate::model::Mesh;

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const HEADER_MUTATION: &str = "envoy.filters.http.header_mutation";
const ROUTER: &str = "envoy.filters.http.router";

pub(super) fn outbound(mesh: &Mesh) -> Sourced<Listener> {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), mesh.sidecar.outbound_port);
    let config = filter::ConfigType::TypedConfig(any(&connection_manager()));
    let filter = Filter { name: CONNECTION_MANAGER.into(), config_type: Some(config) };
    let message = Listener {
        name: OUTBOUND.into(),
        address: Some(address(at)),
        stat_prefix: OUTBOUND.into(),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        metadata: tags::metadata(&mesh.sidecar),
        ..Listener::default()
    };
    let parts = vec![Part { origin: mesh.sidecar_origin.clone(), mentions: Vec::new() }];
    Sourced { name: OUTBOUND.into(), message, parts }
}

/// Served by whoever serves this.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}

fn connection_manager() -> HttpConnectionManager {
    let rds = Rds { config_source: Some(ads()), route_config_name: OUTBOUND.into() };
    HttpConnectionManager {
        stat_prefix: OUTBOUND.into(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        // The router ends the chain; without it Envoy accepts the listener and answers nothing.
        http_filters: vec![
            http_filter(HEADER_MUTATION, any(&tags::strip_forged())),
            http_filter(ROUTER, any(&Router::default())),
        ],
        // Prefixes are matched on the path that the upstream will resolve.
        normalize_path: Some(BoolValue { value: true }),
        // A stream may be silent for as long as its two ends like.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        // The upstream's own `server` header is the application's business.
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..HttpConnectionManager::default()
    }
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}
