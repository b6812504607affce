//! `weft-cni audit`: do the kernel and the leases agree?
//!
//! Every lease should have a namespace and a pair, and every pair and every element of the firewall a lease; and the
//! elements should have the rules that give them their meaning. What is found otherwise is what a missed DEL, a killed plugin
//! or a hand at `ip` or `nft` left.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use weft_datapath::{Chain, Masquerade, Masqueraded, Nft, PinnedSource, Published, Rtnl};
use weft_ipam::lease::{Attachment, Lease};
use weft_ipam::{Ipam, chain};

use crate::Error;
use crate::detach::{detach, remove_unused_table};
use crate::identity::Identity;
use crate::{asked, ports};

mod report;

/// A lease is made before its pair. A younger one may belong to an ADD that is just happening.
const AN_ADD_TAKES_AT_MOST: Duration = Duration::from_secs(60);

/// What was found in some networks, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    networks: usize,
    leases: usize,
    findings: Vec<(Finding, Fate)>,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// `network/container/ifname`.
    mark: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// The namespace of a lease is gone: its DEL never came.
    Abandoned { addresses: String },
    /// A pod has a lease, but no interface: somebody removed it.
    NoPair { addresses: String },
    /// A pair that no lease knows of.
    NoLease { link: String },
    /// An address is masqueraded for somebody who does not hold it.
    Element { element: Masqueraded },
    /// A port of the node leads to somebody who does not hold the address.
    Port { port: Published },
    /// A port of a bridge is held to an address for somebody who is not there.
    Source { source: PinnedSource },
    /// What goes to the pod is not slowed down, though its runtime asked for that.
    Unshaped { link: String },
    /// The network's elements stand, and rules that look them up do not.
    Chain { chain: Chain },
}

#[derive(Debug)]
enum Fate {
    Stands,
    Repaired,
    Failed(String),
}

/// What is known of one network.
#[derive(Debug, Default)]
struct Seen {
    /// Each with whether it is abandoned.
    leases: Vec<(Lease, bool)>,
    /// Marks and names of links.
    pairs: Vec<(String, String)>,
    elements: Vec<Masqueraded>,
    ports: Vec<Published>,
    sources: Vec<PinnedSource>,
    /// Names of links whose sending is slowed down.
    shaped: Vec<String>,
    chains: Vec<Chain>,
}

/// Looks at `networks`, and with `repair` removes what nobody owns.
pub(crate) fn audit(networks: &[String], dir: &Path, repair: bool) -> Result<Report, Error> {
    let mut report = Report { networks: networks.len(), ..Report::default() };
    for network in networks {
        let ipam = Ipam::open(network, dir)?;
        let seen = Seen::of(network, &ipam)?;
        report.leases += seen.leases.len();
        for finding in compare(network, &seen, SystemTime::now()) {
            let fate = if repair { mend(&ipam, &seen, &finding) } else { Fate::Stands };
            report.findings.push((finding, fate));
        }
        if repair {
            remove_unused_table(&ipam)?;
        }
    }
    Ok(report)
}

