//! What a store holds of one network: the leases, and the order in which free addresses are reused.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::address::{Family, number};
use crate::lease::{Holder, Record, Timestamp};
use crate::range::{Range, RangeSet};
use crate::spans::Spans;
use crate::store::{Error, View};

/// How many freed addresses are remembered, with the order in which they were freed.
///
/// An address is not handed out again before this many others were freed after it, as long as there is another
/// choice. Without a bound an IPv6 network would remember every address it ever used, and reading that is part of
/// every ADD. What is forgotten counts as never used; it is the longest free, so it would have come first anyway.
pub const REMEMBERED: usize = 4096;

/// The leases of one network and the addresses that were freed in it. It knows nothing of ranges: a changed
/// configuration changes what is handed out next, never what is held.
#[derive(Clone, Debug, Default)]
pub struct State {
    records: HashSet<ByHolder>,
    v4: Addresses,
    v6: Addresses,
    frees: u64,
    ranges: Option<Box<str>>,
}

/// A record that is found by its holder.
#[derive(Clone, Debug)]
struct ByHolder(Record);

/// One step from a state to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An attachment gets addresses.
    Grant(Record),
    /// An attachment gives back what it holds, if it holds anything.
    Release {
        /// Whose lease ends.
        holder: Holder,
        /// When.
        at: Timestamp,
    },
    /// A free address takes its place at the end of the order of reuse. Snapshots and imports are made of these.
    Retire {
        /// The address.
        address: IpAddr,
        /// When it was freed.
        at: Timestamp,
    },
    /// From now on addresses come from these ranges.
    Ranges {
        /// The pool as `ipam.ranges` spells it. The state does not look into it.
        json: Box<str>,
        /// When.
        at: Timestamp,
    },
}

/// A change that contradicts the state. The allocator never makes one; a damaged or doctored store may hold one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The address is in a lease already.
    #[error("{address} is granted to {holder}, but it is held already")]
    AddressHeld {
        /// The address.
        address: IpAddr,
        /// Who was to get it.
        holder: Holder,
    },
    /// The attachment has a lease already.
    #[error("{0} is granted a second lease")]
    HolderHolds(Holder),
    /// A held address cannot be free.
    #[error("{0} is marked as free, but it is held")]
    RetiredWhileHeld(IpAddr),
}

/// The addresses of one family that are not "never used".
#[derive(Clone, Debug, Default)]
struct Addresses {
    /// Held or remembered as freed.
    used: Spans,
    /// The order of reuse: number of the free → address.
    order: BTreeMap<u64, Freed>,
    /// Address → its number in the order.
    places: HashMap<u128, u64>,
}

/// An address that waits for its reuse.
#[derive(Clone, Copy, Debug)]
struct Freed {
    address: u128,
    at: Timestamp,
}

impl State {
    /// The lease of `holder`.
    pub fn get(&self, holder: &Holder) -> Option<&Record> {
        self.records.get(holder).map(|ByHolder(record)| record)
    }

