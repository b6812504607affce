//! The plugin's configuration: read whole, with every mistake named at once, and nothing in it ignored.

use serde_json::{Map, Value};
use weft_cni_spec::{AddRequest, Args, CheckRequest, Conf, Dns, ResultError, StatusRequest, Version};
use weft_datapath::{Mac, PortSources};
use weft_ipam::config::{self as ipam_config, Mistake, Mistakes, did_you_mean};
use weft_ipam::lease::Pod;
use weft_ipam::range::Pool;

use crate::Error;
use crate::error::mistake;

mod addressing;
mod bandwidth;
mod bridge;
mod logging;
mod nat;
pub mod ports;
mod tuning;

pub use addressing::Addressing;
pub(crate) use addressing::Named;
use addressing::Position;
pub use bandwidth::{Bandwidth, Limit};
pub use bridge::{Bridge, Mode};
pub use logging::{Level, Logging};
use ports::PortMapping;
pub(crate) use tuning::data_dir;
pub use tuning::{Sysctl, Tuning};

/// The keys that are read here, or by the protocol, or that only runtimes write.
const KNOWN: [&str; 13] = [
    "cniVersion",
    "name",
    "type",
    "mode",
    "mtu",
    "ipMasq",
    "ipam",
    "dns",
    "mac",
    "capabilities",
    "runtimeConfig",
    "args",
    "prevResult",
];

/// Keys of the reference plugins, and of Weft's own design, that mean something but are not honoured, each with what to do
/// instead. A pod that lacks what its operator wrote down must not start, so they are refused by name, unless they ask
/// for nothing.
const NOT_HONOURED: [(&str, &str); 10] = [
    ("bandwidth", "rates and bursts are keys of their own, and the capability comes in runtimeConfig"),
    ("master", "keep the plugin that has this key"),
    ("mesh", "there is no capture yet"),
    ("portMappings", "they come from the runtime: say \"capabilities\": {\"portMappings\": true}"),
    ("runtimeArgs", "runtimes no longer send it"),
    ("shapedSubnets", SUBNETS),
    ("socketPath", "keep the plugin that has this key"),
    ("table", "keep the plugin that has this key behind weft-cni"),
    ("unshapedSubnets", SUBNETS),
    ("vrfname", "keep the plugin vrf behind weft-cni"),
];
const SUBNETS: &str = "all traffic of a pod is shaped; keep the plugin bandwidth behind weft-cni";

/// What runtimes pass for capabilities. Of the first group Weft makes something; of the second it needs nothing; all
/// else is refused where it asks for something.
const HONOURED_CAPABILITIES: [&str; 6] = ["ips", "ipRanges", "mac", "dns", "bandwidth", "portMappings"];
const HARMLESS_CAPABILITIES: [&str; 1] = ["io.kubernetes.cri.pod-annotations"];

/// The arguments that runtimes are known to pass.
const KNOWN_ARGS: [&str; 6] =
    ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID", "IP", "MAC"];

/// The smallest MTU that a link may have for each family (RFC 791, RFC 8200), and the largest that the kernel takes.
const MTU_V4: u32 = 68;
const MTU_V6: u32 = 1280;
const MTU_MAX: u32 = 65535;

/// A configuration that has been found good, with what the runtime asks for this one attachment.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the pod is joined to the node.
    pub mode: Mode,
    /// MTU of the pair in bytes; `None` to take that of the node's way to the outside.
    pub mtu: Option<u32>,
    /// Whether traffic to the outside gets the node's address.
    pub masquerade: bool,
    /// Where addresses come from.
    pub addressing: Addressing,
    /// Addresses that are asked for.
    pub requested: Vec<std::net::IpAddr>,
    /// The hardware address that is asked for.
    pub mac: Option<Mac>,
    /// The rates that the pod's traffic is held to.
    pub bandwidth: Bandwidth,
    /// Parameters of its namespace, and attributes of its interface.
    pub tuning: Tuning,
    /// Ports of the node that lead into the pod.
    pub ports: Vec<PortMapping>,
    /// Who of those that come over such a port is masqueraded.
    pub port_sources: PortSources,
    /// Name service for the result.
    pub dns: Dns,
    /// The pod, where the runtime names it.
    pub pod: Option<Pod>,
}

