//! From changes to one etcd transaction.

use std::net::IpAddr;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::layout::{Address, lease_name, lease_value};
use super::view::{Freed, Seen, Snapshot};
use super::{Error, random};
use crate::address::Family;
use crate::lease::{Holder, Record, Timestamp};
use crate::state::{Change, Conflict, REMEMBERED};
use crate::store::{self, View};

/// Addresses that are forgotten in one go; each is two operations.
const FORGOTTEN: usize = 32;

/// What must still be as it was seen, and what is written then. It may be sent any number of times: it is carried out once at most, for
/// every key that it compares it also changes.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Keys and their revisions.
    unchanged: Vec<(String, i64)>,
    puts: Vec<(String, String)>,
    deletes: Vec<String>,
    /// The leases it makes, with their values: where the first is found, an earlier attempt has made them all.
    made: Vec<(String, String)>,
    /// No key may begin with this.
    absent: Option<String>,
}

/// A key that must have a value, or the transaction is not carried out: who the owner of the node's leases is.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) key: String,
    pub(super) value: String,
}

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was carried out, now or by an attempt that nobody answered.
    Done,
    /// Somebody was faster.
    Overtaken,
    /// The guard's key has another value.
    Barred,
}

impl Outcome {
    pub(super) fn is_done(self) -> bool {
        self == Self::Done
    }
}

