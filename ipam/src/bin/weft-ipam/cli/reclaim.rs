//! `weft-ipam reclaim`.

use serde_json::json;
use weft_ipam::lease::{FROM_HOST_LOCAL, Lease};

use super::lease;
use super::place::{Network, Place, Readable};
use super::{Answer, Error, Exit, text};

/// Ends the leases whose pods are gone. An ADD that is just happening is safe: its namespace is there.
///
/// A lease that weft-cni left a note in (host ports) is kept, since the kernel may still act on it: `weft-cni audit --repair`
/// removes both.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Only say what would be reclaimed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// What became of a network's abandoned leases.
struct Reclaimed {
    network: Network,
    ended: Vec<Lease>,
    kept: Vec<Lease>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let networks = arguments.place.open()?;
    let Readable { networks: reclaimed, exit } =
        Readable::of(&networks, |network| reclaim(network, arguments.dry_run));
    let text = if arguments.place.json { json(&reclaimed) } else { table(&reclaimed, arguments.dry_run) };
    Ok(Answer { text, exit })
}

fn reclaim(network: &Network, dry_run: bool) -> Result<(Reclaimed, Exit), Error> {
    let ipam = network.ipam.clone().evicting_with(spare_noted);
    let ended = if dry_run { Ok(Vec::new()) } else { ipam.end_abandoned() };
    let mut ended = ended.map_err(|error| network.partly_changed(error))?;
    let (mut kept, exit) = network.readable_leases()?;
    kept.retain(|lease| ipam.is_abandoned(lease));
    if dry_run {
        (ended, kept) = kept.into_iter().partition(|lease| ipam.would_reclaim(lease));
    }
    Ok((Reclaimed { network: network.clone(), ended, kept }, exit))
}

fn spare_noted(lease: &Lease) -> Result<(), String> {
    if lease.notes.keys().all(|name| name == FROM_HOST_LOCAL) {
        return Ok(());
    }
    Err("weft-cni left a note in its lease; `weft-cni audit --repair` ends it with what is in the kernel"
        .into())
}

fn json(reclaimed: &[Reclaimed]) -> String {
    let leases = |leases: &[Lease]| leases.iter().map(lease::json).collect::<Vec<_>>();
    let network = |one: &Reclaimed| json!({ "name": one.network.name, "node": one.network.node, "reclaimed": leases(&one.ended), "kept": leases(&one.kept) });
    format!("{}\n", json!({ "networks": reclaimed.iter().map(network).collect::<Vec<_>>() }))
}

fn table(reclaimed: &[Reclaimed], dry_run: bool) -> String {
    let verb = if dry_run { "would reclaim" } else { "reclaimed" };
    let ended = reclaimed.iter().flat_map(|one| &one.ended);
    let mut text: String = ended.clone().map(|lease| format!("{verb} {}\n", lease::line(lease))).collect();
    text.push_str(&format!("{verb} {}\n", text::count(ended.count(), "lease")));
    text
}
