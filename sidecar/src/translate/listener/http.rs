//! The HTTP connection manager: what happens to a request before it is routed.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
    http_connection_manager::{RouteSpecifier, ServerHeaderTransformation},
    http_filter::ConfigType,
};
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use super::ads;
use crate::model::Proxy;
use crate::translate::{any, duration, policy, tags, telemetry};

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// Removes the tag headers that a request brings; the routes say what becomes of those of the answer.
pub(in crate::translate) const HEADER_MUTATION: &str = "envoy.filters.http.header_mutation";
/// Does something for a route that has a policy for it.
pub(in crate::translate) const CORS: &str = "envoy.filters.http.cors";
/// Does something for a route that has a state for it.
pub(in crate::translate) const STATEFUL_SESSION: &str = "envoy.filters.http.stateful_session";
const ROUTER: &str = "envoy.filters.http.router";

/// What becomes of the tag headers that a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forged {
    /// They are removed, since anybody can write them.
    Removed,
    /// They are passed on.
    Kept,
}

/// The connection manager as the one filter of a chain, with the routes of the listener's name.
pub(super) fn filter(proxy: &Proxy, name: &str, forged: Forged) -> Filter {
    let config = filter::ConfigType::TypedConfig(any(&connection_manager(proxy, name, forged)));
    Filter { name: CONNECTION_MANAGER.into(), config_type: Some(config) }
}

/// The same for requests from outside, whose clients are the peers of their connections: what they say of themselves in
/// `x-forwarded-for` and the like is not believed.
pub(super) fn at_the_edge(proxy: &Proxy, name: &str) -> Filter {
    let manager = HttpConnectionManager {
        use_remote_address: Some(BoolValue { value: true }),
        ..connection_manager(proxy, name, Forged::Removed)
    };
    let config = filter::ConfigType::TypedConfig(any(&manager));
    Filter { name: CONNECTION_MANAGER.into(), config_type: Some(config) }
}

fn connection_manager(proxy: &Proxy, name: &str, forged: Forged) -> HttpConnectionManager {
    let rds = Rds { config_source: Some(ads()), route_config_name: name.into() };
    HttpConnectionManager {
        stat_prefix: name.into(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        access_log: telemetry::access_logs(proxy, name),
        tracing: telemetry::tracing(proxy),
        http_filters: http_filters(forged),
        // Prefixes are matched on the path that the upstream will resolve.
        normalize_path: Some(BoolValue { value: true }),
        // A stream may be silent for as long as its two ends like.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        // The upstream's own `server` header is the application's business.
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..HttpConnectionManager::default()
    }
}

/// What a filter is to do stands with the routes: the chain is always the same, since a change of it would not reach the
/// connections that are open. The router ends it; without it Envoy accepts the listener and answers nothing.
fn http_filters(forged: Forged) -> Vec<HttpFilter> {
    let border = match forged {
        Forged::Removed => tags::strip_forged(),
        Forged::Kept => HeaderMutation::default(),
    };
    let mut filters =
        vec![for_some_routes(CORS, any(&Cors::default())), http_filter(HEADER_MUTATION, any(&border))];
    filters.extend(policy::filters().into_iter().map(|(name, config)| for_some_routes(name, config)));
    filters.extend([
        for_some_routes(STATEFUL_SESSION, any(&StatefulSession::default())),
        http_filter(ROUTER, any(&Router::default())),
    ]);
    filters
}

/// A filter that costs nothing where no route has a configuration for it.
fn for_some_routes(name: &str, config: Any) -> HttpFilter {
    HttpFilter { disabled: true, ..http_filter(name, config) }
}

fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}