    /// All leases, longest held first.
    pub fn records(&self) -> Vec<&Record> {
        let mut records: Vec<&Record> = self.records.iter().map(|ByHolder(record)| record).collect();
        records.sort_by(|a, b| (a.since, &a.holder.0).cmp(&(b.since, &b.holder.0)));
        records
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nobody holds anything. Freed addresses may still be remembered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many freed addresses are remembered.
    pub fn remembered(&self) -> usize {
        self.v4.order.len() + self.v6.order.len()
    }

    /// The ranges of the last allocation, as `ipam.ranges` spells them, for those who have no configuration at hand.
    pub fn ranges(&self) -> Option<&str> {
        self.ranges.as_deref()
    }

    /// Whether a lease holds `address`.
    pub fn is_held(&self, address: IpAddr) -> bool {
        self.of(Family::of(address)).is_held(number(address))
    }

    /// The lease that holds `address`. This looks at all leases: it is for messages, not for allocation.
    pub fn holder_of(&self, address: IpAddr) -> Option<&Record> {
        let holds = |record: &&Record| record.addresses.iter().any(|held| held.address.ip() == address);
        self.is_held(address).then(|| self.records().into_iter().find(holds)).flatten()
    }

    /// The freed addresses with the times they were freed at, longest free first, IPv4 before IPv6.
    pub fn freed(&self) -> impl Iterator<Item = (IpAddr, Timestamp)> {
        let v4 = self.v4.order.values().map(|freed| (Family::V4.address(freed.address), freed.at));
        v4.chain(self.v6.order.values().map(|freed| (Family::V6.address(freed.address), freed.at)))
    }

    /// Makes one change. On an error the state is as it was.
    pub fn apply(&mut self, change: Change) -> Result<(), Conflict> {
        match change {
            Change::Grant(record) => self.grant(record),
            Change::Release { holder, at } => {
                self.release(&holder, at);
                Ok(())
            }
            Change::Retire { address, at } if !self.is_held(address) => {
                self.retire(address, at);
                Ok(())
            }
            Change::Ranges { json, .. } => {
                self.ranges = Some(json);
                Ok(())
            }
            Change::Retire { address, .. } => Err(Conflict::RetiredWhileHeld(address)),
        }
    }

    fn grant(&mut self, record: Record) -> Result<(), Conflict> {
        if self.records.contains(&record.holder) {
            return Err(Conflict::HolderHolds(record.holder));
        }
        let mut taken = Vec::with_capacity(record.addresses.len());
        for address in record.addresses.iter().map(|assigned| assigned.address.ip()) {
            if self.is_held(address) || taken.contains(&address) {
                return Err(Conflict::AddressHeld { address, holder: record.holder });
            }
            taken.push(address);
        }
        for address in taken {
            self.of_mut(Family::of(address)).hold(number(address));
        }
        self.records.insert(ByHolder(record));
        Ok(())
    }

    fn release(&mut self, holder: &Holder, at: Timestamp) {
        let Some(ByHolder(record)) = self.records.take(holder) else { return };
        for assigned in record.addresses {
            self.retire(assigned.address.ip(), at);
        }
    }

    fn retire(&mut self, address: IpAddr, at: Timestamp) {
        self.frees += 1;
        let place = self.frees;
        self.of_mut(Family::of(address)).retire(number(address), at, place);
    }

    fn of(&self, family: Family) -> &Addresses {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut Addresses {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl View for State {
    fn get(&self, holder: &Holder) -> Result<Option<Record>, Error> {
        Ok(self.get(holder).cloned())
    }

    fn is_held(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.is_held(address))
    }

    fn holder_of(&self, address: IpAddr) -> Result<Option<Record>, Error> {
        Ok(self.holder_of(address).cloned())
    }

    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.is_empty())
    }

    fn never_used_in(&self, range: &Range) -> Result<Option<IpAddr>, Error> {
        let used = &self.of(range.family()).used;
        range.first_outside(|from| Ok(used.first_gap(from)))
    }

    fn longest_free_in(&self, set: &RangeSet) -> Result<Option<IpAddr>, Error> {
        let freed = self.of(set.family()).order.values();
        Ok(freed.map(|freed| set.family().address(freed.address)).find(|address| set.hands_out(*address)))
    }

    fn ranges(&self) -> Result<Option<String>, Error> {
        Ok(self.ranges().map(str::to_owned))
    }

    fn records(&self) -> Result<Vec<Record>, Error> {
        Ok(self.records().into_iter().cloned().collect())
    }

    fn freed(&self) -> Result<Vec<(IpAddr, Timestamp)>, Error> {
        Ok(self.freed().collect())
    }
}

impl Borrow<Holder> for ByHolder {
    fn borrow(&self) -> &Holder {
        &self.0.holder
    }
}

impl Hash for ByHolder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.holder.hash(state);
    }
}

impl PartialEq for ByHolder {
    fn eq(&self, other: &Self) -> bool {
        self.0.holder == other.0.holder
    }
}

impl Eq for ByHolder {}

impl Addresses {
    fn is_held(&self, address: u128) -> bool {
        self.used.contains(address) && !self.places.contains_key(&address)
    }

    fn hold(&mut self, address: u128) {
        self.used.insert(address);
        if let Some(place) = self.places.remove(&address) {
            self.order.remove(&place);
        }
    }

    fn retire(&mut self, address: u128, at: Timestamp, place: u64) {
        self.used.insert(address);
        if let Some(former) = self.places.insert(address, place) {
            self.order.remove(&former);
        }
        self.order.insert(place, Freed { address, at });
        if self.order.len() > REMEMBERED {
            self.forget_longest_free();
        }
    }

    fn forget_longest_free(&mut self) {
        if let Some((_, freed)) = self.order.pop_first() {
            self.places.remove(&freed.address);
            self.used.remove(freed.address);
        }
    }
}
