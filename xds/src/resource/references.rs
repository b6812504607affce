//! What has to be there for a resource to work.

use std::any::Any;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{ConfigSource, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    RouteAction, RouteConfiguration, ScopedRouteConfiguration, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
};
use envoy_types::pb::google::protobuf::Any as Packed;
use prost::{Message, Name};

use crate::TypeUrl;

/// A resource that another one needs.
///
/// [`Resource::encode`](crate::Resource::encode) finds these by itself: the endpoints and secrets of a cluster; the
/// routes, secrets and clusters a listener names in an HTTP connection manager or a TCP proxy; the clusters of routes,
/// weights and mirrors; the routes of a scope. Only what is to come from this server counts: from `ads` or `self`.
/// Names inside other extensions (the cluster of an external authorisation, say) are not seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The type of what is needed.
    pub type_url: TypeUrl,
    /// Its name.
    pub name: Arc<str>,
    /// Whether a [`Snapshot`](crate::Snapshot) without it is a mistake.
    pub required: bool,
}

impl Reference {
    /// To something that must be in the same snapshot.
    #[must_use]
    pub fn required(type_url: TypeUrl, name: impl Into<Arc<str>>) -> Self {
        Self { type_url, name: name.into(), required: true }
    }

    /// To something that may be missing.
    #[must_use]
    pub fn optional(type_url: TypeUrl, name: impl Into<Arc<str>>) -> Self {
        Self { type_url, name: name.into(), required: false }
    }
}

/// What a message of a well-known type refers to, each once.
pub(super) fn of(message: &dyn Any) -> Vec<Reference> {
    let mut found = Vec::new();
    if let Some(cluster) = message.downcast_ref::<Cluster>() {
        of_cluster(cluster, &mut found);
    } else if let Some(listener) = message.downcast_ref::<Listener>() {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        chains.for_each(|chain| of_chain(chain, &mut found));
    } else if let Some(routes) = message.downcast_ref::<RouteConfiguration>() {
        of_hosts(&routes.virtual_hosts, &mut found);
    } else if let Some(host) = message.downcast_ref::<VirtualHost>() {
        of_hosts(std::slice::from_ref(host), &mut found);
    } else if let Some(scope) = message.downcast_ref::<ScopedRouteConfiguration>() {
        need(&mut found, TypeUrl::ROUTE, &scope.route_configuration_name);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn need(found: &mut Vec<Reference>, type_url: TypeUrl, name: &str) {
    if !name.is_empty() {
        found.push(Reference::required(type_url, name));
    }
}

fn of_cluster(cluster: &Cluster, found: &mut Vec<Reference>) {
    let by_eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    if let Some(eds) =
        cluster.eds_cluster_config.as_ref().filter(|_| cluster.cluster_discovery_type == by_eds)
        && is_ours(eds.eds_config.as_ref())
    {
        let own = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
        need(found, TypeUrl::ENDPOINT, own);
    }
    let matches = cluster.transport_socket_matches.iter().flat_map(|one| &one.transport_socket);
    for socket in cluster.transport_socket.iter().chain(matches) {
        of_socket(socket, found);
    }
}

fn of_chain(chain: &FilterChain, found: &mut Vec<Reference>) {
    chain.transport_socket.iter().for_each(|socket| of_socket(socket, found));
    for one in &chain.filters {
        let Some(filter::ConfigType::TypedConfig(packed)) = &one.config_type else { continue };
        if let Some(manager) = unpack::<HttpConnectionManager>(packed) {
            of_manager(&manager, found);
        } else if let Some(proxy) = unpack::<TcpProxy>(packed) {
            of_tcp_proxy(&proxy, found);
        }
    }
}

fn of_manager(manager: &HttpConnectionManager, found: &mut Vec<Reference>) {
    match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) if is_ours(rds.config_source.as_ref()) => {
            need(found, TypeUrl::ROUTE, &rds.route_config_name);
        }
        Some(RouteSpecifier::RouteConfig(routes)) => of_hosts(&routes.virtual_hosts, found),
        _ => {}
    }
}

fn of_tcp_proxy(proxy: &TcpProxy, found: &mut Vec<Reference>) {
    match &proxy.cluster_specifier {
        Some(tcp_proxy::ClusterSpecifier::Cluster(name)) => need(found, TypeUrl::CLUSTER, name),
        Some(tcp_proxy::ClusterSpecifier::WeightedClusters(all)) => {
            all.clusters.iter().for_each(|one| need(found, TypeUrl::CLUSTER, &one.name));
        }
        None => {}
    }
}

