//! What stands in the kernel, and how it becomes what is wanted: what is missing is added before anything is taken away, and
//! what is right is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_datapath::{Ensured, Error, FarEnd, Link, Mac, Maker, MarkedRoute, Neighbour, Rtnl};

use super::difference::Difference;
use super::plan::{self, ALIAS, Hop, PROTOCOL, TUNNEL, Tunnel, Wanted, metric_of};
use super::{Change, Did, Kind, Report};
use crate::member::Member;

/// Destination and metric: the kernel has one route for both.
pub(super) type Key = (IpNetwork, u32);
type Routes = BTreeMap<Key, MarkedRoute>;

/// Does what is wanted, as far as the kernel lets it, and notes what was done and what was not.
pub(super) struct Work<'a> {
    rtnl: &'a Rtnl,
    report: &'a mut Report,
    /// The routes of ours that have stood.
    stood: &'a mut BTreeSet<Key>,
    is_partial: bool,
}

/// The links that have an address of this node: a node with pods has many others.
pub(super) fn links(rtnl: &Rtnl, own: &Member) -> Result<Vec<plan::Link>, Error> {
    let mut by_index: BTreeMap<u32, Vec<IpNetwork>> = BTreeMap::new();
    for (index, address) in rtnl.addresses()? {
        by_index.entry(index).or_default().push(address);
    }
    let mut links = Vec::new();
    let holds =
        |addresses: &[IpNetwork]| own.addresses.iter().any(|ours| addresses.iter().any(|a| a.ip() == ours));
    for (index, addresses) in by_index.into_iter().filter(|(_, addresses)| holds(addresses)) {
        let link = rtnl.link_by_index(index)?;
        links.extend(link.map(|Link { index, name, mtu, .. }| plan::Link { index, name, mtu, addresses }));
    }
    Ok(links)
}

impl<'a> Work<'a> {
    pub(super) fn new(rtnl: &'a Rtnl, report: &'a mut Report, stood: &'a mut BTreeSet<Key>) -> Self {
        Self { rtnl, report, stood, is_partial: false }
    }

    /// First the tunnel with its far ends, then the routes into it; what is not wanted goes in the opposite order.
    ///
    /// # Errors
    /// Where it cannot be seen what stands. What cannot be changed is a problem in the report.
    pub(super) fn bring_about(&mut self, wanted: &Wanted) -> Result<(), Error> {
        self.is_partial = wanted.is_partial;
        let link = wanted.tunnel.as_ref().and_then(|tunnel| self.ensure_link(tunnel));
        if let (Some(tunnel), Some(link)) = (&wanted.tunnel, &link) {
            self.bring_about_far_ends(tunnel, link)?;
        }
        self.bring_about_routes(&routes(wanted, link.as_ref()))?;
        if wanted.tunnel.is_none() && !self.is_partial && self.rtnl.remove_vxlan(TUNNEL, ALIAS)? {
            self.note(Kind::Link, Did::Removed, TUNNEL);
        }
        Ok(())
    }

    fn ensure_link(&mut self, tunnel: &Tunnel) -> Option<Link> {
        let (link, ensured) = match self.rtnl.ensure_vxlan(&tunnel.link) {
            Ok(ensured) => ensured,
            Err(error) => {
                let why = format!("{}{}", with_cause(&error), remedy(self.rtnl, tunnel, error.errno()));
                self.refuse(Kind::Link, TUNNEL, "there is no tunnel");
                self.report.problems.push(why);
                return None;
            }
        };
        match ensured {
            Ensured::Stood => {}
            Ensured::Created => self.note(Kind::Link, Did::Added, TUNNEL),
            Ensured::Adjusted | Ensured::Replaced => self.note(Kind::Link, Did::Replaced, TUNNEL),
        }
        Some(link)
    }

