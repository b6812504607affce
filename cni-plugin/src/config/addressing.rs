//! Where a pod's addresses come from: the `ipam` section, or the lack of one.

use std::path::Path;

use serde_json::{Map, Value};
use weft_cni_spec::{Args, Conf};
use weft_ipam::config as ipam_config;

use super::{
    HONOURED_CAPABILITIES, KNOWN_ARGS, Mode, Reader, asks_for_something, bandwidth, bridge, known, logging,
    nat, tuning,
};
use crate::delegate::PluginName;
use crate::error::mistake;

/// The IPAM that needs no exec.
const OURS: &str = "weft-ipam";

/// The reference's, which asks a server on the pod's link.
const DHCP: &str = "dhcp";

/// The keys and capabilities that are honoured behind another plugin, or mean nothing there, beside those of bandwidth,
/// tuning, NAT and the log. All else is about an interface that Weft makes.
const BEHIND_ANOTHER: [&str; 16] = [
    "cniVersion",
    "name",
    "type",
    "ipMasq",
    "ipam",
    "dns",
    "mac",
    "mtu",
    "capabilities",
    "runtimeConfig",
    "args",
    "prevResult",
    "ips",
    "ipRanges",
    "bandwidth",
    "portMappings",
];

/// Where the addresses of an attachment come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// From `weft-ipam`, in this process.
    Leases(ipam_config::Config),
    /// From another IPAM plugin, by exec.
    Delegate(PluginName),
    /// From a plugin before this one: `prevResult` lists them.
    Chained,
    /// It has none: a link of a bridge, for whoever is behind it to use.
    Nobody,
}

impl Addressing {
    /// Ranges, routes and where leases are, if it is for Weft to know.
    #[must_use]
    pub const fn leases(&self) -> Option<&ipam_config::Config> {
        match self {
            Self::Leases(leases) => Some(leases),
            Self::Delegate(_) | Self::Chained | Self::Nobody => None,
        }
    }

    /// The file whose name service goes into the result.
    #[must_use]
    pub fn resolv_conf(&self) -> Option<&Path> {
        self.leases().and_then(|leases| leases.resolv_conf.as_deref())
    }
}

/// Where in its list the plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// It makes the interface.
    First,
    /// Another plugin has made it.
    Chained,
}

impl Position {
    /// As an ADD tells it: only whoever comes later gets a result.
    pub(super) fn of_add(conf: &Conf) -> Self {
        if has(&conf.document, "prevResult") { Self::Chained } else { Self::First }
    }

    /// As any other verb tells it, for those bring a result to every plugin, or to none: whoever makes an interface has to
    /// say where its addresses come from, or that it is a port of a bridge.
    pub(super) fn of_section(conf: &Conf) -> Self {
        if makes_interface(&conf.document) { Self::First } else { Self::Chained }
    }
}

/// What the `ipam` section names, whatever else is wrong with the configuration. DEL and GC need no more.
pub(crate) enum Named {
    /// Weft's own IPAM, or something that is no name of a plugin.
    Ours,
    /// Another plugin.
    Foreign(PluginName),
    /// There is no section, nor an interface to make.
    Nothing,
}

impl Named {
    pub(crate) fn by(document: &Map<String, Value>) -> Self {
        if !makes_interface(document) {
            return Self::Nothing;
        }
        let section = document.get("ipam");
        let kind = section.and_then(|section| section.get("type")).and_then(Value::as_str);
        let name = kind.filter(|kind| *kind != OURS || is_shared(section));
        name.and_then(|name| PluginName::new(name).ok()).map_or(Self::Ours, Self::Foreign)
    }
}

/// Whether `weft-ipam` keeps its leases in a store that this plugin has not in it (docs/adr/0014). The program is asked then, as any
/// other IPAM plugin is.
fn is_shared(section: Option<&Value>) -> bool {
    let store = section.and_then(|section| section.pointer("/store/type")).and_then(Value::as_str);
    store.is_some_and(|store| store != "local")
}

