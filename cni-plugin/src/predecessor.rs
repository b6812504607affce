//! DEL for a container that the reference plugins have attached, before the list became Weft's.
//!
//! What they left is removed as far as it says itself that it is the container's: the interface, the device that shaped
//! what came from it, and, where Weft has taken over the addresses, the files of host-local. Chains of iptables have names
//! that only the plugin which made them can tell, and stay; `docs/migration.md` says what to do with them.

use std::path::Path;
use std::{fs, io};

use weft_cni_spec::{AddResult, DelRequest, Interface};
use weft_datapath::{Link, NetNs, Rtnl};
use weft_ipam::config::Config as LeaseConfig;

use crate::Error;
use crate::identity::Identity;

/// Where host-local keeps its leases, unless `dataDir` says otherwise.
const HOST_LOCAL: &str = "/var/lib/cni/networks";

/// Removes what there is. The result that the runtime has kept is what tells whether another plugin was there; without it
/// nothing is done.
pub(crate) fn clear(request: &DelRequest, identity: &Identity, has_addresses: bool) -> Result<(), Error> {
    let Some(result) = request.conf.prev_result().ok().flatten() else { return Ok(()) };
    let ifname = request.id.ifname.as_str();
    let in_container = result.interfaces.iter().find(|i| i.name == ifname && !i.sandbox.is_empty());
    let is_ours = result.interfaces.iter().any(|i| i.name == identity.host_ifname);
    let Some(listed) = in_container.filter(|_| !is_ours) else { return Ok(()) };
    let attachment = identity.attachment.to_string();
    weft_cni_spec::log(format_args!(
        "weft-cni: {attachment} was attached by another plugin; what it left in iptables stays"
    ));
    remove_interface(request.netns.as_deref(), listed)?;
    remove_shaper(&result)?;
    if has_addresses { free_addresses(request, &result) } else { Ok(()) }
}

/// A pair's end with the address that the result lists. The namespace may be gone, and all that was in it.
fn remove_interface(netns: Option<&Path>, listed: &Interface) -> Result<(), Error> {
    let Some(Ok(inside)) = netns.map(|path| NetNs::open(path).and_then(|netns| netns.rtnl())) else {
        return Ok(());
    };
    let is_listed = |link: &Link| {
        link.kind.as_deref() == Some("veth")
            && link.mac.map(|mac| mac.to_string()).as_ref() == Some(&listed.mac)
    };
    match inside.link(&listed.name)?.filter(is_listed) {
        Some(link) => Ok(inside.delete_link(&link)?),
        None => Ok(()),
    }
}

/// The reference's `bandwidth` shapes what comes from a container on a device of its own on the node.
fn remove_shaper(result: &AddResult) -> Result<(), Error> {
    for listed in result.interfaces.iter().filter(|i| i.sandbox.is_empty() && i.name.starts_with("bwp")) {
        let host = Rtnl::open()?;
        if let Some(link) = host.link(&listed.name)?.filter(|link| link.kind.as_deref() == Some("ifb")) {
            host.delete_link(&link)?;
        }
    }
    Ok(())
}

/// A file of host-local is named after the address, and holds the container and the interface.
fn free_addresses(request: &DelRequest, result: &AddResult) -> Result<(), Error> {
    let directories = [LeaseConfig::data_dir(&request.conf.document).ok(), Some(HOST_LOCAL.into())];
    for directory in directories.into_iter().flatten() {
        for ip in result.ips.iter().map(|ip| ip.address.ip()) {
            let file = directory.join(request.conf.name.as_str()).join(ip.to_string());
            free(&file, request).map_err(|source| Error::HostLocal { path: file, source })?;
        }
    }
    Ok(())
}

fn free(file: &Path, request: &DelRequest) -> io::Result<()> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let mut lines = text.lines().map(str::trim);
    let is_container = lines.next() == Some(request.id.container.as_str());
    // Files of its first releases have no second line.
    let is_interface = lines.next().is_none_or(|line| line == request.id.ifname.as_str());
    if is_container && is_interface { fs::remove_file(file) } else { Ok(()) }
}
