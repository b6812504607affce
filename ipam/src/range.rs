//! Ranges that cannot be wrong: once built, every question about them has an answer.
//!
//! A [`Range`] is what host-local calls a range: a subnet, the part of it that is handed out, and a gateway. A
//! [`RangeSet`] is several of them from which one address is taken. A [`Pool`] is all sets of a network; an attachment
//! gets one address from each, so a dual-stack network has two sets.
//!
//! Defaults are host-local's: the gateway is the first address, and the network address is not handed out. Also
//! the IPv4 broadcast address never is, even where `rangeEnd` names it. Unlike host-local, subnets of one and two
//! addresses are allowed: a /31 or /127 (RFC 3021, RFC 6164) hands out its second address and has the first as gateway,
//! a /32 or /128 hands out its only address and has no gateway unless one is given.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::address::{Family, number};
use crate::lease::Assigned;
use crate::spans::Spans;

/// What a range is built from, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The subnet; its prefix length is given to every address of the range.
    pub subnet: IpNetwork,
    /// The first address to hand out.
    pub start: Option<IpAddr>,
    /// The last address to hand out.
    pub end: Option<IpAddr>,
    /// The gateway the pods are told.
    pub gateway: Option<IpAddr>,
    /// Addresses and blocks never to hand out.
    pub exclude: Vec<IpNetwork>,
}

impl From<IpNetwork> for Draft {
    fn from(subnet: IpNetwork) -> Self {
        Self { subnet, start: None, end: None, gateway: None, exclude: Vec::new() }
    }
}

/// Part of a subnet from which addresses are handed out. It always has at least one to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNetwork,
    start: IpAddr,
    end: IpAddr,
    gateway: Option<IpAddr>,
    exclude: Vec<IpNetwork>,
    /// The gateway, the network's own addresses and `exclude`.
    excluded: Spans,
}

/// Ranges of one family from which an attachment gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

/// All range sets of a network. No address is in two of its ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool(Vec<RangeSet>);

/// Why ranges were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The subnet is not written as its network address.
    #[error("{subnet} has bits set beyond its prefix; the subnet of that length is {network}/{}", subnet.prefix())]
    HostBits {
        /// As written.
        subnet: IpNetwork,
        /// The network address of that prefix.
        network: IpAddr,
    },
    /// An address of the range lies outside the subnet.
    #[error("{key} {address} is not in {subnet}")]
    Outside {
        /// `rangeStart`, `rangeEnd` or `gateway`.
        key: &'static str,
        /// As written.
        address: IpAddr,
        /// The range's subnet.
        subnet: IpNetwork,
    },
    /// The range ends before it starts.
    #[error("rangeStart {start} is after rangeEnd {end}")]
    Backwards {
        /// As written, or the default.
        start: IpAddr,
        /// As written, or the default.
        end: IpAddr,
    },
    /// A block to exclude is of the other family.
    #[error("the excluded {block} is of another address family than {subnet}")]
    ForeignExclusion {
        /// As written.
        block: IpNetwork,
        /// The range's subnet.
        subnet: IpNetwork,
    },
    /// Addresses that no interface can have, or nobody reaches.
    #[error("{subnet} cannot be given to pods: {block} is {whose}")]
    Reserved {
        /// The range's subnet.
        subnet: IpNetwork,
        /// The block that shares addresses with the range.
        block: IpNetwork,
        /// What the block is for.
        whose: &'static str,
    },
    /// A gateway that no packet can be sent to.
    #[error(
        "gateway {address} is {whose}, and forwards nothing; leave `gateway` out to have the first address of {subnet}"
    )]
    NoGateway {
        /// As written.
        address: IpAddr,
        /// Whose addresses of that kind are.
        whose: &'static str,
        /// The range's subnet.
        subnet: IpNetwork,
    },
    /// The gateway and what is excluded leave no address.
    #[error("{subnet} has no address left to hand out beside its gateway and what is excluded")]
    Nothing {
        /// The range's subnet.
        subnet: IpNetwork,
    },
    /// A set or a pool without ranges.
    #[error("there is no range to take an address from")]
    Empty,
    /// IPv4 and IPv6 in one set.
    #[error(
        "{first} and {second} are of different address families; give each family a range set of its own"
    )]
    MixedFamilies {
        /// The set's first range.
        first: Box<Range>,
        /// The range that differs.
        second: Box<Range>,
    },
    /// Two ranges share addresses.
    #[error("{first} overlaps {second}")]
    Overlap {
        /// The earlier range.
        first: Box<Range>,
        /// The later range.
        second: Box<Range>,
    },
}

