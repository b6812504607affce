//! An export, as it is read ([`export`](super::super::export) writes it).

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use weft_ipam::Import;
use weft_ipam::config::parse_ranges;
use weft_ipam::lease::{Assigned, Attachment, Lease, NetnsIdentity, Notes, Pod, Timestamp};

use super::super::Error;
use super::super::export::{KEY, VERSION};
use super::super::place::read_json;
use super::join;

/// One network of an export.
#[derive(Deserialize)]
pub(super) struct ExportedNetwork {
    pub(super) name: String,
    pub(super) node: Option<String>,
    ranges: Option<Value>,
    leases: Vec<Exported>,
    #[serde(default)]
    freed: Vec<ExportedFree>,
    #[serde(default)]
    damaged: Vec<ExportedDamage>,
}

/// What it has of a lease.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exported {
    container: String,
    ifname: String,
    addresses: Vec<ExportedAddress>,
    pod: Option<Pod>,
    netns: Option<NetnsIdentity>,
    boot_id: Option<String>,
    since_unix_nanos: u64,
    #[serde(default)]
    notes: Notes,
}

#[derive(Deserialize)]
struct ExportedAddress {
    #[serde(deserialize_with = "network")]
    address: IpNetwork,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportedFree {
    address: IpAddr,
    at_unix_nanos: u64,
}

#[derive(Deserialize)]
struct ExportedDamage {
    addresses: Vec<IpAddr>,
}

impl ExportedNetwork {
    /// The addresses of each lease that the export lacks.
    pub(super) fn lost(&self) -> impl Iterator<Item = String> {
        self.damaged.iter().map(|damaged| join(&damaged.addresses))
    }

    pub(super) fn import(self) -> Result<Import, String> {
        let pool = self.ranges.filter(|ranges| !ranges.is_null()).map(|ranges| parse_ranges(&ranges));
        let freed = self.freed.iter().map(|free| (free.address, Timestamp(free.at_unix_nanos).into()));
        let name = self.name;
        Ok(Import {
            pool: pool.transpose().map_err(|mistakes| mistakes.to_string())?,
            freed: freed.collect(),
            leases: self.leases.into_iter().map(|lease| lease.lease(&name)).collect::<Result<_, _>>()?,
        })
    }
}

impl Exported {
    fn lease(self, network: &str) -> Result<Lease, String> {
        let attachment = Attachment::new(network, &self.container, &self.ifname);
        let attachment = attachment.map_err(|error| error.to_string())?;
        if self.addresses.is_empty() {
            return Err(format!("the lease of {attachment} has no address"));
        }
        let assigned = |one: &ExportedAddress| Assigned { address: one.address, gateway: one.gateway };
        Ok(Lease {
            attachment,
            addresses: self.addresses.iter().map(assigned).collect(),
            pod: self.pod,
            netns: self.netns,
            boot_id: self.boot_id,
            since: Timestamp(self.since_unix_nanos).into(),
            notes: self.notes,
        })
    }
}

/// Those of the networks in `file` that are `wanted`, or all where none is named.
pub(super) fn read(file: &Path, wanted: &[String]) -> Result<Vec<ExportedNetwork>, Error> {
    let mut document = read_document(file)?;
    let wrong = |why: String| Error::Export { path: file.into(), why };
    check_version(&document).map_err(wrong)?;
    let networks = document.get_mut("networks").map(Value::take).unwrap_or_default();
    let mut networks: Vec<ExportedNetwork> =
        serde_json::from_value(networks).map_err(|error| wrong(error.to_string()))?;
    if let Some(missing) = wanted.iter().find(|name| networks.iter().all(|one| one.name != **name)) {
        let known = networks.into_iter().map(|one| one.name).collect();
        return Err(Error::NotExported { name: missing.clone(), path: file.into(), known });
    }
    networks.retain(|one| wanted.is_empty() || wanted.contains(&one.name));
    Ok(networks)
}

fn read_document(file: &Path) -> Result<Value, Error> {
    if file != Path::new("-") {
        return read_json(file);
    }
    let (mut text, path) = (Vec::new(), PathBuf::from("standard input"));
    match std::io::stdin().read_to_end(&mut text) {
        Err(source) => Err(Error::Read { path, source }),
        Ok(_) => serde_json::from_slice(&text).map_err(|source| Error::Json { path, source }),
    }
}

fn check_version(document: &Value) -> Result<(), String> {
    match document.get(KEY).and_then(Value::as_u64) {
        Some(VERSION) => Ok(()),
        Some(newer) => Err(format!("it is an export of version {newer}, and this release reads {VERSION}")),
        None => Err(format!("it is no export: the key {KEY:?} is missing")),
    }
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNetwork, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}
