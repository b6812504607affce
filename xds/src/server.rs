//! The engine on gRPC: [`AggregatedDiscoveryService`] on a Unix socket.
//!
//! Each stream has one task, which reads requests first, never waits for the client while it does, and holds one response
//! at most: what is behind that is HTTP/2 flow control. Snapshots travel in a `watch` channel, so that a slow client gets
//! the newest and none in between.

mod connection;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use self::connection::Connection;
use crate::stream::{Policy, Service as Kind, Stream, Variant};
use crate::{Event, Snapshot, StreamId};

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How patient its streams are.
    pub policy: Policy,
    /// Who may connect.
    pub peers: Peers,
    /// The largest message it takes or sends. A client that reconnects names everything it holds: 102 KB for 1 000
    /// clusters, so gRPC's usual 4 MiB end large configurations for good. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// How often an idle connection is probed. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long a probe may stay unanswered. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// How long clients may take to leave on shutdown. Default: 2 s.
    pub shutdown_grace: Duration,
    /// Events that may wait for the owner. Beyond it streams wait for the owner, so read them. Default: 1024.
    pub event_capacity: usize,
}

/// Which processes may connect to a Unix socket, by the credentials the kernel vouches for (`SO_PEERCRED`).
///
/// The mode of the socket file decides as well: this is the second lock, for sockets in shared directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The user of this process, and root.
    SameUser,
    /// These users. Root is not among them unless it is listed.
    Uids(Vec<u32>),
    /// Whoever can open the socket.
    Anyone,
}

/// Serving is impossible.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The kernel does not say who we are.
    #[error("cannot find out the user of this process")]
    OwnUid(#[source] std::io::Error),
    /// The listener failed.
    #[error("cannot serve xDS on the socket")]
    Transport(#[source] tonic::transport::Error),
}

/// An xDS server that has not been started.
#[derive(Debug)]
pub struct Server {
    config: Config,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    events: mpsc::Sender<Event>,
}

/// Gives snapshots to all streams of a server, those to come included.
#[derive(Clone, Debug)]
pub struct Publisher(watch::Sender<Option<Arc<Snapshot>>>);

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            peers: Peers::SameUser,
            max_message_bytes: 64 << 20,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(2),
            event_capacity: 1024,
        }
    }
}

impl Publisher {
    /// Makes `snapshot` the one that every client shall have. Never waits.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.0.send_replace(Some(snapshot));
    }

    /// The snapshot that was published last.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.borrow().clone()
    }
}

impl Server {
    /// A server, the way to give it snapshots, and what it tells about its clients.
    ///
    /// Until the first snapshot clients may connect, but nobody is answered: an empty answer would delete what
    /// they have. Dropping the receiver is allowed; events are then discarded.
    #[must_use]
    pub fn new(config: Config) -> (Self, Publisher, mpsc::Receiver<Event>) {
        let (publisher, snapshots) = watch::channel(None);
        let (events, received) = mpsc::channel(config.event_capacity.max(1));
        (Self { config, snapshots, events }, Publisher(publisher), received)
    }

    /// Serves on `listener` until `shutdown` completes. Then every stream ends with `UNAVAILABLE`, so that clients
    /// come back to whoever listens next and keep what they have meanwhile.
    ///
    /// # Errors
    /// If the socket fails. What happens on a single connection is not an error.
    pub async fn serve_unix(
        self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let Config { max_message_bytes, shutdown_grace, keepalive_interval, keepalive_timeout, .. } =
            self.config;
        let (stop, stopping) = watch::channel(false);
        let service = AggregatedDiscoveryServiceServer::new(self.into_service(stopping.clone())?)
            .max_decoding_message_size(max_message_bytes)
            .max_encoding_message_size(max_message_bytes);
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(keepalive_interval))
            .http2_keepalive_timeout(Some(keepalive_timeout))
            .serve_with_incoming_shutdown(service, UnixListenerStream::new(listener), async move {
                shutdown.await;
                stop.send_replace(true);
            });
        tokio::select! {
            served = serving => served.map_err(ServeError::Transport),
            () = grace_over(stopping, shutdown_grace) => Ok(()),
        }
    }

    fn into_service(self, stopping: watch::Receiver<bool>) -> Result<Service, ServeError> {
        let allowed_uids = match &self.config.peers {
            Peers::SameUser => Some(vec![own_uid().map_err(ServeError::OwnUid)?, 0]),
            Peers::Uids(uids) => Some(uids.clone()),
            Peers::Anyone => None,
        };
        let Self { config, snapshots, events } = self;
        let next_stream = AtomicU64::new(1);
        Ok(Service { policy: config.policy, allowed_uids, snapshots, events, stopping, next_stream })
    }
}

/// Completes `grace` after the server was told to stop.
async fn grace_over(mut stopping: watch::Receiver<bool>, grace: Duration) {
    // An error means that the sender is gone, which it is once it has said so or serving has ended.
    if stopping.wait_for(|stop| *stop).await.is_ok() {
        sleep_until(Instant::now() + grace).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// The user of this process, as a peer would see it.
fn own_uid() -> std::io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

#[derive(Debug)]
struct Service {
    policy: Policy,
    allowed_uids: Option<Vec<u32>>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    events: mpsc::Sender<Event>,
    stopping: watch::Receiver<bool>,
    next_stream: AtomicU64,
}

impl Service {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(allowed) = &self.allowed_uids else { return Ok(()) };
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        match peer.map(|peer| peer.uid()) {
            Some(uid) if allowed.contains(&uid) => Ok(()),
            Some(uid) => Err(Status::permission_denied(format!("user {uid} may not use this xDS server"))),
            None => Err(Status::permission_denied("the kernel does not say which user this is")),
        }
    }
}

type Responses<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "this server speaks incremental xDS: set ads_config.api_type to DELTA_GRPC",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.admit(&request)?;
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let responses = Connection::spawn(
            Stream::new(id, Kind::aggregated(Variant::Incremental), self.policy),
            request.into_inner(),
            self.snapshots.clone(),
            self.stopping.clone(),
            self.events.clone(),
        );
        Ok(Response::new(Box::pin(responses)))
    }
}
