//! Bridges and their ports (rtnetlink).
//!
//! A bridge is shared: any number of processes make sure of the same one at once, and nobody removes it. So every step
//! is one that may have been taken already.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::netlink::{Attributes, Object, Purpose, Request, flag};
use crate::observe::{self, Link, Observed};
use crate::rtnl::wire::*;
use crate::rtnl::{address_message, get_route, with_mac};
use crate::{Error, Mac, Refusal, Rtnl, sysctl};

/// A bridge that pods share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// Its MTU in bytes, where it has to be made.
    pub mtu: u32,
    /// Whether it takes in what is addressed to others.
    pub promiscuous: bool,
    /// Whether it filters by VLAN.
    pub vlan_filtering: bool,
    /// The addresses that it is to have, each with a route for its prefix.
    pub addresses: Vec<IpNetwork>,
    /// Whether another address in the subnet of one of these gives way; else it is an error.
    pub replace_addresses: bool,
}

/// What an interface is on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The bridge's name.
    pub bridge: String,
    /// Whether what came from the port may go back through it.
    pub hairpin: bool,
    /// Whether it is kept apart from other such ports.
    pub isolated: bool,
    /// The VLAN of packets without a tag, which leave without one.
    pub vlan: Option<u16>,
    /// VLANs whose packets keep their tag.
    pub trunk: Vec<RangeInclusive<u16>>,
    /// Whether it stays in the VLAN 1, where every port begins.
    pub default_vlan: bool,
}

impl Rtnl {
    /// Makes sure that `bridge` is there, up, and has its addresses. What there is beside them stays.
    ///
    /// Where everything is as it should be this is one look at the link and two at the routes for each address.
    ///
    /// # Errors
    /// Where something else has the name (`EEXIST`), a subnet is taken by another address (`EADDRINUSE`), or the
    /// bridge cannot filter by VLAN (`EOPNOTSUPP`).
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<Link, Error> {
        let link = match self.link(&bridge.name)? {
            Some(link) => link,
            None => self.create_bridge(bridge)?,
        };
        usable(bridge, &link)?;
        if !link.up {
            // A bridge that a router could give addresses and routes to would be the pods' way into the node's table.
            refuse_advertisements(&bridge.name)?;
        }
        if !link.up || bridge.promiscuous && !link.promisc {
            self.socket.carry_out(&[up(bridge, &link)])?;
        }
        for address in &bridge.addresses {
            if !self.has_subnet(&link, *address)? {
                self.add_gateway(bridge, &link, *address)?;
            }
        }
        Ok(link)
    }

    /// Tells the neighbours of `link`, which is up, where its addresses are now. Those who knew another hardware
    /// address for one of them would send to it until they notice, which takes half a minute.
    ///
    /// The kernel announces all addresses (`arp_notify`, `ndisc_notify`) when a hardware address is set, even where it
    /// stays the same (`netif_set_mac_address` in `net/core/dev.c`), unlike when an address is added.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn announce(&self, link: &Link) -> Result<(), Error> {
        self.socket.carry_out(&[set_mac(Purpose::of("announce the addresses of", &link.name), link)])
    }

    /// The bridge that `port` is of.
    pub(crate) fn bridge_of(&self, port: &Port) -> Result<Link, Error> {
        let gone = || Error::new(format!("make a port of {}", port.bridge), Errno::ENODEV);
        self.link(&port.bridge)?.ok_or_else(gone)
    }

    fn create_bridge(&self, bridge: &Bridge) -> Result<Link, Error> {
        let doing = format!("create the bridge {}", bridge.name);
        let mut create = request(doing.clone(), RTM_NEWLINK, new_bridge(bridge), flag::CREATE | flag::EXCL);
        // Somebody else has just made it.
        create.forgiven = &[Errno::EEXIST];
        match self.socket.carry_out(&[create]) {
            Err(e) if bridge.vlan_filtering && e.errno() == Errno::EOPNOTSUPP => Err(cannot_filter(bridge)),
            answer => answer,
        }?;
        self.link(&bridge.name)?.ok_or_else(|| Error::new(doing, Errno::ENODEV))
    }

    /// Whether the node reaches the subnet of `address` through `link`, and holds the address: asked of the routing
    /// table, because that looks up one entry, and addresses could only be listed.
    fn has_subnet(&self, link: &Link, address: IpNetwork) -> Result<bool, Error> {
        let own = self.entry_for(address.ip())?.map(|(_, dst)| dst);
        let Some(other) = another_of(address).filter(|_| own == Some(IpNetwork::from(address.ip()))) else {
            return Ok(false);
        };
        Ok(self.entry_for(other)? == Some((link.index, network_of(address))))
    }

    /// The entry of the routing table that decides on `destination`.
    fn entry_for(&self, destination: IpAddr) -> Result<Option<(u32, IpNetwork)>, Error> {
        let get = get_route(destination, RTM_F_FIB_MATCH);
        Ok(self.socket.get(&get)?.as_ref().and_then(observe::matched))
    }

    /// Once in the bridge's life: its addresses are listed, then the missing one is added.
    fn add_gateway(&self, bridge: &Bridge, link: &Link, address: IpNetwork) -> Result<(), Error> {
        let doing = format!("list the addresses of {}", bridge.name);
        let dump = self.socket.dump(&request(doing, RTM_GETADDR, AddressHeader::default().message(), 0))?;
        let all = Observed::from_replies(&[dump]).addresses;
        let others = all.iter().filter(|(index, _)| *index == link.index).map(|(_, other)| *other);
        let rivals = rivals(address, others);
        if let Some(rival) = rivals.first().filter(|_| !bridge.replace_addresses) {
            return Err(taken(bridge, address, *rival));
        }
        let mut requests: Vec<_> = rivals.iter().map(|rival| remove_address(bridge, link, *rival)).collect();
        // One that the kernel chose changes as ports come and go, and with it the address that pods know.
        requests.push(set_mac(Purpose::of("keep the hardware address of", &bridge.name), link));
        requests.push(add_address(bridge, link, address));
        self.socket.carry_out(&requests)
    }
}

