//! The `ipam` section of a network configuration: host-local's keys, read without stopping at the first mistake.
//!
//! | key | meaning |
//! |---|---|
//! | `ranges` | list of range sets, each a list of ranges; an attachment gets one address from each set |
//! | `subnet`, `rangeStart`, `rangeEnd`, `gateway` | of a range; directly in `ipam` they are a set of their own, before `ranges` |
//! | `exclude` | of a range: addresses and blocks never to hand out. host-local has no such key |
//! | `routes` | passed on in the result |
//! | `resolvConf` | a `resolv.conf` whose content is passed on in the result |
//! | `dataDir` | where leases are kept; by default [`DEFAULT_DIR`], in memory |
//! | `store` | another store than the node's own: `type` is `local` or, in the binary `weft-ipam`, `etcd`. host-local has no such key |
//! | `type`, `name` | taken, not used |
//!
//! The capability `ipRanges` puts its sets before all others, as host-local does.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};
use weft_cni_spec::{Args, ResultError, Route};

use crate::address::Family;
use crate::range::{self, Draft, Pool, Range, RangeSet};
#[cfg(feature = "etcd")]
use crate::store::etcd::Settings;
use crate::store::local::DEFAULT_DIR;

#[cfg(feature = "etcd")]
mod store;

const SECTION_KEYS: [&str; 12] = [
    "type",
    "name",
    "ranges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "exclude",
    "routes",
    "resolvConf",
    "dataDir",
    "store",
];
/// The specification's (SPEC.md, "Success", `routes`).
const ROUTE_KEYS: [&str; 7] = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
const RANGE_KEYS: [&str; 5] = ["subnet", "rangeStart", "rangeEnd", "gateway", "exclude"];

/// A checked `ipam` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The range sets.
    pub pool: Pool,
    /// Routes for the result.
    pub routes: Vec<Route>,
    /// Where the node-local store is.
    pub data_dir: PathBuf,
    /// A file whose name service goes into the result.
    pub resolv_conf: Option<PathBuf>,
    /// The shared store, where that is the one.
    #[cfg(feature = "etcd")]
    pub etcd: Option<Box<Settings>>,
}

/// Where the leases of a network are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Below a directory of the node.
    Directory(PathBuf),
    /// In etcd.
    #[cfg(feature = "etcd")]
    Etcd(Box<Settings>),
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place, such as `ipam.ranges[0][1].subnet`.
    pub at: String,
    /// What is wrong there.
    pub what: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// All of them on one line, joined by `; `.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

impl Config {
    /// Reads and checks the `ipam` section of `document`, a plugin's whole configuration, with the `ipRanges` of its
    /// `runtimeConfig`.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(document: &Map<String, Value>) -> Result<Self, Mistakes> {
        let mut reader = Reader::default();
        let config = reader.config(document);
        match config {
            Some(config) if reader.0.is_empty() => Ok(config),
            _ => Err(Mistakes(reader.0)),
        }
    }

    /// Where the leases are.
    pub fn location(&self) -> Location {
        #[cfg(feature = "etcd")]
        if let Some(settings) = &self.etcd {
            return Location::Etcd(settings.clone());
        }
        Location::Directory(self.data_dir.clone())
    }

    /// Where the leases of `document` are. It reads nothing but `dataDir` and `store`, so that a lease can be released whatever
    /// has become of the rest of the configuration since it was made.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn locate(document: &Map<String, Value>) -> Result<Location, Mistakes> {
        #[cfg(feature = "etcd")]
        if let Some(section) = document.get("ipam").and_then(Value::as_object) {
            let mut reader = Reader::default();
            let settings = reader.etcd(section);
            if !reader.0.is_empty() {
                return Err(Mistakes(reader.0));
            }
            if let Some(settings) = settings {
                return Ok(Location::Etcd(settings.into()));
            }
        }
        Self::data_dir(document).map(Location::Directory)
    }

    /// Where the leases of `document` are. It reads nothing but `dataDir`, so that a lease can be released whatever
    /// has become of the rest of the configuration since it was made.
    ///
    /// # Errors
    /// Where `dataDir` is not an absolute path.
    pub fn data_dir(document: &Map<String, Value>) -> Result<PathBuf, Mistakes> {
        let mut reader = Reader::default();
        let section = document.get("ipam").and_then(Value::as_object);
        let dir = section.and_then(|section| reader.path(section, "ipam", "dataDir"));
        if reader.0.is_empty() {
            Ok(dir.unwrap_or_else(|| DEFAULT_DIR.into()))
        } else {
            Err(Mistakes(reader.0))
        }
    }
}

