//! Attributes, shaping and parameters beside what the plan says of them, on an interface of another plugin's.

use nix::errno::Errno;
use weft_datapath::{Interface, NetNs, Rtnl, sysctl};

use super::Node;
use super::interface::attributes;
use crate::Error;
use crate::config::Sysctl;
use crate::finding::{Finding, Findings};
use crate::plan::Tuned;
use crate::tuned::other_end;

/// What `tuned` asks for, and what of it stands.
pub(super) fn compare(netns: &NetNs, tuned: &Tuned, node: &Node) -> Result<Vec<Finding>, Error> {
    if tuned.is_nothing() {
        return Ok(Vec::new());
    }
    let ifname = tuned.pod.name.as_str();
    let (inside, parameters) = netns.run(|| (Rtnl::open(), parameters(&tuned.sysctls, ifname)))?;
    let (inside, parameters) = (inside?, parameters?);
    let seen = inside.observe()?;
    let link = seen.link(ifname);
    let wanted = Interface { shaping: tuned.from_pod, ..tuned.pod.clone() };
    let mut pod = Findings::at(format!("pod {ifname}"));
    pod.note_presence("link", ifname, link.is_some());
    attributes(&mut pod, &wanted, link, &seen);
    if let Some(mtu) = wanted.mtu {
        pod.note("mtu", mtu.to_string(), link.map(|link| link.mtu.to_string()));
    }
    let mut findings = pod.into_list();
    findings.extend(parameters);
    if tuned.to_pod.is_some() {
        findings.extend(other(&inside, tuned, node)?);
    }
    Ok(findings)
}

fn other(inside: &Rtnl, tuned: &Tuned, node: &Node) -> Result<Vec<Finding>, Error> {
    let host = Rtnl::open()?;
    let link = match other_end(&host, inside, &tuned.pod.name) {
        Ok(link) => Some(link),
        Err(Error::NoPair { .. }) => None,
        Err(error) => return Err(error),
    };
    let name = link.as_ref().map_or("", |link| link.name.as_str());
    let wanted = Interface { shaping: tuned.to_pod, ..Interface::named(name) };
    let mut findings = Findings::at(format!("node {name}").trim_end());
    attributes(&mut findings, &wanted, link.as_ref(), node.observed()?);
    Ok(findings.into_list())
}

/// The parameters of the namespace that the thread is in. One that can only be written says nothing.
pub(super) fn parameters(sysctls: &[Sysctl], ifname: &str) -> Result<Vec<Finding>, Error> {
    let mut findings = Findings::at("pod");
    for parameter in sysctls {
        let Sysctl { name, value, .. } = parameter;
        let found = match sysctl::get(&parameter.path(ifname)) {
            Ok(Some(found)) if is_same(value, &found) => Some(value.clone()),
            Err(error) if error.errno() == Errno::EACCES => continue,
            found => found?,
        };
        findings.note("sysctl", format!("{name} = {value}"), found.map(|found| format!("{name} = {found}")));
    }
    Ok(findings.into_list())
}

/// The kernel writes several numbers with tabs between them.
fn is_same(asked: &str, found: &str) -> bool {
    asked.split_whitespace().eq(found.split_whitespace())
}
