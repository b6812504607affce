//! The leases as one transaction sees them: read when asked for, and all of one revision.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use etcd_client::{GetOptions, GetResponse, KeyValue};

use super::layout::{Address, FAMILIES, Layout, end_of, parse_lease};
use super::{CANDIDATES, Error, EtcdStore, random};
use crate::address::{Family, number};
use crate::lease::{Holder, Record, Timestamp};
use crate::range::{Range, RangeSet};
use crate::spans::Spans;
use crate::store::{self, Damaged, Readable, View};

/// How many keys are looked at for a gap, one after another. At a fill of 99 % the three see none in one case of a hundred thousand.
const PAGES: [i64; 3] = [64, 256, 1_024];
const PAGES_LAST: u128 = 1_024;

/// Keys that are read together where all are. An answer may have 4 MiB (tonic), so a lease 8 KiB.
const PAGE: i64 = 512;

/// Of the order of reuse, where one address is wanted.
const FREED_PAGE: i64 = 256;

/// An IPv6 range is used from its beginning, so that addresses stay short enough to read.
const WINDOW: u128 = 1 << 20;

/// What was read, and of which revision.
pub(super) struct Snapshot<'a> {
    store: &'a EtcdStore,
    deadline: Instant,
    /// 0 before the first read.
    revision: Cell<i64>,
    seen: RefCell<HashMap<String, Seen>>,
}

/// A key as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// 0 where there is no such key.
    pub(super) revision: i64,
    /// Its value; for a freed address, which is found by its place in the order, what it must be.
    pub(super) value: Option<String>,
}

/// What a look at a part of a range came to.
enum Found {
    /// It has no key.
    Address(IpAddr),
    /// All up to this one have keys.
    NoneTo(u128),
}

/// An address in the order of reuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    pub(super) address: IpAddr,
    pub(super) at: Timestamp,
    /// The revision of its two keys: one transaction wrote both.
    pub(super) revision: i64,
}

impl<'a> Snapshot<'a> {
    pub(super) fn new(store: &'a EtcdStore, deadline: Instant) -> Self {
        Self { store, deadline, revision: Cell::new(0), seen: RefCell::default() }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.store.layout
    }

    pub(super) fn node(&self) -> &str {
        &self.store.node
    }

    /// The first read is confirmed by a majority. What follows is of its revision, and that any member has that has come so far.
    fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Error> {
        let revision = self.revision.get();
        let options = match revision {
            0 => options,
            revision => options.with_revision(revision).with_serializable(),
        };
        let response = self.store.connection.get(key, &options, self.deadline)?;
        if revision == 0 {
            self.revision.set(response.header().map_or(0, etcd_client::ResponseHeader::revision));
        }
        Ok(response)
    }

    /// The value of a key, as often as one asks.
    pub(super) fn value(&self, key: &str) -> Result<Seen, Error> {
        if let Some(seen) = self.seen.borrow().get(key) {
            return Ok(seen.clone());
        }
        let response = self.get(key, GetOptions::new())?;
        let seen = match response.kvs().first() {
            Some(found) => Seen { revision: found.mod_revision(), value: Some(text(found.value())) },
            None => Seen::default(),
        };
        self.remember(key.to_owned(), seen.clone());
        Ok(seen)
    }

    fn remember(&self, key: String, seen: Seen) {
        self.seen.borrow_mut().insert(key, seen);
    }

    /// Up to `limit` keys from `from` to before `end`, in their order.
    fn scan(&self, from: &str, end: Vec<u8>, limit: i64, keys_only: bool) -> Result<GetResponse, Error> {
        let options = GetOptions::new().with_range(end).with_limit(limit);
        self.get(from, if keys_only { options.with_keys_only() } else { options })
    }

    /// The first key from `from` that begins with `prefix`.
    pub(super) fn first_from(&self, from: &str, prefix: &str) -> Result<Option<String>, Error> {
        let found = self.scan(from, end_of(prefix), 1, true)?;
        Ok(found.kvs().first().map(|found| text(found.key())))
    }

