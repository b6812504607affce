//! The index of a log of leases, byte by byte: what an allocation has to know, without reading the log.
//!
//! It says nothing that the log does not say, and is made anew from it whenever there is a doubt. Nobody loses anything
//! with it, and it may be removed at any time.
//!
//! # The first page
//!
//! Numbers are little-endian. The page has [`HEADER`] bytes, and nothing behind them:
//!
//! | bytes | what |
//! |---|---|
//! | 0..16 | `weft-ipam index\n` |
//! | 16..20 | the format's number, [`FORMAT`] |
//! | 20..24 | 1 while the pages are being changed: a process that ended then has left neither the old index nor the new one. Plus 2 once the leases of earlier boots were looked for in the boot below. Releases that do not know the 2 make the index anew |
//! | 24..32 | the id in the header of the log that this is the index of |
//! | 32..40 | a number that is drawn when an index is made anew |
//! | 40..56 | where the log outlives the boot, the boot that the index is of (its id, without `-`); else 0. Only the log is synced, so another boot does not trust it |
//! | 56..64 | how many bytes of the log are in the index. What follows them is read from the log, and that is seldom more than nothing |
//! | 64..72 | how many lines that is |
//! | 72..80 | how often an address was freed so far |
//! | 80..88 | how many leases there are |
//! | 88..96, 96..104 | how many freed addresses are remembered, of IPv4 and of IPv6 |
//! | 104..120 | the spot of the last change of the ranges, or 0 |
//! | 120..124, 124..128, 128..132 | the [tree](super::tree)'s root, its first free page or 0, and the number of pages with this one |
//! | 132..136 | CRC-32 (IEEE) of the bytes before |
//!
//! # The tables
//!
//! | table | number | value |
//! |---|---|---|
//! | 1 | holder: FNV-1a, 128 bit, of container, a space, interface | spot of its grant |
//! | 2, 3 | an IPv4, an IPv6 address that is held or remembered as freed | held: 2¹²⁷ + spot of its grant. Freed: place × 2⁶⁴ + time |
//! | 4, 5 | first address of a span of addresses without a gap in table 2, 3; no two spans touch | its last address |
//! | 6, 7 | the order of reuse of IPv4, of IPv6: place × 2⁶⁴ + time | the address |
//!
//! A *spot* is where in the log a change is: which change of its line, counted from 0, × 2⁹⁶ + length of the line with its
//! line break × 2⁶⁴ + offset of the line. A *place* is the number of the free, counted from 1. The two halves of a number
//! of 128 bits have 64 each.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::address::{Family, number};
use crate::lease::{Holder, Record, Timestamp};
use crate::range::Range;
use crate::state::{Change, Conflict, REMEMBERED};
use crate::store::local::log::{self, Log, Spot};
use crate::store::local::tree::{Flaw, Key, Shape, Tree};
use crate::store::local::{crc32, disk};

/// The format this release writes. Another one is no error: the index is made anew.
pub const FORMAT: u32 = 1;

/// The size of the first page.
pub const HEADER: usize = 136;

const MAGIC: &[u8; 16] = b"weft-ipam index\n";
const CHANGING: u32 = 1;
const SWEPT: u32 = 2;
const HOLDERS: u8 = 1;
const HELD: u128 = 1 << 127;

/// An index, with whatever was changed since it was last written.
#[derive(Debug)]
pub(super) struct Index {
    tree: Tree,
    header: Header,
    /// The first page as it is in the file, for as long as nobody else has written.
    seen: [u8; HEADER],
    /// Whether a lease was ended whose line in the log is damaged.
    outlived_damage: bool,
    /// The first line of the log that should be in here and could not be read. Such an index is never written.
    gap: Option<(u64, log::Flaw)>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    log: u64,
    drawn: u64,
    boot: u128,
    applied: u64,
    lines: u64,
    frees: u64,
    leases: u64,
    freed_v4: u64,
    freed_v6: u64,
    ranges: u128,
    shape: Shape,
    /// Whether leases of earlier boots were looked for.
    swept: bool,
}

/// What is to be made of the file.
#[derive(Debug)]
pub(super) enum Found {
    /// It can be used.
    Good(Box<Index>),
    /// It cannot; but so many bytes of the log were whole when it was written, or 0.
    Doubtful(u64),
}

