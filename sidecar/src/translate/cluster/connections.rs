//! Connections to endpoints, and how many of everything there may be.

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, UpstreamConnectionOptions};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as Common, KeepaliveSettings,
    TcpKeepalive,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent as EnvoyPercent;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::model::policy::connections::{ConnectionPool, Http2};
use crate::model::policy::retry::Budget;
use crate::model::service::AppProtocol;
use crate::translate::duration;

/// An answer to a PING is not waited for any longer, unless a policy says how long.
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Envoy lets 1 024 requests and 3 retries at a time through to a cluster by default and fails the rest; a limit that
/// nobody asked for is an outage waiting. Retries stay bounded, by a part of the requests, since they are what makes a
/// bad hour worse.
pub(super) fn limits(pool: &ConnectionPool, budget: Option<&Budget>) -> CircuitBreakers {
    let limit = |given: Option<u32>| Some(UInt32Value { value: given.unwrap_or(u32::MAX) });
    let retry_budget = match pool.max_retries {
        // A budget would stand in for the number.
        Some(_) if budget.is_none() => None,
        _ => budget.map(self::budget),
    };
    let thresholds = Thresholds {
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending_requests),
        max_requests: limit(pool.max_requests),
        max_retries: pool.max_retries.map(|value| UInt32Value { value }),
        retry_budget,
        ..Thresholds::default()
    };
    let per_host = pool.max_connections_per_endpoint.map(|most| Thresholds {
        max_connections: Some(UInt32Value { value: most }),
        ..Thresholds::default()
    });
    CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: per_host.into_iter().collect() }
}

fn budget(budget: &Budget) -> RetryBudget {
    RetryBudget {
        budget_percent: Some(EnvoyPercent { value: budget.percent.value() }),
        min_retry_concurrency: Some(UInt32Value { value: budget.min_concurrency }),
        ..RetryBudget::default()
    }
}

pub(super) fn keepalive(pool: &ConnectionPool) -> Option<UpstreamConnectionOptions> {
    let wrap = |value: Option<u32>| value.map(|value| UInt32Value { value });
    let keepalive = pool.tcp_keepalive.as_ref().map(|keepalive| TcpKeepalive {
        keepalive_probes: wrap(keepalive.probes),
        keepalive_time: wrap(keepalive.time),
        keepalive_interval: wrap(keepalive.interval),
    })?;
    Some(UpstreamConnectionOptions { tcp_keepalive: Some(keepalive), ..UpstreamConnectionOptions::default() })
}

/// None for what is no HTTP.
pub(super) fn http_options(protocol: AppProtocol, pool: &ConnectionPool) -> Option<HttpProtocolOptions> {
    let protocol = match protocol {
        AppProtocol::Http => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        AppProtocol::H2c => {
            let options = pool.http2.as_ref().map(http2).unwrap_or_default();
            ProtocolConfig::Http2ProtocolOptions(options)
        }
        AppProtocol::Tcp => return None,
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    Some(HttpProtocolOptions {
        common_http_protocol_options: common(pool),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    })
}

fn common(pool: &ConnectionPool) -> Option<Common> {
    let options = Common {
        idle_timeout: pool.idle_timeout.map(duration),
        max_connection_duration: pool.max_connection_duration.map(duration),
        max_requests_per_connection: pool.max_requests_per_connection.map(|value| UInt32Value { value }),
        ..Common::default()
    };
    (options != Common::default()).then_some(options)
}

fn http2(options: &Http2) -> Http2ProtocolOptions {
    let keepalive = options.ping_interval.map(|interval| KeepaliveSettings {
        interval: Some(duration(interval)),
        timeout: Some(duration(options.ping_timeout.unwrap_or(PING_TIMEOUT))),
        ..KeepaliveSettings::default()
    });
    Http2ProtocolOptions {
        max_concurrent_streams: options.max_concurrent_streams.map(|value| UInt32Value { value }),
        connection_keepalive: keepalive,
        ..Http2ProtocolOptions::default()
    }
}
