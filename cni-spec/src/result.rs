//! What ADD answers, in the shape of every version (SPEC.md, "ADD Success", and its older editions).

use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::Version;

/// What ADD made. This is the newest version's model; older versions are rendered from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Interfaces made, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses given to them.
    pub ips: Vec<IpConfig>,
    /// Routes made in the container.
    pub routes: Vec<Route>,
    /// Name service for the container.
    pub dns: Dns,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; empty where there is none.
    pub mac: String,
    /// Its MTU in bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// The namespace that holds it; empty for the host's.
    pub sandbox: String,
    /// A socket that stands for it, empty where there is none; since 1.1.0.
    pub socket_path: String,
    /// The PCI device behind it, empty where there is none; since 1.1.0.
    pub pci_id: String,
}

/// An address on one of the interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// The address, with the length of its subnet's prefix.
    pub address: IpNetwork,
    /// The default gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// Index of the interface in [`AddResult::interfaces`]; absent in the result of an IPAM plugin.
    pub interface: Option<usize>,
}

/// A route in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; where absent, the gateway of the address of the same family.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise, in bytes; since 1.1.0.
    pub advmss: Option<u32>,
    /// Priority (metric), lower first; since 1.1.0.
    pub priority: Option<u32>,
    /// Routing table; since 1.1.0.
    pub table: Option<u32>,
    /// Scope: 0 global, 253 link, 254 host; since 1.1.0.
    pub scope: Option<u8>,
}

impl Route {
    /// A route to `dst`, all else left to the plugin.
    #[must_use]
    pub const fn to(dst: IpNetwork) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// Name service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Servers, best first.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Search domains, first first.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A result cannot be read, or cannot be said in a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// A field is missing or of the wrong kind.
    #[error("{field}: expected {expected}, found {found}")]
    Field {
        /// Where it is.
        field: String,
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// Versions before 0.3.0 cannot express a result without addresses.
    #[error("cannot convert to {0}: no valid IP addresses")]
    NoAddresses(Version),
    /// The result names a version that is not known.
    #[error(transparent)]
    Version(#[from] crate::UnknownVersion),
}

impl AddResult {
    /// The document for standard output, in `version`.
    ///
    /// # Errors
    /// [`ResultError::NoAddresses`] for 0.1.0 and 0.2.0.
    pub fn to_json(&self, version: Version) -> Result<Value, ResultError> {
        let mut document = Map::new();
        document.insert("cniVersion".to_owned(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.render_families(version, &mut document)?;
        } else {
            self.render_lists(version, &mut document);
        }
        // Up to 0.4.0 the reference always prints `dns`, later only where it says something.
        if version < Version::V1_0_0 || self.dns != Dns::default() {
            document.insert("dns".to_owned(), self.dns.to_json());
        }
        Ok(Value::Object(document))
    }

    /// Reads a result; its own `cniVersion` counts, and where it has none, `version`.
    ///
    /// # Errors
    /// [`ResultError`] with the first field that cannot be read.
    pub fn from_json(value: &Value, version: Version) -> Result<Self, ResultError> {
        let document = as_object(value, "result")?;
        let version = match document.get("cniVersion").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Version::from_str(text)?,
            _ => version,
        };
        let mut result = if version < Version::V0_3_0 {
            Self::read_families(document)?
        } else {
            Self::read_lists(document)?
        };
        result.dns = Dns::from_json(document.get("dns"))?;
        Ok(result)
    }

    fn render_lists(&self, version: Version, document: &mut Map<String, Value>) {
        let mut list = |key: &str, items: Vec<Value>| {
            if !items.is_empty() {
                document.insert(key.to_owned(), Value::Array(items));
            }
        };
        list("interfaces", self.interfaces.iter().map(|i| i.to_json(version)).collect());
        list("ips", self.ips.iter().map(|ip| ip.to_json(version)).collect());
        list("routes", self.routes.iter().map(|r| r.to_json(version)).collect());
    }

    /// Before 0.3.0: the first address of each family, with the routes of its family.
    fn render_families(
        &self,
        version: Version,
        document: &mut Map<String, Value>,
    ) -> Result<(), ResultError> {
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == is_v4) else { continue };
            let mut family = ip.address_and_gateway("ip");
            let routes: Vec<_> = self.routes.iter().filter(|r| r.dst.is_ipv4() == is_v4).collect();
            if !routes.is_empty() {
                family.insert("routes".to_owned(), routes.iter().map(|r| r.to_json(version)).collect());
            }
            document.insert(key.to_owned(), Value::Object(family));
        }
        let said = document.contains_key("ip4") || document.contains_key("ip6");
        if said { Ok(()) } else { Err(ResultError::NoAddresses(version)) }
    }

    fn read_lists(document: &Map<String, Value>) -> Result<Self, ResultError> {
        Ok(Self {
            interfaces: each(document, "interfaces", Interface::from_json)?,
            ips: each(document, "ips", IpConfig::from_json)?,
            routes: each(document, "routes", Route::from_json)?,
            dns: Dns::default(),
        })
    }