/// Why a change was not made. It may be made by half then.
#[derive(Debug)]
pub(super) enum Refusal {
    Flaw(Flaw),
    Conflict(Conflict),
}

impl Index {
    /// The index of the first `applied` bytes of a log, that are only its header.
    pub(super) fn new(log: u64, boot: u128, applied: u64) -> Self {
        let tree = Tree::new();
        let header = Header {
            log,
            drawn: crate::store::local::draw(),
            boot,
            applied,
            lines: 1,
            frees: 0,
            leases: 0,
            freed_v4: 0,
            freed_v6: 0,
            ranges: 0,
            shape: tree.shape(),
            swept: false,
        };
        Self { tree, header, seen: [0; HEADER], outlived_damage: false, gap: None }
    }

    /// The index in `file`, if it is one of the log with the id `log`.
    pub(super) fn open(file: File, log: u64, boot: u128) -> Found {
        let mut seen = [0; HEADER];
        if file.read_exact_at(&mut seen, 0).is_err() {
            return Found::Doubtful(0);
        }
        match Header::decode(&seen) {
            Some((header, is_whole)) if header.log == log && is_whole && header.boot == boot => {
                let tree = Tree::open(file, header.shape);
                Found::Good(Box::new(Self { tree, header, seen, outlived_damage: false, gap: None }))
            }
            Some((header, _)) if header.log == log => Found::Doubtful(header.applied),
            _ => Found::Doubtful(0),
        }
    }

    /// Whether nobody has written since. What is only in memory nobody can have.
    pub(super) fn is_current(&self) -> bool {
        let Some(file) = self.tree.file() else { return true };
        let mut now = [0; HEADER];
        let is_linked = file.metadata().is_ok_and(|found| found.nlink() > 0);
        is_linked && file.read_exact_at(&mut now, 0).is_ok() && now == self.seen
    }

    /// Writes what was changed. Where this fails, or ends in the middle, the next one to open it has a doubt.
    pub(super) fn write(&mut self, open: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        let file = match self.tree.file() {
            Some(file) => file.try_clone()?,
            None => open()?,
        };
        self.header.shape = self.tree.shape();
        disk::write_at(&file, &self.header.encode(false), 0)?;
        let header = file.try_clone()?;
        self.tree.write(file)?;
        self.seen = self.header.encode(true);
        disk::write_at(&header, &self.seen, 0)
    }

    /// Whether leases of earlier boots were looked for. Where the log does not outlive the boot there are none.
    pub(super) fn is_swept(&self) -> bool {
        self.header.swept || self.header.boot == 0
    }

    pub(super) fn mark_swept(&mut self, swept: bool) {
        self.header.swept = swept;
    }

    pub(super) fn is_written(&self) -> bool {
        self.tree.is_written()
    }

    /// How many bytes of the log are in here.
    pub(super) fn applied(&self) -> u64 {
        self.header.applied
    }

    /// One more line of the log is in here.
    pub(super) fn has_applied(&mut self, end: u64) {
        self.header.applied = end;
        self.header.lines += 1;
    }

    /// What is in the line of the log that begins at `offset` and ends at `end` is not known.
    pub(super) fn has_missed(&mut self, offset: u64, end: u64, flaw: log::Flaw) {
        self.gap.get_or_insert((offset, flaw));
        self.has_applied(end);
    }

    /// The first line of the log that is not in here, if there is one.
    pub(super) const fn gap(&self) -> Option<&(u64, log::Flaw)> {
        self.gap.as_ref()
    }

    /// Whether more than a third of the log is history, or a line that nobody needs any more is damaged. Looked at once in so
    /// many lines, for rewriting it may fail.
    pub(super) fn is_due_for_compaction(&self) -> bool {
        const EVERY: u64 = 64;
        let needed = self.header.leases + self.header.freed_v4 + self.header.freed_v6;
        let is_long = self.header.lines > needed + needed / 2 + 128;
        self.outlived_damage || is_long && self.header.lines.is_multiple_of(EVERY)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header.leases == 0
    }

    /// Where the ranges of the last allocation are.
    pub(super) fn ranges(&self) -> Option<Spot> {
        (self.header.ranges != 0).then(|| Spot::from_number(self.header.ranges))
    }

