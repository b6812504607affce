//! What stands in the kernel, as plain values: for CHECK, for audits, for people.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::netlink::{Reply, attribute_of, attributes_of, native};
use crate::rtnl::wire::*;
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
                RTM_NEWADDR => observed.addresses.extend(read_address(&reply.body)),
                RTM_NEWNEIGH => observed.neighbours.extend(read_neighbour(&reply.body)),
                RTM_NEWROUTE => observed.routes.extend(read_routes(&reply.body)),
                _ => observed.shaped.extend(tc::read(reply)),
            }
        }
        observed
    }
}

/// The link that `reply` describes.
pub(crate) fn link(reply: &Reply) -> Option<Link> {
    if reply.kind != RTM_NEWLINK {
        return None;
    }
    let (header, attributes) = LinkHeader::read(&reply.body)?;
    let mut link = Link {
        index: header.index,
        up: header.flags & IFF_UP != 0,
        promisc: header.flags & IFF_PROMISC != 0,
        allmulti: header.flags & IFF_ALLMULTI != 0,
        ..Link::default()
    };
    for (kind, value) in attributes_of(attributes) {
        read_link_attribute(&mut link, kind, value);
    }
    // A macvlan says so too on which interface it is.
    link.peer = link.peer.filter(|_| link.kind.as_deref() == Some("veth"));
    (!link.name.is_empty()).then_some(link)
}

fn read_link_attribute(link: &mut Link, kind: u16, value: &[u8]) {
    match kind {
        IFLA_ADDRESS => link.mac = Mac::from_bytes(value),
        IFLA_IFNAME => link.name = text(value),
        IFLA_MTU => link.mtu = native(value).unwrap_or_default(),
        IFLA_LINK => link.peer = native(value),
        IFLA_TXQLEN => link.tx_queue_len = native(value).unwrap_or_default(),
        IFLA_MASTER => link.master = native(value),
        IFLA_LINKINFO => attributes_of(value).for_each(|(kind, value)| read_link_info(link, kind, value)),
        IFLA_IFALIAS => link.alias = Some(text(value)),
        IFLA_GROUP => link.group = native(value).unwrap_or_default(),
        _ => {}
    }
}

fn read_link_info(link: &mut Link, kind: u16, value: &[u8]) {
    let flag = |wanted| attribute_of(value, wanted).and_then(<[u8]>::first).is_some_and(|flag| *flag != 0);
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

/// MTU and outgoing interfaces of the route that `reply` describes.
pub(crate) fn outgoing(reply: &Reply) -> (Option<u32>, Vec<u32>) {
    let routes = if reply.kind == RTM_NEWROUTE { read_routes(&reply.body) } else { Vec::new() };
    (routes.first().and_then(|(_, route)| route.mtu), routes.into_iter().map(|(index, _)| index).collect())
}

/// Whether a namespace with the configuration that `reply` describes forwards packets.
pub(crate) fn is_forwarding(reply: &Reply) -> bool {
    let attributes = reply.body.get(4..).unwrap_or_default();
    attribute_of(attributes, NETCONFA_FORWARDING).and_then(native).is_some_and(|on| on != 0)
}

/// Whether the route that `reply` describes ends at this node.
pub(crate) fn is_local(reply: &Reply) -> bool {
    let route = RouteHeader::read(&reply.body).filter(|_| reply.kind == RTM_NEWROUTE);
    route.is_some_and(|(header, _)| header.kind == RTN_LOCAL)
}

/// Destination and outgoing interface of the route that `reply` describes.
pub(crate) fn matched(reply: &Reply) -> Option<(u32, IpNetwork)> {
    let routes = if reply.kind == RTM_NEWROUTE { read_routes(&reply.body) } else { Vec::new() };
    routes.into_iter().next().map(|(index, route)| (index, route.dst))
}

pub(crate) fn read_address(body: &[u8]) -> Option<(u32, IpNetwork)> {
    let (header, attributes) = AddressHeader::read(body)?;
    // Of a point-to-point address the local end is ours; IPv6 leaves it out where the two are the same.
    let local = attribute_of(attributes, IFA_LOCAL).or_else(|| attribute_of(attributes, IFA_ADDRESS))?;
    Some((header.index, IpNetwork::new(ip(local)?, header.prefix).ok()?))
}

pub(crate) fn read_neighbour(body: &[u8]) -> Option<(u32, Neighbour)> {
    let (header, attributes) = NeighbourHeader::read(body)?;
    if header.state != NUD_PERMANENT {
        return None;
    }
    let ip = ip(attribute_of(attributes, NDA_DST)?)?;
    let mac = Mac::from_bytes(attribute_of(attributes, NDA_LLADDR)?)?;
    Some((header.index, Neighbour { ip, mac }))
}

/// One for each of its next hops, which the kernel shows in one message where IPv6 routes to a destination share a metric.
fn read_routes(body: &[u8]) -> Vec<(u32, Route)> {
    let Some((index, route, hops)) = read_route(body) else { return Vec::new() };
    let shared = hops_of(hops).map(|(index, gateway)| (index, Route { gateway, ..route.clone() }));
    index.map(|index| (index, route.clone())).into_iter().chain(shared).collect()
}

/// The outgoing interface and gateway of each `struct rtnexthop` in `hops`.
fn hops_of(mut hops: &[u8]) -> impl Iterator<Item = (u32, Option<IpAddr>)> {
    const RTNEXTHOP: usize = 8;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*hops.first_chunk()?));
        let index = native(hops.get(4..RTNEXTHOP)?)?;
        let gateway = attribute_of(hops.get(RTNEXTHOP..length)?, RTA_GATEWAY).and_then(ip);
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((index, gateway))
    })
}

