//! `mode`, and the keys that the mode `bridge` takes over from the reference plugin of that name.

use std::ops::RangeInclusive;

use serde_json::Value;
use weft_cni_spec::IfName;

use super::Reader;
use super::addressing::Position;
use crate::error::mistake;

/// How pods are joined to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each pod has a link of its own, whose other end is its gateway.
    Routed,
    /// Pods share a link.
    Bridge(Bridge),
}

/// What is asked of the bridge and of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// `bridge`: its name.
    pub name: String,
    /// `isGateway` or `isDefaultGateway`: it holds the gateways' addresses.
    pub is_gateway: bool,
    /// `isDefaultGateway`: pods get a default route through it.
    pub is_default_gateway: bool,
    /// `forceAddress`: a gateway's address replaces another one in its subnet.
    pub force_address: bool,
    /// `hairpinMode`: what came from a port may go back through it.
    pub hairpin: bool,
    /// `promiscMode`: the bridge takes in what is addressed to others.
    pub promiscuous: bool,
    /// `macspoofchk`: a pod may send from its own hardware address only.
    pub pin_source: bool,
    /// `portIsolation`: pods do not reach each other.
    pub isolated: bool,
    /// `vlan`: the VLAN that the pod is in.
    pub vlan: Option<u16>,
    /// `vlanTrunk`: VLANs that the pod sees tagged.
    pub trunk: Vec<RangeInclusive<u16>>,
    /// `preserveDefaultVlan`: the pod's port stays in the VLAN 1.
    pub default_vlan: bool,
    /// `disableContainerInterface`: the pod's end is left down.
    pub disabled: bool,
}

impl Bridge {
    /// Whether the bridge has to filter by VLAN.
    #[must_use]
    pub fn filters(&self) -> bool {
        self.vlan.is_some() || !self.trunk.is_empty()
    }
}

/// The keys that only this mode has.
pub(super) const KEYS: [&str; 13] = [
    "bridge",
    "disableContainerInterface",
    "enabledad",
    "forceAddress",
    "hairpinMode",
    "isDefaultGateway",
    "isGateway",
    "macspoofchk",
    "portIsolation",
    "preserveDefaultVlan",
    "promiscMode",
    "vlan",
    "vlanTrunk",
];

/// As in the reference.
const DEFAULT_NAME: &str = "cni0";
/// IEEE 802.1Q reserves 0 and 4095.
const VLANS: RangeInclusive<u64> = 1..=4094;

