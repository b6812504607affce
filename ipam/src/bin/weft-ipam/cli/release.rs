//! `weft-ipam release`.

use std::collections::BTreeSet;

use serde_json::json;

use super::lease::{self, Life, Subject};
use super::place::Place;
use super::show::{Held, find};
use super::{Answer, Error};

/// Ends leases by hand, where a runtime's DEL never came. A lease whose pod lives, or might, is only ended with --force: its
/// addresses would go to somebody else while the pod still answers to them.
///
/// What weft-cni made for a pod in the kernel is not touched; `weft-cni audit --repair` removes it, and ends the lease too.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// An address, a pod as NAMESPACE/NAME, or a container's id or the beginning of one
    #[arg(value_name = "WHAT")]
    subject: Subject,
    /// Only the lease of this interface
    #[arg(long)]
    ifname: Option<String>,
    /// Also where the pod lives, or nobody can tell
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let found = chosen(arguments)?;
    if !arguments.force {
        refuse_living(&found)?;
    }
    for held in &found {
        held.network.ipam.end(&held.lease).map_err(|error| held.network.unchanged(error))?;
    }
    if arguments.place.json {
        let leases = found.iter().map(|held| lease::json_now(&held.network.name, held.life, &held.lease));
        return Ok(format!("{}\n", json!({ "released": leases.collect::<Vec<_>>() })).into());
    }
    Ok(found.iter().map(|held| format!("released {}\n", lease::line(&held.lease))).collect::<String>().into())
}

fn chosen(arguments: &Arguments) -> Result<Vec<Held>, Error> {
    let subject = &arguments.subject;
    let mut found = find(&arguments.place, subject)?;
    if let Some(ifname) = &arguments.ifname {
        found.retain(|held| held.lease.attachment.ifname() == ifname);
    }
    if found.is_empty() {
        return Err(Error::NotHeld { subject: subject.clone(), hint: String::new() });
    }
    let containers: BTreeSet<_> = found.iter().map(|held| held.lease.attachment.container()).collect();
    if matches!(subject, Subject::Container(_)) && containers.len() > 1 {
        let candidates = containers.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::Ambiguous { subject: subject.clone(), candidates });
    }
    Ok(found)
}

fn refuse_living(found: &[Held]) -> Result<(), Error> {
    let Some(held) = found.iter().find(|held| held.life != Life::Gone) else { return Ok(()) };
    let lease = &held.lease;
    let why = match (&lease.netns, held.life) {
        (Some(netns), Life::Lives) => format!("its namespace {} is there", netns.path.display()),
        (Some(netns), _) => {
            format!("nobody can tell whether its namespace {} is there", netns.path.display())
        }
        (None, _) => "nobody can tell whether it lives: its namespace is not recorded".to_owned(),
    };
    Err(Error::Living { what: format!("{}: {why}", lease::line(lease)) })
}
