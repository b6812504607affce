//! The shared store: one pool of addresses for many nodes, in etcd (v3 API).
//!
//! # Keys
//!
//! Below `PREFIX/NETWORK/`, the prefix being [`DEFAULT_PREFIX`] unless the configuration says otherwise:
//!
//! | key | value | what it is |
//! |---|---|---|
//! | `leases/NODE/CONTAINER/IFNAME` | `1 TIME NONCE ADDRESSES DETAIL` | a lease; its fields are those of the node-local log |
//! | `addresses/FAMILY/HEX` | `held NODE/CONTAINER/IFNAME` | the address is in that lease |
//! | `addresses/FAMILY/HEX` | `free TIME` | it was freed then, and waits for its reuse |
//! | `freed/FAMILY/TIME/HEX` | | the same, in the order of reuse |
//! | `nodes/NODE` | `MACHINE BOOT` | the machine that is this node: `/etc/machine-id` and the boot whose leases may stand, `-` where not known |
//! | `ranges` | `ipam.ranges` as JSON | where addresses come from, for those who have no configuration at hand |
//!
//! `FAMILY` is 4 or 6, `HEX` the address in 8 or 32 hexadecimal digits, so that etcd keeps addresses in their order; in `freed/` `TIME` is in
//! 16 hexadecimal digits, elsewhere in decimal, and always nanoseconds since 1970. An address without a key was never used.
//!
//! # What may be relied on
//!
//! - **A transaction is one etcd transaction**, which compares the revision of every key it changes with what the decision saw: an
//!   address is never in two leases, and a lease has all its addresses or is not there. Who loses a race decides again.
//! - **A transaction that nobody answered is sent again as it is**, to the next member. If the first one was carried out after all, the second
//!   fails its comparison, and the lease that is found bears the nonce of the first. Where no member answers before the
//!   deadline, the error says that the lease may have been made; DEL of the attachment finds it, as does a reclaim
//!   when its pod is gone.
//! - **Leases belong to a node.** [`View::records`](crate::store::View::records) and what is made of it (GC, reclaiming) see those of one node only; what others
//!   hold is only ever seen as held. A node that is gone for good is released by its name.
//! - **A value that somebody else has written over a lease is not guessed at.** The keys of its addresses name it, so it can be ended as
//!   any other; until then its addresses stay held, and the other leases are served.
//! - **A node is one machine.** Every transaction compares `nodes/NODE` with this machine, at no cost, and changes nothing where
//!   that is another one; so two machines of one name do not end each other's leases. A machine is the node's when it has
//!   booted since, when the one before it has no lease any more, or when a person says so ([`EtcdStore::claim`]).
//! - **Reads are of one moment**: the first one is confirmed by a majority, and later ones are of its revision.
//! - **Nothing waits for longer than the configured timeout**, of which a single member gets a part.
//!
//! # Cost
//!
//! An allocation does not read the pool. It begins at a random place of the range, so that nodes rarely meet, and reads the keys from there
//! until there is a gap: at a fill of 99 % that is 64 keys more often than not. When a range has no address left that was never used,
//! one of those that were freed first is taken, at random among [`CANDIDATES`].
//!
//! With dual stack an ADD is six round trips on one connection; TLS and a password add theirs. The password is the most expensive part, since
//! etcd hashes it with bcrypt: a client certificate is much cheaper.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::lease::{self, NameError};
use crate::state::Change;
use crate::store::{self, Decide, Look, Store};

mod client;
mod commit;
mod layout;
mod owner;
mod view;

pub use owner::Machine;

use client::Connection;
use commit::{Guard, Outcome, Transaction};
use layout::Layout;
use owner::Owner;
use view::Snapshot;

/// Below which keys are, unless the configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "/weft/ipam";

/// How long an operation may take altogether, unless the configuration says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one member may take to answer, unless the configuration says otherwise.
pub const DEFAULT_ATTEMPT: Duration = Duration::from_secs(1);

/// Among how many of the addresses that were freed first one is chosen.
pub const CANDIDATES: usize = 16;

