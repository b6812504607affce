//! `runtimeConfig.portMappings`: which ports of the node the runtime asks for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};
use weft_datapath::{HostPort, Protocol};
use weft_ipam::config::{Mistake, Mistakes, did_you_mean};

use crate::error::mistake;

const KEYS: [&str; 4] = ["hostPort", "containerPort", "protocol", "hostIP"];

/// A port of the node that is to lead to one of the pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The node's.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The node's address: `0.0.0.0` and `::` are all of their family, and `None` all of both.
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// The ports that it takes where the pod has addresses of both families.
    #[must_use]
    pub fn host_ports(&self) -> Vec<HostPort> {
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = self.host_ip.map_or_else(|| everywhere.to_vec(), |ip| vec![ip]);
        let on = |address| HostPort { address, protocol: self.protocol, port: self.host_port };
        addresses.into_iter().map(on).collect()
    }

    /// As a runtime writes it, and [`parse`] reads it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut mapping = json!({
            "hostPort": self.host_port,
            "containerPort": self.container_port,
            "protocol": self.protocol.to_string(),
        });
        if let (Some(ip), Some(fields)) = (self.host_ip, mapping.as_object_mut()) {
            fields.insert("hostIP".to_owned(), ip.to_string().into());
        }
        mapping
    }
}

/// Reads the list at `place`. A mapping without a host port asks for nothing, as in the reference; pods have addresses of
/// the families that `has_family` (is it IPv4?) knows.
///
/// # Errors
/// Every mistake in it.
pub fn parse(
    place: &str,
    list: Option<&Value>,
    has_family: impl Fn(bool) -> bool,
) -> Result<Vec<PortMapping>, Mistakes> {
    let items = match list {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(Mistakes(vec![mistake(place, format!("expected a list, found {other}"))])),
    };
    let (mut mappings, mut taken, mut mistakes) = (Vec::new(), HashSet::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let mut entry = Entry { place: format!("{place}[{index}]"), mistakes: &mut mistakes };
        let Some(mapping) = entry.mapping(item) else { continue };
        entry.servable(&mapping, &has_family);
        entry.unlike(&mapping, &mut taken);
        mappings.push(mapping);
    }
    if mistakes.is_empty() { Ok(mappings) } else { Err(Mistakes(mistakes)) }
}

/// One mapping, and where what is wrong with it is noted.
struct Entry<'a> {
    place: String,
    mistakes: &'a mut Vec<Mistake>,
}

