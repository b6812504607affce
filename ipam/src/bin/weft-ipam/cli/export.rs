//! `weft-ipam export`, and the document it prints.
//!
//! ```json
//! { "weftIpamExport": 1,
//!   "networks": [{
//!     "name": "pods", "node": "node-a" | null,
//!     "ranges": [[{"subnet": "10.244.0.0/24", …}]],
//!     "leases": [{ "container": "3f2a…", "ifname": "eth0",
//!                  "addresses": [{"address": "10.244.0.2/24", "gateway": "10.244.0.1"}],
//!                  "pod": {"namespace": "shop", "name": "cart", "uid": "…"} | null,
//!                  "netns": {"path": "/run/netns/…", "inode": 4026532345, "pidNamespace": …, if the path is below /proc} | null,
//!                  "bootId": "…" | null, "sinceUnixNanos": 1795371611000000000, "notes": {} }],
//!     "freed": [{"address": "10.244.0.9", "atUnixNanos": 1795371600000000000}] }] }
//! ```
//!
//! Whoever reads it ignores keys it does not know. A change that an older reader would get wrong gets the next number.

use serde_json::{Value, json};
use weft_ipam::lease::Timestamp;

use super::lease;
use super::place::{Network, Place};
use super::{Answer, Error};

/// The key that tells an export, and its value in this release.
pub(super) const KEY: &str = "weftIpamExport";
pub(super) const VERSION: u64 = 1;

pub(super) fn run(place: &Place) -> Result<Answer, Error> {
    let networks = place.open()?;
    let networks = networks.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    let document = json!({ KEY: VERSION, "networks": networks });
    // It is JSON with and without `--json`; a person who looks at it gets lines.
    Ok(if place.json { format!("{document}\n") } else { format!("{document:#}\n") }.into())
}

fn network(network: &Network) -> Result<Value, Error> {
    let ipam = &network.ipam;
    let pool = ipam.last_pool().map_err(|error| network.unreadable(error))?;
    let freed = ipam.freed().map_err(|error| network.unreadable(error))?;
    let freed = freed
        .iter()
        .map(|(address, at)| json!({ "address": address, "atUnixNanos": Timestamp::from(*at).0 }));
    Ok(json!({
        "name": network.name,
        "node": network.node,
        "ranges": pool.map(|pool| pool.to_json()),
        "leases": network.leases()?.iter().map(lease::json).collect::<Vec<_>>(),
        "freed": freed.collect::<Vec<_>>(),
    }))
}
