//! What an ADD needs of the node, as far as it can be told without changing anything.

use std::fs;

use weft_datapath::{Rtnl, sysctl};
use weft_ipam::store::local::check_writable;

use crate::Error;
use crate::config::{Config, Mode};

/// The first thing that is in the way of every ADD.
pub(super) fn look(config: &Config, host: &Rtnl) -> Result<(), Error> {
    // Where it cannot be read it is not known, and nothing is said.
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(missing) = missing(&own) {
        return Err(Error::Obstacle(format!("{missing} is missing: run the plugin as root of the node")));
    }
    let bridge = match &config.mode {
        Mode::Bridge(bridge) => Some(bridge),
        Mode::Routed => None,
    };
    if let Some(bridge) = bridge
        && let Some(link) = host.link(&bridge.name)?
        && link.kind.as_deref() != Some("bridge")
    {
        let kind = link.kind.as_deref().unwrap_or("device");
        return Err(Error::Obstacle(format!("{} exists, and is no bridge but a {kind}", bridge.name)));
    }
    let Some(leases) = config.addressing.leases() else { return Ok(()) };
    if leases.pool.ranges().any(|range| range.subnet().is_ipv6()) && bridge.is_none_or(|b| b.is_gateway) {
        ipv6(host, bridge.map_or("default", |bridge| &bridge.name))?;
    }
    let unwritable = |source| Error::Unwritable { path: leases.data_dir.clone(), source };
    check_writable(&leases.data_dir).map_err(unwritable)
}

/// Which of the capabilities is missing that the plugin works with, by `/proc/self/status`.
fn missing(status: &str) -> Option<&'static str> {
    const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    NEEDED.iter().find(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name)
}

/// Whether an interface may have an IPv6 address: `link`, or, where that is not there yet, a new one.
fn ipv6(host: &Rtnl, link: &str) -> Result<(), Error> {
    let link = if host.link(link)?.is_some() { link } else { "default" };
    let what = match sysctl::get(&["ipv6", "conf", link, "disable_ipv6"])? {
        None => "the kernel has no IPv6".to_owned(),
        Some(value) if value == "1" => {
            format!("IPv6 is disabled on the node (net.ipv6.conf.{link}.disable_ipv6)")
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Obstacle(format!("{what}, and ipam.ranges has an IPv6 range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        assert_eq!(missing("Name:\tx\nCapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing("CapEff:\t000001ffffffefff\n"), Some("CAP_NET_ADMIN"));
        assert_eq!(missing("CapEff:\t000001ffffdfffff\n"), Some("CAP_SYS_ADMIN"));
        assert_eq!(missing(""), None, "nothing is known");
    }
}
