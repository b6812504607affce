//! Reserving and releasing: the pure parts and a store, put together for a plugin.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weft_cni_spec::{Code, log};

use crate::alloc;
use crate::config::{self, Location};
use crate::lease::{Attachment, Holder, Lease, NetnsIdentity, Notes, Pod, Record, Timestamp};
use crate::range::{Pool, Range};
use crate::state::Change;
#[cfg(feature = "etcd")]
use crate::store::etcd::{EtcdStore, Settings};
use crate::store::local::{self, AtWork, LocalStore};
use crate::store::{self, Damaged, Readable, Store, View};

mod host_local;
mod reclaim;
mod transfer;

pub use transfer::{Import, Imported};

/// What an attachment asks for, and what is known of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub attachment: Attachment,
    /// Addresses to get, at most one from each range set; the other sets choose.
    pub requested: Vec<IpAddr>,
    /// The pod, where known.
    pub pod: Option<Pod>,
    /// The network namespace, where known.
    pub netns: Option<NetnsIdentity>,
    /// What is to be found again when the lease ends ([`Lease::notes`]).
    pub notes: Notes,
}

/// The leases of one network.
#[derive(Clone, Debug)]
pub struct Ipam {
    network: String,
    store: Arc<dyn Store>,
    /// The data directory of the node-local store.
    dir: Option<PathBuf>,
    boot_id: fn() -> Option<String>,
    clock: fn() -> SystemTime,
    evict: Evict,
    /// Whether the namespaces of the leases are those of this node.
    is_here: bool,
}

/// Takes away whatever still answers to the addresses of a lease that is about to be reclaimed, or says why it cannot.
pub type Evict = fn(&Lease) -> Result<(), String>;

/// A lease that ends when this is dropped, unless it is kept. A failed set-up thus gives its addresses back on every
/// early return.
#[derive(Debug)]
#[must_use = "dropping a reservation releases it"]
pub struct Reservation {
    store: Arc<dyn Store>,
    clock: fn() -> SystemTime,
    record: Record,
    lease: Lease,
    kept: bool,
}

/// How much of a range is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utilisation {
    /// The range.
    pub range: Range,
    /// How many of its addresses are held.
    pub held: u128,
    /// How many it can hand out.
    pub size: u128,
}

/// Why the leases could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The attachment has addresses. A runtime must DEL it before it ADDs it again (specification, section 2, "ADD").
    #[error("{attachment} already holds {}", join(addresses))]
    AlreadyHeld {
        /// Who asked.
        attachment: Attachment,
        /// What it holds.
        addresses: Vec<IpAddr>,
    },
    /// There is no choice that fits.
    #[error(transparent)]
    Alloc(#[from] alloc::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The lease cannot be written down.
    #[error("cannot write down the lease of {attachment}")]
    Encode {
        /// Whose.
        attachment: Attachment,
        /// Why.
        source: serde_json::Error,
    },
    /// The lease was written by something else.
    #[error("cannot read the lease of {attachment}")]
    Decode {
        /// Whose.
        attachment: Attachment,
        /// Why.
        source: serde_json::Error,
    },
    /// The ranges were written by something else.
    #[error("cannot read the recorded ranges {text}")]
    Ranges {
        /// As recorded.
        text: String,
    },
    /// Another plugin has handed out addresses of the network before, and its pods may have them still.
    #[error(
        "host-local holds addresses of network {network} ({count} in {theirs}), and weft-ipam has no leases of it in {data_dir} \
         yet: take them over with `weft-ipam import --from-host-local {theirs} --conf FILE`, FILE being this configuration; \
         where their pods are gone, remove the files that are named as \
         addresses", theirs = theirs.display(), data_dir = data_dir.display()
    )]
    HostLocal {
        /// The network.
        network: String,
        /// Where the leases are to be.
        data_dir: PathBuf,
        /// Where host-local's are.
        theirs: PathBuf,
        /// How many.
        count: usize,
    },
    /// The attachment belongs to another network than the one that was opened.
    #[error("{attachment} is not in network {network}")]
    OtherNetwork {
        /// The attachment.
        attachment: Attachment,
        /// The opened network.
        network: String,
    },
}

impl Error {
    /// Whether one line or lease cannot be read, and the others may.
    pub fn is_about_one_lease(&self) -> bool {
        match self {
            Self::Decode { .. } => true,
            Self::Store(error) => error.is_about_one_lease(),
            _ => false,
        }
    }

