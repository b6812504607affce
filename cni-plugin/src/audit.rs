//! `weft-cni audit`: is every pod of this node as ADD left it, and is there anything that nobody owns?
//!
//! Of each pod that a lease or a runtime remembers the plan is decided anew and compared, as by `explain`. Where there is no
//! configuration to decide by, its lease says that there should be a namespace and a pair. And every pair and every
//! element of the firewall should be somebody's. What is found otherwise is what a missed DEL, a killed plugin or a hand at
//! `ip` or `nft` left.

use std::collections::HashSet;

use weft_datapath::{Chain, Masquerade, Masqueraded, Nft, PinnedSource, Published};
use weft_ipam::lease::Lease;

use crate::Error;
use crate::check::Node;
use crate::explain::Question;
use crate::identity::mark_of;

mod compare;
mod living;
mod look;
mod report;

use look::Look;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// None means all.
    pub(crate) networks: Vec<String>,
    /// Where to look for what is known of them.
    pub(crate) places: Question,
    /// Whether to put right what can be.
    pub(crate) repair: bool,
}

/// What was found in some networks, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    networks: usize,
    pods: usize,
    findings: Vec<(Finding, Fate)>,
    /// Marks of those of which less could be seen, and why.
    limited: Vec<(String, String)>,
    /// Marks of those at which nobody could look, and why.
    failed: Vec<(String, String)>,
    /// Networks whose pods nobody remembers, and why.
    unjudged: Vec<(String, String)>,
    /// What is nobody's difference, and may be in the way of pods all the same.
    remarks: Vec<String>,
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
    /// A pod is not as planned.
    Differs { what: String, is_mendable: bool },
    /// What pods of the network stand on is not as planned.
    Node { what: String, is_mendable: bool },
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
    /// There was a repair, and it was none of this.
    Left,
    Repaired,
    Failed(String),
}

/// What is known of one network.
#[derive(Debug, Default)]
struct Seen {
    /// Each with whether it is abandoned.
    leases: Vec<(Lease, bool)>,
    /// Marks of pods whose plans are compared.
    planned: HashSet<String>,
    /// Marks of pods that live without a lease, as their runtimes say.
    kept: HashSet<String>,
    /// Whether there is a lease of which it is not known whose it is.
    has_unknown: bool,
    /// Marks and names of links.
    pairs: Vec<(String, String)>,
    /// Names of all links of the node.
    links: HashSet<String>,
    elements: Vec<Masqueraded>,
    ports: Vec<Published>,
    sources: Vec<PinnedSource>,
    /// Names of links whose sending is slowed down.
    shaped: Vec<String>,
    chains: Vec<Chain>,
}

/// Looks, and with `repair` puts right what can be, and looks again.
pub(crate) fn audit(asked: &Asked) -> Result<Report, Error> {
    let first = Look::at(asked, &look::networks(asked)?)?;
    if !asked.repair || first.findings.is_empty() {
        return Ok(first.report());
    }
    let failures = first.mend();
    let found = first.findings.clone();
    let left = Look::at(asked, &first.networks)?;
    let repaired: Vec<_> = found.into_iter().filter(|finding| !left.stands(finding)).collect();
    let mut report = left.report();
    for (finding, fate) in &mut report.findings {
        let failure = failures.iter().find(|(failed, _)| failed == finding);
        *fate = failure.map_or(Fate::Left, |(_, why)| Fate::Failed(why.clone()));
    }
    report.findings.extend(repaired.into_iter().map(|finding| (finding, Fate::Repaired)));
    Ok(report)
}

impl Finding {
    fn new(mark: &str, problem: Problem) -> Self {
        Self { mark: mark.to_owned(), problem }
    }
}

impl Seen {
    /// The kernel first: ADD writes the lease before it touches the kernel, and DEL ends it after, so whatever was seen
    /// there has a lease now.
    fn of(network: &str, node: &Node) -> Result<Self, Error> {
        let of_network = |mark: &str| mark.strip_prefix(network).is_some_and(|rest| rest.starts_with('/'));
        let (observed, all) = (node.observed()?, node.elements()?);
        let is_shaped = |index: u32| observed.shaped.iter().any(|(shaped, _)| *shaped == index);
        let shaped = observed.links.iter().filter(|link| is_shaped(link.index));
        let pairs = observed.links.iter().filter_map(|link| Some((link.alias.clone()?, link.name.clone())));
        Ok(Self {
            pairs: pairs.filter(|(mark, _)| of_network(mark)).collect(),
            links: observed.links.iter().map(|link| link.name.clone()).collect(),
            elements: all.masqueraded.iter().filter(|found| of_network(&found.owner)).cloned().collect(),
            ports: all.published.iter().filter(|found| of_network(&found.owner)).cloned().collect(),
            sources: all.sources.iter().filter(|found| of_network(&found.owner)).cloned().collect(),
            shaped: shaped.map(|link| link.name.clone()).collect(),
            ..Self::default()
        })
    }

    /// What the elements of pods stand on whose plans are not known. The rules go after the last element, so they are looked
    /// at last.
    fn look_at_chains(&mut self) -> Result<(), Error> {
        let Some(nft) = Nft::open_if_any()? else { return Ok(()) };
        let (masquerade, ports) = (self.masquerade(), self.unplanned_ports());
        let mut chains = nft.chains(&masquerade, &ports)?;
        if !self.sources.is_empty() {
            chains.extend(nft.bridge_chains()?);
        }
        chains.retain(|chain| !chain.is_whole());
        // Whoever has removed the last element in the meantime has removed the rules too.
        if !chains.is_empty() && !nft.is_unused()? {
            self.chains = chains;
        }
        Ok(())
    }

    fn has_pair(&self, mark: &str) -> bool {
        self.pairs.iter().any(|(of, _)| of == mark)
    }

    /// Pairs of which nobody tells whose they are.
    fn without_lease(&self) -> impl Iterator<Item = &(String, String)> {
        let leased: HashSet<_> = self.leases.iter().map(|(lease, _)| mark_of(&lease.attachment)).collect();
        self.pairs.iter().filter(move |(mark, _)| !leased.contains(mark) && !self.kept.contains(mark))
    }

    fn is_planned(&self, is_of: &dyn Fn(&str) -> bool) -> bool {
        self.planned.iter().any(|mark| is_of(mark))
    }

    /// The elements as ADD made them: leases have the prefixes of the subnets.
    fn masquerade(&self) -> Vec<Masquerade> {
        let unplanned =
            self.leases.iter().filter(|(lease, _)| !self.planned.contains(&mark_of(&lease.attachment)));
        let addresses = unplanned.flat_map(|(lease, _)| &lease.addresses);
        let stands = |ip| self.elements.iter().find(|element| element.address == ip);
        addresses
            .filter_map(|assigned| {
                let owner = stands(assigned.address.ip())?.owner.clone();
                Some(Masquerade { address: assigned.address, owner })
            })
            .collect()
    }

    fn unplanned_ports(&self) -> Vec<Published> {
        self.ports.iter().filter(|port| !self.is_planned(&|mark| port.is_of(mark))).cloned().collect()
    }
}

fn names(mark: &str) -> [&str; 3] {
    let mut names = mark.splitn(3, '/');
    [(); 3].map(|()| names.next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
