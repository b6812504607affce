//! CHECK, and the comparison that it shares with `explain` and `audit`.

use std::path::Path;

use weft_cni_spec::CheckRequest;
use weft_datapath::{NetNs, Rtnl, sysctl};
use weft_ipam::lease::Assigned;

use crate::config::{Addressing, Config};
use crate::delegate::Delegate;
use crate::finding::{Finding, Findings, differences};
use crate::identity::Identity;
use crate::plan::{Inputs, Plan, Tuned};
use crate::{Error, addresses, extras};

mod bridge;
mod interface;
mod node;
mod tuning;

pub(crate) use interface::missing;
pub(crate) use node::Node;

/// Decides the plan that ADD applied, and compares it with what stands.
pub(crate) fn check(request: &CheckRequest) -> Result<(), Error> {
    let config = Config::try_from(request)?;
    let identity = Identity::of(&request.conf.name, &request.id)?;
    let (addresses, routes) = addresses::recall(request, &config, &identity)?;
    // The MTU is not compared: the path's may have changed since, and later plugins may set it.
    let inputs = Inputs::new(&config, &identity, request.id.ifname.as_str(), &addresses);
    let inputs = as_reported(request, &config, Inputs { routes: &routes, ..inputs });

    let mut findings = in_result(&addresses, request);
    findings.extend(compare(&config, &inputs, Some(&request.netns), &Node::default())?);
    let differences = differences(&findings);
    if !differences.is_empty() {
        return Err(Error::Drift { attachment: identity.attachment.to_string(), differences });
    }
    match &config.addressing {
        Addressing::Delegate(name) => Ok(Delegate::find(name, &request.path, &request.conf)?.check()?),
        Addressing::Leases(_) | Addressing::Chained | Addressing::Nobody => Ok(()),
    }
}

/// A plugin behind the one that made the interface may have set another hardware address, and said so in the result.
pub(crate) fn as_reported<'a>(request: &CheckRequest, config: &Config, inputs: Inputs<'a>) -> Inputs<'a> {
    if config.addressing == Addressing::Chained {
        return inputs;
    }
    let reported = addresses::mac_of_interface(&request.prev_result, inputs.ifname);
    Inputs { mac: reported.or(inputs.mac), ..inputs }
}

/// Decides what ADD decides for `inputs`, and looks at all of it: on the node, and in the namespace if it is still there.
pub(crate) fn compare(
    config: &Config,
    inputs: &Inputs<'_>,
    netns: Option<&Path>,
    node: &Node,
) -> Result<Vec<Finding>, Error> {
    let netns = netns.map(NetNs::open).transpose().map_err(Error::UnusableNetns)?;
    let plan = Plan::new(&config.mode, *inputs);
    let mut findings = match config.addressing {
        Addressing::Chained => {
            let tuned = Tuned::of(&Inputs { mtu: config.mtu.unwrap_or_default(), ..*inputs });
            netns.map_or_else(|| Ok(Vec::new()), |netns| tuning::compare(&netns, &tuned, node))?
        }
        Addressing::Leases(_) | Addressing::Delegate(_) | Addressing::Nobody => {
            ends(&plan, netns.as_ref(), node)?
        }
    };
    findings.extend(extras::compare(&plan.extras)?);
    Ok(findings)
}

fn ends(plan: &Plan, netns: Option<&NetNs>, node: &Node) -> Result<Vec<Finding>, Error> {
    let outside = node.observed()?;
    let mut findings = interface::compare("node", &plan.veth.host, outside);
    findings.extend(plan.shared.iter().flat_map(|shared| bridge::compare(&shared.bridge, outside)));
    findings.extend(bridge::source(plan)?);
    findings.extend(forwarding(plan)?);
    let Some(netns) = netns else { return Ok(findings) };
    let (inside, parameters) = netns
        .run(|| (Rtnl::open(), tuning::parameters(&plan.sysctls, &plan.veth.pod.name)))
        .map_err(Error::UnusableNetns)?;
    findings.extend(interface::compare("pod", &plan.veth.pod, &inside?.observe()?));
    findings.extend(parameters?);
    Ok(findings)
}

/// Whether the node passes on what its pods send.
fn forwarding(plan: &Plan) -> Result<Vec<Finding>, Error> {
    let mut findings = Findings::at("node");
    for (_, parameter) in plan.forwarding() {
        let name = format!("net.{}", parameter.join("."));
        let found = sysctl::get(parameter)?.map(|value| format!("{name} = {value}"));
        findings.note("sysctl", format!("{name} = 1"), found);
    }
    Ok(findings.into_list())
}

fn in_result(addresses: &[Assigned], request: &CheckRequest) -> Vec<Finding> {
    let mut findings = Findings::at("prevResult");
    for ip in addresses.iter().map(|assigned| assigned.address.ip()) {
        let is_listed = request.prev_result.ips.iter().any(|listed| listed.address.ip() == ip);
        findings.note_presence("address", ip.to_string(), is_listed);
    }
    findings.into_list()
}
