//! Load balancing, and the subsets around it.

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie as HashCookie, Header, PolicySpecifier, QueryParameter,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::subset::lb_subset_selector::LbSubsetSelectorFallbackPolicy;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::subset::{
    LbSubsetFallbackPolicy, LbSubsetSelector,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Any, UInt32Value, UInt64Value};

use crate::model::policy::balancing::{Algorithm, HashKey, HashKeyOf, HashOn, LoadBalancing, SlowStart};
use crate::model::policy::locality::Locality;
use crate::model::policy::subsets::{Subsets, WhenEmpty};
use crate::translate::endpoint::subset_key;
use crate::translate::{any, duration};

/// How endpoints are chosen: within the subset that the route names, if there are any.
pub(super) fn policy(balancing: &LoadBalancing, subsets: Option<&Subsets>) -> LoadBalancingPolicy {
    let inner = algorithm(balancing);
    match subsets {
        Some(subsets) => one("subset", any(&around(subsets, inner))),
        None => inner,
    }
}

fn one(name: &str, config: Any) -> LoadBalancingPolicy {
    let name = format!("envoy.load_balancing_policies.{name}");
    let extension = TypedExtensionConfig { name, typed_config: Some(config) };
    LoadBalancingPolicy { policies: vec![Policy { typed_extension_config: Some(extension) }] }
}

fn algorithm(balancing: &LoadBalancing) -> LoadBalancingPolicy {
    let slow_start_config = balancing.slow_start.as_ref().map(slow_start);
    let by_weight = matches!(balancing.locality, Some(Locality::Weights(_)));
    let weighted = by_weight.then(LocalityWeightedLbConfig::default);
    let locality_lb_config = weighted.map(|weighted| LocalityLbConfig {
        locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted)),
    });
    match &balancing.algorithm {
        Algorithm::RoundRobin => {
            one("round_robin", any(&RoundRobin { slow_start_config, locality_lb_config }))
        }
        Algorithm::Random => one("random", any(&Random { locality_lb_config })),
        Algorithm::LeastRequest { choices, bias } => {
            let config = LeastRequest {
                choice_count: choices.map(|value| UInt32Value { value }),
                active_request_bias: bias.map(double),
                slow_start_config,
                locality_lb_config,
                ..LeastRequest::default()
            };
            one("least_request", any(&config))
        }
        Algorithm::RingHash { minimum, maximum, on } => {
            let config = RingHash {
                minimum_ring_size: minimum.map(|value| UInt64Value { value }),
                maximum_ring_size: maximum.map(|value| UInt64Value { value }),
                consistent_hashing_lb_config: Some(hashing(on)),
                locality_weighted_lb_config: weighted,
                ..RingHash::default()
            };
            one("ring_hash", any(&config))
        }
        Algorithm::Maglev { table_size, on } => {
            let config = Maglev {
                table_size: table_size.map(|value| UInt64Value { value }),
                consistent_hashing_lb_config: Some(hashing(on)),
                locality_weighted_lb_config: weighted,
            };
            one("maglev", any(&config))
        }
    }
}

fn slow_start(slow_start: &SlowStart) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(slow_start.window)),
        aggression: slow_start.aggression.map(double),
        min_weight_percent: slow_start.minimum.map(|minimum| Percent { value: minimum.value() }),
    }
}

/// Envoy wants the name of a runtime key for each number that one could change at runtime.
fn double(default_value: f64) -> RuntimeDouble {
    RuntimeDouble { default_value, runtime_key: "weft.unused".into() }
}

fn hashing(on: &HashOn) -> ConsistentHashingLbConfig {
    ConsistentHashingLbConfig {
        hash_balance_factor: on.balance_factor.map(|value| UInt32Value { value }),
        hash_policy: on.keys.iter().map(hash_key).collect(),
        ..ConsistentHashingLbConfig::default()
    }
}

fn hash_key(key: &HashKey) -> HashPolicy {
    let of = match &key.of {
        HashKeyOf::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
        }
        HashKeyOf::Cookie(cookie) => PolicySpecifier::Cookie(HashCookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration),
            path: cookie.path.clone().unwrap_or_default(),
            ..HashCookie::default()
        }),
        HashKeyOf::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashKeyOf::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() }),
    };
    HashPolicy { terminal: key.terminal, policy_specifier: Some(of) }
}

/// A request that names no subset goes to any endpoint.
fn around(subsets: &Subsets, inner: LoadBalancingPolicy) -> Subset {
    let used = [WhenEmpty::Fail, WhenEmpty::AnyEndpoint]
        .into_iter()
        .filter(|when_empty| subsets.0.iter().any(|subset| subset.when_empty == *when_empty));
    Subset {
        fallback_policy: LbSubsetFallbackPolicy::AnyEndpoint.into(),
        subset_selectors: used.map(selector).collect(),
        // An endpoint lists the subsets it is in.
        list_as_any: true,
        subset_lb_policy: Some(inner),
        ..Subset::default()
    }
}

fn selector(when_empty: WhenEmpty) -> LbSubsetSelector {
    let fallback = match when_empty {
        WhenEmpty::Fail => LbSubsetSelectorFallbackPolicy::NoFallback,
        WhenEmpty::AnyEndpoint => LbSubsetSelectorFallbackPolicy::AnyEndpoint,
    };
    LbSubsetSelector {
        keys: vec![subset_key(when_empty).into()],
        fallback_policy: fallback.into(),
        ..LbSubsetSelector::default()
    }
}
