//! `weft-sidecar run`: follows the files and serves what they say to Envoy.
//!
//! Until the first configuration without any mistake of the workload's own Envoy is not answered: it keeps what it has, or stays
//! unready, which is better than half of a configuration. From then on the last good state of everything stays in force.

mod admin;
mod health;
mod log;
pub(crate) mod metrics;
mod revisions;
mod socket;

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use weft_xds::server::{Config, Peers, ServeError};
use weft_xds::stream::Policy;
use weft_xds::{Event, Publisher, Server};

use crate::model::sidecar::Sidecar;
use crate::read::files::Roots;
use crate::watch::{Scope, Watcher};
use admin::Admin;
use health::Health;
use revisions::{Publication, Revisions};
use socket::Socket;

/// How often it is looked whether the socket's file is still there.
const SOCKET_POLL: Duration = Duration::from_secs(1);

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
    /// Health and metrics cannot be served.
    #[error(transparent)]
    Admin(#[from] admin::Error),
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
    let (health, registry) = (Health::default(), metrics::install());
    let mut revisions = Revisions::new(roots, watcher, health.clone());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let first = revisions.look(&Scope::Everything);
    let mut admin = Admin::start_at(revisions.admin(), &health, &registry).await?;
    let Some(first) = unless_ended(&mut signals, first_good(&mut revisions, first)).await else {
        return Ok(());
    };
    if admin.is_none() {
        admin = Admin::start_at(first.mesh.proxy.sidecar.admin, &health, &registry).await?;
    }
    let mut serving = Serving::start(&first.mesh.proxy.sidecar)?;
    serving.publish(&mut revisions, first);
    let ended = follow(&mut revisions, &mut serving, &mut signals).await;
    serving.stop().await?;
    drop(admin);
    tracing::info!("ended");
    ended
}

/// The server, its socket, and the ways to and from it.
struct Serving {
    server: Server,
    socket: Socket,
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    /// One for each socket there has been; those that are gone still have their connections.
    listening: JoinSet<Result<(), ServeError>>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Looks at the files again and again until they say something without a mistake, which `first` may have found.
async fn first_good(revisions: &mut Revisions, first: Option<Publication>) -> Publication {
    if let Some(publication) = first {
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
    let mut look_at_socket = interval(SOCKET_POLL);
    look_at_socket.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = signals.end() => return Ok(()),
            Some(ended) = serving.listening.join_next() => {
                outcome(ended)?;
                return Err(Error::Ended);
            }
            _ = look_at_socket.tick() => serving.keep_socket(),
            Some(event) = serving.events.recv() => {
                if let Some(publication) = revisions.note(&event) {
                    serving.publish(revisions, publication);
                }
            }
            publication = revisions.next() => serving.publish(revisions, publication),
        }
    }
}

impl Serving {
    fn start(sidecar: &Sidecar) -> Result<Self, Error> {
        let (socket, listener) = Socket::bind(&sidecar.xds_socket)?;
        let policy = Policy { answer_timeout: sidecar.retry_timeout, ..Policy::default() };
        let config = Config { policy, peers: peers(sidecar), ..Config::default() };
        let (server, publisher, events) = Server::new(config);
        let (stop, listening) = (watch::Sender::new(false), JoinSet::new());
        let mut serving = Self { server, socket, publisher, events, stop, listening };
        serving.listen(listener);
        tracing::info!(socket = %sidecar.xds_socket.display(), "serving Envoy");
        Ok(serving)
    }

    fn listen(&mut self, listener: UnixListener) {
        let mut stop = self.stop.subscribe();
        self.listening.spawn(self.server.clone().serve_unix(listener, async move {
            // An error means that the sender is gone, which ends the server too.
            stop.wait_for(|stopped| *stopped).await.ok();
        }));
    }

    /// Makes the socket's file again if somebody has deleted it: Envoy's connection lives on, but its next one would find
    /// nothing.
    fn keep_socket(&mut self) {
        if !self.socket.is_gone() {
            return;
        }
        match self.socket.bind_again() {
            Ok(listener) => {
                tracing::warn!(socket = %self.socket.path().display(), "the socket was deleted and is made again");
                self.listen(listener);
            }
            Err(error) => {
                tracing::error!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
            }
        }
    }

    fn publish(&mut self, revisions: &mut Revisions, publication: Publication) {
        tracing::debug!(revision = publication.snapshot.revision().0, "published");
        self.publisher.publish(publication.snapshot.clone());
        revisions.published(publication);
    }

    async fn stop(self) -> Result<(), Error> {
        let Self { socket, events, stop, mut listening, .. } = self;
        // Nobody reads the events any more, and a full channel would hold the streams up.
        drop(events);
        stop.send_replace(true);
        while let Some(ended) = listening.join_next().await {
            outcome(ended)?;
        }
        drop(socket);
        Ok(())
    }
}

/// Behind the mode of the socket and of its directory, which say who can connect at all.
fn peers(sidecar: &Sidecar) -> Peers {
    match &sidecar.allowed_uids {
        None => Peers::SameUser,
        Some(uids) => Peers::Listed { uids: uids.clone(), gids: Vec::new() },
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
