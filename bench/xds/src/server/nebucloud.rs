//! nebucloud-xds 0.1.0. What has changed is not told: clients are answered when they ask again.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use nebucloud_xds::prelude::{
    BoxResource, Cache as _, NodeHash, Resource, ShardedCache, Snapshot, TypeUrl, XdsServer,
};

use super::timed;
use crate::resources::{self, CLUSTER, ENDPOINT};

pub struct Nebucloud {
    clusters: usize,
    streams: usize,
    version: u64,
    cache: Arc<ShardedCache>,
}

impl Nebucloud {
    pub fn new(clusters: usize, streams: usize) -> Self {
        Self { clusters, streams, version: 1, cache: Arc::new(ShardedCache::new()) }
    }

    fn publish(&self, snapshot: &Snapshot) {
        for at in 0..self.streams {
            self.cache.set_snapshot(NodeHash::from_id(&resources::node(at)), snapshot.clone());
        }
    }
}

#[derive(Debug)]
struct Encoded {
    name: String,
    any: nebucloud_xds::types::Any,
}

impl Resource for Encoded {
    fn type_url(&self) -> &str {
        &self.any.type_url
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self) -> Result<nebucloud_xds::types::Any, Box<dyn Error + Send + Sync>> {
        Ok(self.any.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn encode(type_url: &str, name: String, message: &impl prost::Message) -> BoxResource {
    let any = nebucloud_xds::types::Any { type_url: type_url.into(), value: message.encode_to_vec() };
    Arc::new(Encoded { name, any })
}

impl super::Server for Nebucloud {
    async fn start(&mut self, port: u16) -> Result<Duration, Box<dyn Error>> {
        let all: Vec<_> = (0..self.clusters)
            .map(|at| (resources::name(at), resources::cluster(at), resources::endpoints(at, 1)))
            .collect();
        let (snapshot, took) = timed(|| {
            let clusters: Vec<_> =
                all.iter().map(|(name, cluster, _)| encode(CLUSTER, name.clone(), cluster)).collect();
            let endpoints: Vec<_> =
                all.iter().map(|(name, _, endpoints)| encode(ENDPOINT, name.clone(), endpoints)).collect();
            let builder = Snapshot::builder().version("1");
            builder
                .resources(TypeUrl::new(CLUSTER), clusters)
                .resources(TypeUrl::new(ENDPOINT), endpoints)
                .build()
        })?;
        self.publish(&snapshot);
        let server =
            XdsServer::builder().cache(Arc::clone(&self.cache)).enable_sotw().enable_delta().build()?;
        tokio::spawn(server.serve(([127, 0, 0, 1], port).into()));
        Ok(took)
    }

    async fn change(&mut self, port: u32) -> Result<Duration, Box<dyn Error>> {
        let at = self.clusters / 2;
        self.version += 1;
        let (next, took) = timed(|| {
            let last = self.cache.get_snapshot(NodeHash::from_id(&resources::node(0)))?;
            let clusters = last.get_resources(TypeUrl::new(CLUSTER))?.to_vec();
            let mut endpoints = last.get_resources(TypeUrl::new(ENDPOINT))?.to_vec();
            let moved = encode(ENDPOINT, resources::name(at), &resources::endpoints(at, port));
            // The later one of a name stays.
            endpoints.push(moved);
            let next = Snapshot::builder().version(self.version.to_string());
            let next = next.resources_with_version(TypeUrl::new(CLUSTER), "1", clusters);
            Some(next.resources(TypeUrl::new(ENDPOINT), endpoints).build())
        })?;
        self.publish(&next.ok_or("no snapshot")?);
        Ok(took)
    }
}
