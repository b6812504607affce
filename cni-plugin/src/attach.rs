//! ADD.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use weft_cni_spec::{AddRequest, AddResult, Dns};
use weft_datapath::{NetNs, Nft, Rtnl, Veth, sysctl};
use weft_ipam::lease::{Lease, NetnsIdentity};
use weft_ipam::{Ipam, Request, resolv_conf};

use crate::Error;
use crate::config::Config;
use crate::detach::evict;
use crate::error::mistake;
use crate::identity::Identity;
use crate::plan::{Inputs, Plan};
use crate::undo::Undo;

/// MTU of a pair on a node that has no way to the outside.
const MTU_DEFAULT: u32 = 1500;

/// Attaches the container: reserve, decide, apply. What was done is undone on every early return.
pub(crate) fn attach(request: &AddRequest) -> Result<AddResult, Error> {
    refuse_chained(request)?;
    let config = Config::try_from(request)?;
    let identity = Identity::of(request.network(), &request.id)?;
    let netns = NetNs::open(&request.netns).map_err(Error::UnusableNetns)?;
    let host = Rtnl::open()?;
    let dns = name_service(&config)?;

    let ipam = Ipam::open(request.network().as_str(), &config.ipam.data_dir)?.evicting_with(evict);
    let reservation = ipam.reserve(&config.ipam.pool, wish(request, &config, &identity)?)?;
    let mtu = config.mtu.map_or_else(|| detect_mtu(&host, reservation.lease()), Ok)?;
    let plan = Plan::routed(Inputs {
        identity: &identity,
        ifname: request.id.ifname.as_str(),
        mac: config.mac,
        addresses: &reservation.lease().addresses,
        routes: &config.ipam.routes,
        mtu,
        masquerade: config.masquerade,
    });
    let answer = plan.result(&request.netns.to_string_lossy(), dns);

    create_pair(&host, &plan.veth, &netns)?;
    let pair = Undo::by(|| remove_pair(&host, &plan.veth));
    enable_forwarding(&plan)?;
    host.configure(&plan.veth.host)?;
    configure_pod(&netns, &plan)?;
    let elements = Undo::by(|| stop_masquerading(&identity, &plan));
    masquerade(&plan)?;

    elements.keep();
    pair.keep();
    reservation.keep();
    Ok(answer)
}

/// Behind another plugin there is an interface already, and none of Weft's keys asks for anything but one.
fn refuse_chained(request: &AddRequest) -> Result<(), Error> {
    if request.conf.prev_result()?.is_none() {
        return Ok(());
    }
    let what = "weft-cni makes the interface and must be the first plugin of the list";
    Err(Error::Config(weft_ipam::config::Mistakes(vec![mistake("prevResult", what)])))
}

fn wish(request: &AddRequest, config: &Config, identity: &Identity) -> Result<Request, Error> {
    let unidentified = |source| Error::Netns { path: request.netns.clone(), source };
    Ok(Request {
        requested: config.requested.clone(),
        pod: config.pod.clone(),
        netns: Some(NetnsIdentity::of(&request.netns).map_err(unidentified)?),
        ..Request::new(identity.attachment.clone())
    })
}

/// What the configuration spells out, or else what its `resolvConf` says.
fn name_service(config: &Config) -> Result<Dns, Error> {
    match &config.ipam.resolv_conf {
        Some(path) if config.dns == Dns::default() => {
            let text = fs::read_to_string(path);
            text.map(|text| resolv_conf::parse(&text))
                .map_err(|source| Error::ResolvConf { path: path.clone(), source })
        }
        _ => Ok(config.dns.clone()),
    }
}

/// The smallest MTU on the way to the outside. The destinations stand for "anything": only a default route leads there.
fn detect_mtu(host: &Rtnl, lease: &Lease) -> Result<u32, Error> {
    const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1));
    const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0));
    let mut found = Vec::new();
    for outside in [OUTSIDE_V4, OUTSIDE_V6] {
        if lease.addresses.iter().any(|assigned| assigned.address.is_ipv4() == outside.is_ipv4()) {
            found.extend(host.path_mtu(outside)?);
        }
    }
    Ok(found.into_iter().min().unwrap_or(MTU_DEFAULT))
}

fn create_pair(host: &Rtnl, veth: &Veth, netns: &NetNs) -> Result<(), Error> {
    let Err(error) = host.create_veth(veth, netns) else { return Ok(()) };
    match error.errno() {
        // The kernel does not say which of the two names is taken, and the cure is not the same.
        Errno::EEXIST if netns.rtnl()?.link(&veth.pod.name)?.is_some() => {
            Err(Error::InterfaceExists { ifname: veth.pod.name.clone(), netns: netns.path().to_owned() })
        }
        // Nor what it finds invalid. A namespace of another kind is told by trying to enter it.
        Errno::EINVAL => netns.run(|| ()).map_err(Error::UnusableNetns).and(Err(error.into())),
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
    if plan.has_family(true) {
        sysctl::set(&["ipv4", "ip_forward"], "1")?;
    }
    if plan.has_family(false) {
        sysctl::set(&["ipv6", "conf", "all", "forwarding"], "1")?;
    }
    Ok(())
}

/// The parameters must be set before the interface comes up, and are those of the namespace one is in.
fn configure_pod(netns: &NetNs, plan: &Plan) -> Result<(), Error> {
    let needs_v6 = plan.has_family(false);
    let ifname = plan.veth.pod.name.as_str();
    let inside = netns.run(|| {
        if needs_v6 {
            // Some runtimes turn IPv6 off in every new namespace.
            sysctl::set(&["ipv6", "conf", ifname, "disable_ipv6"], "0")?;
            // For the link-local address; those of the lease say so themselves.
            sysctl::set(&["ipv6", "conf", ifname, "accept_dad"], "0")?;
        }
        Rtnl::open()
    })??;
    Ok(inside.configure(&plan.veth.pod)?)
}

/// Also for an attempt that failed: where the answer was lost, the elements may stand. Nobody else's are touched.
fn stop_masquerading(identity: &Identity, plan: &Plan) -> Result<(), weft_datapath::Error> {
    let addresses: Vec<_> = plan.masquerade.iter().map(|element| element.address.ip()).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    Nft::open()?.stop_masquerading(&identity.mark(), &addresses)
}

fn masquerade(plan: &Plan) -> Result<(), Error> {
    if plan.masquerade.is_empty() {
        return Ok(());
    }
    Ok(Nft::open()?.masquerade(&plan.masquerade)?)
}
