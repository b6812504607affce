//! The smallest useful xDS server: one cluster whose endpoint moves every ten seconds, served on a Unix socket.
//!
//! `cargo run -p weft-xds --example smallest -- /tmp/xds.sock`; an Envoy connects to it with a cluster of type `STATIC`,
//! HTTP/2 and the address `pipe: { path: /tmp/xds.sock }`, named in `ads_config` with `api_type: DELTA_GRPC`.
//! Tools can ask it over the same socket what each client has (CSDS).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, SocketAddress, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use tokio::net::UnixListener;
use tokio::time::{MissedTickBehavior, interval};
use weft_xds::server::Config;
use weft_xds::{Event, Resource, Revision, Server, Snapshot};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say where the socket shall be")?;
    let (server, publisher, mut events) = Server::new(Config::default());
    let listener = UnixListener::bind(path)?;
    let serving = tokio::spawn(server.serve_unix(listener, std::future::pending()));

    let mut snapshot = Snapshot::builder();
    snapshot.insert(Resource::encode("web", &cluster("web")));
    snapshot.insert(Resource::encode("web", &endpoints("web", 8080)));
    let mut snapshot = Arc::new(snapshot.build(Revision(1))?);
    publisher.publish(Arc::clone(&snapshot));

    let mut moves = interval(Duration::from_secs(10));
    moves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    moves.tick().await;
    while !serving.is_finished() {
        tokio::select! {
            Some(event) = events.recv() => tell(&event),
            _ = moves.tick() => {
                let next = snapshot.revision().0 + 1;
                let port = if next.is_multiple_of(2) { 8081 } else { 8080 };
                let moved = Resource::encode("web", &endpoints("web", port));
                // The rest is shared with the snapshot before, and nothing of it is sent again.
                snapshot = Arc::new(snapshot.edit().insert(moved).build(Revision(next))?);
                publisher.publish(Arc::clone(&snapshot));
            }
        }
    }
    Ok(serving.await??)
}

fn tell(event: &Event) {
    match event {
        Event::Connected { node, .. } => eprintln!("{} is connected", node.id),
        Event::InSync { revision, .. } => eprintln!("revision {revision} is in force"),
        Event::Nacked { resources, message, .. } => eprintln!("rejected: {resources:?} {message}"),
        _ => {}
    }
}

fn cluster(name: &str) -> Cluster {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    let eds_config = Some(ConfigSource { config_source_specifier: Some(ads), ..Default::default() });
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config, ..Default::default() }),
        ..Default::default()
    }
}

fn endpoints(cluster_name: &str, port: u32) -> ClusterLoadAssignment {
    let address = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(address)) };
    let endpoint = Endpoint { address: Some(address), ..Default::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    let local = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    ClusterLoadAssignment { cluster_name: cluster_name.into(), endpoints: vec![local], ..Default::default() }
}