impl Range {
    /// Checks a draft and fills in the defaults. Every mistake is in the error, not only the first.
    pub fn new(draft: Draft) -> Result<Self, Vec<Error>> {
        let mut mistakes = misplaced(&draft);
        let Draft { subnet, start, end, gateway, exclude } = draft;
        let start = start.unwrap_or_else(|| first_usable(subnet));
        let end = end.unwrap_or_else(|| last_usable(subnet));
        if mistakes.is_empty() && number(start) > number(end) {
            mistakes.push(Error::Backwards { start, end });
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let gateway = gateway.or_else(|| default_gateway(subnet));
        let excluded = never_handed_out(subnet, gateway, &exclude);
        let range = Self { subnet, start, end, gateway, exclude, excluded };
        if range.size() == 0 { Err(vec![Error::Nothing { subnet }]) } else { Ok(range) }
    }

    /// The subnet, written as its network address.
    pub fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// The first address of the range.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address of the range.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The gateway the pods are told.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.start)
    }

    /// How many addresses the range can hand out.
    pub fn size(&self) -> u128 {
        let (first, last) = self.bounds();
        (last - first).saturating_add(1).saturating_sub(self.excluded.count_within(first, last))
    }

    /// How many addresses of `first..=last`, a part of the range, it can hand out.
    #[cfg(feature = "etcd")]
    pub(crate) fn size_between(&self, first: u128, last: u128) -> u128 {
        (last - first).saturating_add(1).saturating_sub(self.excluded.count_within(first, last))
    }

    /// The range as a configuration spells it, with its defaults filled in.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("subnet".into(), self.subnet.to_string().into());
        object.insert("rangeStart".into(), self.start.to_string().into());
        object.insert("rangeEnd".into(), self.end.to_string().into());
        if let Some(gateway) = self.gateway {
            object.insert("gateway".into(), gateway.to_string().into());
        }
        if !self.exclude.is_empty() {
            object.insert("exclude".into(), self.exclude.iter().map(IpNetwork::to_string).collect());
        }
        Value::Object(object)
    }

    /// Whether `address` lies between start and end, be it handed out or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.bounds();
        Family::of(address) == self.family() && (first..=last).contains(&number(address))
    }

    /// Whether `address` may be given to an attachment.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        self.contains(address) && !self.excluded.contains(number(address))
    }

    /// The addresses it hands out up to `last`, ascending: at most the `limit` nearest to it.
    pub fn up_to(&self, last: IpAddr, limit: usize) -> Vec<IpAddr> {
        let (first, _) = self.bounds();
        if !self.contains(last) {
            return Vec::new();
        }
        let candidates = (first..=number(last)).rev().take(limit);
        let mut addresses: Vec<_> = candidates
            .filter(|one| !self.excluded.contains(*one))
            .map(|one| self.family().address(one))
            .collect();
        addresses.reverse();
        addresses
    }

    /// `address` with the subnet's prefix length, as a pod's interface gets it.
    fn with_prefix(&self, address: IpAddr) -> Option<IpNetwork> {
        IpNetwork::new(address, self.subnet.prefix()).ok()
    }

    /// The lowest address that may be handed out and is not in use, where `first_gap` is the first number not in use at or
    /// above one.
    pub(crate) fn first_outside<E>(
        &self,
        first_gap: impl Fn(u128) -> Result<Option<u128>, E>,
    ) -> Result<Option<IpAddr>, E> {
        let (first, last) = self.bounds();
        let mut candidate = first;
        loop {
            let Some(free) = first_gap(candidate)? else { return Ok(None) };
            candidate = match self.excluded.first_gap(free) {
                Some(allowed) if allowed <= last => allowed,
                _ => return Ok(None),
            };
            if candidate == free {
                return Ok(Some(self.family().address(free)));
            }
        }
    }

    fn bounds(&self) -> (u128, u128) {
        (number(self.start), number(self.end))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ((first, last), (other_first, other_last)) = (self.bounds(), other.bounds());
        self.family() == other.family() && first <= other_last && other_first <= last
    }
}