impl Reader<'_> {
    pub(super) fn addressing(&mut self, position: Position, mode: &Mode) -> Option<Addressing> {
        match (position, mode) {
            (Position::Chained, _) => self.no_section(),
            (Position::First, Mode::Bridge(bridge)) if self.names_nobody() => self.nobody(bridge),
            (Position::First, _) => self.section(mode),
        }
    }

    /// As the reference has it, whose bridge asks for no addresses where `ipam` is `{}` or missing.
    fn names_nobody(&self) -> bool {
        let section = self.document.get("ipam").filter(|section| !section.is_null());
        section.is_none_or(|section| section.as_object().is_some_and(Map::is_empty))
    }

    fn nobody(&mut self, bridge: &bridge::Bridge) -> Option<Addressing> {
        if bridge.is_gateway {
            let what = "missing: a gateway has an address; without isGateway the bridge only joins its ports";
            self.mistakes.push(mistake("ipam.type", what));
        }
        Some(Addressing::Nobody)
    }

    fn section(&mut self, mode: &Mode) -> Option<Addressing> {
        let section = self.document.get("ipam");
        if let Mode::Bridge(bridge) = mode
            && bridge.disabled
        {
            let what = "true goes with no ipam: addresses need an interface that is up";
            self.mistakes.push(mistake("disableContainerInterface", what));
        }
        match section.and_then(|section| section.get("type")) {
            Some(Value::String(kind)) if kind == OURS && !is_shared(section) => self.leases(),
            Some(Value::String(kind)) if kind == DHCP && *mode == Mode::Routed => {
                let what = r#""dhcp" needs "mode": "bridge": on the link of a routed pod there is nobody but the node"#;
                self.unsupported.push(mistake("ipam.type", what));
                None
            }
            Some(Value::String(kind)) if !kind.is_empty() => self.delegate(kind),
            // A section that is missing, or none, is named where it is read.
            _ if !section.is_some_and(Value::is_object) => self.leases(),
            _ => {
                let what = r#"missing: say "weft-ipam", or the name of another IPAM plugin"#;
                self.mistakes.push(mistake("ipam.type", what));
                None
            }
        }
    }

    fn leases(&mut self) -> Option<Addressing> {
        let leases = self.collect(ipam_config::Config::parse(self.document))?;
        self.routes(&leases);
        Some(Addressing::Leases(leases))
    }

    fn delegate(&mut self, kind: &str) -> Option<Addressing> {
        let name = PluginName::new(kind);
        name.map(Addressing::Delegate).map_err(|what| self.mistakes.push(mistake("ipam.type", what))).ok()
    }

    fn no_section(&mut self) -> Option<Addressing> {
        if has(self.document, "ipam") {
            let what = "the plugins before this one have given the addresses: leave it out";
            self.mistakes.push(mistake("ipam", what));
        }
        for (at, key, value) in asked_for(self.document) {
            let is_known = known().chain(HONOURED_CAPABILITIES).any(|known| known == key);
            if is_known && !is_honoured_behind_another(key) && asks_for_something(value) {
                let what = format!("{value} is for an interface that Weft makes, and there is one already");
                self.unsupported.push(mistake(format!("{at}{key}"), what));
            }
        }
        Some(Addressing::Chained)
    }
}

fn is_honoured_behind_another(key: &str) -> bool {
    let keys = BEHIND_ANOTHER.into_iter().chain(bandwidth::KEYS).chain(nat::KEYS);
    let keys = keys.chain(logging::KEYS).chain(tuning::KEYS);
    keys.into_iter().any(|honoured| honoured == key)
}

/// What the configuration and the runtime ask this plugin for. `args.cni` is not among it: that goes to every plugin of the
/// list, and the one that made the interface, or another, may have done what it says.
fn asked_for(document: &Map<String, Value>) -> impl Iterator<Item = (&'static str, &str, &Value)> {
    let given = document.get("runtimeConfig").and_then(Value::as_object);
    let keys = document.iter().map(|(key, value)| ("", key.as_str(), value));
    let capabilities = given.into_iter().flatten();
    keys.chain(capabilities.map(|(key, value)| ("runtimeConfig.", key.as_str(), value)))
}

/// The keys of `CNI_ARGS` that this request may have; `None` where that is for the delegate to say, which gets them all.
/// Behind another plugin also those of its IPAM are seen here.
pub(super) fn known_args(document: &Map<String, Value>) -> Option<Vec<&'static str>> {
    match Named::by(document) {
        Named::Ours => Some(KNOWN_ARGS.to_vec()),
        Named::Foreign(_) => None,
        Named::Nothing => Some(KNOWN_ARGS.into_iter().chain(["GATEWAY"]).collect()),
    }
}

/// The addresses that are asked for, where it is for Weft to give them.
pub(super) fn requested(
    reader: &mut Reader<'_>,
    addressing: Option<&Addressing>,
    args: &Args,
) -> Option<Vec<std::net::IpAddr>> {
    match addressing {
        Some(Addressing::Delegate(_) | Addressing::Chained | Addressing::Nobody) => Some(Vec::new()),
        _ => reader.collect(ipam_config::requested_addresses(reader.document, args)),
    }
}

fn makes_interface(document: &Map<String, Value>) -> bool {
    ["ipam", "mode"].iter().chain(&bridge::KEYS).any(|key| has(document, key))
}

fn has(document: &Map<String, Value>, key: &str) -> bool {
    document.get(key).is_some_and(|value| !value.is_null())
}
