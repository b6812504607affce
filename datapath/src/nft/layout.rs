//! What the table `inet weft` consists of, as messages.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::element::{self, bytes_of, comment, elements_of, owner_of};
use super::expr::{Expressions, Side, jump, octets};
use super::wire::{self, Attributes, message};
use super::{Masquerade, Masqueraded, unmasqueraded};
use crate::netlink::{Object, Purpose, Reply, Request, flag};
use crate::rtnl::wire::ip;

pub(crate) const TABLE: &str = "weft";
const POSTROUTING: &str = "postrouting";

/// An address family of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub(super) const fn nfproto(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(super) const fn key_length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// An address of this family.
    pub(super) fn address(self, bytes: &[u8]) -> Option<IpAddr> {
        ip(bytes).filter(|address| Self::of(*address) == self)
    }

    /// All addresses of this family.
    pub(super) const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    const fn masquerade_map(self) -> &'static str {
        match self {
            Self::V4 => "masquerade4",
            Self::V6 => "masquerade6",
        }
    }

    pub(super) const fn unmasqueraded_set(self) -> &'static str {
        match self {
            Self::V4 => "unmasqueraded4",
            Self::V6 => "unmasqueraded6",
        }
    }

    /// The type that `nft` prints keys by (`TYPE_IPADDR` and `TYPE_IP6ADDR` of its `datatype.h`).
    pub(super) const fn key_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }

    fn multicast(self) -> IpNetwork {
        match self {
            Self::V4 => IpNetwork::new(IpAddr::from([224, 0, 0, 0]), 4),
            Self::V6 => IpNetwork::new(IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
        }
        .expect("the prefixes are shorter than the addresses")
    }
}

/// The table with its maps and its base chain. What stands already stays.
pub(super) fn table() -> Vec<Request> {
    let mut requests = table_of_sets();
    requests.extend([Family::V4, Family::V6].map(masquerade_map));
    requests.push(postrouting_chain());
    requests.push(flush_chain(POSTROUTING));
    requests.extend([Family::V4, Family::V6].map(masquerade_rule));
    requests
}

/// The table, with the sets that are not any pod's.
pub(super) fn table_of_sets() -> Vec<Request> {
    let create = Attributes::default().text(NFTA_TABLE_NAME, TABLE);
    let table = message("create the nftables table weft", wire::NEWTABLE, flag::CREATE, create);
    [table].into_iter().chain([Family::V4, Family::V6].map(unmasqueraded::set)).collect()
}

/// The chain with the exceptions of `element`'s subnet. It is filled anew each time, which is the same each time.
pub(super) fn subnet_chain(element: &Masquerade) -> Vec<Request> {
    let family = Family::of(element.address.ip());
    let chain = chain_of(element.address);
    let exception =
        |network| Expressions::default().family(family).within(Side::Destination, network).return_to_caller();
    let elsewhere = Expressions::default().destination_in(family, family.unmasqueraded_set());
    vec![
        message(format!("create chain {chain}"), wire::NEWCHAIN, flag::CREATE, named_chain(&chain)),
        flush_chain(&chain),
        rule(&chain, exception(element.address)),
        rule(&chain, exception(family.multicast())),
        rule(&chain, elsewhere.return_to_caller()),
        rule(&chain, Expressions::default().masquerade()),
    ]
}

/// Adds `element` to its family's map.
pub(super) fn add_element(element: &Masquerade) -> Request {
    let ip = element.address.ip();
    let attributes = key(ip)
        .nested(element::DATA, jump(&chain_of(element.address)))
        .bytes(element::USERDATA, &comment(&element.owner));
    let doing = Purpose::of("masquerade", ip).and("for", &element.owner);
    message(doing, wire::NEWSETELEM, flag::CREATE | flag::EXCL, in_map(ip, attributes))
}

/// Takes `address` out of its family's map.
pub(super) fn delete_element(address: IpAddr) -> Request {
    message(Purpose::of("stop masquerading", address), wire::DELSETELEM, 0, in_map(address, key(address)))
}

/// Asks whether `address` is in its family's map.
pub(super) fn get_element(address: IpAddr) -> Request {
    let doing = Purpose::of("look up whether", address).and("is masqueraded", Object::Nothing);
    let mut request = message(doing, wire::GETSETELEM, 0, in_map(address, key(address)));
    request.forgiven = &[Errno::ENOENT];
    request
}

/// Asks for all elements of a family's map.
pub(super) fn list_elements(family: Family) -> Request {
    let map = element::all_of(family.masquerade_map());
    let mut request = message("list the masqueraded addresses", wire::GETSETELEM, 0, map);
    request.forgiven = &[Errno::ENOENT];
    request
}

/// The elements in an answer to [`get_element`] or [`list_elements`].
pub(super) fn elements(reply: &Reply, family: Family) -> Vec<Masqueraded> {
    elements_of(reply).filter_map(|element| read_element(element, family)).collect()
}

fn read_element(element: &[u8], family: Family) -> Option<Masqueraded> {
    let address = family.address(bytes_of(element, element::KEY)?)?;
    Some(Masqueraded { address, owner: owner_of(element) })
}

/// Asks whether the table is there.
pub(super) fn get_table() -> Request {
    let name = Attributes::default().text(NFTA_TABLE_NAME, TABLE);
    let mut request = message("look up the nftables table weft", wire::GETTABLE, 0, name);
    request.forgiven = &[Errno::ENOENT];
    request
}

