//! A netlink socket that carries batches: many requests in one message, one acknowledgement for all.
//!
//! The kernel handles the requests of a batch in their order and goes on after one that failed, answering every
//! failure and, of the successes, only those that asked for it (`netlink_rcv_skb` in `net/netlink/af_netlink.c`). So
//! only the last request asks: its answer says that all before it have been handled.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::Doing;
use crate::{Error, Refusal};

mod attributes;
mod purpose;

pub(crate) use attributes::{Attributes, attribute_of, attributes_of, native};
pub(crate) use purpose::{Object, Purpose};

/// Flags of `linux/netlink.h`.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const ACK_TLVS: u16 = 0x200;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// The kernel fills a dump's messages up to the receiver's buffer, and never above this.
const RECEIVE_BUFFER: usize = 32 << 10;
/// Far above what any answer takes, far below a runtime's patience.
const PATIENCE_SECONDS: i64 = 10;
/// How often a dump is begun again when the table changed under it.
const DUMP_ATTEMPTS: usize = 8;

thread_local! {
    /// What every socket of the thread receives answers into.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One request to the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What it does, as it completes "cannot …".
    pub(crate) doing: Purpose,
    /// Message type.
    pub(crate) kind: u16,
    /// Flags beside [`flag::REQUEST`].
    pub(crate) flags: u16,
    /// Everything after the netlink header.
    pub(crate) body: Vec<u8>,
    /// Refusals that are as good as success, such as `EEXIST` where it is enough that a thing exists.
    pub(crate) forgiven: &'static [Errno],
}

/// What ends the wait for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// An acknowledgement, which is asked for.
    Acknowledged,
    /// The same, or any refusal.
    AcknowledgedOrRefused,
    /// The object that the request is for, or the refusal to tell of it.
    Answered,
}

/// One message from the kernel.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A socket, bound to the namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    raw: RawSocket,
    sequence: Cell<u32>,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_raw_fd()
    }
}

