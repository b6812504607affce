//! Links, addresses, neighbours and routes (rtnetlink).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use ipnetwork::IpNetwork;
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::bridge;
use crate::netlink::{Reply, Request, Socket, flag};
use crate::observe::{self, Link};
use crate::rtnl::kind::{
    RTM_DELLINK, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWNEIGH, RTM_NEWROUTE, RTM_SETLINK,
};
use crate::{Error, Interface, Neighbour, NetNs, Observed, Refusal, Route, Shaping, Veth, tc};

/// Message types of `linux/rtnetlink.h`.
///
/// The messages are named one by one, and not through the enumeration of all that `netlink-packet-route` has: that would
/// bring the code for every kind of qdisc, filter and rule into a plugin that is to be small.
pub(crate) mod kind {
    pub(crate) const RTM_NEWLINK: u16 = 16;
    pub(crate) const RTM_DELLINK: u16 = 17;
    pub(crate) const RTM_GETLINK: u16 = 18;
    pub(crate) const RTM_SETLINK: u16 = 19;
    pub(crate) const RTM_NEWADDR: u16 = 20;
    pub(crate) const RTM_DELADDR: u16 = 21;
    pub(crate) const RTM_GETADDR: u16 = 22;
    pub(crate) const RTM_NEWROUTE: u16 = 24;
    pub(crate) const RTM_GETROUTE: u16 = 26;
    pub(crate) const RTM_NEWNEIGH: u16 = 28;
    pub(crate) const RTM_GETNEIGH: u16 = 30;
}

/// An rtnetlink socket. It works in the namespace it was opened in, wherever it is used from.
#[derive(Debug)]
pub struct Rtnl {
    pub(crate) socket: Socket,
}

impl Rtnl {
    /// Opens a socket in the namespace of the calling thread; for another one see [`NetNs::rtnl`].
    ///
    /// # Errors
    /// Where the kernel has no netlink socket to give.
    pub fn open() -> Result<Self, Error> {
        Socket::open(NETLINK_ROUTE).map(|socket| Self { socket })
    }

    /// Makes a pair whose two ends come into being in their own namespaces, named and addressed, in one message:
    /// no end is ever seen under a passing name, and none is moved. Both ends are down.
    ///
    /// # Errors
    /// `EEXIST` where one of the names is taken.
    pub fn create_veth(&self, veth: &Veth, pod: &NetNs) -> Result<(), Error> {
        let mut peer = end(&veth.pod);
        peer.attributes.push(LinkAttribute::NetNsFd(pod.as_fd().as_raw_fd()));
        let mut host = end(&veth.host);
        // A port from its first moment: there is no time in which the end is up and of no bridge.
        let bridge = veth.host.port.as_ref().map(|port| self.bridge_of(port)).transpose()?;
        host.attributes.extend(bridge.map(|link| LinkAttribute::Controller(link.index)));
        host.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let doing = format!("create the pair {} and {}", veth.host.name, veth.pod.name);
        self.socket.carry_out(&[request(doing, RTM_NEWLINK, &host, flag::CREATE | flag::EXCL)])
    }

    /// Brings `interface`, which exists, up with all that it holds, in one batch.
    ///
    /// # Errors
    /// The first thing the kernel refused. What came after it may stand: remove the interface.
    pub fn configure(&self, interface: &Interface) -> Result<(), Error> {
        let name = &interface.name;
        let link = self.link(name)?.ok_or_else(|| Error::new(format!("configure {name}"), Errno::ENODEV))?;
        self.socket.carry_out(&configuration(interface, &link))
    }

    /// Shapes what leaves by the link called `name`, which nobody else does.
    ///
    /// # Errors
    /// `EEXIST` where it has a queueing discipline already, whoever made it.
    pub fn shape(&self, name: &str, shaping: Shaping) -> Result<(), Error> {
        let request = |link: &Link| Request { flags: flag::CREATE | flag::EXCL, ..tc::shape(link, shaping) };
        self.on_link(&format!("shape what leaves by {name}"), name, request)
    }

