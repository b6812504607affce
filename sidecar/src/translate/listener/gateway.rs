//! Listeners of Gateways: where requests and connections from outside enter.
//!
//! One listener of Envoy for each address and port. Hosts tell requests in clear text apart, server names connections in TLS,
//! so that a Gateway's listener there is a filter chain of its own: changing it leaves the connections of the others alone.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketType;
use envoy_types::pb::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
};

use super::inbound::any_family;
use super::{ads, http, tcp};
use crate::model::Proxy;
use crate::model::hostname::Hostname;
use crate::model::ingress::{Content, Entrance, Stream};
use crate::translate::endpoint::address;
use crate::translate::{Part, Sourced, any, route, tags};

const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
/// The name of the transport socket, on either side of Envoy.
pub(in crate::translate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// Where Gateways listen on one address and port.
#[derive(Debug, Clone, Copy)]
pub(in crate::translate) struct At<'m> {
    pub(in crate::translate) address: SocketAddr,
    pub(in crate::translate) entrances: &'m [Entrance],
}

impl At<'_> {
    /// The name of the listener and of its statistics: without dots and colons, which those would cut or replace. On the
    /// loopback address it is the port alone.
    fn name(&self) -> String {
        let port = self.address.port();
        let ip = self.address.ip();
        if ip.is_loopback() && ip.is_ipv4() {
            return format!("gateway/{port}");
        }
        format!("gateway/{port}/{}", ip.to_string().replace(['.', ':'], "-"))
    }

    /// The name of the route configuration of a listener of a Gateway. Requests in clear text share one, for only they
    /// themselves say for whom they are.
    fn routes_of(&self, entrance: &Entrance) -> String {
        match entrance.certificates {
            None => self.name(),
            Some(_) => format!("{}/{}", self.name(), entrance.name()),
        }
    }

    fn has_tls(&self) -> bool {
        self.entrances.iter().any(|entrance| match &entrance.content {
            Content::Requests(_) => entrance.certificates.is_some(),
            Content::Streams(streams) => {
                entrance.certificates.is_some() || streams.iter().any(|stream| stream.name.is_some())
            }
        })
    }
}

/// The listener; none if nothing is attached that it could do something with.
pub(in crate::translate) fn listener(proxy: &Proxy, at: At<'_>) -> Option<Sourced<Listener>> {
    let name = at.name();
    let filter_chains = chains(proxy, at);
    let inspector = listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()));
    let inspector = ListenerFilter {
        name: TLS_INSPECTOR.into(),
        config_type: Some(inspector),
        ..ListenerFilter::default()
    };
    let message = Listener {
        name: name.clone(),
        address: Some(any_family(address(at.address), at.address.ip())),
        stat_prefix: name.clone(),
        traffic_direction: TrafficDirection::Inbound.into(),
        listener_filters: if at.has_tls() { vec![inspector] } else { Vec::new() },
        filter_chains,
        metadata: tags::metadata(&proxy.sidecar.tags),
        ..Listener::default()
    };
    let parts = at.entrances.iter().map(part).collect();
    (!message.filter_chains.is_empty()).then_some(Sourced { name, message, parts })
}

/// The route configurations of the listener.
pub(in crate::translate) fn routes<'m>(
    proxy: &'m Proxy,
    at: At<'m>,
) -> impl Iterator<Item = Sourced<RouteConfiguration>> {
    let requests = |entrance: &&Entrance| matches!(entrance.content, Content::Requests(_));
    let (clear, tls): (Vec<&Entrance>, Vec<&Entrance>) =
        at.entrances.iter().filter(requests).partition(|entrance| entrance.certificates.is_none());
    let shared =
        (!clear.is_empty()).then(|| route::gateway(proxy, at.name(), at.address.port(), &clear, &[]));
    let all: Vec<&Hostname> = tls.iter().filter_map(|entrance| entrance.hostname.as_ref()).collect();
    let of_each = tls.into_iter().map(move |entrance| {
        // They have come with another name than the one that they are for (RFC 9110, section 7.4).
        let own = |other: &&Hostname| entrance.hostname.as_ref() != Some(*other);
        let astray: Vec<&Hostname> = all.iter().copied().filter(own).collect();
        route::gateway(proxy, at.routes_of(entrance), at.address.port(), &[entrance], &astray)
    });
    shared.into_iter().chain(of_each)
}

fn chains(proxy: &Proxy, at: At<'_>) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    let mut clear = at
        .entrances
        .iter()
        .filter(|one| one.certificates.is_none() && matches!(one.content, Content::Requests(_)));
    if clear.next().is_some() {
        let filters = vec![http::at_the_edge(proxy, &at.name())];
        chains.push(FilterChain { name: at.name(), filters, ..FilterChain::default() });
    }
    for entrance in at.entrances {
        match &entrance.content {
            Content::Requests(_) if entrance.certificates.is_none() => {}
            Content::Requests(_) => chains.push(FilterChain {
                filters: vec![http::at_the_edge(proxy, &at.routes_of(entrance))],
                ..chain(entrance, entrance.name(), entrance.hostname.as_ref(), &["h2", "http/1.1"])
            }),
            Content::Streams(streams) => {
                chains.extend(streams.iter().map(|stream| of_stream(entrance, stream)));
            }
        }
    }
    chains
}

fn of_stream(entrance: &Entrance, stream: &Stream) -> FilterChain {
    let host = stream.name.as_ref().map_or("*", Hostname::as_str);
    let name = format!("{}/{host}", entrance.name());
    FilterChain { filters: vec![tcp::filter(stream)], ..chain(entrance, name, stream.name.as_ref(), &[]) }
}

/// A chain without filters, for the connections that ask for one of these hosts.
fn chain(entrance: &Entrance, name: String, host: Option<&Hostname>, alpn: &[&str]) -> FilterChain {
    let transport_socket = entrance.certificates.as_ref().map(|names| server(names, alpn));
    let matching = FilterChainMatch {
        server_names: host.iter().map(ToString::to_string).collect(),
        transport_protocol: if transport_socket.is_some() || host.is_some() { "tls" } else { "" }.into(),
        ..FilterChainMatch::default()
    };
    let filter_chain_match = (matching != FilterChainMatch::default()).then_some(matching);
    FilterChain { name, filter_chain_match, transport_socket, ..FilterChain::default() }
}

/// TLS that ends here. Certificates are asked for by name: a renewed one changes no listener.
fn server(certificates: &[String], alpn: &[&str]) -> TransportSocket {
    let common = CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates.iter().map(|name| secret(name)).collect(),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..CommonTlsContext::default()
    };
    let context =
        DownstreamTlsContext { common_tls_context: Some(common), ..DownstreamTlsContext::default() };
    TransportSocket { name: TLS_SOCKET.into(), config_type: Some(SocketType::TypedConfig(any(&context))) }
}

/// What Envoy asks for by this name.
pub(in crate::translate) fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

fn part(entrance: &Entrance) -> Part {
    Part { origin: entrance.origin.clone(), mentions: vec![entrance.name()] }
}
