//! The place that a pod is attached at, and the steps that change it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_datapath::{Ends, Interface, Link, NetNs, Nft, PinnedSource, Rtnl, Veth, sysctl};
use weft_ipam::lease::Assigned;

use crate::identity::Identity;
use crate::plan::Plan;
use crate::undo::Undo;
use crate::{Error, log, tuned};

/// These stand for "anything": only a default route leads there.
const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1));
const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));

/// MTU of a pair on a node that has no way to the outside.
const MTU_DEFAULT: u32 = 1500;

/// The node, and the pod's namespace.
pub(super) struct Site {
    host: Rtnl,
    netns: NetNs,
}

/// A pair that has been made. Dropping it removes it.
#[must_use = "dropping it removes the pair"]
pub(super) struct Pair<'a> {
    ends: Ends,
    laid: Undo<Box<dyn Fn() -> Result<(), weft_datapath::Error> + 'a>, weft_datapath::Error>,
}

impl Pair<'_> {
    pub(super) fn keep(self) {
        self.laid.keep();
    }
}

impl Site {
    pub(super) fn open(netns: &Path) -> Result<Self, Error> {
        let netns = NetNs::open(netns).map_err(Error::UnusableNetns)?;
        Ok(Self { host: Rtnl::open()?, netns })
    }

    /// An attachment that stands has to stay as it is. A lease of its own tells Weft; another plugin must not even be asked,
    /// for when its answer is lost it is told to undo what it did, and that would be what the pod lives on.
    pub(super) fn refuse_second(&self, identity: &Identity, ifname: &str) -> Result<(), Error> {
        let inside = self.netns.rtnl().map_err(Error::UnusableNetns)?;
        let exists = if inside.link(ifname)?.is_some() {
            Some((ifname.to_owned(), self.netns.path().to_owned()))
        } else {
            self.host.link(&identity.host_ifname)?.map(|link| (link.name, "/proc/self/ns/net".into()))
        };
        exists.map_or(Ok(()), |(ifname, netns)| Err(Error::InterfaceExists { ifname, netns }))
    }

    /// The smallest MTU on the way to the outside, of the families that there is an address of, or, where there is none yet, of
    /// both.
    pub(super) fn detect_mtu(&self, addresses: &[Assigned]) -> Result<u32, Error> {
        let is_asked = |outside: &IpAddr| {
            let of_family = |assigned: &Assigned| assigned.address.is_ipv4() == outside.is_ipv4();
            addresses.is_empty() || addresses.iter().any(of_family)
        };
        let outside: Vec<_> = [OUTSIDE_V4, OUTSIDE_V6].into_iter().filter(is_asked).collect();
        Ok(self.host.path_mtu(&outside)?.unwrap_or(MTU_DEFAULT))
    }

    /// It is everybody's, so nobody undoes it.
    pub(super) fn ensure_bridge(&self, plan: &Plan) -> Result<Option<Link>, Error> {
        Ok(plan.shared.as_ref().map(|shared| self.host.ensure_bridge(&shared.bridge)).transpose()?)
    }

