//! Clusters, endpoints, listeners and routes, as an Envoy wants them.

use std::collections::HashMap;
use std::path::Path;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService,
    Metadata, PathConfigSource, Pipe, WatchedDirectory, address, data_source,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::{Any, Duration, Struct, Value, value};
use prost::{Message, Name};
use weft_xds::Resource;
use weft_xds::stream::Variant;

use crate::Way;

/// The directories that an Envoy asks for by collection.
pub(crate) const CLUSTERS: &str = "xdstp://weft/envoy.config.cluster.v3.Cluster/all";
pub(crate) const LISTENERS: &str = "xdstp://weft/envoy.config.listener.v3.Listener/all";

/// A cluster that takes its endpoints from the server. Another `timeout`, in seconds, is another cluster.
pub(crate) fn cluster(way: Way, name: &str, timeout: i64) -> Resource {
    let eds_config = Some(way.source());
    let cluster = Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config, ..Default::default() }),
        connect_timeout: Some(Duration { seconds: timeout, nanos: 0 }),
        ..Default::default()
    };
    Resource::encode(name, &cluster)
}

/// One that an Envoy rejects although it is well-formed: nothing says where its original destinations are.
pub(crate) fn rejected_cluster(name: &str) -> Resource {
    let cluster = Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        ..Default::default()
    };
    Resource::encode(name, &cluster)
}

/// One with an endpoint of its own, for a file.
pub(crate) fn in_file(name: &str, socket: &str) -> Any {
    any(&Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(load_assignment(name, socket)),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    })
}

/// One that takes its endpoints from the file `now.pb` in `watched`.
pub(crate) fn with_file(name: &str, watched: &Path) -> Any {
    let directory = WatchedDirectory { path: watched.display().to_string(), ..Default::default() };
    let source = PathConfigSource {
        path: watched.join("now.pb").display().to_string(),
        watched_directory: Some(directory),
        ..Default::default()
    };
    let eds_config = Some(ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::PathConfigSource(source)),
        resource_api_version: ApiVersion::V3.into(),
        ..Default::default()
    });
    any(&Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config, ..Default::default() }),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    })
}

/// What a file holds.
pub(crate) fn response(resources: impl IntoIterator<Item = Any>) -> DiscoveryResponse {
    DiscoveryResponse { resources: resources.into_iter().collect(), ..Default::default() }
}

/// One endpoint, at a socket.
pub(crate) fn endpoints(cluster: &str, socket: &str) -> Resource {
    Resource::encode(cluster, &load_assignment(cluster, socket))
}

/// The same, for a file.
pub(crate) fn assignment(cluster: &str, socket: &str) -> Any {
    any(&load_assignment(cluster, socket))
}

fn load_assignment(cluster: &str, socket: &str) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(pipe(socket)), ..Default::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    let local = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    ClusterLoadAssignment { cluster_name: cluster.into(), endpoints: vec![local], ..Default::default() }
}

/// A listener at a socket, with the routes of this name.
pub(crate) fn listener(way: Way, name: &str, socket: &Path, routes: &str) -> Resource {
    let rds = Rds { route_config_name: routes.into(), config_source: Some(way.source()) };
    let router = HttpFilter {
        name: "router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "in".into(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..Default::default()
    };
    let filter =
        Filter { name: "http".into(), config_type: Some(filter::ConfigType::TypedConfig(any(&manager))) };
    let listener = Listener {
        name: name.into(),
        address: Some(pipe(&socket.display().to_string())),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    };
    Resource::encode(name, &listener)
}

/// Routes that answer everything with `body`, and weigh `ballast` bytes more.
pub(crate) fn routes(name: &str, body: &str, ballast: usize) -> Resource {
    const PIECE: usize = 100_000;
    let body = DataSource {
        specifier: Some(data_source::Specifier::InlineString(body.into())),
        ..Default::default()
    };
    let answer = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status: 200,
            body: Some(body),
            ..Default::default()
        })),
        ..Default::default()
    };
    let heavy = |at: usize| VirtualHost {
        name: format!("heavy-{at}"),
        domains: vec![format!("heavy-{at}")],
        metadata: Some(ballast_of(PIECE)),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![answer],
        ..Default::default()
    };
    let virtual_hosts = [host].into_iter().chain((0..ballast / PIECE).map(heavy)).collect();
    Resource::encode(name, &RouteConfiguration { name: name.into(), virtual_hosts, ..Default::default() })
}

fn ballast_of(bytes: usize) -> Metadata {
    let text = Value { kind: Some(value::Kind::StringValue("x".repeat(bytes))) };
    let fields = HashMap::from([("ballast".to_owned(), text)]);
    let filter_metadata = HashMap::from([("weft.test".to_owned(), Struct { fields })]);
    Metadata { filter_metadata, ..Default::default() }
}

impl Way {
    /// Where resources name other resources from.
    fn source(self) -> ConfigSource {
        let specifier = if self.aggregated {
            ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())
        } else {
            let server = EnvoyGrpc { cluster_name: "xds".into(), ..Default::default() };
            let server = GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(server)),
                ..Default::default()
            };
            let api_type = match self.variant {
                Variant::Incremental => ApiType::DeltaGrpc,
                Variant::StateOfTheWorld => ApiType::Grpc,
            };
            ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
                api_type: api_type.into(),
                transport_api_version: ApiVersion::V3.into(),
                grpc_services: vec![server],
                set_node_on_first_message_only: true,
                ..Default::default()
            })
        };
        ConfigSource {
            config_source_specifier: Some(specifier),
            resource_api_version: ApiVersion::V3.into(),
            ..Default::default()
        }
    }
}

fn pipe(path: &str) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path: path.into(), ..Default::default() })) }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
