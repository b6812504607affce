//! What CHECK says of the attributes of an interface, its shaping, and the parameters of a namespace.

use nix::errno::Errno;
use weft_cni_spec::CheckRequest;
use weft_datapath::{Interface, Link, NetNs, Observed, Rtnl, sysctl};

use crate::Error;
use crate::config::Sysctl;
use crate::plan::Tuned;
use crate::tuned::other_end;

/// What `link` should be like and is not. What the plan leaves open may be as it likes.
pub(super) fn lost(side: &str, interface: &Interface, link: &Link, seen: &Observed) -> Vec<String> {
    let name = &interface.name;
    let mut differences = Vec::new();
    if interface.mac.is_some() && interface.mac != link.mac {
        differences.push(format!("{name} has another hardware address {side}"));
    }
    for (flag, asked, on) in
        [("promisc", interface.promisc, link.promisc), ("allmulti", interface.allmulti, link.allmulti)]
    {
        if asked.is_some_and(|asked| asked != on) {
            differences.push(format!("{name} has {flag} {} {side}", if on { "on" } else { "off" }));
        }
    }
    if interface.tx_queue_len.is_some_and(|length| length != link.tx_queue_len) {
        differences.push(format!("{name} has a transmit queue of {} {side}", link.tx_queue_len));
    }
    if let Some(shaping) = interface.shaping
        && !seen.shaped.contains(&(link.index, shaping.shaped(link.mtu)))
    {
        differences.push(format!("{name} no longer shapes what leaves by it {side}"));
    }
    differences
}

/// What of `tuned` does not stand.
pub(super) fn missing(request: &CheckRequest, tuned: &Tuned) -> Result<Vec<String>, Error> {
    if tuned.is_nothing() {
        return Ok(Vec::new());
    }
    let netns = NetNs::open(&request.netns).map_err(Error::UnusableNetns)?;
    let ifname = tuned.pod.name.as_str();
    let (inside, differences) = netns.run(|| (Rtnl::open(), parameters(&tuned.sysctls, ifname)))?;
    let (inside, mut differences) = (inside?, differences?);
    let seen = inside.observe()?;
    match seen.link(ifname) {
        Some(link) => differences.extend(lost("in the container", &tuned.pod, link, &seen)),
        None => differences.push(format!("{ifname} is missing in the container")),
    }
    if tuned.to_pod.is_some() {
        let host = Rtnl::open()?;
        let link = other_end(&host, &inside, ifname)?;
        let wanted = Interface { shaping: tuned.to_pod, ..Interface::named(&link.name) };
        differences.extend(lost("on the host", &wanted, &link, &host.observe()?));
    }
    Ok(differences)
}

/// Which parameters of the namespace that the thread is in have another value than `sysctls` say. One that can only be
/// written says nothing.
pub(super) fn parameters(sysctls: &[Sysctl], ifname: &str) -> Result<Vec<String>, Error> {
    let mut differences = Vec::new();
    for parameter in sysctls {
        match sysctl::get(&parameter.path(ifname)) {
            Ok(Some(value)) if is_same(&parameter.value, &value) => {}
            Ok(Some(value)) => differences.push(format!("{} is {value:?} in the container", parameter.name)),
            Ok(None) => differences.push(format!("{} is missing in the container", parameter.name)),
            Err(error) if error.errno() == Errno::EACCES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(differences)
}

/// The kernel writes several numbers with tabs between them.
fn is_same(asked: &str, found: &str) -> bool {
    asked.split_whitespace().eq(found.split_whitespace())
}