/// Reads a pool as `ipam.ranges` spells it.
///
/// # Errors
/// Every mistake in it.
pub fn parse_ranges(ranges: &Value) -> Result<Pool, Mistakes> {
    let mut reader = Reader::default();
    let sets = reader.sets(Some(ranges), "ranges");
    let pool = Pool::new(sets).map_err(|errors| reader.note_all("ranges", errors));
    match pool {
        Ok(pool) if reader.0.is_empty() => Ok(pool),
        _ => Err(Mistakes(reader.0)),
    }
}

/// The addresses that the runtime asks for: the capability `ips`, `args.cni.ips`, and `IP` in `CNI_ARGS`. Where `args` has
/// any, `CNI_ARGS` is not looked at (CONVENTIONS.md, "`args` in network config"). Each may have a prefix length, which
/// is not used: the range has one.
///
/// # Errors
/// Every one that is not an address.
pub fn requested_addresses(document: &Map<String, Value>, args: &Args) -> Result<Vec<IpAddr>, Mistakes> {
    let mut reader = Reader::default();
    let mut wishes = reader.addresses(document, &["runtimeConfig", "ips"]);
    let conventional = reader.addresses(document, &["args", "cni", "ips"]);
    if conventional.is_empty() {
        let texts =
            args.get("IP").into_iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
        wishes.extend(texts.filter_map(|text| reader.address_with_prefix("CNI_ARGS IP", text)));
    }
    wishes.extend(conventional);
    let mut distinct = Vec::new();
    for wish in wishes {
        if !distinct.contains(&wish) {
            distinct.push(wish);
        }
    }
    if reader.0.is_empty() { Ok(distinct) } else { Err(Mistakes(reader.0)) }
}

/// Reads values and collects what is wrong with them. `None` stands for "absent, or wrong and noted".
#[derive(Default)]
struct Reader(Vec<Mistake>);

impl Reader {
    fn note(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.0.push(Mistake { at: at.into(), what: what.into() });
    }

    fn config(&mut self, document: &Map<String, Value>) -> Option<Config> {
        let section = match document.get("ipam") {
            Some(value) => self.object(value, "ipam")?,
            None => {
                self.note("ipam", "missing");
                return None;
            }
        };
        self.refuse_unknown(section, "ipam", &SECTION_KEYS);
        let pool = self.pool(document, section);
        let routes = self.routes(section);
        let data_dir = self.path(section, "ipam", "dataDir").unwrap_or_else(|| DEFAULT_DIR.into());
        if data_dir.parent().is_none() {
            self.note("ipam.dataDir", "the root of the file system is no place for leases");
        }
        let resolv_conf = self.path(section, "ipam", "resolvConf");
        #[cfg(feature = "etcd")]
        let etcd = self.etcd(section).map(Box::new);
        #[cfg(not(feature = "etcd"))]
        self.refuse_other_stores(section);
        Some(Config {
            pool: pool?,
            routes,
            data_dir,
            resolv_conf,
            #[cfg(feature = "etcd")]
            etcd,
        })
    }

    #[cfg(not(feature = "etcd"))]
    fn refuse_other_stores(&mut self, section: &Map<String, Value>) {
        let kind = section.get("store").and_then(|store| store.get("type")).and_then(Value::as_str);
        if let Some(kind) = kind.filter(|kind| *kind != "local") {
            self.note("ipam.store.type", format!("{kind:?} is no store of this program"));
        }
    }

    fn pool(&mut self, document: &Map<String, Value>, section: &Map<String, Value>) -> Option<Pool> {
        let before = self.0.len();
        let dynamic = walk(document, &["runtimeConfig", "ipRanges"]);
        let mut sets = self.sets(dynamic, "runtimeConfig.ipRanges");
        sets.extend(self.single_range(section));
        sets.extend(self.sets(section.get("ranges"), "ipam.ranges"));
        if self.0.len() > before {
            return None;
        }
        if sets.is_empty() {
            self.note("ipam.ranges", "no range is given: there is nothing to take an address from");
            return None;
        }
        Pool::new(sets).map_err(|errors| self.note_all("ipam.ranges", errors)).ok()
    }

