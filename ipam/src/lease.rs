//! Leases: who holds which addresses, since when, and what is known of the holder.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;
use nix::sys::statfs::{FsType, statfs};
use serde::{Deserialize, Serialize};
use weft_cni_spec::Args;

use crate::table::printable;

/// One interface of one container in one network: what the CNI specification identifies an attachment by.
///
/// The three names are checked when it is made, with the specification's rules, so that none of them can become
/// another path, another field of a record, or a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    network: String,
    container: String,
    ifname: String,
}

/// A name that the CNI specification does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not one: {rule}")]
pub struct NameError {
    /// Which of the names.
    pub what: &'static str,
    /// As given.
    pub name: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// An address as the pod's interface gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// The address, with the prefix length of its subnet.
    pub address: IpNetwork,
    /// The gateway of its range.
    pub gateway: Option<IpAddr>,
}

/// The pod behind a container, where the runtime told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty where the runtime did not tell.
    #[serde(default)]
    pub uid: String,
}

/// Which network namespace an attachment is in. The path alone is not enough: a new pod may get the same path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NetnsIdentity {
    /// `CNI_NETNS`.
    pub path: PathBuf,
    /// The inode of the namespace in nsfs.
    pub inode: u64,
    /// Where the path is `/proc/PID/…`: the inode of the pid namespace in which that is a process, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
    /// Of any other path: the directory that it is in, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Directory>,
}

/// Which directory a path led to: the device and the inode. A bind mount has those of what it shows; another file system, such as
/// a container's own tmpfs over `/run/netns`, has another device for as long as the first one is mounted anywhere, and a mounted
/// namespace keeps its own mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory(u64, u64);

/// Addresses in the hands of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds them.
    pub attachment: Attachment,
    /// One per range set, in the pool's order.
    pub addresses: Vec<Assigned>,
    /// The pod, where known.
    pub pod: Option<Pod>,
    /// The network namespace, where known.
    pub netns: Option<NetnsIdentity>,
    /// The boot in which it was made (`/proc/sys/kernel/random/boot_id`), where known. A lease of another boot has
    /// no namespace any more.
    pub boot_id: Option<String>,
    /// When it was made.
    pub since: SystemTime,
    /// What the holder's plugin must find again when the lease ends: its own words, under names of its own.
    pub notes: Notes,
}

/// What a plugin writes down beside the addresses; nothing here reads it but the name below.
pub type Notes = serde_json::Map<String, serde_json::Value>;

/// Under this name stands the directory of host-local that a lease was taken over from.
pub const FROM_HOST_LOCAL: &str = "fromHostLocal";

impl Lease {
    /// Whether nothing can use the addresses any more: the lease is of another boot than `this_boot`, or its namespace is
    /// gone. A lease of which neither is known is never abandoned.
    pub fn is_abandoned(&self, this_boot: Option<&str>) -> bool {
        self.is_of_another_boot(this_boot) || self.netns.as_ref().is_some_and(NetnsIdentity::is_gone)
    }

    /// Whether it was host-local's when its pod was attached, by another plugin than Weft's.
    pub fn is_from_host_local(&self) -> bool {
        self.notes.contains_key(FROM_HOST_LOCAL)
    }

    /// Whether it was surely made in another boot than `this_boot`. Its namespace, and all that the kernel had for it, ended with that.
    pub fn is_of_another_boot(&self, this_boot: Option<&str>) -> bool {
        self.boot_id.as_deref().zip(this_boot).is_some_and(|(its, ours)| its != ours)
    }
}

impl Attachment {
    /// Checks the names.
    pub fn new(network: &str, container: &str, ifname: &str) -> Result<Self, NameError> {
        check_network(network)?;
        check_identifier("container id", container)?;
        check_ifname(ifname)?;
        Ok(Self { network: network.into(), container: container.into(), ifname: ifname.into() })
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The container id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The interface's name in the container.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl Assigned {
    /// What [`Assigned::to_string`] has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, gateway) = match split(text, b'@') {
            Some((address, gateway)) => (address, Some(gateway.parse::<IpAddr>().ok()?)),
            None => (text, None),
        };
        let (address, prefix) = split(address, b'/')?;
        let address = IpNetwork::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
        Some(Self { address, gateway })
    }
}

