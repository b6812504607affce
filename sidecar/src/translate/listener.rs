//! Listeners: where requests enter Envoy.

mod gateway;
mod http;
pub(super) mod inbound;
mod outbound;
mod tcp;

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};

pub(super) use gateway::{At, TLS_SOCKET, listener as gateway, routes as gateway_routes, secret};
pub(super) use http::{CORS, HEADER_MUTATION, STATEFUL_SESSION};
pub(super) use outbound::outbound;
pub use tcp::NO_BACKEND;

/// Served by whoever serves this.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    }
}
