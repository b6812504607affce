//! Links, addresses, neighbours and routes (rtnetlink).

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnetwork::IpNetwork;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::bridge;
use crate::netlink::{Attributes, Object, Purpose, Reply, Request, Socket, flag};
use crate::observe::{self, Link};
use crate::{
    Error, Interface, LinkLocal, Mac, Neighbour, NetNs, Observed, Refusal, Route, Shaping, Veth, tc,
};

pub(crate) mod wire;

use wire::*;

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
    /// no end is ever seen under a passing name, and none is moved. Both ends are down. Gives what they are now.
    ///
    /// # Errors
    /// `EEXIST` where one of the names is taken.
    pub fn create_veth(&self, veth: &Veth, pod: &NetNs) -> Result<Ends, Error> {
        // A port from its first moment: there is no time in which the end is up and of no bridge.
        let bridge = veth.host.port.as_ref().map(|port| self.bridge_of(port)).transpose()?;
        let peer = end(&veth.pod).native(IFLA_NET_NS_FD, pod.as_fd().as_raw_fd().cast_unsigned());
        // The peer begins with a header of its own, so it is no attribute that is nested.
        let data = Attributes::default().bytes(VETH_INFO_PEER, peer.as_bytes());
        let info = Attributes::default().text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, data);
        let message = end(&veth.host)
            .with(bridge, |message, link| message.native(IFLA_MASTER, link.index))
            .nested(IFLA_LINKINFO, info);
        let doing = Purpose::of("create the pair", &veth.host.name).and("and", &veth.pod.name);
        let create = request(doing, RTM_NEWLINK, message, flag::CREATE | flag::EXCL);
        let look = get_link(&veth.host.name);
        let host = read_link(&look, self.socket.carry_out_and_get(&[create], &look)?)?;
        let gone = || Error::new(&look.doing, Errno::ENODEV);
        host.and_then(|host| Ends::of(veth, host)).ok_or_else(gone)
    }

    /// Brings `interface`, which exists, up with all that it holds, in one batch.
    ///
    /// # Errors
    /// The first thing the kernel refused. What came after it may stand: remove the interface.
    pub fn configure(&self, interface: &Interface) -> Result<(), Error> {
        let name = &interface.name;
        let link = self.link(name)?.ok_or_else(|| Error::new(format!("configure {name}"), Errno::ENODEV))?;
        self.configure_link(interface, &link)
    }

    /// [`Rtnl::configure`], where it is known what `link` the interface is.
    ///
    /// # Errors
    /// The first thing the kernel refused. What came after it may stand: remove the interface.
    pub fn configure_link(&self, interface: &Interface, link: &Link) -> Result<(), Error> {
        self.socket.carry_out(&configuration(interface, link))
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
        self.ask_link(get_link(name))
    }

    /// The link with this index, if there is one.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        self.ask_link(get_link_by_index(index))
    }

    /// Removes `link`, and with it, for an end of a pair, the other end. One that is gone already is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_link(&self, link: &Link) -> Result<(), Error> {
        let message = LinkHeader::of(link.index).message();
        let mut delete = request(Purpose::of("delete", &link.name), RTM_DELLINK, message, 0);
        delete.forgiven = &[Errno::ENODEV];
        self.socket.carry_out(&[delete])
    }

    /// Whether packets of each family, IPv4 where it is `true`, are passed on from one link to another: `false` also where the kernel
    /// does not tell. A file of `/proc/sys` says the same, and opening one takes as long as ten answers.
    ///
    /// # Errors
    /// Where the kernel gives no answer.
    pub fn forwards(&self, families: &[bool]) -> Result<Vec<bool>, Error> {
        let asked: Vec<_> = families.iter().map(|is_v4| get_configuration(*is_v4)).collect();
        let answers = self.socket.get_each(&asked)?;
        Ok(answers.iter().map(|answer| answer.as_ref().is_some_and(observe::is_forwarding)).collect())
    }

    /// The link through which packets leave for `destination`; `None` where nothing leads there.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn link_towards(&self, destination: IpAddr) -> Result<Option<Link>, Error> {
        let Some(reply) = self.route_to(destination)? else { return Ok(None) };
        observe::outgoing(&reply).1.first().map_or(Ok(None), |index| self.link_by_index(*index))
    }

    /// Whether `address` is one of this node's own: by the routing table, as the firewall's `fib daddr type local`.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn is_local(&self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.route_to(address)?.is_some_and(|reply| observe::is_local(&reply)))
    }

    fn route_to(&self, destination: IpAddr) -> Result<Option<Reply>, Error> {
        self.socket.get(&get_route(destination, 0))
    }

    /// All links, addresses, neighbours, routes and token buckets. Not for the hot path: its cost grows with the node.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn observe(&self) -> Result<Observed, Error> {
        let dump = |what: &str, request: Request| {
            self.socket.dump(&Request { doing: Purpose::of("list the", what), ..request })
        };
        let of_all = |kind, message| request("", kind, message, 0);
        Ok(Observed::from_replies(&[
            dump("links", of_all(RTM_GETLINK, LinkHeader::default().message()))?,
            dump("addresses", of_all(RTM_GETADDR, AddressHeader::default().message()))?,
            dump("neighbours", of_all(RTM_GETNEIGH, NeighbourHeader::default().message()))?,
            dump("routes", of_all(RTM_GETROUTE, RouteHeader::default().message()))?,
            dump("qdiscs", tc::list())?,
        ]))
    }

    fn ask_link(&self, get: Request) -> Result<Option<Link>, Error> {
        let reply = self.socket.get(&get)?;
        read_link(&get, reply)
    }
}