/// What makes the interface with `index` the `port` that it is to be; it is one of the bridge already.
pub(crate) fn port(name: &str, index: u32, port: &Port) -> Vec<Request> {
    let flags = [(IFLA_BRPORT_MODE, port.hairpin), (IFLA_BRPORT_ISOLATED, port.isolated)];
    let set = flags.iter().filter(|(_, is_set)| *is_set);
    let set = set.fold(Attributes::default(), |set, (kind, _)| set.bytes(*kind, &[1]));
    let doing = |what| Purpose::of(what, name).and("on", &port.bridge);
    let mut requests = Vec::new();
    if !set.is_empty() {
        let message = of_port(index).nested(IFLA_PROTINFO, set);
        requests.push(request(doing("set the options of"), RTM_SETLINK, message, 0));
    }
    let vlans = vlans(port);
    if !vlans.is_empty() {
        let message = with_vlans(of_port(index), &vlans);
        requests.push(request(doing("set the VLANs of"), RTM_SETLINK, message, 0));
    }
    if !port.default_vlan {
        let message = with_vlans(of_port(index), &[Vlan { flags: 0, id: 1 }]);
        requests.push(request(doing("take VLAN 1 from"), RTM_DELLINK, message, 0));
    }
    requests
}

/// `struct bridge_vlan_info` of `linux/if_bridge.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vlan {
    flags: u16,
    id: u16,
}

impl Vlan {
    /// What comes without a tag is of this one.
    const PVID: u16 = 1 << 1;
    const UNTAGGED: u16 = 1 << 2;
    const RANGE_BEGIN: u16 = 1 << 3;
    const RANGE_END: u16 = 1 << 4;
}

fn vlans(port: &Port) -> Vec<Vlan> {
    let own = port.vlan.map(|id| Vlan { flags: Vlan::PVID | Vlan::UNTAGGED, id });
    let tagged = port.trunk.iter().flat_map(|range| match range.clone().count() {
        1 => vec![Vlan { flags: 0, id: *range.start() }],
        _ => vec![
            Vlan { flags: Vlan::RANGE_BEGIN, id: *range.start() },
            Vlan { flags: Vlan::RANGE_END, id: *range.end() },
        ],
    });
    tagged.chain(own).collect()
}

fn with_vlans(message: Attributes, vlans: &[Vlan]) -> Attributes {
    let list = vlans.iter().fold(Attributes::default(), |list, Vlan { flags, id }| {
        list.bytes(IFLA_BRIDGE_VLAN_INFO, [flags.to_ne_bytes(), id.to_ne_bytes()].as_flattened())
    });
    message.nested(IFLA_AF_SPEC, list)
}

fn of_port(index: u32) -> Attributes {
    LinkHeader { family: AF_BRIDGE, ..LinkHeader::of(index) }.message()
}

fn new_bridge(bridge: &Bridge) -> Attributes {
    let filtering = bridge.vlan_filtering.then_some([1]);
    let data = Attributes::default().with(filtering, |data, on| data.bytes(IFLA_BR_VLAN_FILTERING, &on));
    let info = Attributes::default().text(IFLA_INFO_KIND, "bridge").nested(IFLA_INFO_DATA, data);
    let message = LinkHeader::default().message().text(IFLA_IFNAME, &bridge.name);
    // Left alone, a bridge has the lowest address of its ports, another one with each that comes or goes.
    with_mac(message, Mac::random()).native(IFLA_MTU, bridge.mtu).nested(IFLA_LINKINFO, info)
}

fn usable(bridge: &Bridge, link: &Link) -> Result<(), Error> {
    let refused = |errno, words: &str| {
        let refusal = Refusal { errno, explanation: Some(words.to_owned()) };
        Err(Error::new(format!("use {} as a bridge", bridge.name), refusal))
    };
    match link.kind.as_deref() {
        Some("bridge") if bridge.vlan_filtering && !link.vlan_filtering => {
            let words = "it exists and does not filter by VLAN: set vlan_filtering on it, if the kernel can";
            refused(Errno::EEXIST, words)
        }
        Some("bridge") => Ok(()),
        kind => {
            let kind = kind.unwrap_or("device");
            refused(Errno::EEXIST, &format!("it exists and is no bridge, but a {kind}"))
        }
    }
}

