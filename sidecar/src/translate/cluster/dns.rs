//! Clusters whose endpoints Envoy finds by DNS.

use envoy_types::pb::envoy::config::cluster::v3::cluster::CustomClusterType;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;

use crate::model::Dns;
use crate::translate::any;

/// Asked again when an answer is no longer valid. IPv6 is used where there is no IPv4, for by default Envoy would take it
/// wherever it is answered, connected or not.
pub(super) fn cluster_type(dns: &Dns) -> CustomClusterType {
    let config = DnsCluster {
        respect_dns_ttl: true,
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        all_addresses_in_single_endpoint: dns.is_external,
        ..DnsCluster::default()
    };
    CustomClusterType { name: "envoy.clusters.dns".into(), typed_config: Some(any(&config)) }
}

pub(super) fn assignment(cluster_name: String, dns: &Dns) -> ClusterLoadAssignment {
    let socket = SocketAddress {
        address: dns.host.clone(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(dns.port.into())),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment { cluster_name, endpoints: vec![locality], ..ClusterLoadAssignment::default() }
}
