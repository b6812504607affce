//! A network configuration list, as far as it can be judged before a runtime reads it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

/// The plugin that makes a pod's interface.
const MAKER: &str = "weft-cni";
/// Whose ranges are filled in; any other IPAM plugin has keys of its own.
const IPAM: [&str; 2] = ["weft-ipam", "host-local"];

/// What is installed where nobody has given a template. Version 1.0.0 is the newest that containerd 1.6 reads.
const BUILTIN: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "weft",
  "plugins": [{
    "type": "weft-cni",
    "ipMasq": true,
    "ipam": { "type": "weft-ipam" },
    "capabilities": { "ips": true, "mac": true, "ipRanges": true, "dns": true, "bandwidth": true, "portMappings": true }
  }]
}"#;

/// A list in which everything is the operator's but what differs from node to node: the subnets of its pods, and
/// their MTU.
#[derive(Clone, Debug)]
pub(crate) struct Template(Map<String, Value>);

/// A list, as a runtime reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    /// The network.
    pub(crate) name: String,
    /// The version in which its plugins answer.
    pub(crate) version: String,
    /// The plugins, in the order of ADD. There is at least one, and each has a type.
    pub(crate) plugins: Vec<Map<String, Value>>,
}

/// What a runtime would refuse, or never read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The name has another ending than the runtime looks for.
    #[error("its name does not end in .conflist; a runtime would not read it as a list")]
    Name,
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Json(String),
    /// A key of the list is not as the specification wants it.
    #[error("{key} must be {expected}")]
    Key {
        /// The key's place.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("cannot read the template {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the template {} is wrong:{}", path.display(), flaws.iter().map(|flaw| format!("\n  {flaw}")).collect::<String>())]
    Flaws { path: PathBuf, flaws: Vec<Flaw> },
}

impl Template {
    /// Reads the one in `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, Unusable> {
        let text = fs::read(path).map_err(|source| Unusable::Read { path: path.into(), source })?;
        // Only the content counts: it is installed under another name.
        Self::parse(Path::new("template.conflist"), &text)
            .map_err(|flaws| Unusable::Flaws { path: path.into(), flaws })
    }

    /// The list in which Weft alone joins the pods, with all that it offers.
    pub(crate) fn builtin() -> Self {
        let list = serde_json::from_str(BUILTIN);
        Self(list.expect("a constant that a test reads"))
    }

    /// Reads a template, or says everything that is wrong with it as a list. It may lack what is filled in.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, Vec<Flaw>> {
        List::parse(path, text)?;
        serde_json::from_slice(text).map(Self).map_err(|error| vec![Flaw::Json(error.to_string())])
    }

    /// The node's list. `subnets` become the ranges where the template has none, in their order: the first address of a pod is from
    /// the first of them, as Kubernetes wants it. What the template says of ranges, routes or the MTU stands.
    pub(crate) fn list(&self, subnets: &[IpNetwork], mtu: Option<u32>) -> String {
        let mut list = self.0.clone();
        let first =
            list.get_mut("plugins").and_then(|plugins| plugins.get_mut(0)).and_then(Value::as_object_mut);
        if let Some(maker) = first.filter(|entry| entry.get("type").is_some_and(|own| own == MAKER)) {
            fill_in_mtu(maker, mtu);
            let ipam = maker.entry("ipam").or_insert_with(|| json!({ "type": "weft-ipam" }));
            if let Some(ipam) = ipam.as_object_mut().filter(|ipam| takes_ranges(ipam)) {
                ipam.insert("ranges".into(), ranges(subnets));
                ipam.entry("routes").or_insert_with(|| default_routes(subnets));
            }
        }
        format!("{:#}\n", Value::Object(list))
    }
}

fn fill_in_mtu(maker: &mut Map<String, Value>, mtu: Option<u32>) {
    let is_chosen = maker.get("mtu").is_some_and(|chosen| *chosen != 0);
    if let Some(mtu) = mtu.filter(|_| !is_chosen) {
        maker.insert("mtu".into(), mtu.into());
    }
}

fn takes_ranges(ipam: &Map<String, Value>) -> bool {
    let is_known = ipam.get("type").and_then(Value::as_str).is_some_and(|own| IPAM.contains(&own));
    is_known && !["ranges", "subnet"].iter().any(|key| ipam.contains_key(*key))
}