    fn read_families(document: &Map<String, Value>) -> Result<Self, ResultError> {
        let mut result = Self::default();
        for key in ["ip4", "ip6"] {
            let Some(value) = document.get(key).filter(|v| !v.is_null()) else { continue };
            let family = as_object(value, key)?;
            let gateway = optional(family, key, "gateway", "an IP address")?;
            let address = required(family, key, "ip", "an address in CIDR notation")?;
            result.ips.push(IpConfig { address, gateway, interface: None });
            result.routes.extend(each(family, "routes", Route::from_json)?);
        }
        Ok(result)
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("name".to_owned(), self.name.clone().into());
        insert_text(&mut object, "mac", &self.mac);
        if version >= Version::V1_1_0 {
            insert_some(&mut object, "mtu", self.mtu);
        }
        insert_text(&mut object, "sandbox", &self.sandbox);
        if version >= Version::V1_1_0 {
            insert_text(&mut object, "socketPath", &self.socket_path);
            insert_text(&mut object, "pciID", &self.pci_id);
        }
        Value::Object(object)
    }

    fn from_json(value: &Value, field: &str) -> Result<Self, ResultError> {
        let object = as_object(value, field)?;
        let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mtu = object.get("mtu").and_then(Value::as_u64).and_then(|mtu| u32::try_from(mtu).ok());
        Ok(Self {
            name: text("name"),
            mac: text("mac"),
            mtu,
            sandbox: text("sandbox"),
            socket_path: text("socketPath"),
            pci_id: text("pciID"),
        })
    }
}

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let mut object = self.address_and_gateway("address");
        if version < Version::V1_0_0 {
            object.insert("version".to_owned(), if self.address.is_ipv4() { "4" } else { "6" }.into());
        }
        insert_some(&mut object, "interface", self.interface.map(|index| index as u64));
        Value::Object(object)
    }

    fn address_and_gateway(&self, address_key: &str) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert(address_key.to_owned(), self.address.to_string().into());
        insert_some(&mut object, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        object
    }

    fn from_json(value: &Value, field: &str) -> Result<Self, ResultError> {
        let object = as_object(value, field)?;
        // An index of -1 stands for none in what older plugins print.
        let index = object.get("interface").and_then(Value::as_u64).and_then(|i| usize::try_from(i).ok());
        Ok(Self {
            address: required(object, field, "address", "an address in CIDR notation")?,
            gateway: optional(object, field, "gateway", "an IP address")?,
            interface: index,
        })
    }
}

impl Route {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("dst".to_owned(), self.dst.to_string().into());
        insert_some(&mut object, "gw", self.gw.map(|gw| gw.to_string()));
        if version >= Version::V1_1_0 {
            for (key, value) in [
                ("mtu", self.mtu),
                ("advmss", self.advmss),
                ("priority", self.priority),
                ("table", self.table),
                ("scope", self.scope.map(u32::from)),
            ] {
                insert_some(&mut object, key, value);
            }
        }
        Value::Object(object)
    }

    /// Reads a route as results and configurations spell it.
    ///
    /// # Errors
    /// [`ResultError::Field`], with `field` as the place.
    pub fn from_json(value: &Value, field: &str) -> Result<Self, ResultError> {
        let object = as_object(value, field)?;
        let number = |key: &str| -> Result<Option<u32>, ResultError> {
            let Some(value) = object.get(key).filter(|v| !v.is_null()) else { return Ok(None) };
            let fits = value.as_u64().and_then(|n| u32::try_from(n).ok());
            fits.map(Some).ok_or_else(|| wrong(format!("{field}.{key}"), "a number of 32 bits", value))
        };
        let scope = match number("scope")? {
            None => None,
            Some(scope) => Some(u8::try_from(scope).map_err(|_too_large| {
                wrong(format!("{field}.scope"), "a number from 0 to 255", &Value::from(scope))
            })?),
        };
        Ok(Self {
            dst: required(object, field, "dst", "a network in CIDR notation")?,
            gw: optional(object, field, "gw", "an IP address")?,
            mtu: number("mtu")?,
            advmss: number("advmss")?,
            priority: number("priority")?,
            table: number("table")?,
            scope,
        })
    }
}

impl Dns {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut list = |key: &str, items: &[String]| {
            if !items.is_empty() {
                object.insert(key.to_owned(), json!(items));
            }
        };
        list("nameservers", &self.nameservers);
        list("search", &self.search);
        list("options", &self.options);
        insert_some(&mut object, "domain", self.domain.clone());
        Value::Object(object)
    }

    /// Reads name service as results and configurations spell it; an absent one is empty.
    ///
    /// # Errors
    /// [`ResultError::Field`].
    pub fn from_json(value: Option<&Value>) -> Result<Self, ResultError> {
        let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Self::default()) };
        let object = as_object(value, "dns")?;
        let text = |value: &Value, field: &str| {
            value.as_str().map(str::to_owned).ok_or_else(|| wrong(field.to_owned(), "a string", value))
        };
        let domain = object.get("domain").map(|value| text(value, "dns.domain")).transpose()?;
        Ok(Self {
            nameservers: each(object, "nameservers", text)?,
            domain: domain.filter(|domain| !domain.is_empty()),
            search: each(object, "search", text)?,
            options: each(object, "options", text)?,
        })
    }
}

