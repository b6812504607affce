//! What policies say about requests.
//!
//! Retries and timeouts are part of a route's action. For the rest there is one HTTP filter each, which every listener
//! has and which is disabled: only the routes whose policy asks for it enable it, by bringing its configuration along. So a
//! change of a policy is a change of routes, which holds for open connections at once; a change of a listener would
//! drain them. Tokens, external authorisation and gRPC-Web cannot be configured by a route alone (Envoy 1.40: the providers
//! of `jwt_authn` and the failure mode of `ext_authz` belong to the filter, `grpc_web` takes nothing from a route), so
//! that a chain of filters that the route brings along stands in their place.

mod access;
mod external_auth;
mod faults;
mod jwt;
mod rate_limit;
mod retry;
mod session;
mod transcoding;

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use envoy_types::pb::envoy::config::route::v3::route_action::UpgradeConfig;
use envoy_types::pb::envoy::config::route::v3::{RetryPolicy, Route, RouteAction, route};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::filter_chain::v3::{
    FilterChain, FilterChainConfig, FilterChainConfigPerRoute,
};
use envoy_types::pb::envoy::extensions::filters::http::grpc_json_transcoder::v3::{
    GrpcJsonTranscoder, grpc_json_transcoder::DescriptorSet,
};
use envoy_types::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use super::listener::STATEFUL_SESSION;
use super::{Part, any, duration};
use crate::model::policy::Policy;
use crate::model::policy::value::Percent;
use crate::model::{Action, MeshPort};

const FAULT: &str = "envoy.filters.http.fault";
const CHAIN: &str = "envoy.filters.http.filter_chain";
const DENY: &str = "weft.rbac.deny";
const ALLOW: &str = "weft.rbac.allow";
const RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
const GRPC_WEB: &str = "envoy.filters.http.grpc_web";
const TRANSCODER: &str = "envoy.filters.http.grpc_json_transcoder";

/// The filters of all listeners for what policies ask for, in the order in which requests pass them. They are to be
/// disabled.
pub(super) fn filters() -> Vec<(&'static str, Any)> {
    // Envoy takes no transcoder without descriptors; without services it does nothing.
    let no_descriptors = GrpcJsonTranscoder {
        descriptor_set: Some(DescriptorSet::ProtoDescriptorBin(Vec::new())),
        ..Default::default()
    };
    let no_limit = LocalRateLimit { stat_prefix: rate_limit::STATS.into(), ..LocalRateLimit::default() };
    vec![
        (FAULT, any(&HttpFault::default())),
        (CHAIN, any(&FilterChainConfig::default())),
        (DENY, any(&Rbac::default())),
        (ALLOW, any(&Rbac::default())),
        (RATE_LIMIT, any(&no_limit)),
        (TRANSCODER, any(&no_descriptors)),
    ]
}

/// The only route of a port, with what holds for it.
pub(super) fn of_port(route: Route, port: &MeshPort) -> Route {
    match port.policy.as_deref() {
        Some(policy) => with(route, policy, None),
        None => route,
    }
}

/// The routes of a rule, with what holds for them: what is said of the rule or its route before what is said of the port, if
/// it is at one, and what the rule itself says before both.
pub(super) fn of_rule(routes: Vec<Route>, action: &Action, port: Option<&Policy>) -> Vec<Route> {
    let policy = match (action.policy.as_deref(), port) {
        (Some(rule), Some(port)) => Cow::Owned(rule.over(port)),
        (Some(one), None) | (None, Some(one)) => Cow::Borrowed(one),
        (None, None) => return routes,
    };
    routes.into_iter().map(|route| with(route, &policy, Some(action))).collect()
}

/// Which policies could be at fault when Envoy rejects a route.
pub(super) fn parts(policy: &Policy) -> impl Iterator<Item = Part> {
    let files = [
        policy.transcoding.as_deref().and_then(transcoding::file),
        policy.jwt.as_deref().and_then(jwt::file),
    ];
    let mentions: Vec<String> = files.into_iter().flatten().map(str::to_owned).collect();
    policy.origins.iter().map(move |origin| Part { origin: origin.clone(), mentions: mentions.clone() })
}

