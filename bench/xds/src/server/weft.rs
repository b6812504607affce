//! weft-xds.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use weft_xds::server::Config;
use weft_xds::{Publisher, Resource, Revision, Snapshot};

use super::timed;
use crate::resources;

pub struct Weft {
    clusters: usize,
    snapshot: Arc<Snapshot>,
    publisher: Option<Publisher>,
}

impl Weft {
    pub fn new(clusters: usize) -> Self {
        Self { clusters, snapshot: Arc::default(), publisher: None }
    }
}

impl super::Server for Weft {
    async fn start(&mut self, port: u16) -> Result<Duration, Box<dyn Error>> {
        let all: Vec<_> = (0..self.clusters)
            .map(|at| (resources::name(at), resources::cluster(at), resources::endpoints(at, 1)))
            .collect();
        let (snapshot, took) = timed(|| {
            let mut builder = Snapshot::builder();
            for (name, cluster, endpoints) in &all {
                builder.insert(Resource::encode(name.as_str(), cluster));
                builder.insert(Resource::encode(name.as_str(), endpoints));
            }
            builder.build(Revision(1))
        })?;
        self.snapshot = Arc::new(snapshot?);
        let (server, publisher, mut events) = weft_xds::Server::new(Config::default());
        publisher.publish(Arc::clone(&self.snapshot));
        self.publisher = Some(publisher);
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        tokio::spawn(server.serve_tcp(listener, std::future::pending()));
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(took)
    }

    async fn change(&mut self, port: u32) -> Result<Duration, Box<dyn Error>> {
        let at = self.clusters / 2;
        let next = Revision(self.snapshot.revision().0 + 1);
        let (snapshot, took) = timed(|| {
            let moved = Resource::encode(resources::name(at), &resources::endpoints(at, port));
            self.snapshot.edit().insert(moved).build(next)
        })?;
        self.snapshot = Arc::new(snapshot?);
        let publisher = self.publisher.as_ref().ok_or("not started")?;
        publisher.publish(Arc::clone(&self.snapshot));
        Ok(took)
    }
}