    /// All of them, page by page.
    fn all(&self, prefix: &str, keys_only: bool) -> Result<Vec<KeyValue>, Error> {
        let mut all = Vec::new();
        let mut from = prefix.to_owned();
        loop {
            let mut page = self.scan(&from, end_of(prefix), PAGE, keys_only)?;
            let more = page.more();
            all.append(&mut page.take_kvs());
            match all.last().filter(|_| more) {
                // The next key after one is the one with a NUL more.
                Some(last) => from = text(last.key()) + "\0",
                None => return Ok(all),
            }
        }
    }

    fn count(&self, from: &str, end: Vec<u8>) -> Result<i64, Error> {
        Ok(self.get(from, GetOptions::new().with_range(end).with_count_only())?.count())
    }

    pub(super) fn address(&self, address: IpAddr) -> Result<Option<Address>, Error> {
        let key = self.layout().address(address);
        let Some(value) = self.value(&key)?.value else { return Ok(None) };
        Address::parse(&value).map(Some).ok_or_else(|| Error::foreign(key, &value))
    }

    /// The lease with this key, as it was seen.
    pub(super) fn lease(&self, key: &str) -> Result<Option<Record>, Error> {
        let Some(value) = self.value(key)?.value else { return Ok(None) };
        self.parse(key, value).map(Some)
    }

    fn parse(&self, key: &str, value: String) -> Result<Record, Error> {
        let holder = self.layout().holder_of(key);
        let record = holder.and_then(|holder| parse_lease(holder, &value));
        record.ok_or_else(|| Error::foreign(key.to_owned(), &value))
    }

    /// The addresses in each of the leases with these keys, by looking at all addresses that are in use.
    fn addresses_in(&self, leases: &[String]) -> Result<HashMap<String, Vec<IpAddr>>, Error> {
        let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for family in FAMILIES.into_iter().filter(|_| !leases.is_empty()) {
            for one in self.all(&self.layout().addresses(family), false)? {
                let Some(Address::Held(name)) = Address::parse(&text(one.value())) else { continue };
                let lease = self.layout().named_lease(&name);
                if leases.contains(&lease) {
                    let address = Layout::address_of(family, &text(one.key()));
                    found.entry(lease).or_default().extend(address);
                }
            }
        }
        Ok(found)
    }

    /// An address without a key at or after `start`, if there is one near, or anywhere.
    fn unused(&self, range: &Range, start: u128) -> Result<Option<IpAddr>, Error> {
        let mut from = start;
        for page in PAGES {
            match self.gap(range, from, number(range.end()), page)? {
                Found::Address(address) => return Ok(Some(address)),
                Found::NoneTo(last) if last < number(range.end()) => from = last + 1,
                Found::NoneTo(_) => from = number(range.start()),
            }
        }
        self.bisect(range)
    }

    /// Looks at up to `page` keys of `from..=to`.
    fn gap(&self, range: &Range, from: u128, to: u128, page: i64) -> Result<Found, Error> {
        let family = range.family();
        let found = self.scan(&self.address_key(family, from), self.end(family, to), page, true)?;
        let (mut used, mut known_to) = (Spans::default(), to);
        for one in found.kvs().iter().filter_map(|found| Layout::address_of(family, &text(found.key()))) {
            used.insert(number(one));
            known_to = if found.more() { number(one) } else { to };
        }
        let free = range.first_outside(|at| Ok::<_, Error>(used.first_gap(at.max(from))))?;
        let free = free.filter(|free| number(*free) <= known_to);
        Ok(free.map_or(Found::NoneTo(known_to), Found::Address))
    }