    /// Where the grant of `holder` is, or of somebody whose name has the same digest.
    pub(super) fn grant_of(&self, holder: &Holder) -> Result<Option<Spot>, Flaw> {
        Ok(self.tree.get(key_of(holder))?.map(Spot::from_number))
    }

    /// Where the grant of the lease is that holds `address`.
    pub(super) fn grant_on(&self, address: IpAddr) -> Result<Option<Spot>, Flaw> {
        let (family, number) = (Family::of(address), number(address));
        Ok(self.tree.get(addresses(family, number))?.and_then(held_by))
    }

    /// Where all grants are, in the order of the log.
    pub(super) fn grants(&self) -> Result<Vec<Spot>, Flaw> {
        let mut grants = Vec::new();
        self.tree.scan((HOLDERS, 0), (HOLDERS, u128::MAX), &mut |_, value| {
            grants.push(Spot::from_number(value));
            ControlFlow::Continue(())
        })?;
        grants.sort_unstable();
        Ok(grants)
    }

    /// The addresses that are held of those that `range` hands out, each with where its grant is.
    pub(super) fn held_in(&self, range: &Range, visit: &mut dyn FnMut(Spot)) -> Result<(), Flaw> {
        let family = range.family();
        let ends = [range.start(), range.end()].map(|address| addresses(family, number(address)));
        let [first, last] = ends;
        self.tree.scan(first, last, &mut |(_, address), value| {
            if let Some(spot) = held_by(value).filter(|_| range.hands_out(family.address(address))) {
                visit(spot);
            }
            ControlFlow::Continue(())
        })
    }

    /// The freed addresses of a family, longest free first, until `visit` has seen enough.
    pub(super) fn freed(
        &self,
        family: Family,
        visit: &mut dyn FnMut(IpAddr, Timestamp) -> ControlFlow<()>,
    ) -> Result<(), Flaw> {
        self.tree.scan(order(family, 0), order(family, u128::MAX), &mut |(_, place), address| {
            visit(family.address(address), Timestamp(place as u64))
        })
    }

    /// The first address at or above `from` that is neither held nor remembered as freed.
    pub(super) fn first_gap(&self, family: Family, from: u128) -> Result<Option<u128>, Flaw> {
        match self.span_of(family, from)? {
            Some((_, last)) => Ok(last.checked_add(1)),
            None => Ok(Some(from)),
        }
    }

    /// Makes the change that is at `spot` in the log. After a refusal this is not to be used any more.
    pub(super) fn apply(&mut self, change: &Change, spot: Spot, log: &Log) -> Result<(), Refusal> {
        match change {
            Change::Grant(record) => self.grant(record, spot),
            Change::Release { holder, at } => self.release(holder, *at, log),
            Change::Retire { address, at } => match self.grant_on(*address)? {
                Some(_) => Err(Refusal::Conflict(Conflict::RetiredWhileHeld(*address))),
                None => Ok(self.retire(Family::of(*address), number(*address), *at)?),
            },
            Change::Ranges { .. } => {
                self.header.ranges = spot.to_number();
                Ok(())
            }
        }
    }

    /// Whoever holds what `change` gives to another has released it in a line that could not be read: nobody is given what is
    /// held.
    pub(super) fn make_way(&mut self, change: &Change, log: &Log) -> Result<(), Refusal> {
        let (addresses, at) = match change {
            Change::Grant(record) => {
                self.release(&record.holder, record.since, log)?;
                (record.addresses.iter().map(|assigned| assigned.address.ip()).collect(), record.since)
            }
            Change::Retire { address, at } => (vec![*address], *at),
            Change::Release { .. } | Change::Ranges { .. } => return Ok(()),
        };
        for address in addresses {
            let earlier = self.grant_on(address)?.and_then(|spot| log.record_at(spot).ok());
            earlier.map_or(Ok(()), |earlier| self.release(&earlier.holder, at, log))?;
        }
        Ok(())
    }