    /// The range spelled directly in `ipam`, as host-local did before it had `ranges`.
    fn single_range(&mut self, section: &Map<String, Value>) -> Option<RangeSet> {
        let first = RANGE_KEYS.iter().find(|key| section.contains_key(**key))?;
        if !section.contains_key("subnet") {
            self.note(format!("ipam.{first}"), "this key belongs to a range, but ipam.subnet is missing");
            return None;
        }
        let range = self.range_of(section, "ipam")?;
        RangeSet::new(vec![range]).map_err(|errors| self.note_all("ipam", errors)).ok()
    }

    fn sets(&mut self, value: Option<&Value>, at: &str) -> Vec<RangeSet> {
        let sets = self.list(value, at);
        sets.into_iter().filter_map(|(at, set)| self.set(set, &at)).collect()
    }

    fn set(&mut self, value: &Value, at: &str) -> Option<RangeSet> {
        if value.is_object() {
            self.note(at, "a range set is a list of ranges: put [ ] around it");
            return None;
        }
        let before = self.0.len();
        let ranges = self.list(Some(value), at);
        let ranges = ranges.into_iter().filter_map(|(at, range)| self.range(range, &at)).collect();
        if self.0.len() > before {
            return None;
        }
        RangeSet::new(ranges).map_err(|errors| self.note_all(at, errors)).ok()
    }

    fn range(&mut self, value: &Value, at: &str) -> Option<Range> {
        let object = self.object(value, at)?;
        self.refuse_unknown(object, at, &RANGE_KEYS);
        if !object.contains_key("subnet") {
            self.note(format!("{at}.subnet"), "missing");
        }
        self.range_of(object, at)
    }

    fn range_of(&mut self, object: &Map<String, Value>, at: &str) -> Option<Range> {
        let before = self.0.len();
        let subnet =
            self.text(object, at, "subnet").and_then(|text| self.subnet(&format!("{at}.subnet"), text));
        let start = self.address(object, at, "rangeStart");
        let end = self.address(object, at, "rangeEnd");
        let gateway = self.address(object, at, "gateway");
        let exclude = self.blocks(object.get("exclude"), &format!("{at}.exclude"));
        if self.0.len() > before {
            return None;
        }
        let draft = Draft { subnet: subnet?, start, end, gateway, exclude };
        Range::new(draft).map_err(|errors| self.note_all(at, errors)).ok()
    }

    fn routes(&mut self, section: &Map<String, Value>) -> Vec<Route> {
        let routes = self.list(section.get("routes"), "ipam.routes");
        let mut read = |(at, value): (String, &Value)| match Route::from_json(value, &at) {
            Ok(route) => {
                value.as_object().into_iter().for_each(|keys| self.refuse_unknown(keys, &at, &ROUTE_KEYS));
                self.expect_one_family(&route, &at);
                Some(route)
            }
            Err(ResultError::Field { field, expected, found }) => {
                self.note(field, format!("expected {expected}, found {found}"));
                None
            }
            Err(other) => {
                self.note(at, other.to_string());
                None
            }
        };
        routes.into_iter().filter_map(&mut read).collect()
    }

    fn expect_one_family(&mut self, route: &Route, at: &str) {
        if let Some(gw) = route.gw.filter(|gw| gw.is_ipv4() != route.dst.is_ipv4()) {
            self.note(format!("{at}.gw"), format!("{gw} is not of the family of {}", route.dst));
        }
    }

    fn note_all(&mut self, at: &str, errors: Vec<range::Error>) {
        for error in errors {
            self.note(at, error.to_string());
        }
    }

