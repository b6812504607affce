//! ADD.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use weft_cni_spec::{AddRequest, AddResult, Dns, Route};
use weft_datapath::{Ends, Link, NetNs, Nft, Rtnl, Veth, sysctl};
use weft_ipam::lease::Assigned;
use weft_ipam::resolv_conf;

use crate::addresses::Source;
use crate::allow_list::allow;
use crate::config::Config;
use crate::identity::Identity;
use crate::plan::{Inputs, Plan, Shared};
use crate::undo::Undo;
use crate::{Error, chained, extras, log, ports, tuned};

type Undone = Result<(), weft_datapath::Error>;
type Undoing<F> = Undo<F, weft_datapath::Error>;

/// MTU of a pair on a node that has no way to the outside.
const MTU_DEFAULT: u32 = 1500;

/// Attaches the container, or adds to what the plugins before this one have attached.
pub(crate) fn attach(request: &AddRequest) -> Result<AddResult, Error> {
    match request.conf.prev_result()? {
        Some(result) => chained::attach(request, result),
        None => create(request),
    }
}

/// Makes the attachment: take addresses, decide, apply. What was done is undone on every early return.
///
/// On a bridge another IPAM plugin is asked when the interface is there, as by the reference's bridge: it may work on the
/// link, as DHCP does. Everywhere else addresses come first, for an ADD that gets none has then nothing to undo.
fn create(request: &AddRequest) -> Result<AddResult, Error> {
    let config = Config::try_from(request)?;
    allow(&config.tuning.sysctls)?;
    let identity = Identity::of(request.network(), &request.id)?;
    log::phase("config");
    let netns = NetNs::open(&request.netns).map_err(Error::UnusableNetns)?;
    let host = Rtnl::open()?;
    let source = Source::open(request, &config)?;
    if let Source::Delegate(_) = source {
        refuse_second(&host, &netns, &identity, request.id.ifname.as_str())?;
    }
    log::phase("namespace");
    let ifname = request.id.ifname.as_str();
    let decide = |addresses: &[Assigned], routes: &[Route]| {
        let mtu = config.mtu.map_or_else(|| detect_mtu(&host, addresses), Ok)?;
        let inputs = Inputs::new(&config, &identity, ifname, addresses);
        Ok::<_, Error>(Plan::new(&config.mode, Inputs { routes, mtu, ..inputs }))
    };

    let bare = source.is_asked_on_link(&config.mode).then(|| decide(&[], &[])).transpose()?;
    bare.iter().try_for_each(|plan| ensure_bridge(&host, plan).map(drop))?;
    let early = bare.as_ref().map(|plan| lay(&host, &netns, plan)).transpose()?;
    if let (Some(plan), Some((_, ends))) = (&bare, &early) {
        settle(&host, &netns, &bring_up(&host, &netns, plan, ends)?, plan, ends)?;
    }
    let taken = source.take(request, &config, &identity)?;
    log::phase("ipam");
    log::fact("addresses", || join(&taken.addresses));
    let dns = name_service(&config, &taken.dns)?;
    let mut plan = decide(&taken.addresses, &taken.routes)?;
    let firewall = extras::open(&plan.extras)?;
    ports::claim(&config, firewall.as_ref(), &mut plan.extras)?;
    let answer = plan.result(&request.netns.to_string_lossy(), dns);
    log::phase("plan");

    let bridge = ensure_bridge(&host, &plan)?;
    let answer = bridge.iter().fold(answer, Shared::report);
    let late = if early.is_none() { Some(lay(&host, &netns, &plan)?) } else { None };
    let ends = early.as_ref().map(|(_, ends)| ends).or(late.as_ref().map(|(_, ends)| ends));
    let ends = ends.expect("a pair that was not made before has just been made");
    let inside = bring_up(&host, &netns, &plan, ends)?;
    let extras = extras::apply(firewall.as_ref(), &identity, &plan.extras, plan.way_to_pod())?;
    log::phase("nft");
    // What the kernel does in its own time it may have done by now.
    settle(&host, &netns, &inside, &plan, ends)?;
    if plan.shared.is_some() && !plan.is_bare() {
        // An address may have been another pod's a moment ago, and the neighbours remember that one's hardware address.
        // The bridge lets the announcement through, for its port has settled.
        inside.announce(&ends.pod)?;
    }
    log::phase("settle");

    extras.keep();
    late.into_iter().for_each(|(laid, _)| laid.keep());
    taken.keep();
    early.into_iter().for_each(|(laid, _)| laid.keep());
    Ok(answer)
}