/// Where the servers are, and as whom to talk to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://` or `https://` addresses of members, in no order.
    pub endpoints: Vec<String>,
    /// Below which keys are; without a `/` at its end.
    pub prefix: String,
    /// Certificates and keys, as PEM files.
    pub tls: Tls,
    /// A user and the file that holds the password.
    pub user: Option<(String, PathBuf)>,
    /// How long an operation may take altogether.
    pub timeout: Duration,
    /// How long one member may take to answer.
    pub attempt: Duration,
    /// Whose leases these are.
    pub node: String,
    /// The machine that is this node. `None` where these are the leases of another node, or nothing tells machines apart.
    pub machine: Option<Machine>,
}

/// The files of a TLS client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who signs the members' certificates. Without it they must be signed by nobody: `http://`.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why the shared store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network's or the node's name cannot be a part of a key.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of the configuration cannot be used.
    #[error("cannot read {what} {}", path.display())]
    File {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the configuration holds something else.
    #[error("{what} {} has no {kind} in it (PEM: -----BEGIN {kind}-----)", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As PEM names it.
        kind: &'static str,
    },
    /// A secret is for everybody to read.
    #[error("{what} {path} is open to everybody (mode {mode:03o}); `chmod o= {path}` closes it", path = path.display())]
    Open {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The client cannot be set up.
    #[error("cannot set up the connection to etcd: {0}")]
    Setup(String),
    /// No member has answered in time: they are down, cut off, or without a majority.
    #[error("no member of etcd answered within {timeout:?} ({doing}): {}{}", members.join("; "), unsettled(*sent))]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// How long it took to give up.
        timeout: Duration,
        /// The members, each with what came of the last attempt.
        members: Vec<String>,
        /// Whether a transaction was sent that may have been carried out.
        sent: bool,
    },
    /// A member refuses the request, and would again.
    #[error("etcd refuses ({doing}): {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// Others were faster, again and again.
    #[error("other nodes changed the same leases for {0:?}")]
    Contended(Duration),
    /// The moment that was read is not kept any more, or not there yet on this member.
    #[error("the leases changed while they were read: {0}")]
    Stale(String),
    /// Two machines have one name, or one has taken another's place.
    #[error(
        "the leases of node {node} belong to another machine ({owner}; this one is {ours}): give one of the two another name, \
         in ipam.store.node or WEFT_NODE; if the other is gone for good, run `weft-ipam claim --conf FILE` here"
    )]
    OtherMachine {
        /// The name of both.
        node: String,
        /// Whose the leases are.
        owner: String,
        /// This machine.
        ours: String,
    },
    /// A value is none of Weft's.
    #[error("the value of {key} cannot be read: {value:?}")]
    Foreign {
        /// The key.
        key: String,
        /// What it holds, or the beginning of that.
        value: String,
    },
}

impl Error {
    /// Whether it passes by itself.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Contended(_) | Self::Stale(_))
    }

    /// Whatever somebody has written, the message stays one that can be read.
    pub(crate) fn foreign(key: String, value: &str) -> Self {
        const MOST: usize = 100;
        Self::Foreign { key, value: value.chars().take(MOST).collect() }
    }

    /// Whether the configuration is to be changed.
    pub(crate) fn is_of_config(&self) -> bool {
        matches!(self, Self::Name(_) | Self::OtherMachine { .. })
    }
}

fn unsettled(sent: bool) -> &'static str {
    if sent { "; what was sent may have been carried out, and DEL ends what was made" } else { "" }
}

/// The leases of one node in one network.
#[derive(Debug)]
pub struct EtcdStore {
    connection: Connection,
    layout: Layout,
    node: String,
    owner: Option<Owner>,
}

impl EtcdStore {
    /// The leases of `settings.node` in `network`. Nothing is connected before the first use.
    pub fn new(settings: Settings, network: &str) -> Result<Self, Error> {
        lease::check_network(network)?;
        lease::check_node(&settings.node)?;
        let layout = Layout::new(&settings.prefix, network);
        let (node, owner) = (settings.node.clone(), settings.machine.clone().map(Owner::new));
        Ok(Self { connection: Connection::new(settings)?, layout, node, owner })
    }

