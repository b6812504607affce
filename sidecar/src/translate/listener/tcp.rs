//! Connections that are passed on as they are.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use crate::model::ingress::Stream;
use crate::translate::{any, duration};

const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
/// No cluster is called so: a connection for it is closed. Clusters have slashes in their names.
pub const NO_BACKEND: &str = "no-backend";

/// The proxy as the last filter of a chain.
pub(super) fn filter(stream: &Stream) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: stream.route.to_string(),
        cluster_specifier: Some(specifier(stream)),
        // A connection may be silent for as long as its two ends like.
        idle_timeout: Some(duration(Duration::ZERO)),
        ..TcpProxy::default()
    };
    Filter { name: TCP_PROXY.into(), config_type: Some(filter::ConfigType::TypedConfig(any(&proxy))) }
}

fn specifier(stream: &Stream) -> ClusterSpecifier {
    let clusters: Vec<ClusterWeight> = stream
        .shares
        .iter()
        .map(|(backend, weight)| ClusterWeight {
            name: backend.as_ref().map_or_else(|| NO_BACKEND.into(), ToString::to_string),
            weight: weight.get(),
            ..ClusterWeight::default()
        })
        .collect();
    match clusters.as_slice() {
        [] => ClusterSpecifier::Cluster(NO_BACKEND.into()),
        [only] => ClusterSpecifier::Cluster(only.name.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }),
    }
}