    fn bring_about_far_ends(&mut self, tunnel: &Tunnel, link: &Link) -> Result<(), Error> {
        let rtnl = self.rtnl;
        let far_ends: BTreeMap<Mac, IpAddr> =
            rtnl.far_ends(link)?.into_iter().map(|end| (end.mac, end.remote)).collect();
        let neighbours: BTreeMap<IpAddr, Mac> =
            rtnl.neighbours_on(link)?.into_iter().map(|one| (one.ip, one.mac)).collect();
        let set =
            |(mac, remote): &(Mac, IpAddr)| rtnl.set_far_end(link, &FarEnd { mac: *mac, remote: *remote });
        let name = |(_, remote): &(Mac, IpAddr)| remote.to_string();
        let ends = Difference::between(&far_ends, &tunnel.far_ends);
        self.each(Kind::Fdb, Did::Added, &ends.add, set, name);
        self.each(Kind::Fdb, Did::Replaced, &ends.replace, set, name);
        let set = |(ip, mac): &(IpAddr, Mac)| rtnl.set_neighbour(link, &Neighbour { ip: *ip, mac: *mac });
        let hop = |(ip, _): &(IpAddr, Mac)| ip.to_string();
        let hops = Difference::between(&neighbours, &tunnel.neighbours);
        self.each(Kind::Neighbour, Did::Added, &hops.add, set, hop);
        self.each(Kind::Neighbour, Did::Replaced, &hops.replace, set, hop);
        self.each(
            Kind::Neighbour,
            Did::Removed,
            &hops.remove,
            |(ip, _)| rtnl.remove_neighbour(link, *ip),
            hop,
        );
        let remove =
            |(mac, remote): &(Mac, IpAddr)| rtnl.remove_far_end(link, &FarEnd { mac: *mac, remote: *remote });
        self.each(Kind::Fdb, Did::Removed, &ends.remove, remove, name);
        Ok(())
    }

    fn bring_about_routes(&mut self, wanted: &Routes) -> Result<(), Error> {
        let rtnl = self.rtnl;
        let standing = rtnl.marked_routes(PROTOCOL)?;
        let standing: Routes =
            standing.into_iter().map(|route| ((route.dst, route.priority), route)).collect();
        let routes = Difference::between(&standing, wanted);
        let name = |((dst, _), _): &(Key, MarkedRoute)| dst.to_string();
        self.stood.retain(|key| wanted.contains_key(key));
        self.stood.extend(standing.keys().filter(|key| wanted.contains_key(key)).copied());
        routes.add.iter().for_each(|(key, route)| self.add(*key, route));
        let replace = |(_, route): &(Key, MarkedRoute)| rtnl.replace_marked_route(PROTOCOL, route);
        self.each(Kind::Route, Did::Replaced, &routes.replace, replace, name);
        let remove = |(_, route): &(Key, MarkedRoute)| rtnl.delete_marked_route(PROTOCOL, route);
        self.each(Kind::Route, Did::Removed, &routes.remove, remove, name);
        Ok(())
    }

    /// A route of somebody else that was there first stays. One that came after ours gives way.
    fn add(&mut self, key: Key, route: &MarkedRoute) {
        let added = match add_route(self.rtnl, route) {
            Err(Refused::Taken { maker, .. }) if self.stood.contains(&key) => {
                let replaced = self.rtnl.replace_marked_route(PROTOCOL, route);
                replaced.map(|()| (Did::Replaced, Some(shown(&maker)))).map_err(Refused::from)
            }
            added => added.map(|()| (Did::Added, None)),
        };
        match added {
            Ok((did, in_place_of)) => {
                self.stood.insert(key);
                self.report.changes.push(Change {
                    kind: Kind::Route,
                    did,
                    of: route.dst.to_string(),
                    in_place_of,
                });
            }
            Err(error) => self.refuse(Kind::Route, &route.dst.to_string(), &with_cause(&error)),
        }
    }

    /// One that is refused keeps none of the others from being done.
    fn each<T, E: std::error::Error>(
        &mut self,
        kind: Kind,
        did: Did,
        entries: &[T],
        step: impl Fn(&T) -> Result<(), E>,
        name: impl Fn(&T) -> String,
    ) {
        let is_withheld = did == Did::Removed && self.is_partial;
        for entry in entries.iter().filter(|_| !is_withheld) {
            match step(entry) {
                Ok(()) => self.note(kind, did, &name(entry)),
                Err(error) if did == Did::Removed => self.report.problems.push(with_cause(&error)),
                Err(error) => self.refuse(kind, &name(entry), &with_cause(&error)),
            }
        }
    }

