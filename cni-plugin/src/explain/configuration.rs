//! The configuration that an attachment was made with: as its runtime keeps it, or as it is in a file now.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weft_cni_spec::{CheckRequest, Conf};
use weft_ipam::config::Config as LeaseConfig;
use weft_ipam::store::local::DEFAULT_DIR;

use super::record::Record;
use super::{Question, request};
use crate::{Error, asked};

/// A file with a list of plugins, or with one.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: PathBuf,
    document: Map<String, Value>,
}

impl File {
    /// The network, where an entry of the list is Weft's.
    pub(crate) fn network(&self) -> Option<&str> {
        self.document.get("name")?.as_str().filter(|_| is_of_weft(&self.document))
    }

    /// Whether leases of Weft's own tell of the network's pods.
    pub(crate) fn has_leases(&self) -> bool {
        let kind = |entry: &Map<String, Value>| entry.get("ipam")?.get("type").cloned();
        plugins(&self.document).iter().any(|entry| kind(entry).is_some_and(|kind| kind == "weft-ipam"))
    }
}

/// A list that was found, and where.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    document: Map<String, Value>,
    pub(super) from: String,
}

/// The file that `question` names, or those that a runtime would look at.
///
/// # Errors
/// Where the named one cannot be read.
pub(crate) fn files(question: &Question) -> Result<Vec<File>, Error> {
    let Some(path) = &question.config else { return Ok(in_directory(&question.conf_dir)) };
    let unreadable = |source| Error::ConfigFile { path: path.clone(), source };
    let bytes = fs::read(path).map_err(unreadable)?;
    let document = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))?;
    Ok(vec![File { path: path.clone(), document }])
}

/// In the order of their names; what is no configuration is passed over, as runtimes do.
fn in_directory(dir: &Path) -> Vec<File> {
    let is_meant = |path: &PathBuf| {
        path.extension()
            .is_some_and(|ending| ["conflist", "conf", "json"].iter().any(|known| ending == *known))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_meant).collect();
    paths.sort();
    let file = |path: PathBuf| {
        let document = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some(File { path, document })
    };
    paths.into_iter().filter_map(file).collect()
}

/// Where leases may be.
pub(crate) fn data_dirs(question: &Question, files: &[File]) -> Vec<PathBuf> {
    if let Some(dir) = &question.data_dir {
        return vec![dir.clone()];
    }
    let mut dirs = vec![PathBuf::from(DEFAULT_DIR)];
    for plugin in files.iter().flat_map(|file| plugins(&file.document)) {
        dirs.extend(LeaseConfig::data_dir(&plugin).ok().filter(|dir| !dirs.contains(dir)));
    }
    dirs
}

/// Whether one of its plugins is this one.
pub(super) fn is_of_weft(document: &Map<String, Value>) -> bool {
    !plugins(document).is_empty()
}

/// The entries of the list that are Weft's, each as the runtime hands it on: with the list's name and version.
fn plugins(document: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let single = || std::slice::from_ref(document).iter().collect::<Vec<_>>();
    let list = document.get("plugins").and_then(Value::as_array);
    let entries = list.map_or_else(single, |list| list.iter().filter_map(Value::as_object).collect());
    let of_weft =
        entries.into_iter().filter(|entry| entry.get("type").is_some_and(|kind| kind == "weft-cni"));
    let with_list = |entry: &Map<String, Value>| {
        let mut entry = entry.clone();
        for key in ["name", "cniVersion"] {
            entry.extend(document.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        entry
    };
    of_weft.map(with_list).collect()
}

impl Configuration {
    /// The file that was named; else what the runtime keeps, which is what ADD was given; else the file of the network.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn of(record: &Record, question: &Question, files: &[File]) -> Result<Self, Error> {
        let network = record.attachment.network();
        let is_networks = |file: &&File| {
            file.document.get("name").is_some_and(|name| name == network) && is_of_weft(&file.document)
        };
        let file = files.iter().find(is_networks);
        let file =
            file.map(|file| Self { document: file.document.clone(), from: file.path.display().to_string() });
        let kept = record
            .kept
            .as_ref()
            .map(|kept| Self { document: kept.configuration.clone(), from: kept.path.display().to_string() });
        let found = if question.config.is_some() { file } else { kept.or(file) };
        found.ok_or_else(|| {
            let place = question.config.as_ref().unwrap_or(&question.conf_dir).display();
            Error::Unexplained(format!(
                "no configuration of weft-cni for the network {network} is in {place}: name the file with --config"
            ))
        })
    }

    /// What CHECK would get for each of Weft's entries.
    ///
    /// # Errors
    /// Where an entry is no configuration.
    pub(super) fn requests(&self, record: &Record) -> Result<Vec<CheckRequest>, Error> {
        let handed = |mut entry: Map<String, Value>| {
            hand(&mut entry, record);
            request(Conf::parse(Value::Object(entry).to_string().as_bytes())?, record)
        };
        plugins(&self.document).into_iter().map(handed).collect()
    }
}

/// Adds what the runtime handed over at ADD: of all that it keeps a plugin gets what its capabilities name.
fn hand(entry: &mut Map<String, Value>, record: &Record) {
    match (&record.kept, &record.lease) {
        (Some(kept), _) => {
            let has = |key: &str| {
                entry.get("capabilities").and_then(|has| has.get(key)) == Some(&Value::Bool(true))
            };
            let capabilities: Map<_, _> =
                kept.capabilities.clone().into_iter().filter(|(key, _)| has(key)).collect();
            entry.insert("runtimeConfig".to_owned(), capabilities.into());
            entry.extend(kept.result.clone().map(|result| ("prevResult".to_owned(), result)));
        }
        // It was noted by the entry that took the lease.
        (None, Some(lease)) if entry.contains_key("ipam") => asked::recall(&lease.notes, entry),
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_what_the_runtime_hands_on() {
        let list = json!({
            "cniVersion": "1.0.0", "name": "pods",
            "plugins": [{"type": "ptp"}, {"type": "weft-cni", "ipMasq": true}],
        });
        let found = plugins(list.as_object().unwrap());
        let expected = json!({"cniVersion": "1.0.0", "name": "pods", "type": "weft-cni", "ipMasq": true});
        assert_eq!(Value::from_iter(found), json!([expected]));
        assert!(is_of_weft(expected.as_object().unwrap()), "a single plugin is a list of one");
        assert!(!is_of_weft(json!({"name": "pods", "plugins": [{"type": "ptp"}]}).as_object().unwrap()));
        assert!(!is_of_weft(json!({"plugins": 7}).as_object().unwrap()));
    }
}