impl Pod {
    /// The pod that the runtime names in `CNI_ARGS`, as containerd and CRI-O do.
    pub fn from_args(args: &Args) -> Option<Self> {
        let text = |key| args.get(key).map(str::to_owned);
        Some(Self {
            namespace: text("K8S_POD_NAMESPACE")?,
            name: text("K8S_POD_NAME")?,
            uid: text("K8S_POD_UID").unwrap_or_default(),
        })
    }
}

impl NetnsIdentity {
    /// The namespace that `path` names now.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::new(path, fs::metadata(path)?.ino()))
    }

    /// The namespace with this `inode` that has, or had, a `path` which means to this process what it means to the runtime.
    pub fn new(path: impl Into<PathBuf>, inode: u64) -> Self {
        let path = path.into();
        let (pid_namespace, directory) =
            if is_of_process(&path) { (pid_namespace(), None) } else { (None, Directory::around(&path)) };
        Self { path, inode, pid_namespace, directory }
    }

    /// Whether the path names it now.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Whether the namespace is surely not there any more: its path names another one, or nothing. That is sure only of a path that
    /// means here what it meant to the runtime: one in the very directory that was recorded, or with a pid of the recorded pid
    /// namespace. In other mount namespaces another directory may be there, with the same name. Nor is it sure where the path names
    /// an ordinary file (a container sees the files of `/run/netns` without what is mounted on them), or is a link, which
    /// leads elsewhere.
    pub fn is_gone(&self) -> bool {
        if !self.can_be_judged() {
            return false;
        }
        match fs::metadata(&self.path) {
            Ok(found) => found.ino() != self.inode && is_namespace(&self.path),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// `/proc/PID/ns/net` goes away with its directory, so there it is the pid namespace that tells.
    fn can_be_judged(&self) -> bool {
        if is_of_process(&self.path) {
            return self.pid_namespace.is_some() && self.pid_namespace == pid_namespace();
        }
        self.directory.is_some() && self.directory == Directory::around(&self.path) && !self.path.is_symlink()
    }
}

impl Directory {
    fn around(path: &Path) -> Option<Self> {
        let found = fs::metadata(path.parent()?).ok()?;
        Some(Self(found.dev(), found.ino()))
    }
}

fn is_of_process(path: &Path) -> bool {
    path.starts_with("/proc")
}

/// The inode of this process's pid namespace, if it is that whose processes are in `/proc`. Where it is not, this process has
/// another pid there.
fn pid_namespace() -> Option<u64> {
    let own = fs::read_link("/proc/self").ok()?;
    if own != Path::new(&std::process::id().to_string()) {
        return None;
    }
    Some(fs::metadata("/proc/self/ns/pid").ok()?.ino())
}

fn is_namespace(path: &Path) -> bool {
    // linux/magic.h: NSFS_MAGIC, which nix has no name for.
    const NSFS: FsType = FsType(0x6e73_6673);
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
}

/// `10.1.0.2/24@10.1.0.1`, or without what follows the prefix length where there is no gateway: as the stores write it.
impl fmt::Display for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "{}@{gateway}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// `eth0 of 3f2a… in mynet`, with the container's id in full.
impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} in {}", self.ifname, self.container, self.network)
    }
}

/// `namespace/name`, on one line whatever they are.
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", printable(&self.namespace), printable(&self.name))
    }
}

/// A lease as the stores keep it: what an allocation needs is at hand, the rest stays text until somebody asks.
/// Reading 4 000 of them is a part of every ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) holder: Holder,
    pub(crate) addresses: Vec<Assigned>,
    pub(crate) since: Timestamp,
    pub(crate) detail: String,
}

/// An attachment within its network: the container and the interface, with a space between them, as a log has them.
/// Neither has a space of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder(pub(crate) String);

/// Nanoseconds since 1970. They fit until the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// What a lease holds beside its addresses, as one JSON object.
#[derive(Default, Serialize, Deserialize)]
struct Detail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Pod>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<NetnsIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(default, skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
}

