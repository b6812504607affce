//! The log of leases, byte by byte.
//!
//! The log is UTF-8 text. The first line is the header; each further line is one transaction:
//!
//! ```text
//! weft-ipam leases 2 8b21f3c09e5d7a64
//! 5c4c3b1d + 1764000000000000000 10.244.0.2/24@10.244.0.1,fd00::2/64@fd00::1 3f2a9c eth0 {"pod":{…},"netns":{…},"boot":"…"}
//! 0d2e11aa - 1764000001000000000 3f2a9c eth0
//! 77ab01c9 ~ 1764000001000000000 10.244.0.9
//! ```
//!
//! | part | bytes |
//! |---|---|
//! | header | `weft-ipam leases `, the format's number in decimal, a space, the id, `\n` |
//! | id | a number that is drawn when a log is made or rewritten, as 16 lower-case hexadecimal digits: it tells which log an index is of |
//! | line | checksum, a space, changes joined by `\t` (0x09), `\n` (0x0a) |
//! | checksum | CRC-32 (IEEE) of everything between its space and the `\n`, as eight lower-case hexadecimal digits |
//! | grant | `+ ` time ` ` addresses ` ` container ` ` interface ` ` detail |
//! | release | `- ` time ` ` container ` ` interface |
//! | ranges | `= ` time ` ` the range sets as JSON, as `ipam.ranges` spells them: where addresses come from, from now on |
//! | retire | `~ ` time ` ` address: it is free, and the last in the order of reuse |
//! | time | nanoseconds since 1970 in decimal |
//! | addresses | one or more of address `/` prefix length, then `@` gateway where there is one; joined by `,` |
//! | detail | a JSON object without line breaks and tabs: `pod` {`namespace`, `name`, `uid`}, `netns` {`path`, `inode`, `pidNamespace`, `directory`}, `boot`, `notes`; each may be absent, others are to be ignored |
//! | `pidNamespace` | of a path below `/proc`: the inode of the pid namespace of whoever made the lease. Without it, as releases before it wrote them, nobody can tell from such a path that the namespace is gone |
//! | `directory` | of any other path: `[DEVICE, INODE]` of the directory that it is in, as `stat` has them (`st_dev`, `st_ino`), when the lease was made. Without it, as releases before it wrote them, the same holds |
//!
//! The names obey the rules of [`Attachment`](crate::lease::Attachment), so they have no white space; JSON writes line
//! breaks, tabs and NUL bytes as escapes. So `\n` ends a line and nothing else does, and no byte is ever 0.
//!
//! A line is *unfinished* when it is the last one and has no `\n`, or has a NUL byte in it: a file system that lost power
//! may have the length of a write and not its bytes. It is not, if the index says that it was finished once, or if it is
//! all there and only its `\n` is something else. Everything else that is not as above is *damage*.
//!
//! Format 1 has no id in its header and is otherwise the same. It is read, and rewritten by the first transaction that
//! changes something.

use std::fs::File;
use std::iter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::lease::{Assigned, Holder, Record, Timestamp, find, split};
use crate::state::Change;
use crate::store::local::{Error, crc32, io_error};

/// What every log begins with, whatever its format.
pub const MAGIC: &str = "weft-ipam leases ";

/// The format this release writes.
pub const FORMAT: u32 = 2;

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Whether it is there after the next boot.
    pub(super) durable: bool,
}

/// What the first line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) id: u64,
    /// Where the lines begin.
    pub(super) length: u64,
}

/// Where in a log a change is. Spots are ordered as their changes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    offset: u64,
    /// Which change of its line.
    part: u32,
    length: u32,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The checksum says that the line is not what was written.
    #[error("the line does not match its checksum")]
    Checksum,
    /// The checksum is right, but this release cannot read the line.
    #[error("the line is whole, but {0:?} in it cannot be read")]
    Unreadable(String),
}

/// Goes through a log, or the rest of one, line by line.
pub(super) struct Lines<'a> {
    log: &'a Log,
    buffer: Vec<u8>,
    /// How much of the buffer was gone through.
    taken: usize,
    offset: u64,
}

/// A whole line, with the checksum that was written.
pub(super) struct Transaction<'a> {
    payload: &'a str,
    offset: u64,
    length: u32,
}

impl Header {
    /// A log that begins now.
    pub(super) fn new(id: u64) -> Self {
        let header = Self { format: FORMAT, id, length: 0 };
        Self { length: header.line().len() as u64, ..header }
    }

    pub(super) fn line(self) -> String {
        format!("{MAGIC}{FORMAT} {:016x}\n", self.id)
    }

