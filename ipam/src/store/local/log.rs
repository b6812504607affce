//! The log of leases, byte by byte.
//!
//! The log is UTF-8 text. The first line is the header; each further line is one transaction:
//!
//! ```text
//! weft-ipam leases 1
//! 5c4c3b1d + 1764000000000000000 10.244.0.2/24@10.244.0.1,fd00::2/64@fd00::1 3f2a9c eth0 {"pod":{…},"netns":{…},"boot":"…"}
//! 0d2e11aa - 1764000001000000000 3f2a9c eth0
//! 77ab01c9 ~ 1764000001000000000 10.244.0.9
//! ```
//!
//! | part | bytes |
//! |---|---|
//! | header | `weft-ipam leases `, the format's number in decimal, `\n` |
//! | line | checksum, a space, changes joined by `\t` (0x09), `\n` (0x0a) |
//! | checksum | CRC-32 (IEEE) of everything between its space and the `\n`, as eight lower-case hexadecimal digits |
//! | grant | `+ ` time ` ` addresses ` ` container ` ` interface ` ` detail |
//! | release | `- ` time ` ` container ` ` interface |
//! | ranges | `= ` time ` ` the range sets as JSON, as `ipam.ranges` spells them: where addresses come from, from now on |
//! | retire | `~ ` time ` ` address: it is free, and the last in the order of reuse |
//! | time | nanoseconds since 1970 in decimal |
//! | addresses | one or more of address `/` prefix length, then `@` gateway where there is one; joined by `,` |
//! | detail | a JSON object without line breaks and tabs: `pod` {`namespace`, `name`, `uid`}, `netns` {`path`, `inode`}, `boot`; each may be absent, others are to be ignored |
//!
//! The names obey the rules of [`Attachment`](crate::lease::Attachment), so they have no white space; JSON writes line
//! breaks, tabs and NUL bytes as escapes. So `\n` ends a line and nothing else does, and no byte is ever 0.
//!
//! A line is *unfinished* when it is the last one and has no `\n`, or has a NUL byte in it: a file system that lost power
//! may have the length of a write and not its bytes. Everything else that is not as above is *damage*.

use std::iter;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::lease::{Assigned, Holder, Record, Timestamp};
use crate::state::{Change, Conflict, State};
use crate::store::local::Error;

/// What every log begins with, whatever its format.
pub const MAGIC: &str = "weft-ipam leases ";

/// The format this release writes.
pub const FORMAT: u32 = 1;

/// About as long is the line of a lease that knows its pod.
pub(super) const USUAL_LINE: usize = 360;

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

/// Where a line is.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u64,
    line: u64,
}

/// Goes through a log, or the rest of one, transaction by transaction.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    offset: u64,
    number: u64,
}

/// A whole line, with the checksum that was written.
pub(super) struct Transaction<'a> {
    payload: &'a str,
    position: Position,
}

/// A log of nothing but `state`.
pub(super) fn snapshot(state: &State) -> String {
    let mut text = format!("{MAGIC}{FORMAT}\n");
    let records = state.records();
    let latest = records.last().map_or(Timestamp(0), |record| record.since);
    if let Some(json) = state.ranges() {
        text.push_str(&transaction(&[Change::Ranges { json: json.into(), at: latest }]));
    }
    for (address, at) in state.freed() {
        text.push_str(&transaction(&[Change::Retire { address, at }]));
    }
    for record in records {
        push_line(&mut text, &grant(record));
    }
    text
}

/// The line of one transaction.
pub(super) fn transaction(changes: &[Change]) -> String {
    let fields: Vec<String> = changes.iter().map(encode).collect();
    let mut line = String::new();
    push_line(&mut line, &fields.join("\t"));
    line
}

fn push_line(text: &mut String, payload: &str) {
    text.push_str(&format!("{:08x} {payload}\n", crc32fast::hash(payload.as_bytes())));
}

fn encode(change: &Change) -> String {
    match change {
        Change::Grant(record) => grant(record),
        Change::Release { holder, at } => format!("- {} {}", at.0, holder.0.as_str()),
        Change::Retire { address, at } => format!("~ {} {address}", at.0),
        Change::Ranges { json, at } => format!("= {} {json}", at.0),
    }
}

fn grant(record: &Record) -> String {
    let addresses: Vec<String> = record.addresses.iter().map(assigned).collect();
    format!(
        "+ {} {} {} {}",
        record.since.0,
        addresses.join(","),
        record.holder.0.as_str(),
        record.detail.as_str()
    )
}