fn insert_text(object: &mut Map<String, Value>, key: &str, text: &str) {
    insert_some(object, key, (!text.is_empty()).then_some(text));
}

fn insert_some(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

fn as_object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, ResultError> {
    value.as_object().ok_or_else(|| wrong(field.to_owned(), "an object", value))
}

fn each<T>(
    object: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value, &str) -> Result<T, ResultError>,
) -> Result<Vec<T>, ResultError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().enumerate().map(|(i, item)| read(item, &format!("{key}[{i}]"))).collect()
        }
        Some(other) => Err(wrong(key.to_owned(), "a list", other)),
    }
}

fn required<T: FromStr>(
    object: &Map<String, Value>,
    field: &str,
    key: &str,
    expected: &'static str,
) -> Result<T, ResultError> {
    let absent = || wrong(format!("{field}.{key}"), expected, &Value::Null);
    optional(object, field, key, expected)?.ok_or_else(absent)
}

fn optional<T: FromStr>(
    object: &Map<String, Value>,
    field: &str,
    key: &str,
    expected: &'static str,
) -> Result<Option<T>, ResultError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(value) => {
            let parsed = value.as_str().and_then(|text| text.parse().ok());
            parsed.map(Some).ok_or_else(|| wrong(format!("{field}.{key}"), expected, value))
        }
    }
}

fn wrong(field: String, expected: &'static str, found: &Value) -> ResultError {
    ResultError::Field { field, expected, found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> AddResult {
        let routed = |dst: &str, gw: &str| Route { gw: gw.parse().ok(), ..Route::to(dst.parse().unwrap()) };
        AddResult {
            interfaces: vec![
                Interface { name: "weft1".into(), mac: "02:00:00:00:00:01".into(), ..Default::default() },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: Some(1450),
                    sandbox: "/run/netns/x".into(),
                    pci_id: "0000:00:01.0".into(),
                    ..Default::default()
                },
            ],
            ips: vec![
                IpConfig {
                    address: "10.1.0.5/24".parse().unwrap(),
                    gateway: "10.1.0.1".parse().ok(),
                    interface: Some(1),
                },
                IpConfig { address: "fd00::5/64".parse().unwrap(), gateway: None, interface: Some(1) },
            ],
            routes: vec![
                Route { mtu: Some(1400), ..routed("0.0.0.0/0", "10.1.0.1") },
                Route::to("::/0".parse().unwrap()),
            ],
            dns: Dns::default(),
        }
    }

    #[test]
    fn the_newest_version_says_everything() {
        assert_eq!(
            sample().to_json(Version::V1_1_0).unwrap(),
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": "weft1", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/run/netns/x", "pciID": "0000:00:01.0"},
                ],
                "ips": [
                    {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1},
                    {"address": "fd00::5/64", "interface": 1},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400}, {"dst": "::/0"}],
            })
        );
    }

    #[test]
    fn version_0_4_0_states_the_family_and_an_empty_dns_and_drops_newer_fields() {
        let document = sample().to_json(Version::V0_4_0).unwrap();
        assert_eq!(document["ips"][0]["version"], "4");
        assert_eq!(document["ips"][1]["version"], "6");
        assert_eq!(document["dns"], json!({}));
        assert_eq!(document["interfaces"][1].get("mtu"), None);
        assert_eq!(document["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"}));
    }

    #[test]
    fn version_0_2_0_has_the_first_address_of_each_family() {
        assert_eq!(
            sample().to_json(Version::V0_2_0).unwrap(),
            json!({
                "cniVersion": "0.2.0",
                "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
                "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "::/0"}]},
                "dns": {},
            })
        );
        assert_eq!(
            AddResult::default().to_json(Version::V0_2_0),
            Err(ResultError::NoAddresses(Version::V0_2_0))
        );
    }

    #[test]
    fn what_a_version_can_say_is_read_back_as_it_was() {
        for version in Version::ALL {
            let document = sample().to_json(version).unwrap();
            let read = AddResult::from_json(&document, Version::LATEST).unwrap();
            assert_eq!(read.to_json(version).unwrap(), document, "{version}");
        }
    }

    #[test]
    fn a_result_with_a_wrong_field_is_refused_with_its_place() {
        let bad = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}, {"address": "here"}]});
        let error = AddResult::from_json(&bad, Version::LATEST).unwrap_err().to_string();
        assert_eq!(error, "ips[1].address: expected an address in CIDR notation, found \"here\"");
    }

    #[test]
    fn an_absent_or_negative_index_is_no_index() {
        let odd = json!({"cniVersion": "0.3.0", "ips": [{"version": "4", "address": "10.0.0.1/24", "interface": -1}]});
        assert_eq!(AddResult::from_json(&odd, Version::LATEST).unwrap().ips[0].interface, None);
    }
}