/// `10.1.0.0/16`, or `10.1.0.0/16 from 10.1.2.0 to 10.1.2.99` where it is a part of its subnet.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subnet)?;
        if self.start == first_usable(self.subnet) && self.end == last_usable(self.subnet) {
            return Ok(());
        }
        write!(f, " from {} to {}", self.start, self.end)
    }
}

impl RangeSet {
    /// Checks that the ranges are of one family and do not overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self, Vec<Error>> {
        let Some(first) = ranges.first() else { return Err(vec![Error::Empty]) };
        let strangers = ranges.iter().filter(|range| range.family() != first.family());
        let mixed = strangers.map(|second| Error::MixedFamilies {
            first: first.clone().into(),
            second: second.clone().into(),
        });
        let mistakes: Vec<_> = mixed.chain(overlaps(ranges.iter().collect())).collect();
        if mistakes.is_empty() { Ok(Self(ranges)) } else { Err(mistakes) }
    }

    /// The ranges, in the order they are used.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        self.0.first().map_or(Family::V4, Range::family)
    }

    /// How many addresses the set can hand out.
    pub fn size(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, range| sum.saturating_add(range.size()))
    }

    /// Whether `address` may be given to an attachment.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.hands_out(address))
    }

    /// `address` as a pod's interface gets it, if it lies in one of the ranges.
    pub(crate) fn assign(&self, address: IpAddr) -> Option<Assigned> {
        let range = self.range_of(address)?;
        Some(Assigned { address: range.with_prefix(address)?, gateway: range.gateway() })
    }

    /// The range in which `address` lies.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }
}

/// The ranges, joined by `, `.
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

impl Pool {
    /// Checks that no two sets overlap.
    pub fn new(sets: Vec<RangeSet>) -> Result<Self, Vec<Error>> {
        if sets.is_empty() {
            return Err(vec![Error::Empty]);
        }
        let mistakes = overlaps(sets.iter().flat_map(RangeSet::ranges).collect());
        if mistakes.is_empty() { Ok(Self(sets)) } else { Err(mistakes) }
    }

    /// The sets; an attachment gets one address from each, in this order.
    pub fn sets(&self) -> &[RangeSet] {
        &self.0
    }

    /// The pool as `ipam.ranges` spells it, with all defaults filled in.
    pub fn to_json(&self) -> Value {
        let set = |set: &RangeSet| set.ranges().iter().map(Range::to_json).collect::<Value>();
        self.0.iter().map(set).collect()
    }

    /// All ranges of all sets.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.0.iter().flat_map(RangeSet::ranges)
    }
}

fn misplaced(draft: &Draft) -> Vec<Error> {
    let subnet = draft.subnet;
    let mut mistakes = Vec::new();
    if subnet.ip() != subnet.network() {
        mistakes.push(Error::HostBits { subnet, network: subnet.network() });
    }
    let named = [("rangeStart", draft.start), ("rangeEnd", draft.end), ("gateway", draft.gateway)];
    for (key, address) in named {
        if let Some(address) = address.filter(|address| !may_stand_in(subnet, key, *address)) {
            mistakes.push(Error::Outside { key, address, subnet });
        }
    }
    mistakes.extend(reserved(draft));
    mistakes.extend(impossible_gateway(draft));
    for block in draft.exclude.iter().filter(|block| block.is_ipv4() != subnet.is_ipv4()) {
        mistakes.push(Error::ForeignExclusion { block: *block, subnet });
    }
    mistakes
}