    /// What the `start` of a file says. A log has its place only when it is whole, so its header always is.
    fn parse(start: &[u8], path: &Path) -> Result<Self, Error> {
        let foreign = || Error::Foreign { path: path.into() };
        let end = find(start, b'\n').ok_or_else(foreign)?;
        let line = start.get(..end).and_then(|line| line.strip_prefix(MAGIC.as_bytes()));
        let line = line.and_then(|line| str::from_utf8(line).ok()).ok_or_else(foreign)?;
        let damaged = || Error::Header { path: path.into(), line: format!("{MAGIC}{line}") };
        let (format, id) = split(line, b' ').map_or((line, None), |(format, id)| (format, Some(id)));
        let length = end as u64 + 1;
        match (format.parse(), id) {
            (Ok(1), None) => Ok(Self { format: 1, id: 0, length }),
            (Ok(FORMAT), Some(id)) => {
                let id = parse_hex(id, 16).ok_or_else(damaged)?;
                Ok(Self { format: FORMAT, id, length })
            }
            (Ok(found), _) if found > FORMAT => Err(Error::Newer { path: path.into(), found }),
            _ => Err(damaged()),
        }
    }

    const LONGEST: usize = 64;
}

impl Log {
    /// The header of `file`.
    pub(super) fn read_header(file: &File, path: &Path) -> Result<Header, Error> {
        let mut start = [0; Header::LONGEST];
        let length = file.read_at(&mut start, 0).map_err(io_error("read", path))?;
        Header::parse(start.get(..length).unwrap_or_default(), path)
    }

    /// The lines from `offset` on.
    pub(super) fn lines(&self, offset: u64) -> Lines<'_> {
        Lines { log: self, buffer: Vec::new(), taken: 0, offset }
    }

    /// The lease whose grant is at `spot`.
    pub(super) fn record_at(&self, spot: Spot) -> Result<Record, Error> {
        match self.change_at(spot)? {
            Change::Grant(record) => Ok(record),
            _ => Err(self.damaged(spot.offset, Flaw::Checksum)),
        }
    }

    /// The change at `spot`.
    pub(super) fn change_at(&self, spot: Spot) -> Result<Change, Error> {
        let mut line = vec![0; spot.length as usize];
        self.file.read_exact_at(&mut line, spot.offset).map_err(io_error("read", &self.path))?;
        let payload = line.strip_suffix(b"\n").and_then(checked);
        let payload = payload.ok_or_else(|| self.damaged(spot.offset, Flaw::Checksum))?;
        let text = parts(payload, b'\t').nth(spot.part as usize).unwrap_or_default();
        self.parse(text, spot.offset)
    }

    pub(super) fn length(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(io_error("inspect", &self.path))?.len())
    }

    pub(super) fn damaged(&self, offset: u64, source: Flaw) -> Error {
        Error::Damaged { path: self.path.clone(), offset, source }
    }

    fn parse(&self, text: &str, offset: u64) -> Result<Change, Error> {
        parse(text).ok_or_else(|| self.damaged(offset, Flaw::Unreadable(text.to_owned())))
    }
}

impl Spot {
    /// The spots of a line's changes.
    pub(super) fn all(offset: u64, length: usize) -> impl Iterator<Item = Self> {
        (0..).map(move |part| Self { offset, part, length: length as u32 })
    }

    pub(super) const fn is_before(self, offset: u64) -> bool {
        self.offset < offset
    }

    pub(super) fn to_number(self) -> u128 {
        u128::from(self.part) << 96 | u128::from(self.length) << 64 | u128::from(self.offset)
    }

    pub(super) fn from_number(number: u128) -> Self {
        Self { offset: number as u64, length: (number >> 64) as u32, part: (number >> 96) as u32 }
    }
}

