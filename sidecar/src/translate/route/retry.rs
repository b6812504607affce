//! When Envoy tries a request again.

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::RetryBackOff;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::model::route::{Retry, Timeouts};
use crate::translate::duration;

/// No endpoint has seen the request, or it has said that it did nothing: such a request is always safe to be tried again
/// (HTTPRouteRetry).
const UNSEEN: &str = "connect-failure,refused-stream,reset-before-request,unavailable";

/// The retries of a rule; the time that each try may take is a part of them, whether there are any or not.
pub(super) fn policy(retry: Option<&Retry>, timeouts: Timeouts) -> Option<RetryPolicy> {
    if retry.is_none() && timeouts.backend_request.is_none() {
        return None;
    }
    let attempts = retry.map_or(0, |retry| retry.attempts);
    Some(RetryPolicy {
        retry_on: retry.map(|retry| conditions(retry, timeouts)).unwrap_or_default(),
        num_retries: Some(UInt32Value { value: attempts }),
        per_try_timeout: timeouts.backend_request.map(duration),
        retriable_status_codes: retry
            .map(|retry| retry.codes.iter().copied().map(u32::from).collect())
            .unwrap_or_default(),
        retry_back_off: retry
            .and_then(|retry| retry.backoff)
            .map(|base| RetryBackOff { base_interval: Some(duration(base)), max_interval: None }),
        ..RetryPolicy::default()
    })
}

/// A try that took too long is to be repeated; Envoy does not tell it from a connection that broke.
fn conditions(retry: &Retry, timeouts: Timeouts) -> String {
    let codes = if retry.codes.is_empty() { "" } else { ",retriable-status-codes" };
    let late = if timeouts.backend_request.is_some() { ",reset" } else { "" };
    if retry.attempts == 0 { String::new() } else { format!("{UNSEEN}{codes}{late}") }
}
