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
//!                  "netns": {"path": "/run/netns/…", "inode": 4026532345, "pidNamespace": …, if the path is below /proc, else
//!                            "directory": [DEVICE, INODE]} | null,
//!                  "bootId": "…" | null, "sinceUnixNanos": 1795371611000000000, "notes": {} }],
//!     "freed": [{"address": "10.244.0.9", "atUnixNanos": 1795371600000000000}],
//!     "damaged": [{ "addresses": ["10.244.0.3"], "container": "77ab…" | null, "ifname": "eth0" | null, "why": "…" }] }] }
//! ```
//!
//! `damaged` has the leases that could not be read; the code is that of a failure then. A network of which nothing can be read is left out.
//!
//! Whoever reads it ignores keys it does not know. A change that an older reader would get wrong gets the next number.

use serde_json::{Value, json};
use weft_ipam::chain;
use weft_ipam::lease::{Attachment, Lease, Timestamp};
use weft_ipam::store::Damaged;

use super::lease;
use super::place::{Leases, Network, Place, Readable};
use super::{Answer, Error, Exit};

/// The key that tells an export, and its value in this release.
pub(super) const KEY: &str = "weftIpamExport";
pub(super) const VERSION: u64 = 1;

pub(super) fn run(place: &Place) -> Result<Answer, Error> {
    let networks = place.open()?;
    let Readable { networks, exit } = Readable::of(&networks, network);
    if exit != Exit::Done {
        Error::Incomplete.warn();
    }
    let document = json!({ KEY: VERSION, "networks": networks });
    // It is JSON with and without `--json`; a person who looks at it gets lines.
    let text = if place.json { format!("{document}\n") } else { format!("{document:#}\n") };
    Ok(Answer { text, exit })
}

fn network(network: &Network) -> Result<(Value, Exit), Error> {
    let ipam = &network.ipam;
    let (pool, pool_exit) = network.readable_pool()?;
    let (Leases { leases, damaged }, exit) = network.all_leases()?;
    let freed = ipam.freed().map_err(|error| network.unreadable(error))?;
    let freed = freed
        .iter()
        .map(|(address, at)| json!({ "address": address, "atUnixNanos": Timestamp::from(*at).0 }));
    let document = json!({
        "name": network.name,
        "node": network.node,
        "ranges": pool.map(|pool| pool.to_json()),
        "leases": leases.iter().map(lease::json).collect::<Vec<_>>(),
        "freed": freed.collect::<Vec<_>>(),
        "damaged": damaged.iter().map(damaged_json).collect::<Vec<_>>(),
    });
    Ok((document, exit.max(pool_exit)))
}

fn damaged_json(damaged: &Damaged<Lease, Error>) -> Value {
    let whose = damaged.remains.as_ref().map(|lease| &lease.attachment);
    json!({
        "addresses": damaged.addresses,
        "container": whose.map(Attachment::container),
        "ifname": whose.map(Attachment::ifname),
        "why": chain(&damaged.error),
    })
}
