//! The running agent: tasks that never end, and the signal that ends them all.
//!
//! Tasks are connected by [`watch`] channels alone, in which the newest value replaces the one before: a slow task skips
//! what is old, and nothing ever queues. All of them run on one thread, so what a task does without `await` no other one
//! sees half done.
//!
//! Ending leaves everything in the kernel as it is. Pods stay connected, and the next start compares and corrects.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use crate::admin::{self, Refresh};
use crate::alone::{self, Alone, SOCKET};
use crate::discovery::Discovery;
use crate::gc::Collector;
use crate::leases;
use crate::member::NodeName;
use crate::membership::{Known, Source};
use crate::network;
use crate::repair::pods::Auditor;
use crate::repair::{self, Listener, unmasqueraded};
use crate::setup::{self, InForce, Setup};
use crate::status::Board;

/// What the agent is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node it runs on.
    pub node: NodeName,
    /// Where the nodes are told of.
    pub membership: Source,
    /// How packets travel to other nodes.
    pub network: network::Options,
    /// What it tells the sidecars of the node, if it does.
    pub discovery: Option<Discovery>,
    /// What it does on the node alone.
    pub local: Local,
}

/// What an agent does on its node, whoever the others are.
#[derive(Clone, Debug)]
pub struct Local {
    /// What lets pods be attached.
    pub(crate) setup: Setup,
    /// What ends what sandboxes have left.
    pub(crate) collector: Option<Collector>,
    /// What keeps pods as they were attached.
    pub(crate) auditor: Auditor,
    /// Networks that pods reach under their own addresses, beside those of other pods.
    pub(crate) no_masquerade: Vec<IpNetwork>,
    /// Where it tells about itself.
    pub(crate) admin: SocketAddr,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signals that end it cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// It is not the only one.
    #[error(transparent)]
    Alone(#[from] alone::Error),
    /// The kernel cannot be listened to.
    #[error("cannot hear what is lost")]
    Losses(#[source] repair::Error),
    /// Something that it needs is not to be had.
    #[error("cannot begin with {part}; nothing was changed")]
    Begin {
        /// What.
        part: &'static str,
        /// Why.
        source: Box<dyn StdError>,
    },
    /// A task that never ends did.
    #[error("the task {task} ended")]
    Task {
        /// Which one.
        task: &'static str,
        /// Why.
        source: Box<dyn StdError>,
    },
    /// A task panicked.
    #[error("a task ended badly")]
    Died(#[source] tokio::task::JoinError),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What no task could go on with.
pub async fn run(options: Options) -> Result<(), Error> {
    LocalSet::new().run_until(run_tasks(options)).await
}

async fn run_tasks(options: Options) -> Result<(), Error> {
    let Local { setup, collector, auditor, no_masquerade, admin } = options.local;
    let _alone = Alone::take(&setup.state_dir, SOCKET)?;
    let mut end = End::new().map_err(Error::Signals)?;
    let board = Board::default();
    let (publish, members) = watch::channel(None);
    let (tell_mtu, mtu) = watch::channel(None);
    let (enforce, in_force) = watch::channel(None);
    let (listener, told) = Listener::open().map_err(Error::Losses)?;
    // Whatever cannot be is found out before the first change.
    let membership = options.membership.open().await.map_err(begin("membership"))?;
    let discovery = match options.discovery {
        Some(discovery) => Some(discovery.open().await.map_err(begin("discovery"))?),
        None => None,
    };
    let admin = admin::bind(admin).await.map_err(begin("admin"))?;
    let mut tasks = Tasks::default();
    tasks.start("membership", membership.follow(options.node.clone(), publish, board.clone()));
    if let Some(discovery) = discovery {
        tasks.start("discovery", discovery.keep(board.clone()));
    }
    let ways = network::follow(options.network, members.clone(), told.clone(), board.clone(), tell_mtu);
    tasks.start("network", ways);
    tasks.start("setup", setup::keep(setup, members.clone(), mtu, board.clone(), enforce));
    tasks.start("losses", listener.keep());
    let losses = told.losses;
    let kept = unmasqueraded::keep(no_masquerade, members.clone(), losses.clone(), board.clone());
    tasks.start("unmasqueraded", kept);
    tasks.start("pods", auditor.keep(in_force.clone(), losses, board.clone()));
    if let Some(collector) = collector {
        tasks.start("gc", collector.keep(in_force.clone(), board.clone()));
    }
    tasks.start("admin", admin::serve(admin, board.clone(), completed_by(members, in_force)));
    tracing::info!(node = %options.node, version = env!("CARGO_PKG_VERSION"), "running");
    let ended = tokio::select! {
        () = end.asked() => Ok(()),
        error = tasks.failed() => Err(error),
    };
    tracing::info!("ending; pods stay connected");
    ended
}

fn begin<E: StdError + 'static>(part: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Begin { part, source: Box::new(source) }
}

/// Adds to a status what nobody has to be woken for.
fn completed_by(members: watch::Receiver<Known>, in_force: watch::Receiver<InForce>) -> Refresh {
    Arc::new(move |status| {
        let known = members.borrow();
        if let Some(own) = known.as_ref().and_then(|members| members.own.as_ref()) {
            status.node = own.into();
        }
        status.leases = in_force.borrow().as_deref().map(leases::ranges).unwrap_or_default();
    })
}

/// The tasks of the agent. All are gone when this is.
#[derive(Debug, Default)]
struct Tasks(JoinSet<Error>);

impl Tasks {
    fn start<E: StdError + 'static>(
        &mut self,
        task: &'static str,
        work: impl Future<Output = Result<Infallible, E>> + 'static,
    ) {
        self.0.spawn_local(async move {
            let Err(error) = work.await;
            Error::Task { task, source: Box::new(error) }
        });
    }

    /// Waits for the first task that could not go on.
    async fn failed(&mut self) -> Error {
        match self.0.join_next().await {
            Some(ended) => ended.unwrap_or_else(Error::Died),
            None => std::future::pending().await,
        }
    }
}

/// The signals that ask the agent to end.
#[derive(Debug)]
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