impl Reader<'_> {
    /// Without `mode` it is `bridge` where one of that mode's keys is there, so that a list of the reference becomes
    /// Weft's by its `type` alone.
    ///
    /// Behind another plugin there is nothing to join; that the keys ask for it is named with all that shapes an interface.
    pub(super) fn mode(&mut self, position: Position) -> Mode {
        if position == Position::Chained {
            return Mode::Routed;
        }
        let keys = KEYS.iter().filter(|key| self.document.get(**key).is_some_and(|value| !value.is_null()));
        let keys: Vec<_> = keys.copied().collect();
        match self.document.get("mode") {
            None | Some(Value::Null) if keys.is_empty() => Mode::Routed,
            None | Some(Value::Null) => Mode::Bridge(self.bridge()),
            Some(Value::String(mode)) if mode == "bridge" => Mode::Bridge(self.bridge()),
            Some(Value::String(mode)) if mode == "routed" => {
                let alien = |key: &str| mistake(key, r#"only "mode": "bridge" has this key"#);
                self.mistakes.extend(keys.into_iter().map(alien));
                Mode::Routed
            }
            Some(other) => {
                let what = format!(r#"{other} is not a mode: say "routed" or "bridge""#);
                self.mistakes.push(mistake("mode", what));
                Mode::Routed
            }
        }
    }

    fn bridge(&mut self) -> Bridge {
        let is_default_gateway = self.flag("isDefaultGateway");
        let bridge = Bridge {
            name: self.bridge_name(),
            is_gateway: self.flag("isGateway") || is_default_gateway,
            is_default_gateway,
            force_address: self.flag("forceAddress"),
            hairpin: self.flag("hairpinMode"),
            promiscuous: self.flag("promiscMode"),
            pin_source: self.flag("macspoofchk"),
            isolated: self.flag("portIsolation"),
            vlan: self.vlan(),
            trunk: self.trunk(),
            default_vlan: self.document.get("preserveDefaultVlan").is_none_or(Value::is_null)
                || self.flag("preserveDefaultVlan"),
            disabled: self.flag("disableContainerInterface"),
        };
        self.contradictions(&bridge);
        self.refuse_where_set(
            "enabledad",
            "addresses are settled by IPAM, and nobody waits to detect a duplicate",
        );
        bridge
    }

    fn contradictions(&mut self, bridge: &Bridge) {
        if bridge.hairpin && bridge.promiscuous {
            let what = "cannot be set together with promiscMode: packets would arrive twice";
            self.mistakes.push(mistake("hairpinMode", what));
        }
        if !bridge.default_vlan && !bridge.filters() {
            let what = "false leaves the pod in no VLAN at all: say vlan or vlanTrunk";
            self.mistakes.push(mistake("preserveDefaultVlan", what));
        }
        if bridge.vlan.is_some() && bridge.is_gateway {
            let what =
                "is not supported together with isGateway: the bridge itself is in no VLAN but the first";
            self.unsupported.push(mistake("vlan", what));
        }
    }

    fn bridge_name(&mut self) -> String {
        match self.document.get("bridge") {
            None | Some(Value::Null) => DEFAULT_NAME.to_owned(),
            Some(Value::String(name)) if name.is_empty() => DEFAULT_NAME.to_owned(),
            Some(Value::String(name)) => {
                if let Err(error) = IfName::new(name) {
                    self.mistakes.push(mistake("bridge", error.to_string()));
                }
                name.clone()
            }
            Some(other) => {
                self.mistakes.push(mistake("bridge", format!("{other} is not the name of an interface")));
                DEFAULT_NAME.to_owned()
            }
        }
    }

    fn vlan(&mut self) -> Option<u16> {
        match self.document.get("vlan") {
            Some(value) if value.as_u64() == Some(0) => None,
            value => self.vlan_id("vlan", value),
        }
    }

    /// Each entry is one `id`, a range from `minID` to `maxID`, or both, as in the reference.
    fn trunk(&mut self) -> Vec<RangeInclusive<u16>> {
        let entries = match self.document.get("vlanTrunk") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(other) => {
                self.mistakes.push(mistake("vlanTrunk", format!("expected a list, found {other}")));
                return Vec::new();
            }
        };
        let entries = entries.iter().enumerate();
        entries.flat_map(|(index, entry)| self.trunk_entry(&format!("vlanTrunk[{index}]"), entry)).collect()
    }

    fn trunk_entry(&mut self, at: &str, entry: &Value) -> Vec<RangeInclusive<u16>> {
        let [id, min, max] =
            ["id", "minID", "maxID"].map(|key| self.vlan_id(&format!("{at}.{key}"), entry.get(key)));
        let said = |key| entry.get(key).is_some_and(|value: &Value| !value.is_null());
        let range = match (min, max) {
            (Some(min), Some(max)) if min <= max => Some(min..=max),
            // A number that is none has been named.
            _ if said("minID") != said("maxID") || (min.is_some() && max.is_some()) || !entry.is_object() => {
                let what = format!("{entry} is neither an id nor a range from minID up to maxID");
                self.mistakes.push(mistake(at, what));
                None
            }
            _ => None,
        };
        id.map(|id| id..=id).into_iter().chain(range).collect()
    }

    fn vlan_id(&mut self, at: &str, value: Option<&Value>) -> Option<u16> {
        let value = value.filter(|value| !value.is_null())?;
        let id = value.as_u64().filter(|id| VLANS.contains(id)).and_then(|id| u16::try_from(id).ok());
        if id.is_none() {
            let what = format!("{value} is not a VLAN: those are {} to {}", VLANS.start(), VLANS.end());
            self.mistakes.push(mistake(at, what));
        }
        id
    }

    /// A key that asks for nothing may stay: the reference's documentation shows all of them.
    fn refuse_where_set(&mut self, key: &str, why: &str) {
        if self.flag(key) {
            self.unsupported.push(mistake(key, format!("true is not supported: {why}")));
        }
    }
}
