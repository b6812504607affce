//! The engine on gRPC: the aggregated service and the services of single types, both variants, on a Unix socket or TCP.
//!
//! A stream has a reader and a writer, which share its state and nothing else. The reader is a task: it takes requests,
//! snapshots and the passing of time, and never waits for the client to read. The writer is the body of the HTTP
//! response: a response is rendered when HTTP/2 has room for it, from the newest snapshot, and its bytes are those of the
//! snapshot. Behind that is flow control alone, no queue. No lock is held across an await.
//!
//! # Metrics
//!
//! They go to whatever recorder the process has installed for the [`metrics`] facade, under the names in
//! [`metric`]; none is installed here.

mod accept;
mod admission;
mod body;
mod config;
mod connection;
mod csds;
mod frame;
mod groups;
#[cfg(feature = "health")]
mod health;
pub mod metric;
mod pace;
#[cfg(feature = "reflection")]
mod reflection;
mod registry;
mod service;

use std::sync::Arc;

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;

use self::accept::Accepting;
pub use self::admission::Peers;
#[cfg(feature = "tls")]
pub use self::config::Tls;
pub use self::config::{Config, Grouping};
pub use self::groups::Publisher;
pub use self::registry::Status;
pub use self::service::Service;
use self::service::Shared;
use crate::Event;

/// Serving is impossible.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The kernel does not say who we are.
    #[error("cannot find out the user of this process")]
    OwnUid(#[source] std::io::Error),
    /// The listener failed.
    #[error("cannot serve xDS on the socket")]
    Transport(#[source] tonic::transport::Error),
    /// Certificates or keys cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot use the certificates for TLS")]
    Tls(#[source] tonic::transport::Error),
}

/// An xDS server. Clones are the same server: it can serve on several sockets.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// A server, the way to give it snapshots, and what it tells about its clients.
    ///
    /// Until the first snapshot clients may connect, but nobody is answered: an empty answer would delete what
    /// they have. Dropping the receiver is allowed; events are then discarded.
    #[must_use]
    pub fn new(config: Config) -> (Self, Publisher, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(config.event_capacity.max(1));
        let publisher = Publisher::new();
        let shared = Shared::new(config, publisher.clone(), events);
        (Self { shared: Arc::new(shared) }, publisher, received)
    }

    /// How far every client has got. It may be asked at any time, also after the server has ended.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::new(Arc::clone(&self.shared))
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
        let (stop, stopping) = watch::channel(false);
        let allowed = self.shared.config.peers.resolve().map_err(ServeError::OwnUid)?;
        let service = Service::new(Arc::clone(&self.shared), Some(allowed), stopping.clone());
        let serving = self.transport().serve_with_incoming_shutdown(
            service,
            Accepting::new(UnixListenerStream::new(listener)),
            stopped(shutdown, stop),
        );
        self.serve(serving, stopping).await
    }

    /// The same over TCP, in clear text: for networks in which every peer may read and write the configuration.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn serve_tcp(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (stop, stopping) = watch::channel(false);
        let service = Service::new(Arc::clone(&self.shared), None, stopping.clone());
        let incoming = Accepting::new(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let serving =
            self.transport().serve_with_incoming_shutdown(service, incoming, stopped(shutdown, stop));
        self.serve(serving, stopping).await
    }

    /// The same over TCP with TLS; where `tls` names an authority, clients need a certificate of it.
    ///
    /// # Errors
    /// If the socket fails, or the certificates cannot be used.
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        self,
        listener: TcpListener,
        tls: Tls,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (stop, stopping) = watch::channel(false);
        let service = Service::new(Arc::clone(&self.shared), None, stopping.clone());
        let incoming = Accepting::new(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let tls = tonic::transport::ServerTlsConfig::from(tls).timeout(self.shared.config.keepalive_timeout);
        let transport = self.transport().tls_config(tls).map_err(ServeError::Tls)?;
        let serving = transport.serve_with_incoming_shutdown(service, incoming, stopped(shutdown, stop));
        self.serve(serving, stopping).await
    }

    /// The services on their own, to be served next to others. Streams end when `stopping` becomes true; who may connect
    /// is the caller's to check.
    #[must_use]
    pub fn into_service(self, stopping: watch::Receiver<bool>) -> Service {
        Service::new(self.shared, None, stopping)
    }

    fn transport(&self) -> tonic::transport::Server {
        let config = &self.shared.config;
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(config.keepalive_interval))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            .max_concurrent_streams(config.max_streams_per_connection)
    }

    async fn serve(
        &self,
        serving: impl Future<Output = Result<(), tonic::transport::Error>>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        tokio::select! {
            served = serving => served.map_err(ServeError::Transport),
            () = grace_over(stopping, self.shared.config.shutdown_grace) => Ok(()),
        }
    }
}

async fn stopped(shutdown: impl Future<Output = ()>, stop: watch::Sender<bool>) {
    shutdown.await;
    stop.send_replace(true);
}

/// Completes `grace` after the server was told to stop.
async fn grace_over(mut stopping: watch::Receiver<bool>, grace: std::time::Duration) {
    // An error means that the sender is gone, which it is once it has said so or serving has ended.
    if stopping.wait_for(|stop| *stop).await.is_ok() {
        sleep_until(Instant::now() + grace).await;
    } else {
        std::future::pending::<()>().await;
    }
}
