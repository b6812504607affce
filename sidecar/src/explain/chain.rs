//! Which filter chain of a listener takes a connection, and what it does with it.

use std::borrow::Cow;
use std::cmp::Reverse;

use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, tcp_proxy::ClusterSpecifier,
};
use prost::{Message, Name};

use super::request::Request;
use super::{Error, sourced};
use crate::graph::Leads;
use crate::translate::{Part, Resources};

/// What a filter chain does.
pub(super) enum Chain<'r> {
    /// It takes requests apart and routes each of them.
    Http {
        /// By these routes.
        routes: Box<Cow<'r, RouteConfiguration>>,
        /// What they were made from.
        parts: &'r [Part],
        /// The names of its HTTP filters, in order.
        filters: Vec<String>,
    },
    /// It passes the bytes on to one of these clusters.
    Tcp(Vec<String>),
}

impl<'r> Chain<'r> {
    /// The chain that takes the connection on which `request` comes.
    pub(super) fn of(
        listener: &Listener,
        request: &Request,
        resources: &'r Resources,
    ) -> Result<Self, Error> {
        let server = request.authority.rsplit_once(':').map_or(request.authority.as_str(), |(name, _)| name);
        let chain = find(listener, request.tls.then_some(server));
        let chain = chain.ok_or_else(|| Error::NoChain(listener.name.clone()))?;
        let unknown = || Error::Unknown(format!("what listener {:?} does", listener.name));
        if let Some(manager) = chain.filters.iter().find_map(decoded::<HttpConnectionManager>) {
            return http(manager, resources).ok_or_else(unknown);
        }
        let proxy = chain.filters.iter().find_map(decoded::<TcpProxy>).ok_or_else(unknown)?;
        Ok(Self::Tcp(clusters(proxy)))
    }
}

/// Where the filter chains of a listener lead, in their order.
pub(crate) fn destinations_of(listener: &Listener) -> Vec<Leads> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let filters: Vec<&Filter> = chains.flat_map(|chain| &chain.filters).collect();
    let managers = filters.iter().filter_map(|filter| decoded::<HttpConnectionManager>(filter));
    let routes = managers.filter_map(|manager| match manager.route_specifier? {
        RouteSpecifier::Rds(rds) => Some(Leads::Routes(rds.route_config_name)),
        _ => None,
    });
    let proxies = filters.iter().filter_map(|filter| decoded::<TcpProxy>(filter));
    routes.chain(proxies.flat_map(clusters).map(Leads::Cluster)).collect()
}

/// The chain for a server name: the one that has it, else the one with the longest wildcard, else one without names.
fn find<'l>(listener: &'l Listener, server: Option<&str>) -> Option<&'l FilterChain> {
    let ranked = listener.filter_chains.iter().filter_map(|chain| Some((rank(chain, server)?, chain)));
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, chain)| chain);
    best.or(listener.default_filter_chain.as_ref())
}

fn rank(chain: &FilterChain, server: Option<&str>) -> Option<(u8, Reverse<usize>)> {
    let names = chain.filter_chain_match.as_ref().map_or(&[][..], |matching| &matching.server_names);
    if names.is_empty() {
        return Some((2, Reverse(0)));
    }
    let server = server?;
    let fits = names.iter().filter_map(|name| match name.strip_prefix('*') {
        Some(suffix) if server.ends_with(suffix) => Some((1, Reverse(suffix.len()))),
        _ => (name == server).then_some((0, Reverse(0))),
    });
    fits.min()
}

fn http<'r>(manager: HttpConnectionManager, resources: &'r Resources) -> Option<Chain<'r>> {
    let filters = manager.http_filters.into_iter().map(|filter| filter.name).collect();
    match manager.route_specifier? {
        RouteSpecifier::Rds(rds) => {
            let found = sourced(&resources.routes, &rds.route_config_name)?;
            Some(Chain::Http {
                routes: Box::new(Cow::Borrowed(&found.message)),
                parts: &found.parts,
                filters,
            })
        }
        RouteSpecifier::RouteConfig(routes) => {
            Some(Chain::Http { routes: Box::new(Cow::Owned(routes)), parts: &[], filters })
        }
        RouteSpecifier::ScopedRoutes(_) => None,
    }
}

fn clusters(proxy: TcpProxy) -> Vec<String> {
    match proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![name],
        Some(ClusterSpecifier::WeightedClusters(several)) => {
            several.clusters.into_iter().map(|cluster| cluster.name).collect()
        }
        None => Vec::new(),
    }
}

fn decoded<M: Message + Name + Default>(filter: &Filter) -> Option<M> {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { return None };
    (config.type_url == M::type_url()).then(|| M::decode(config.value.as_slice()).ok()).flatten()
}