impl Socket {
    /// Opens a socket for `protocol` in the namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> Result<Self, Error> {
        let doing = || "open a netlink socket";
        let raw = RawSocket::new(protocol).doing(doing)?;
        raw.connect(&SocketAddr::new(0, 0)).doing(doing)?;
        // Refusals in words, and without a copy of the request behind them. Kernels before 4.12 lack both.
        for option in [raw.set_ext_ack(true), raw.set_cap_ack(true)] {
            option
                .or_else(
                    |e| if e.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) { Ok(()) } else { Err(e) },
                )
                .doing(doing)?;
        }
        setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS)).doing(doing)?;
        Ok(Self { raw, sequence: Cell::new(1) })
    }

    /// The same, with a kernel that heeds what a dump is asked to leave out. One before 4.20 does not.
    pub(crate) fn open_strict(protocol: isize) -> Result<Self, Error> {
        let socket = Self::open(protocol)?;
        let _older = socket.raw.set_netlink_get_strict_chk(true);
        Ok(socket)
    }

    /// From now on hears what the kernel tells `group`.
    pub(crate) fn listen(&self, group: u32) -> Result<(), Error> {
        self.raw.add_membership(group).doing(|| "listen to the kernel")
    }

    /// Waits until something was heard, or `deadline` has passed. Whoever missed some of it has heard something, too.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<(), Error> {
        let doing = || "listen to the kernel";
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let left = TimeVal::microseconds(i64::try_from(left.as_micros()).unwrap_or(i64::MAX));
        setsockopt(&self.raw, sockopt::ReceiveTimeout, &left).doing(doing)?;
        match self.raw.recv(&mut Vec::with_capacity(HEADER), 0) {
            Err(e) if !is_passing(&e) => Err(e).doing(doing),
            _ => Ok(()),
        }
    }

    /// Sends all `requests` at once and waits until the last has been handled. Where one is refused, those after it
    /// may have been carried out: the caller undoes.
    pub(crate) fn carry_out(&self, requests: &[Request]) -> Result<(), Error> {
        let all: Vec<_> = requests.iter().collect();
        all.len().checked_sub(1).map_or(Ok(()), |last| self.exchange(&all, last, End::Acknowledged).map(drop))
    }

    /// The same, with a request for a single object at the end: its answer says as well that all before it have been
    /// handled. `None` where the kernel does not have the object.
    pub(crate) fn carry_out_and_get(
        &self,
        requests: &[Request],
        get: &Request,
    ) -> Result<Option<Reply>, Error> {
        let all: Vec<_> = requests.iter().chain([get]).collect();
        let answer = self.exchange(&all, requests.len(), End::Answered)?;
        Ok(answer.map(Message::into_reply))
    }

    /// Sends `requests` between the one that opens a transaction and the one that closes it: the kernel carries out all of
    /// them or none. It need not answer what closes one, and one that is refused at its opening has no other answer, so
    /// the first refusal ends the wait.
    pub(crate) fn transact(
        &self,
        open: &Request,
        requests: &[Request],
        close: &Request,
    ) -> Result<(), Error> {
        let all: Vec<_> = std::iter::once(open).chain(requests).chain([close]).collect();
        self.exchange(&all, requests.len(), End::AcknowledgedOrRefused).map(drop)
    }

    /// The one answer to a request for a single object; `None` where the kernel does not have it.
    pub(crate) fn get(&self, request: &Request) -> Result<Option<Reply>, Error> {
        self.carry_out_and_get(&[], request)
    }

    /// The answers to `requests`, each of which is for a single object, in their order. They are sent together, but no more
    /// of them than there is room for answers in the socket: the kernel drops what does not fit.
    pub(crate) fn get_each(&self, requests: &[Request]) -> Result<Vec<Option<Reply>>, Error> {
        const AT_ONCE: usize = 64;
        let mut answers = Vec::new();
        for some in requests.chunks(AT_ONCE) {
            answers.extend(self.get_at_once(some)?);
        }
        Ok(answers)
    }

    fn get_at_once(&self, requests: &[Request]) -> Result<Vec<Option<Reply>>, Error> {
        let all: Vec<_> = requests.iter().collect();
        let first = self.send_all(&all, None)?;
        let mut answers: Vec<_> = requests.iter().map(|request| (request, None)).collect();
        while let Some((waiting, _)) = answers.iter().find(|(_, answer)| answer.is_none()) {
            for message in self.receive(&waiting.doing)? {
                let index = index_of(message.sequence, first, requests.len());
                let Some((request, answer)) = index.and_then(|index| answers.get_mut(index)) else {
                    continue;
                };
                *answer = Some(match message.refusal() {
                    Some(refusal) if request.forgiven.contains(&refusal.errno) => None,
                    Some(refusal) => return Err(Error::new(&request.doing, refusal)),
                    None => Some(message.into_reply()),
                });
            }
        }
        Ok(answers.into_iter().filter_map(|(_, answer)| answer).collect())
    }

    /// Sends `requests` in one packet and waits for the answer to the one at `awaited`.
    fn exchange(&self, requests: &[&Request], awaited: usize, end: End) -> Result<Option<Message>, Error> {
        let first = self.send_all(requests, (end != End::Answered).then_some(awaited))?;
        let requests = requests.get(..=awaited).unwrap_or_default();
        let Some(doing) = requests.last().map(|request| &request.doing) else { return Ok(None) };
        let mut refused = None;
        loop {
            for message in self.receive(doing)? {
                let Some(index) = index_of(message.sequence, first, requests.len()) else { continue };
                let Some(request) = requests.get(index) else { continue };
                let refusal = message.refusal();
                let is_refused = refusal.is_some();
                if let Some(refusal) = refusal.filter(|r| !request.forgiven.contains(&r.errno)) {
                    refused.get_or_insert_with(|| Error::new(&request.doing, refusal));
                }
                if index == awaited || (end == End::AcknowledgedOrRefused && refused.is_some()) {
                    return refused.map_or_else(|| Ok((!is_refused).then_some(message)), Err);
                }
            }
        }
    }

    /// Sends `requests` in one packet, in which the one at `acknowledged` asks for it. Gives the sequence number of the
    /// first.
    fn send_all(&self, requests: &[&Request], acknowledged: Option<usize>) -> Result<u32, Error> {
        let first = self.reserve(requests.len());
        let length = requests.iter().map(|request| (HEADER + request.body.len()).next_multiple_of(4)).sum();
        let mut packet = Vec::with_capacity(length);
        for (index, request) in requests.iter().enumerate() {
            let ack = if Some(index) == acknowledged { flag::ACK } else { 0 };
            let sequence = first.wrapping_add(index as u32);
            frame(&mut packet, request.kind, flag::REQUEST | request.flags | ack, sequence, &request.body);
        }
        let Some(last) = requests.last() else { return Ok(first) };
        self.send(&packet, &last.doing)?;
        Ok(first)
    }

    /// Every object of a table. A table that changes while it is read is read again, for the kernel says that it may
    /// have left things out (`NLM_F_DUMP_INTR`).
    pub(crate) fn dump(&self, request: &Request) -> Result<Vec<Reply>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(replies) = self.dump_once(request)? {
                return Ok(replies);
            }
        }
        let words = format!("the table kept changing through {DUMP_ATTEMPTS} attempts");
        Err(io::Error::other(words)).doing(|| &request.doing)
    }

    fn dump_once(&self, request: &Request) -> Result<Option<Vec<Reply>>, Error> {
        let first = self.reserve(1);
        let mut packet = Vec::with_capacity(HEADER + request.body.len());
        frame(&mut packet, request.kind, flag::REQUEST | flag::DUMP | request.flags, first, &request.body);
        self.send(&packet, &request.doing)?;
        let (mut replies, mut coherent) = (Vec::new(), true);
        loop {
            for message in self.receive(&request.doing)? {
                if message.sequence != first {
                    continue;
                }
                if let Some(refusal) = message.refusal() {
                    let absent = request.forgiven.contains(&refusal.errno);
                    return if absent { Ok(Some(replies)) } else { Err(Error::new(&request.doing, refusal)) };
                }
                coherent &= message.flags & flag::DUMP_INTERRUPTED == 0;
                if message.kind == NLMSG_DONE {
                    return Ok(coherent.then_some(replies));
                }
                replies.push(message.into_reply());
            }
        }
    }

    /// Makes room for `requests` sent at once, and for a refusal of each: what is longer than the socket's buffer is not
    /// sent, and refusals that do not fit are lost with all others. Few fit anyway; where the caller may not have more, the
    /// kernel's own refusal says so.
    pub(crate) fn make_room(&self, requests: &[Request]) {
        const FIT_ANYWAY: usize = 128;
        const REFUSAL: usize = 1024;
        if requests.len() <= FIT_ANYWAY {
            return;
        }
        let sent: usize = requests.iter().map(|request| HEADER + 4 + request.body.len()).sum();
        let _refused = setsockopt(&self.raw, sockopt::SndBufForce, &sent)
            .and_then(|()| setsockopt(&self.raw, sockopt::RcvBufForce, &(REFUSAL * requests.len())));
    }

    fn send(&self, packet: &[u8], doing: &Purpose) -> Result<(), Error> {
        self.raw.send(packet, 0).doing(|| doing).map(|_sent_whole| ())
    }

    /// Takes `count` sequence numbers. Answers to older ones are leftovers of a batch that was given up.
    fn reserve(&self, count: usize) -> u32 {
        let first = self.sequence.get();
        self.sequence.set(first.wrapping_add(count as u32));
        first
    }

    fn receive(&self, doing: &Purpose) -> Result<Vec<Message>, Error> {
        RECEIVED.with_borrow_mut(|buffer| self.receive_into(buffer, doing))
    }

    fn receive_into(&self, buffer: &mut Vec<u8>, doing: &Purpose) -> Result<Vec<Message>, Error> {
        buffer.clear();
        buffer.reserve(RECEIVE_BUFFER);
        loop {
            match self.raw.recv(buffer, 0) {
                Ok(_) => return Ok(split(buffer)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let words = format!("the kernel gave no answer within {PATIENCE_SECONDS} s");
                    return Err(io::Error::other(words)).doing(|| doing);
                }
                Err(e) => return Err(e).doing(|| doing),
            }
        }
    }
}

