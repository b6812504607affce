//! What the commands say of a lease, and how it is named on the command line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_ipam::Ipam;
use weft_ipam::lease::{Assigned, Lease, NetnsIdentity, Timestamp};

use super::place::Network;

/// Whether somebody may use the addresses of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The network namespace is there, and is the one of the ADD.
    Lives,
    /// The namespace is gone, or the lease is of an earlier boot.
    Gone,
    /// The namespace is not known, or cannot be seen from here.
    Unknown,
    /// The lease is another node's, and only that can see the namespace.
    Elsewhere,
}

/// Whose leases a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Who holds this address.
    Address(IpAddr),
    /// A pod, as `namespace/name`.
    Pod(String),
    /// Everything of this node.
    Node(String),
    /// A container whose id is this or, where no id is, begins with it.
    Container(String),
}

/// So many characters of a container's id may be all that is known of it: with fewer, too many could be meant.
const SHORTEST_BEGINNING: usize = 3;

/// What is no subject.
#[derive(Debug, thiserror::Error)]
#[error(
    "name an address, a pod as NAMESPACE/NAME, or a container's id or {SHORTEST_BEGINNING} characters of its beginning at least"
)]
pub(super) struct NoSubject;

impl Life {
    pub(super) fn of(ipam: &Ipam, lease: &Lease) -> Self {
        if !ipam.is_here() {
            Self::Elsewhere
        } else if ipam.is_abandoned(lease) {
            Self::Gone
        } else if lease.netns.as_ref().is_some_and(NetnsIdentity::is_there) {
            Self::Lives
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lives => "lives",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::Elsewhere => "elsewhere",
        })
    }
}

impl Subject {
    /// Leaves those of `leases` that are meant. The whole id of a container comes before the beginning of another one's.
    pub(super) fn select<T>(&self, leases: &mut Vec<T>, lease_of: impl Fn(&T) -> &Lease) {
        if leases.iter().any(|one| self.is_whole_id_of(lease_of(one))) {
            leases.retain(|one| self.is_whole_id_of(lease_of(one)));
        } else {
            leases.retain(|one| self.is_of(lease_of(one)));
        }
    }

    pub(super) fn is_whole_id_of(&self, lease: &Lease) -> bool {
        matches!(self, Self::Container(id) if lease.attachment.container() == id)
    }

    fn is_of(&self, lease: &Lease) -> bool {
        match self {
            Self::Address(address) => lease.addresses.iter().any(|held| held.address.ip() == *address),
            Self::Pod(name) => lease.pod.as_ref().is_some_and(|pod| pod.to_string() == *name),
            Self::Container(id) => {
                id.len() >= SHORTEST_BEGINNING && lease.attachment.container().starts_with(id.as_str())
            }
            // A node's leases are a network of their own.
            Self::Node(_) => false,
        }
    }
}

/// No container's id has a `/` or a `:`, and none of the usual ones has dots. An address may have its prefix length, as `show` and
/// `ip` write it; no namespace's name is an address.
impl FromStr for Subject {
    type Err = NoSubject;

    fn from_str(text: &str) -> Result<Self, NoSubject> {
        let (before, after) =
            text.split_once('/').map_or((text, None), |(before, after)| (before, Some(after)));
        match (before.parse(), after) {
            (Ok(address), None) => Ok(Self::Address(address)),
            (Ok(address), Some(_)) if text.parse::<IpNetwork>().is_ok() => Ok(Self::Address(address)),
            (_, Some(name)) if !before.is_empty() && !name.is_empty() => Ok(Self::Pod(text.into())),
            (_, None) if !text.is_empty() => Ok(Self::Container(text.into())),
            _ => Err(NoSubject),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "the address {address}"),
            Self::Pod(name) => write!(f, "an address for the pod {name}"),
            Self::Container(id) => write!(f, "an address for the container {id}"),
            Self::Node(node) => write!(f, "an address on {node}"),
        }
    }
}

/// `10.7.0.2, fd07::2 of eth0 of 3f2a… in pods (shop/cart)`.
pub(super) fn line(lease: &Lease) -> String {
    let pod = lease.pod.as_ref().map_or_else(String::new, |pod| format!(" ({pod})"));
    format!("{} of {}{pod}", addresses(lease), lease.attachment)
}

/// When it was made; of the remains of a damaged one nobody knows.
pub(super) fn since(lease: &Lease) -> Option<SystemTime> {
    (lease.since != SystemTime::UNIX_EPOCH).then_some(lease.since)
}

pub(super) fn addresses(lease: &Lease) -> String {
    let all: Vec<_> = lease.addresses.iter().map(|held| held.address.ip().to_string()).collect();
    all.join(", ")
}

/// What `--json` prints, and what an export is made of.
pub(super) fn json(lease: &Lease) -> Value {
    let address = |held: &Assigned| json!({ "address": held.address.to_string(), "gateway": held.gateway });
    json!({
        "container": lease.attachment.container(),
        "ifname": lease.attachment.ifname(),
        "addresses": lease.addresses.iter().map(address).collect::<Vec<_>>(),
        "pod": lease.pod,
        "netns": lease.netns,
        "bootId": lease.boot_id,
        "sinceUnixNanos": Timestamp::from(lease.since).0,
        "notes": lease.notes,
    })
}

/// The same with what only those who look now can say.
pub(super) fn json_now(network: &Network, life: Life, lease: &Lease) -> Value {
    let mut value = json(lease);
    if let Some(object) = value.as_object_mut() {
        object.insert("network".into(), network.name.clone().into());
        object.extend(network.node.clone().map(|node| ("node".into(), node.into())));
        object.insert("state".into(), life.to_string().into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_told_by_its_shape() {
        let subject = |text: &str| text.parse::<Subject>().unwrap();
        assert_eq!(subject("10.7.0.2"), Subject::Address("10.7.0.2".parse().unwrap()));
        assert_eq!(subject("fd07::2"), Subject::Address("fd07::2".parse().unwrap()));
        assert_eq!(subject("shop/cart"), Subject::Pod("shop/cart".into()));
        assert_eq!(subject("3f2a"), Subject::Container("3f2a".into()));
        assert_eq!(subject("10.7.0.2/29"), subject("10.7.0.2"));
        assert_eq!(subject("fd07::2/64"), subject("fd07::2"));
        for wrong in ["", "/", "shop/", "/cart", "10.7.0.2/"] {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
        }
    }
}
