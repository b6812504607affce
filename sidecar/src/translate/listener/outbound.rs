//! The outbound listener: where the application's requests enter Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};

use super::http;
use crate::model::Proxy;
use crate::translate::endpoint::address;
use crate::translate::{OUTBOUND, Part, Sourced, tags};

pub(in crate::translate) fn outbound(proxy: &Proxy) -> Sourced<Listener> {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), proxy.sidecar.outbound_port);
    let message = Listener {
        name: OUTBOUND.into(),
        address: Some(address(at)),
        stat_prefix: OUTBOUND.into(),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![FilterChain {
            filters: vec![http::filter(proxy, OUTBOUND, http::Forged::Removed)],
            ..FilterChain::default()
        }],
        metadata: tags::metadata(&proxy.sidecar.tags),
        ..Listener::default()
    };
    let parts = vec![Part { origin: proxy.sidecar_origin.clone(), mentions: Vec::new() }];
    Sourced { name: OUTBOUND.into(), message, parts }
}
