//! Retries.

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::model::policy::retry::Retry;
use crate::translate::{any, duration};

/// How often the balancer is asked for another endpoint before a retry goes to one that was tried. It chooses by chance: of two endpoints
/// the wrong one every other time, so that with the usual 5 one retry in 64 went where it had failed. With 20 it is one in two million;
/// where there is one endpoint only, a retry takes some microseconds longer.
const OTHER_ENDPOINT_TRIES: i64 = 20;

pub(super) fn policy(retry: &Retry) -> RetryPolicy {
    let backoff = retry.backoff.map(|backoff| RetryBackOff {
        base_interval: Some(duration(backoff.base)),
        max_interval: backoff.max.map(duration),
    });
    RetryPolicy {
        retry_on: conditions(retry),
        num_retries: Some(UInt32Value { value: retry.attempts }),
        per_try_timeout: retry.per_try_timeout.map(duration),
        retry_host_predicate: if retry.other_endpoint { vec![previous_hosts()] } else { Vec::new() },
        host_selection_retry_max_attempts: if retry.other_endpoint { OTHER_ENDPOINT_TRIES } else { 0 },
        retriable_status_codes: retry.codes.clone(),
        retry_back_off: backoff,
        ..RetryPolicy::default()
    }
}

fn conditions(retry: &Retry) -> String {
    let codes = (!retry.codes.is_empty()).then_some("retriable-status-codes");
    let all: Vec<&str> = retry.on.iter().copied().chain(codes).collect();
    all.join(",")
}

fn previous_hosts() -> RetryHostPredicate {
    let config = ConfigType::TypedConfig(any(&PreviousHostsPredicate::default()));
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(config),
    }
}
