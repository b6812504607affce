//! What Envoy does with the requests of a route.

use std::num::NonZeroU32;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{DirectResponseAction, RouteAction, WeightedCluster, route};
use envoy_types::pb::google::protobuf::UInt32Value;

use super::matching::fraction;
use super::rule::Part;
use super::{Frontend, path, retry};
use crate::model::filter::Rewrite;
use crate::model::route::RouteKind;
use crate::model::{Backend, Mirror};
use crate::translate::duration;

pub(super) fn action(part: &Part<'_>, at: Frontend) -> route::Action {
    if let Some(redirect) = &part.filters.redirect {
        return route::Action::Redirect(path::redirect(redirect, &part.rule.matching.path, at));
    }
    let backends: Vec<_> =
        part.shares.iter().filter_map(|share| Some((share.backend.as_ref()?, share.weight))).collect();
    match backends.as_slice() {
        [] => failure(part.rule.action.route.kind),
        [(only, _)] => route::Action::Route(forward_to(part, ClusterSpecifier::Cluster(only.to_string()))),
        several => route::Action::Route(forward_to(part, weighted(several))),
    }
}

/// To a cluster, without more.
pub(in crate::translate) fn forward(to: ClusterSpecifier) -> RouteAction {
    RouteAction { cluster_specifier: Some(to), timeout: Some(timeout(None)), ..RouteAction::default() }
}

fn forward_to(part: &Part<'_>, to: ClusterSpecifier) -> RouteAction {
    let action = part.rule.action.as_ref();
    let mut forwarded = RouteAction {
        timeout: Some(timeout(action.timeouts.request)),
        retry_policy: retry::policy(action.retry.as_ref(), action.timeouts),
        request_mirror_policies: part.mirrors.iter().copied().filter_map(mirror).collect(),
        ..forward(to)
    };
    if let Some(rewrite) = &part.filters.rewrite {
        apply(rewrite, part, &mut forwarded);
    }
    forwarded
}

fn apply(rewrite: &Rewrite, part: &Part<'_>, forward: &mut RouteAction) {
    forward.host_rewrite_specifier =
        rewrite.hostname.as_ref().map(|name| HostRewriteSpecifier::HostRewriteLiteral(name.to_string()));
    if let Some(change) = &rewrite.path {
        path::rewrite(change, &part.rule.matching.path, forward);
    }
}

/// Envoy ends a request after 15 s unless told otherwise; the Gateway API leaves it open where none is given, and nobody
/// should be surprised by one.
fn timeout(given: Option<Duration>) -> envoy_types::pb::google::protobuf::Duration {
    duration(given.unwrap_or(Duration::ZERO))
}

/// 500, or what Envoy makes UNAVAILABLE of (HTTPRouteRule.backendRefs, GRPCRouteRule.backendRefs).
fn failure(kind: RouteKind) -> route::Action {
    let status = match kind {
        RouteKind::Http => 500,
        RouteKind::Grpc => 503,
    };
    route::Action::DirectResponse(DirectResponseAction { status, ..DirectResponseAction::default() })
}

fn weighted(backends: &[(&Backend, NonZeroU32)]) -> ClusterSpecifier {
    let clusters = backends.iter().map(|(backend, weight)| ClusterWeight {
        name: backend.to_string(),
        weight: Some(UInt32Value { value: weight.get() }),
        ..ClusterWeight::default()
    });
    let weighted = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
    ClusterSpecifier::WeightedClusters(weighted)
}

/// The mirror sees the host that the backend sees; Envoy would put `-shadow` behind it.
fn mirror(mirror: &Mirror) -> Option<RequestMirrorPolicy> {
    let millionths = mirror.share.millionths();
    (millionths > 0).then(|| RequestMirrorPolicy {
        cluster: mirror.backend.to_string(),
        runtime_fraction: (millionths < 1_000_000).then(|| fraction(millionths)),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    })
}
