//! What stands in the kernel, as plain values: for CHECK, for audits, for people.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop};

use crate::netlink::{Reply, attributes_of};
use crate::rtnl::kind::{RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE};
use crate::{Mac, Neighbour, Route, Shaped, tc};

/// A link as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index; the kernel gives one to no other link while this one lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its alias.
    pub alias: Option<String>,
    /// The group of links that it is in; 0 unless somebody has put it into one.
    pub group: u32,
    /// Whether it is up, as somebody asked; not whether there is a carrier.
    pub up: bool,
    /// Whether somebody asked it to take frames that are for others. Programs that capture ask in another way.
    pub promisc: bool,
    /// Whether somebody asked it to take all multicast frames.
    pub allmulti: bool,
    /// Length of its transmit queue in packets.
    pub tx_queue_len: u32,
    /// Index of the other end of a pair, in whatever namespace that is; `None` for a link of another kind.
    pub peer: Option<u32>,
    /// What kind of device it is, such as `veth`; `None` for hardware.
    pub kind: Option<String>,
    /// Whether it filters by VLAN, as only a bridge may.
    pub vlan_filtering: bool,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Whether its bridge sends back through it what came from it.
    pub hairpin: bool,
    /// Whether its bridge keeps it apart from other such ports.
    pub isolated: bool,
}

/// Everything rtnetlink knows of a namespace. The index says which link a thing belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Links.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<(u32, IpNetwork)>,
    /// Permanent neighbours.
    pub neighbours: Vec<(u32, Neighbour)>,
    /// Unicast routes of all tables.
    pub routes: Vec<(u32, Route)>,
    /// Token buckets that are root qdiscs.
    pub shaped: Vec<(u32, Shaped)>,
}

impl Observed {
    /// The link called `name`.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(crate) fn from_replies(dumps: &[Vec<Reply>]) -> Self {
        let mut observed = Self::default();
        for reply in dumps.iter().flatten() {
            match reply.kind {
                RTM_NEWLINK => observed.links.extend(link(reply)),
                RTM_NEWADDR => observed.addresses.extend(decode(reply).as_ref().and_then(read_address)),
                RTM_NEWNEIGH => observed.neighbours.extend(decode(reply).as_ref().and_then(read_neighbour)),
                RTM_NEWROUTE => observed.routes.extend(decode(reply).iter().flat_map(read_routes)),
                _ => observed.shaped.extend(tc::read(reply)),
            }
        }
        observed
    }
}

/// The link that `reply` describes. Its few attributes are read here, because the typed message reads the options of
/// every kind of device, which is more code than all the rest of the plugin.
pub(crate) fn link(reply: &Reply) -> Option<Link> {
    const IFINFOMSG: usize = 16;
    const IFLA_LINK: u16 = 5;
    const IFF_UP: u32 = 1;
    const IFF_PROMISC: u32 = 0x100;
    const IFF_ALLMULTI: u32 = 0x200;
    if reply.kind != RTM_NEWLINK {
        return None;
    }
    let header = reply.body.first_chunk::<IFINFOMSG>()?;
    let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let mut link = Link {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        up: flags & IFF_UP != 0,
        promisc: flags & IFF_PROMISC != 0,
        allmulti: flags & IFF_ALLMULTI != 0,
        ..Link::default()
    };
    let mut other = None;
    for (kind, value) in attributes_of(reply.body.get(IFINFOMSG..)?) {
        match kind {
            IFLA_LINK => other = value.try_into().ok().map(u32::from_ne_bytes),
            _ => read_link_attribute(&mut link, kind, value),
        }
    }
    // A macvlan says so too on which interface it is.
    link.peer = other.filter(|_| link.kind.as_deref() == Some("veth"));
    (!link.name.is_empty()).then_some(link)
}

fn read_link_attribute(link: &mut Link, kind: u16, value: &[u8]) {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_MASTER: u16 = 10;
    const IFLA_TXQLEN: u16 = 13;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_IFALIAS: u16 = 20;
    const IFLA_GROUP: u16 = 27;
    match kind {
        IFLA_ADDRESS => link.mac = Mac::from_bytes(value),
        IFLA_IFNAME => link.name = text(value),
        IFLA_MTU => link.mtu = value.try_into().map_or(0, u32::from_ne_bytes),
        IFLA_TXQLEN => link.tx_queue_len = value.try_into().map_or(0, u32::from_ne_bytes),
        IFLA_MASTER => link.master = value.try_into().ok().map(u32::from_ne_bytes),
        IFLA_LINKINFO => attributes_of(value).for_each(|(kind, value)| read_link_info(link, kind, value)),
        IFLA_IFALIAS => link.alias = Some(text(value)),
        IFLA_GROUP => link.group = value.try_into().map_or(0, u32::from_ne_bytes),
        _ => {}
    }
}