fn cannot_filter(bridge: &Bridge) -> Error {
    let words = "this kernel was built without CONFIG_BRIDGE_VLAN_FILTERING";
    let refusal = Refusal { errno: Errno::EOPNOTSUPP, explanation: Some(words.to_owned()) };
    Error::new(format!("let {} filter by VLAN", bridge.name), refusal)
}

fn taken(bridge: &Bridge, address: IpNetwork, rival: IpNetwork) -> Error {
    let words = format!("it has {rival} already; forceAddress would replace that");
    let refusal = Refusal { errno: Errno::EADDRINUSE, explanation: Some(words) };
    Error::new(format!("add address {address} to {}", bridge.name), refusal)
}

/// The addresses among `others` that cannot stand beside `address`: those that share its subnet.
fn rivals(address: IpNetwork, others: impl Iterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    let overlaps = |other: &IpNetwork| {
        address.is_ipv4() == other.is_ipv4() && (address.contains(other.ip()) || other.contains(address.ip()))
    };
    others.filter(|other| *other != address && overlaps(other)).collect()
}

fn refuse_advertisements(name: &str) -> Result<(), Error> {
    let path = ["ipv6", "conf", name, "accept_ra"];
    match sysctl::get(&path)? {
        // A kernel without IPv6.
        None => Ok(()),
        Some(_) => sysctl::set(&path, "0"),
    }
}

fn up(bridge: &Bridge, link: &Link) -> Request {
    let flags = if bridge.promiscuous { IFF_UP | IFF_PROMISC } else { IFF_UP };
    let header = LinkHeader { flags, change: flags, ..LinkHeader::of(link.index) };
    request(Purpose::of("bring", &bridge.name).and("up", Object::Nothing), RTM_SETLINK, header.message(), 0)
}

fn set_mac(doing: Purpose, link: &Link) -> Request {
    request(doing, RTM_SETLINK, LinkHeader::of(link.index).message().with(link.mac, with_mac), 0)
}

fn add_address(bridge: &Bridge, link: &Link, address: IpNetwork) -> Request {
    let doing = format!("add address {address} to {}", bridge.name);
    let message = address_message(link.index, address, IFA_F_NODAD | IFA_F_PERMANENT);
    let mut request = request(doing, RTM_NEWADDR, message, flag::CREATE | flag::EXCL);
    request.forgiven = &[Errno::EEXIST];
    request
}

fn remove_address(bridge: &Bridge, link: &Link, address: IpNetwork) -> Request {
    let doing = format!("remove address {address} from {}", bridge.name);
    let message = address_message(link.index, address, 0);
    let mut request = request(doing, RTM_DELADDR, message, 0);
    request.forgiven = &[Errno::EADDRNOTAVAIL];
    request
}

/// An address of the same subnet that routes as any other there: neither `address` itself, nor the first or the last,
/// which are broadcast addresses.
fn another_of(address: IpNetwork) -> Option<IpAddr> {
    let unlike = |offset: u8| match (address.network(), offset) {
        (IpAddr::V4(ip), _) => u32::from(ip).checked_add(offset.into()).map(|ip| IpAddr::V4(ip.into())),
        (IpAddr::V6(ip), _) => u128::from(ip).checked_add(offset.into()).map(|ip| IpAddr::V6(ip.into())),
    };
    let inner = |ip: &IpAddr| *ip != address.ip() && *ip != address.broadcast() && address.contains(*ip);
    [1, 2].into_iter().filter_map(unlike).find(inner)
}

fn network_of(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_rivals_where_their_subnets_meet() {
        let others = ["10.1.0.9/24", "10.2.0.1/24", "10.0.0.1/8", "10.1.0.1/24", "fd00::1/64"].map(network);
        let rivals = rivals(network("10.1.0.1/24"), others.into_iter());
        assert_eq!(rivals, [network("10.1.0.9/24"), network("10.0.0.1/8")]);
    }

    #[test]
    fn a_subnet_is_probed_with_an_address_that_is_neither_its_gateway_nor_broadcast() {
        for (gateway, other) in [
            ("10.1.0.1/24", Some("10.1.0.2")),
            ("10.1.0.9/24", Some("10.1.0.1")),
            ("fd00::1/64", Some("fd00::2")),
            ("10.1.0.1/32", None),
        ] {
            assert_eq!(another_of(network(gateway)), other.map(|ip| ip.parse().unwrap()), "{gateway}");
        }
    }

    #[test]
    fn a_trunk_is_ranges_and_the_ports_own_vlan_comes_untagged() {
        let port = Port {
            bridge: "cni0".to_owned(),
            hairpin: false,
            isolated: false,
            vlan: Some(100),
            trunk: vec![7..=7, 10..=20],
            default_vlan: true,
        };
        let found: Vec<_> = vlans(&port).iter().map(|vlan| (vlan.flags, vlan.id)).collect();
        assert_eq!(found, [(0, 7), (8, 10), (16, 20), (6, 100)]);
    }
}
