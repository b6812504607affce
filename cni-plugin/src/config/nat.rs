//! What the reference plugins `portmap`, `bridge` and `ptp` let one say of how addresses are translated.
//!
//! Some of it is about packets, and honoured or refused. The rest is about the reference's own means, iptables and its marks:
//! there any value that stands for what Weft does anyway is taken.

use serde_json::Value;
use weft_datapath::PortSources;

use super::{Reader, asks_for_something};
use crate::error::mistake;

/// The keys that are read here.
pub(super) const KEYS: [&str; 8] = [
    "snat",
    "masqAll",
    "markMasqBit",
    "externalSetMarkChain",
    "conditionsV4",
    "conditionsV6",
    "backend",
    "ipMasqBackend",
];

/// A chain of kube-proxy, which has a packet masqueraded and nothing else.
const KUBE_MARK_MASQ: &str = "KUBE-MARK-MASQ";
const BACKENDS: [&str; 2] = ["iptables", "nftables"];

impl Reader<'_> {
    /// `snat` is on unless it is turned off, and without it `masqAll` means nothing (portmap's `fillDnatRules`).
    pub(super) fn port_sources(&mut self) -> PortSources {
        self.marks();
        self.conditions();
        for key in ["backend", "ipMasqBackend"] {
            self.backend(key);
        }
        let masquerade_all = self.flag("masqAll");
        let is_off = self.document.get("snat").is_some_and(|value| !value.is_null()) && !self.flag("snat");
        match (is_off, masquerade_all) {
            (true, _) => PortSources::Keep,
            (false, false) => PortSources::Own,
            (false, true) => PortSources::All,
        }
    }

    /// Weft needs no mark, so that any bit is as good as another; a chain that does more than to have packets
    /// masqueraded would be missed.
    fn marks(&mut self) {
        let said = |key| self.document.get(key).filter(|value| !value.is_null());
        let (bit, chain) = (said("markMasqBit"), said("externalSetMarkChain"));
        if let Some(other) = bit.filter(|value| value.as_u64().is_none_or(|bit| bit > 31)) {
            self.mistakes.push(mistake("markMasqBit", format!("{other} is no bit from 0 to 31")));
        }
        match chain {
            Some(_) if bit.is_some() => {
                self.mistakes
                    .push(mistake("externalSetMarkChain", "cannot be set together with markMasqBit"));
            }
            Some(other) if other.as_str() != Some(KUBE_MARK_MASQ) => {
                let what =
                    format!("{other} is not supported: Weft masquerades without a chain; leave it out");
                self.unsupported.push(mistake("externalSetMarkChain", what));
            }
            _ => {}
        }
    }

    fn conditions(&mut self) {
        for key in ["conditionsV4", "conditionsV6"] {
            if let Some(value) = self.document.get(key).filter(|value| asks_for_something(value)) {
                let what = format!(
                    "{value} is not supported: a mapping's hostIP says where it is reached; for any other condition keep \
                     the plugin portmap behind weft-cni"
                );
                self.unsupported.push(mistake(key, what));
            }
        }
    }

    /// Either names a way to the same packets.
    fn backend(&mut self, key: &str) {
        match self.document.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() || BACKENDS.contains(&text.as_str()) => {}
            Some(other) => {
                let what = format!("{other} is not supported: say \"nftables\", or leave it out");
                self.unsupported.push(mistake(key, what));
            }
        }
    }
}