impl Seen {
    /// The kernel first: ADD writes the lease before it touches the kernel, and DEL ends it after, so whatever was seen
    /// there has a lease now.
    ///
    /// The rules last: they go after the last element.
    fn of(network: &str, ipam: &Ipam) -> Result<Self, Error> {
        let of_network = |mark: &str| mark.strip_prefix(network).is_some_and(|rest| rest.starts_with('/'));
        let observed = Rtnl::open()?.observe()?;
        let is_shaped = |index: u32| observed.shaped.iter().any(|(shaped, _)| *shaped == index);
        let shaped = observed.links.iter().filter(|link| is_shaped(link.index));
        let shaped = shaped.map(|link| link.name.clone()).collect();
        let nft = Nft::open()?;
        let (mut elements, mut ports, mut sources) =
            (nft.masqueraded()?, nft.published()?, nft.pinned_sources()?);
        elements.retain(|element| of_network(&element.owner));
        ports.retain(|port| of_network(&port.owner));
        sources.retain(|source| of_network(&source.owner));
        let pairs = observed.links.into_iter().filter_map(|link| Some((link.alias?, link.name)));
        let pairs = pairs.filter(|(mark, _)| of_network(mark)).collect();
        let leases = ipam.leases()?.into_iter();
        let leases = leases.map(|lease| (lease.clone(), ipam.is_abandoned(&lease))).collect();
        let seen = Self { leases, pairs, elements, ports, sources, shaped, chains: Vec::new() };
        let mut chains = nft.chains(&seen.masquerade(), &seen.ports)?;
        if !seen.sources.is_empty() {
            chains.extend(nft.bridge_chains()?);
        }
        chains.retain(|chain| !chain.is_whole());
        // Whoever has removed the last element in the meantime has removed the rules too.
        if !chains.is_empty() && nft.is_unused()? {
            chains.clear();
        }
        Ok(Self { chains, ..seen })
    }

    /// The elements as ADD made them: leases have the prefixes of the subnets.
    fn masquerade(&self) -> Vec<Masquerade> {
        let addresses = self.leases.iter().flat_map(|(lease, _)| &lease.addresses);
        let stands = |ip| self.elements.iter().find(|element| element.address == ip);
        addresses
            .filter_map(|assigned| {
                let owner = stands(assigned.address.ip())?.owner.clone();
                Some(Masquerade { address: assigned.address, owner })
            })
            .collect()
    }
}

/// Every difference, leases first.
fn compare(network: &str, seen: &Seen, now: SystemTime) -> Vec<Finding> {
    let marks: HashSet<String> = seen.leases.iter().map(|(lease, _)| mark(&lease.attachment)).collect();
    let pairs: HashSet<&str> = seen.pairs.iter().map(|(mark, _)| mark.as_str()).collect();
    let of_leases = seen.leases.iter().filter_map(|(lease, abandoned)| {
        let (mark, addresses) = (mark(&lease.attachment), addresses(lease));
        let settled = now.duration_since(lease.since).is_ok_and(|age| age > AN_ADD_TAKES_AT_MOST);
        let problem = match (abandoned, pairs.contains(mark.as_str())) {
            (true, _) => Problem::Abandoned { addresses },
            (false, false) if settled => Problem::NoPair { addresses },
            _ => return None,
        };
        Some(Finding { mark, problem })
    });
    let of_pairs = seen
        .pairs
        .iter()
        .filter(|(mark, _)| !marks.contains(mark))
        .map(|(mark, link)| Finding { mark: mark.clone(), problem: Problem::NoLease { link: link.clone() } });
    // What belongs to a pair is judged with it.
    let has_pair =
        |is_of: &dyn Fn(&str) -> bool| pairs.iter().any(|mark| !marks.contains(*mark) && is_of(mark));
    let is_stray = |element: &&Masqueraded| {
        let is_of = |mark: &str| element.is_of(mark);
        !is_held(element.address, seen, is_of) && !has_pair(&is_of)
    };
    let of_elements = seen.elements.iter().filter(is_stray).map(|element| Finding {
        mark: element.owner.clone(),
        problem: Problem::Element { element: element.clone() },
    });
    let leads_astray = |port: &&Published| {
        let is_of = |mark: &str| port.is_of(mark);
        !is_held(port.to.ip(), seen, is_of) && !has_pair(&is_of)
    };
    let of_ports = seen
        .ports
        .iter()
        .filter(leads_astray)
        .map(|port| Finding { mark: port.owner.clone(), problem: Problem::Port { port: port.clone() } });
    let is_held = |source: &PinnedSource| {
        let is_of = |mark: &str| source.is_of(mark);
        marks.iter().any(|mark| is_of(mark)) || has_pair(&is_of)
    };
    let of_sources = seen.sources.iter().filter(|source| !is_held(source)).map(|source| Finding {
        mark: source.owner.clone(),
        problem: Problem::Source { source: source.clone() },
    });
    let of_network = |chain: &Chain| Finding {
        mark: format!("{network}/-/-"),
        problem: Problem::Chain { chain: chain.clone() },
    };
    of_leases
        .chain(of_pairs)
        .chain(unshaped(seen))
        .chain(of_elements)
        .chain(of_ports)
        .chain(of_sources)
        .chain(seen.chains.iter().map(of_network))
        .collect()
}

