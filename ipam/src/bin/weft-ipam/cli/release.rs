//! `weft-ipam release`.

use std::collections::BTreeSet;

use serde_json::json;
use weft_ipam::lease::Attachment;

use super::lease::{self, Life, Subject};
use super::place::Place;
use super::show::{Held, find};
use super::text::count;
use super::{Answer, Error};

/// Ends leases by hand, where a runtime's DEL never came. A lease whose pod lives, or might, is only ended with --force: its
/// addresses would go to somebody else while the pod still answers to them.
///
/// What weft-cni made for a pod in the kernel is not touched; `weft-cni audit --repair` removes it, and ends the lease too.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// An address, a pod as NAMESPACE/NAME, or a container's id or at least 3 characters of its beginning (12 with --force)
    #[arg(value_name = "WHAT", required_unless_present = "node", conflicts_with = "node")]
    subject: Option<Subject>,
    /// All leases of a node that is gone for good, with --force; for a store that nodes share
    #[arg(long, requires = "conf", conflicts_with = "ifname")]
    node: Option<String>,
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
    let found = match (&arguments.node, &arguments.subject) {
        (Some(node), _) => of_node(arguments, node)?,
        (None, Some(subject)) => chosen(arguments, subject)?,
        (None, None) => Vec::new(),
    };
    if !arguments.force {
        refuse_another_node(arguments, &found)?;
        refuse_living(&found)?;
    }
    for (done, Held { network, lease, .. }) in found.iter().enumerate() {
        let ended = network.ipam.end(lease);
        ended.map_err(|why| if done == 0 { network.unchanged(why) } else { network.partly_changed(why) })?;
    }
    if arguments.place.json {
        let leases = found.iter().map(|held| lease::json_now(&held.network, held.life, &held.lease));
        return Ok(format!("{}\n", json!({ "released": leases.collect::<Vec<_>>() })).into());
    }
    Ok(found.iter().map(|held| format!("released {}\n", lease::line(&held.lease))).collect::<String>().into())
}

fn of_node(arguments: &Arguments, node: &str) -> Result<Vec<Held>, Error> {
    let mut found = Vec::new();
    let networks = arguments.place.open()?.into_iter();
    for network in networks.filter(|network| network.node.as_deref() == Some(node)) {
        for lease in network.readable_leases()?.0 {
            found.push(Held::of(&network, lease));
        }
    }
    match found.is_empty() {
        true => Err(Error::NotHeld { subject: Subject::Node(node.into()), hint: String::new() }),
        false => Ok(found),
    }
}

fn chosen(arguments: &Arguments, subject: &Subject) -> Result<Vec<Held>, Error> {
    let mut found = match find(&arguments.place, subject) {
        Err(nobody @ Error::NotHeld { .. }) => damaged(arguments, subject, nobody)?,
        found => found?,
    };
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
    refuse_two_networks(subject, &found)?;
    if arguments.force {
        refuse_short_beginning(subject, &found)?;
    }
    Ok(found)
}

/// Where what was written of a lease is damaged, only the whole id of its container leads to it.
fn damaged(arguments: &Arguments, subject: &Subject, nobody: Error) -> Result<Vec<Held>, Error> {
    let Subject::Container(id) = subject else { return Err(nobody) };
    let ifname = arguments.ifname.as_deref().unwrap_or("eth0");
    let mut found = Vec::new();
    for network in arguments.place.open()? {
        let Ok(attachment) = Attachment::new(&network.name, id, ifname) else { continue };
        let lease = network.ipam.lookup_to_end(&attachment).map_err(|error| network.unreadable(error))?;
        found.extend(lease.map(|lease| Held::of(&network, lease)));
    }
    if found.is_empty() { Err(nobody) } else { Ok(found) }
}

/// An address is somebody else's in every network. A container that is in several is one all the same.
fn refuse_two_networks(subject: &Subject, found: &[Held]) -> Result<(), Error> {
    let networks: BTreeSet<_> = found.iter().map(|held| held.network.name.as_str()).collect();
    if !matches!(subject, Subject::Address(_)) || networks.len() < 2 {
        return Ok(());
    }
    let networks = networks.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::InSeveral { subject: subject.clone(), networks })
}

/// With force nothing else stands between a slip of the fingers and a living pod.
fn refuse_short_beginning(subject: &Subject, found: &[Held]) -> Result<(), Error> {
    // What tools print of an id: Docker, crictl has 13.
    const PRINTED: usize = 12;
    let Subject::Container(id) = subject else { return Ok(()) };
    match found.iter().find(|held| !subject.is_whole_id_of(&held.lease)) {
        Some(held) if id.len() < PRINTED => {
            let container = held.lease.attachment.container().to_owned();
            Err(Error::TooShort { id: id.clone(), container, least: PRINTED })
        }
        _ => Ok(()),
    }
}

fn refuse_another_node(arguments: &Arguments, found: &[Held]) -> Result<(), Error> {
    match &arguments.node {
        Some(node) if found.iter().any(|held| held.life == Life::Elsewhere) => {
            Err(Error::AnotherNode { node: node.clone(), leases: count(found.len(), "lease") })
        }
        _ => Ok(()),
    }
}

fn refuse_living(found: &[Held]) -> Result<(), Error> {
    let Some(held) = found.iter().find(|held| held.life != Life::Gone) else { return Ok(()) };
    let lease = &held.lease;
    let why = match (&lease.netns, held.life) {
        (_, Life::Elsewhere) => {
            let node = held.network.node.as_deref().unwrap_or_default();
            format!("the lease is {node}'s, and only that can tell whether it lives")
        }
        (Some(netns), Life::Lives) => format!("its namespace {} is there", netns.path.display()),
        (Some(netns), _) => {
            format!("nobody can tell whether its namespace {} is there", netns.path.display())
        }
        (None, _) => "nobody can tell whether it lives: its namespace is not recorded".to_owned(),
    };
    Err(Error::Living { what: format!("{}: {why}", lease::line(lease)) })
}
