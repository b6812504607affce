//! Which leases a command is about.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weft_ipam::Ipam;
use weft_ipam::config::Config;
use weft_ipam::lease::Lease;
use weft_ipam::store::local::{DEFAULT_DIR, networks_in};

use super::error::Error;

/// The options that every command has.
#[derive(clap::Args)]
pub(super) struct Place {
    /// Where the leases are: `dataDir` of the network configuration [default: /run/weft/ipam]
    #[arg(long, value_name = "DIR", conflicts_with = "conf")]
    data_dir: Option<PathBuf>,
    /// Only this network; may be given several times
    #[arg(long = "network", value_name = "NETWORK", conflicts_with = "conf")]
    pub(super) networks: Vec<String>,
    /// The network of this network configuration, where that says its leases are
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

/// The leases of one network, opened.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) ipam: Ipam,
}

/// A network configuration from a file: a list, of which the plugin with an `ipam` section counts, or one plugin's.
pub(super) struct NetworkConf {
    pub(super) name: String,
    pub(super) config: Config,
}

impl Place {
    /// The network of the configuration, the networks that were named, or all that have leases.
    pub(super) fn open(&self) -> Result<Vec<Network>, Error> {
        if let Some(network) = self.open_conf()? {
            return Ok(vec![network]);
        }
        let dir = self.data_dir()?;
        let names = if self.networks.is_empty() {
            networks_in(&dir).map_err(|source| Error::Networks { dir: dir.clone(), source })?
        } else {
            self.networks.clone()
        };
        names.into_iter().map(|name| Network::open(name, &dir)).collect()
    }

    /// The network of `--conf`, if that is given.
    pub(super) fn open_conf(&self) -> Result<Option<Network>, Error> {
        let Some(conf) = self.network_conf()? else { return Ok(None) };
        Network::open(conf.name, &conf.config.data_dir).map(Some)
    }

    pub(super) fn network_conf(&self) -> Result<Option<NetworkConf>, Error> {
        self.conf.as_deref().map(NetworkConf::read).transpose()
    }

    pub(super) fn data_dir(&self) -> Result<PathBuf, Error> {
        let configured = self.network_conf()?.map(|conf| conf.config.data_dir);
        Ok(configured.or_else(|| self.data_dir.clone()).unwrap_or_else(|| DEFAULT_DIR.into()))
    }
}

impl Network {
    pub(super) fn open(name: String, dir: &Path) -> Result<Self, Error> {
        match Ipam::open(&name, dir) {
            Ok(ipam) => Ok(Self { name, ipam }),
            Err(source) => Err(Error::Leases { network: name, source: source.into() }),
        }
    }

    pub(super) fn leases(&self) -> Result<Vec<Lease>, Error> {
        self.ipam.leases().map_err(|source| self.unreadable(source))
    }

    pub(super) fn unreadable(&self, source: weft_ipam::Error) -> Error {
        Error::Leases { network: self.name.clone(), source: source.into() }
    }

    pub(super) fn unchanged(&self, source: weft_ipam::Error) -> Error {
        Error::Change { network: self.name.clone(), source: source.into() }
    }
}

impl NetworkConf {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |why| Error::NoConf { path: path.into(), why };
        let document = read_json(path)?;
        let document = document.as_object().ok_or_else(|| wrong("it is no object"))?;
        let name = document.get("name").and_then(Value::as_str).ok_or_else(|| wrong("it has no name"))?;
        let plugin =
            plugin_with_ipam(document).ok_or_else(|| wrong("no plugin in it has an ipam section"))?;
        let unusable = |source| Error::Conf { path: path.into(), source };
        Ok(Self { name: name.into(), config: Config::parse(plugin).map_err(unusable)? })
    }
}

pub(super) fn read_json(path: &Path) -> Result<Value, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.into(), source })
}

fn plugin_with_ipam(document: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let listed = document.get("plugins").and_then(Value::as_array).into_iter().flatten();
    let mut plugins = listed.filter_map(Value::as_object).chain([document]);
    plugins.find(|plugin| plugin.get("ipam").is_some_and(Value::is_object))
}
