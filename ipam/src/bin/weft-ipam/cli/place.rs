//! Which leases a command is about.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weft_ipam::Ipam;
use weft_ipam::config::{Config, Location};
use weft_ipam::lease::Lease;
use weft_ipam::range::Pool;
use weft_ipam::store::etcd::{EtcdStore, Settings};
use weft_ipam::store::local::{DEFAULT_DIR, networks_in};
use weft_ipam::store::{self, Damaged};

use super::Exit;
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
    /// Whose leases they are, where nodes share a store.
    pub(super) node: Option<String>,
    pub(super) ipam: Ipam,
}

/// The leases of a network, of which some may be damaged.
pub(super) type Leases = store::Readable<Lease, Error>;

/// What could be read of several networks, and the code to end with: those that could not be are named on standard error.
pub(super) struct Readable<T> {
    pub(super) networks: Vec<T>,
    pub(super) exit: Exit,
}

/// A network configuration from a file: a list, of which the plugin with an `ipam` section counts, or one plugin's.
pub(super) struct NetworkConf {
    pub(super) name: String,
    pub(super) config: Config,
}

impl Place {
    /// The network of the configuration, the networks that were named, or all that have leases. Where nodes share a store, there is
    /// one for each of them, this one first.
    pub(super) fn open(&self) -> Result<Vec<Network>, Error> {
        if let Some(conf) = self.network_conf()? {
            return conf.nodes();
        }
        let dir = self.data_dir()?;
        let known = networks_in(&dir).map_err(|source| Error::Networks { dir: dir.clone(), source })?;
        if known.is_empty() && self.data_dir.is_some() && !dir.exists() {
            return Err(Error::NoDataDir { dir });
        }
        if let Some(name) = self.networks.iter().find(|name| !known.contains(name)) {
            return Err(Error::NoNetwork { name: name.clone(), dir, known });
        }
        let names = if self.networks.is_empty() { known } else { self.networks.clone() };
        names.into_iter().map(|name| Network::open(name, &dir)).collect()
    }

    /// The network of `--conf`, if that is given, with the leases of this node.
    pub(super) fn open_conf(&self) -> Result<Option<Network>, Error> {
        let Some(conf) = self.network_conf()? else { return Ok(None) };
        Network::open_at(conf.name, &conf.config.location()).map(Some)
    }

    /// The network `name` where the options say leases are; of `node`, where nodes share the store.
    pub(super) fn open_named(&self, name: String, node: Option<&str>) -> Result<Network, Error> {
        match (self.network_conf()?.map(|conf| conf.config.location()), node) {
            (Some(Location::Etcd(settings)), Some(node)) => Network::of_node(&name, &settings, node),
            (Some(location), _) => Network::open_at(name, &location),
            (None, _) => Network::open(name, &self.data_dir()?),
        }
    }

    pub(super) fn network_conf(&self) -> Result<Option<NetworkConf>, Error> {
        self.conf.as_deref().map(NetworkConf::read).transpose()
    }

    pub(super) fn data_dir(&self) -> Result<PathBuf, Error> {
        let configured = self.network_conf()?.map(|conf| conf.config.data_dir);
        Ok(configured.or_else(|| self.data_dir.clone()).unwrap_or_else(|| DEFAULT_DIR.into()))
    }
}

impl<T> Readable<T> {
    /// One that is damaged, or may not be looked at, does not hide the others.
    pub(super) fn of<'a>(
        networks: &'a [Network],
        read: impl Fn(&'a Network) -> Result<(T, Exit), Error>,
    ) -> Self {
        let mut readable = Self { networks: Vec::new(), exit: Exit::Done };
        for network in networks {
            match read(network) {
                Ok((one, exit)) => {
                    readable.networks.push(one);
                    readable.exit = readable.exit.max(exit);
                }
                Err(error) => readable.exit = error.warn(),
            }
        }
        readable
    }
}

impl Network {
    pub(super) fn open(name: String, dir: &Path) -> Result<Self, Error> {
        Self::open_at(name, &Location::Directory(dir.into()))
    }

    pub(super) fn open_at(name: String, location: &Location) -> Result<Self, Error> {
        let node = match location {
            Location::Etcd(settings) => Some(settings.node.clone()),
            Location::Directory(_) => None,
        };
        match Ipam::open_at(&name, location) {
            Ok(ipam) => Ok(Self { name, node, ipam }),
            Err(source) => Err(Error::Leases { network: name, source: source.into() }),
        }
    }

