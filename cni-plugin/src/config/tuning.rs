//! What the reference plugin `tuning` takes: parameters of the pod's namespace, and attributes of its interface.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use weft_ipam::config::Mistake;

use crate::error::mistake;

/// What the pod's end and its namespace are to have beside an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Parameters below `net`, in the order of their names.
    pub sysctls: Vec<Sysctl>,
    /// Whether the pod's end takes frames that are for others; where not, it is left as it is.
    pub promisc: bool,
    /// Whether it takes all multicast frames; where nothing is said, it is left as it is.
    pub allmulti: Option<bool>,
    /// Length of its transmit queue in packets.
    pub tx_queue_len: Option<u32>,
}

/// A parameter and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// As it is written, which is what an allow list is about: `net.ipv4.conf.IFNAME.arp_filter`.
    pub name: String,
    /// What it is to be set to.
    pub value: String,
    /// What follows `net`, one component each; `IFNAME` stands for the interface.
    path: Vec<String>,
}

/// The keys at the top level; `args.cni` may have the same.
pub(super) const KEYS: [&str; 5] = ["sysctl", "promisc", "allmulti", "txQLen", "dataDir"];

/// Where it is kept what an interface was like before, so that DEL can restore it.
const DEFAULT_DATA_DIR: &str = "/run/weft/tuning";

/// Stands for the name of the interface (the reference replaces it after it has taken the name apart, so that an
/// interface's name may have dots).
const IFNAME: &str = "IFNAME";

impl Tuning {
    /// `args.cni` replaces the configuration's, key by key, and for parameters one by one.
    pub(super) fn read(document: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> Self {
        if data_dir(document).is_none() {
            let found = document.get("dataDir").unwrap_or(&Value::Null);
            mistakes.push(mistake("dataDir", format!("{found} is not an absolute path")));
        }
        let mut reader = Reader { document, mistakes };
        Self {
            sysctls: reader.sysctls(),
            promisc: reader.flag("promisc") == Some(true),
            allmulti: reader.flag("allmulti"),
            tx_queue_len: reader.number("txQLen"),
        }
    }
}

/// `dataDir` at the top level. DEL reads nothing else, so that it does not depend on what has become of the rest.
pub(crate) fn data_dir(document: &Map<String, Value>) -> Option<PathBuf> {
    match document.get("dataDir") {
        None | Some(Value::Null) => Some(DEFAULT_DATA_DIR.into()),
        Some(Value::String(text)) if text.is_empty() => Some(DEFAULT_DATA_DIR.into()),
        Some(value) => value.as_str().map(PathBuf::from).filter(|path| path.is_absolute()),
    }
}

impl Sysctl {
    /// `None` for what is not below `net`, and so not the pod's own.
    pub(crate) fn new(name: &str, value: &str) -> Option<Self> {
        let mut path = name.split(['.', '/']).map(str::to_owned);
        let is_net = path.next().is_some_and(|first| first == "net");
        let path: Vec<_> = path.collect();
        let whole = !path.is_empty() && path.iter().all(|component| !component.is_empty());
        (is_net && whole).then(|| Self { name: name.to_owned(), value: value.to_owned(), path })
    }

