//! The leases as a transaction sees them.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;

use crate::address::Family;
use crate::lease::{Holder, Record, Timestamp};
use crate::range::{Range, RangeSet};
use crate::state::Change;
use crate::store::local::Error;
use crate::store::local::index::Index;
use crate::store::local::log::{Log, Spot};
use crate::store::local::tree::Flaw;
use crate::store::{self, Damaged, Readable, View};

/// An index, and the log it is of. Without a log there is nothing in the index.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) index: &'a Index,
    pub(super) log: Option<&'a Log>,
    /// The index's, for messages.
    pub(super) path: &'a Path,
}

impl Seen<'_> {
    /// The freed addresses with the times they were freed at, longest free first, IPv4 before IPv6.
    pub(super) fn all_freed(&self) -> Result<Vec<(IpAddr, Timestamp)>, Error> {
        let mut freed = Vec::new();
        for family in [Family::V4, Family::V6] {
            self.checked(self.index.freed(family, &mut |address, at| {
                freed.push((address, at));
                ControlFlow::Continue(())
            }))?;
        }
        Ok(freed)
    }

    /// The line that the index could not be made of.
    fn gap(&self) -> Option<Error> {
        let ((offset, flaw), log) = self.index.gap().zip(self.log)?;
        Some(log.damaged(*offset, flaw.clone()))
    }

    fn record_at(&self, spot: Spot) -> Result<Option<Record>, Error> {
        self.log.map(|log| log.record_at(spot)).transpose()
    }

    fn records_at(&self, spots: impl IntoIterator<Item = Spot>) -> Result<Vec<Record>, Error> {
        spots.into_iter().filter_map(|spot| self.record_at(spot).transpose()).collect()
    }

    fn checked<T>(&self, found: Result<T, Flaw>) -> Result<T, Error> {
        found.map_err(|source| Error::Index { path: self.path.into(), source })
    }
}

impl View for Seen<'_> {
    fn get(&self, holder: &Holder) -> Result<Option<Record>, store::Error> {
        let Some(spot) = self.checked(self.index.grant_of(holder))? else {
            return self.gap().map_or(Ok(None), |damaged| Err(damaged.into()));
        };
        Ok(self.record_at(spot)?.filter(|record| record.holder == *holder))
    }

    /// The index knows the addresses, if not in the order of the sets. Where it was made without some line nothing may be known,
    /// and what is not known has not to be ended: nobody is given addresses then.
    fn get_remains(&self, holder: &Holder) -> Result<Option<Record>, store::Error> {
        let damaged = match self.get(holder) {
            Err(store::Error::Local(damaged @ Error::Damaged { .. })) => damaged,
            found => return found,
        };
        let Some(spot) = self.checked(self.index.grant_of(holder))? else {
            return if self.index.gap().is_some() { Ok(None) } else { Err(damaged.into()) };
        };
        let addresses = self.checked(self.index.addresses_of(spot))?;
        Ok(Some(Record::remains(holder.clone(), &addresses)))
    }

    fn is_held(&self, address: IpAddr) -> Result<bool, store::Error> {
        Ok(self.checked(self.index.grant_on(address))?.is_some())
    }

    fn holder_of(&self, address: IpAddr) -> Result<Option<Record>, store::Error> {
        let Some(spot) = self.checked(self.index.grant_on(address))? else { return Ok(None) };
        Ok(self.record_at(spot)?)
    }

    fn is_empty(&self) -> Result<bool, store::Error> {
        Ok(self.index.is_empty() && self.index.gap().is_none())
    }

    fn never_used_in(&self, range: &Range) -> Result<Option<IpAddr>, store::Error> {
        self.gap().map_or(Ok(()), Err)?;
        let family = range.family();
        Ok(self.checked(range.first_outside(|from| self.index.first_gap(family, from)))?)
    }

    fn longest_free_in(&self, set: &RangeSet) -> Result<Option<IpAddr>, store::Error> {
        self.gap().map_or(Ok(()), Err)?;
        let mut found = None;
        self.checked(self.index.freed(set.family(), &mut |address, _| {
            if !set.hands_out(address) {
                return ControlFlow::Continue(());
            }
            found = Some(address);
            ControlFlow::Break(())
        }))?;
        Ok(found)
    }

    fn ranges(&self) -> Result<Option<String>, store::Error> {
        let change = self.log.zip(self.index.ranges()).map(|(log, spot)| log.change_at(spot));
        Ok(match change.transpose()? {
            Some(Change::Ranges { json, .. }) => Some(json.into()),
            _ => None,
        })
    }

    fn records(&self) -> Result<Vec<Record>, store::Error> {
        self.gap().map_or(Ok(()), Err)?;
        let mut records = self.records_at(self.checked(self.index.grants())?)?;
        records.sort_unstable_by(|a, b| (a.since, &a.holder.0).cmp(&(b.since, &b.holder.0)));
        Ok(records)
    }

    fn readable_records(&self) -> Result<Readable<Record, store::Error>, store::Error> {
        let missed = |error: Error| Damaged { addresses: Vec::new(), remains: None, error: error.into() };
        let (mut leases, mut damaged) = (Vec::new(), Vec::from_iter(self.gap().map(missed)));
        for spot in self.checked(self.index.grants())? {
            match self.record_at(spot) {
                Err(error @ Error::Damaged { .. }) => {
                    let addresses = self.checked(self.index.addresses_of(spot))?;
                    damaged.push(Damaged { addresses, remains: None, error: error.into() });
                }
                record => leases.extend(record?),
            }
        }
        leases.sort_unstable_by(|a, b| (a.since, &a.holder.0).cmp(&(b.since, &b.holder.0)));
        Ok(Readable { leases, damaged })
    }

    fn freed(&self) -> Result<Vec<(IpAddr, Timestamp)>, store::Error> {
        Ok(self.all_freed()?)
    }

    fn held_in(&self, range: &Range) -> Result<u128, store::Error> {
        let mut held = 0;
        self.checked(self.index.held_in(range, &mut |_| held += 1))?;
        Ok(held)
    }

    /// In the order of the log, which is that of time.
    fn longest_held_in(&self, set: &RangeSet, count: usize) -> Result<Vec<Record>, store::Error> {
        let mut first: Vec<Spot> = Vec::new();
        for range in set.ranges() {
            self.checked(self.index.held_in(range, &mut |spot| {
                if first.last().is_none_or(|last| spot < *last || first.len() < count)
                    && !first.contains(&spot)
                {
                    first.push(spot);
                    first.sort_unstable();
                    first.truncate(count);
                }
            }))?;
        }
        Ok(self.records_at(first)?)
    }
}