    fn grant(&mut self, record: &Record, spot: Spot) -> Result<(), Refusal> {
        if self.tree.insert(key_of(&record.holder), spot.to_number())?.is_some() {
            return Err(Refusal::Conflict(Conflict::HolderHolds(record.holder.clone())));
        }
        for address in record.addresses.iter().map(|assigned| assigned.address.ip()) {
            let (family, number) = (Family::of(address), number(address));
            match self.tree.insert(addresses(family, number), HELD | spot.to_number())? {
                None => self.add_to_span(family, number)?,
                Some(value) if held_by(value).is_none() => self.leave_order(family, value)?,
                Some(_) => {
                    let holder = record.holder.clone();
                    return Err(Refusal::Conflict(Conflict::AddressHeld { address, holder }));
                }
            }
        }
        self.header.leases += 1;
        Ok(())
    }

    fn release(&mut self, holder: &Holder, at: Timestamp, log: &Log) -> Result<(), Refusal> {
        let Some(spot) = self.grant_of(holder)? else { return Ok(()) };
        let addresses: Vec<IpAddr> = match log.record_at(spot) {
            Ok(record) if record.holder == *holder => {
                record.addresses.iter().map(|assigned| assigned.address.ip()).collect()
            }
            Ok(_) => return Ok(()),
            // The grant was damaged, or is a part of this very transaction.
            Err(_) => {
                self.outlived_damage |= spot.is_before(self.header.applied);
                self.addresses_of(spot)?
            }
        };
        self.tree.remove(key_of(holder))?;
        self.header.leases = self.header.leases.saturating_sub(1);
        for address in addresses {
            self.retire(Family::of(address), number(address), at)?;
        }
        Ok(())
    }

