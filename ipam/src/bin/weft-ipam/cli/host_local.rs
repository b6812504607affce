//! The directory in which the reference plugin host-local keeps the addresses of a network.
//!
//! | file | content |
//! |---|---|
//! | an address | the container's id, `\r\n`, the interface; before release 0.8 of the reference only the id |
//! | `last_reserved_ip.N` | the address that was given last from the range set N |
//! | `lock` | empty; whoever holds its `flock` may read and write the others. host-local makes it at its first ADD |
//!
//! host-local knows neither pods nor namespaces. The runtime does: libcni remembers the result of every ADD in a file
//! `NETWORK-CONTAINER-INTERFACE` (`libcni/api.go`, `cachedInfo`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use weft_ipam::lease::{NetnsIdentity, Pod};

use super::error::Error;
use super::place::read_json;

/// An ADD of host-local holds its lock for as long as it takes to look at every file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
const LAST: &str = "last_reserved_ip.";

/// The directory with its lock: no host-local reads or writes in it until this is dropped. Without a file `lock` none has ever
/// run there, and it is a copy.
pub(super) struct Directory {
    path: PathBuf,
    _lock: Option<File>,
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By container and interface; the interface is `None` where the file does not have it.
    pub(super) held: BTreeMap<(String, Option<String>), Held>,
    /// Range set → the address it gave last, and when.
    pub(super) last: BTreeMap<usize, (IpAddr, SystemTime)>,
    /// Files for an address that a pod may have, though nobody can read whose, and why.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
    /// Files that say nothing, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// The addresses of one attachment, and when it got the first.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) since: SystemTime,
}

/// What the runtime remembers of an ADD.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) ifname: Option<String>,
    pub(super) pod: Option<Pod>,
    pub(super) netns: Option<PathBuf>,
    /// The addresses with their prefix lengths and gateways, as the result has them.
    pub(super) ips: Vec<(ipnetwork::IpNetwork, Option<IpAddr>)>,
}

impl Directory {
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        if !is_host_locals(path)? {
            return Err(Error::NoHostLocal { dir: path.into(), networks: networks_below(path) });
        }
        let file = path.join("lock");
        let unreadable = |source| Error::Read { path: file.clone(), source };
        let lock = match File::open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.into(), _lock: None });
            }
            lock => lock.map_err(unreadable)?,
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.into(), _lock: Some(lock) }),
                Err(fs::TryLockError::Error(error)) => return Err(unreadable(error)),
                Err(fs::TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::HostLocalLocked { path: file, seconds: LOCK_TIMEOUT.as_secs() });
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            }
        }
    }

    pub(super) fn read(&self) -> Result<Contents, Error> {
        let unreadable = |source| Error::Read { path: self.path.clone(), source };
        let mut contents = Contents::default();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_not_host_locals(&name, &entry) {
                continue;
            }
            match read_file(&entry.path()) {
                Ok((text, modified)) => contents.take(&name, &text, modified),
                Err(error) if name.parse::<IpAddr>().is_ok() => {
                    contents.unreadable.push((entry.path(), error))
                }
                Err(error) => contents.skip(&name, format!("cannot read it: {error}")),
            }
        }
        Ok(contents)
    }
}

impl Contents {
    /// # Errors
    /// Where a file names an address, and nobody knows whose: without it, the address would be given to a second pod.
    pub(super) fn expect_readable(self) -> Result<Self, Error> {
        if self.unreadable.is_empty() {
            return Ok(self);
        }
        let files = self.unreadable.iter().map(|(path, why)| format!("{} ({why})", path.display()));
        Err(Error::UnreadableHostLocal { files: files.collect::<Vec<_>>().join(", ") })
    }
}

/// Whether host-local has left anything that tells in `path`. Nothing is made there.
fn is_host_locals(path: &Path) -> Result<bool, Error> {
    let unreadable = |source| Error::Read { path: path.into(), source };
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if name == "lock" || name.starts_with(LAST) || name.parse::<IpAddr>().is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The directories in `path` that look like networks of host-local.
fn networks_below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.retain(|dir| is_host_locals(dir).unwrap_or(false));
    dirs.sort();
    dirs
}

/// The lock, and the files of Weft where both have the same `dataDir`.
fn is_not_host_locals(name: &str, entry: &fs::DirEntry) -> bool {
    name == "lock" || name.starts_with("leases.") || entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Of a pipe nobody may ever write to the other end, and host-local waits for its lock meanwhile.
fn read_file(path: &Path) -> io::Result<(String, SystemTime)> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok((fs::read_to_string(path)?, found.modified()?))
}

impl Contents {
    fn skip(&mut self, name: &str, why: impl Into<String>) {
        self.skipped.push((name.to_owned(), why.into()));
    }

    fn take(&mut self, name: &str, text: &str, modified: SystemTime) {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if let Some(set) = name.strip_prefix(LAST) {
            match (set.parse(), text.trim().parse()) {
                (Ok(set), Ok(address)) => drop(self.last.insert(set, (address, modified))),
                _ => self.skip(name, "it does not say which address was given last"),
            }
        } else if let Ok(address) = name.parse::<IpAddr>() {
            match lines.next() {
                Some(container) => self.hold(container, lines.next(), address, modified),
                None => {
                    self.skip(name, "the file is empty: host-local was killed before it wrote whose it is")
                }
            }
        } else {
            self.skip(name, "its name is no address");
        }
    }