impl Lines<'_> {
    /// The next line, or `None` at the end and before an unfinished one. One that is damaged is passed over after the error,
    /// unless its line break is what is damaged.
    pub(super) fn next_transaction(&mut self) -> Result<Option<Transaction<'_>>, Error> {
        let Some(length) = self.find_line()? else { return Ok(None) };
        let (start, offset) = (self.taken, self.offset);
        let line = self.buffer.get(start..start + length).unwrap_or_default();
        let payload = checked(line);
        if payload.is_none() && line.contains(&0) && self.log.length()? == offset + length as u64 + 1 {
            return Ok(None);
        }
        let length = length as u32 + 1;
        (self.taken, self.offset) = (start + length as usize, offset + u64::from(length));
        let payload = payload.ok_or_else(|| self.log.damaged(offset, Flaw::Checksum))?;
        Ok(Some(Transaction { payload, offset, length }))
    }

    /// Where the next line begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// How long the next line is, without its line break.
    fn find_line(&mut self) -> Result<Option<usize>, Error> {
        loop {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            if let Some(length) = find(rest, b'\n') {
                return Ok(Some(length));
            }
            if !self.read_on()? {
                break;
            }
        }
        // All there, but what comes last is no line break.
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        match rest.split_last().map(|(_, line)| checked(line)) {
            Some(Some(_)) => Err(self.log.damaged(self.offset, Flaw::Checksum)),
            _ => Ok(None),
        }
    }

    /// Reads some more. Returns whether there was more.
    fn read_on(&mut self) -> Result<bool, Error> {
        drop(self.buffer.drain(..self.taken));
        self.taken = 0;
        let known = self.buffer.len();
        self.buffer.resize(known + CHUNK, 0);
        let fresh = self.buffer.get_mut(known..).unwrap_or_default();
        let length = self.log.file.read_at(fresh, self.offset + known as u64);
        let length = length.map_err(io_error("read", &self.log.path))?;
        self.buffer.truncate(known + length);
        Ok(length > 0)
    }
}

impl Transaction<'_> {
    /// The changes, in their order.
    pub(super) fn changes(&self, log: &Log) -> Result<Vec<(Spot, Change)>, Error> {
        let texts = parts(self.payload, b'\t');
        let spots = Spot::all(self.offset, self.length as usize);
        texts.zip(spots).map(|(text, spot)| Ok((spot, log.parse(text, spot.offset)?))).collect()
    }

    /// Where the line ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// The line of one transaction.
pub(super) fn transaction(changes: &[Change]) -> String {
    let changes: Vec<String> = changes.iter().map(encode).collect();
    let payload = changes.join("\t");
    format!("{:08x} {payload}\n", crc32::hash(payload.as_bytes()))
}

fn encode(change: &Change) -> String {
    match change {
        Change::Grant(record) => grant(record),
        Change::Release { holder, at } => format!("- {} {}", at.0, holder.0),
        Change::Retire { address, at } => format!("~ {} {address}", at.0),
        Change::Ranges { json, at } => format!("= {} {json}", at.0),
    }
}

fn grant(record: &Record) -> String {
    let addresses: Vec<String> = record.addresses.iter().map(Assigned::to_string).collect();
    format!("+ {} {} {} {}", record.since.0, addresses.join(","), record.holder.0, record.detail)
}

/// What a line says, if it is what was written.
fn checked(line: &[u8]) -> Option<&str> {
    let (checksum, payload) = split(str::from_utf8(line).ok()?, b' ')?;
    matches_checksum(checksum, payload).then_some(payload)
}

fn matches_checksum(checksum: &str, payload: &str) -> bool {
    parse_hex(checksum, 8) == Some(crc32::hash(payload.as_bytes()).into())
}

/// Exactly so many lower-case digits.
fn parse_hex(text: &str, digits: usize) -> Option<u64> {
    let is_canonical = text.len() == digits && !text.contains(|c: char| c.is_ascii_uppercase() || c == '+');
    u64::from_str_radix(text, 16).ok().filter(|_| is_canonical)
}

fn parse(change: &str) -> Option<Change> {
    let (kind, rest) = split(change, b' ')?;
    let (time, rest) = split(rest, b' ')?;
    let at = Timestamp(time.parse().ok()?);
    match kind {
        "+" => parse_grant(at, rest),
        "-" => Some(Change::Release { holder: parse_holder(rest)?, at }),
        "~" => Some(Change::Retire { address: rest.parse().ok()?, at }),
        "=" => Some(Change::Ranges { json: rest.into(), at }),
        _ => None,
    }
}

fn parse_grant(since: Timestamp, rest: &str) -> Option<Change> {
    let (addresses, rest) = split(rest, b' ')?;
    let (container, after) = split(rest, b' ')?;
    let (ifname, detail) = split(after, b' ')?;
    let holder = parse_holder(rest.get(..container.len() + 1 + ifname.len())?)?;
    let addresses = parts(addresses, b',').map(Assigned::parse).collect::<Option<_>>()?;
    Some(Change::Grant(Record { holder, addresses, since, detail: detail.into() }))
}

fn parse_holder(text: &str) -> Option<Holder> {
    let (container, ifname) = split(text, b' ')?;
    let is_whole = !container.is_empty() && !ifname.is_empty() && !ifname.contains(' ');
    is_whole.then(|| Holder(text.into()))
}

fn parts(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest.take()?;
        let (part, after) = split(text, separator).map_or((text, None), |(part, after)| (part, Some(after)));
        rest = after;
        Some(part)
    })
}
