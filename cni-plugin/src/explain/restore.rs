//! Putting back what of a plan does not stand, where its pair does. Nothing that stands is replaced, and what has no pair
//! any more only the runtime can make anew.

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use weft_datapath::{Chain, Interface, Masquerade, NetNs, Nft, Observed, Rtnl, sysctl};

use super::{Namespace, Planned, Record, Subject, lookup};
use crate::check::{Node, missing};
use crate::finding::{Finding, State};
use crate::plan::{Extras, Plan};
use crate::{Error, extras};

impl Subject {
    pub(crate) fn mark(&self) -> String {
        self.identity.mark()
    }

    pub(crate) fn host_ifname(&self) -> &str {
        &self.identity.host_ifname
    }

    /// When its lease was made.
    pub(crate) fn since(&self) -> Option<SystemTime> {
        self.record.lease.as_ref().map(|lease| lease.since)
    }

    pub(crate) fn differs(&self) -> bool {
        self.findings.iter().any(Finding::differs)
    }

    /// Whether one of its two ends is gone.
    pub(crate) fn lacks_pair(&self) -> bool {
        self.findings.iter().any(|finding| finding.what == "link" && finding.state == State::Missing)
    }

    /// Whether what is missing can be put back: the pod lives, has its interface, and its addresses are its own.
    pub(crate) fn is_restorable(&self) -> bool {
        let is_lost = |finding: &Finding| finding.place == "lease" && finding.differs();
        matches!(self.netns, Namespace::There(_)) && !self.lacks_pair() && !self.findings.iter().any(is_lost)
    }

    /// Whether something differs of what stands in the firewall, or elsewhere.
    fn differs_in_firewall(&self, in_firewall: bool) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.differs() && (finding.place == extras::TABLE) == in_firewall)
    }

    /// Puts back what its two ends lack. Other pods' ends are looked at together with its own.
    fn restore_ends(&self, node: &Node) -> Result<(), Error> {
        let Namespace::There(path) = &self.netns else { return Ok(()) };
        // A DEL may have come since the look.
        if !self.differs_in_firewall(false) || !is_still_there(&self.record)? {
            return Ok(());
        }
        let mut own = self.planned.iter().filter(|planned| !planned.is_chained);
        own.try_for_each(|planned| restore_pair(&planned.plan, path, node))
    }

    fn has_ports(&self) -> bool {
        self.planned.iter().any(|planned| !planned.plan.extras.published.is_empty())
    }

    /// What is to be masqueraded for it, where something of the firewall is lost.
    fn masquerade(&self) -> Result<Vec<Masquerade>, Error> {
        let Namespace::There(path) = &self.netns else { return Ok(Vec::new()) };
        if !self.differs_in_firewall(true) || !is_still_there(&self.record)? {
            return Ok(Vec::new());
        }
        let mut wanted = Vec::new();
        for planned in &self.planned {
            let extras = &planned.plan.extras;
            if !extras.masquerade.is_empty() && holds(path, extras)? {
                wanted.extend_from_slice(&extras.masquerade);
            }
        }
        Ok(wanted)
    }

    /// Puts back all that the firewall has of it, by itself.
    fn restore_elements(&self) -> Result<(), Error> {
        let Namespace::There(path) = &self.netns else { return Ok(()) };
        for planned in &self.planned {
            if !is_still_there(&self.record)? {
                return Ok(());
            }
            self.restore_elements_of(planned, path)?;
        }
        Ok(())
    }

    /// They are taken back where a DEL has come in the meantime.
    fn restore_elements_of(&self, planned: &Planned, path: &Path) -> Result<(), Error> {
        let wanted = &planned.plan.extras;
        if wanted.is_empty() || !holds(path, wanted)? {
            return Ok(());
        }
        let nft = Nft::open()?;
        let mut lost = Extras { masquerade: Vec::new(), published: Vec::new(), ..wanted.clone() };
        for element in &wanted.masquerade {
            lost.masquerade.extend(nft.find(element.address.ip())?.is_none().then(|| element.clone()));
        }
        for port in &wanted.published {
            lost.published.extend(nft.published_at(&port.at)?.is_none().then(|| port.clone()));
        }
        let restored = extras::apply(Some(&nft), &self.identity, &lost, None)?;
        if !nft.chains(&wanted.masquerade, &wanted.published)?.iter().all(Chain::is_whole) {
            nft.restore_chains(&wanted.masquerade, &wanted.published)?;
        }
        if is_still_there(&self.record)? {
            restored.keep();
        }
        Ok(())
    }
}

