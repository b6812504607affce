//! What an interface was like before it was tuned, in a file: DEL restores it, as the reference's `tuning` does, because an
//! interface that was moved into the container outlives it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Map, Value, json};
use weft_cni_spec::{AttachmentId, Conf};
use weft_datapath::{Interface, Link, NetNs};

use crate::Error;
use crate::config::data_dir;

/// The file of one attachment: `dataDir/NETWORK/CONTAINER_IFNAME.json`.
pub(crate) struct Backup {
    /// `None` where the configuration names no directory that could be.
    file: Option<PathBuf>,
}

impl Backup {
    pub(crate) fn of(conf: &Conf, id: &AttachmentId) -> Self {
        Self { file: directory(conf).map(|directory| directory.join(name(id))) }
    }

    /// Writes down what `link` is like, unless an entry before this one has: its note is the older. Answers what the file
    /// has to be for this to be undone.
    pub(super) fn write(&self, link: &Link) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = &self.file else { return Ok(None) };
        match fs::read(file) {
            Ok(older) => return Ok(Some(older)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Backup { path: file.clone(), source }),
        }
        self.replace(Some(&note(link)))?;
        Ok(None)
    }

    /// Makes the file hold `content`, or removes it with what a writer that was killed has left.
    pub(super) fn replace(&self, content: Option<&Vec<u8>>) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let failed = |source| Error::Backup { path: file.clone(), source };
        match content {
            None => gone(fs::remove_file(unfinished(file))).and(gone(fs::remove_file(file))).map_err(failed),
            Some(content) => whole(file, content).map_err(failed),
        }
    }

    /// Restores what the file says, if there is one and the container still has the interface, and removes it. What cannot be
    /// read was cut off in the writing, before anything was changed.
    pub(crate) fn restore(&self, netns: Option<&Path>, ifname: &str) -> Result<(), Error> {
        let Some(file) = self.file.as_ref() else { return Ok(()) };
        let text = match fs::read(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(()),
            text => text.unwrap_or_default(),
        };
        if let (Ok(Value::Object(note)), Some(netns)) = (serde_json::from_slice(&text), netns) {
            set_back(netns, &read(&note, ifname))?;
        }
        self.replace(None)
    }
}

/// Removes the files of all attachments of the network but those that are `valid`. Whatever else is there stays: the directory is
/// the operator's choice.
pub(crate) fn retain(conf: &Conf, valid: &[AttachmentId]) -> Result<(), Error> {
    let Some(directory) = directory(conf) else { return Ok(()) };
    let valid: HashSet<_> = valid.iter().map(name).collect();
    let failed = |source| Error::Backup { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().and_then(of_attachment).is_some_and(|name| !valid.contains(&name)) {
            gone(fs::remove_file(entry.path())).map_err(failed)?;
        }
    }
    Ok(())
}

fn directory(conf: &Conf) -> Option<PathBuf> {
    data_dir(&conf.document).map(|directory| directory.join(conf.name.as_str()))
}

fn name(id: &AttachmentId) -> String {
    format!("{}_{}.json", id.container.as_str(), id.ifname.as_str())
}

/// The name of the file that `name` is, or was to become.
fn of_attachment(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".new"))?;
    stem.contains('_').then(|| format!("{stem}.json"))
}

fn note(link: &Link) -> Vec<u8> {
    let note = json!({
        "mac": link.mac.map(|mac| mac.to_string()),
        "mtu": link.mtu,
        "promisc": link.promisc,
        "allmulti": link.allmulti,
        "txQLen": link.tx_queue_len,
    });
    note.to_string().into_bytes()
}

fn read(note: &Map<String, Value>, ifname: &str) -> Interface {
    let number = |key: &str| note.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let flag = |key: &str| note.get(key).and_then(Value::as_bool);
    Interface {
        mac: note.get("mac").and_then(Value::as_str).and_then(|text| text.parse().ok()),
        mtu: number("mtu"),
        promisc: flag("promisc"),
        allmulti: flag("allmulti"),
        tx_queue_len: number("txQLen"),
        up: false,
        ..Interface::named(ifname)
    }
}

/// A namespace or an interface that is gone needs nothing.
fn set_back(netns: &Path, interface: &Interface) -> Result<(), Error> {
    let Ok(inside) = NetNs::open(netns).and_then(|netns| netns.rtnl()) else { return Ok(()) };
    match inside.link(&interface.name)? {
        Some(_) => Ok(inside.configure(interface)?),
        None => Ok(()),
    }
}

/// Under another name first, so that nobody ever reads half of it.
fn whole(file: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = unfinished(file);
    fs::write(&new, content)?;
    fs::rename(new, file)
}

fn unfinished(file: &Path) -> PathBuf {
    file.with_extension("new")
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