    /// It costs those who need it, and nobody else.
    fn refuse(&mut self, kind: Kind, of: &str, why: &str) {
        self.report.refused.insert((kind, of.to_owned()), why.to_owned());
    }

    fn note(&mut self, kind: Kind, did: Did, of: &str) {
        self.report.changes.push(Change { kind, did, of: of.to_owned(), in_place_of: None });
    }
}

/// Who has the port or the number of the tunnel, and how to have another.
fn remedy(rtnl: &Rtnl, tunnel: &Tunnel, errno: Errno) -> String {
    let (id, port) = (tunnel.link.id, tunnel.link.port);
    let others = rtnl.vxlans().unwrap_or_default();
    let mut others = others.iter().filter(|other| other.link.name != TUNNEL && other.port == port);
    match errno {
        Errno::EEXIST => others.find(|other| other.id == id).map_or_else(String::new, |other| {
            format!(
                "; the VXLAN link {} has the same number {id} on the same port {port}: remove it (`ip link del {}`), or give all nodes \
                 another --vxlan-id or --vxlan-port",
                other.link.name, other.link.name
            )
        }),
        Errno::EADDRINUSE => {
            let who = others.next().map_or_else(
                || format!("a program listens on UDP port {port} (`ss -lunp 'sport = :{port}'` names it)"),
                |other| format!("the VXLAN link {} has UDP port {port} with other settings", other.link.name),
            );
            format!("; {who}: stop it, or give all nodes another --vxlan-port")
        }
        _ => String::new(),
    }
}

/// A route that could not be added.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "it is routed {} by somebody else since before; remove that route (`ip route show {dst}`), or stop who makes it",
        shown(maker)
    )]
    Taken { dst: IpNetwork, maker: Maker },
    #[error(transparent)]
    Kernel(#[from] Error),
}

fn add_route(rtnl: &Rtnl, route: &MarkedRoute) -> Result<(), Refused> {
    let Err(error) = rtnl.add_marked_route(PROTOCOL, route) else { return Ok(()) };
    match rtnl.maker_of_route(route.dst) {
        Ok(Some(maker)) if error.errno() == Errno::EEXIST => Err(Refused::Taken { dst: route.dst, maker }),
        _ => Err(error.into()),
    }
}

/// Without its link the tunnel leads nowhere, and a route into it would be a lie.
fn routes(wanted: &Wanted, tunnel: Option<&Link>) -> Routes {
    let route = |(dst, way): (&IpNetwork, &plan::Way)| {
        let (link, gateway, onlink) = match way.hop {
            Hop::Direct { link, .. } => (link, way.through, false),
            Hop::Tunnel { gateway } => (tunnel?.index, gateway, gateway.is_ipv4()),
        };
        let priority = metric_of(*dst);
        Some(((*dst, priority), MarkedRoute { dst: *dst, priority, gateway: Some(gateway), link, onlink }))
    };
    wanted.ways.iter().filter_map(route).collect()
}

fn shown(Maker { link, gateway, protocol, kind }: &Maker) -> String {
    let kind = match kind {
        6 => "into a blackhole ",
        7 => "to nowhere (unreachable) ",
        8 => "to nowhere (prohibit) ",
        _ => "",
    };
    let link = link.as_ref().map(|link| format!("through {link} ")).unwrap_or_default();
    let gateway = gateway.map(|gateway| format!("via {gateway} ")).unwrap_or_default();
    format!("{kind}{link}{gateway}({})", protocol_name(*protocol))
}

/// As `ip route` calls them (`/etc/iproute2/rt_protos`).
fn protocol_name(protocol: u8) -> String {
    let known = match protocol {
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        12 => "bird",
        16 => "dhcp",
        186 => "bgp",
        other => return format!("proto {other}"),
    };
    format!("proto {known}")
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(why) = cause {
        text = format!("{text}: {why}");
        cause = why.source();
    }
    text
}
