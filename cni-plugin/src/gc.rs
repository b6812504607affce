//! GC.

use std::collections::HashSet;

use weft_cni_spec::{AttachmentId, GcRequest};
use weft_datapath::{Link, Nft, Rtnl};
use weft_ipam::lease::Attachment;
use weft_ipam::{Ipam, chain};

use crate::Error;
use crate::addresses::Keeper;
use crate::delegate::Delegate;
use crate::detach::{detach, remove_unused_table};
use crate::identity::{Identity, group_of};
use crate::ports;
use crate::tuned::backup;

/// Detaches whatever belongs to the network but is not on the list: leases, then pairs and elements that no lease knows
/// of. What fails is reported at the end. Another IPAM plugin frees addresses only after nothing is left that would answer
/// to them.
pub(crate) fn gc(request: &GcRequest) -> Result<(), Error> {
    let network = Network::new(request)?;
    let (ipam, delegate) = match Keeper::of(&request.conf)? {
        Keeper::Weft(ipam) => (Some(ipam), None),
        Keeper::Delegate(ipam, name) => (Some(ipam), Some(name)),
        Keeper::Earlier => (None, None),
    };

    let mut failures = Vec::new();
    if let Some(ipam) = &ipam {
        let (known, unknown) = ipam.readable_leases()?.whose();
        failures.extend(unknown.iter().map(|error| chain(error)));
        let stale = known.into_iter().map(|lease| lease.attachment);
        failures.extend(network.detach_stale(ipam, stale));
        failures.extend(network.detach_stale(ipam, network.pairs()?));
        failures.extend(failure(network.remove_unmarked()));
    }
    if ipam.is_none() {
        failures.extend(failure(backup::retain(&request.conf, &request.valid)));
    }
    match Nft::open_if_any() {
        Ok(None) => {}
        Ok(Some(nft)) => {
            failures.extend(failure(network.remove_stale_elements(&nft)));
            failures.extend(failure(network.unpublish_stale(&nft)));
            failures.extend(failure(remove_table(ipam.as_ref(), &nft)));
        }
        Err(error) => failures.push(chain(&error)),
    }
    let what = format!("what nobody owns in network {}", network.name);
    if !failures.is_empty() {
        return Err(Error::Incomplete { what, failures });
    }
    let Some(name) = delegate else { return Ok(()) };
    Ok(Delegate::find(&name, &request.path, &request.conf)?.gc()?)
}

/// In words, with its causes.
fn failure(outcome: Result<(), Error>) -> Option<String> {
    outcome.err().map(|error| chain(&error))
}

fn remove_table(ipam: Option<&Ipam>, nft: &Nft) -> Result<(), Error> {
    match ipam {
        Some(ipam) => remove_unused_table(ipam),
        None => Ok(nft.remove_unused_table()?),
    }
}

/// A network and those of its attachments that are to stay.
struct Network {
    name: String,
    valid: HashSet<(String, String)>,
    marks: Vec<String>,
}

impl Network {
    fn new(request: &GcRequest) -> Result<Self, Error> {
        let mark = |id| Identity::of(&request.conf.name, id).map(|identity| identity.mark());
        Ok(Self {
            name: request.conf.name.as_str().to_owned(),
            valid: request.valid.iter().map(names).collect(),
            marks: request.valid.iter().map(mark).collect::<Result<_, _>>()?,
        })
    }

    /// What could not be removed of the `attachments` that are not valid.
    fn detach_stale(&self, ipam: &Ipam, attachments: impl IntoIterator<Item = Attachment>) -> Vec<String> {
        let stale = attachments.into_iter().filter(|attachment| !self.is_valid(attachment));
        stale
            .filter_map(|attachment| failure(detach(ipam, &Identity::derive(attachment)).map(drop)))
            .collect()
    }

    fn is_valid(&self, attachment: &Attachment) -> bool {
        self.valid.contains(&(attachment.container().to_owned(), attachment.ifname().to_owned()))
    }

    /// The attachments that have a pair on this node, by the marks on their links.
    fn pairs(&self) -> Result<Vec<Attachment>, Error> {
        let attachment = |mark: &str| {
            let (container, ifname) = self.within(mark)?.split_once('/')?;
            Attachment::new(&self.name, container, ifname).ok()
        };
        let links = Rtnl::open()?.observe()?.links;
        Ok(links.iter().filter_map(|link| attachment(link.alias.as_deref()?)).collect())
    }

    /// Removes pairs whose ADD was killed before it could mark them, and that no lease of Weft's leads to. No ADD is at work
    /// in the network while there is a GC (SPEC.md, "GC").
    fn remove_unmarked(&self) -> Result<(), Error> {
        let (host, group) = (Rtnl::open()?, group_of(&self.name));
        let links = host.observe()?.links;
        let is_unmarked = |link: &&Link| link.alias.is_none() && link.peer.is_some() && link.group == group;
        Ok(links.iter().filter(is_unmarked).try_for_each(|link| host.delete_link(link))?)
    }

    /// Elements are told by whole marks, and not by what the marks say, for an element keeps less of a long one.
    fn remove_stale_elements(&self, nft: &Nft) -> Result<(), Error> {
        for found in nft.masqueraded()? {
            if self.is_stale(&found.owner, |mark| found.is_of(mark)) {
                nft.stop_masquerading(&found.owner, &[found.address])?;
            }
        }
        for found in nft.pinned_sources()? {
            if self.is_stale(&found.owner, |mark| found.is_of(mark)) {
                nft.unpin_source(&found.port)?;
            }
        }
        Ok(())
    }

    fn unpublish_stale(&self, nft: &Nft) -> Result<(), Error> {
        let mut published = nft.published()?;
        published.retain(|found| self.is_stale(&found.owner, |mark| found.is_of(mark)));
        Ok(ports::withdraw(nft, "", &[], &published)?)
    }

    fn is_stale(&self, owner: &str, is_of: impl Fn(&str) -> bool) -> bool {
        self.within(owner).is_some() && !self.marks.iter().any(|mark| is_of(mark))
    }

    /// What follows the network's name in a mark of its own.
    fn within<'a>(&self, mark: &'a str) -> Option<&'a str> {
        mark.strip_prefix(&self.name)?.strip_prefix('/')
    }
}

fn names(id: &AttachmentId) -> (String, String) {
    (id.container.as_str().to_owned(), id.ifname.as_str().to_owned())
}