fn of_hosts(hosts: &[VirtualHost], found: &mut Vec<Reference>) {
    for host in hosts {
        host.request_mirror_policies.iter().for_each(|mirror| need(found, TypeUrl::CLUSTER, &mirror.cluster));
        for route in &host.routes {
            if let Some(Action::Route(action)) = &route.action {
                of_action(action, found);
            }
        }
    }
}

fn of_action(action: &RouteAction, found: &mut Vec<Reference>) {
    action.request_mirror_policies.iter().for_each(|mirror| need(found, TypeUrl::CLUSTER, &mirror.cluster));
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => need(found, TypeUrl::CLUSTER, name),
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            all.clusters.iter().for_each(|one| need(found, TypeUrl::CLUSTER, &one.name));
        }
        _ => {}
    }
}

fn of_socket(socket: &TransportSocket, found: &mut Vec<Reference>) {
    use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
    let Some(ConfigType::TypedConfig(packed)) = &socket.config_type else { return };
    let upstream = || unpack::<UpstreamTlsContext>(packed)?.common_tls_context;
    let downstream = || unpack::<DownstreamTlsContext>(packed)?.common_tls_context;
    if let Some(common) = upstream().or_else(downstream) {
        of_tls(&common, found);
    }
}

fn of_tls(common: &CommonTlsContext, found: &mut Vec<Reference>) {
    let validation = match &common.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => Some(secret),
        Some(ValidationContextType::CombinedValidationContext(both)) => {
            both.validation_context_sds_secret_config.as_ref()
        }
        _ => None,
    };
    let ours = |secret: &&SdsSecretConfig| is_ours(secret.sds_config.as_ref());
    for secret in common.tls_certificate_sds_secret_configs.iter().chain(validation).filter(ours) {
        need(found, TypeUrl::SECRET, &secret.name);
    }
}

/// Whether a client takes it from the server that told it so.
fn is_ours(source: Option<&ConfigSource>) -> bool {
    let source = source.and_then(|source| source.config_source_specifier.as_ref());
    matches!(source, Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)))
}

fn unpack<M: Message + Name + Default>(packed: &Packed) -> Option<M> {
    let name = packed.type_url.rsplit('/').next()?;
    (name == M::full_name()).then(|| M::decode(packed.value.as_slice()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use envoy_types::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
    use envoy_types::pb::envoy::config::core::v3::AggregatedConfigSource;
    use envoy_types::pb::envoy::config::listener::v3::Filter;
    use envoy_types::pb::envoy::config::route::v3::Route;
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;

    fn ads() -> Option<ConfigSource> {
        let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
        Some(ConfigSource { config_source_specifier: Some(ads), ..Default::default() })
    }

    fn cluster(service_name: &str, eds_config: Option<ConfigSource>) -> Cluster {
        Cluster {
            name: "web".into(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            eds_cluster_config: Some(EdsClusterConfig { eds_config, service_name: service_name.into() }),
            ..Default::default()
        }
    }

    fn names(message: &dyn Any) -> Vec<(TypeUrl, String)> {
        of(message).into_iter().map(|one| (one.type_url, one.name.to_string())).collect()
    }

    #[test]
    fn a_cluster_needs_its_endpoints_if_they_come_from_here() {
        assert_eq!(names(&cluster("", ads())), [(TypeUrl::ENDPOINT, "web".into())]);
        assert_eq!(names(&cluster("hosts", ads())), [(TypeUrl::ENDPOINT, "hosts".into())]);
        assert_eq!(names(&cluster("hosts", Some(ConfigSource::default()))), []);
    }

    #[test]
    fn routes_need_their_clusters_and_listeners_their_routes() {
        let to = |name: &str| Route {
            action: Some(Action::Route(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(name.into())),
                ..Default::default()
            })),
            ..Default::default()
        };
        let host = VirtualHost { routes: vec![to("b"), to("a"), to("b")], ..Default::default() };
        let routes = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
        assert_eq!(names(&routes), [(TypeUrl::CLUSTER, "a".into()), (TypeUrl::CLUSTER, "b".into())]);

        let rds = Rds { config_source: ads(), route_config_name: "r".into() };
        let manager =
            HttpConnectionManager { route_specifier: Some(RouteSpecifier::Rds(rds)), ..Default::default() };
        let packed = Packed { type_url: HttpConnectionManager::type_url(), value: manager.encode_to_vec() };
        let filter =
            Filter { config_type: Some(filter::ConfigType::TypedConfig(packed)), ..Default::default() };
        let chain = FilterChain { filters: vec![filter], ..Default::default() };
        let listener = Listener { filter_chains: vec![chain], ..Default::default() };
        assert_eq!(names(&listener), [(TypeUrl::ROUTE, "r".into())]);
        assert_eq!(Resource::encode("l", &listener).references().len(), 1);
    }
}
