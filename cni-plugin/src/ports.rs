//! Host ports: what the verbs do with them beside deciding which there are.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use nix::errno::Errno;
use serde_json::Value;
use weft_datapath::{Nft, PortSources, Published, Rtnl, conntrack, sysctl};
use weft_ipam::Ipam;
use weft_ipam::config::Mistakes;
use weft_ipam::lease::{Lease, Notes};
use weft_ipam::store::local::DEFAULT_DIR;

use crate::Error;
use crate::config::Config;
use crate::config::ports::{PortMapping, parse};
use crate::detach::evict;
use crate::error::mistake;
use crate::extras::whose;
use crate::finding::Findings;
use crate::plan::{Extras, ports};

/// Under which name a lease has the mappings.
const NOTE: &str = "portMappings";

/// What the lease has to say so that DEL finds the ports again, whatever the configuration says by then.
pub(crate) fn note(mappings: &[PortMapping]) -> Notes {
    let list: Vec<_> = mappings.iter().map(PortMapping::to_json).collect();
    if list.is_empty() { Notes::new() } else { Notes::from_iter([(NOTE.to_owned(), Value::Array(list))]) }
}

/// Fails where a mapping leads nowhere or a port is another container's, before anything stands. A port whose pod is gone
/// is taken from it first. One that another attachment of the same container has stays with that one: podman asks for a
/// container's ports on every network that it joins, and with the reference, too, the first of them serves.
pub(crate) fn claim(config: &Config, nft: Option<&Nft>, extras: &mut Extras) -> Result<(), Error> {
    refuse_unserved(config, extras)?;
    let Some(nft) = nft.filter(|_| !extras.published.is_empty()) else { return Ok(()) };
    let mut held = held(nft, extras)?;
    if reclaim(&held, data_dir(config)) {
        held = self::held(nft, extras)?;
    }
    extras.published.retain(|port| !held.iter().any(|found| found.at == port.at && is_sibling(found, port)));
    let others = held.into_iter().find(|found| extras.published.iter().any(|port| port.at == found.at));
    others.map_or(Ok(()), |found| Err(refusal(found)))
}

/// Of a configuration's own ranges the families are known before; other plugins show them by their addresses.
fn refuse_unserved(config: &Config, extras: &Extras) -> Result<(), Error> {
    let published: HashSet<_> = extras.published.iter().map(|published| published.at).collect();
    let leads = |mapping: &PortMapping| mapping.host_ports().iter().any(|port| published.contains(port));
    let nowhere = |mapping: &PortMapping| {
        let what = format!("the pod has no address that {} could lead to", mapping.to_json());
        mistake("runtimeConfig.portMappings", what)
    };
    let mistakes: Vec<_> = config.ports.iter().filter(|mapping| !leads(mapping)).map(nowhere).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(Error::Config(Mistakes(mistakes))) }
}

/// Where the leases of the node's pods are; without any of its own Weft looks where they are by default.
fn data_dir(config: &Config) -> &Path {
    config.addressing.leases().map_or_else(|| DEFAULT_DIR.as_ref(), |leases| leases.data_dir.as_path())
}

