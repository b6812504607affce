//! DEL, and the part of GC and of reclaiming that is the same.

use std::net::IpAddr;

use weft_cni_spec::DelRequest;
use weft_datapath::{Link, Nft, Rtnl};
use weft_ipam::lease::Lease;
use weft_ipam::{Ipam, chain};

use crate::addresses::Keeper;
use crate::delegate::{Delegate, PluginName};
use crate::identity::Identity;
use crate::tuned::backup::Backup;
use crate::{Error, addresses, log, ports, predecessor};

/// Detaches the container. Neither its namespace nor a correct configuration is needed.
pub(crate) fn del(request: &DelRequest) -> Result<(), Error> {
    let identity = Identity::of(&request.conf.name, &request.id)?;
    let listed = addresses::listed(&request.conf);
    match Keeper::of(&request.conf)? {
        Keeper::Weft(ipam) => match detach(&ipam, &identity)? {
            Found::Pair => Ok(()),
            Found::NoPair => predecessor::clear(request, &identity, true),
        },
        Keeper::Delegate(ipam, name) => del_delegated(request, &identity, &ipam, &name, &listed),
        Keeper::Earlier => {
            let restored = Backup::of(&request.conf, &request.id)
                .restore(request.netns.as_deref(), request.id.ifname.as_str());
            release(&identity, &listed).and(restored)
        }
    }
}

/// The plugin frees the addresses when nothing answers to them any more, except where it needs the link for it.
fn del_delegated(
    request: &DelRequest,
    identity: &Identity,
    ipam: &Ipam,
    name: &PluginName,
    listed: &[IpAddr],
) -> Result<(), Error> {
    let free = || Ok(Delegate::find(name, &request.path, &request.conf)?.del()?);
    let freed: Option<Result<(), Error>> = name.needs_link().then(free);
    if let Found::NoPair = detach_from(ipam, identity, Known::Elsewhere(listed))? {
        predecessor::clear(request, identity, false)?;
    }
    freed.unwrap_or_else(free)
}

/// What DEL finds of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A pair, which is gone now.
    Pair,
    /// None. It may have been removed before, or Weft has not made it.
    NoPair,
}

/// How the addresses of an attachment are found.
#[derive(Clone, Copy)]
enum Known<'a> {
    /// Its lease has them.
    Lease(&'a Lease),
    /// It has no lease, or has lost it.
    Nothing,
    /// Weft did not give them. These were in the result, if it is still there.
    Elsewhere(&'a [IpAddr]),
}

impl<'a> Known<'a> {
    const fn lease(self) -> Option<&'a Lease> {
        match self {
            Self::Lease(lease) => Some(lease),
            Self::Nothing | Self::Elsewhere(_) => None,
        }
    }
}

/// Removes what `identity` has in the kernel, then ends its lease: an address is free only when nothing answers to it
/// any more. Where that fails the lease stays, and the next DEL or GC begins again.
pub(crate) fn detach(ipam: &Ipam, identity: &Identity) -> Result<Found, Error> {
    detach_from(ipam, identity, Known::Nothing)
}

fn detach_from(ipam: &Ipam, identity: &Identity, otherwise: Known<'_>) -> Result<Found, Error> {
    let _at_work = ipam.begin_work(&identity.attachment);
    let lease = ipam.lookup_to_end(&identity.attachment)?;
    log::phase("lookup");
    let found = remove(identity, lease.as_ref().map_or(otherwise, Known::Lease))?;
    if let Some(lease) = lease {
        ipam.end(&lease)?;
    }
    log::phase("ipam");
    remove_unused_table(ipam)?;
    Ok(found)
}

/// The same for an abandoned lease, before its addresses are given to somebody else.
pub(crate) fn evict(lease: &Lease) -> Result<(), String> {
    let identity = Identity::derive(lease.attachment.clone());
    remove(&identity, Known::Lease(lease)).map(drop).map_err(|error| chain(&error))
}

/// Whoever finds the network empty removes the table, and not only whose lease was the last: that one may have been
/// killed before it came to it.
pub(crate) fn remove_unused_table(ipam: &Ipam) -> Result<(), Error> {
    if ipam.is_empty()?
        && let Some(nft) = Nft::open_if_any()?
    {
        nft.remove_unused_table()?;
    }
    Ok(())
}

/// Behind another plugin there is no more to remove than what goes with the addresses: the interface is that plugin's,
/// even where it is Weft.
fn release(identity: &Identity, listed: &[IpAddr]) -> Result<(), Error> {
    let Some(nft) = Nft::open_if_any()? else { return Ok(()) };
    withdraw(&nft, identity, Known::Elsewhere(listed))?;
    Ok(nft.remove_unused_table()?)
}

/// Removes everything that is the attachment's from the kernel. Whatever fails, the rest is removed.
fn remove(identity: &Identity, known: Known<'_>) -> Result<Found, Error> {
    let host = Rtnl::open()?;
    let link = host.link(&identity.host_ifname)?;
    // The socket lives until the pair is gone: closing it takes a grace period, as taking down a link does, and so both
    // take one together.
    let stopped = remove_elements(identity, known, link.is_some());
    log::phase("nft");
    let removed = remove_pair(&host, identity, link.as_ref());
    log::phase("links");
    let failures: Vec<_> =
        [stopped.err(), removed.err()].iter().flatten().map(|error| chain(error)).collect();
    if failures.is_empty() {
        Ok(if link.is_some() { Found::Pair } else { Found::NoPair })
    } else {
        Err(Error::Incomplete { what: identity.attachment.to_string(), failures })
    }
}

/// On a kernel without nf_tables there are none.
fn remove_elements(identity: &Identity, known: Known<'_>, has_pair: bool) -> Result<Option<Nft>, Error> {
    if matches!(known, Known::Nothing) && !has_pair {
        return Ok(None);
    }
    let Some(nft) = Nft::open_if_any()? else { return Ok(None) };
    // Whatever the mode is now, and whatever comes of the rest.
    let unpinned = nft.unpin_source(&identity.host_ifname);
    withdraw(&nft, identity, known)?;
    unpinned?;
    Ok(Some(nft))
}

/// By the lease, and not by `ipMasq`: it may have been changed since the ADD. A pair without a lease is one whose lease was
/// lost, and nothing but the marks says which addresses it had; nor does anything else where another plugin gave them
/// and the runtime has lost the result.
fn withdraw(nft: &Nft, identity: &Identity, known: Known<'_>) -> Result<(), Error> {
    let mark = identity.mark();
    let addresses: Vec<_> = match known {
        Known::Lease(lease) => lease.addresses.iter().map(|assigned| assigned.address.ip()).collect(),
        Known::Elsewhere(listed) if !listed.is_empty() => listed.to_vec(),
        Known::Elsewhere(_) | Known::Nothing => {
            let all = nft.masqueraded()?;
            all.iter().filter(|found| found.is_of(&mark)).map(|found| found.address).collect()
        }
    };
    let ports = ports::standing(nft, &mark, known.lease())?;
    Ok(ports::withdraw(nft, &mark, &addresses, &ports)?)
}

fn remove_pair(host: &Rtnl, identity: &Identity, link: Option<&Link>) -> Result<(), Error> {
    let Some(link) = link else { return Ok(()) };
    // A link without a mark is one whose ADD was killed before it could mark it.
    match &link.alias {
        Some(owner) if *owner != identity.mark() => Err(Error::ForeignLink {
            link: link.name.clone(),
            owner: owner.clone(),
            attachment: identity.attachment.to_string(),
        }),
        _ => Ok(host.delete_link(link)?),
    }
}
