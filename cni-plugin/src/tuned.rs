//! Tuning an interface that another plugin has made.

use std::path::Path;

use weft_datapath::{Interface, Link, NetNs, Rtnl, sysctl};

use crate::Error;
use crate::config::Sysctl;
use crate::plan::Tuned;

/// Does it. Nothing is taken back where a step fails: the runtime's DEL ends the interface, and all of it with that.
pub(crate) fn apply(netns: &Path, tuned: &Tuned) -> Result<(), Error> {
    if tuned.is_nothing() {
        return Ok(());
    }
    let netns = NetNs::open(netns).map_err(Error::UnusableNetns)?;
    let ifname = tuned.pod.name.as_str();
    let inside = netns.run(|| set(&tuned.sysctls, ifname).and_then(|()| Rtnl::open()))??;
    if let Some(shaping) = tuned.to_pod {
        let host = Rtnl::open()?;
        let link = other_end(&host, &inside, ifname)?;
        host.configure(&Interface { shaping: Some(shaping), ..Interface::named(link.name) })?;
    }
    Ok(inside.configure(&tuned.pod)?)
}

/// Sets parameters of the namespace that the calling thread is in.
pub(crate) fn set(sysctls: &[Sysctl], ifname: &str) -> Result<(), weft_datapath::Error> {
    sysctls.iter().try_for_each(|parameter| sysctl::set(&parameter.path(ifname), &parameter.value))
}

/// The end of the pair that is on the node. Both must name each other: the index alone could be that of some other link,
/// where the pair's end is in a third namespace.
pub(crate) fn other_end(host: &Rtnl, inside: &Rtnl, ifname: &str) -> Result<Link, Error> {
    let pod = inside.link(ifname)?;
    let other = pod.as_ref().and_then(|pod| pod.peer).map(|index| host.link_by_index(index)).transpose()?;
    let own = pod.map(|pod| pod.index);
    let ifname = ifname.to_owned();
    other.flatten().filter(|other| other.peer.is_some() && other.peer == own).ok_or(Error::NoPair { ifname })
}