    /// Whether there is a file for an interface of a container. One that does not say which may be for any.
    pub(super) fn names(&self, container: &str, ifname: &str) -> bool {
        let has =
            |ifname: Option<&str>| self.held.contains_key(&(container.into(), ifname.map(str::to_owned)));
        has(Some(ifname)) || has(None)
    }

    fn hold(&mut self, container: &str, ifname: Option<&str>, address: IpAddr, since: SystemTime) {
        let holder = (container.to_owned(), ifname.map(str::to_owned));
        let held = self.held.entry(holder).or_insert(Held { addresses: Vec::new(), since });
        held.addresses.push(address);
        // IPv4 first, as in the range sets of most.
        held.addresses.sort();
        held.since = held.since.min(since);
    }
}

impl Remembered {
    /// What the directory `results` has of an attachment. Without an interface's name it is the container's first.
    pub(super) fn of(results: &Path, network: &str, container: &str, ifname: Option<&str>) -> Option<Self> {
        let prefix = format!("{network}-{container}-");
        let file = match ifname {
            Some(ifname) => results.join(format!("{prefix}{ifname}")),
            None => {
                let names = fs::read_dir(results).ok()?.flatten().map(|entry| entry.file_name());
                let mut names = names.filter_map(|name| name.into_string().ok());
                results.join(names.find(|name| name.starts_with(&prefix))?)
            }
        };
        Some(Self::parse(&read_json(&file).ok()?))
    }

    fn parse(document: &Value) -> Self {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let ifname = document.get("ifName").and_then(text);
        let argument = |key: &str| {
            let pairs = document.get("cniArgs")?.as_array()?;
            pairs.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?.get(1).and_then(text)
        };
        let pod = || {
            let (namespace, name) = (argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?);
            Some(Pod { namespace, name, uid: argument("K8S_POD_UID").unwrap_or_default() })
        };
        let list = |key: &str| document.pointer(&format!("/result/{key}")).and_then(Value::as_array);
        // Only newer releases of libcni write `netns`; all results of a chain have the sandbox.
        let sandbox = || {
            let mut interfaces = list("interfaces")?.iter();
            let is_ours = |one: &&Value| one.get("name").and_then(text) == ifname;
            interfaces.find(is_ours)?.get("sandbox").and_then(text)
        };
        let ip = |one: &Value| {
            let gateway = one.get("gateway").and_then(Value::as_str).and_then(|text| text.parse().ok());
            Some((one.get("address")?.as_str()?.parse().ok()?, gateway))
        };
        let netns = document.get("netns").and_then(text).or_else(sandbox).map(PathBuf::from);
        let ips = list("ips").into_iter().flatten().filter_map(ip).collect();
        Self { pod: pod(), netns, ips, ifname }
    }

    /// The namespace as it is now, or an error with its path where it is surely gone.
    pub(super) fn namespace(&self) -> Result<Option<NetnsIdentity>, PathBuf> {
        let Some(path) = &self.netns else { return Ok(None) };
        match NetnsIdentity::of(path) {
            Ok(identity) => Ok(Some(identity)),
            Err(_) if NetnsIdentity::new(path, 0).is_gone() => Err(path.clone()),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_attachments_and_what_says_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("10.1.0.2", "c1\r\neth0");
        write("fd00::2", "c1\r\neth0");
        write("10.1.0.3", "c1\r\nnet1");
        write("10.1.0.4", "  old \n");
        write("10.1.0.5", "");
        write("last_reserved_ip.0", "10.1.0.5");
        write("last_reserved_ip.1", "?");
        write("notes.txt", "mine");
        write("leases.log", "Weft's");
        let contents = Directory::lock(dir.path()).unwrap().read().unwrap();
        let held: Vec<_> = contents
            .held
            .iter()
            .map(|((id, ifname), held)| (id.as_str(), ifname.as_deref(), held.addresses.len()))
            .collect();
        assert_eq!(held, [("c1", Some("eth0"), 2), ("c1", Some("net1"), 1), ("old", None, 1)]);
        assert_eq!(contents.last[&0].0.to_string(), "10.1.0.5");
        let mut skipped: Vec<_> = contents.skipped.iter().map(|(name, _)| name.as_str()).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, ["10.1.0.5", "last_reserved_ip.1", "notes.txt"]);
    }

    #[test]
    fn what_the_runtime_remembers_names_the_pod_and_its_namespace() {
        let document = serde_json::json!({
            "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "pods", "config": "e30=",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "cart"]],
            "result": {
                "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
                "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}]
            }
        });
        let remembered = Remembered::parse(&document);
        assert_eq!(remembered.pod.unwrap().to_string(), "shop/cart");
        assert_eq!(remembered.netns.unwrap(), Path::new("/run/netns/x"));
        assert_eq!(remembered.ips[0].0.to_string(), "10.1.0.2/24");
        let newer = serde_json::json!({ "ifName": "eth0", "netns": "/run/netns/y" });
        assert_eq!(Remembered::parse(&newer).netns.unwrap(), Path::new("/run/netns/y"));
        assert!(Remembered::parse(&serde_json::json!([])).netns.is_none());
    }
}
