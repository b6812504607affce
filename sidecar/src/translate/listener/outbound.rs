//! The outbound listener: where the application's requests enter Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};

use super::http;
use crate::model::Mesh;
use crate::translate::endpoint::address;
use crate::translate::{OUTBOUND, Part, Sourced, tags};

pub(in crate::translate) fn outbound(mesh: &Mesh) -> Sourced<Listener> {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), mesh.sidecar.outbound_port);
    let message = Listener {
        name: OUTBOUND.into(),
        address: Some(address(at)),
        stat_prefix: OUTBOUND.into(),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![FilterChain {
            filters: vec![http::filter(mesh, OUTBOUND, http::Forged::Removed)],
            ..FilterChain::default()
        }],
        metadata: tags::metadata(&mesh.sidecar.tags),
        ..Listener::default()
    };
    let parts = vec![Part { origin: mesh.sidecar_origin.clone(), mentions: Vec::new() }];
    Sourced { name: OUTBOUND.into(), message, parts }
}