    /// Whether leases are in the way, which may be abandoned.
    fn blames_leases(&self) -> bool {
        use alloc::Error::{Exhausted, Taken};
        matches!(self, Self::AlreadyHeld { .. } | Self::Alloc(Exhausted { .. } | Taken { .. }))
    }

    /// The code that a plugin answers with (SPEC.md, "Error"). From 100 on codes are Weft's own: 100 is an ADD for an
    /// attachment that has addresses already.
    pub fn code(&self) -> Code {
        use crate::store::local::Error as Local;
        match self {
            Self::AlreadyHeld { .. } => Code(100),
            // Both pass as soon as another pod goes away, and runtimes try again.
            Self::Alloc(alloc::Error::Exhausted { .. } | alloc::Error::Taken { .. }) => Code::TRY_AGAIN,
            Self::Store(store::Error::Local(Local::Locked { .. })) => Code::TRY_AGAIN,
            #[cfg(feature = "etcd")]
            Self::Store(store::Error::Etcd(error)) if error.passes() => Code::TRY_AGAIN,
            #[cfg(feature = "etcd")]
            Self::Store(store::Error::Etcd(error)) if error.is_of_config() => Code::INVALID_CONFIG,
            Self::Alloc(_) | Self::OtherNetwork { .. } | Self::HostLocal { .. } => Code::INVALID_CONFIG,
            Self::Store(store::Error::Local(Local::Name(_))) => Code::INVALID_CONFIG,
            Self::Store(_) | Self::Encode { .. } | Self::Decode { .. } | Self::Ranges { .. } => Code::IO,
        }
    }
}

