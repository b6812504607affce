//! Where leases are kept, behind one trait.

use std::fmt::Debug;
use std::net::IpAddr;

use crate::lease::{Holder, Record, Timestamp};
use crate::range::{Range, RangeSet};
use crate::state::{Change, Conflict};

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod local;
pub mod memory;

/// The leases of one network, with one transaction at a time.
pub trait Store: Debug + Send + Sync {
    /// Lets `decide` look at the leases and makes the changes it returns: all of them, or none. An error of `decide` is
    /// returned, and changes nothing.
    ///
    /// When this returns `Ok`, every later reader in every process sees the changes. When it returns an error, none does.
    /// No other transaction comes between what `decide` saw and its changes; a store that finds out only
    /// afterwards runs `decide` again, so it must do nothing but decide.
    fn update(&self, decide: Decide<'_>) -> Result<(), Error>;

    /// Runs `look` on what some transaction has left behind, never on a part of one. As `decide`, it may be run again.
    fn read(&self, look: Look<'_>) -> Result<(), Error>;

    /// Whether a transaction could write, without one.
    fn check_writable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How many leases may be made or ended in one transaction.
    fn most_leases(&self) -> usize {
        usize::MAX
    }

    /// Whether leases of earlier boots were looked for since the machine booted. A transaction learns it on its way, so this costs nothing
    /// after one, and says yes before.
    fn is_swept(&self) -> bool {
        true
    }

    /// They were: the next process does not look again.
    fn mark_swept(&self) -> Result<(), Error> {
        Ok(())
    }

    /// What was put right, or could not be, since the last call, without a transaction failing for it: for the log.
    fn take_notices(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What makes a transaction of what it sees.
pub type Decide<'a> = &'a mut dyn FnMut(&dyn View) -> Result<Vec<Change>, Error>;

/// What only looks.
pub type Look<'a> = &'a mut dyn FnMut(&dyn View) -> Result<(), Error>;

/// The leases of one network as one transaction sees them. Only what is asked for is read, and all answers are of the same
/// moment.
///
/// An address is *held* by a lease, *freed* when one has ended and it waits for its reuse, and otherwise *never used*. A
/// store remembers [`REMEMBERED`](crate::state::REMEMBERED) freed addresses of each family; what it forgets counts as never
/// used.
pub trait View {
    /// The lease of `holder`.
    fn get(&self, holder: &Holder) -> Result<Option<Record>, Error>;

    /// The lease of `holder` for whoever ends it: where what was written of it is damaged, what else is known of it, and that
    /// it was made in 1970.
    fn get_remains(&self, holder: &Holder) -> Result<Option<Record>, Error> {
        self.get(holder)
    }

    /// Whether a lease holds `address`.
    fn is_held(&self, address: IpAddr) -> Result<bool, Error>;

    /// The lease that holds `address`.
    fn holder_of(&self, address: IpAddr) -> Result<Option<Record>, Error>;

    /// Whether nobody holds anything. Freed addresses may still be remembered.
    fn is_empty(&self) -> Result<bool, Error>;

    /// An address that `range` hands out and that was never used: the lowest, unless the store says otherwise.
    fn never_used_in(&self, range: &Range) -> Result<Option<IpAddr>, Error>;

    /// The address that was freed first among those that `set` hands out.
    fn longest_free_in(&self, set: &RangeSet) -> Result<Option<IpAddr>, Error>;

    /// The ranges of the last allocation, as `ipam.ranges` spells them, for those who have no configuration at hand.
    fn ranges(&self) -> Result<Option<String>, Error>;

    /// All leases, longest held first; of a store that nodes share, those of this node. This may read everything there is.
    fn records(&self) -> Result<Vec<Record>, Error>;

    /// The same where some are damaged. A store that cannot tell which fails as [`View::records`] does.
    fn readable_records(&self) -> Result<Readable<Record, Error>, Error> {
        Ok(Readable { leases: self.records()?, damaged: Vec::new() })
    }

    /// The freed addresses with the times they were freed at, longest free first, IPv4 before IPv6.
    fn freed(&self) -> Result<Vec<(IpAddr, Timestamp)>, Error>;

    /// How many addresses are held of those that `range` hands out. It may cost as much as there are.
    fn held_in(&self, range: &Range) -> Result<u128, Error> {
        let records = self.records()?;
        let addresses = records.iter().flat_map(|record| &record.addresses);
        Ok(addresses.filter(|assigned| range.hands_out(assigned.address.ip())).count() as u128)
    }

    /// Of the leases that hold an address of `set`, the `count` that are held the longest. It may cost as much as there
    /// are.
    fn longest_held_in(&self, set: &RangeSet, count: usize) -> Result<Vec<Record>, Error> {
        let holds =
            |record: &Record| record.addresses.iter().any(|assigned| set.hands_out(assigned.address.ip()));
        Ok(self.records()?.into_iter().filter(holds).take(count).collect())
    }
}

/// Leases of which some may be damaged.
#[derive(Debug)]
pub struct Readable<L, E> {
    /// Those that are not, longest held first.
    pub leases: Vec<L>,
    /// The others.
    pub damaged: Vec<Damaged<L, E>>,
}

/// A lease that cannot be read.
#[derive(Debug)]
pub struct Damaged<L, E> {
    /// What it holds all the same.
    pub addresses: Vec<IpAddr>,
    /// What is left of it, where it is known whose it is: neither pod, nor namespace, nor notes.
    pub remains: Option<L>,
    /// Why.
    pub error: E,
}

impl<L, E> Readable<L, E> {
    /// All leases of which it is known whose they are, the remains of damaged ones last, and why that is not known of the others.
    pub fn whose(self) -> (Vec<L>, Vec<E>) {
        let (mut known, mut unknown) = (self.leases, Vec::new());
        for Damaged { remains, error, .. } in self.damaged {
            match remains {
                Some(lease) => known.push(lease),
                None => unknown.push(error),
            }
        }
        (known, unknown)
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node-local store failed.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The shared store failed.
    #[cfg(feature = "etcd")]
    #[error(transparent)]
    Etcd(Box<etcd::Error>),
    /// A decision contradicts the state it was made on.
    #[error("a change contradicts the leases that are held")]
    Conflict(#[from] Conflict),
}

impl Error {
    /// Whether one line or lease cannot be read, and the others may.
    pub(crate) fn is_about_one_lease(&self) -> bool {
        match self {
            Self::Local(local::Error::Damaged { .. }) => true,
            #[cfg(feature = "etcd")]
            Self::Etcd(error) => matches!(**error, etcd::Error::Foreign { .. }),
            _ => false,
        }
    }
}
