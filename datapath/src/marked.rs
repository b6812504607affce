//! Routes that carry the number of who made them (`rtm_protocol`), so that one program's can be told from all others.
//!
//! Only the main table is meant.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::netlink::{Attributes, Purpose, Reply, Request, Socket, attribute_of, flag, native};
use crate::rtnl::wire::*;
use crate::{Error, Rtnl};

/// Through a gateway that need not lie in a subnet of the link.
const RTNH_F_ONLINK: u32 = 4;
/// The scope by which an IPv4 route of any scope is meant.
const RT_SCOPE_NOWHERE: u8 = 255;

/// A unicast route to a network through a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedRoute {
    /// Where it leads; host bits are cleared.
    pub dst: IpNetwork,
    /// Its metric, lower first. That of IPv6 is not 0: the kernel takes 1024 for it.
    pub priority: u32,
    /// The next hop. A route of somebody else, or a damaged one, may have none, or several.
    pub gateway: Option<IpAddr>,
    /// The index of the link.
    pub link: u32,
    /// Whether the next hop is on the link though no subnet says so. IPv6 needs it for no link-local one.
    pub onlink: bool,
}

/// A route with the same destination as one of ours, as far as a person needs it to find who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The link that packets leave by, where they do.
    pub link: Option<String>,
    /// The next hop, where there is one.
    pub gateway: Option<IpAddr>,
    /// The number of who made it (`rtm_protocol`).
    pub protocol: u8,
    /// What it does with packets (`rtm_type`): 1 passes them on, 6 to 8 drop them.
    pub kind: u8,
}

/// `blackhole`, `unreachable` and `prohibit`.
const DROPPING: [u8; 3] = [6, 7, 8];

impl Rtnl {
    /// All routes with this `protocol`.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn marked_routes(&self, protocol: u8) -> Result<Vec<MarkedRoute>, Error> {
        // A socket of its own: the kernel filters only for who speaks strictly, and what else is asked here need not be so.
        let socket = Socket::open_strict(NETLINK_ROUTE)?;
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let header = RouteHeader { family, protocol, ..RouteHeader::default() };
            let list = request(Purpose::from("list the routes"), RTM_GETROUTE, header.message(), 0);
            let list = Request { forgiven: &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP], ..list };
            routes.extend(socket.dump(&list)?.iter().filter_map(|reply| read(reply, protocol)));
        }
        Ok(routes)
    }

    /// Adds `route`.
    ///
    /// # Errors
    /// `EEXIST` where somebody's route has the same destination and metric. It stays as it is.
    pub fn add_marked_route(&self, protocol: u8, route: &MarkedRoute) -> Result<(), Error> {
        self.socket.carry_out(&[new(protocol, route, flag::EXCL)])
    }

    /// Puts `route` in the place of the one with the same destination and metric, so that there is always one of the two.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn replace_marked_route(&self, protocol: u8, route: &MarkedRoute) -> Result<(), Error> {
        self.socket.carry_out(&[new(protocol, route, flag::REPLACE)])
    }

    /// Removes the route of this protocol with the same destination and metric. One that is gone is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_marked_route(&self, protocol: u8, route: &MarkedRoute) -> Result<(), Error> {
        let scope = if route.dst.is_ipv4() { RT_SCOPE_NOWHERE } else { RT_SCOPE_UNIVERSE };
        let message = header(protocol, scope, route).message();
        let message = key(message, route);
        let delete = request(Purpose::of("delete route", route.dst), RTM_DELROUTE, message, 0);
        self.socket.carry_out(&[Request { forgiven: &[Errno::ESRCH], ..delete }])
    }

    /// What leads to the first address of `dst`, if it is a route to just `dst`.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn maker_of_route(&self, dst: IpNetwork) -> Result<Option<Maker>, Error> {
        let get = crate::rtnl::get_route(dst.network(), RTM_F_FIB_MATCH);
        if let Some(reply) = self.socket.get(&get)? {
            return self.maker(dst, &reply);
        }
        // Asked for the way to an address that a route drops packets to, the kernel says that there is none.
        for kind in DROPPING {
            let header = RouteHeader { family: family_of(dst.ip()), kind, ..RouteHeader::default() };
            let list = request(Purpose::of("list the routes to", dst), RTM_GETROUTE, header.message(), 0);
            for reply in Socket::open_strict(NETLINK_ROUTE)?.dump(&list)? {
                if let Some(maker) = self.maker(dst, &reply)?.filter(|maker| maker.kind == kind) {
                    return Ok(Some(maker));
                }
            }
        }
        Ok(None)
    }

    /// Who has made the route in `reply`, if it is one to `dst`.
    fn maker(&self, dst: IpNetwork, reply: &Reply) -> Result<Option<Maker>, Error> {
        let Some((header, attributes)) = RouteHeader::read(&reply.body) else { return Ok(None) };
        let find = |kind| attribute_of(attributes, kind);
        if header.prefix != dst.prefix() || find(RTA_DST).and_then(ip) != Some(dst.network()) {
            return Ok(None);
        }
        let link = find(RTA_OIF).and_then(native).map_or(Ok(None), |index| self.link_by_index(index))?;
        let link = link.map(|link| link.name);
        let gateway = find(RTA_GATEWAY).and_then(ip);
        Ok(Some(Maker { link, gateway, protocol: header.protocol, kind: header.kind }))
    }
}

fn new(protocol: u8, route: &MarkedRoute, beside: u16) -> Request {
    let message = key(header(protocol, RT_SCOPE_UNIVERSE, route).message(), route)
        .native(RTA_OIF, route.link)
        .with(route.gateway, |message, gateway| message.ip(RTA_GATEWAY, gateway));
    let doing = Purpose::of("route", route.dst);
    let doing = match route.gateway {
        Some(gateway) => doing.and("through", gateway),
        None => doing,
    };
    request(doing, RTM_NEWROUTE, message, flag::CREATE | beside)
}

fn header(protocol: u8, scope: u8, route: &MarkedRoute) -> RouteHeader {
    RouteHeader {
        family: family_of(route.dst.ip()),
        prefix: route.dst.prefix(),
        table: 0,
        protocol,
        scope,
        kind: RTN_UNICAST,
        flags: if route.onlink { RTNH_F_ONLINK } else { 0 },
    }
}

fn key(message: Attributes, route: &MarkedRoute) -> Attributes {
    message
        .ip(RTA_DST, route.dst.network())
        .native(RTA_TABLE, RT_TABLE_MAIN)
        .with((route.priority > 0).then_some(route.priority), |message, metric| {
            message.native(RTA_PRIORITY, metric)
        })
}

/// Kernels before 4.20 do not filter.
fn read(reply: &Reply, protocol: u8) -> Option<MarkedRoute> {
    let (header, attributes) = RouteHeader::read(&reply.body).filter(|_| reply.kind == RTM_NEWROUTE)?;
    let find = |kind| attribute_of(attributes, kind);
    let table = find(RTA_TABLE).and_then(native).unwrap_or_else(|| header.table.into());
    if header.protocol != protocol || table != RT_TABLE_MAIN || header.kind != RTN_UNICAST {
        return None;
    }
    Some(MarkedRoute {
        dst: IpNetwork::new(find(RTA_DST).and_then(ip)?, header.prefix).ok()?,
        priority: find(RTA_PRIORITY).and_then(native).unwrap_or_default(),
        gateway: find(RTA_GATEWAY).and_then(ip),
        link: find(RTA_OIF).and_then(native).unwrap_or_default(),
        onlink: header.flags & RTNH_F_ONLINK != 0,
    })
}