impl From<local::Error> for Error {
    fn from(error: local::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Request {
    /// A request of which nothing is known but who asks.
    pub fn new(attachment: Attachment) -> Self {
        Self { attachment, requested: Vec::new(), pod: None, netns: None, notes: Notes::new() }
    }
}

impl Ipam {
    /// The leases of `network` in the node-local store below `dir`. This costs nothing: files are opened at the first use.
    pub fn open(network: &str, dir: &Path) -> Result<Self, Error> {
        Self::open_waiting(network, dir, local::LOCK_TIMEOUT)
    }

    /// The same, for who has no time to wait for other transactions any longer than `lock_timeout`.
    pub fn open_waiting(network: &str, dir: &Path, lock_timeout: Duration) -> Result<Self, Error> {
        let store = LocalStore::new(dir, network)?.lock_timeout(lock_timeout);
        Ok(Self {
            network: network.into(),
            store: Arc::new(store),
            dir: Some(dir.into()),
            boot_id: this_boot,
            clock: SystemTime::now,
            evict: |_| Ok(()),
            is_here: true,
        })
    }

    /// The leases of `network` where a configuration says they are. This costs no more than [`Ipam::open`].
    pub fn open_at(network: &str, location: &Location) -> Result<Self, Error> {
        match location {
            Location::Directory(dir) => Self::open(network, dir),
            #[cfg(feature = "etcd")]
            Location::Etcd(settings) => {
                let store = EtcdStore::new(Settings::clone(settings), network).map_err(store::Error::from)?;
                Ok(Self { boot_id: this_boot, ..Self::with_store(network, Arc::new(store), SystemTime::now) })
            }
        }
    }

    /// The same leases, of a node that is another one: what is here says nothing about its namespaces and its boot, so no lease
    /// is ever abandoned.
    #[must_use]
    pub fn of_another_node(self) -> Self {
        Self { is_here: false, ..self }
    }

    /// Whether namespaces and boot of the leases are those of this node.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// Before a lease of this boot is reclaimed, `evict` is called with it; where that fails the lease stays. It may be called by several
    /// processes for the same lease, and for one that somebody else has ended since.
    #[must_use]
    pub fn evicting_with(self, evict: Evict) -> Self {
        Self { evict, ..self }
    }

    /// The leases of `network` in `store`, with no boot id and with a clock of the caller's choice.
    pub fn with_store(network: &str, store: Arc<dyn Store>, clock: fn() -> SystemTime) -> Self {
        Self {
            network: network.into(),
            store,
            dir: None,
            boot_id: || None,
            clock,
            evict: |_| Ok(()),
            is_here: true,
        }
    }

    /// Says that an ADD or a DEL of `attachment` begins. It ends with the value, or with the process, and keeps nobody out. None where
    /// that cannot be said, as before the first lease of a network.
    pub fn begin_work(&self, attachment: &Attachment) -> Option<AtWork> {
        AtWork::begin(self.dir.as_deref()?, attachment)
    }

    /// Whether an ADD or a DEL of `attachment` is at work, so that it need not be as it should be.
    pub fn is_at_work(&self, attachment: &Attachment) -> bool {
        self.dir.as_deref().is_some_and(|dir| AtWork::is_somebody(dir, attachment))
    }

    /// Takes one address from each set of `pool`, or none at all.
    ///
    /// Where a lease is in the way (a set is exhausted, a requested address is taken, the attachment has one already), it
    /// is reclaimed first if it is abandoned. All leases are looked at only where a set is exhausted.
    ///
    /// The first one after a boot also ends the leases of earlier boots, where they are kept beyond one.
    ///
    /// The first lease of a network is refused while host-local has some: their pods live on its addresses.
    pub fn reserve(&self, pool: &Pool, request: Request) -> Result<Reservation, Error> {
        self.check_network(&request.attachment)?;
        self.refuse_unimported()?;
        let outcome = self.reserve_reclaiming(pool, &request);
        self.sweep_after_boot();
        outcome
    }

    fn reserve_reclaiming(&self, pool: &Pool, request: &Request) -> Result<Reservation, Error> {
        loop {
            match self.try_reserve(pool, request) {
                Err(error) if error.blames_leases() => {
                    // Each time one that was in the way is gone. Where there is none, another process may have been faster, and
                    // have left room for more than itself.
                    if !self.reclaims_for(&error)? {
                        return self.try_reserve(pool, request);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn try_reserve(&self, pool: &Pool, request: &Request) -> Result<Reservation, Error> {
        let mut lease = self.lease_without_addresses(request);
        let ranges = pool.to_json().to_string();
        let record = transact(&*self.store, |view| {
            refuse_second_lease(view, &request.attachment)?;
            lease.addresses = alloc::choose(view, pool, &request.requested)?;
            let record = Record::new(&lease)
                .map_err(|source| Error::Encode { attachment: request.attachment.clone(), source })?;
            let mut changes = vec![Change::Grant(record.clone())];
            // What cannot be read any more is written again.
            if view.ranges().ok().flatten().as_ref() != Some(&ranges) {
                changes.push(Change::Ranges { json: ranges.as_str().into(), at: record.since });
            }
            Ok((record, changes))
        })?;
        Ok(Reservation { store: self.store.clone(), clock: self.clock, record, lease, kept: false })
    }

    /// Ends those of `leases` that still stand, and returns them.
    fn end_all(&self, leases: Vec<Lease>) -> Result<Vec<Lease>, Error> {
        let at = Timestamp::from((self.clock)());
        let mut all = Vec::new();
        // A line of the log has to find space on a full disk.
        const MOST: usize = 256;
        for some in leases.chunks(self.store.most_leases().min(MOST)) {
            let ended = transact(&*self.store, |view| {
                let mut ended = Vec::new();
                for lease in some {
                    if stands(view, lease)? {
                        ended.push(lease.clone());
                    }
                }
                let end = |lease: &Lease| Change::Release { holder: (&lease.attachment).into(), at };
                let changes = ended.iter().map(end).collect();
                Ok((ended, changes))
            })?;
            all.extend(ended);
        }
        Ok(all)
    }

    /// The boot that a lease made now would name.
    pub fn boot_id(&self) -> Option<String> {
        (self.boot_id)()
    }

    /// Ends the lease of `attachment`, if it has one, and returns what it was. Doing it again is no error, and writes
    /// nothing.
    pub fn release(&self, attachment: &Attachment) -> Result<Option<Lease>, Error> {
        let Some(lease) = self.lookup_to_end(attachment)? else { return Ok(None) };
        self.end(&lease)?;
        Ok(Some(lease))
    }

    /// Ends this very lease. If it ended meanwhile, its successor is not touched.
    pub fn end(&self, lease: &Lease) -> Result<(), Error> {
        self.check_network(&lease.attachment)?;
        let (holder, at) = (Holder::from(&lease.attachment), Timestamp::from((self.clock)()));
        transact(&*self.store, |view| {
            let end = stands(view, lease)?.then(|| Change::Release { holder: holder.clone(), at });
            Ok(((), end.into_iter().collect()))
        })
    }

    /// Ends every lease but those of `valid` and those that are made meanwhile, and returns what they were.
    ///
    /// # Errors
    /// Also where a lease is damaged and nobody can tell whose it is, when the others have been ended.
    pub fn retain(&self, valid: &[Attachment]) -> Result<Vec<Lease>, Error> {
        valid.iter().try_for_each(|attachment| self.check_network(attachment))?;
        let valid: HashSet<&Attachment> = valid.iter().collect();
        let (mut stale, unknown) = self.readable_leases()?.whose();
        stale.retain(|lease| !valid.contains(&lease.attachment));
        let ended = self.end_all(stale)?;
        for Lease { attachment, .. } in &ended {
            log(format_args!(
                "weft-ipam: released the addresses of {attachment}, which is not valid any more"
            ));
        }
        unknown.into_iter().next().map_or(Ok(ended), Err)
    }

    fn refuse_unimported(&self) -> Result<(), Error> {
        self.dir.as_ref().map_or(Ok(()), |dir| host_local::refuse_unimported(&self.network, dir))
    }

    /// Whether one more attachment would get its addresses, be it after reclaiming abandoned leases.
    pub fn check_room(&self, pool: &Pool) -> Result<(), Error> {
        self.refuse_unimported()?;
        self.store.check_writable()?;
        match self.has_room(pool) {
            Err(error) if error.blames_leases() => {
                self.reclaims_for(&error)?;
                self.has_room(pool)
            }
            outcome => outcome,
        }
    }

    fn has_room(&self, pool: &Pool) -> Result<(), Error> {
        self.view(|view| Ok(alloc::choose(view, pool, &[]).map(drop)))?
    }

    /// The lease of `attachment`.
    pub fn lookup(&self, attachment: &Attachment) -> Result<Option<Lease>, Error> {
        self.check_network(attachment)?;
        let holder = Holder::from(attachment);
        let record = self.view(|view| view.get(&holder))?;
        record.map(|record| self.decode(&record)).transpose()
    }

    /// The lease of `attachment` for whoever is about to end it. Where what was written of it is damaged, that is said on
    /// standard error, and the lease has what is known all the same: its addresses, and neither pod, namespace nor notes.
    pub fn lookup_to_end(&self, attachment: &Attachment) -> Result<Option<Lease>, Error> {
        let damage = match self.lookup(attachment) {
            Err(error) if error.is_about_one_lease() => error,
            found => return found,
        };
        let record = self.view(|view| view.get_remains(&Holder::from(attachment)))?;
        let lease = record.map(|record| record.bare_lease(&self.network));
        if let Some(lease) = &lease {
            let addresses = lease.addresses.iter().map(|assigned| assigned.address.ip()).collect::<Vec<_>>();
            log(format_args!(
                "weft-ipam: of the lease of {attachment} it is only known that it holds {}: {}",
                join(&addresses),
                chain(&damage)
            ));
        }
        Ok(lease)
    }

    /// Whether nobody in the network holds anything. What is written beside the addresses is not looked at, so this is
    /// cheaper than [`Ipam::leases`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.view(|view| view.is_empty())
    }

    /// All leases, longest held first.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let records = self.view(|view| view.records())?;
        records.iter().map(|record| self.decode(record)).collect()
    }

    /// All leases where some are damaged.
    pub fn readable_leases(&self) -> Result<Readable<Lease, Error>, Error> {
        let found = self.view(|view| view.readable_records())?;
        let bare = |record: &Record| record.bare_lease(&self.network);
        let damaged = found.damaged.into_iter().map(|Damaged { addresses, remains, error }| Damaged {
            addresses,
            remains: remains.as_ref().map(bare),
            error: error.into(),
        });
        let mut readable = Readable { leases: Vec::new(), damaged: damaged.collect() };
        for record in &found.leases {
            match self.decode(record) {
                Ok(lease) => readable.leases.push(lease),
                Err(error) => {
                    let addresses = record.addresses.iter().map(|assigned| assigned.address.ip()).collect();
                    readable.damaged.push(Damaged { addresses, remains: Some(bare(record)), error });
                }
            }
        }
        Ok(readable)
    }

    /// The pool of the last reservation, for those who have no configuration at hand. `None` where there was none yet.
    pub fn last_pool(&self) -> Result<Option<Pool>, Error> {
        let Some(text) = self.view(|view| view.ranges())? else { return Ok(None) };
        let pool = serde_json::from_str(&text).ok().and_then(|json| config::parse_ranges(&json).ok());
        pool.map(Some).ok_or(Error::Ranges { text })
    }

    /// How much of each range of `pool` is in use.
    pub fn utilisation(&self, pool: &Pool) -> Result<Vec<Utilisation>, Error> {
        self.view(|view| pool.ranges().map(|range| Utilisation::of(range, view)).collect())
    }

    fn lease_without_addresses(&self, request: &Request) -> Lease {
        Lease {
            attachment: request.attachment.clone(),
            addresses: Vec::new(),
            pod: request.pod.clone(),
            netns: request.netns.clone(),
            boot_id: (self.boot_id)(),
            since: (self.clock)(),
            notes: request.notes.clone(),
        }
    }

    fn check_network(&self, attachment: &Attachment) -> Result<(), Error> {
        if attachment.network() == self.network {
            return Ok(());
        }
        Err(Error::OtherNetwork { attachment: attachment.clone(), network: self.network.clone() })
    }

    fn view<T>(&self, look: impl Fn(&dyn View) -> Result<T, store::Error>) -> Result<T, Error> {
        let mut seen = None;
        let read = self.store.read(&mut |view| {
            seen = Some(look(view)?);
            Ok(())
        });
        report(&*self.store);
        read?;
        Ok(seen.expect("a store that succeeds has let it look"))
    }

    fn decode(&self, record: &Record) -> Result<Lease, Error> {
        let attachment = || record.holder.in_network(&self.network);
        record.lease(&self.network).map_err(|source| Error::Decode { attachment: attachment(), source })
    }
}

impl Reservation {
    /// What was reserved.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Makes the lease last until it is released.
    pub fn keep(mut self) -> Lease {
        self.kept = true;
        self.lease.clone()
    }

    /// Only this very lease: if somebody released it meanwhile, its successor is not ours to end.
    fn release(&self) -> Result<(), Error> {
        let (holder, at) = (&self.record.holder, Timestamp::from((self.clock)()));
        transact(&*self.store, |view| {
            let is_ours = view.get(holder)?.as_ref() == Some(&self.record);
            let end = is_ours.then(|| Change::Release { holder: holder.clone(), at });
            Ok(((), end.into_iter().collect()))
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.release() {
            log(format_args!("weft-ipam: cannot release {}: {}", self.lease.attachment, chain(&error)));
        }
    }
}

impl Utilisation {
    fn of(range: &Range, view: &dyn View) -> Result<Self, store::Error> {
        Ok(Self { range: range.clone(), held: view.held_in(range)?, size: range.size() })
    }
}

/// Whether `lease` is still the one of its attachment.
fn stands(view: &dyn View, lease: &Lease) -> Result<bool, store::Error> {
    let record = view.get_remains(&Holder::from(&lease.attachment))?;
    Ok(record.is_some_and(|record| record.since == Timestamp::from(lease.since)))
}

fn refuse_second_lease(view: &dyn View, attachment: &Attachment) -> Result<(), Error> {
    let Some(held) = view.get(&Holder::from(attachment))? else { return Ok(()) };
    let addresses = held.addresses.iter().map(|assigned| assigned.address.ip()).collect();
    Err(Error::AlreadyHeld { attachment: attachment.clone(), addresses })
}

/// A transaction whose decision has a result, or is a refusal that changes nothing.
fn transact<T>(
    store: &dyn Store,
    mut decide: impl FnMut(&dyn View) -> Result<(T, Vec<Change>), Error>,
) -> Result<T, Error> {
    let mut outcome = None;
    let updated = store.update(&mut |view| match decide(view) {
        Ok((result, changes)) => {
            outcome = Some(Ok(result));
            Ok(changes)
        }
        Err(Error::Store(error)) => Err(error),
        Err(refusal) => {
            outcome = Some(Err(refusal));
            Ok(Vec::new())
        }
    });
    report(store);
    updated?;
    outcome.expect("a store that succeeds has run the decision")
}

fn report(store: &dyn Store) {
    for notice in store.take_notices() {
        log(format_args!("weft-ipam: {notice}"));
    }
}

/// The id of this boot, where the kernel tells.
pub(crate) fn this_boot() -> Option<String> {
    let mut id = [0; 64];
    let length = File::open("/proc/sys/kernel/random/boot_id").ok()?.read(&mut id).ok()?;
    Some(str::from_utf8(id.get(..length)?).ok()?.trim_end().to_owned())
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
