//! CHECK.

mod bridge;
mod tuning;

use weft_cni_spec::CheckRequest;
use weft_datapath::{Interface, NetNs, Observed, Route, Rtnl};
use weft_ipam::lease::Assigned;

use crate::config::{Addressing, Config};
use crate::delegate::Delegate;
use crate::identity::Identity;
use crate::plan::{Inputs, Plan, Tuned};
use crate::{Error, addresses, extras};

/// Decides the plan that ADD applied, and compares it with what stands.
pub(crate) fn check(request: &CheckRequest) -> Result<(), Error> {
    let config = Config::try_from(request)?;
    let identity = Identity::of(&request.conf.name, &request.id)?;
    let (addresses, routes) = addresses::recall(request, &config, &identity)?;
    // The MTU is not compared: the path's may have changed since, and later plugins may set it.
    let inputs = Inputs::new(&config, &identity, request.id.ifname.as_str(), &addresses);
    let plan = Plan::new(&config.mode, Inputs { routes: &routes, ..inputs });

    let mut differences = missing_from_result(&addresses, request);
    differences.extend(match config.addressing {
        Addressing::Chained => tuning::missing(request, &Tuned::of(&inputs))?,
        Addressing::Leases(_) | Addressing::Delegate(_) => missing_ends(request, &plan)?,
    });
    differences.extend(extras::missing(&plan.extras)?);
    let attachment = identity.attachment.to_string();
    if !differences.is_empty() {
        return Err(Error::Drift { attachment, differences });
    }
    match &config.addressing {
        Addressing::Delegate(name) => Ok(Delegate::find(name, &request.path, &request.conf)?.check()?),
        Addressing::Leases(_) | Addressing::Chained => Ok(()),
    }
}

fn missing_ends(request: &CheckRequest, plan: &Plan) -> Result<Vec<String>, Error> {
    let outside = Rtnl::open()?.observe()?;
    let mut differences = missing("on the host", &plan.veth.host, &outside);
    differences.extend(plan.shared.iter().flat_map(|shared| bridge::missing(&shared.bridge, &outside)));
    differences.extend(bridge::unpinned(plan)?);
    let netns = NetNs::open(&request.netns).map_err(Error::UnusableNetns)?;
    let (inside, mistuned) = netns
        .run(|| (Rtnl::open(), tuning::parameters(&plan.sysctls, &plan.veth.pod.name)))
        .map_err(Error::UnusableNetns)?;
    differences.extend(missing("in the container", &plan.veth.pod, &inside?.observe()?));
    differences.extend(mistuned?);
    Ok(differences)
}

fn missing_from_result(addresses: &[Assigned], request: &CheckRequest) -> Vec<String> {
    let listed = |ip| request.prev_result.ips.iter().any(|listed| listed.address.ip() == ip);
    let ours = addresses.iter().map(|assigned| assigned.address.ip());
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
    differences.extend(tuning::lost(side, interface, link, seen));
    if let Some(port) = &interface.port {
        differences.extend(bridge::not_a_port(port, link, seen));
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
