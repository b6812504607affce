//! Leases that were made elsewhere, and what another store needs to go on from here.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::SystemTime;

use super::{Error, Ipam, join, transact};
use crate::lease::{Holder, Lease, Record, Timestamp};
use crate::range::Pool;
use crate::state::Change;
use crate::store::{self, View};

/// What another store held.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Leases, each with the time it was made there.
    pub leases: Vec<Lease>,
    /// Where its addresses came from.
    pub pool: Option<Pool>,
    /// Addresses that were freed there, longest free first.
    pub freed: Vec<(IpAddr, SystemTime)>,
}

/// What came of one lease of an [`Import`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It stands now.
    New,
    /// It stood already, with the same addresses.
    Known,
    /// What stands contradicts it, and was left as it is.
    Conflict(String),
}

impl Ipam {
    /// Takes leases over and says of each what came of it. Doing it again changes nothing, and what stands is never changed. The
    /// ranges are taken over where none are recorded, and freed addresses where they are neither held nor remembered.
    ///
    /// # Errors
    /// Where a lease belongs to another network, or the store fails. What was taken over before that stays.
    pub fn import(&self, import: &Import) -> Result<Vec<Imported>, Error> {
        import.leases.iter().try_for_each(|lease| self.check_network(&lease.attachment))?;
        let records = import.leases.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let mut outcomes = Vec::with_capacity(records.len());
        // Whoever reads a lease reads the line of the log that it is in.
        const MOST: usize = 16;
        for some in records.chunks(self.store.most_leases().min(MOST)) {
            outcomes.extend(transact(&*self.store, |view| {
                let mut admitted = Admitted::default();
                let outcomes = some.iter().map(|record| admitted.admit(view, record));
                let outcomes = outcomes.collect::<Result<Vec<_>, store::Error>>()?;
                Ok((outcomes, admitted.changes))
            })?);
        }
        self.import_ranges(import.pool.as_ref())?;
        self.import_freed(&import.freed)?;
        Ok(outcomes)
    }

    fn import_ranges(&self, pool: Option<&Pool>) -> Result<(), Error> {
        let (Some(pool), at) = (pool, Timestamp::from((self.clock)())) else { return Ok(()) };
        let json = pool.to_json().to_string();
        transact(&*self.store, |view| {
            let missing = view.ranges()?.is_none();
            let change = missing.then(|| Change::Ranges { json: json.as_str().into(), at });
            Ok(((), change.into_iter().collect()))
        })
    }

    /// What is remembered here keeps its place in the order.
    fn import_freed(&self, freed: &[(IpAddr, SystemTime)]) -> Result<(), Error> {
        for some in freed.chunks(self.store.most_leases()) {
            transact(&*self.store, |view| {
                let remembered: HashSet<IpAddr> =
                    view.freed()?.into_iter().map(|(address, _)| address).collect();
                let mut changes = Vec::new();
                for (address, at) in some.iter().filter(|(address, _)| !remembered.contains(address)) {
                    if !view.is_held(*address)? {
                        changes.push(Change::Retire { address: *address, at: Timestamp::from(*at) });
                    }
                }
                Ok(((), changes))
            })?;
        }
        Ok(())
    }

    /// The addresses that wait for their reuse and when they were freed, longest free first.
    pub fn freed(&self) -> Result<Vec<(IpAddr, SystemTime)>, Error> {
        let freed = self.view(|view| view.freed())?;
        Ok(freed.into_iter().map(|(address, at)| (address, at.into())).collect())
    }
}

fn encode(lease: &Lease) -> Result<Record, Error> {
    Record::new(lease).map_err(|source| Error::Encode { attachment: lease.attachment.clone(), source })
}

/// What one transaction has taken over so far, which its view does not show.
#[derive(Default)]
struct Admitted {
    holders: HashMap<IpAddr, Holder>,
    changes: Vec<Change>,
}

impl Admitted {
    fn admit(&mut self, view: &dyn View, record: &Record) -> Result<Imported, store::Error> {
        if let Some(standing) = view.get(&record.holder)? {
            return Ok(compare(&standing, record));
        }
        if self.holders.values().any(|holder| *holder == record.holder) {
            return Ok(Imported::Conflict(format!("{} is in the import twice", record.holder)));
        }
        if let Some(why) = flaw_of(record) {
            return Ok(Imported::Conflict(why));
        }
        for address in addresses(record) {
            if let Some(holder) = self.holder_of(view, address)? {
                return Ok(Imported::Conflict(format!("{address} is held by {holder}")));
            }
        }
        self.holders.extend(addresses(record).map(|address| (address, record.holder.clone())));
        self.changes.push(Change::Grant(record.clone()));
        Ok(Imported::New)
    }

    fn holder_of(&self, view: &dyn View, address: IpAddr) -> Result<Option<Holder>, store::Error> {
        match self.holders.get(&address) {
            Some(holder) => Ok(Some(holder.clone())),
            None if view.is_held(address)? => Ok(view.holder_of(address)?.map(|record| record.holder)),
            None => Ok(None),
        }
    }
}

fn compare(standing: &Record, record: &Record) -> Imported {
    let held: Vec<IpAddr> = addresses(standing).collect();
    let is_same = held.len() == record.addresses.len() && addresses(record).all(|one| held.contains(&one));
    if is_same {
        return Imported::Known;
    }
    Imported::Conflict(format!("{} holds {} already", record.holder, join(&held)))
}

