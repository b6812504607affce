//! What stands in the kernel, as plain values: for CHECK, for audits, for people.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric};

use crate::netlink::Reply;
use crate::{Mac, Neighbour, Route};

/// A link as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether it is up, as somebody asked; not whether there is a carrier.
    pub up: bool,
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
}

impl Observed {
    /// The link called `name`.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(crate) fn from_replies(dumps: &[Vec<Reply>]) -> Self {
        let mut observed = Self::default();
        for message in dumps.iter().flatten().filter_map(decode) {
            match message {
                RouteNetlinkMessage::NewLink(message) => observed.links.extend(read_link(&message)),
                RouteNetlinkMessage::NewAddress(message) => observed.addresses.extend(read_address(&message)),
                RouteNetlinkMessage::NewNeighbour(message) => {
                    observed.neighbours.extend(read_neighbour(&message))
                }
                RouteNetlinkMessage::NewRoute(message) => observed.routes.extend(read_route(&message)),
                _ => {}
            }
        }
        observed
    }
}

/// The link that `reply` describes.
pub(crate) fn link(reply: &Reply) -> Option<Link> {
    match decode(reply)? {
        RouteNetlinkMessage::NewLink(message) => read_link(&message),
        _ => None,
    }
}

/// MTU and outgoing interface of the route that `reply` describes.
pub(crate) fn outgoing(reply: &Reply) -> (Option<u32>, Option<u32>) {
    match decode(reply) {
        Some(RouteNetlinkMessage::NewRoute(message)) => {
            let oif = message.attributes.iter().find_map(|a| match a {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            (metric(&message, |m| matches!(m, RouteMetric::Mtu(_))), oif)
        }
        _ => (None, None),
    }
}

fn decode(reply: &Reply) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = reply.kind;
    RouteNetlinkMessage::deserialize(&header, &reply.body).ok()
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        alias: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = Mac::from_bytes(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
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

fn read_route(message: &RouteMessage) -> Option<(u32, Route)> {
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
    Some((index?, route))
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
