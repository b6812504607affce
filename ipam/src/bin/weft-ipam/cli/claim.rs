//! `weft-ipam claim`.

use serde_json::json;
use weft_ipam::config::Location;
use weft_ipam::store::etcd::EtcdStore;

use super::place::Place;
use super::{Answer, Error};

/// Makes this machine the node whose name it has, for a store that nodes share. For a machine that takes the place of
/// another one, which is gone for good: the leases of that are this one's then, and end as those of an earlier boot do.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Error> {
    let Some(conf) = arguments.place.network_conf()? else { return Err(Error::NotShared) };
    let Location::Etcd(settings) = conf.config.location() else { return Err(Error::NotShared) };
    let node = settings.node.clone();
    let store = EtcdStore::new(*settings, &conf.name);
    let former = store.and_then(|store| store.claim());
    let former = former.map_err(|source| Error::Claim { node: node.clone(), source: source.into() })?;
    if arguments.place.json {
        return Ok(
            format!("{}\n", json!({ "network": conf.name, "node": node, "formerOwner": former })).into()
        );
    }
    let before = former.map_or_else(|| "nobody's".into(), |owner| format!("those of the machine {owner}"));
    Ok(format!("the leases of {} on {node} are this machine's; they were {before}\n", conf.name).into())
}