impl TryFrom<&AddRequest> for Config {
    type Error = Error;

    fn try_from(request: &AddRequest) -> Result<Self, Error> {
        Self::read(&request.conf, &request.args)
    }
}

impl TryFrom<&CheckRequest> for Config {
    type Error = Error;

    fn try_from(request: &CheckRequest) -> Result<Self, Error> {
        Self::read_at(Position::of_section(&request.conf), &request.conf, &request.args)
    }
}

impl TryFrom<&StatusRequest> for Config {
    type Error = Error;

    fn try_from(request: &StatusRequest) -> Result<Self, Error> {
        Self::read_at(Position::of_section(&request.conf), &request.conf, &Args::default())
    }
}

impl Config {
    /// Reads the configuration and the arguments of one ADD.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn read(conf: &Conf, args: &Args) -> Result<Self, Error> {
        Self::read_at(Position::of_add(conf), conf, args)
    }

    fn read_at(position: Position, conf: &Conf, args: &Args) -> Result<Self, Error> {
        if let Some(known) = addressing::known_args(&conf.document) {
            args.only(&known)?;
        }
        let mut reader = Reader { document: &conf.document, mistakes: Vec::new(), unsupported: Vec::new() };
        let config = reader.config(position, args);
        reader.expressible(config.as_ref(), conf.version);
        reader.finish(config)
    }
}