/// The route in a message, its outgoing interface if it has one of its own, and its next hops.
fn read_route(body: &[u8]) -> Option<(Option<u32>, Route, &[u8])> {
    let (header, attributes) = RouteHeader::read(body)?;
    let unspecified: IpAddr = match header.family {
        AF_INET => [0u8; 4].into(),
        AF_INET6 => [0u8; 16].into(),
        _ => return None,
    };
    let find = |kind| attribute_of(attributes, kind);
    let dst = find(RTA_DST).map_or(Some(unspecified), ip)?;
    let table = find(RTA_TABLE).and_then(native).unwrap_or_else(|| header.table.into());
    let route = Route {
        gateway: find(RTA_GATEWAY).and_then(ip),
        source: find(RTA_PREFSRC).and_then(ip),
        mtu: metric(attributes, RTAX_MTU),
        advmss: metric(attributes, RTAX_ADVMSS),
        priority: find(RTA_PRIORITY).and_then(native),
        table: Some(table),
        scope: Some(header.scope),
        ..Route::on_link(IpNetwork::new(dst, header.prefix).ok()?)
    };
    Some((find(RTA_OIF).and_then(native), route, find(RTA_MULTIPATH).unwrap_or_default()))
}

fn metric(attributes: &[u8], wanted: u16) -> Option<u32> {
    attribute_of(attribute_of(attributes, RTA_METRICS)?, wanted).and_then(native)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn header(family: u8, prefix: u8) -> RouteHeader {
        let (table, scope) = (254, RT_SCOPE_UNIVERSE);
        RouteHeader { family, prefix, table, scope, kind: RTN_UNICAST, ..RouteHeader::default() }
    }

    #[test]
    fn a_route_is_read_with_all_that_it_says() {
        let metrics = Attributes::default().native(RTAX_MTU, 1400).native(RTAX_ADVMSS, 1360);
        let message = header(AF_INET, 24)
            .message()
            .ip(RTA_DST, [10, 1, 0, 0].into())
            .ip(RTA_GATEWAY, [10, 0, 0, 1].into())
            .ip(RTA_PREFSRC, [10, 0, 0, 2].into())
            .native(RTA_OIF, 7)
            .native(RTA_PRIORITY, 100)
            .native(RTA_TABLE, 1000)
            .nested(RTA_METRICS, metrics);
        let expected = Route {
            source: Some([10, 0, 0, 2].into()),
            mtu: Some(1400),
            advmss: Some(1360),
            priority: Some(100),
            table: Some(1000),
            scope: Some(0),
            ..Route::via(network("10.1.0.0/24"), [10, 0, 0, 1].into())
        };
        let reply = Reply { kind: RTM_NEWROUTE, body: message.into_bytes() };
        assert_eq!(read_routes(&reply.body), [(7, expected)]);
        assert_eq!(outgoing(&reply), (Some(1400), vec![7]));
        assert_eq!(matched(&reply), Some((7, network("10.1.0.0/24"))));
        assert!(!is_local(&reply));
    }

    #[test]
    fn next_hops_that_share_a_message_are_a_route_each() {
        let hop = |index: u32, gateway: [u8; 16]| {
            let attributes = Attributes::default().ip(RTA_GATEWAY, gateway.into()).into_bytes();
            let mut hop = ((8 + attributes.len()) as u16).to_ne_bytes().to_vec();
            hop.extend([0, 0]);
            hop.extend(index.to_ne_bytes());
            hop.extend(attributes);
            hop
        };
        let hops = [hop(7, [1; 16]), hop(8, [2; 16])].concat();
        let message = header(AF_INET6, 0).message().bytes(RTA_MULTIPATH, &hops).into_bytes();
        let through = |(index, route): (u32, Route)| (index, route.gateway);
        let found: Vec<_> = read_routes(&message).into_iter().map(through).collect();
        assert_eq!(found, [(7, Some([1; 16].into())), (8, Some([2; 16].into()))]);
        assert_eq!(hops_of(&hops[..hops.len() - 1]).count(), 1, "one that is cut short is none");
    }

    #[test]
    fn what_is_of_no_family_that_has_routes_is_none() {
        const AF_MPLS: u8 = 28;
        assert_eq!(read_routes(&header(AF_MPLS, 20).message().native(RTA_OIF, 1).into_bytes()), []);
        assert_eq!(read_routes(&[0; 11]), []);
    }

    #[test]
    fn only_neighbours_that_are_known_for_good_are_seen() {
        let message = |state| {
            let header = NeighbourHeader { family: AF_INET, index: 7, state, flags: 0 };
            header.message().ip(NDA_DST, [10, 0, 0, 1].into()).bytes(NDA_LLADDR, &[2, 0, 0, 0, 0, 1])
        };
        const NUD_REACHABLE: u16 = 2;
        assert_eq!(read_neighbour(message(NUD_REACHABLE).as_bytes()), None);
        let known =
            Neighbour { ip: [10, 0, 0, 1].into(), mac: Mac::from_bytes(&[2, 0, 0, 0, 0, 1]).unwrap() };
        assert_eq!(read_neighbour(message(NUD_PERMANENT).as_bytes()), Some((7, known)));
    }

    #[test]
    fn of_a_point_to_point_address_the_local_end_is_ours() {
        let header = AddressHeader { family: AF_INET, prefix: 32, index: 7 };
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let both = header.message().ip(IFA_ADDRESS, there).ip(IFA_LOCAL, here);
        assert_eq!(read_address(both.as_bytes()), Some((7, here.into())));
        let one = header.message().ip(IFA_ADDRESS, there);
        assert_eq!(read_address(one.as_bytes()), Some((7, there.into())));
    }
}