/// Whether it says no more than that there is nothing to hear now, or that there was too much.
fn is_passing(error: &io::Error) -> bool {
    let overrun = error.raw_os_error() == Some(Errno::ENOBUFS as i32);
    overrun || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Appends one message with its header (`struct nlmsghdr`) and padding.
fn frame(packet: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    packet.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    packet.extend_from_slice(&kind.to_ne_bytes());
    packet.extend_from_slice(&flags.to_ne_bytes());
    packet.extend_from_slice(&sequence.to_ne_bytes());
    packet.extend_from_slice(&0u32.to_ne_bytes());
    packet.extend_from_slice(body);
    packet.resize(packet.len().next_multiple_of(4), 0);
}

struct Message {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Message {
    /// The refusal this message carries, if it does: an acknowledgement is an error message with the number 0.
    fn refusal(&self) -> Option<Refusal> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let (number, rest) = self.body.split_first_chunk::<4>()?;
        match i32::from_ne_bytes(*number) {
            0 => None,
            negative => {
                Some(Refusal { errno: Errno::from_raw(-negative), explanation: self.explanation(rest) })
            }
        }
    }

    /// `NLMSGERR_ATTR_MSG`, which stands behind the header of the request that was refused.
    fn explanation(&self, after_number: &[u8]) -> Option<String> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & flag::ACK_TLVS == 0 {
            return None;
        }
        let attributes = after_number.get(HEADER..)?;
        let text = attribute_of(attributes, NLMSGERR_ATTR_MSG)?;
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn into_reply(self) -> Reply {
        Reply { kind: self.kind, body: self.body }
    }
}

fn split(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, rest)) = first_message(bytes) {
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// Kind, flags and body of each message in a packet.
pub(crate) fn messages(packet: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let body = rest.get(HEADER..length)?;
        let half = |at: usize| rest.get(at..)?.first_chunk().map(|two| u16::from_ne_bytes(*two));
        let (kind, flags) = (half(4)?, half(6)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, flags, body))
    })
}