fn join(addresses: &[Assigned]) -> String {
    let addresses = addresses.iter().map(|assigned| assigned.address.to_string());
    addresses.collect::<Vec<_>>().join(",")
}

/// It is everybody's, so nobody undoes it.
fn ensure_bridge(host: &Rtnl, plan: &Plan) -> Result<Option<Link>, Error> {
    Ok(plan.shared.as_ref().map(|shared| host.ensure_bridge(&shared.bridge)).transpose()?)
}

/// Makes the pair, whose ends are down, and holds the pod to its hardware address where it is to be held: not one packet
/// goes unchecked.
fn lay<'a>(
    host: &'a Rtnl,
    netns: &NetNs,
    plan: &'a Plan,
) -> Result<(Undoing<impl Fn() -> Undone + 'a>, Ends), Error> {
    let ends = create_pair(host, &plan.veth, netns)?;
    let laid = Undo::by(|| unpin_source(plan).and(remove_pair(host, &plan.veth)));
    pin_source(plan)?;
    log::phase("links");
    Ok((laid, ends))
}

/// Gives both ends all that they are to hold. It may be done again with more.
fn bring_up(host: &Rtnl, netns: &NetNs, plan: &Plan, ends: &Ends) -> Result<Rtnl, Error> {
    enable_forwarding(plan)?;
    host.configure_link(&plan.veth.host, &ends.host).map_err(|error| whose_route(host, plan, error))?;
    log::phase("node");
    let inside = configure_pod(netns, plan, &ends.pod)?;
    log::phase("pod");
    Ok(inside)
}

/// The kernel says of a route only that there is one: whose it is has to be looked for.
fn whose_route(host: &Rtnl, plan: &Plan, error: weft_datapath::Error) -> Error {
    if error.errno() != Errno::EEXIST {
        return error.into();
    }
    let routed = |route: &weft_datapath::Route| {
        let link = host.link_towards(route.dst.ip()).ok().flatten()?;
        let is_other = link.name != plan.veth.host.name && link.name != "lo";
        is_other.then(|| Error::Routed { address: route.dst.ip(), link: link.name })
    };
    plan.veth.host.routes.iter().find_map(routed).unwrap_or_else(|| error.into())
}

/// Sees to it that the network is there when the ADD is answered: not one packet is lost from then on. A bridge carries
/// packets when a port of it does, so it is the last.
fn settle(host: &Rtnl, netns: &NetNs, inside: &Rtnl, plan: &Plan, ends: &Ends) -> Result<(), Error> {
    let Veth { host: outer, pod } = &plan.veth;
    // Who has to wait has to be there; a look does not.
    if !inside.is_settled(&ends.pod, &pod.addresses)? {
        netns.run(|| inside.settle(&pod.name, &pod.addresses))??;
    }
    if !host.is_settled(&ends.host, &outer.addresses)? {
        host.settle(&outer.name, &outer.addresses)?;
    }
    let bridge = plan.shared.as_ref().map(|shared| &shared.bridge);
    Ok(bridge.map_or(Ok(()), |bridge| host.settle(&bridge.name, &bridge.addresses))?)
}

/// An attachment that stands has to stay as it is. A lease of its own tells Weft; another plugin must not even be asked,
/// for when its answer is lost it is told to undo what it did, and that would be what the pod lives on.
fn refuse_second(host: &Rtnl, netns: &NetNs, identity: &Identity, ifname: &str) -> Result<(), Error> {
    let inside = netns.rtnl().map_err(Error::UnusableNetns)?;
    let exists = if inside.link(ifname)?.is_some() {
        Some((ifname.to_owned(), netns.path().to_owned()))
    } else {
        host.link(&identity.host_ifname)?.map(|link| (link.name, "/proc/self/ns/net".into()))
    };
    exists.map_or(Ok(()), |(ifname, netns)| Err(Error::InterfaceExists { ifname, netns }))
}

