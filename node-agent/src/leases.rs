//! The leases of the network that is in force, as far as they are on this node.

use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};
use weft_ipam::Ipam;
use weft_ipam::config::Config;
use weft_ipam::lease::Lease;

use crate::conflist::List;
use crate::status::Range;

/// A page is waited for by somebody.
const PATIENCE: Duration = Duration::from_millis(200);

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// They are somebody else's.
    #[error(
        "the addresses of network {network} are not in leases of this node (ipam.type or ipam.store says where they are)"
    )]
    Elsewhere { network: String },
    /// The configuration does not say where they are.
    #[error("the configuration of network {network} is wrong: {mistakes}")]
    Config { network: String, mistakes: weft_ipam::config::Mistakes },
    /// They cannot be opened.
    #[error("cannot open the leases of network {network}")]
    Open { network: String, source: Box<weft_ipam::Error> },
}

/// Opens them. That reads nothing yet.
pub(crate) fn open(list: &List) -> Result<Ipam, Error> {
    let network = || list.name.clone();
    let maker = list.maker().filter(|maker| is_local(maker));
    let maker = maker.ok_or_else(|| Error::Elsewhere { network: network() })?;
    let dir = Config::data_dir(maker).map_err(|mistakes| Error::Config { network: network(), mistakes })?;
    Ipam::open_waiting(&list.name, &dir, PATIENCE)
        .map_err(|error| Error::Open { network: network(), source: Box::new(error) })
}

/// How full each range is; nothing where nobody can tell.
pub(crate) fn ranges(list: &List) -> Vec<Range> {
    let pool = list.maker().and_then(|maker| Config::parse(maker).ok()).map(|config| config.pool);
    let used = pool.and_then(|pool| open(list).ok()?.utilisation(&pool).ok());
    let range = |used: weft_ipam::Utilisation| Range {
        network: list.name.clone(),
        subnet: used.range.subnet().to_string(),
        held: whole(used.held),
        size: whole(used.size),
    };
    used.into_iter().flatten().map(range).collect()
}

/// How many pods have an address in none of `subnets`; none where nobody can tell.
pub(crate) fn outside(list: &List, subnets: &[IpNetwork]) -> usize {
    let found = open(list).ok().and_then(|ipam| ipam.readable_leases().ok());
    let is_outside = |lease: &Lease| {
        let is_within = |ip| subnets.iter().any(|subnet| subnet.contains(ip));
        !lease.addresses.iter().all(|assigned| is_within(assigned.address.ip()))
    };
    found.map_or(0, |found| found.leases.iter().filter(|lease| is_outside(lease)).count())
}

fn whole(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn is_local(maker: &Map<String, Value>) -> bool {
    let at = |path| maker.get("ipam").and_then(|ipam| ipam.pointer(path)?.as_str());
    at("/type") == Some("weft-ipam") && at("/store/type").is_none_or(|store| store == "local")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn list(ipam: &str) -> List {
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [{{"type": "weft-cni", "ipam": {ipam}}}]}}"#
        );
        List::parse(Path::new("x.conflist"), text.as_bytes()).unwrap()
    }

    #[test]
    fn the_ranges_of_a_network_say_how_full_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = serde_json::json!({ "type": "weft-ipam", "dataDir": dir.path(), "subnet": "10.9.0.0/24" });
        let list = list(&ipam.to_string());
        let ipam = open(&list).unwrap();
        let pool = Config::parse(list.maker().unwrap()).unwrap().pool;
        let attachment = weft_ipam::lease::Attachment::new("pods", "c1", "eth0").unwrap();
        let _lease = ipam.reserve(&pool, weft_ipam::Request::new(attachment)).unwrap().keep();
        let within = |subnet: &str| outside(&list, &[subnet.parse().unwrap()]);
        assert_eq!((within("10.9.0.0/25"), within("10.10.0.0/24")), (0, 1));
        let ranges = ranges(&list);
        assert_eq!((ranges[0].held, ranges[0].size, ranges[0].subnet.as_str()), (1, 253, "10.9.0.0/24"));
    }

    #[test]
    fn leases_that_are_elsewhere_are_not_looked_for() {
        for ipam in [r#"{"type": "host-local"}"#, r#"{"type": "weft-ipam", "store": {"type": "etcd"}}"#] {
            assert!(matches!(open(&list(ipam)), Err(Error::Elsewhere { .. })), "{ipam}");
            assert!(ranges(&list(ipam)).is_empty());
        }
        assert!(open(&list(r#"{"type": "weft-ipam", "dataDir": "relative"}"#)).is_err());
    }
}
