//! What Envoy does with the requests of a route.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{DirectResponseAction, RouteAction, WeightedCluster, route};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::model::{Action, Destination};
use crate::translate::duration;

pub(super) fn action(action: &Action) -> route::Action {
    match &action.destination {
        Destination::NoBackend => {
            route::Action::DirectResponse(DirectResponseAction { status: 500, ..Default::default() })
        }
        Destination::Forward(backends) => match backends.as_slice() {
            [(only, _)] => forward(ClusterSpecifier::Cluster(only.to_string())),
            several => {
                let clusters = several.iter().map(|(backend, weight)| ClusterWeight {
                    name: backend.to_string(),
                    weight: Some(UInt32Value { value: weight.get() }),
                    ..ClusterWeight::default()
                });
                let weighted = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
                forward(ClusterSpecifier::WeightedClusters(weighted))
            }
        },
    }
}

/// Envoy ends a request after 15 s unless told otherwise; the Gateway API knows no such limit where none is given.
pub(super) fn forward(to: ClusterSpecifier) -> route::Action {
    route::Action::Route(RouteAction {
        cluster_specifier: Some(to),
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    })
}