/// Reads keys and notes what is wrong with them.
struct Reader<'a> {
    document: &'a Map<String, Value>,
    mistakes: Vec<Mistake>,
    unsupported: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn config(&mut self, position: Position, args: &Args) -> Option<Config> {
        self.keys();
        // The log is open already; here it is only for mistakes.
        Logging::read(self.document, &mut self.mistakes);
        let mode = self.mode(position);
        self.capabilities();
        let addressing = self.addressing(position, &mode);
        let requested = addressing::requested(self, addressing.as_ref(), args);
        let ipam = addressing.as_ref().and_then(Addressing::leases);
        let (mtu, masquerade) = (self.mtu(ipam), self.flag("ipMasq"));
        let (mac, dns) = (self.mac(args), self.dns());
        let (bandwidth, tuning) = (self.bandwidth(), Tuning::read(self.document, &mut self.mistakes));
        let (ports, port_sources) = (self.ports(ipam), self.port_sources());
        let (addressing, requested, pod) = (addressing?, requested?, Pod::from_args(args));
        Some(Config {
            mode,
            mtu,
            masquerade,
            addressing,
            requested,
            mac,
            bandwidth,
            tuning,
            ports,
            port_sources,
            dns,
            pod,
        })
    }

    /// Mistakes come before what is merely unsupported; neither hides the others of its kind.
    fn finish(self, config: Option<Config>) -> Result<Config, Error> {
        if !self.unsupported.is_empty() && self.mistakes.is_empty() {
            return Err(Error::Unsupported(Mistakes(self.unsupported)));
        }
        let all: Vec<_> = self.mistakes.into_iter().chain(self.unsupported).collect();
        match config {
            Some(config) if all.is_empty() => Ok(config),
            _ => Err(Error::Config(Mistakes(all))),
        }
    }

    /// Whatever begins with `_` is a comment.
    fn keys(&mut self) {
        for (key, value) in self.document {
            let key = key.as_str();
            if known().any(|known| known == key) || key.starts_with("cni.dev/") || key.starts_with('_') {
                continue;
            }
            match NOT_HONOURED.iter().find(|(name, _)| *name == key) {
                Some((_, instead)) if asks_for_something(value) => {
                    self.unsupported.push(mistake(key, format!("{value} is not supported: {instead}")));
                }
                Some(_) => {}
                None => {
                    let hint = did_you_mean(key, known().chain(NOT_HONOURED.map(|(name, _)| name)));
                    self.mistakes.push(mistake(key, format!("unknown key{hint}")));
                }
            }
        }
    }

    fn capabilities(&mut self) {
        for key in ["runtimeConfig", "args"] {
            if let Some(other) = self.document.get(key).filter(|value| !value.is_object() && !value.is_null())
            {
                self.mistakes.push(mistake(key, format!("expected an object, found {other}")));
            }
        }
        let convention = self.document.get("args").and_then(|args| args.get("cni"));
        if let Some(other) = convention.filter(|value| !value.is_object() && !value.is_null()) {
            self.mistakes.push(mistake("args.cni", format!("expected an object, found {other}")));
        }
        let Some(Value::Object(given)) = self.document.get("runtimeConfig") else { return };
        for (key, value) in given {
            let known = HONOURED_CAPABILITIES.iter().chain(&HARMLESS_CAPABILITIES).any(|known| known == key);
            if !known && asks_for_something(value) {
                self.unsupported.push(mistake(
                    format!("runtimeConfig.{key}"),
                    format!("{value} is not supported: remove {key:?} from \"capabilities\""),
                ));
            }
        }
    }

    fn mtu(&mut self, ipam: Option<&ipam_config::Config>) -> Option<u32> {
        let places = [("args.cni.mtu", self.convention("mtu")), ("mtu", self.document.get("mtu"))];
        let said = |(at, value): (_, Option<_>)| Some((at, value.filter(|value: &&Value| !value.is_null())?));
        let (at, value) = places.into_iter().find_map(said)?;
        let has_v6 = ipam.is_some_and(|ipam| ipam.pool.ranges().any(|range| range.subnet().is_ipv6()));
        let least = if has_v6 { MTU_V6 } else { MTU_V4 };
        match value.as_u64().and_then(|mtu| u32::try_from(mtu).ok()) {
            Some(0) => None,
            Some(mtu) if (least..=MTU_MAX).contains(&mtu) => Some(mtu),
            _ => {
                let what =
                    format!("{value} is not 0 (detect it) or a number of bytes from {least} to {MTU_MAX}");
                self.mistakes.push(mistake(at, what));
                None
            }
        }
    }

    /// What `args.cni` says of `key`.
    fn convention(&self, key: &str) -> Option<&'a Value> {
        self.document.get("args").and_then(|args| args.get("cni")).and_then(|cni| cni.get(key))
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.document.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.mistakes.push(mistake(key, format!("{other} is neither true nor false")));
                false
            }
        }
    }

    fn bandwidth(&mut self) -> Bandwidth {
        self.unsupported.extend(Bandwidth::not_honoured(self.document));
        Bandwidth::read(self.document, &mut self.mistakes)
    }

    /// The capability, `args.cni`, `MAC` in `CNI_ARGS`, and the key itself, in that order; `CNI_ARGS` is not looked at where
    /// `args` says something (CONVENTIONS.md, "`args` in network config").
    fn mac(&mut self, args: &Args) -> Option<Mac> {
        let document = self.document;
        let capability = document.get("runtimeConfig").and_then(|given| given.get("mac"));
        let convention = self.convention("mac");
        for (place, found) in [("runtimeConfig.mac", capability), ("args.cni.mac", convention)] {
            match found {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(Value::String(text)) => return self.parse_mac(place, text),
                Some(other) => {
                    self.mistakes.push(mistake(place, format!("{other} is not a hardware address")))
                }
            }
        }
        if let Some(text) = args.get("MAC").filter(|text| !text.is_empty()) {
            return self.parse_mac("CNI_ARGS MAC", text);
        }
        match document.get("mac") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => self.parse_mac("mac", text),
            Some(other) => {
                self.mistakes.push(mistake("mac", format!("{other} is not a hardware address")));
                None
            }
        }
    }

    fn parse_mac(&mut self, place: &str, text: &str) -> Option<Mac> {
        let mac = text.parse::<Mac>();
        mac.map_err(|e| self.mistakes.push(mistake(place, e.to_string()))).ok()
    }

    /// What the runtime asks for replaces what the configuration says, as in the reference.
    fn dns(&mut self) -> Dns {
        let asked = self.document.get("runtimeConfig").and_then(|given| given.get("dns"));
        let sections = [
            ("runtimeConfig.dns", asked, ["servers", "searches", "options"].as_slice()),
            ("dns", self.document.get("dns"), &["nameservers", "domain", "search", "options"]),
        ];
        for (at, section, known) in sections {
            let keys = section.and_then(Value::as_object);
            self.mistakes.extend(keys.into_iter().flat_map(|keys| ipam_config::unknown(keys, at, known)));
        }
        let renamed = asked.and_then(Value::as_object).map(|asked| {
            let names = [("servers", "nameservers"), ("searches", "search"), ("options", "options")];
            let present =
                names.iter().filter_map(|(from, to)| Some(((*to).to_owned(), asked.get(*from)?.clone())));
            Value::Object(present.collect())
        });
        let read = Dns::from_json(renamed.as_ref().or_else(|| self.document.get("dns")));
        let misread = |e| match e {
            ResultError::Field { field, expected, found } => {
                let at = if field.starts_with("dns") { field } else { format!("dns.{field}") };
                mistake(at, format!("expected {expected}, found {found}"))
            }
            other => mistake("dns", other.to_string()),
        };
        read.map_err(|e| self.mistakes.push(misread(e))).unwrap_or_default()
    }

    fn ports(&mut self, ipam: Option<&ipam_config::Config>) -> Vec<PortMapping> {
        let given = self.document.get("runtimeConfig").and_then(|given| given.get("portMappings"));
        let is_in = |pool: &Pool, is_v4| pool.ranges().any(|range| range.subnet().is_ipv4() == is_v4);
        let has_family = |is_v4| ipam.is_none_or(|ipam| is_in(&ipam.pool, is_v4));
        let read = ports::parse("runtimeConfig.portMappings", given, has_family);
        self.collect(read).unwrap_or_default()
    }

    /// What the runtime could not be told, it must not be left to find out.
    fn expressible(&mut self, config: Option<&Config>, version: Version) {
        let leases = config.and_then(|config| config.addressing.leases());
        let crowded = leases.and_then(|leases| leases.pool.crowded_family());
        if let Some(family) = crowded.filter(|_| version < Version::V0_3_0) {
            let what = format!(
                "several sets of {family:?}, but results of version {version} have one address of a family"
            );
            self.mistakes.push(mistake("ipam.ranges", what));
        }
        let is_bare = config.is_some_and(|config| config.addressing == Addressing::Nobody);
        if is_bare && version < Version::V0_3_0 {
            let what = format!("results of version {version} cannot be without an address");
            self.mistakes.push(mistake("ipam", what));
        }
    }

    /// A route needs an address of its family to be used from.
    fn routes(&mut self, ipam: &ipam_config::Config) {
        for (index, route) in ipam.routes.iter().enumerate() {
            let is_v4 = route.dst.is_ipv4();
            if !ipam.pool.ranges().any(|range| range.subnet().is_ipv4() == is_v4) {
                let family = if is_v4 { "IPv4" } else { "IPv6" };
                let what = format!("{} is {family}, but no range gives a pod an {family} address", route.dst);
                self.mistakes.push(mistake(format!("ipam.routes[{index}]"), what));
            }
        }
    }

    fn collect<T>(&mut self, read: Result<T, Mistakes>) -> Option<T> {
        read.map_err(|mistakes| self.mistakes.extend(mistakes.0)).ok()
    }
}

/// All keys that are read.
fn known() -> impl Iterator<Item = &'static str> {
    let of_parts = bandwidth::KEYS.into_iter().chain(bridge::KEYS).chain(logging::KEYS);
    KNOWN.into_iter().chain(of_parts).chain(nat::KEYS).chain(tuning::KEYS)
}

/// Runtimes may pass a capability with nothing in it.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(asks_for_something),
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Bool(flag) => *flag,
    }
}

#[cfg(test)]
mod tests;
