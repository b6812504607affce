//! The endpoints of a cluster.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::{
    Address, Locality, Metadata, SocketAddress, address, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy as Overprovisioning;
use envoy_types::pb::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::{ListValue, Struct, UInt32Value, Value, value};

use super::{Part, PortOf, Sourced};
use crate::model::policy::locality::Locality as Prefer;
use crate::model::policy::subsets::{Subsets, WhenEmpty};
use crate::model::{EndpointDetail, MeshEndpoint, MeshPort};

/// The metadata that Envoy's balancers look at.
const LB_METADATA: &str = "envoy.lb";

/// The field of an endpoint's metadata that lists the subsets it is in, and of a route's that names the one it wants.
pub(super) fn subset_key(when_empty: WhenEmpty) -> &'static str {
    match when_empty {
        WhenEmpty::Fail => "weft.subset",
        WhenEmpty::AnyEndpoint => "weft.subset-or-any",
    }
}

/// What a route says to get an endpoint of a subset.
pub(super) fn in_subset(name: &str, when_empty: WhenEmpty) -> Metadata {
    let name = Value { kind: Some(value::Kind::StringValue(name.to_owned())) };
    lb_metadata(HashMap::from([(subset_key(when_empty).to_owned(), name)]))
}

pub(super) fn endpoints(of: PortOf<'_>) -> Sourced<ClusterLoadAssignment> {
    let name = of.cluster_name();
    let message = ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: localities(of.port),
        policy: overprovisioning(of.port),
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
    let locality = LocalityLbEndpoints { lb_endpoints: vec![at(endpoint)], ..LocalityLbEndpoints::default() };
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

/// Endpoints that are equally near to each other and to us stand together.
fn localities(port: &MeshPort) -> Vec<LocalityLbEndpoints> {
    let mut together = BTreeMap::<(u32, Option<&str>), Vec<LbEndpoint>>::new();
    for endpoint in &port.endpoints {
        let detail = endpoint.detail.as_deref();
        let place = detail.map_or((0, None), |detail| (detail.priority, detail.zone.as_deref()));
        together.entry(place).or_default().push(lb_endpoint(port, endpoint));
    }
    let localities = together.into_iter().map(|((priority, zone), lb_endpoints)| LocalityLbEndpoints {
        locality: zone.map(|zone| Locality { zone: zone.to_owned(), ..Locality::default() }),
        load_balancing_weight: weight(port, zone),
        priority,
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    });
    localities.collect()
}

/// Where zones have weights, Envoy sends nothing to one that has none.
fn weight(port: &MeshPort, zone: Option<&str>) -> Option<UInt32Value> {
    let Some(Prefer::Weights(weights)) = locality(port) else { return None };
    weights.get(zone?).map(|value| UInt32Value { value: *value })
}

fn overprovisioning(port: &MeshPort) -> Option<Overprovisioning> {
    let Some(Prefer::Failover(failover)) = locality(port) else { return None };
    let factor = Some(UInt32Value { value: failover.overprovisioning? });
    Some(Overprovisioning { overprovisioning_factor: factor, ..Overprovisioning::default() })
}

fn locality(port: &MeshPort) -> Option<&Prefer> {
    port.policy.as_deref()?.balancing.as_deref()?.locality.as_ref()
}

/// An endpoint of which nothing else is known.
fn at(of: SocketAddr) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address(of)), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

fn lb_endpoint(port: &MeshPort, of: &MeshEndpoint) -> LbEndpoint {
    let Some(policy) = port.policy.as_deref() else { return at(of.address) };
    let other_port = policy.health.as_deref().and_then(|health| health.port);
    let endpoint = Endpoint {
        address: Some(address(of.address)),
        health_check_config: other_port
            .map(|port| HealthCheckConfig { port_value: port.into(), ..HealthCheckConfig::default() }),
        ..Endpoint::default()
    };
    let known = policy.subsets.as_deref().zip(of.detail.as_deref());
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        metadata: known.and_then(|(subsets, detail)| membership(subsets, detail)),
        ..LbEndpoint::default()
    }
}

fn membership(subsets: &Subsets, detail: &EndpointDetail) -> Option<Metadata> {
    let mut fields = HashMap::new();
    for when_empty in [WhenEmpty::Fail, WhenEmpty::AnyEndpoint] {
        let names: Vec<Value> = subsets
            .0
            .iter()
            .filter(|subset| subset.when_empty == when_empty && detail.subsets.contains(&subset.name))
            .map(|subset| Value { kind: Some(value::Kind::StringValue(subset.name.clone())) })
            .collect();
        if !names.is_empty() {
            let list = Value { kind: Some(value::Kind::ListValue(ListValue { values: names })) };
            fields.insert(subset_key(when_empty).to_owned(), list);
        }
    }
    (!fields.is_empty()).then(|| lb_metadata(fields))
}

fn lb_metadata(fields: HashMap<String, Value>) -> Metadata {
    let filter_metadata = HashMap::from([(LB_METADATA.to_owned(), Struct { fields })]);
    Metadata { filter_metadata, ..Metadata::default() }
}
