//! DEL, and the part of GC that is the same.

use std::net::IpAddr;

use weft_cni_spec::DelRequest;
use weft_datapath::{Nft, Rtnl};
use weft_ipam::lease::Lease;
use weft_ipam::{Ipam, chain};

use crate::Error;
use crate::identity::Identity;

/// Detaches the container. Neither its namespace nor a correct configuration is needed.
pub(crate) fn del(request: &DelRequest) -> Result<(), Error> {
    let data_dir = weft_ipam::config::Config::data_dir(&request.conf.document)?;
    let ipam = Ipam::open(request.conf.name.as_str(), &data_dir)?;
    let identity = Identity::of(&request.conf.name, &request.id)?;
    let lease = ipam.lookup(&identity.attachment)?;
    detach(&ipam, &identity, lease.as_ref())
}

/// Removes what `identity` has in the kernel, then ends its lease: an address is free only when nothing answers to it
/// any more. Whatever fails, the rest is removed; then the lease stays, and the next DEL or GC begins again.
pub(crate) fn detach(ipam: &Ipam, identity: &Identity, lease: Option<&Lease>) -> Result<(), Error> {
    let nft = Nft::open()?;
    let steps = [stop_masquerading(&nft, lease), remove_pair(identity)];
    let failures: Vec<_> = steps.into_iter().filter_map(Result::err).map(|error| chain(&error)).collect();
    if !failures.is_empty() {
        return Err(Error::Incomplete { what: identity.attachment.to_string(), failures });
    }
    if ipam.release(&identity.attachment)?.is_some() && ipam.leases()?.is_empty() {
        nft.remove_unused_table()?;
    }
    Ok(())
}

/// By the lease, and not by `ipMasq`: it may have been changed since the ADD.
fn stop_masquerading(nft: &Nft, lease: Option<&Lease>) -> Result<(), Error> {
    let addresses =
        lease.into_iter().flat_map(|lease| &lease.addresses).map(|assigned| assigned.address.ip());
    let mut stale: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if nft.is_masqueraded(address)? {
            stale.push(address);
        }
    }
    Ok(nft.stop_masquerading(&stale)?)
}

fn remove_pair(identity: &Identity) -> Result<(), Error> {
    let host = Rtnl::open()?;
    let Some(link) = host.link(&identity.host_ifname)? else { return Ok(()) };
    // A link without a mark is one whose ADD was killed before it could mark it.
    match &link.alias {
        Some(owner) if *owner != identity.mark() => Err(Error::ForeignLink {
            link: link.name.clone(),
            owner: owner.clone(),
            attachment: identity.attachment.to_string(),
        }),
        _ => Ok(host.delete_link(&link)?),
    }
}
