//! The allocator: what is held and free, a pool and wishes make a choice. It only looks, so a store may run it as often as
//! it must.

use std::fmt;
use std::net::IpAddr;

use crate::lease::{Assigned, Record};
use crate::range::{Pool, Range, RangeSet};
use crate::store::{self, View};

/// Why there is no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Every address of a set is held.
    #[error(
        "no address is free in {set}: {held} of {size} are held{holders}; `weft-ipam list` shows them all, and a larger range has more"
    )]
    Exhausted {
        /// The set, as written.
        set: String,
        /// Addresses held in the set.
        held: u128,
        /// Addresses the set can hand out.
        size: u128,
        /// Some of those who hold them.
        holders: Holders,
    },
    /// A requested address belongs to somebody else.
    #[error("the requested address {address} is held by {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// By whom, as a message says it.
        holder: String,
    },
    /// A requested address is the gateway, the network's own, or excluded.
    #[error("the requested address {address} is never handed out from {range}: it is {why}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// Its range, as written.
        range: String,
        /// What it is instead.
        why: &'static str,
    },
    /// A requested address is in no set that could still give it.
    #[error("the requested address {address} is in none of the ranges {sets}")]
    OutOfRange {
        /// The address.
        address: IpAddr,
        /// The sets, as written.
        sets: String,
    },
    /// Two requested addresses come from one set, and a set gives one.
    #[error("{first} and {second} are both requested from {set}, which gives one address")]
    TwoFromOneSet {
        /// The earlier request.
        first: IpAddr,
        /// The later request.
        second: IpAddr,
        /// The set, as written.
        set: String,
    },
}

/// Up to three holders, for a message; empty when there are none to name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders(pub Vec<String>);

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ", the longest by {}", self.0.join(", "))
    }
}

/// One address from each set of `pool`, or none at all.
///
/// A requested address is given where it may be. Otherwise addresses never used come first, in ascending order, then
/// the one that has been free for the longest time.
pub fn choose(view: &dyn View, pool: &Pool, requested: &[IpAddr]) -> Result<Vec<Assigned>, crate::Error> {
    check_requests(pool, requested)?;
    pool.sets().iter().map(|set| choose_from(view, set, requested)).collect()
}

fn check_requests(pool: &Pool, requested: &[IpAddr]) -> Result<(), Error> {
    for (index, address) in requested.iter().enumerate() {
        let Some(set) = pool.sets().iter().find(|set| set.range_of(*address).is_some()) else {
            return Err(Error::OutOfRange { address: *address, sets: describe(pool) });
        };
        let earlier = requested.iter().take(index);
        if let Some(first) = earlier.copied().find(|first| set.range_of(*first).is_some()) {
            return Err(Error::TwoFromOneSet { first, second: *address, set: set.to_string() });
        }
    }
    Ok(())
}

fn choose_from(view: &dyn View, set: &RangeSet, requested: &[IpAddr]) -> Result<Assigned, crate::Error> {
    let wish = requested.iter().find_map(|address| Some((*address, set.range_of(*address)?)));
    let choice = match wish {
        Some((address, range)) => Some(grant_wish(view, range, address)?),
        None => match never_used(view, set)? {
            None => view.longest_free_in(set)?,
            fresh => fresh,
        },
    };
    match choice.and_then(|address| set.assign(address)) {
        Some(assigned) => Ok(assigned),
        None => Err(exhausted(view, set)?.into()),
    }
}

fn never_used(view: &dyn View, set: &RangeSet) -> Result<Option<IpAddr>, store::Error> {
    set.ranges().iter().find_map(|range| view.never_used_in(range).transpose()).transpose()
}

fn grant_wish(view: &dyn View, range: &Range, address: IpAddr) -> Result<IpAddr, crate::Error> {
    if !range.hands_out(address) {
        let why = why_reserved(range, address);
        return Err(Error::Reserved { address, range: range.to_string(), why }.into());
    }
    if view.is_held(address)? {
        // That it is held is certain, whatever became of the lease's text.
        let holder = view.holder_of(address).ok().flatten();
        let holder = holder.as_ref().map_or_else(|| "an unknown holder".into(), describe_holder);
        return Err(Error::Taken { address, holder }.into());
    }
    Ok(address)
}

fn why_reserved(range: &Range, address: IpAddr) -> &'static str {
    if range.gateway() == Some(address) {
        "the gateway"
    } else if range.subnet().network() == address {
        "the network's own address"
    } else if range.subnet().broadcast() == address && address.is_ipv4() {
        "the broadcast address"
    } else {
        "excluded"
    }
}

fn exhausted(view: &dyn View, set: &RangeSet) -> Result<Error, store::Error> {
    let held = set.ranges().iter().map(|range| view.held_in(range)).sum::<Result<u128, _>>()?;
    // Who they are is a help, and not what was asked.
    let holders = view.longest_held_in(set, 3).unwrap_or_default();
    let holders = Holders(holders.iter().map(describe_holder).collect());
    Ok(Error::Exhausted { set: set.to_string(), held, size: set.size(), holders })
}

/// `default/web-1 (eth0 of 3f2a…)`, or without the pod where it is not known.
fn describe_holder(record: &Record) -> String {
    let interface = &record.holder;
    match record.lease("").ok().and_then(|lease| lease.pod) {
        Some(pod) => format!("{pod} ({interface})"),
        None => interface.to_string(),
    }
}

fn describe(pool: &Pool) -> String {
    pool.sets().iter().map(RangeSet::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
