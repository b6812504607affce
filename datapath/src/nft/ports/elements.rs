//! The elements of the ports' maps and sets, as messages.
//!
//! Each part of a concatenated key begins at a register of four bytes, and so at a multiple of four in the key.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use super::layout::Family;
use super::{HostPort, Protocol, Published};
use crate::netlink::{Object, Purpose, Reply, Request, flag};
use crate::nft::element::{self, bytes_of, comment, elements_of, owner_of};
use crate::nft::expr::{octets, value};
use crate::nft::wire::{self, Attributes, message};

/// The maps that ports are in.
pub(super) const MAPS: [(&str, Family); 4] =
    [("ports4", Family::V4), ("ports4_at", Family::V4), ("ports6", Family::V6), ("ports6_at", Family::V6)];

/// The place of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    set: &'static str,
    key: Vec<u8>,
    /// What is there, as it completes "publish …" and "look up …", with words before and behind.
    what: (&'static str, Object, &'static str),
}

impl Slot {
    pub(super) fn of(port: &HostPort) -> Self {
        let family = Family::of(port.address);
        let everywhere = port.address.is_unspecified();
        let mut key = if everywhere { Vec::new() } else { octets(port.address) };
        key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&word(port.port));
        Self { set: map(family, !everywhere), key, what: ("", Object::Port(*port), "") }
    }

    fn attributes(&self) -> Attributes {
        element::with_key(&self.key)
    }

    fn request(&self, verb: &'static str, kind: u16, flags: u16, element: Attributes) -> Request {
        let (before, what, after) = self.what.clone();
        let doing = Purpose::from(verb).and(before, what).and(after, Object::Nothing);
        message(doing, kind, flags, element::one_of(self.set, element))
    }
}

/// That a pod may reach itself: the packet comes back to where it came from, and must not come from there. Or that nobody
/// may reach it with an address of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hairpin<'a> {
    pub(super) pod: IpAddr,
    pub(super) from_anybody: bool,
    pub(super) owner: &'a str,
}

impl Hairpin<'_> {
    pub(super) fn slot(&self) -> Slot {
        let pod = octets(self.pod);
        let family = Family::of(self.pod);
        if self.from_anybody {
            let what = ("the masqueraded way to", self.pod.into(), "");
            return Slot { set: from_anybody_set(family), key: pod, what };
        }
        Slot {
            set: hairpin_set(family),
            key: [pod.as_slice(), pod.as_slice()].concat(),
            what: ("the way of", self.pod.into(), "to itself"),
        }
    }

    pub(super) fn add(&self) -> Request {
        let slot = self.slot();
        let element = slot.attributes().bytes(element::USERDATA, &comment(self.owner));
        slot.request("open", wire::NEWSETELEM, flag::CREATE | flag::EXCL, element)
    }
}

pub(super) const fn map(family: Family, at_address: bool) -> &'static str {
    match (family, at_address) {
        (Family::V4, false) => "ports4",
        (Family::V4, true) => "ports4_at",
        (Family::V6, false) => "ports6",
        (Family::V6, true) => "ports6_at",
    }
}

pub(super) const fn hairpin_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "hairpin4",
        Family::V6 => "hairpin6",
    }
}

pub(super) const fn from_anybody_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "from_anybody4",
        Family::V6 => "from_anybody6",
    }
}

pub(super) fn add_port(port: &Published) -> Request {
    let slot = Slot::of(&port.at);
    let mut data = octets(port.to.ip());
    data.extend_from_slice(&word(port.to.port()));
    let element =
        slot.attributes().nested(element::DATA, value(&data)).bytes(element::USERDATA, &comment(&port.owner));
    slot.request("publish", wire::NEWSETELEM, flag::CREATE | flag::EXCL, element)
}

pub(super) fn delete(slot: &Slot) -> Request {
    slot.request("close", wire::DELSETELEM, 0, slot.attributes())
}

pub(super) fn get(slot: &Slot) -> Request {
    let request = slot.request("look up", wire::GETSETELEM, 0, slot.attributes());
    Request { forgiven: &[Errno::ENOENT], ..request }
}

pub(super) fn list(map: &str) -> Request {
    let request = message("list the host ports", wire::GETSETELEM, 0, element::all_of(map));
    Request { forgiven: &[Errno::ENOENT], ..request }
}

/// The ports in an answer to [`get`] or [`list`], which do not say themselves which kind of map they are of: that is
/// told by the length of the key.
pub(super) fn read_ports(reply: &Reply, family: Family) -> Vec<Published> {
    elements_of(reply).filter_map(|element| read_port(element, family)).collect()
}

/// The owners in an answer to [`get`].
pub(super) fn owners(reply: &Reply) -> Vec<String> {
    elements_of(reply).map(owner_of).collect()
}

fn read_port(element: &[u8], family: Family) -> Option<Published> {
    let (key, data) = (bytes_of(element, element::KEY)?, bytes_of(element, element::DATA)?);
    let length = family.key_length() as usize;
    let (on, rest) = match key.len().checked_sub(length) {
        Some(8) => (family.address(key.get(..length)?)?, key.get(length..)?),
        _ => (family.unspecified(), key),
    };
    let protocol = Protocol::of_number(*rest.first()?)?;
    let at = HostPort { address: on, protocol, port: number(rest.get(4..)?)? };
    let to = SocketAddr::new(family.address(data.get(..length)?)?, number(data.get(length..)?)?);
    Some(Published { at, to, owner: owner_of(element) })
}

/// A port as it lies in a register.
const fn word(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn number(word: &[u8]) -> Option<u16> {
    word.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(address: &str) -> Slot {
        Slot::of(&HostPort { address: address.parse().unwrap(), protocol: Protocol::Tcp, port: 0x1f90 })
    }

    #[test]
    fn a_port_on_all_addresses_and_one_on_a_single_address_are_in_different_maps() {
        assert_eq!(
            (slot("0.0.0.0").set, slot("0.0.0.0").key),
            ("ports4", vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0])
        );
        let single = slot("10.0.0.1");
        assert_eq!((single.set, single.key.len()), ("ports4_at", 12));
        assert_eq!(single.key.get(..4), Some(&[10, 0, 0, 1][..]));
        assert_eq!(
            (slot("::").set, slot("fd00::1").set, slot("fd00::1").key.len()),
            ("ports6", "ports6_at", 24)
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        for (at, to) in [
            ("0.0.0.0", "10.0.0.2:80"),
            ("192.0.2.1", "10.0.0.2:80"),
            ("::", "[fd00::2]:65535"),
            ("2001:db8::1", "[fd00::2]:1"),
        ] {
            let port = Published {
                at: HostPort { address: at.parse().unwrap(), protocol: Protocol::Sctp, port: 0xfedc },
                to: to.parse().unwrap(),
                owner: "weft/c/eth0".to_owned(),
            };
            let Request { kind, body, .. } = add_port(&port);
            assert_eq!(read_ports(&Reply { kind, body }, Family::of(port.at.address)), [port]);
        }
    }
}