/// Pairs that do not slow down what goes to their pods, though the runtime asked for it. What the configuration asks for is
/// not known here.
fn unshaped(seen: &Seen) -> impl Iterator<Item = Finding> {
    let limited = seen.leases.iter().filter(|(lease, _)| asked::bandwidth(&lease.notes).ingress.is_some());
    limited.filter_map(|(lease, _)| {
        let mark = mark(&lease.attachment);
        let (_, link) = seen.pairs.iter().find(|(owner, _)| *owner == mark)?;
        let link = link.clone();
        (!seen.shaped.contains(&link)).then_some(Finding { mark, problem: Problem::Unshaped { link } })
    })
}

fn is_held(address: IpAddr, seen: &Seen, is_of: impl Fn(&str) -> bool) -> bool {
    seen.leases.iter().any(|(lease, _)| {
        is_of(&mark(&lease.attachment))
            && lease.addresses.iter().any(|assigned| assigned.address.ip() == address)
    })
}

fn mend(ipam: &Ipam, seen: &Seen, finding: &Finding) -> Fate {
    let mended = match &finding.problem {
        // There is a pod behind both, for a pair goes with its namespace. Only its runtime can give it a new interface;
        // and an interface without a lease may have its addresses from another IPAM plugin.
        Problem::NoPair { .. } | Problem::NoLease { .. } | Problem::Unshaped { .. } => return Fate::Stands,
        Problem::Abandoned { .. } => detach_marked(ipam, &finding.mark),
        Problem::Element { element } => stop_masquerading(element),
        Problem::Port { port } => unpublish(port),
        Problem::Source { source } => unpin(source),
        Problem::Chain { chain } => restore(chain, seen),
    };
    mended.map_or_else(|error| Fate::Failed(chain(&error)), |()| Fate::Repaired)
}

fn detach_marked(ipam: &Ipam, mark: &str) -> Result<(), Error> {
    let [network, container, ifname] = names(mark);
    detach(ipam, &Identity::derive(Attachment::new(network, container, ifname)?)).map(drop)
}

fn stop_masquerading(element: &Masqueraded) -> Result<(), Error> {
    Ok(Nft::open()?.stop_masquerading(&element.owner, &[element.address])?)
}

fn unpublish(port: &Published) -> Result<(), Error> {
    Ok(ports::withdraw(&Nft::open()?, &port.owner, &[], std::slice::from_ref(port))?)
}

fn unpin(source: &PinnedSource) -> Result<(), Error> {
    Ok(Nft::open()?.unpin_source(&source.port)?)
}

fn restore(chain: &Chain, seen: &Seen) -> Result<(), Error> {
    let nft = Nft::open()?;
    let restored = match chain.family {
        "bridge" => nft.restore_bridge_chains(),
        _ => nft.restore_chains(&seen.masquerade(), &seen.ports),
    };
    Ok(restored?)
}

fn mark(attachment: &Attachment) -> String {
    Identity::derive(attachment.clone()).mark()
}

fn names(mark: &str) -> [&str; 3] {
    let mut names = mark.splitn(3, '/');
    [(); 3].map(|()| names.next().unwrap_or_default())
}

fn addresses(lease: &Lease) -> String {
    let addresses = lease.addresses.iter().map(|assigned| assigned.address.ip().to_string());
    addresses.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