/// The first block with addresses that no pod can have.
fn reserved(draft: &Draft) -> Option<Error> {
    let subnet = draft.subnet;
    let first = draft.start.unwrap_or_else(|| first_usable(subnet));
    let last = draft.end.unwrap_or_else(|| last_usable(subnet));
    nobodys_from(first, last).map(|(block, whose)| Error::Reserved { subnet, block, whose })
}

fn impossible_gateway(draft: &Draft) -> Option<Error> {
    let (subnet, address) = (draft.subnet, draft.gateway?);
    let is_broadcast = subnet.is_ipv4() && subnet.prefix() < 31 && address == subnet.broadcast();
    let whose = nobodys_from(address, address).map(|(_, whose)| whose);
    let whose = whose.or_else(|| is_broadcast.then_some("the subnet's broadcast address"))?;
    Some(Error::NoGateway { address, whose, subnet })
}

/// The first block that shares addresses with these and that the kernel takes for no host's (`ipv4_is_loopback` and the like in
/// `linux/in.h`, RFC 6890).
fn nobodys_from(first: IpAddr, last: IpAddr) -> Option<(IpNetwork, &'static str)> {
    let blocks = [
        ("0.0.0.0/8", "nobody's"),
        ("127.0.0.0/8", "the loopback's"),
        ("224.0.0.0/4", "for multicast"),
        ("255.255.255.255/32", "for broadcast"),
        ("::/127", "the loopback's"),
        ("ff00::/8", "for multicast"),
    ];
    blocks.into_iter().find_map(|(block, whose)| {
        let block: IpNetwork = block.parse().ok()?;
        let is_of_family = [first, last].iter().all(|address| address.is_ipv4() == block.is_ipv4());
        let shares = first <= block.broadcast() && last >= block.network();
        (is_of_family && shares).then_some((block, whose))
    })
}

/// A gateway may lie outside the subnet, as in host-local: on-link routes to such gateways are common with host
/// prefixes, and IPv6 gateways are often link-local. It must still be of the subnet's family.
fn may_stand_in(subnet: IpNetwork, key: &str, address: IpAddr) -> bool {
    match key {
        "gateway" => address.is_ipv4() == subnet.is_ipv4(),
        _ => subnet.contains(address),
    }
}

fn has_own_network_address(subnet: IpNetwork) -> bool {
    subnet.prefix() + 1 < Family::of(subnet.ip()).bits()
}

fn first_usable(subnet: IpNetwork) -> IpAddr {
    let network = number(subnet.network());
    let first = if has_own_network_address(subnet) { network + 1 } else { network };
    Family::of(subnet.ip()).address(first)
}

fn last_usable(subnet: IpNetwork) -> IpAddr {
    let last = number(subnet.broadcast());
    let last = if subnet.is_ipv4() && has_own_network_address(subnet) { last - 1 } else { last };
    Family::of(subnet.ip()).address(last)
}

fn default_gateway(subnet: IpNetwork) -> Option<IpAddr> {
    let is_one_address = subnet.prefix() == Family::of(subnet.ip()).bits();
    (!is_one_address).then(|| first_usable(subnet))
}

fn never_handed_out(subnet: IpNetwork, gateway: Option<IpAddr>, exclude: &[IpNetwork]) -> Spans {
    let mut excluded = Spans::default();
    if has_own_network_address(subnet) {
        excluded.insert(number(subnet.network()));
        if subnet.is_ipv4() {
            excluded.insert(number(subnet.broadcast()));
        }
    }
    if let Some(gateway) = gateway {
        excluded.insert(number(gateway));
    }
    for block in exclude {
        excluded.insert_span(number(block.network()), number(block.broadcast()));
    }
    excluded
}

fn overlaps(ranges: Vec<&Range>) -> Vec<Error> {
    let mut mistakes = Vec::new();
    for (index, second) in ranges.iter().enumerate() {
        for first in ranges.iter().take(index).filter(|first| first.overlaps(second)) {
            mistakes.push(Error::Overlap {
                first: Box::new((*first).clone()),
                second: Box::new((*second).clone()),
            });
        }
    }
    mistakes
}

#[cfg(test)]
mod tests;
