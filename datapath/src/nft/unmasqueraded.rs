//! Destinations to which every pod keeps its own address, whatever its subnet: pods of other nodes, and what an operator names.
//!
//! Two sets of the table, which the chains of all subnets look into. Whoever knows the other nodes puts them in; without
//! anybody who does they are empty.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::Nft;
use super::element::{self, bytes_of, elements_of};
use super::expr::octets;
use super::layout::{self, Family};
use super::wire::{self, message};
use crate::Error;
use crate::netlink::{Reply, Request, attribute_of, flag};

/// What a change of the sets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resettled {
    /// How many networks came in.
    pub added: usize,
    /// How many went out.
    pub removed: usize,
}

/// Where an interval begins, or the first address behind it. Of one address that behind an interval comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    address: IpAddr,
    begins: bool,
}

/// Attribute of an element, and its only flag that is of interest here.
const FLAGS: u16 = 3;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

impl Nft {
    /// The networks to which nobody is masqueraded.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn unmasqueraded(&self) -> Result<BTreeSet<IpNetwork>, Error> {
        Ok(networks(&self.bounds()?))
    }

    /// Makes these the networks to which nobody is masqueraded, in one transaction. Those inside of another one count as a
    /// part of it. What stands already is not touched.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_unmasqueraded(&self, wanted: &BTreeSet<IpNetwork>) -> Result<Resettled, Error> {
        let (wanted, standing) = (bounds_of(wanted), self.bounds()?);
        let [gone, new] = [&standing - &wanted, &wanted - &standing];
        let resettled = Resettled { added: beginnings(&new), removed: beginnings(&gone) };
        if gone.is_empty() && new.is_empty() {
            return Ok(resettled);
        }
        let mut requests = if new.is_empty() { Vec::new() } else { layout::table_of_sets() };
        requests.extend(changes(wire::DELSETELEM, 0, &gone));
        requests.extend(changes(wire::NEWSETELEM, flag::CREATE, &new));
        self.batch(None, &requests).map(|()| resettled)
    }

    fn bounds(&self) -> Result<BTreeSet<Bound>, Error> {
        let mut bounds = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            let set = element::all_of(family.unmasqueraded_set());
            let mut list = message("list the unmasqueraded networks", wire::GETSETELEM, 0, set);
            list.forgiven = &[Errno::ENOENT];
            let replies = self.socket.dump(&list)?;
            bounds.extend(replies.iter().flat_map(|reply| read(reply, family)));
        }
        Ok(bounds)
    }
}

/// The set of a family.
pub(super) fn set(family: Family) -> Request {
    const NFT_SET_INTERVAL: u32 = 0x4;
    let length = family.key_length();
    // Its number within the batch is another than that of the family's map.
    layout::set_with(
        NFT_SET_INTERVAL,
        family.unmasqueraded_set(),
        length + 1,
        (family.key_type(), length),
        None,
    )
}

fn read(reply: &Reply, family: Family) -> impl Iterator<Item = Bound> {
    elements_of(reply).filter_map(move |element| {
        let flags = attribute_of(element, FLAGS).and_then(|flags| flags.first_chunk());
        let ends = flags.is_some_and(|flags| u32::from_be_bytes(*flags) & NFT_SET_ELEM_INTERVAL_END != 0);
        Some(Bound { address: family.address(bytes_of(element, element::KEY)?)?, begins: !ends })
    })
}

/// One message a bound: messages that carry many are refused as a whole, without a word about which of them it was.
fn changes(kind: u16, flags: u16, bounds: &BTreeSet<Bound>) -> impl Iterator<Item = Request> {
    bounds.iter().map(move |bound| {
        let key = element::with_key(&octets(bound.address));
        let element = if bound.begins { key } else { key.number(FLAGS, NFT_SET_ELEM_INTERVAL_END) };
        let set = Family::of(bound.address).unmasqueraded_set();
        message("change the unmasqueraded networks", kind, flags, element::one_of(set, element))
    })
}

fn bounds_of(networks: &BTreeSet<IpNetwork>) -> BTreeSet<Bound> {
    let outermost = networks.iter().filter(|inner| {
        !networks.iter().any(|outer| outer.prefix() < inner.prefix() && is_within(inner.network(), *outer))
    });
    outermost
        .flat_map(|network| {
            let begin = Bound { address: network.network(), begins: true };
            // The last network of all ends where no address is.
            let end = after(network.broadcast()).map(|address| Bound { address, begins: false });
            [Some(begin), end].into_iter().flatten()
        })
        .collect()
}

fn is_within(address: IpAddr, network: IpNetwork) -> bool {
    address.is_ipv4() == network.is_ipv4() && network.contains(address)
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn beginnings(bounds: &BTreeSet<Bound>) -> usize {
    bounds.iter().filter(|bound| bound.begins).count()
}

/// The intervals that are networks; others are none of Weft's.
fn networks(bounds: &BTreeSet<Bound>) -> BTreeSet<IpNetwork> {
    let all: Vec<_> = bounds.iter().collect();
    let ends = all.iter().skip(1).map(Some).chain([None]);
    all.iter()
        .zip(ends)
        .filter(|(bound, _)| bound.begins)
        .filter_map(|(begin, end)| {
            let family = |other: &&Bound| other.address.is_ipv4() == begin.address.is_ipv4();
            network(begin.address, end.copied().filter(family).map(|end| end.address))
        })
        .collect()
}

/// The network of the addresses from `first` to the one before `end`.
fn network(first: IpAddr, end: Option<IpAddr>) -> Option<IpNetwork> {
    let longest = if first.is_ipv4() { 32 } else { 128 };
    let candidates = (0..=longest).filter_map(|prefix| IpNetwork::new(first, prefix).ok());
    candidates.into_iter().find(|network| network.network() == first && after(network.broadcast()) == end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_are_read_back_from_their_bounds() {
        for given in [
            &["10.244.0.0/24", "10.244.1.0/24", "10.244.3.0/24", "fd00:1::/64", "fd00:2::/64"][..],
            &["0.0.0.0/0", "::/0"],
            &["255.255.255.255/32", "::/128"],
            &[],
        ] {
            assert_eq!(networks(&bounds_of(&set(given))), set(given));
        }
    }

    #[test]
    fn a_network_inside_of_another_is_a_part_of_it() {
        let bounds = bounds_of(&set(&["10.0.0.0/8", "10.244.1.0/24", "10.255.255.0/24", "fd00::/64"]));
        assert_eq!(networks(&bounds), set(&["10.0.0.0/8", "fd00::/64"]));
    }
}