    /// Counts, and goes into a half that has room, by chance where both have. Counting sends nothing, so this is quick where long
    /// stretches are in use without a gap, as after an import.
    fn bisect(&self, range: &Range) -> Result<Option<IpAddr>, Error> {
        let (mut first, mut last) = (number(range.start()), number(range.end()));
        if !self.has_room(range, first, last)? {
            return Ok(None);
        }
        while last - first >= PAGES_LAST {
            let middle = first + (last - first) / 2;
            let lower = random().is_multiple_of(2);
            let half = if lower { (first, middle) } else { (middle + 1, last) };
            let other = if lower { (middle + 1, last) } else { (first, middle) };
            (first, last) = if self.has_room(range, half.0, half.1)? { half } else { other };
        }
        match self.gap(range, first, last, i64::MAX)? {
            Found::Address(address) => Ok(Some(address)),
            Found::NoneTo(_) => Ok(None),
        }
    }

    fn has_room(&self, range: &Range, first: u128, last: u128) -> Result<bool, Error> {
        let family = range.family();
        let used = self.count(&self.address_key(family, first), self.end(family, last))?;
        Ok(u128::try_from(used).unwrap_or_default() < range.size_between(first, last))
    }

    /// Behind the key of an address.
    fn end(&self, family: Family, address: u128) -> Vec<u8> {
        (self.address_key(family, address) + "\0").into_bytes()
    }

    fn address_key(&self, family: Family, address: u128) -> String {
        self.layout().address(family.address(address))
    }

    fn used_in(&self, range: &Range) -> Result<u128, Error> {
        let (first, last) = (self.layout().address(range.start()), self.layout().address(range.end()));
        let count = self.count(&first, (last + "\0").into_bytes())?;
        Ok(u128::try_from(count).unwrap_or_default())
    }

    /// A part of the order of reuse of `family`, and where the next one begins.
    fn freed_page(
        &self,
        family: Family,
        from: &str,
        limit: i64,
    ) -> Result<(Vec<Freed>, Option<String>), Error> {
        let found = self.scan(from, end_of(&self.layout().freed(family)), limit, true)?;
        let entry = |found: &KeyValue| {
            let key = text(found.key());
            let (address, at) = (Layout::address_of(family, &key)?, Layout::time_of(&key)?);
            Some(Freed { address, at, revision: found.mod_revision() })
        };
        let next = found.kvs().last().filter(|_| found.more()).map(|last| text(last.key()) + "\0");
        Ok((found.kvs().iter().filter_map(entry).collect(), next))
    }

    /// How many are remembered of `family`, and the first of them.
    pub(super) fn oldest_freed(&self, family: Family, limit: i64) -> Result<(usize, Vec<Freed>), Error> {
        let prefix = self.layout().freed(family);
        let count = self.count(&prefix, end_of(&prefix))?;
        Ok((usize::try_from(count).unwrap_or_default(), self.freed_page(family, &prefix, limit)?.0))
    }
}