/// All elements at once, and what the kernel remembers from before.
pub(crate) fn install(nft: &Nft, extras: &Extras) -> Result<(), Error> {
    match nft.install_for(&extras.masquerade, &extras.published, extras.port_sources) {
        // Somebody was faster since the look.
        Err(error) if error.errno() == Errno::EEXIST => {
            Err(held(nft, extras)?.into_iter().next().map_or_else(|| error.into(), refusal))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(conntrack::forget_others(&extras.published)?),
    }
}

/// What the node sends from 127.0.0.1 to one of its ports leaves through the interface that leads to the pod: the pair's
/// end, or another plugin's bridge. This comes after the elements, for with them comes the rule that keeps pods from
/// addressing the node's loopback. Unless `way` says which it is, the routing table does.
///
/// Where nobody is to be masqueraded, there is nothing that could come back.
pub(crate) fn route_loopback(extras: &Extras, way: Option<&str>) -> Result<(), Error> {
    if extras.port_sources == PortSources::Keep {
        return Ok(());
    }
    let Some(pod) = extras.published.iter().map(|port| port.to.ip()).find(IpAddr::is_ipv4) else {
        return Ok(());
    };
    let found = match way {
        Some(way) => Some(way.to_owned()),
        None => Rtnl::open()?.link_towards(pod)?.map(|link| link.name),
    };
    found.map_or(Ok(()), |link| Ok(sysctl::set(&["ipv4", "conf", &link, "route_localnet"], "1")?))
}

/// Removes what stands for `addresses` and `ports`, and then what the kernel remembers of the ports.
pub(crate) fn withdraw(
    nft: &Nft,
    mark: &str,
    addresses: &[IpAddr],
    ports: &[Published],
) -> Result<(), weft_datapath::Error> {
    nft.withdraw(mark, addresses, ports)?;
    conntrack::forget(ports)
}

/// The ports of `lease`; where it was lost, all that bear `mark`.
pub(crate) fn standing(
    nft: &Nft,
    mark: &str,
    lease: Option<&Lease>,
) -> Result<Vec<Published>, weft_datapath::Error> {
    if let Some(ports) =
        lease.and_then(|lease| Some(ports::published(&noted(lease)?, &lease.addresses, mark)))
    {
        return Ok(ports);
    }
    let mut all = nft.published()?;
    all.retain(|port| port.is_of(mark));
    Ok(all)
}

/// What `extras` publish, and what of it stands.
pub(crate) fn compare(findings: &mut Findings, nft: &Nft, extras: &Extras) -> Result<(), Error> {
    for port in &extras.published {
        let found = nft.published_at(&port.at)?;
        if found.as_ref().is_some_and(|found| is_sibling(found, port)) {
            continue;
        }
        let found = found.map(|found| whose(shown(&found), found.is_of(&port.owner), &found.owner));
        findings.note("host port", shown(port), found);
    }
    Ok(())
}

/// `8080/tcp to 10.244.0.2:80`.
pub(crate) fn shown(port: &Published) -> String {
    format!("{} to {}", port.at, port.to)
}

/// `None` where they cannot be read: a later release may have written them.
fn noted(lease: &Lease) -> Option<Vec<PortMapping>> {
    parse(NOTE, lease.notes.get(NOTE), |_| true).ok()
}

/// What is published where `extras` want to be, and is not this attachment's.
fn held(nft: &Nft, extras: &Extras) -> Result<Vec<Published>, Error> {
    let found = nft.published_at_each(extras.published.iter().map(|port| port.at))?;
    let of_others = extras.published.iter().zip(found);
    Ok(of_others.filter_map(|(port, found)| found.filter(|found| !found.is_of(&port.owner))).collect())
}

/// Whether `found` is another attachment's of the container that asks for `port`.
fn is_sibling(found: &Published, port: &Published) -> bool {
    let container = |owner: &str| owner.split('/').nth(1).map(str::to_owned);
    !found.is_of(&port.owner) && container(&found.owner) == container(&port.owner)
}

/// Whether leases of the holders' networks have ended because their pods are gone.
fn reclaim(held: &[Published], data_dir: &Path) -> bool {
    let networks: HashSet<_> = held.iter().filter_map(|found| found.owner.split('/').next()).collect();
    let ended = |network: &&str| {
        let ipam = Ipam::open(network, data_dir).map(|ipam| ipam.evicting_with(evict));
        ipam.and_then(|ipam| ipam.reclaim()).is_ok_and(|ended| !ended.is_empty())
    };
    // Each is asked, whatever the others say.
    networks.iter().filter(|network| ended(network)).count() > 0
}

fn refusal(found: Published) -> Error {
    Error::PortTaken { port: found.at, owner: found.owner }
}
