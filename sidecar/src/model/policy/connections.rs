//! `connectionPool`: how many connections and requests an endpoint or a service is given at a time, and what keeps
//! them alive.

use std::time::Duration;

use super::value::some_time;
use crate::read::Node;
use crate::read::decode::{Report, integer};

/// The limits of a service; a request above them is answered with 503 at once. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections at a time. One more is made for each endpoint that has none.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests at a time.
    pub max_requests: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// Connections to one endpoint at a time.
    pub max_connections_per_endpoint: Option<u32>,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: Option<u32>,
    /// How long a connection may be without a request; an hour if not given.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may become.
    pub max_connection_duration: Option<Duration>,
    /// Probes of the kernel on connections that are silent.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// What holds for HTTP/2 alone.
    pub http2: Option<Http2>,
}

/// Probes on a silent connection; the kernel's own values where none is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// How many may be unanswered.
    pub probes: Option<u32>,
    /// How long the connection is silent before the first, in whole seconds.
    pub time: Option<u32>,
    /// Between two, in whole seconds.
    pub interval: Option<u32>,
}

/// HTTP/2 to the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http2 {
    /// Requests on one connection at a time.
    pub max_concurrent_streams: Option<u32>,
    /// A PING each so often.
    pub ping_interval: Option<Duration>,
    /// How long its answer may take before the connection is closed.
    pub ping_timeout: Option<Duration>,
}

/// Reads `connectionPool`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<ConnectionPool> {
    let mut fields = report.fields(node, "connectionPool")?;
    let pool = ConnectionPool {
        max_connections: fields.optional("maxConnections", integer(0, u32::MAX)),
        max_pending_requests: fields.optional("maxPendingRequests", integer(0, u32::MAX)),
        max_requests: fields.optional("maxRequests", integer(0, u32::MAX)),
        max_retries: fields.optional("maxRetries", integer(0, u32::MAX)),
        max_connections_per_endpoint: fields.optional("maxConnectionsPerEndpoint", integer(1, u32::MAX)),
        max_requests_per_connection: fields.optional("maxRequestsPerConnection", integer(1, u32::MAX)),
        idle_timeout: fields.optional("idleTimeout", some_time),
        max_connection_duration: fields.optional("maxConnectionDuration", some_time),
        tcp_keepalive: fields.optional("tcpKeepalive", tcp_keepalive),
        http2: fields.optional("http2", http2),
    };
    fields.finish();
    Some(pool)
}

fn tcp_keepalive(node: &Node, report: &mut Report) -> Option<TcpKeepalive> {
    let mut fields = report.fields(node, "tcpKeepalive")?;
    let probes = fields.optional("probes", integer(1, 127));
    let time = fields.optional("time", whole_seconds);
    let interval = fields.optional("interval", whole_seconds);
    fields.finish();
    Some(TcpKeepalive { probes, time, interval })
}

/// The kernel counts in seconds, up to 32 767 (`tcp(7)`, `MAX_TCP_KEEPIDLE`).
fn whole_seconds(node: &Node, report: &mut Report) -> Option<u32> {
    let given = some_time(node, report)?;
    let seconds = u32::try_from(given.as_secs()).ok().filter(|seconds| (1..=32_767).contains(seconds));
    match seconds {
        Some(seconds) if given.subsec_nanos() == 0 => Some(seconds),
        _ => report.error(node.span, "whole seconds from 1s to 32767s are expected"),
    }
}

fn http2(node: &Node, report: &mut Report) -> Option<Http2> {
    let mut fields = report.fields(node, "http2")?;
    let max_concurrent_streams = fields.optional("maxConcurrentStreams", integer(1, 2_147_483_647));
    let ping_interval = fields.optional("pingInterval", some_time);
    let ping_timeout = fields.optional("pingTimeout", some_time);
    if ping_timeout.is_some() && ping_interval.is_none() {
        let span = fields.key_span("pingTimeout");
        fields.report().error::<()>(span, "\"pingTimeout\" needs \"pingInterval\"");
    }
    fields.finish();
    Some(Http2 { max_concurrent_streams, ping_interval, ping_timeout })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn what_is_not_said_is_not_limited() {
        assert_eq!(good("{}", decode), ConnectionPool::default());
        let pool =
            good("{maxRequests: 0, tcpKeepalive: {time: 60s}, http2: {maxConcurrentStreams: 100}}", decode);
        assert_eq!(pool.max_requests, Some(0));
        assert_eq!(pool.tcp_keepalive, Some(TcpKeepalive { time: Some(60), ..TcpKeepalive::default() }));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{maxConnections: -1, tcpKeepalive: {time: 1500ms}, http2: {pingTimeout: 1s}}", decode),
            [
                "1:21 a whole number from 0 to 4294967295 is expected, this is the number -1",
                "1:46 whole seconds from 1s to 32767s are expected",
                "1:63 \"pingTimeout\" needs \"pingInterval\"",
            ]
        );
    }
}