fn read_link_info(link: &mut Link, kind: u16, value: &[u8]) {
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    const IFLA_BR_VLAN_FILTERING: u16 = 7;
    const IFLA_BRPORT_MODE: u16 = 4;
    const IFLA_BRPORT_ISOLATED: u16 = 33;
    let flag = |wanted| {
        attributes_of(value)
            .any(|(kind, value)| kind == wanted && value.first().is_some_and(|flag| *flag != 0))
    };
    match kind {
        IFLA_INFO_KIND => link.kind = Some(text(value)),
        // The kind stands before its data (`rtnl_link_info_fill`), and numbers mean other things to other kinds.
        IFLA_INFO_DATA if link.kind.as_deref() == Some("bridge") => {
            link.vlan_filtering = flag(IFLA_BR_VLAN_FILTERING);
        }
        IFLA_INFO_SLAVE_DATA => {
            link.hairpin = flag(IFLA_BRPORT_MODE);
            link.isolated = flag(IFLA_BRPORT_ISOLATED);
        }
        _ => {}
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// MTU and outgoing interface of the route that `reply` describes.
pub(crate) fn outgoing(reply: &Reply) -> (Option<u32>, Option<u32>) {
    let message: Option<RouteMessage> = decode(reply).filter(|_| reply.kind == RTM_NEWROUTE);
    let Some(message) = message else { return (None, None) };
    let oif = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    (metric(&message, |m| matches!(m, RouteMetric::Mtu(_))), oif)
}

/// Whether the route that `reply` describes ends at this node.
pub(crate) fn is_local(reply: &Reply) -> bool {
    // The last byte of struct rtmsg before its flags.
    const TYPE: usize = 7;
    const RTN_LOCAL: u8 = 2;
    reply.kind == RTM_NEWROUTE && reply.body.get(TYPE) == Some(&RTN_LOCAL)
}

/// Destination and outgoing interface of the route that `reply` describes.
pub(crate) fn matched(reply: &Reply) -> Option<(u32, IpNetwork)> {
    let message: RouteMessage = decode(reply).filter(|_| reply.kind == RTM_NEWROUTE)?;
    read_routes(&message).into_iter().next().map(|(index, route)| (index, route.dst))
}

fn decode<T: for<'a> Parseable<[u8]>>(reply: &Reply) -> Option<T> {
    T::parse(&reply.body).ok()
}

fn read_address(message: &AddressMessage) -> Option<(u32, IpNetwork)> {
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // Of a point-to-point address the local end is ours; IPv6 leaves it out where the two are the same.
    let local = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let address = find(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let network = IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, network))
}

fn read_neighbour(message: &NeighbourMessage) -> Option<(u32, Neighbour)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let ip = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_bytes(bytes),
        _ => None,
    })?;
    Some((message.header.ifindex, Neighbour { ip, mac }))
}

/// One for each of its next hops, which the kernel shows in one message where IPv6 routes to a destination share a metric.
fn read_routes(message: &RouteMessage) -> Vec<(u32, Route)> {
    let Some((index, route)) = read_route(message) else { return Vec::new() };
    let hops = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let through = |hop: &RouteNextHop| {
        let gateway = hop.attributes.iter().find_map(gateway);
        (hop.interface_index, Route { gateway, ..route.clone() })
    };
    let shared = hops.into_iter().flatten().map(through);
    index.map(|index| (index, route.clone())).into_iter().chain(shared).collect()
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::Gateway(address) = attribute { ip(address) } else { None }
}

fn read_route(message: &RouteMessage) -> Option<(Option<u32>, Route)> {
    use netlink_packet_route::AddressFamily;
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0u8; 4]),
        AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => return None,
    };
    let (mut dst, mut index) = (unspecified, None);
    let mut route = Route::on_link(IpNetwork::new(unspecified, 0).ok()?);
    route.table = Some(u32::from(message.header.table));
    route.scope = Some(message.header.scope.into());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Table(table) => route.table = Some(*table),
            _ => {}
        }
    }
    route.dst = IpNetwork::new(dst, message.header.destination_prefix_length).ok()?;
    route.mtu = metric(message, |m| matches!(m, RouteMetric::Mtu(_)));
    route.advmss = metric(message, |m| matches!(m, RouteMetric::Advmss(_)));
    Some((index, route))
}

fn metric(message: &RouteMessage, wanted: fn(&RouteMetric) -> bool) -> Option<u32> {
    let metrics = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    })?;
    metrics.iter().find(|m| wanted(m)).and_then(|m| match m {
        RouteMetric::Mtu(value) | RouteMetric::Advmss(value) => Some(*value),
        _ => None,
    })
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