/// Puts back what `subjects` lack. Returns the marks of those for whom that failed, each with the reason.
///
/// A firewall that was flushed is flushed for all pods of the node, and each batch of its elements costs the kernel about as
/// much as all of them in one: so that is what they are.
pub(crate) fn restore(subjects: &[&Subject]) -> Vec<(String, String)> {
    let (node, mut failed) = (Node::default(), Vec::new());
    let (mut reached, mut masquerade) = (Vec::new(), Vec::new());
    for subject in subjects {
        match subject.restore_ends(&node).and_then(|()| subject.masquerade()) {
            Ok(wanted) => {
                masquerade.extend(wanted);
                reached.push(*subject);
            }
            Err(error) => failed.push((subject.mark(), weft_ipam::chain(&error))),
        }
    }
    let is_done = masquerade_again(&masquerade, &reached).is_ok();
    // Host ports have conditions of their own; and what could not be done for all may be possible for some.
    let rest = |subject: &&&Subject| subject.differs_in_firewall(true) && (!is_done || subject.has_ports());
    for subject in reached.iter().filter(rest) {
        if let Err(error) = subject.restore_elements() {
            failed.push((subject.mark(), weft_ipam::chain(&error)));
        }
    }
    failed
}

/// Elements and the rules that they stand on. They are taken back from those of `subjects` to whom a DEL has come meanwhile.
fn masquerade_again(wanted: &[Masquerade], subjects: &[&Subject]) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let nft = Nft::open()?;
    let standing: HashSet<_> = nft.masqueraded()?.into_iter().map(|found| found.address).collect();
    let is_lost = |element: &&Masquerade| !standing.contains(&element.address.ip());
    let lost: Vec<_> = wanted.iter().filter(is_lost).cloned().collect();
    nft.masquerade(&lost)?;
    if !nft.chains(wanted, &[])?.iter().all(Chain::is_whole) {
        nft.restore_chains(wanted, &[])?;
    }
    for subject in subjects {
        if is_still_there(&subject.record)? {
            continue;
        }
        let mark = subject.mark();
        let own = lost.iter().filter(|element| element.owner == mark);
        nft.stop_masquerading(&mark, &own.map(|element| element.address.ip()).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Whether the lease, or else the result, of `record` is still what it was.
pub(crate) fn is_still_there(record: &Record) -> Result<bool, Error> {
    match (&record.lease, &record.data_dir, &record.kept) {
        (Some(lease), Some(dir), _) => Ok(lookup(record, dir)?.as_ref() == Some(lease)),
        (_, _, Some(kept)) => Ok(kept.path.exists()),
        (..) => Ok(false),
    }
}

/// Whether the namespace is the pod's, which a path alone does not say: it has the addresses.
fn holds(path: &Path, wanted: &Extras) -> Result<bool, Error> {
    let inside = NetNs::open(path).and_then(|netns| netns.rtnl()).map_err(Error::UnusableNetns)?.observe()?;
    let has = |ip| inside.addresses.iter().any(|(_, address)| address.ip() == ip);
    Ok(wanted.masquerade.iter().map(|element| element.address.ip()).all(has)
        && wanted.published.iter().map(|port| port.to.ip()).all(has))
}

fn restore_pair(plan: &Plan, path: &Path, node: &Node) -> Result<(), Error> {
    let (host, netns) = (Rtnl::open()?, NetNs::open(path).map_err(Error::UnusableNetns)?);
    for (_, parameter) in plan.forwarding() {
        sysctl::set(parameter, "1")?;
    }
    if let Some(shared) = &plan.shared {
        // Without its bridge every port of it has to be made anew.
        if host.link(&shared.bridge.name)?.is_some() {
            host.ensure_bridge(&shared.bridge)?;
        }
        if let Some(source) = &shared.source {
            let nft = Nft::open()?;
            nft.pin_source(source)?;
            if !nft.bridge_chains()?.iter().all(Chain::is_whole) {
                nft.restore_bridge_chains()?;
            }
        }
    }
    restore_end(&host, &plan.veth.host, node.observed()?)?;
    let inside = netns.rtnl().map_err(Error::UnusableNetns)?;
    restore_end(&inside, &plan.veth.pod, &inside.observe()?)
}

fn restore_end(rtnl: &Rtnl, planned: &Interface, observed: &Observed) -> Result<(), Error> {
    rtnl.configure(&missing(planned, observed))?;
    Ok(rtnl.settle(&planned.name, &[])?)
}
