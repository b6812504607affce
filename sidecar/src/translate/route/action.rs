//! What Envoy does with the requests of a route.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy, UpgradeConfig,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use envoy_types::pb::envoy::config::route::v3::{DirectResponseAction, RouteAction, WeightedCluster, route};
use envoy_types::pb::google::protobuf::UInt32Value;

use super::matching::fraction;
use super::rule::Part;
use super::{Frontend, path, retry};
use crate::model::filter::Rewrite;
use crate::model::route::RouteKind;
use crate::model::{Backend, Mirror, Share};
use crate::translate::duration;
use crate::translate::endpoint::in_subset;

pub(super) fn action(part: &Part<'_>, at: Frontend) -> route::Action {
    if let Some(redirect) = &part.filters.redirect {
        return route::Action::Redirect(path::redirect(redirect, &part.rule.matching.path, at));
    }
    let backends: Vec<_> =
        part.shares.iter().filter_map(|share| Some((share.backend.as_ref()?, share))).collect();
    match backends.as_slice() {
        [] => failure(part.rule.action.route.kind),
        backends => route::Action::Route(forward_to(part, backends)),
    }
}

/// To a cluster, without more.
pub(in crate::translate) fn forward(to: ClusterSpecifier) -> RouteAction {
    RouteAction { cluster_specifier: Some(to), timeout: Some(timeout(None)), ..RouteAction::default() }
}

fn forward_to(part: &Part<'_>, backends: &[(&Backend, &Share)]) -> RouteAction {
    let action = part.rule.action.as_ref();
    let mut forwarded = RouteAction {
        timeout: Some(timeout(action.timeouts.request)),
        retry_policy: retry::policy(action.retry.as_ref(), action.timeouts),
        request_mirror_policies: part.mirrors.iter().copied().filter_map(mirror).collect(),
        upgrade_configs: upgrades(part.rule.matching.method),
        metadata_match: match backends {
            [(_, only)] => subset(only),
            _ => None,
        },
        ..forward(specifier(backends, part))
    };
    if let [(_, only)] = backends {
        forwarded.host_rewrite_specifier = authority(only.authority.as_deref());
    }
    if let Some(rewrite) = &part.filters.rewrite {
        apply(rewrite, part, &mut forwarded);
    }
    forwarded
}

/// Envoy refuses CONNECT where a route does not permit it.
fn upgrades(method: Option<&str>) -> Vec<UpgradeConfig> {
    let connect = || UpgradeConfig { upgrade_type: "CONNECT".into(), ..UpgradeConfig::default() };
    method.filter(|method| *method == "CONNECT").map(|_| connect()).into_iter().collect()
}

/// The host that requests bear, if it is another one than they came with.
pub(super) fn authority(name: Option<&str>) -> Option<HostRewriteSpecifier> {
    name.map(|name| HostRewriteSpecifier::HostRewriteLiteral(name.to_owned()))
}

fn apply(rewrite: &Rewrite, part: &Part<'_>, forward: &mut RouteAction) {
    if let Some(name) = &rewrite.hostname {
        forward.host_rewrite_specifier = authority(Some(name.as_str()));
    }
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

fn subset(share: &Share) -> Option<Metadata> {
    share.subset.as_ref().map(|subset| in_subset(&subset.name, subset.when_empty))
}

fn specifier(backends: &[(&Backend, &Share)], part: &Part<'_>) -> ClusterSpecifier {
    if let [(only, _)] = backends {
        return ClusterSpecifier::Cluster(only.to_string());
    }
    // Envoy would prefer what stands with a cluster to what the rule says.
    let renamed = part.filters.rewrite.as_ref().is_some_and(|rewrite| rewrite.hostname.is_some());
    let clusters = backends.iter().map(|(backend, share)| ClusterWeight {
        name: backend.to_string(),
        metadata_match: subset(share),
        weight: Some(UInt32Value { value: share.weight.get() }),
        host_rewrite_specifier: rewritten(share).filter(|_| !renamed),
        ..ClusterWeight::default()
    });
    let weighted = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
    ClusterSpecifier::WeightedClusters(weighted)
}

fn rewritten(share: &Share) -> Option<cluster_weight::HostRewriteSpecifier> {
    let name = share.authority.as_deref()?;
    Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(name.to_owned()))
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
