//! Why a command failed, and what to do next.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use weft_ipam::config::Mistakes;
use weft_ipam::lease::NameError;

use super::Exit;
use super::lease::Subject;

/// What was being done, to what.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot list the networks in {}", dir.display())]
    Networks { dir: PathBuf, source: io::Error },
    #[error("cannot read the leases of {network}")]
    Leases { network: String, source: Box<weft_ipam::Error> },
    #[error(
        "cannot read the lease of {} in {network}; it stays until its DEL, or `weft-ipam release CONTAINER --force`",
        if addresses.is_empty() { "nobody knows what" } else { addresses }
    )]
    Lease { addresses: String, network: String, source: Box<weft_ipam::Error> },
    #[error(
        "the export lacks what could not be read; mend that and export again, or move it so and restart the pods that have those addresses"
    )]
    Incomplete,
    #[error("cannot change the leases of {network}; nothing was changed")]
    Change { network: String, source: Box<weft_ipam::Error> },
    #[error("cannot change all leases of {network}; what was done before stays, and may be done again")]
    ChangeAll { network: String, source: Box<weft_ipam::Error> },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no JSON document", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} is no network configuration: {why}", path.display())]
    NoConf { path: PathBuf, why: &'static str },
    #[error("the addresses of {} are kept by {plugin}, not by weft-ipam; name a configuration with \"type\": \"weft-ipam\" in its ipam section", path.display())]
    OtherIpam { path: PathBuf, plugin: String },
    #[error("there is no directory {}", dir.display())]
    NoDataDir { dir: PathBuf },
    #[error("there is no network {name} in {}{}", dir.display(), there_are(known))]
    NoNetwork { name: String, dir: PathBuf, known: Vec<String> },
    #[error("there is no network {name} in {}{}", path.display(), there_are(known))]
    NotExported { name: String, path: PathBuf, known: BTreeSet<String> },
    #[error("the ipam section of {} cannot be used", path.display())]
    Conf { path: PathBuf, source: Mistakes },
    #[error("{} cannot be imported: {why}", path.display())]
    Export { path: PathBuf, why: String },
    #[error("no host-local leases in {}{}", dir.display(), did_you_mean(networks))]
    NoHostLocal { dir: PathBuf, networks: Vec<PathBuf> },
    #[error(
        "nobody says which ranges {network} has, so nothing was taken over; name its new configuration with --conf"
    )]
    NoRanges { network: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("host-local's lock {} was held for {} s; try again", path.display(), seconds)]
    HostLocalLocked { path: PathBuf, seconds: u64 },
    #[error(
        "cannot read whose addresses these are: {files}. Pods may have them, so nothing was taken over: write the ids of their containers \
         into the files, or remove those whose pods are gone"
    )]
    UnreadableHostLocal { files: String },
    #[error("nobody holds {subject}; `weft-ipam list` shows who holds what{hint}")]
    NotHeld { subject: Subject, hint: String },
    #[error("{subject} may be any of {candidates}; give more of the id")]
    Ambiguous { subject: Subject, candidates: String },
    #[error("{subject} is held in {networks}; name one of them with --network")]
    InSeveral { subject: Subject, networks: String },
    #[error(
        "{id} is only the beginning of {container}; with --force give the whole id, or {least} characters at least"
    )]
    TooShort { id: String, container: String, least: usize },
    #[error(
        "{node} holds {leases}, and only {node} can tell whether its pods live, so nothing was released; if it is gone for good, release them with --force"
    )]
    AnotherNode { node: String, leases: String },
    #[error("{what}, so nothing was released; stop the pod, or release it all the same with --force")]
    Living { what: String },
    #[error("only a store that nodes share has nodes to claim: name a configuration with `store` by --conf")]
    NotShared,
    #[error("cannot claim the leases of node {node}")]
    Claim { node: String, source: Box<weft_ipam::store::etcd::Error> },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

impl Error {
    /// Says it on standard error, where the command goes on with the rest.
    pub(super) fn warn(&self) -> Exit {
        weft_cni_spec::log(format_args!("weft-ipam: {}", weft_ipam::chain(self)));
        self.exit()
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotHeld { .. }
            | Self::NoDataDir { .. }
            | Self::NoNetwork { .. }
            | Self::NotExported { .. } => Exit::NotFound,
            Self::Living { .. }
            | Self::Ambiguous { .. }
            | Self::InSeveral { .. }
            | Self::TooShort { .. }
            | Self::UnreadableHostLocal { .. }
            | Self::AnotherNode { .. } => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

fn there_are<'a>(known: impl IntoIterator<Item = &'a String>) -> String {
    let known: Vec<_> = known.into_iter().map(String::as_str).collect();
    if known.is_empty() { String::new() } else { format!("; there are {}", known.join(", ")) }
}

fn did_you_mean(networks: &[PathBuf]) -> String {
    if networks.is_empty() {
        return String::new();
    }
    let all: Vec<_> = networks.iter().map(|dir| dir.display().to_string()).collect();
    format!("; did you mean {}?", all.join(" or "))
}