/// Deletes the table, whatever is in it.
pub(super) fn delete_table() -> Request {
    let name = Attributes::default().text(NFTA_TABLE_NAME, TABLE);
    message("delete the nftables table weft", wire::DELTABLE, 0, name)
}

const NFTA_TABLE_NAME: u16 = 1;

fn masquerade_map(family: Family) -> Request {
    const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
    let length = family.key_length();
    // A verdict has the length that the kernel gives it, whatever it is told.
    set(family.masquerade_map(), length, (family.key_type(), length), Some((NFT_DATA_VERDICT, 0)))
}

/// A set, or a map where there is `data`. `id` is its number within the batch. Types come with their lengths in bytes.
pub(super) fn set(name: &str, id: u32, key: (u32, u32), data: Option<(u32, u32)>) -> Request {
    const NFT_SET_MAP: u32 = 0x8;
    set_with(if data.is_some() { NFT_SET_MAP } else { 0 }, name, id, key, data)
}

/// The same with these flags.
pub(super) fn set_with(
    flags: u32,
    name: &str,
    id: u32,
    key: (u32, u32),
    data: Option<(u32, u32)>,
) -> Request {
    const NFTA_SET_TABLE: u16 = 1;
    const NFTA_SET_NAME: u16 = 2;
    const NFTA_SET_FLAGS: u16 = 3;
    const NFTA_SET_KEY_TYPE: u16 = 4;
    const NFTA_SET_KEY_LEN: u16 = 5;
    const NFTA_SET_DATA_TYPE: u16 = 6;
    const NFTA_SET_DATA_LEN: u16 = 7;
    const NFTA_SET_ID: u16 = 10;
    let set = Attributes::default()
        .text(NFTA_SET_TABLE, TABLE)
        .text(NFTA_SET_NAME, name)
        .number(NFTA_SET_FLAGS, flags)
        .number(NFTA_SET_KEY_TYPE, key.0)
        .number(NFTA_SET_KEY_LEN, key.1)
        .number(NFTA_SET_ID, id);
    let set = match data {
        Some((kind, length)) => set.number(NFTA_SET_DATA_TYPE, kind).number(NFTA_SET_DATA_LEN, length),
        None => set,
    };
    message(format!("create the set {name}"), wire::NEWSET, flag::CREATE, set)
}

fn postrouting_chain() -> Request {
    const NF_INET_POST_ROUTING: u32 = 4;
    const NF_IP_PRI_NAT_SRC: i32 = 100;
    base_chain(POSTROUTING, "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC)
}

/// A chain that the kernel sends packets through by itself, and that accepts what no rule decides.
pub(super) fn base_chain(name: &str, kind: &str, hook: u32, priority: i32) -> Request {
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_POLICY: u16 = 5;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_PRIORITY: u16 = 2;
    const NF_ACCEPT: u32 = 1;
    let hook = Attributes::default()
        .number(NFTA_HOOK_HOOKNUM, hook)
        .number(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
    let chain = named_chain(name)
        .nested(NFTA_CHAIN_HOOK, hook)
        .number(NFTA_CHAIN_POLICY, NF_ACCEPT)
        .text(NFTA_CHAIN_TYPE, kind);
    message(format!("create the chain {name}"), wire::NEWCHAIN, flag::CREATE, chain)
}

fn masquerade_rule(family: Family) -> Request {
    let expressions =
        Expressions::default().family(family).verdict_of(Side::Source, family, family.masquerade_map());
    rule(POSTROUTING, expressions)
}

pub(super) fn named_chain(name: &str) -> Attributes {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    Attributes::default().text(NFTA_CHAIN_TABLE, TABLE).text(NFTA_CHAIN_NAME, name)
}

fn in_chain(chain: &str) -> Attributes {
    const NFTA_RULE_TABLE: u16 = 1;
    const NFTA_RULE_CHAIN: u16 = 2;
    Attributes::default().text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, chain)
}

pub(super) fn flush_chain(chain: &str) -> Request {
    message(format!("empty the chain {chain}"), wire::DELRULE, 0, in_chain(chain))
}

pub(super) fn rule(chain: &str, expressions: Expressions) -> Request {
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    let rule = in_chain(chain).nested(NFTA_RULE_EXPRESSIONS, expressions.into_attributes());
    message(format!("add a rule to the chain {chain}"), wire::NEWRULE, flag::CREATE | flag::APPEND, rule)
}

fn in_map(address: IpAddr, element: Attributes) -> Attributes {
    element::one_of(Family::of(address).masquerade_map(), element)
}

fn key(address: IpAddr) -> Attributes {
    element::with_key(&octets(address))
}

/// The name of a subnet's chain. The kernel takes any, but `nft` reads back only what looks like an identifier.
fn chain_of(subnet: IpNetwork) -> String {
    let mut name = "masquerade_".to_owned();
    for octet in octets(subnet.network()) {
        write!(name, "{octet:02x}").expect("writing to a String cannot fail");
    }
    write!(name, "_{}", subnet.prefix()).expect("writing to a String cannot fail");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnets_chain_has_a_name_that_nft_can_read_back() {
        let chain = |text: &str| chain_of(text.parse().unwrap());
        assert_eq!(chain("10.244.0.7/24"), "masquerade_0af40000_24");
        assert_eq!(chain("fd00:10:244::7/64"), "masquerade_fd000010024400000000000000000000_64");
    }
}