    /// Makes the pair, whose ends are down, and holds the pod to its hardware address where it is to be held: not one packet
    /// goes unchecked.
    pub(super) fn lay<'a>(&'a self, plan: &Plan) -> Result<Pair<'a>, Error> {
        let ends = self.create_pair(&plan.veth)?;
        let (name, source) = (plan.veth.host.name.clone(), plan.source().cloned());
        // Also after an attempt that failed: where the answer was lost, the elements may stand.
        let undo = move || unpin(source.as_ref()).and(remove_link(&self.host, &name));
        let laid = Undo::by(Box::new(undo) as Box<dyn Fn() -> _>);
        plan.source().map_or(Ok(()), |source| Nft::open()?.pin_source(source))?;
        log::phase("links");
        Ok(Pair { ends, laid })
    }

    /// Makes a link without addresses, for whoever looks at the link before it gives any.
    pub(super) fn lay_bare<'a>(&'a self, plan: &Plan) -> Result<Pair<'a>, Error> {
        self.ensure_bridge(plan)?;
        let pair = self.lay(plan)?;
        let inside = self.bring_up(plan, &pair)?;
        self.settle(&inside, plan, &pair)?;
        Ok(pair)
    }

    /// Gives both ends all that they are to hold, and answers with a socket in the pod. It may be done again with more.
    pub(super) fn bring_up(&self, plan: &Plan, pair: &Pair<'_>) -> Result<Rtnl, Error> {
        self.enable_forwarding(plan)?;
        let configured = self.host.configure_link(&plan.veth.host, &pair.ends.host);
        configured.map_err(|error| self.whose_route(plan, error))?;
        log::phase("node");
        let inside = self.configure_pod(plan, &pair.ends.pod)?;
        log::phase("pod");
        Ok(inside)
    }

    /// Sees to it that the network is there when the ADD is answered: not one packet is lost from then on. A bridge carries
    /// packets when a port of it does, so it is the last.
    pub(super) fn settle(&self, inside: &Rtnl, plan: &Plan, pair: &Pair<'_>) -> Result<(), Error> {
        let Veth { host: outer, pod } = &plan.veth;
        inside.settle_link(&pair.ends.pod, &pod.addresses)?;
        self.host.settle_link(&pair.ends.host, &outer.addresses)?;
        let Some(shared) = &plan.shared else { return Ok(()) };
        self.host.settle(&shared.bridge.name, &shared.bridge.addresses)?;
        if !plan.is_bare() {
            // An address may have been another pod's a moment ago, and the neighbours remember that one's hardware address.
            // The bridge lets the announcement through, for its port has settled.
            inside.announce(&pair.ends.pod)?;
        }
        Ok(())
    }

    fn create_pair(&self, veth: &Veth) -> Result<Ends, Error> {
        let error = match self.host.create_veth(veth, &self.netns) {
            Ok(ends) => return Ok(ends),
            Err(error) => error,
        };
        match error.errno() {
            // The kernel does not say which of the two names is taken, and the cure is not the same.
            Errno::EEXIST if self.netns.rtnl()?.link(&veth.pod.name)?.is_some() => {
                Err(Error::InterfaceExists {
                    ifname: veth.pod.name.clone(),
                    netns: self.netns.path().to_owned(),
                })
            }
            // Nor what it finds invalid. A namespace of another kind is told by trying to enter it.
            Errno::EINVAL => Err(self.netns.run(|| ()).map_or_else(Error::UnusableNetns, |()| error.into())),
            Errno::EEXIST => Err(error.into()),
            // It may have been the answer that was lost, and not the pair.
            _ => remove_link(&self.host, &veth.host.name).map_err(Error::from).and(Err(error.into())),
        }
    }

    /// The kernel says of a route only that there is one: whose it is has to be looked for.
    fn whose_route(&self, plan: &Plan, error: weft_datapath::Error) -> Error {
        if error.errno() != Errno::EEXIST {
            return error.into();
        }
        let routed = |route: &weft_datapath::Route| {
            let link = self.host.link_towards(route.dst.ip()).ok().flatten()?;
            let is_other = link.name != plan.veth.host.name && link.name != "lo";
            is_other.then(|| Error::Routed { address: route.dst.ip(), link: link.name })
        };
        plan.veth.host.routes.iter().find_map(routed).unwrap_or_else(|| error.into())
    }

    /// Without forwarding the node drops what its pods send through it.
    fn enable_forwarding(&self, plan: &Plan) -> Result<(), Error> {
        let needed = plan.forwarding();
        let families: Vec<_> = needed.iter().map(|(is_v4, _)| *is_v4).collect();
        let forwards = self.host.forwards(&families)?;
        let mut missing = needed.into_iter().zip(forwards).filter(|(_, forwards)| !forwards);
        missing.try_for_each(|((_, parameter), _)| Ok(sysctl::set(parameter, "1")?))
    }

    /// The parameters must be set before the interface comes up, and are those of the namespace one is in.
    fn configure_pod(&self, plan: &Plan, link: &Link) -> Result<Rtnl, Error> {
        let pod = &plan.veth.pod;
        let inside = self.netns.run(|| {
            if plan.shared.is_some() {
                announce_itself(plan)?;
            }
            // After Weft's own: what the configuration spells out has the last word.
            tuned::set(&plan.sysctls, &pod.name)?;
            Rtnl::open()
        })??;
        let configured = match inside.configure_link(pod, link) {
            Err(error) if error.errno() == Errno::EACCES && plan.has_family(false) => {
                self.turn_on_v6(&pod.name)?;
                inside.configure_link(&of_v6(pod), link)
            }
            configured => configured,
        };
        configured.map_err(|error| which_route(&inside, pod, error))?;
        Ok(inside)
    }

    /// Some runtimes turn IPv6 off in every new namespace, and the kernel then refuses addresses and routes of it, and nothing else. It
    /// is not looked at before: that would take longer than all the rest where there are many pods (`sysctl`).
    fn turn_on_v6(&self, ifname: &str) -> Result<(), Error> {
        Ok(self.netns.run(|| sysctl::set(&["ipv6", "conf", ifname, "disable_ipv6"], "0"))??)
    }
}

/// A pod of a bridge says whose its addresses are whenever its link comes up.
fn announce_itself(plan: &Plan) -> Result<(), weft_datapath::Error> {
    let ifname = plan.veth.pod.name.as_str();
    if plan.has_family(true) {
        sysctl::set(&["ipv4", "conf", ifname, "arp_notify"], "1")?;
    }
    if plan.has_family(false) {
        sysctl::set(&["ipv6", "conf", ifname, "ndisc_notify"], "1")?;
    }
    Ok(())
}

/// What of `pod` is IPv6.
fn of_v6(pod: &Interface) -> Interface {
    let mut rest = Interface { shaping: None, ..pod.clone() };
    rest.addresses.retain(IpNetwork::is_ipv6);
    rest.neighbours.retain(|neighbour| neighbour.ip.is_ipv6());
    rest.routes.retain(|route| route.dst.is_ipv6());
    rest
}

/// Two interfaces of a pod may be meant to reach the same gateway. The kernel says only that there is a route; of routes that differ in
/// their gateways it takes both.
fn which_route(inside: &Rtnl, pod: &Interface, error: weft_datapath::Error) -> Error {
    if error.errno() != Errno::EEXIST {
        return error.into();
    }
    let taken = |route: &weft_datapath::Route| {
        let within = match route.dst.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => OUTSIDE_V4,
            IpAddr::V6(_) => OUTSIDE_V6,
        };
        let link = inside.link_towards(within).ok().flatten()?;
        let is_other = link.name != pod.name && link.name != "lo";
        is_other.then_some(Error::RoutedInPod { destination: route.dst, link: link.name })
    };
    pod.routes.iter().find_map(taken).unwrap_or_else(|| error.into())
}

fn unpin(source: Option<&PinnedSource>) -> Result<(), weft_datapath::Error> {
    source.map_or(Ok(()), |source| Nft::open()?.unpin_source(&source.port))
}

fn remove_link(host: &Rtnl, name: &str) -> Result<(), weft_datapath::Error> {
    host.link(name)?.map_or(Ok(()), |link| host.delete_link(&link))
}