    /// The nodes that hold leases, by name.
    pub fn nodes(&self) -> Result<Vec<String>, store::Error> {
        let deadline = self.deadline();
        let mut nodes = Vec::new();
        let mut from = self.layout.leases();
        // From one node's leases to the next node's: what is between them is not read.
        while let Some(key) = Snapshot::new(self, deadline).first_from(&from, &self.layout.leases())? {
            let Some(node) = self.layout.node_of(&key) else { break };
            from = self.layout.behind_node(&node);
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Whether the transaction was carried out, by the machine that is the node. Otherwise it is to be decided anew.
    fn commit(&self, transaction: &Transaction, deadline: Instant) -> Result<bool, Error> {
        let Some(owner) = &self.owner else {
            return Ok(self.connection.commit(transaction, None, deadline)?.is_done());
        };
        let guard = Guard { key: self.layout.node(&self.node), value: owner.expected().clone() };
        match self.connection.commit(transaction, Some(&guard), deadline)? {
            Outcome::Barred => self.own(owner, deadline).map(|()| false),
            outcome => Ok(outcome.is_done()),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.connection.settings().timeout
    }

    fn contended(&self, deadline: Instant) -> Result<(), Error> {
        let timeout = self.connection.settings().timeout;
        if Instant::now() >= deadline { Err(Error::Contended(timeout)) } else { Ok(()) }
    }

    /// Forgets the addresses that have been free for the longest time where more are remembered than need be. Now and then is
    /// enough, and a failure is nobody's.
    fn trim(&self, changes: &[Change], deadline: Instant) {
        const EVERY: u64 = 8;
        let frees =
            changes.iter().any(|change| matches!(change, Change::Release { .. } | Change::Retire { .. }));
        if !frees || !random().is_multiple_of(EVERY) {
            return;
        }
        for family in layout::FAMILIES {
            let snapshot = Snapshot::new(self, deadline);
            if let Ok(Some(transaction)) = Transaction::forgetting(&snapshot, family) {
                drop(self.commit(&transaction, deadline));
            }
        }
    }
}

impl Store for EtcdStore {
    fn update(&self, decide: Decide<'_>) -> Result<(), store::Error> {
        let deadline = self.deadline();
        loop {
            let snapshot = Snapshot::new(self, deadline);
            let decided =
                decide(&snapshot).and_then(|changes| Ok((Transaction::new(&snapshot, &changes)?, changes)));
            match decided {
                Err(store::Error::Etcd(error)) if matches!(*error, Error::Stale(_)) => {}
                Err(error) => return Err(error),
                Ok((_, changes)) if changes.is_empty() => return Ok(()),
                Ok((transaction, changes)) => {
                    if self.commit(&transaction, deadline)? {
                        self.trim(&changes, deadline);
                        return Ok(());
                    }
                }
            }
            self.contended(deadline)?;
        }
    }

    fn read(&self, look: Look<'_>) -> Result<(), store::Error> {
        let deadline = self.deadline();
        loop {
            match look(&Snapshot::new(self, deadline)) {
                Err(store::Error::Etcd(error)) if matches!(*error, Error::Stale(_)) => {}
                outcome => return outcome,
            }
            self.contended(deadline)?;
        }
    }

    fn check_writable(&self) -> Result<(), store::Error> {
        Ok(self.owner.as_ref().map_or(Ok(()), |owner| self.check_ours(owner))?)
    }

    fn is_swept(&self) -> bool {
        self.owner.as_ref().is_none_or(Owner::is_swept)
    }

    fn mark_swept(&self) -> Result<(), store::Error> {
        Ok(self.owner.as_ref().map_or(Ok(()), |owner| self.has_swept(owner))?)
    }

    /// etcd takes 128 operations in a transaction (`--max-txn-ops`); a lease of n addresses is 2 n + 1.
    fn most_leases(&self) -> usize {
        8
    }
}

impl From<Error> for store::Error {
    fn from(error: Error) -> Self {
        Self::Etcd(Box::new(error))
    }
}

/// Chance, not randomness: it keeps nodes apart. The standard library seeds its hash tables from the kernel.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
    }
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next
    })
}
