//! What CHECK compares on a bridge.

use weft_datapath::{Bridge, Link, Nft, Observed, Port};

use crate::Error;
use crate::plan::Plan;

/// What `port` is to be on its bridge and `link` is not.
pub(super) fn not_a_port(port: &Port, link: &Link, seen: &Observed) -> Vec<String> {
    let (name, bridge) = (&link.name, &port.bridge);
    let index = seen.link(bridge).map(|bridge| bridge.index);
    let differs = [
        (index.is_none() || link.master != index, format!("{name} is no port of {bridge}")),
        (port.hairpin && !link.hairpin, format!("{name} has lost its hairpin mode")),
        (port.isolated && !link.isolated, format!("{name} is no longer isolated")),
    ];
    differs.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
}

/// What `bridge` has lost.
pub(super) fn missing(bridge: &Bridge, seen: &Observed) -> Vec<String> {
    // That it is gone is told of its port.
    let Some(link) = seen.link(&bridge.name) else { return Vec::new() };
    let lost = bridge.addresses.iter().filter(|address| !seen.addresses.contains(&(link.index, **address)));
    let mut differences: Vec<_> =
        lost.map(|address| format!("{} has lost the gateway {address}", link.name)).collect();
    if !link.up {
        differences.push(format!("{} is down", link.name));
    }
    differences
}

/// Whether the pod may send from other hardware addresses, though it should not.
pub(super) fn unpinned(plan: &Plan) -> Result<Option<String>, Error> {
    let Some(source) = plan.shared.as_ref().and_then(|shared| shared.source.as_ref()) else {
        return Ok(None);
    };
    let stands = Nft::open()?
        .pinned_source(&source.port)?
        .is_some_and(|found| found.mac == source.mac && found.is_of(&source.owner));
    Ok((!stands).then(|| format!("{} is no longer held to the address {}", source.port, source.mac)))
}