/// What the configuration spells out, or else what its `resolvConf` or another IPAM plugin says.
fn name_service(config: &Config, given: &Dns) -> Result<Dns, Error> {
    if config.dns != Dns::default() {
        return Ok(config.dns.clone());
    }
    let Some(path) = config.addressing.resolv_conf() else { return Ok(given.clone()) };
    resolv_conf::read(path).map_err(|source| Error::ResolvConf { path: path.to_owned(), source })
}

/// The smallest MTU on the way to the outside, of the families that there is an address of, or, where there is none yet, of
/// both. The destinations stand for "anything": only a default route leads there.
fn detect_mtu(host: &Rtnl, addresses: &[Assigned]) -> Result<u32, Error> {
    const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1));
    const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));
    let is_asked = |outside: &IpAddr| {
        let of_family = |assigned: &Assigned| assigned.address.is_ipv4() == outside.is_ipv4();
        addresses.is_empty() || addresses.iter().any(of_family)
    };
    let outside: Vec<_> = [OUTSIDE_V4, OUTSIDE_V6].into_iter().filter(is_asked).collect();
    Ok(host.path_mtu(&outside)?.unwrap_or(MTU_DEFAULT))
}

fn create_pair(host: &Rtnl, veth: &Veth, netns: &NetNs) -> Result<Ends, Error> {
    let error = match host.create_veth(veth, netns) {
        Ok(ends) => return Ok(ends),
        Err(error) => error,
    };
    match error.errno() {
        // The kernel does not say which of the two names is taken, and the cure is not the same.
        Errno::EEXIST if netns.rtnl()?.link(&veth.pod.name)?.is_some() => {
            Err(Error::InterfaceExists { ifname: veth.pod.name.clone(), netns: netns.path().to_owned() })
        }
        // Nor what it finds invalid. A namespace of another kind is told by trying to enter it.
        Errno::EINVAL => Err(netns.run(|| ()).map_or_else(Error::UnusableNetns, |()| error.into())),
        Errno::EEXIST => Err(error.into()),
        // It may have been the answer that was lost, and not the pair.
        _ => remove_pair(host, veth).map_err(Error::from).and(Err(error.into())),
    }
}

fn remove_pair(host: &Rtnl, veth: &Veth) -> Result<(), weft_datapath::Error> {
    host.link(&veth.host.name)?.map_or(Ok(()), |link| host.delete_link(&link))
}

/// Without forwarding the node drops what its pods send through it.
fn enable_forwarding(plan: &Plan) -> Result<(), Error> {
    plan.forwarding().into_iter().try_for_each(|parameter| Ok(sysctl::set(parameter, "1")?))
}

/// The parameters must be set before the interface comes up, and are those of the namespace one is in.
fn configure_pod(netns: &NetNs, plan: &Plan, link: &Link) -> Result<Rtnl, Error> {
    let (needs_v4, needs_v6) = (plan.has_family(true), plan.has_family(false));
    let is_shared = plan.shared.is_some();
    let ifname = plan.veth.pod.name.as_str();
    let inside = netns.run(|| {
        if needs_v6 {
            // Some runtimes turn IPv6 off in every new namespace.
            sysctl::set(&["ipv6", "conf", ifname, "disable_ipv6"], "0")?;
            // For the link-local address; those of the lease say so themselves.
            sysctl::set(&["ipv6", "conf", ifname, "accept_dad"], "0")?;
        }
        if is_shared && needs_v4 {
            sysctl::set(&["ipv4", "conf", ifname, "arp_notify"], "1")?;
        }
        if is_shared && needs_v6 {
            sysctl::set(&["ipv6", "conf", ifname, "ndisc_notify"], "1")?;
        }
        // After Weft's own: what the configuration spells out has the last word.
        tuned::set(&plan.sysctls, ifname)?;
        Rtnl::open()
    })??;
    inside.configure_link(&plan.veth.pod, link)?;
    Ok(inside)
}

fn pin_source(plan: &Plan) -> Result<(), Error> {
    let source = plan.shared.as_ref().and_then(|shared| shared.source.as_ref());
    source.map_or(Ok(()), |source| Ok(Nft::open()?.pin_source(source)?))
}

/// Also for an attempt that failed: where the answer was lost, the elements may stand.
fn unpin_source(plan: &Plan) -> Result<(), weft_datapath::Error> {
    let source = plan.shared.as_ref().and_then(|shared| shared.source.as_ref());
    source.map_or(Ok(()), |source| Nft::open()?.unpin_source(&source.port))
}