/// One set of ranges a family, for a pod gets one address from each set.
fn ranges(subnets: &[IpNetwork]) -> Value {
    let of = |is_v4: bool| subnets.iter().filter(move |subnet| subnet.is_ipv4() == is_v4);
    let set =
        |is_v4: bool| of(is_v4).map(|subnet| json!({ "subnet": subnet.to_string() })).collect::<Vec<_>>();
    families(subnets).into_iter().map(set).collect()
}

fn default_routes(subnets: &[IpNetwork]) -> Value {
    let route = |is_v4| json!({ "dst": if is_v4 { "0.0.0.0/0" } else { "::/0" } });
    families(subnets).into_iter().map(route).collect()
}

/// Whether each family that there is is IPv4, in the order of the subnets.
fn families(subnets: &[IpNetwork]) -> Vec<bool> {
    let mut families: Vec<bool> = subnets.iter().map(IpNetwork::is_ipv4).collect();
    families.truncate(1);
    families.extend(
        families.first().filter(|first| subnets.iter().any(|s| s.is_ipv4() != **first)).map(|first| !first),
    );
    families
}

impl List {
    /// Reads a list, or says everything that is wrong with it.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, Vec<Flaw>> {
        plugin_types(path, text)?;
        let list: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| vec![Flaw::Json(error.to_string())])?;
        let text = |key| list.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let plugins = list.get("plugins").and_then(Value::as_array).into_iter().flatten();
        let plugins = plugins.filter_map(Value::as_object).cloned().collect();
        Ok(Self { name: text("name"), version: text("cniVersion"), plugins })
    }

    /// What a plugin of it is given by version, which is the list's unless a verb needs a newer one.
    pub(crate) fn entry(&self, plugin: &Map<String, Value>, version: &str, result: Option<&Value>) -> Value {
        let mut entry = plugin.clone();
        entry.insert("name".into(), self.name.clone().into());
        entry.insert("cniVersion".into(), version.into());
        entry.extend(result.map(|result| ("prevResult".to_owned(), result.clone())));
        Value::Object(entry)
    }

    /// The entry that makes the interface, if that is Weft's.
    pub(crate) fn maker(&self) -> Option<&Map<String, Value>> {
        self.plugins.first().filter(|plugin| plugin.get("type").is_some_and(|own| own == MAKER))
    }
}

/// The plugin types that a list names, or everything that is wrong with it (specification, section 1).
pub(crate) fn plugin_types(path: &Path, text: &[u8]) -> Result<Vec<String>, Vec<Flaw>> {
    let mut flaws = Vec::new();
    if path.extension().is_none_or(|extension| extension != "conflist") {
        flaws.push(Flaw::Name);
    }
    let list: Value = match serde_json::from_slice(text) {
        Ok(list) => list,
        Err(error) => {
            flaws.push(Flaw::Json(error.to_string()));
            return Err(flaws);
        }
    };
    for key in ["cniVersion", "name"] {
        if !is_text(list.get(key)) {
            flaws.push(Flaw::Key { key: key.into(), expected: "a text" });
        }
    }
    let plugins = list.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if plugins.is_empty() {
        flaws.push(Flaw::Key { key: "plugins".into(), expected: "a list of at least one plugin" });
    }
    let mut types = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        match plugin.get("type").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => types.push(text.to_owned()),
            None => flaws.push(Flaw::Key { key: format!("plugins[{index}].type"), expected: "a text" }),
        }
    }
    if flaws.is_empty() { Ok(types) } else { Err(flaws) }
}

/// Whether a runtime takes a file of this name for a configuration.
pub(crate) fn is_read_by_runtimes(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("conf" | "conflist" | "json"))
}