    /// Takes away what [`Rtnl::shape`] made.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unshape(&self, name: &str) -> Result<(), Error> {
        self.on_link(&format!("end the shaping of {name}"), name, tc::unshape)
    }

    fn on_link(&self, doing: &str, name: &str, request: impl Fn(&Link) -> Request) -> Result<(), Error> {
        let link = self.link(name)?.ok_or_else(|| Error::new(doing, Errno::ENODEV))?;
        self.socket.carry_out(&[request(&link)])
    }

    /// The link called `name`, if there is one.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask_link(format!("look up {name}"), message)
    }

    /// The link with this index, if there is one.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask_link(format!("look up interface {index}"), message)
    }

    /// Removes `link`, and with it, for an end of a pair, the other end. One that is gone already is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_link(&self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let mut delete = request(format!("delete {}", link.name), RTM_DELLINK, &message, 0);
        delete.forgiven = &[Errno::ENODEV];
        self.socket.carry_out(&[delete])
    }

    /// The MTU of the path to `destination` as the routing table has it: the route's own, or its interface's. `None`
    /// where nothing leads there.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn path_mtu(&self, destination: IpAddr) -> Result<Option<u32>, Error> {
        let Some(reply) = self.route_to(destination)? else { return Ok(None) };
        match observe::outgoing(&reply) {
            (Some(mtu), _) => Ok(Some(mtu)),
            (None, Some(index)) => Ok(self.link_by_index(index)?.map(|link| link.mtu)),
            (None, None) => Ok(None),
        }
    }

    /// The link through which packets leave for `destination`; `None` where nothing leads there.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn link_towards(&self, destination: IpAddr) -> Result<Option<Link>, Error> {
        let Some(reply) = self.route_to(destination)? else { return Ok(None) };
        observe::outgoing(&reply).1.map_or(Ok(None), |index| self.link_by_index(index))
    }

    /// Whether `address` is one of this node's own: by the routing table, as the firewall's `fib daddr type local`.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn is_local(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.route_to(address)?.is_some_and(|reply| observe::is_local(&reply)))
    }

    fn route_to(&self, destination: IpAddr) -> Result<Option<Reply>, Error> {
        let mut message = route_message(destination.is_ipv4());
        message.header.destination_prefix_length = full(destination);
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let mut get = request(format!("look up the route to {destination}"), RTM_GETROUTE, &message, 0);
        get.forgiven = UNREACHABLE;
        self.socket.get(&get)
    }

    /// All links, addresses, neighbours, routes and token buckets. Not for the hot path: its cost grows with the node.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn observe(&self) -> Result<Observed, Error> {
        let dump = |what: &str, request: Request| {
            self.socket.dump(&Request { doing: format!("list the {what}"), ..request })
        };
        Ok(Observed::from_replies(&[
            dump("links", request(String::new(), RTM_GETLINK, &LinkMessage::default(), 0))?,
            dump("addresses", request(String::new(), RTM_GETADDR, &AddressMessage::default(), 0))?,
            dump("neighbours", request(String::new(), RTM_GETNEIGH, &NeighbourMessage::default(), 0))?,
            dump("routes", request(String::new(), RTM_GETROUTE, &RouteMessage::default(), 0))?,
            dump("qdiscs", tc::list())?,
        ]))
    }

    fn ask_link(&self, doing: String, message: LinkMessage) -> Result<Option<Link>, Error> {
        let mut get = request(doing.clone(), RTM_GETLINK, &message, 0);
        get.forgiven = &[Errno::ENODEV];
        let Some(reply) = self.socket.get(&get)? else { return Ok(None) };
        let unreadable =
            Refusal { errno: Errno::EBADMSG, explanation: Some("the answer is no link".to_owned()) };
        observe::link(&reply).map(Some).ok_or_else(|| Error::new(doing, unreadable))
    }
}

/// How the kernel says that no route leads somewhere.
pub(crate) const UNREACHABLE: &[Errno] =
    &[Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::EAFNOSUPPORT];

/// One end of a pair, as it is when it comes into being.
fn end(interface: &Interface) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(interface.name.clone()));
    message.attributes.extend(interface.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.extend(interface.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(interface.group.map(LinkAttribute::Group));
    message
}

/// Everything that makes `interface` what it is to be, in the order in which the kernel accepts it.
fn configuration(interface: &Interface, link: &Link) -> Vec<Request> {
    let (name, index) = (&interface.name, link.index);
    let mut requests = Vec::new();
    if !interface.link_local {
        requests.push(without_link_local(name, index));
    }
    requests.extend(interface.shaping.map(|shaping| tc::shape(link, shaping)));
    requests.extend(interface.port.iter().flat_map(|port| bridge::port(name, index, port)));
    requests.push(up(interface, link));
    requests.extend(interface.addresses.iter().map(|address| add_address(name, index, *address)));
    requests.extend(interface.neighbours.iter().map(|neighbour| add_neighbour(name, index, neighbour)));
    requests.extend(interface.routes.iter().map(|route| add_route(name, index, route)));
    requests
}

/// The link-local address is made when the interface comes up, so this comes before.
fn without_link_local(name: &str, index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![mode]));
    let doing = format!("turn off link-local addresses on {name}");
    let mut request = request(doing, RTM_SETLINK, &message, 0);
    // A kernel or an interface without IPv6 makes no link-local address anyway.
    request.forgiven = &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
    request
}

