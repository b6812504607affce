//! Ports of services as clusters.

mod dns;

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};

use super::listener::ads;
use super::{Part, PortOf, Sourced, any, duration, tags};
use crate::model::service::AppProtocol;
use crate::model::sidecar::Sidecar;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn cluster(sidecar: &Sidecar, of: PortOf<'_>) -> Sourced<Cluster> {
    let name = of.cluster_name();
    let Found { by, eds, load_assignment } = discovery(of);
    let message = Cluster {
        cluster_discovery_type: Some(by),
        eds_cluster_config: eds,
        load_assignment,
        ..plain(sidecar, &name, of.port.protocol)
    };
    let parts = vec![Part { origin: of.service.origin.clone(), mentions: Vec::new() }];
    Sourced { name, message, parts }
}

/// What all clusters have in common.
pub(super) fn plain(sidecar: &Sidecar, name: &str, protocol: AppProtocol) -> Cluster {
    Cluster {
        name: name.into(),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        lb_policy: LbPolicy::LeastRequest.into(),
        circuit_breakers: Some(no_limits()),
        typed_extension_protocol_options: protocol_options(protocol),
        metadata: tags::metadata(&sidecar.tags),
        ..Cluster::default()
    }
}

/// How Envoy comes by the endpoints.
struct Found {
    by: ClusterDiscoveryType,
    eds: Option<EdsClusterConfig>,
    load_assignment: Option<ClusterLoadAssignment>,
}

fn discovery(of: PortOf<'_>) -> Found {
    if let Some(found) = &of.port.dns {
        let by = ClusterDiscoveryType::ClusterType(dns::cluster_type(found));
        return Found { by, eds: None, load_assignment: Some(dns::assignment(of.cluster_name(), found)) };
    }
    let eds = EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() };
    let by = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    Found { by, eds: Some(eds), load_assignment: None }
}

/// Envoy lets 1 024 requests at a time through to a cluster by default and fails the rest; a limit that nobody asked for
/// is an outage waiting.
fn no_limits() -> CircuitBreakers {
    let most = Some(UInt32Value { value: u32::MAX });
    let thresholds = Thresholds {
        max_connections: most,
        max_pending_requests: most,
        max_requests: most,
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() }
}

fn protocol_options(protocol: AppProtocol) -> HashMap<String, Any> {
    let protocol = match protocol {
        AppProtocol::Http => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        AppProtocol::H2c => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()),
        AppProtocol::Tcp => return HashMap::new(),
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), any(&options))])
}