    fn object<'a>(&mut self, value: &'a Value, at: &str) -> Option<&'a Map<String, Value>> {
        if !value.is_object() {
            self.note(at, format!("expected an object, found {value}"));
        }
        value.as_object()
    }

    /// The items of a list with their places; an absent list and `null`, which host-local's JSON library takes for an
    /// absent one, have none.
    fn list<'a>(&mut self, value: Option<&'a Value>, at: &str) -> Vec<(String, &'a Value)> {
        match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(index, item)| (format!("{at}[{index}]"), item)).collect()
            }
            Some(other) => {
                self.note(at, format!("expected a list, found {other}"));
                Vec::new()
            }
        }
    }

    /// A text that says something: an empty one is as good as none, as in host-local.
    fn text<'a>(&mut self, object: &'a Map<String, Value>, at: &str, key: &str) -> Option<&'a str> {
        match object.get(key)? {
            Value::String(text) => (!text.is_empty()).then_some(text),
            Value::Null => None,
            other => {
                self.note(format!("{at}.{key}"), format!("expected a text, found {other}"));
                None
            }
        }
    }

    fn path(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(object, at, key)?);
        if !path.is_absolute() {
            self.note(format!("{at}.{key}"), format!("{} is not an absolute path", path.display()));
        }
        Some(path)
    }

    fn address(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<IpAddr> {
        let text = self.text(object, at, key)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.note(format!("{at}.{key}"), format!("{text:?} is not an IP address"));
        }
        address
    }

    fn address_with_prefix(&mut self, at: &str, text: &str) -> Option<IpAddr> {
        let address = text.parse::<IpNetwork>().ok().map(|network| network.ip());
        if address.is_none() {
            self.note(at, format!("{text:?} is not an IP address"));
        }
        address
    }

    fn addresses(&mut self, document: &Map<String, Value>, keys: &[&str]) -> Vec<IpAddr> {
        let items = self.list(walk(document, keys), &keys.join("."));
        let mut read = |(at, value): (String, &Value)| match value.as_str() {
            Some(text) => self.address_with_prefix(&at, text),
            None => {
                self.note(at, format!("expected a text, found {value}"));
                None
            }
        };
        items.into_iter().filter_map(&mut read).collect()
    }

    fn subnet(&mut self, at: &str, text: &str) -> Option<IpNetwork> {
        // Without a prefix length the parser would take it for a single address.
        let subnet = text.contains('/').then(|| text.parse().ok()).flatten();
        if subnet.is_none() {
            let example = "such as 10.244.0.0/24";
            self.note(at, format!("{text:?} is not a subnet with a prefix length, {example}"));
        }
        subnet
    }

    fn blocks(&mut self, value: Option<&Value>, at: &str) -> Vec<IpNetwork> {
        let items = self.list(value, at);
        let mut read = |(at, value): (String, &Value)| {
            let block = value.as_str().and_then(|text| text.parse().ok());
            if block.is_none() {
                self.note(at, format!("{value} is neither an IP address nor a block"));
            }
            block
        };
        items.into_iter().filter_map(&mut read).collect()
    }

    fn refuse_unknown(&mut self, object: &Map<String, Value>, at: &str, known: &[&str]) {
        self.0.extend(unknown(object, at, known));
    }
}

fn walk<'a>(document: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(document.get(*first)?, |value, key| value.get(key))
}

/// The keys of `object`, which stands at the place `at`, that are none of `known`. Those that begin with `_` are comments, as
/// people write them into JSON.
pub fn unknown(object: &Map<String, Value>, at: &str, known: &[&str]) -> Vec<Mistake> {
    let unknown = object.keys().filter(|key| !known.contains(&key.as_str()) && !key.starts_with('_'));
    let mistake = |key: &String| {
        let hint = did_you_mean(key, known.iter().copied());
        Mistake { at: format!("{at}.{key}"), what: format!("unknown key{hint}") }
    };
    unknown.map(mistake).collect()
}

/// How a text about `key` ends, which is none of `known`: with the one that it is most likely a misspelling of, if one is near
/// enough.
pub fn did_you_mean<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let key = key.to_lowercase();
    let distances = known.map(|known| (strsim::osa_distance(&key, &known.to_lowercase()), known));
    let nearest = distances.filter(|(distance, known)| *distance <= known.len() / 3).min();
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean {known:?}?"))
}

impl Pool {
    /// The family that has more than one set, if one has. Versions of the specification before 0.3.0 know one address
    /// of each family.
    pub fn crowded_family(&self) -> Option<Family> {
        let sets_of = |family| self.sets().iter().filter(|set| set.family() == family).count();
        [Family::V4, Family::V6].into_iter().find(|family| sets_of(*family) > 1)
    }
}

#[cfg(test)]
mod tests;