    /// The leases of `node`, which may be this one, as `settings` says.
    fn of_node(name: &str, settings: &Settings, node: &str) -> Result<Self, Error> {
        // Of another node, which is another machine.
        let machine = settings.machine.clone().filter(|_| node == settings.node);
        let location = Location::Etcd(Settings { node: node.into(), machine, ..settings.clone() }.into());
        let network = Self::open_at(name.into(), &location)?;
        let ipam = if node == settings.node { network.ipam } else { network.ipam.of_another_node() };
        Ok(Self { ipam, ..network })
    }

    /// `pods`, or `pods on node-a`.
    pub(super) fn title(&self) -> String {
        match &self.node {
            Some(node) => format!("{} on {node}", self.name),
            None => self.name.clone(),
        }
    }

    /// Those of which it is known whose they are. One that is damaged is named on standard error, and the code is that of a failure.
    pub(super) fn readable_leases(&self) -> Result<(Vec<Lease>, Exit), Error> {
        let (Leases { mut leases, damaged }, exit) = self.all_leases()?;
        leases.extend(damaged.into_iter().filter_map(|damaged| damaged.remains));
        Ok((leases, exit))
    }

    /// The same with the damaged ones by themselves.
    pub(super) fn all_leases(&self) -> Result<(Leases, Exit), Error> {
        let found = self.ipam.readable_leases().map_err(|source| self.unreadable(source))?;
        let named = found.damaged.into_iter().map(|Damaged { addresses, remains, error }| {
            let named = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let error = Error::Lease { addresses: named, network: self.title(), source: error.into() };
            error.warn();
            Damaged { addresses, remains, error }
        });
        let damaged: Vec<_> = named.collect();
        let exit = if damaged.is_empty() { Exit::Done } else { Exit::Failed };
        Ok((Leases { leases: found.leases, damaged }, exit))
    }

    /// The ranges of the last allocation. Where only what was written of them is damaged, that is said on standard error, and they are
    /// not known.
    pub(super) fn readable_pool(&self) -> Result<(Option<Pool>, Exit), Error> {
        match self.ipam.last_pool() {
            Err(error) if error.is_about_one_lease() => Ok((None, self.unreadable(error).warn())),
            pool => Ok((pool.map_err(|error| self.unreadable(error))?, Exit::Done)),
        }
    }

    pub(super) fn unreadable(&self, source: weft_ipam::Error) -> Error {
        Error::Leases { network: self.name.clone(), source: source.into() }
    }

    /// Where there were changes before the one that failed, or may have been: of a store that nodes share, many leases
    /// take several transactions.
    pub(super) fn partly_changed(&self, source: weft_ipam::Error) -> Error {
        Error::ChangeAll { network: self.name.clone(), source: source.into() }
    }

    pub(super) fn unchanged(&self, source: weft_ipam::Error) -> Error {
        Error::Change { network: self.name.clone(), source: source.into() }
    }
}

impl NetworkConf {
    fn nodes(self) -> Result<Vec<Network>, Error> {
        let Location::Etcd(settings) = self.config.location() else {
            return Ok(vec![Network::open(self.name, &self.config.data_dir)?]);
        };
        let unreadable = |source: store::Error| Error::Leases {
            network: self.name.clone(),
            source: Box::new(source.into()),
        };
        let store = EtcdStore::new(Settings::clone(&settings), &self.name)
            .map_err(|error| unreadable(error.into()))?;
        let mut nodes = store.nodes().map_err(unreadable)?;
        nodes.retain(|node| *node != settings.node);
        nodes.insert(0, settings.node.clone());
        nodes.iter().map(|node| Network::of_node(&self.name, &settings, node)).collect()
    }

    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |why| Error::NoConf { path: path.into(), why };
        let document = read_json(path)?;
        let document = document.as_object().ok_or_else(|| wrong("it is no object"))?;
        let name = document.get("name").and_then(Value::as_str).ok_or_else(|| wrong("it has no name"))?;
        let plugin =
            plugin_with_ipam(document).ok_or_else(|| wrong("no plugin in it has an ipam section"))?;
        match plugin.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str) {
            Some(other) if other != "weft-ipam" => {
                return Err(Error::OtherIpam { path: path.into(), plugin: other.into() });
            }
            _ => {}
        }
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
