//! GC.

use std::collections::HashSet;

use weft_cni_spec::GcRequest;
use weft_datapath::Rtnl;
use weft_ipam::lease::{Attachment, Lease};
use weft_ipam::{Ipam, chain};

use crate::Error;
use crate::detach::detach;
use crate::identity::Identity;

/// Detaches whatever belongs to the network but is not on the list: leases, and pairs that no lease knows of. What
/// fails is reported at the end.
pub(crate) fn gc(request: &GcRequest) -> Result<(), Error> {
    let network = request.conf.name.as_str();
    let data_dir = weft_ipam::config::Config::data_dir(&request.conf.document)?;
    let ipam = Ipam::open(network, &data_dir)?;
    let valid: HashSet<_> =
        request.valid.iter().map(|id| (id.container.as_str(), id.ifname.as_str())).collect();
    let is_stale = |attachment: &Attachment| !valid.contains(&(attachment.container(), attachment.ifname()));

    let mut failures = Vec::new();
    for lease in ipam.leases()?.iter().filter(|lease| is_stale(&lease.attachment)) {
        failures.extend(remove(&ipam, lease.attachment.clone(), Some(lease)));
    }
    for attachment in pairs(network)?.into_iter().filter(is_stale) {
        failures.extend(remove(&ipam, attachment, None));
    }
    let what = format!("what nobody owns in network {network}");
    if failures.is_empty() { Ok(()) } else { Err(Error::Incomplete { what, failures }) }
}

fn remove(ipam: &Ipam, attachment: Attachment, lease: Option<&Lease>) -> Option<String> {
    detach(ipam, &Identity::derive(attachment), lease).err().map(|error| chain(&error))
}

/// The attachments of `network` that have a pair on this node, by the marks on their links.
fn pairs(network: &str) -> Result<Vec<Attachment>, Error> {
    let attachment = |mark: &str| {
        let (container, ifname) = mark.strip_prefix(network)?.strip_prefix('/')?.split_once('/')?;
        Attachment::new(network, container, ifname).ok()
    };
    let links = Rtnl::open()?.observe()?.links;
    Ok(links.iter().filter_map(|link| attachment(link.alias.as_deref()?)).collect())
}
