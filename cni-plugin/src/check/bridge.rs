//! A bridge, and a port of one, beside what the plan says of them.

use weft_datapath::{Bridge, Link, Nft, Observed, Port};

use super::interface::{switch, up};
use crate::Error;
use crate::extras::{note_chains, whose};
use crate::finding::{Finding, Findings};
use crate::plan::Plan;

/// What `link` is to be on its bridge.
pub(super) fn port(findings: &mut Findings, port: &Port, link: Option<&Link>, seen: &Observed) {
    let master = link.and_then(|link| link.master);
    let bridge = master.map(|index| {
        let bridge = seen.links.iter().find(|link| link.index == index);
        bridge.map_or_else(|| index.to_string(), |bridge| bridge.name.clone())
    });
    findings.note("master", &port.bridge, bridge);
    for (flag, asked, found) in [
        ("hairpin", port.hairpin, link.map(|link| link.hairpin)),
        ("isolated", port.isolated, link.map(|link| link.isolated)),
    ] {
        if asked {
            findings.note(flag, switch(true), found.map(|on| switch(on).to_owned()));
        }
    }
}

/// What `bridge` is to have.
pub(super) fn compare(bridge: &Bridge, seen: &Observed) -> Vec<Finding> {
    let mut findings = Findings::at(format!("node {}", bridge.name));
    let link = seen.link(&bridge.name);
    findings.note("link", "up", link.map(|link| up(link.up).to_owned()));
    for address in &bridge.addresses {
        let holds = |link: &Link| seen.addresses.contains(&(link.index, *address));
        findings.note_presence("address", address.to_string(), link.is_some_and(holds));
    }
    findings.into_list()
}

/// The one address that the pod may send from, where it is held to one.
pub(super) fn source(plan: &Plan) -> Result<Vec<Finding>, Error> {
    let Some(source) = plan.source() else { return Ok(Vec::new()) };
    let mut findings = Findings::at("nft bridge weft");
    let nft = Nft::open()?;
    let found = nft.pinned_source(&source.port)?.map(|found| {
        whose(format!("{} at {}", found.port, found.mac), found.is_of(&source.owner), &found.owner)
    });
    findings.note("source", format!("{} at {}", source.port, source.mac), found);
    note_chains(&mut findings, nft.bridge_chains()?);
    Ok(findings.into_list())
}
