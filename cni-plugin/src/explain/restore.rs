//! Putting back what of a plan does not stand, where its pair does. Nothing that stands is replaced, and what has no pair
//! any more only the runtime can make anew.

use std::path::Path;
use std::time::SystemTime;

use weft_datapath::{Chain, Interface, NetNs, Nft, Rtnl, sysctl};

use super::{Namespace, Planned, Record, Subject, lookup};
use crate::check::missing;
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

    /// Puts it back.
    pub(crate) fn restore(&self) -> Result<(), Error> {
        let Namespace::There(path) = &self.netns else { return Ok(()) };
        for planned in &self.planned {
            // A DEL may have come since the look.
            if !is_still_there(&self.record)? {
                return Ok(());
            }
            if !planned.is_chained {
                restore_pair(&planned.plan, path)?;
            }
            self.restore_elements(planned, path)?;
        }
        Ok(())
    }

    /// They are taken back where a DEL has come in the meantime.
    fn restore_elements(&self, planned: &Planned, path: &Path) -> Result<(), Error> {
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

fn restore_pair(plan: &Plan, path: &Path) -> Result<(), Error> {
    let (host, netns) = (Rtnl::open()?, NetNs::open(path).map_err(Error::UnusableNetns)?);
    for parameter in plan.forwarding() {
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
    restore_end(&host, &plan.veth.host)?;
    let inside = netns.rtnl().map_err(Error::UnusableNetns)?;
    restore_end(&inside, &plan.veth.pod)
}

fn restore_end(rtnl: &Rtnl, planned: &Interface) -> Result<(), Error> {
    rtnl.configure(&missing(planned, &rtnl.observe()?))?;
    Ok(rtnl.settle(&planned.name, &[])?)
}
