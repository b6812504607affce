//! The endpoints of a cluster.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::{Part, PortOf, Sourced};

pub(super) fn endpoints(of: PortOf<'_>) -> Sourced<ClusterLoadAssignment> {
    let name = of.cluster_name();
    let lb_endpoints: Vec<LbEndpoint> = of.port.endpoints.iter().copied().map(lb_endpoint).collect();
    let locality = LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() };
    let message = ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: if of.port.endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    };
    let sources = match of.port.endpoint_origins.as_slice() {
        [] => std::slice::from_ref(&of.service.origin),
        slices => slices,
    };
    let parts = sources.iter().map(|origin| Part { origin: origin.clone(), mentions: Vec::new() });
    Sourced { name, message, parts: parts.collect() }
}

/// A single endpoint, for a cluster that brings its own.
pub(super) fn single(cluster_name: &str, endpoint: SocketAddr) -> ClusterLoadAssignment {
    let locality =
        LocalityLbEndpoints { lb_endpoints: vec![lb_endpoint(endpoint)], ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: cluster_name.into(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

/// The address as Envoy has it everywhere.
pub(super) fn address(of: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(of.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn lb_endpoint(of: SocketAddr) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address(of)), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}
