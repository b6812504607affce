//! rust-control-plane 0.1.2. Its incremental service is `unimplemented!()`. Its cache is used without the check that it calls
//! ADS consistency, which withholds every response that is consistent.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use data_plane_api::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use prost_0_11::Message as _;
use rust_control_plane::cache::Cache;
use rust_control_plane::service::common::Service;
use rust_control_plane::snapshot::{Resource, Resources, Snapshot};

use super::timed;
use crate::resources::{self, CLUSTER, ENDPOINT};

pub struct Rcp {
    clusters: usize,
    streams: usize,
    version: u64,
    snapshot: Snapshot,
    cache: Arc<Cache>,
}

impl Rcp {
    pub fn new(clusters: usize, streams: usize) -> Self {
        Self { clusters, streams, version: 1, snapshot: Snapshot::new(), cache: Arc::new(Cache::new(false)) }
    }

    /// Clients that share a node would cancel each other's watches: a number in its cache is used again.
    async fn publish(&self) {
        for at in 0..self.streams {
            self.cache.set_snapshot(&resources::node(at), self.snapshot.clone()).await;
        }
    }
}

/// The same messages, as the types of this library.
fn cluster(at: usize) -> Result<Resource, Box<dyn Error>> {
    let bytes = prost::Message::encode_to_vec(&resources::cluster(at));
    Ok(Resource::Cluster(data_plane_api::envoy::config::cluster::v3::Cluster::decode(&*bytes)?))
}

fn endpoints(at: usize, port: u32) -> Result<Resource, Box<dyn Error>> {
    let bytes = prost::Message::encode_to_vec(&resources::endpoints(at, port));
    let decoded = data_plane_api::envoy::config::endpoint::v3::ClusterLoadAssignment::decode(&*bytes)?;
    Ok(Resource::Endpoint(decoded))
}

impl super::Server for Rcp {
    async fn start(&mut self, port: u16) -> Result<Duration, Box<dyn Error>> {
        let all: Result<Vec<_>, Box<dyn Error>> =
            (0..self.clusters).map(|at| Ok((resources::name(at), cluster(at)?, endpoints(at, 1)?))).collect();
        let all = all?;
        let (snapshot, took) = timed(|| {
            let mut clusters = Resources::new("1".into());
            let mut endpoints = Resources::new("1".into());
            for (name, cluster, endpoint) in all {
                clusters.items.insert(name.clone(), cluster);
                endpoints.items.insert(name, endpoint);
            }
            let mut snapshot = Snapshot::new();
            snapshot.insert(CLUSTER.into(), clusters);
            snapshot.insert(ENDPOINT.into(), endpoints);
            snapshot
        })?;
        self.snapshot = snapshot;
        self.publish().await;
        let service = AggregatedDiscoveryServiceServer::new(Service::new(Arc::clone(&self.cache)));
        let server = tonic_0_8::transport::Server::builder().tcp_nodelay(true).add_service(service);
        tokio::spawn(server.serve(([127, 0, 0, 1], port).into()));
        Ok(took)
    }

    async fn change(&mut self, port: u32) -> Result<Duration, Box<dyn Error>> {
        let at = self.clusters / 2;
        let moved = endpoints(at, port)?;
        self.version += 1;
        let (next, took) = timed(|| {
            let mut next = self.snapshot.clone();
            if let Some(endpoints) = next.resources.get_mut(ENDPOINT) {
                endpoints.version = self.version.to_string();
                endpoints.items.insert(resources::name(at), moved);
            }
            next
        })?;
        self.snapshot = next;
        self.publish().await;
        Ok(took)
    }
}