impl Transaction {
    /// Makes `changes` on what `snapshot` shows, and on nothing else.
    pub(super) fn new(snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<Self, store::Error> {
        let mut transaction = Self::default();
        for change in changes {
            match change {
                Change::Grant(record) => transaction.grant(snapshot, record)?,
                Change::Release { holder, at } => transaction.release(snapshot, holder, *at)?,
                Change::Retire { address, at } => transaction.retire(snapshot, *address, *at)?,
                // The last one counts, whoever wrote it.
                Change::Ranges { json, .. } => {
                    transaction.puts.push((snapshot.layout().ranges(), json.to_string()));
                }
            }
        }
        Ok(transaction)
    }

    /// Gives `key`, whose revision is known, another value, unless a key begins with `absent`.
    pub(super) fn replacing(key: String, revision: i64, value: String, absent: Option<String>) -> Self {
        let put = (key.clone(), value);
        Self {
            unchanged: vec![(key, revision)],
            puts: vec![put.clone()],
            made: vec![put],
            absent,
            ..Self::default()
        }
    }

    /// Forgets addresses of `family` that have been free for the longest time, if more are remembered than need be.
    pub(super) fn forgetting(snapshot: &Snapshot<'_>, family: Family) -> Result<Option<Self>, Error> {
        let (count, oldest) = snapshot.oldest_freed(family, FORGOTTEN as i64)?;
        let surplus = count.saturating_sub(REMEMBERED);
        let mut transaction = Self::default();
        for Freed { address, at, revision } in oldest.into_iter().take(surplus) {
            let key = snapshot.layout().address(address);
            transaction.unchanged.push((key.clone(), revision));
            transaction.deletes.extend([key, snapshot.layout().freed_at(address, at)]);
        }
        Ok((!transaction.deletes.is_empty()).then_some(transaction))
    }

    fn grant(&mut self, snapshot: &Snapshot<'_>, record: &Record) -> Result<(), store::Error> {
        let layout = snapshot.layout();
        let key = layout.lease(snapshot.node(), &record.holder);
        let Seen { revision, value } = snapshot.value(&key)?;
        if value.is_some() {
            return Err(Conflict::HolderHolds(record.holder.clone()).into());
        }
        self.unchanged.push((key.clone(), revision));
        let held = Address::Held(lease_name(snapshot.node(), &record.holder)).value();
        for address in record.addresses.iter().map(|assigned| assigned.address.ip()) {
            let freed = snapshot.address(address)?;
            let key = layout.address(address);
            match freed {
                Some(Address::Held(_)) => {
                    let holder = record.holder.clone();
                    return Err(Conflict::AddressHeld { address, holder }.into());
                }
                Some(Address::Free(at)) => self.deletes.push(layout.freed_at(address, at)),
                None => {}
            }
            self.unchanged.push((key.clone(), snapshot.value(&key)?.revision));
            self.puts.push((key, held.clone()));
        }
        let value = lease_value(record, random());
        self.made.push((key.clone(), value.clone()));
        self.puts.push((key, value));
        Ok(())
    }

    /// Nobody changes the key of a held address but with its lease, so the lease's is compared alone.
    fn release(
        &mut self,
        snapshot: &Snapshot<'_>,
        holder: &Holder,
        at: Timestamp,
    ) -> Result<(), store::Error> {
        let Some(record) = snapshot.get_remains(holder)? else { return Ok(()) };
        let key = snapshot.layout().lease(snapshot.node(), holder);
        self.unchanged.push((key.clone(), snapshot.value(&key)?.revision));
        self.deletes.push(key);
        for address in record.addresses.iter().map(|assigned| assigned.address.ip()) {
            self.free(snapshot, address, at);
        }
        Ok(())
    }

    fn retire(
        &mut self,
        snapshot: &Snapshot<'_>,
        address: IpAddr,
        at: Timestamp,
    ) -> Result<(), store::Error> {
        let former = snapshot.address(address)?;
        let key = snapshot.layout().address(address);
        match former {
            Some(Address::Held(_)) => return Err(Conflict::RetiredWhileHeld(address).into()),
            Some(Address::Free(before)) => self.deletes.push(snapshot.layout().freed_at(address, before)),
            None => {}
        }
        self.unchanged.push((key.clone(), snapshot.value(&key)?.revision));
        self.free(snapshot, address, at);
        Ok(())
    }

    fn free(&mut self, snapshot: &Snapshot<'_>, address: IpAddr, at: Timestamp) {
        let layout = snapshot.layout();
        self.puts.push((layout.address(address), Address::Free(at).value()));
        self.puts.push((layout.freed_at(address, at), String::new()));
    }

    /// As it is sent. Where the comparison fails, the answer has the lease that was to be made, and the guard's key last.
    pub(super) fn request(&self, guard: Option<&Guard>) -> Txn {
        let unchanged = self.unchanged.iter();
        let unchanged =
            unchanged.map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision));
        // Of no key at all this is true, too.
        let absent = self
            .absent
            .iter()
            .map(|prefix| Compare::create_revision(prefix.as_str(), CompareOp::Equal, 0).with_prefix());
        let guarded =
            guard.map(|guard| Compare::value(guard.key.as_str(), CompareOp::Equal, guard.value.as_str()));
        let compares: Vec<_> = unchanged.chain(absent).chain(guarded).collect();
        // One transaction may not write a key twice, so what it frees and takes at once is no case of its own.
        let puts = self.puts.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None));
        let deletes = self.deletes.iter().map(|key| TxnOp::delete(key.as_str(), None));
        let made = self.made.first().map(|(key, _)| key.as_str());
        let look = made.into_iter().chain(guard.map(|guard| guard.key.as_str()));
        let look = look.map(|key| TxnOp::get(key, None));
        Txn::new()
            .when(compares)
            .and_then(puts.chain(deletes).collect::<Vec<_>>())
            .or_else(look.collect::<Vec<_>>())
    }

    /// What an answer says.
    pub(super) fn outcome(&self, guard: Option<&Guard>, response: &TxnResponse) -> Outcome {
        if response.succeeded() || self.is_found_in(response) {
            Outcome::Done
        } else if guard.is_some_and(|guard| !guard.holds_in(response)) {
            Outcome::Barred
        } else {
            Outcome::Overtaken
        }
    }

    /// Whether an earlier attempt has been carried out, as the answer to a failed comparison shows.
    fn is_found_in(&self, response: &TxnResponse) -> bool {
        let Some((_, value)) = self.made.first() else { return false };
        values_of(response).iter().any(|found| found.as_deref() == Some(value.as_bytes()))
    }
}

impl Guard {
    fn holds_in(&self, response: &TxnResponse) -> bool {
        values_of(response).last().is_some_and(|found| found.as_deref() == Some(self.value.as_bytes()))
    }
}

/// The value of each key that was looked at, where it has one.
fn values_of(response: &TxnResponse) -> Vec<Option<Vec<u8>>> {
    let found = response.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first().map(|found| found.value().to_vec()),
        _ => None,
    });
    found.collect()
}
