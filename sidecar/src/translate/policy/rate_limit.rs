//! Local rate limits.

use envoy_types::pb::envoy::config::route::v3::RateLimit as Descriptors;
use envoy_types::pb::envoy::config::route::v3::rate_limit::Action;
use envoy_types::pb::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, RequestHeaders};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion,
};
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use envoy_types::pb::envoy::r#type::v3::TokenBucket;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};

use super::always;
use crate::model::policy::rate_limit::{MAX_BUCKETS, RateLimit};
use crate::translate::duration;

/// The first part of the name of the statistics.
pub(super) const STATS: &str = "weft";

/// The one entry of the descriptor that a header's value makes.
const KEY: &str = "value";

pub(super) fn rate_limit(limit: &RateLimit) -> LocalRateLimit {
    let (actions, descriptors) = limit.per_header.as_deref().map(per_header).unzip();
    let descriptors = descriptors.map(|entry| LocalRateLimitDescriptor {
        entries: vec![entry],
        token_bucket: Some(bucket(limit)),
        ..Default::default()
    });
    let headers = if limit.headers {
        XRateLimitHeadersRfcVersion::DraftVersion03
    } else {
        XRateLimitHeadersRfcVersion::Off
    };
    LocalRateLimit {
        stat_prefix: STATS.into(),
        token_bucket: Some(bucket(limit)),
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        rate_limits: actions.into_iter().collect(),
        descriptors: descriptors.into_iter().collect(),
        // A request with the header counts for its own bucket alone.
        always_consume_default_token_bucket: limit.per_header.as_ref().map(|_| BoolValue { value: false }),
        max_dynamic_descriptors: limit.per_header.as_ref().map(|_| UInt32Value { value: MAX_BUCKETS }),
        enable_x_ratelimit_headers: headers.into(),
        ..LocalRateLimit::default()
    }
}

fn bucket(limit: &RateLimit) -> TokenBucket {
    TokenBucket {
        max_tokens: limit.burst,
        tokens_per_fill: Some(UInt32Value { value: limit.requests }),
        fill_interval: Some(duration(limit.interval)),
    }
}

/// An entry without a value stands for each value.
fn per_header(name: &str) -> (Descriptors, Entry) {
    let headers =
        RequestHeaders { header_name: name.into(), descriptor_key: KEY.into(), ..Default::default() };
    let action = Action { action_specifier: Some(ActionSpecifier::RequestHeaders(headers)) };
    let entry = Entry { key: KEY.into(), value: String::new() };
    (Descriptors { actions: vec![action], ..Descriptors::default() }, entry)
}
