//! Ports of services as clusters.

mod balancing;
mod connections;
mod dns;
mod health;
mod outlier;
mod tls;

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;

use super::listener::ads;
use super::{Part, PortOf, Sourced, any, duration, tags};
use crate::model::policy::Policy;
use crate::model::policy::balancing::LoadBalancing;
use crate::model::policy::connections::ConnectionPool;
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
        transport_socket: of.port.tls.as_ref().map(|trust| tls::client(trust, of.port.protocol)),
        ..plain(sidecar, &name, of.port.protocol)
    };
    let message = match of.port.policy.as_deref() {
        Some(policy) => with(policy, of, message),
        None => message,
    };
    Sourced { name, message, parts: parts(of) }
}

/// What all clusters have in common.
pub(super) fn plain(sidecar: &Sidecar, name: &str, protocol: AppProtocol) -> Cluster {
    let unlimited = ConnectionPool::default();
    Cluster {
        name: name.into(),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        lb_policy: LbPolicy::LeastRequest.into(),
        circuit_breakers: Some(connections::limits(&unlimited, None)),
        typed_extension_protocol_options: options(protocol, &unlimited),
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

/// The cluster as its policy wants it.
fn with(policy: &Policy, of: PortOf<'_>, cluster: Cluster) -> Cluster {
    let pool = policy.connections.as_deref().cloned().unwrap_or_default();
    let protocol = of.port.protocol;
    let host = format!("{}.{}", of.key.name, of.key.namespace);
    Cluster {
        connect_timeout: policy.connect_timeout.as_deref().copied().map(duration).or(cluster.connect_timeout),
        load_balancing_policy: load_balancing(policy),
        common_lb_config: policy.balancing.as_deref().and_then(panic_threshold),
        circuit_breakers: Some(connections::limits(&pool, policy.retry_budget.as_deref())),
        upstream_connection_options: connections::keepalive(&pool),
        outlier_detection: policy.outlier.as_deref().map(outlier::detection),
        health_checks: policy.health.iter().map(|check| health::check(check, protocol, &host)).collect(),
        typed_extension_protocol_options: options(protocol, &pool),
        ..cluster
    }
}

fn options(protocol: AppProtocol, pool: &ConnectionPool) -> HashMap<String, Any> {
    let options = connections::http_options(protocol, pool);
    options.iter().map(|options| (HTTP_OPTIONS.to_owned(), any(options))).collect()
}

fn parts(of: PortOf<'_>) -> Vec<Part> {
    let policies = of.port.policy.iter().flat_map(|policy| &policy.origins);
    let trust = of.port.tls.iter().map(|trust| &trust.origin);
    let origins = std::iter::once(&of.service.origin).chain(trust).chain(policies);
    origins.map(|origin| Part { origin: origin.clone(), mentions: Vec::new() }).collect()
}

/// Stands in for `lb_policy` where a policy has more to say than that knows.
fn load_balancing(policy: &Policy) -> Option<LoadBalancingPolicy> {
    let subsets = policy.subsets.as_deref();
    match policy.balancing.as_deref() {
        Some(balancing) => Some(balancing::policy(balancing, subsets)),
        None => subsets.map(|subsets| balancing::policy(&LoadBalancing::default(), Some(subsets))),
    }
}

fn panic_threshold(balancing: &LoadBalancing) -> Option<CommonLbConfig> {
    let threshold = Percent { value: balancing.panic_threshold?.value() };
    Some(CommonLbConfig { healthy_panic_threshold: Some(threshold), ..CommonLbConfig::default() })
}