impl View for Snapshot<'_> {
    fn get(&self, holder: &Holder) -> Result<Option<Record>, store::Error> {
        Ok(self.lease(&self.layout().lease(self.node(), holder))?)
    }

    /// The addresses name their lease, if not in the order of the sets.
    fn get_remains(&self, holder: &Holder) -> Result<Option<Record>, store::Error> {
        let key = self.layout().lease(self.node(), holder);
        match self.lease(&key) {
            Err(Error::Foreign { .. }) => {
                let addresses = self.addresses_in(&[key])?.into_values().next().unwrap_or_default();
                Ok(Some(Record::remains(holder.clone(), &addresses)))
            }
            found => Ok(found?),
        }
    }

    fn is_held(&self, address: IpAddr) -> Result<bool, store::Error> {
        Ok(matches!(self.address(address)?, Some(Address::Held(_))))
    }

    fn holder_of(&self, address: IpAddr) -> Result<Option<Record>, store::Error> {
        match self.address(address)? {
            Some(Address::Held(name)) => Ok(self.lease(&self.layout().named_lease(&name))?),
            _ => Ok(None),
        }
    }

    fn is_empty(&self) -> Result<bool, store::Error> {
        let prefix = self.layout().leases_of(self.node());
        Ok(self.first_from(&prefix, &prefix)?.is_none())
    }

    /// Any of them, and not the lowest: nodes that began at the same place would meet at every ADD.
    fn never_used_in(&self, range: &Range) -> Result<Option<IpAddr>, store::Error> {
        let (first, last) = (number(range.start()), number(range.end()));
        let width = (last - first).saturating_add(1).min(WINDOW);
        let start = first + u128::from(random()) % width;
        let found = self.unused(range, start)?;
        if let Some(address) = found {
            self.remember(self.layout().address(address), Seen::default());
        }
        Ok(found)
    }

    fn longest_free_in(&self, set: &RangeSet) -> Result<Option<IpAddr>, store::Error> {
        let family = set.family();
        let mut from = Some(self.layout().freed(family));
        let mut candidates = Vec::new();
        while let Some(start) = from.filter(|_| candidates.len() < CANDIDATES) {
            let (page, next) = self.freed_page(family, &start, FREED_PAGE)?;
            candidates.extend(page.into_iter().filter(|freed| set.hands_out(freed.address)));
            from = next;
        }
        candidates.truncate(CANDIDATES);
        let choice = usize::try_from(random()).unwrap_or_default().checked_rem(candidates.len());
        let Some(Freed { address, at, revision }) = choice.and_then(|choice| candidates.get(choice)).copied()
        else {
            return Ok(None);
        };
        let value = Some(Address::Free(at).value());
        self.remember(self.layout().address(address), Seen { revision, value });
        Ok(Some(address))
    }

    fn ranges(&self) -> Result<Option<String>, store::Error> {
        Ok(self.value(&self.layout().ranges())?.value)
    }

    fn records(&self) -> Result<Vec<Record>, store::Error> {
        let Readable { leases, damaged } = self.readable_records()?;
        damaged.into_iter().next().map_or(Ok(leases), |damaged| Err(damaged.error))
    }

    /// Those of the node.
    fn readable_records(&self) -> Result<Readable<Record, store::Error>, store::Error> {
        let (mut leases, mut foreign) = (Vec::new(), Vec::new());
        for found in self.all(&self.layout().leases_of(self.node()), false)? {
            let (key, value) = (text(found.key()), text(found.value()));
            match self.parse(&key, value.clone()) {
                Ok(record) => leases.push(record),
                Err(error) => foreign.push((key.clone(), error)),
            }
            self.remember(key, Seen { revision: found.mod_revision(), value: Some(value) });
        }
        leases.sort_by(|a, b| (a.since, &a.holder.0).cmp(&(b.since, &b.holder.0)));
        let keys: Vec<_> = foreign.iter().map(|(key, _)| key.clone()).collect();
        let mut held = self.addresses_in(&keys)?;
        let damaged = foreign.into_iter().map(|(key, error)| {
            let addresses = held.remove(&key).unwrap_or_default();
            let remains = self.layout().holder_of(&key).map(|holder| Record::remains(holder, &addresses));
            Damaged { addresses, remains, error: error.into() }
        });
        Ok(Readable { leases, damaged: damaged.collect() })
    }

    fn freed(&self) -> Result<Vec<(IpAddr, Timestamp)>, store::Error> {
        let mut freed = Vec::new();
        for family in FAMILIES {
            for found in self.all(&self.layout().freed(family), true)? {
                let key = text(found.key());
                freed.extend(Layout::address_of(family, &key).zip(Layout::time_of(&key)));
            }
        }
        Ok(freed)
    }

    /// Held by all nodes.
    fn held_in(&self, range: &Range) -> Result<u128, store::Error> {
        let freed = self.freed()?.into_iter().filter(|(address, _)| range.contains(*address)).count();
        Ok(self.used_in(range)?.saturating_sub(freed as u128))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
