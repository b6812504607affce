//! `weft-ipam show`.

use std::time::SystemTime;

use serde_json::json;
use weft_ipam::lease::{Lease, NetnsIdentity};
use weft_ipam::table::columns;

use super::lease::{self, Life, Subject};
use super::place::{Network, Place, Readable};
use super::text::{age, utc};
use super::{Answer, Error, Exit};

/// Shows everything that a lease holds, and whether the namespace it was made for is still there.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// An address, a pod as NAMESPACE/NAME, or a container's id or at least 3 characters of its beginning
    #[arg(value_name = "WHAT")]
    subject: Subject,
    #[command(flatten)]
    place: Place,
}

/// A lease and where it was found.
pub(super) struct Held {
    pub(super) network: Network,
    pub(super) life: Life,
    pub(super) lease: Lease,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let networks = arguments.place.open()?;
    let Readable { networks: leases, exit } = Readable::of(&networks, |network| {
        network.readable_leases().map(|(leases, exit)| ((network, leases), exit))
    });
    let found = match select(&arguments.place, &arguments.subject, leases) {
        // Where not everything could be read, nobody can say so.
        Err(Error::NotHeld { .. }) if exit == Exit::Failed => {
            return Ok(Answer { text: String::new(), exit });
        }
        found => found?,
    };
    if arguments.place.json {
        let leases = found.iter().map(|held| lease::json_now(&held.network, held.life, &held.lease));
        return Ok(Answer { text: format!("{}\n", json!({ "leases": leases.collect::<Vec<_>>() })), exit });
    }
    let now = SystemTime::now();
    Ok(Answer { text: found.iter().map(|held| card(held, now)).collect::<Vec<_>>().join("\n"), exit })
}

/// The leases of `subject` in all networks; none is an error, and so is a network that cannot be read.
pub(super) fn find(place: &Place, subject: &Subject) -> Result<Vec<Held>, Error> {
    let networks = place.open()?;
    let leases = networks.iter().map(|network| Ok((network, network.readable_leases()?.0)));
    select(place, subject, leases.collect::<Result<_, Error>>()?)
}

fn select(place: &Place, subject: &Subject, leases: Vec<(&Network, Vec<Lease>)>) -> Result<Vec<Held>, Error> {
    let is_empty = leases.is_empty();
    let leases = leases
        .into_iter()
        .flat_map(|(network, leases)| leases.into_iter().map(move |lease| (network, lease)));
    let mut found: Vec<_> = leases.collect();
    subject.select(&mut found, |(_, lease)| lease);
    if found.is_empty() {
        let hint = match is_empty {
            true => format!(" (no network has leases in {})", place.data_dir()?.display()),
            false => String::new(),
        };
        return Err(Error::NotHeld { subject: subject.clone(), hint });
    }
    Ok(found.into_iter().map(|(network, lease)| Held::of(network, lease)).collect())
}

impl Held {
    pub(super) fn of(network: &Network, lease: Lease) -> Self {
        Self { life: Life::of(&network.ipam, &lease), network: network.clone(), lease }
    }
}

fn card(held: &Held, now: SystemTime) -> String {
    let lease = &held.lease;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("network", held.network.name.clone());
    if let Some(node) = &held.network.node {
        row("node", node.clone());
    }
    row("container", lease.attachment.container().into());
    row("interface", lease.attachment.ifname().into());
    for assigned in &lease.addresses {
        let gateway = assigned.gateway.map_or_else(String::new, |gateway| format!(", gateway {gateway}"));
        row("address", format!("{}{gateway}", assigned.address));
    }
    let unknown = || "not known".to_owned();
    row("pod", lease.pod.as_ref().map_or_else(unknown, |pod| format!("{pod}, uid {}", or_dash(&pod.uid))));
    let netns = lease.netns.as_ref();
    row("namespace", netns.map_or_else(unknown, namespace));
    row("boot", lease.boot_id.clone().unwrap_or_else(unknown));
    let since = |since| format!("{}, {} ago", utc(since), age(since, now));
    row("since", lease::since(lease).map_or_else(unknown, since));
    for (name, note) in &lease.notes {
        row(name, note.to_string());
    }
    row("state", state(held.life).into());
    columns("  ", &rows)
}

fn namespace(netns: &NetnsIdentity) -> String {
    let pids = netns.pid_namespace.map_or_else(String::new, |inode| format!(" of pid namespace {inode}"));
    format!("{}{pids}, inode {}", netns.path.display(), netns.inode)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn state(life: Life) -> &'static str {
    match life {
        Life::Lives => "lives: the namespace is there",
        Life::Gone => "gone: the namespace is not there any more; `weft-ipam reclaim` ends the lease",
        Life::Elsewhere => "elsewhere: the lease is another node's, and only that can see the namespace",
        Life::Unknown => "unknown: the namespace is not recorded, or cannot be seen from here",
    }
}