    /// The addresses of the lease whose grant is at `spot`, by looking at all of them.
    pub(super) fn addresses_of(&self, spot: Spot) -> Result<Vec<IpAddr>, Flaw> {
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (first, last) = (addresses(family, 0), addresses(family, u128::MAX));
            self.tree.scan(first, last, &mut |(_, number), value| {
                if held_by(value) == Some(spot) {
                    found.push(family.address(number));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// The address becomes the last in the order of reuse.
    fn retire(&mut self, family: Family, number: u128, at: Timestamp) -> Result<(), Flaw> {
        self.header.frees += 1;
        let place = u128::from(self.header.frees) << 64 | u128::from(at.0);
        match self.tree.insert(addresses(family, number), place)? {
            None => self.add_to_span(family, number)?,
            Some(value) if held_by(value).is_none() => self.leave_order(family, value)?,
            Some(_) => {}
        }
        self.tree.insert(order(family, place), number)?;
        let remembered = self.remembered(family);
        *remembered += 1;
        if *remembered > REMEMBERED as u64 { self.forget_longest_free(family) } else { Ok(()) }
    }

    fn leave_order(&mut self, family: Family, place: u128) -> Result<(), Flaw> {
        self.tree.remove(order(family, place))?;
        let remembered = self.remembered(family);
        *remembered = remembered.saturating_sub(1);
        Ok(())
    }

    fn forget_longest_free(&mut self, family: Family) -> Result<(), Flaw> {
        let mut longest = None;
        self.tree.scan(order(family, 0), order(family, u128::MAX), &mut |(_, place), number| {
            longest = Some((place, number));
            ControlFlow::Break(())
        })?;
        let Some((place, number)) = longest else { return Ok(()) };
        self.leave_order(family, place)?;
        self.tree.remove(addresses(family, number))?;
        self.take_from_span(family, number)
    }

    fn remembered(&mut self, family: Family) -> &mut u64 {
        match family {
            Family::V4 => &mut self.header.freed_v4,
            Family::V6 => &mut self.header.freed_v6,
        }
    }

    fn span_of(&self, family: Family, number: u128) -> Result<Option<(u128, u128)>, Flaw> {
        let span = self.tree.last_at_or_before(spans(family, number))?;
        Ok(span
            .filter(|((table, _), last)| *table == spans(family, 0).0 && *last >= number)
            .map(|((_, first), last)| (first, last)))
    }

    /// The address was in no span.
    fn add_to_span(&mut self, family: Family, number: u128) -> Result<(), Flaw> {
        let joined = match number.checked_add(1) {
            Some(next) => self.tree.remove(spans(family, next))?,
            None => None,
        };
        let before = match number.checked_sub(1) {
            Some(before) => self.span_of(family, before)?,
            None => None,
        };
        let first = before.map_or(number, |(first, _)| first);
        self.tree.insert(spans(family, first), joined.unwrap_or(number))?;
        Ok(())
    }

    fn take_from_span(&mut self, family: Family, number: u128) -> Result<(), Flaw> {
        let Some((first, last)) = self.span_of(family, number)? else { return Ok(()) };
        self.tree.remove(spans(family, first))?;
        if first < number {
            self.tree.insert(spans(family, first), number - 1)?;
        }
        if number < last {
            self.tree.insert(spans(family, number + 1), last)?;
        }
        Ok(())
    }
}

impl Header {
    fn encode(&self, is_whole: bool) -> [u8; HEADER] {
        let Shape { root, free, pages } = self.shape;
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        let state = if is_whole { 0 } else { CHANGING } | if self.swept { SWEPT } else { 0 };
        bytes.extend([FORMAT, state].map(u32::to_le_bytes).as_flattened());
        bytes.extend([self.log, self.drawn].map(u64::to_le_bytes).as_flattened());
        bytes.extend(self.boot.to_le_bytes());
        let counts = [self.applied, self.lines, self.frees, self.leases, self.freed_v4, self.freed_v6];
        bytes.extend(counts.map(u64::to_le_bytes).as_flattened());
        bytes.extend(self.ranges.to_le_bytes());
        bytes.extend([root, free, pages].map(u32::to_le_bytes).as_flattened());
        bytes.extend(crc32::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above have so many bytes")
    }

    /// With whether the pages are whole.
    fn decode(bytes: &[u8; HEADER]) -> Option<(Self, bool)> {
        let (covered, checksum) = bytes.split_last_chunk::<4>()?;
        let mut rest = covered.strip_prefix(MAGIC)?;
        let rest = &mut rest;
        if u32::from_le_bytes(*checksum) != crc32::hash(covered) || take_u32(rest)? != FORMAT {
            return None;
        }
        let state = take_u32(rest)?;
        let (is_whole, swept) = (state & CHANGING == 0, state & SWEPT != 0);
        let [log, drawn] = [take_u64(rest)?, take_u64(rest)?];
        let boot = take_u128(rest)?;
        let [applied, lines, frees] = [take_u64(rest)?, take_u64(rest)?, take_u64(rest)?];
        let [leases, freed_v4, freed_v6] = [take_u64(rest)?, take_u64(rest)?, take_u64(rest)?];
        let ranges = take_u128(rest)?;
        let shape = Shape { root: take_u32(rest)?, free: take_u32(rest)?, pages: take_u32(rest)? };
        let header = Self {
            log,
            drawn,
            boot,
            applied,
            lines,
            frees,
            leases,
            freed_v4,
            freed_v6,
            ranges,
            shape,
            swept,
        };
        Some((header, is_whole))
    }
}

impl From<Flaw> for Refusal {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_le_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

fn take_u128(bytes: &mut &[u8]) -> Option<u128> {
    take(bytes).map(u128::from_le_bytes)
}

fn addresses(family: Family, number: u128) -> Key {
    (2 + family as u8, number)
}

fn spans(family: Family, first: u128) -> Key {
    (4 + family as u8, first)
}

fn order(family: Family, place: u128) -> Key {
    (6 + family as u8, place)
}

fn key_of(holder: &Holder) -> Key {
    (HOLDERS, fnv(holder.0.as_bytes()))
}

fn held_by(value: u128) -> Option<Spot> {
    (value & HELD != 0).then(|| Spot::from_number(value & !HELD))
}

/// FNV-1a of 128 bits.
fn fnv(bytes: &[u8]) -> u128 {
    let basis: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let prime: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(basis, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(prime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(fnv(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn every_byte_of_the_first_page_counts() {
        let header = Header { swept: true, ..Index::new(7, 8, 9).header };
        let bytes = header.encode(true);
        let (read, is_whole) = Header::decode(&bytes).unwrap();
        assert_eq!((read.log, read.boot, read.applied, is_whole, read.swept), (7, 8, 9, true, true));
        assert_eq!(read.encode(true), bytes);
        assert!(!Header::decode(&header.encode(false)).unwrap().1);
        for offset in 0..HEADER {
            let mut damaged = bytes;
            damaged[offset] ^= 1;
            assert!(Header::decode(&damaged).is_none(), "byte {offset}");
        }
    }
}
