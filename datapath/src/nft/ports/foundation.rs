//! The maps, sets and chains that host ports need, as messages.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::elements::{from_anybody_set, hairpin_set, map};
use super::layout::{Family, base_chain, flush_chain, named_chain, rule, set};
use crate::netlink::{Request, flag};
use crate::nft::expr::{Expressions, Side, Through};
use crate::nft::wire::{self, message};

const PORTS: &str = "ports";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const HAIRPIN: &str = "hairpin";
const LOOPBACK: &str = "loopback";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The types that `nft` prints by (`TYPE_INET_PROTOCOL` and `TYPE_INET_SERVICE` of its `datatype.h`).
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;

/// Everything but the elements. What stands already comes to the same thing.
pub(in crate::nft) fn foundation() -> Vec<Request> {
    let mut requests: Vec<_> = FAMILIES.into_iter().flat_map(sets).collect();
    requests.extend(chains());
    requests.extend([PORTS, PREROUTING, OUTPUT, HAIRPIN, LOOPBACK].map(flush_chain));
    requests.extend(rules());
    requests
}

fn sets(family: Family) -> [Request; 4] {
    // Numbers of their own within the batch; those of the masquerading maps are the lengths of their keys.
    let id = 32 + family.key_length();
    let (address, length) = (family.key_type(), family.key_length());
    let destination = (concat(&[address, INET_SERVICE]), length + 4);
    [
        set(map(family, false), id, (concat(&[INET_PROTO, INET_SERVICE]), 8), Some(destination)),
        set(
            map(family, true),
            id + 1,
            (concat(&[address, INET_PROTO, INET_SERVICE]), length + 8),
            Some(destination),
        ),
        set(hairpin_set(family), id + 2, (concat(&[address, address]), 2 * length), None),
        set(from_anybody_set(family), id + 3, (address, length), None),
    ]
}

/// The number of a type that is made of several (`concat_subtype_add` of nftables' `datatype.h`).
fn concat(types: &[u32]) -> u32 {
    const TYPE_BITS: u32 = 6;
    types.iter().fold(0, |all, kind| (all << TYPE_BITS) | kind)
}

fn chains() -> [Request; 5] {
    const NF_INET_PRE_ROUTING: u32 = 0;
    const NF_INET_LOCAL_OUT: u32 = 3;
    const NF_INET_POST_ROUTING: u32 = 4;
    const NF_IP_PRI_RAW: i32 = -300;
    const NF_IP_PRI_NAT_DST: i32 = -100;
    const NF_IP_PRI_NAT_SRC: i32 = 100;
    let ports = named_chain(PORTS);
    [
        message("create the chain ports", wire::NEWCHAIN, flag::CREATE, ports),
        base_chain(PREROUTING, "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST),
        base_chain(OUTPUT, "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST),
        base_chain(HAIRPIN, "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC),
        base_chain(LOOPBACK, "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW),
    ]
}

fn rules() -> Vec<Request> {
    let new = Expressions::default;
    let lead =
        |family, at_address| rule(PORTS, new().destination_from(family, at_address, map(family, at_address)));
    let to_ports = || new().addressed_here().jump(PORTS);
    let from_loopback =
        |through| new().not_loopback(through).family(Family::V4).within(Side::Source, loopback());
    let to_loopback =
        new().not_loopback(Through::Incoming).family(Family::V4).within(Side::Destination, loopback());
    let mut rules: Vec<_> =
        FAMILIES.into_iter().flat_map(|family| [lead(family, true), lead(family, false)]).collect();
    rules.push(rule(PREROUTING, to_ports()));
    // IPv6 drops what comes from or goes to ::1 over any other link, and has no `route_localnet`.
    rules.push(rule(
        OUTPUT,
        new().family(Family::V6).within(Side::Destination, loopback_v6()).return_to_caller(),
    ));
    rules.push(rule(OUTPUT, to_ports()));
    rules.extend(FAMILIES.into_iter().flat_map(hairpins));
    rules.push(rule(HAIRPIN, from_loopback(Through::Outgoing).masquerade()));
    rules.push(rule(LOOPBACK, from_loopback(Through::Incoming).drop_packet()));
    rules.push(rule(LOOPBACK, to_loopback.drop_packet()));
    rules
}

/// A pod that reaches itself, and one that reaches its neighbour on the same bridge: both would be answered without the
/// node, from an address that they did not ask. That somebody's way to itself is open says that it has ports. Last, a pod
/// that asked not to see anybody's address.
fn hairpins(family: Family) -> [Request; 3] {
    let set = hairpin_set(family);
    let itself = Expressions::default().addresses_in([Side::Source, Side::Destination], family, set);
    let neighbour = Expressions::default().between_bridges().translated().addresses_in(
        [Side::Destination; 2],
        family,
        set,
    );
    let anybody = Expressions::default().translated().destination_in(family, from_anybody_set(family));
    [itself, neighbour, anybody].map(|matching| rule(HAIRPIN, matching.masquerade()))
}

fn loopback() -> IpNetwork {
    IpNetwork::new(IpAddr::from([127, 0, 0, 0]), 8).expect("the prefix is shorter than the address")
}

fn loopback_v6() -> IpNetwork {
    IpNetwork::from(IpAddr::V6(Ipv6Addr::LOCALHOST))
}
