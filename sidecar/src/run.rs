//! `weft-sidecar run`: follows the files and serves what they say to Envoy.
//!
//! Until the first configuration without any mistake Envoy is not answered: it keeps what it has, or stays unready,
//! which is better than half of a configuration. From then on the last good state of everything stays in force.

mod log;
mod revisions;
mod socket;

use std::future::Future;
use std::io;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use weft_xds::server::{Config, Peers, ServeError};
use weft_xds::stream::Policy;
use weft_xds::{Event, Publisher, Server};

use crate::model::sidecar::Sidecar;
use crate::read::files::Roots;
use crate::watch::Watcher;
use revisions::{Publication, Revisions};
use socket::Socket;

/// Why the sidecar could not start, or had to end.
#[derive(Debug, Error)]
pub enum Error {
    /// The runtime did not start.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// Files cannot be watched.
    #[error("cannot watch files")]
    Watch(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// Envoy cannot be given a socket.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// The server failed.
    #[error("the xDS server has failed")]
    Serve(#[source] ServeError),
    /// The server's task has died.
    #[error("the xDS server has died")]
    Died(#[source] JoinError),
    /// The server has ended by itself.
    #[error("the xDS server has ended unexpectedly")]
    Ended,
}

/// Serves the configuration in `roots` until SIGTERM or SIGINT.
pub async fn run(roots: Roots) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let watcher = Watcher::new(&roots).map_err(Error::Watch)?;
    let mut revisions = Revisions::new(roots, watcher);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let Some(first) = unless_ended(&mut signals, first_good(&mut revisions)).await else {
        return Ok(());
    };
    let mut serving = Serving::start(&first.mesh.sidecar)?;
    serving.publish(&mut revisions, first);
    let ended = follow(&mut revisions, &mut serving, &mut signals).await;
    serving.stop().await?;
    tracing::info!("ended");
    ended
}

/// The server, its socket, and the ways to and from it.
struct Serving {
    socket: Socket,
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Looks at the files again and again until they say something without a mistake.
async fn first_good(revisions: &mut Revisions) -> Publication {
    if let Some(publication) = revisions.look() {
        return publication;
    }
    tracing::warn!("waiting for a configuration without mistakes; Envoy is not answered until then");
    revisions.next().await
}

async fn unless_ended<T>(signals: &mut Signals, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = signals.end() => None,
        done = work => Some(done),
    }
}

async fn follow(
    revisions: &mut Revisions,
    serving: &mut Serving,
    signals: &mut Signals,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = signals.end() => return Ok(()),
            ended = &mut serving.server => {
                outcome(ended)?;
                return Err(Error::Ended);
            }
            Some(event) = serving.events.recv() => revisions.note(&event),
            publication = revisions.next() => serving.publish(revisions, publication),
        }
    }
}

impl Serving {
    fn start(sidecar: &Sidecar) -> Result<Self, Error> {
        let (socket, listener) = Socket::bind(&sidecar.xds_socket)?;
        let policy = Policy { answer_timeout: sidecar.retry_timeout, ..Policy::default() };
        // The mode of the socket and of its directory say who may connect.
        let config = Config { policy, peers: Peers::Anyone, ..Config::default() };
        let (server, publisher, events) = Server::new(config);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.serve_unix(listener, async {
            // An error means that the sender is gone, which ends the server too.
            stopped.await.ok();
        }));
        tracing::info!(socket = %sidecar.xds_socket.display(), "serving Envoy");
        Ok(Self { socket, publisher, events, stop, server })
    }

    fn publish(&mut self, revisions: &mut Revisions, publication: Publication) {
        tracing::debug!(revision = publication.snapshot.revision().0, "published");
        self.publisher.publish(publication.snapshot.clone());
        revisions.published(publication);
    }

    async fn stop(self) -> Result<(), Error> {
        let Self { socket, events, stop, server, .. } = self;
        // Nobody reads the events any more, and a full channel would hold the streams up.
        drop(events);
        // The server may have ended by itself.
        stop.send(()).ok();
        if !server.is_finished() {
            outcome(server.await)?;
        }
        drop(socket);
        Ok(())
    }
}

fn outcome(of_server: Result<Result<(), ServeError>, JoinError>) -> Result<(), Error> {
    of_server.map_err(Error::Died)?.map_err(Error::Serve)
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