/// The two ends of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The end on the node.
    pub host: Link,
    /// The end in the pod.
    pub pod: Link,
}

impl Ends {
    /// The kernel tells of one end, and which number the other has in its namespace. All else of that is as it was asked
    /// for, or as it is of every new pair.
    fn of(veth: &Veth, host: Link) -> Option<Self> {
        let Interface { name, mac, mtu, group, .. } = &veth.pod;
        let pod = Link {
            index: host.peer?,
            name: name.clone(),
            mac: *mac,
            mtu: mtu.unwrap_or(ETH_DATA_LEN),
            group: group.unwrap_or(DEFAULT_GROUP),
            tx_queue_len: host.tx_queue_len,
            peer: Some(host.index),
            kind: host.kind.clone(),
            ..Link::default()
        };
        Some(Self { host, pod })
    }
}

/// The MTU of a link that is made without one (`linux/if_ether.h`).
const ETH_DATA_LEN: u32 = 1500;

pub(crate) fn get_link(name: &str) -> Request {
    get_link_of(Purpose::of("look up", name), LinkHeader::default().message().text(IFLA_IFNAME, name))
}

pub(crate) fn get_link_by_index(index: u32) -> Request {
    get_link_of(Purpose::of("look up", Object::Index(index)), LinkHeader::of(index).message())
}

/// Nobody asks for the counters, which are half of the answer.
fn get_link_of(doing: Purpose, message: Attributes) -> Request {
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let message = message.native(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    Request { forgiven: &[Errno::ENODEV], ..request(doing, RTM_GETLINK, message, 0) }
}

fn read_link(asked: &Request, reply: Option<Reply>) -> Result<Option<Link>, Error> {
    let Some(reply) = reply else { return Ok(None) };
    let words = || Some("the answer is no link".to_owned());
    let unreadable = || Refusal { errno: Errno::EBADMSG, explanation: words() };
    observe::link(&reply).map(Some).ok_or_else(|| Error::new(&asked.doing, unreadable()))
}

/// Asks for the route to `destination`.
pub(crate) fn get_route(destination: IpAddr, flags: u32) -> Request {
    let header = RouteHeader {
        family: family_of(destination),
        prefix: IpNetwork::from(destination).prefix(),
        flags,
        ..RouteHeader::default()
    };
    let message = header.message().ip(RTA_DST, destination);
    let get = request(Purpose::of("look up the route to", destination), RTM_GETROUTE, message, 0);
    Request { forgiven: UNREACHABLE, ..get }
}

/// Asks for what holds for all links of the namespace.
fn get_configuration(is_v4: bool) -> Request {
    let family = if is_v4 { AF_INET } else { AF_INET6 };
    // `struct netconfmsg`, which is a byte.
    let message =
        Attributes::behind(&[family, 0, 0, 0]).native(NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL.cast_unsigned());
    let doing = Purpose::of("ask whether packets are forwarded", "");
    // A kernel without the family, or one that is too old for the question.
    let forgiven = &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL];
    Request { forgiven, ..request(doing, RTM_GETNETCONF, message, 0) }
}

/// How the kernel says that no route leads somewhere.
pub(crate) const UNREACHABLE: &[Errno] =
    &[Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::EAFNOSUPPORT];