impl Record {
    /// The stored form of `lease`. Fails where the namespace's path is not UTF-8.
    pub fn new(lease: &Lease) -> Result<Self, serde_json::Error> {
        let detail = Detail {
            pod: lease.pod.clone(),
            netns: lease.netns.clone(),
            boot: lease.boot_id.clone(),
            notes: lease.notes.clone(),
        };
        Ok(Self {
            holder: Holder::from(&lease.attachment),
            addresses: lease.addresses.clone(),
            since: Timestamp::from(lease.since),
            detail: serde_json::to_string(&detail)?,
        })
    }

    /// What is left of a lease that cannot be read.
    pub(crate) fn remains(holder: Holder, addresses: &[IpAddr]) -> Self {
        let assigned = |address: &IpAddr| Assigned { address: (*address).into(), gateway: None };
        let addresses = addresses.iter().map(assigned).collect();
        Self { holder, addresses, since: Timestamp(0), detail: "{}".into() }
    }

    /// The lease, in full. Fails where a record that is whole was written by something that is not Weft.
    pub fn lease(&self, network: &str) -> Result<Lease, serde_json::Error> {
        let Detail { pod, netns, boot, notes } = serde_json::from_str(self.detail.as_str())?;
        Ok(Lease { pod, netns, boot_id: boot, notes, ..self.bare_lease(network) })
    }

    /// The lease without what is written beside the addresses.
    pub(crate) fn bare_lease(&self, network: &str) -> Lease {
        Lease {
            attachment: self.holder.in_network(network),
            addresses: self.addresses.clone(),
            pod: None,
            netns: None,
            boot_id: None,
            since: self.since.into(),
            notes: Notes::new(),
        }
    }
}

impl Holder {
    fn names(&self) -> (&str, &str) {
        self.0.as_str().split_once(' ').unwrap_or((self.0.as_str(), ""))
    }

    pub(crate) fn in_network(&self, network: &str) -> Attachment {
        let (container, ifname) = self.names();
        Attachment { network: network.into(), container: container.into(), ifname: ifname.into() }
    }
}

impl From<&Attachment> for Holder {
    fn from(attachment: &Attachment) -> Self {
        Self(format!("{} {}", attachment.container, attachment.ifname))
    }
}

/// `eth0 of 3f2a…`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (container, ifname) = self.names();
        write!(f, "{ifname} of {container}")
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_nanos(timestamp.0)
    }
}

/// A network name is what the specification allows (section 1, "name"), and short enough for a file name.
pub(crate) fn check_network(name: &str) -> Result<(), NameError> {
    check_identifier("network name", name)
}

/// A node's name becomes a part of keys, and two nodes must not have the same.
#[cfg(feature = "etcd")]
pub(crate) fn check_node(name: &str) -> Result<(), NameError> {
    let common = ["localhost", "localhost.localdomain", "(none)"];
    match check_identifier("node name", name) {
        Ok(()) if !common.contains(&name) => Ok(()),
        _ => {
            let rule = "a letter or digit, then letters, digits, '_', '.' and '-', 255 bytes at most, and not what \
                        every host calls itself";
            Err(NameError { what: "node name", name: name.into(), rule })
        }
    }
}

fn check_identifier(what: &'static str, name: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= 255 && name.bytes().all(allowed) {
        return Ok(());
    }
    let rule = "a letter or digit, then letters, digits, '_', '.' and '-', 255 bytes at most";
    Err(NameError { what, name: name.into(), rule })
}

/// The kernel's rule for interface names (`dev_valid_name`), no control characters, and no `%`, which the kernel does
/// not take literally (`dev_alloc_name`).
fn check_ifname(name: &str) -> Result<(), NameError> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    if !matches!(name, "" | "." | "..") && name.len() <= 15 && !name.contains(forbidden) {
        return Ok(());
    }
    let rule =
        "1 to 15 bytes without white space, control characters, '/', ':' and '%', and neither '.' nor '..'";
    Err(NameError { what: "interface name", name: name.into(), rule })
}

/// As `split_once`, which compares what it has found once more, by a call: for ten separators in each line that was a
/// fifth of the time to read a log. The separator is ASCII.
pub(crate) fn split(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = find(text.as_bytes(), separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Where the first such byte is. `memchr::memchr` would ask the processor first what it can do: in a virtual machine each of its
/// questions takes 4 µs, because the host answers them, and a plugin would ask ten for a line or two.
pub(crate) fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    memchr::arch::all::memchr::One::new(wanted).find(bytes)
}