fn first_message(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let body = bytes.get(HEADER..length)?.to_vec();
    let half = |at: usize| bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
    let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Message { kind: half(4)?, flags: half(6)?, sequence, body }, rest))
}

fn index_of(sequence: u32, first: u32, count: usize) -> Option<usize> {
    let index = sequence.wrapping_sub(first) as usize;
    (index < count).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(number: i32, words: &[u8]) -> Vec<u8> {
        let mut body = number.to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER]);
        body.extend_from_slice(&(4 + words.len() as u16).to_ne_bytes());
        body.extend_from_slice(&1u16.to_ne_bytes());
        body.extend_from_slice(words);
        let mut packet = Vec::new();
        frame(&mut packet, NLMSG_ERROR, flag::ACK_TLVS, 7, &body);
        packet
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let messages = split(&error(-17, b"Device exists\0"));
        let refusal = messages[0].refusal().unwrap();
        assert_eq!(refusal.errno, Errno::EEXIST);
        assert_eq!(refusal.explanation.as_deref(), Some("Device exists"));
        assert!(split(&error(0, b""))[0].refusal().is_none());
    }

    #[test]
    fn messages_cut_short_are_not_read_past_their_end() {
        let packet = error(-17, b"Device exists\0");
        for length in 0..packet.len() {
            for message in split(&packet[..length]) {
                assert_eq!(message.refusal().map(|r| r.errno), Some(Errno::EEXIST));
            }
        }
    }

    #[test]
    fn answers_to_an_earlier_batch_are_told_apart_even_when_the_numbers_wrap() {
        assert_eq!(index_of(4, 5, 3), None);
        assert_eq!(index_of(7, 5, 3), Some(2));
        assert_eq!(index_of(8, 5, 3), None);
        assert_eq!(index_of(0, u32::MAX, 2), Some(1));
    }
}