impl Entry<'_> {
    /// `None` where nothing is asked for, or nothing can be made of it.
    fn mapping(&mut self, item: &Value) -> Option<PortMapping> {
        let Value::Object(fields) = item else {
            self.mistakes.push(mistake(self.place.as_str(), format!("expected an object, found {item}")));
            return None;
        };
        self.keys(fields);
        let host_port = self.port(fields, "hostPort");
        let container_port = self.port(fields, "containerPort");
        let (protocol, host_ip) = (self.protocol(fields), self.host_ip(fields));
        let host_port = host_port?;
        if host_port != 0 && container_port == Some(0) {
            self.wrong("containerPort", "missing: say which port of the pod is meant");
        }
        let mapping = PortMapping {
            host_port,
            container_port: container_port?,
            protocol: protocol?,
            host_ip: host_ip?,
        };
        (host_port != 0 && mapping.container_port != 0).then_some(mapping)
    }

    fn keys(&mut self, fields: &Map<String, Value>) {
        for key in fields.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let hint = did_you_mean(key, KEYS.into_iter());
            self.wrong(key, format!("unknown key{hint}"));
        }
    }

    /// 0 where there is none.
    fn port(&mut self, fields: &Map<String, Value>, key: &str) -> Option<u16> {
        match fields.get(key) {
            None | Some(Value::Null) => Some(0),
            Some(value) => {
                let port = value.as_u64().and_then(|number| u16::try_from(number).ok());
                if port.is_none() {
                    self.wrong(key, format!("{value} is no port from 1 to 65535"));
                }
                port
            }
        }
    }

    fn protocol(&mut self, fields: &Map<String, Value>) -> Option<Protocol> {
        let value = match fields.get("protocol") {
            None | Some(Value::Null) => return Some(Protocol::Tcp),
            Some(value) => value,
        };
        let known = value.as_str().and_then(|text| match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => None,
        });
        if known.is_none() {
            self.wrong("protocol", format!("{value} is none of \"tcp\", \"udp\" and \"sctp\""));
        }
        known
    }

    fn host_ip(&mut self, fields: &Map<String, Value>) -> Option<Option<IpAddr>> {
        match fields.get("hostIP") {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) if text.is_empty() => Some(None),
            Some(value) => {
                let ip: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
                if ip.is_none() {
                    self.wrong("hostIP", format!("{value} is not an IP address"));
                }
                ip.map(|ip| Some(ip.to_canonical()))
            }
        }
    }

    fn servable(&mut self, mapping: &PortMapping, has_family: impl Fn(bool) -> bool) {
        let Some(ip) = mapping.host_ip else { return };
        if ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            self.wrong("hostIP", "the kernel routes nothing from ::1; say \"127.0.0.1\" or another address");
        } else if !has_family(ip.is_ipv4()) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            self.wrong("hostIP", format!("{ip} is {family}, but no range gives a pod an {family} address"));
        }
    }

    fn unlike(&mut self, mapping: &PortMapping, taken: &mut HashSet<HostPort>) {
        let ports = mapping.host_ports();
        let twice = ports.iter().find(|port| taken.contains(port)).copied();
        taken.extend(ports);
        if let Some(twice) = twice {
            self.wrong("hostPort", format!("{twice} is asked for twice"));
        }
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        self.mistakes.push(mistake(format!("{}.{key}", self.place), what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: Value) -> Result<Vec<PortMapping>, String> {
        parse("p", Some(&list), |is_v4| is_v4).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        let list = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 8080, "containerPort": 80, "protocol": "UDP"},
            {"hostPort": 3868, "containerPort": 3868, "protocol": "sctp", "hostIP": "192.0.2.1"},
            {"hostPort": 1, "containerPort": 2},
        ]);
        let mappings = read(list).unwrap();
        let written: Vec<_> = mappings
            .iter()
            .map(|m| format!("{} {} {} {:?}", m.host_port, m.container_port, m.protocol, m.host_ip))
            .collect();
        assert_eq!(
            written,
            ["8080 80 tcp None", "8080 80 udp None", "3868 3868 sctp Some(192.0.2.1)", "1 2 tcp None"]
        );
        let again = Value::Array(mappings.iter().map(PortMapping::to_json).collect());
        assert_eq!(read(again).unwrap(), mappings, "and written so that they are read again");
    }

    #[test]
    fn a_mapping_without_a_host_port_asks_for_nothing() {
        for list in [
            json!([]),
            json!(null),
            json!([{"containerPort": 80, "protocol": "tcp"}]),
            json!([{"hostPort": 0, "containerPort": 80}, {"hostPort": null, "containerPort": 80}]),
        ] {
            assert_eq!(read(list), Ok(Vec::new()));
        }
    }

    #[test]
    fn every_mistake_is_named_at_its_place() {
        for (list, expected) in [
            (json!({}), "p: expected a list, found {}"),
            (json!([7]), "p[0]: expected an object, found 7"),
            (
                json!([{"hostPort": 65536, "containerPort": -1, "protocol": "icmp", "hostIP": "here"}]),
                "p[0].hostPort: 65536 is no port from 1 to 65535; \
                 p[0].containerPort: -1 is no port from 1 to 65535; \
                 p[0].protocol: \"icmp\" is none of \"tcp\", \"udp\" and \"sctp\"; \
                 p[0].hostIP: \"here\" is not an IP address",
            ),
            (json!([{"hostPort": 80}]), "p[0].containerPort: missing: say which port of the pod is meant"),
            (
                json!([{"hostPort": 80, "containerPort": 80, "hostIp": "192.0.2.1"}]),
                "p[0].hostIp: unknown key; did you mean \"hostIP\"?",
            ),
            (
                json!([{"hostPort": 80, "containerPort": 80, "hostIP": "::1"}]),
                "p[0].hostIP: the kernel routes nothing from ::1; say \"127.0.0.1\" or another address",
            ),
            (
                json!([{"hostPort": 80, "containerPort": 80, "hostIP": "2001:db8::1"}]),
                "p[0].hostIP: 2001:db8::1 is IPv6, but no range gives a pod an IPv6 address",
            ),
        ] {
            assert_eq!(read(list).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_port_that_is_asked_for_twice_is_a_mistake_but_not_one_on_another_address_or_of_another_protocol() {
        let twice = |second: Value| {
            read(json!([{"hostPort": 80, "containerPort": 80}, second])).map(|mappings| mappings.len())
        };
        let mistake = || Err("p[1].hostPort: 80/tcp is asked for twice".to_owned());
        assert_eq!(twice(json!({"hostPort": 80, "containerPort": 80})), mistake());
        assert_eq!(twice(json!({"hostPort": 80, "containerPort": 81, "hostIP": "0.0.0.0"})), mistake());
        assert_eq!(twice(json!({"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1"})), Ok(2));
        assert_eq!(twice(json!({"hostPort": 80, "containerPort": 80, "protocol": "udp"})), Ok(2));
        assert_eq!(twice(json!({"hostPort": 81, "containerPort": 80})), Ok(2));
    }
}