/// The group of every link that nobody has put into another.
const DEFAULT_GROUP: u32 = 0;

/// The alias comes along here because the kernel ignores one in the message that makes a link: `rtnl_create_link` in
/// `net/core/rtnetlink.c` reads `IFLA_ADDRESS`, `IFLA_MTU` and `IFLA_GROUP`, but only `do_setlink` reads `IFLA_IFALIAS`.
fn up(interface: &Interface, link: &Link) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    // The kernel tells the neighbours of an address that is set, even where it stays the same.
    let mac = interface.mac.filter(|mac| Some(*mac) != link.mac);
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    message.attributes.extend(interface.mtu.filter(|mtu| *mtu != link.mtu).map(LinkAttribute::Mtu));
    message.attributes.extend(interface.alias.clone().map(LinkAttribute::IfAlias));
    message.attributes.extend(interface.group.map(|_until_now| LinkAttribute::Group(DEFAULT_GROUP)));
    message.attributes.extend(interface.tx_queue_len.map(LinkAttribute::TxQueueLen));
    let asked = [
        (LinkFlags::Up, interface.up.then_some(true)),
        (LinkFlags::Promisc, interface.promisc),
        (LinkFlags::Allmulti, interface.allmulti),
    ];
    for (flag, on) in asked {
        message.header.change_mask.set(flag, on.is_some());
        message.header.flags.set(flag, on == Some(true));
    }
    let doing = if interface.up { "bring up" } else { "set the attributes of" };
    request(format!("{doing} {}", interface.name), RTM_SETLINK, &message, 0)
}

fn add_address(name: &str, index: u32, address: IpNetwork) -> Request {
    // IPAM has settled who owns the address, so nobody waits to detect a duplicate; IPv4 ignores the flag.
    let flags = AddressFlags::Noprefixroute | AddressFlags::Nodad | AddressFlags::Permanent;
    let doing = format!("add address {address} to {name}");
    request(doing, RTM_NEWADDR, &address_message(index, address, flags), flag::CREATE | flag::EXCL)
}

pub(crate) fn address_message(index: u32, address: IpNetwork, flags: AddressFlags) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.is_ipv4());
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn add_neighbour(name: &str, index: u32, neighbour: &Neighbour) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour.ip.is_ipv4());
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(match neighbour.ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.octets().to_vec()));
    let doing = format!("add neighbour {} to {name}", neighbour.ip);
    request(doing, RTM_NEWNEIGH, &message, flag::CREATE | flag::REPLACE)
}

fn add_route(name: &str, index: u32, route: &Route) -> Request {
    let mut message = route_message(route.dst.is_ipv4());
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.gateway) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, None) => RouteScope::Link,
        (None, Some(_)) => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    if route.dst.prefix() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    attributes.push(RouteAttribute::Oif(index));
    attributes.push(RouteAttribute::Table(route.table.unwrap_or(u32::from(RouteHeader::RT_TABLE_MAIN))));
    attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<_> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    let doing = format!("add route {} through {name}", route.dst);
    // Two networks of a pod may both lead to the outside: of IPv4 the first goes on to do so, of IPv6 the kernel takes one by
    // turns. What is on a link is there alone.
    let beside = if route.gateway.is_some() { flag::APPEND } else { flag::EXCL };
    request(doing, RTM_NEWROUTE, &message, flag::CREATE | beside)
}

pub(crate) fn route_message(is_v4: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(is_v4);
    message
}

pub(crate) fn family(is_v4: bool) -> AddressFamily {
    if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(crate) const fn full(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS as u8,
        IpAddr::V6(_) => Ipv6Addr::BITS as u8,
    }
}

pub(crate) fn request(doing: String, kind: u16, message: &impl Emitable, flags: u16) -> Request {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    Request { doing, kind, flags, body, forgiven: &[] }
}
