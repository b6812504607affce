//! CHECK.

use weft_cni_spec::CheckRequest;
use weft_datapath::{Interface, NetNs, Nft, Observed, Route, Rtnl};
use weft_ipam::Ipam;
use weft_ipam::lease::Lease;

use crate::Error;
use crate::config::Config;
use crate::identity::Identity;
use crate::plan::{Inputs, Plan};

/// Decides the plan that ADD applied, and compares it with what stands.
pub(crate) fn check(request: &CheckRequest) -> Result<(), Error> {
    let config = Config::try_from(request)?;
    let identity = Identity::of(&request.conf.name, &request.id)?;
    let ipam = Ipam::open(request.conf.name.as_str(), &config.ipam.data_dir)?;
    let attachment = identity.attachment.to_string();
    let lease = ipam.lookup(&identity.attachment)?.ok_or(Error::NoLease { attachment })?;
    let plan = Plan::routed(Inputs {
        identity: &identity,
        ifname: request.id.ifname.as_str(),
        mac: config.mac,
        addresses: &lease.addresses,
        routes: &config.ipam.routes,
        // Not compared: the path's may have changed since, and later plugins may set it.
        mtu: 0,
        masquerade: config.masquerade,
    });

    let mut differences = missing_from_result(&lease, request);
    differences.extend(missing("on the host", &plan.veth.host, &Rtnl::open()?.observe()?));
    let inside = NetNs::open(&request.netns).and_then(|netns| netns.rtnl()).map_err(Error::UnusableNetns)?;
    let inside = inside.observe()?;
    differences.extend(missing("in the container", &plan.veth.pod, &inside));
    differences.extend(not_masqueraded(&plan)?);
    let attachment = identity.attachment.to_string();
    if differences.is_empty() { Ok(()) } else { Err(Error::Drift { attachment, differences }) }
}

fn missing_from_result(lease: &Lease, request: &CheckRequest) -> Vec<String> {
    let listed = |ip| request.prev_result.ips.iter().any(|listed| listed.address.ip() == ip);
    let ours = lease.addresses.iter().map(|assigned| assigned.address.ip());
    ours.filter(|ip| !listed(*ip))
        .map(|ip| format!("the lease holds {ip}, which prevResult does not list"))
        .collect()
}

/// What `interface` should hold and `seen` does not have. What stands beside it is none of ours: later plugins of the
/// list may have put it there.
fn missing(side: &str, interface: &Interface, seen: &Observed) -> Vec<String> {
    let name = &interface.name;
    let Some(link) = seen.link(name) else { return vec![format!("{name} is missing {side}")] };
    let mut differences = Vec::new();
    if interface.alias.is_some() && link.alias != interface.alias {
        differences.push(format!("{name} has lost its mark as alias {side}"));
    }
    if !link.up {
        differences.push(format!("{name} is down {side}"));
    }
    for address in
        interface.addresses.iter().filter(|address| !seen.addresses.contains(&(link.index, **address)))
    {
        differences.push(format!("{name} has lost the address {address} {side}"));
    }
    let is_known =
        |neighbour: &&_| !seen.neighbours.iter().any(|(index, n)| *index == link.index && n == *neighbour);
    for neighbour in interface.neighbours.iter().filter(is_known) {
        differences.push(format!("{name} has lost the neighbour {} {side}", neighbour.ip));
    }
    let stands =
        |route: &Route| seen.routes.iter().any(|(index, r)| *index == link.index && is_same(route, r));
    for route in interface.routes.iter().filter(|route| !stands(route)) {
        differences.push(format!("{name} has lost the route {} {side}", route.dst));
    }
    differences
}

/// Whether `seen` is what came of `planned`: what the plan leaves open the kernel has filled in.
fn is_same(planned: &Route, seen: &Route) -> bool {
    let agrees = |planned: Option<u32>, seen: Option<u32>| planned.is_none() || planned == seen;
    planned.dst == seen.dst
        && planned.gateway == seen.gateway
        && agrees(planned.table.or(Some(MAIN_TABLE)), seen.table)
        && agrees(planned.priority, seen.priority)
        && agrees(planned.mtu, seen.mtu)
        && agrees(planned.advmss, seen.advmss)
}

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

fn not_masqueraded(plan: &Plan) -> Result<Vec<String>, Error> {
    if plan.masquerade.is_empty() {
        return Ok(Vec::new());
    }
    let nft = Nft::open()?;
    let mut differences = Vec::new();
    for element in &plan.masquerade {
        let ip = element.address.ip();
        match nft.find(ip)? {
            Some(found) if found.is_of(&element.owner) => {}
            Some(found) => differences.push(format!("{ip} is masqueraded for {:?}", found.owner)),
            None => differences.push(format!("{ip} is no longer masqueraded")),
        }
    }
    Ok(differences)
}