fn with(mut route: Route, policy: &Policy, own: Option<&Action>) -> Route {
    for (filter, config) in of_route(policy) {
        route.typed_per_filter_config.entry(filter).or_insert(config);
    }
    route.action = match route.action {
        Some(route::Action::Route(forward)) => Some(route::Action::Route(forwarded(forward, policy, own))),
        other => other,
    };
    route
}

/// What enables the filters for a route.
fn of_route(policy: &Policy) -> HashMap<String, Any> {
    let (deny, allow) = policy.access.as_deref().map(access::filters).unwrap_or_default();
    let enabled = [
        (FAULT, policy.faults.as_deref().map(|faults| any(&faults::fault(faults)))),
        (CHAIN, chain(policy)),
        (DENY, deny.map(|deny| any(&deny))),
        (ALLOW, allow.map(|allow| any(&allow))),
        (RATE_LIMIT, policy.rate_limit.as_deref().map(|limit| any(&rate_limit::rate_limit(limit)))),
        (TRANSCODER, policy.transcoding.as_deref().map(|json| any(&transcoding::transcoder(json)))),
        (STATEFUL_SESSION, policy.session.as_deref().map(|session| any(&session::session(session)))),
    ];
    enabled.into_iter().filter_map(|(name, config)| Some((name.to_owned(), config?))).collect()
}

fn forwarded(forward: RouteAction, policy: &Policy, own: Option<&Action>) -> RouteAction {
    let timeouts = policy.timeouts.as_deref();
    let request = timeouts.and_then(|timeouts| timeouts.request).map(duration);
    let has_own_timeout = own.is_some_and(|own| own.timeouts.request.is_some());
    let upgrades = policy.upgrades.iter().flat_map(|upgrades| &upgrades.0);
    RouteAction {
        timeout: request.filter(|_| !has_own_timeout).or(forward.timeout),
        idle_timeout: timeouts.and_then(|timeouts| timeouts.idle).map(duration),
        retry_policy: retries(forward.retry_policy, policy, own),
        upgrade_configs: forward
            .upgrade_configs
            .into_iter()
            .chain(upgrades.map(|name| upgrade(name)))
            .collect(),
        ..forward
    }
}

/// A rule that says how long each try may take need not say when it is tried again.
fn retries(of_rule: Option<RetryPolicy>, policy: &Policy, own: Option<&Action>) -> Option<RetryPolicy> {
    let retry = policy.retry.as_deref().filter(|retry| retry.attempts > 0);
    let Some(retry) = retry.filter(|_| own.is_none_or(|own| own.retry.is_none())) else { return of_rule };
    let said = retry::policy(retry);
    let per_try_timeout = of_rule.and_then(|rule| rule.per_try_timeout).or(said.per_try_timeout);
    Some(RetryPolicy { per_try_timeout, ..said })
}

fn upgrade(name: &str) -> UpgradeConfig {
    let enabled = Some(BoolValue { value: true });
    UpgradeConfig { upgrade_type: name.to_owned(), enabled, ..UpgradeConfig::default() }
}

/// Who the client is comes before whether it may pass.
fn chain(policy: &Policy) -> Option<Any> {
    let tokens = policy.jwt.as_deref().map(jwt::filter);
    let auth = policy.external_auth.as_deref().map(external_auth::filter);
    let grpc_web = policy.grpc_web.as_deref().filter(|on| **on).map(|_| grpc_web());
    let filters: Vec<TypedExtensionConfig> = tokens.into_iter().chain(auth).chain(grpc_web).collect();
    (!filters.is_empty())
        .then(|| any(&FilterChainConfigPerRoute { filter_chain: Some(FilterChain { filters }) }))
}

fn grpc_web() -> TypedExtensionConfig {
    TypedExtensionConfig { name: GRPC_WEB.into(), typed_config: Some(any(&GrpcWeb::default())) }
}

fn fraction(percent: Percent) -> FractionalPercent {
    FractionalPercent { numerator: percent.millionths(), denominator: DenominatorType::Million.into() }
}

fn always() -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(fraction(Percent::ALL)), runtime_key: String::new() }
}