/// One end of a pair, as it is when it comes into being.
///
/// It uses one queue each way in any case (`veth_init_queues` in `drivers/net/veth.c`). Where nothing is said, the kernel first
/// makes as many as there are processors, and then takes away all but one: with that it waits until no processor sends by them any
/// more, once for each end, which was a fourth of the time that a pair took.
fn end(interface: &Interface) -> Attributes {
    LinkHeader::default()
        .message()
        .text(IFLA_IFNAME, &interface.name)
        .with(interface.mac, with_mac)
        .with(interface.mtu, |message, mtu| message.native(IFLA_MTU, mtu))
        .with(interface.group, |message, group| message.native(IFLA_GROUP, group))
        .native(IFLA_NUM_TX_QUEUES, 1)
        .native(IFLA_NUM_RX_QUEUES, 1)
}

pub(crate) fn with_mac(message: Attributes, mac: Mac) -> Attributes {
    message.bytes(IFLA_ADDRESS, &mac.octets())
}

/// Everything that makes `interface` what it is to be, in the order in which the kernel accepts it.
fn configuration(interface: &Interface, link: &Link) -> Vec<Request> {
    let (name, index) = (&interface.name, link.index);
    let own = interface.mac.or(link.mac).filter(|_| interface.link_local == LinkLocal::AtOnce);
    let mut requests = Vec::new();
    if own.is_some() || interface.link_local == LinkLocal::None {
        requests.push(without_link_local(name, index));
    }
    requests.extend(interface.shaping.map(|shaping| tc::shape(link, shaping)));
    requests.extend(interface.port.iter().flat_map(|port| bridge::port(name, index, port)));
    requests.extend(attributes(interface, link));
    requests.extend(flags(interface, link));
    requests.extend(own.map(|mac| add_link_local(name, index, mac)));
    requests.extend(interface.addresses.iter().map(|address| add_address(name, index, *address)));
    requests.extend(interface.neighbours.iter().map(|neighbour| add_neighbour(name, index, neighbour)));
    requests.extend(interface.routes.iter().map(|route| add_route(name, index, route)));
    requests
}