    /// Where it is below `/proc/sys/net`, for the interface called `ifname`.
    #[must_use]
    pub fn path<'a>(&'a self, ifname: &'a str) -> Vec<&'a str> {
        self.path.iter().map(|part| if part == IFNAME { ifname } else { part.as_str() }).collect()
    }
}

struct Reader<'a> {
    document: &'a Map<String, Value>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// What is said of `key`, the stronger place first.
    fn said(&self, key: &str) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
        let convention =
            self.document.get("args").and_then(|args| args.get("cni")).and_then(|cni| cni.get(key));
        let places = [(format!("args.cni.{key}"), convention), (key.to_owned(), self.document.get(key))];
        places.into_iter().filter_map(|(at, value)| Some((at, value.filter(|value| !value.is_null())?)))
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let (at, value) = self.said(key).next()?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.mistakes.push(mistake(at, format!("{value} is neither true nor false")));
        }
        flag
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        let (at, value) = self.said(key).next()?;
        // The kernel's field is signed.
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= i32::MAX as u32);
        if number.is_none() {
            self.mistakes.push(mistake(at, format!("{value} is not a number of packets up to {}", i32::MAX)));
        }
        number
    }

    fn sysctls(&mut self) -> Vec<Sysctl> {
        let mut by_path = BTreeMap::new();
        for (at, value) in self.said("sysctl") {
            let Value::Object(fields) = value else {
                self.mistakes.push(mistake(at, format!("expected an object, found {value}")));
                continue;
            };
            let mut here = BTreeMap::new();
            for (name, value) in fields {
                let Some(sysctl) = self.sysctl(&at, name, value) else { continue };
                if let Some(twice) = here.insert(sysctl.path.clone(), sysctl) {
                    self.mistakes.push(mistake(&at, format!("{name} and {} are the same", twice.name)));
                }
            }
            for (path, sysctl) in here {
                by_path.entry(path).or_insert(sysctl);
            }
        }
        by_path.into_values().collect()
    }

    fn sysctl(&mut self, at: &str, name: &str, value: &Value) -> Option<Sysctl> {
        let place = format!("{at}.{name}");
        let Value::String(text) = value else {
            self.mistakes.push(mistake(place, format!("expected a string, found {value}")));
            return None;
        };
        let sysctl = Sysctl::new(name, text);
        if sysctl.is_none() {
            self.mistakes.push(mistake(
                place,
                "only parameters below net, such as net.core.somaxconn, are the pod's own",
            ));
        }
        sysctl
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> (Tuning, Vec<String>) {
        let mut mistakes = Vec::new();
        let tuning = Tuning::read(document.as_object().unwrap(), &mut mistakes);
        (tuning, mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.what)).collect())
    }

    #[test]
    fn a_parameter_is_taken_apart_before_the_interface_is_put_in() {
        let (tuning, mistakes) = read(&json!({"sysctl": {
            "net.ipv4.conf.IFNAME.arp_filter": "1", "net/core/somaxconn": "500",
        }}));
        assert_eq!(mistakes, Vec::<String>::new());
        let paths: Vec<_> = tuning.sysctls.iter().map(|sysctl| sysctl.path("a.b")).collect();
        assert_eq!(paths, [vec!["core", "somaxconn"], vec!["ipv4", "conf", "a.b", "arp_filter"]]);
    }

    #[test]
    fn arguments_replace_the_configuration_key_by_key() {
        let (tuning, mistakes) = read(&json!({
            "sysctl": {"net.core.somaxconn": "500", "net.ipv4.ip_forward": "0"},
            "promisc": true, "allmulti": true, "txQLen": 7,
            "args": {"cni": {"sysctl": {"net.core.somaxconn": "600"}, "promisc": false, "txQLen": null}},
        }));
        assert_eq!(mistakes, Vec::<String>::new());
        let values: Vec<_> = tuning.sysctls.iter().map(|s| (s.name.as_str(), s.value.as_str())).collect();
        assert_eq!(values, [("net.core.somaxconn", "600"), ("net.ipv4.ip_forward", "0")]);
        assert_eq!((tuning.promisc, tuning.allmulti, tuning.tx_queue_len), (false, Some(true), Some(7)));
    }

    #[test]
    fn a_mistake_is_named_at_its_place() {
        const BELOW: &str = "only parameters below net, such as net.core.somaxconn, are the pod's own";
        for (document, expected) in [
            (json!({"sysctl": []}), "sysctl: expected an object, found []".to_owned()),
            (json!({"sysctl": {"net.a": 1}}), "sysctl.net.a: expected a string, found 1".to_owned()),
            (json!({"sysctl": {"kernel.panic": "1"}}), format!("sysctl.kernel.panic: {BELOW}")),
            (json!({"sysctl": {"net": "1"}}), format!("sysctl.net: {BELOW}")),
            (json!({"sysctl": {"net/../kernel/panic": "1"}}), format!("sysctl.net/../kernel/panic: {BELOW}")),
            (json!({"sysctl": {"netx.a": "1"}}), format!("sysctl.netx.a: {BELOW}")),
            (
                json!({"sysctl": {"net.a": "1", "net/a": "2"}}),
                "sysctl: net/a and net.a are the same".to_owned(),
            ),
            (json!({"promisc": 1}), "promisc: 1 is neither true nor false".to_owned()),
            (
                json!({"args": {"cni": {"allmulti": "x"}}}),
                "args.cni.allmulti: \"x\" is neither true nor false".to_owned(),
            ),
            (json!({"txQLen": -1}), "txQLen: -1 is not a number of packets up to 2147483647".to_owned()),
        ] {
            let (_, mistakes) = read(&document);
            assert_eq!(mistakes, [expected], "{document}");
        }
    }
}