fn assigned(assigned: &Assigned) -> String {
    match assigned.gateway {
        Some(gateway) => format!("{}@{gateway}", assigned.address),
        None => assigned.address.to_string(),
    }
}

impl Position {
    fn contradiction(self, path: &Path, source: Conflict) -> Error {
        Error::Contradiction { path: path.into(), offset: self.offset, line: self.line, source }
    }

    fn damaged(self, path: &Path, source: Flaw) -> Error {
        Error::Damaged { path: path.into(), offset: self.offset, line: self.line, source }
    }
}

impl<'a> Lines<'a> {
    /// The part of a log that begins at `offset`, after `number` lines.
    pub(super) fn new(rest: &'a [u8], offset: u64, number: u64) -> Self {
        Self { rest, offset, number }
    }

    /// Where the next line begins: everything before it is whole.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many lines are before it, the header included.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Takes the header, where the log begins here. A header that is not finished is left where it is.
    pub(super) fn check_header(&mut self, path: &Path) -> Result<(), Error> {
        let header = format!("{MAGIC}{FORMAT}\n");
        if self.offset > 0 || header.as_bytes().starts_with(self.rest) && self.rest.len() < header.len() {
            return Ok(());
        }
        let line = self.peek_line().ok_or_else(|| Error::Foreign { path: path.into() })?;
        let version = line.strip_prefix(MAGIC.as_bytes()).and_then(|text| str::from_utf8(text).ok());
        match version.and_then(|text| text.parse().ok()) {
            Some(FORMAT) => self.advance(line.len() + 1),
            Some(found) if found > FORMAT => return Err(Error::Newer { path: path.into(), found }),
            _ => return Err(Error::Foreign { path: path.into() }),
        }
        Ok(())
    }

    /// The next transaction, or `None` at the end and before an unfinished one.
    pub(super) fn next_transaction(&mut self, path: &Path) -> Result<Option<Transaction<'a>>, Error> {
        let Some(line) = self.peek_line().filter(|_| self.offset > 0) else { return Ok(None) };
        let position = Position { offset: self.offset, line: self.number + 1 };
        match checked(line) {
            Some(payload) => {
                self.advance(line.len() + 1);
                Ok(Some(Transaction { payload, position }))
            }
            None if line.len() + 1 == self.rest.len() && line.contains(&0) => Ok(None),
            None => Err(position.damaged(path, Flaw::Checksum)),
        }
    }

    fn peek_line(&self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        self.rest.get(..end)
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
        self.offset += bytes as u64;
        self.number += 1;
    }
}

impl Transaction<'_> {
    /// Makes the changes, in their order.
    pub(super) fn apply(&self, state: &mut State, path: &Path) -> Result<(), Error> {
        for text in parts(self.payload, b'\t') {
            let unreadable = || self.position.damaged(path, Flaw::Unreadable(text.to_owned()));
            let change = parse(text).ok_or_else(unreadable)?;
            state.apply(change).map_err(|source| self.position.contradiction(path, source))?;
        }
        Ok(())
    }
}

/// What a line says, if it is what was written.
fn checked(line: &[u8]) -> Option<&str> {
    let (checksum, payload) = split(str::from_utf8(line).ok()?, b' ')?;
    matches_checksum(checksum, payload).then_some(payload)
}

fn matches_checksum(checksum: &str, payload: &str) -> bool {
    let is_canonical =
        checksum.len() == 8 && !checksum.contains(|c: char| c.is_ascii_uppercase() || c == '+');
    is_canonical && u32::from_str_radix(checksum, 16) == Ok(crc32fast::hash(payload.as_bytes()))
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
    let addresses = parts(addresses, b',').map(parse_assigned).collect::<Option<_>>()?;
    Some(Change::Grant(Record { holder, addresses, since, detail: detail.into() }))
}

fn parse_holder(text: &str) -> Option<Holder> {
    let (container, ifname) = split(text, b' ')?;
    let is_whole = !container.is_empty() && !ifname.is_empty() && !ifname.contains(' ');
    is_whole.then(|| Holder(text.into()))
}

fn parse_assigned(text: &str) -> Option<Assigned> {
    let (address, gateway) = match split(text, b'@') {
        Some((address, gateway)) => (address, Some(gateway.parse::<IpAddr>().ok()?)),
        None => (text, None),
    };
    let (address, prefix) = split(address, b'/')?;
    let address = IpNetwork::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
    Some(Assigned { address, gateway })
}

/// As `split_once`, which compares what it has found once more, by a call: for ten separators in each line that was a
/// fifth of the time to read a log. The separator is ASCII.
fn split(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(separator, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
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