fn is_text(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(name: &str, text: &str) -> Result<Vec<String>, Vec<String>> {
        plugin_types(Path::new(name), text.as_bytes())
            .map_err(|flaws| flaws.iter().map(Flaw::to_string).collect())
    }

    #[test]
    fn a_good_list_gives_its_plugin_types() {
        let text =
            r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "weft-cni"}, {"type": "sbr"}]}"#;
        assert_eq!(judge("/x/10-weft.conflist", text), Ok(vec!["weft-cni".into(), "sbr".into()]));
    }

    #[test]
    fn everything_wrong_with_a_list_is_found_at_once() {
        let found =
            judge("x.conf", r#"{"name": "", "plugins": [{}, {"type": "a"}, {"type": 7}]}"#).unwrap_err();
        assert_eq!(
            found,
            [
                "its name does not end in .conflist; a runtime would not read it as a list",
                "cniVersion must be a text",
                "name must be a text",
                "plugins[0].type must be a text",
                "plugins[2].type must be a text",
            ]
        );
        let found = judge("x.conflist", "{\n  \"name\": \"a\"\n  \"plugins\": []\n}").unwrap_err();
        assert_eq!(found, ["it is not JSON: expected `,` or `}` at line 3 column 3"]);
        let found =
            judge("x.conflist", r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#).unwrap_err();
        assert_eq!(found, ["plugins must be a list of at least one plugin"]);
    }

    fn subnets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn filled(template: &str, of: &[&str], mtu: Option<u32>) -> Value {
        let template = Template::parse(Path::new("x.conflist"), template.as_bytes()).unwrap();
        serde_json::from_str::<Value>(&template.list(&subnets(of), mtu)).unwrap()["plugins"][0].clone()
    }

    #[test]
    fn the_subnets_of_a_node_become_the_ranges_of_its_pods_in_their_order() {
        let text = Template::builtin().list(&subnets(&["fd00:1::/64", "10.0.1.0/24"]), None);
        let list = List::parse(Path::new("10-weft.conflist"), text.as_bytes()).unwrap();
        assert_eq!((list.name.as_str(), list.version.as_str()), ("weft", "1.0.0"));
        let ipam = &list.maker().unwrap()["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "fd00:1::/64" }], [{ "subnet": "10.0.1.0/24" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "::/0" }, { "dst": "0.0.0.0/0" }]));
        let one = Template::builtin().list(&subnets(&["10.0.1.0/24", "10.0.7.0/24"]), Some(1450));
        let one: Value = serde_json::from_str(&one).unwrap();
        let maker = &one["plugins"][0];
        assert_eq!(
            maker["ipam"]["ranges"],
            json!([[{ "subnet": "10.0.1.0/24" }, { "subnet": "10.0.7.0/24" }]])
        );
        assert_eq!(maker["ipam"]["routes"], json!([{ "dst": "0.0.0.0/0" }]));
        assert_eq!(maker["mtu"], 1450);
    }

    #[test]
    fn what_a_template_says_itself_stands() {
        let template = r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [
            {"type": "weft-cni", "mtu": 1400, "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.9.0.0/16"}]]}}]}"#;
        let maker = filled(template, &["10.0.1.0/24"], Some(1450));
        assert_eq!(maker["mtu"], 1400);
        assert_eq!(maker["ipam"]["ranges"], json!([[{ "subnet": "10.9.0.0/16" }]]));
        for foreign in [r#"{"type": "bridge"}"#, r#"{"type": "weft-cni", "ipam": {"type": "dhcp"}}"#] {
            let template = format!(r#"{{"cniVersion": "1.0.0", "name": "a", "plugins": [{foreign}]}}"#);
            assert_eq!(
                filled(&template, &["10.0.1.0/24"], None),
                serde_json::from_str::<Value>(foreign).unwrap()
            );
        }
    }

    #[test]
    fn an_entry_is_given_the_names_of_its_list() {
        let text = Template::builtin().list(&subnets(&["10.0.1.0/24"]), None);
        let list = List::parse(Path::new("x.conflist"), text.as_bytes()).unwrap();
        let entry = list.entry(&list.plugins[0], "1.1.0", Some(&json!({ "ips": [] })));
        assert_eq!(entry["name"], "weft");
        assert_eq!(entry["cniVersion"], "1.1.0");
        assert_eq!(entry["prevResult"], json!({ "ips": [] }));
        assert_eq!(entry["type"], "weft-cni");
    }

    #[test]
    fn files_in_the_making_are_not_read_by_runtimes() {
        assert!(["a.conf", "a.conflist", "a.json"].into_iter().all(is_read_by_runtimes));
        assert!(
            [".weft-node.10-weft.conflist.new", ".weft-node.owned", "conf"]
                .iter()
                .all(|n| !is_read_by_runtimes(n))
        );
    }
}