/// Why no store can hold it.
fn flaw_of(record: &Record) -> Option<String> {
    let held: Vec<IpAddr> = addresses(record).collect();
    let is_twice = |(index, address): (usize, &IpAddr)| held.iter().take(index).any(|one| one == address);
    match held.iter().enumerate().position(is_twice).and_then(|index| held.get(index)) {
        Some(address) => Some(format!("it names {address} twice")),
        None => held.is_empty().then(|| "it has no address".to_owned()),
    }
}

fn addresses(record: &Record) -> impl Iterator<Item = IpAddr> {
    record.addresses.iter().map(|assigned| assigned.address.ip())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lease::{Assigned, Attachment, Notes};
    use crate::store::memory::MemoryStore;

    fn ipam() -> Ipam {
        Ipam::with_store("net", Arc::new(MemoryStore::default()), || SystemTime::UNIX_EPOCH)
    }

    fn lease(container: &str, addresses: &[&str]) -> Lease {
        let assigned = |text: &&str| Assigned { address: text.parse().unwrap(), gateway: None };
        Lease {
            attachment: Attachment::new("net", container, "eth0").unwrap(),
            addresses: addresses.iter().map(assigned).collect(),
            pod: None,
            netns: None,
            boot_id: None,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(9),
            notes: Notes::new(),
        }
    }

    fn of(leases: Vec<Lease>) -> Import {
        Import { leases, ..Import::default() }
    }

    #[test]
    fn what_is_taken_over_is_held_and_taking_it_again_changes_nothing() {
        let ipam = ipam();
        let import = of(vec![lease("a", &["10.0.0.2/24", "fd00::2/64"]), lease("b", &["10.0.0.3/24"])]);
        assert_eq!(ipam.import(&import).unwrap(), [Imported::New, Imported::New]);
        let before = ipam.leases().unwrap();
        assert_eq!(ipam.import(&import).unwrap(), [Imported::Known, Imported::Known]);
        assert_eq!((ipam.leases().unwrap(), before.len()), (before, 2));
    }

    #[test]
    fn what_stands_is_never_changed() {
        let ipam = ipam();
        let import = of(vec![lease("a", &["10.0.0.2/24"])]);
        ipam.import(&import).unwrap();
        let import = of(vec![lease("a", &["10.0.0.9/24"]), lease("b", &["10.0.0.2/24"])]);
        let conflict = |text: &str| Imported::Conflict(text.into());
        assert_eq!(
            ipam.import(&import).unwrap(),
            [conflict("eth0 of a holds 10.0.0.2 already"), conflict("10.0.0.2 is held by eth0 of a")]
        );
        assert_eq!(ipam.leases().unwrap().len(), 1);
    }

    #[test]
    fn two_of_the_imported_cannot_have_one_address() {
        let import = of(vec![lease("a", &["10.0.0.2/24"]), lease("b", &["10.0.0.2/24"])]);
        let outcomes = ipam().import(&import).unwrap();
        assert_eq!(outcomes, [Imported::New, Imported::Conflict("10.0.0.2 is held by eth0 of a".into())]);
    }

    #[test]
    fn one_attachment_cannot_have_two_leases() {
        let import = of(vec![lease("a", &["10.0.0.2/24"]), lease("a", &["10.0.0.3/24"])]);
        let outcomes = ipam().import(&import).unwrap();
        assert_eq!(outcomes[1], Imported::Conflict("eth0 of a is in the import twice".into()));
    }

    #[test]
    fn a_lease_without_addresses_or_with_one_twice_is_not_taken_over() {
        let import = of(vec![lease("a", &[]), lease("b", &["10.0.0.2/24", "10.0.0.2/24"])]);
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open("net", dir.path()).unwrap();
        let conflict = |text: &str| Imported::Conflict(text.into());
        assert_eq!(
            ipam.import(&import).unwrap(),
            [conflict("it has no address"), conflict("it names 10.0.0.2 twice")]
        );
        assert_eq!(ipam.leases().unwrap(), []);
    }

    #[test]
    fn the_order_of_reuse_and_the_ranges_come_along() {
        let ipam = ipam();
        let pool = crate::config::parse_ranges(&serde_json::json!([[{"subnet": "10.0.0.0/29"}]])).unwrap();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let freed = vec![("10.0.0.4".parse().unwrap(), at(1)), ("10.0.0.2".parse().unwrap(), at(2))];
        let import = Import {
            leases: vec![lease("a", &["10.0.0.3/29"])],
            pool: Some(pool.clone()),
            freed: freed.clone(),
        };
        ipam.import(&import).unwrap();
        ipam.import(&import).unwrap();
        assert_eq!((ipam.freed().unwrap(), ipam.last_pool().unwrap()), (freed, Some(pool.clone())));
        let next = ["b", "c", "d", "e"].map(|container| {
            let attachment = Attachment::new("net", container, "eth0").unwrap();
            let lease = ipam.reserve(&pool, crate::Request::new(attachment)).unwrap().keep();
            lease.addresses[0].address.ip().to_string()
        });
        assert_eq!(next, ["10.0.0.5", "10.0.0.6", "10.0.0.4", "10.0.0.2"]);
    }
}