/// The kernel makes the link-local address when the interface comes up, or when it takes note of the carrier a moment later, so this
/// comes before and stays.
fn without_link_local(name: &str, index: u32) -> Request {
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    let mode = Attributes::default().bytes(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let spec = Attributes::default().nested(AF_INET6.into(), mode);
    let message = LinkHeader::of(index).message().nested(IFLA_AF_SPEC, spec);
    let doing = Purpose::of("turn off link-local addresses on", name);
    // A kernel or an interface without IPv6 makes no link-local address anyway.
    let forgiven = &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
    Request { forgiven, ..request(doing, RTM_SETLINK, message, 0) }
}

/// The address that the kernel would have made, without looking for a duplicate: the two ends of a pair are alone on their link. That
/// could be said in `accept_dad` too, but to open a file below `/proc/sys/net/ipv6` in a pod takes the kernel the longer the more pods
/// there are (`sysctl`).
///
/// It brings the route for its prefix, as the kernel's own does. An interface that was up before may have it.
fn add_link_local(name: &str, index: u32, mac: Mac) -> Request {
    let address = IpNetwork::new(mac.link_local().into(), 64).expect("a prefix of 64 bits is one of IPv6");
    let doing = Purpose::of("add address", address).and("to", name);
    let message = address_message(index, address, IFA_F_NODAD | IFA_F_PERMANENT);
    Request { forgiven: &[Errno::EEXIST], ..request(doing, RTM_NEWADDR, message, flag::CREATE | flag::EXCL) }
}

/// The group of every link that nobody has put into another.
const DEFAULT_GROUP: u32 = 0;

/// What it is besides up. The alias comes along here because the kernel ignores one in the message that makes a link:
/// `rtnl_create_link` in `net/core/rtnetlink.c` reads `IFLA_ADDRESS`, `IFLA_MTU` and `IFLA_GROUP`, but only `do_setlink` reads
/// `IFLA_IFALIAS`.
///
/// A message of its own, before: of attributes of a link that is up the kernel tells everybody, and where there is no carrier yet IPv6 goes
/// through all its routes for that (`rt6_sync_down_dev`).
fn attributes(interface: &Interface, link: &Link) -> Option<Request> {
    let none = LinkHeader::of(link.index).message();
    let message = LinkHeader::of(link.index)
        .message()
        // The kernel tells the neighbours of an address that is set, even where it stays the same.
        .with(interface.mac.filter(|mac| Some(*mac) != link.mac), with_mac)
        .with(interface.mtu.filter(|mtu| *mtu != link.mtu), |message, mtu| message.native(IFLA_MTU, mtu))
        .with(interface.alias.as_ref(), |message, alias| message.bytes(IFLA_IFALIAS, alias.as_bytes()))
        .with(interface.group, |message, _until_now| message.native(IFLA_GROUP, DEFAULT_GROUP))
        .with(interface.tx_queue_len, |message, length| message.native(IFLA_TXQLEN, length));
    let doing = Purpose::of("set the attributes of", &interface.name);
    (message.as_bytes().len() > none.as_bytes().len()).then(|| request(doing, RTM_SETLINK, message, 0))
}

fn flags(interface: &Interface, link: &Link) -> Option<Request> {
    let asked = [
        (IFF_UP, interface.up.then_some(true)),
        (IFF_PROMISC, interface.promisc),
        (IFF_ALLMULTI, interface.allmulti),
    ];
    let bits = |is_meant: fn(Option<bool>) -> bool| {
        asked.iter().filter(|(_, on)| is_meant(*on)).fold(0, |bits, (flag, _)| bits | flag)
    };
    let (flags, change) = (bits(|on| on == Some(true)), bits(|on| on.is_some()));
    let message = LinkHeader { flags, change, ..LinkHeader::of(link.index) }.message();
    let doing = if interface.up { "bring up" } else { "set the flags of" };
    (change != 0).then(|| request(Purpose::of(doing, &interface.name), RTM_SETLINK, message, 0))
}

fn add_address(name: &str, index: u32, address: IpNetwork) -> Request {
    // IPAM has settled who owns the address, so nobody waits to detect a duplicate; IPv4 ignores the flag.
    let message = address_message(index, address, IFA_F_NOPREFIXROUTE | IFA_F_NODAD | IFA_F_PERMANENT);
    let doing = Purpose::of("add address", address).and("to", name);
    request(doing, RTM_NEWADDR, message, flag::CREATE | flag::EXCL)
}

pub(crate) fn address_message(index: u32, address: IpNetwork, flags: u32) -> Attributes {
    let (ip, prefix) = (address.ip(), address.prefix());
    AddressHeader { family: family_of(ip), prefix, index }
        .message()
        .ip(IFA_LOCAL, ip)
        .ip(IFA_ADDRESS, ip)
        .native(IFA_FLAGS, flags)
}

pub(crate) fn add_neighbour(name: &str, index: u32, neighbour: &Neighbour) -> Request {
    let Neighbour { ip, mac } = neighbour;
    let message = NeighbourHeader { family: family_of(*ip), index, state: NUD_PERMANENT, flags: 0 }
        .message()
        .ip(NDA_DST, *ip)
        .bytes(NDA_LLADDR, &mac.octets());
    let doing = Purpose::of("add neighbour", *ip).and("to", name);
    request(doing, RTM_NEWNEIGH, message, flag::CREATE | flag::REPLACE)
}

fn add_route(name: &str, index: u32, route: &Route) -> Request {
    let header = RouteHeader {
        family: family_of(route.dst.ip()),
        prefix: route.dst.prefix(),
        protocol: RTPROT_STATIC,
        scope: route.scope.unwrap_or(if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK }),
        kind: RTN_UNICAST,
        ..RouteHeader::default()
    };
    let metrics = Attributes::default()
        .with(route.mtu, |metrics, mtu| metrics.native(RTAX_MTU, mtu))
        .with(route.advmss, |metrics, advmss| metrics.native(RTAX_ADVMSS, advmss));
    let message = header
        .message()
        .with((route.dst.prefix() > 0).then(|| route.dst.network()), |message, to| message.ip(RTA_DST, to))
        .native(RTA_OIF, index)
        .native(RTA_TABLE, route.table.unwrap_or(RT_TABLE_MAIN))
        .with(route.gateway, |message, gateway| message.ip(RTA_GATEWAY, gateway))
        .with(route.source, |message, source| message.ip(RTA_PREFSRC, source))
        .with(route.priority, |message, priority| message.native(RTA_PRIORITY, priority))
        .with(Some(metrics).filter(|metrics| !metrics.is_empty()), |message, metrics| {
            message.nested(RTA_METRICS, metrics)
        });
    let doing = match route.gateway {
        None => Purpose::of("add route", route.dst),
        Some(gateway) => Purpose::of("add route", route.dst).and("via", gateway),
    };
    let doing = doing.and("through", name);
    // Two networks of a pod may both lead to the outside: of IPv4 the first goes on to do so, of IPv6 the kernel takes one by
    // turns. Two interfaces may be in the same subnet, as with the kernel's own routes. One host is on one link.
    let is_one_on_link = route.gateway.is_none() && route.dst == IpNetwork::from(route.dst.ip());
    let beside = if is_one_on_link { flag::EXCL } else { flag::APPEND };
    request(doing, RTM_NEWROUTE, message, flag::CREATE | beside)
}
