//! What a node's kernel and disk hold, as the system's own tools see it: none of our code has a say in it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::binaries;
use crate::error::{Error, Result};
use crate::node::Node;

/// The folders in which plugins of any kind keep leases and caches.
const STATE: [&str; 4] = ["/run/cni", "/run/weft", "/var/lib/cni", "/var/lib/weft"];

/// The log of weft-ipam stays when the last lease goes: it remembers which addresses were free first. What it holds is
/// listed instead.
const LEASES: &str = "/run/weft/ipam";

/// Links, addresses, routes, permanent neighbours, firewall, namespaces and lease files of a node: one line each,
/// without what varies by itself (counters, handles, indices, link-local addresses that settle).
#[derive(Clone, PartialEq, Eq)]
pub struct Inventory(BTreeSet<String>);

impl Inventory {
    pub(crate) fn of(node: &Node) -> Result<Self> {
        let mut lines = BTreeSet::new();
        lines.extend(rows(node, "ip -j -d link", link)?);
        lines.extend(rows(node, "ip -j address", address)?.into_iter().flatten());
        for family in ["-4", "-6"] {
            let routes = rows(node, &format!("ip -j {family} route show table all"), route)?;
            lines.extend(routes.into_iter().filter(|route| !varies(route)));
            lines
                .extend(rows(node, &format!("ip -j {family} rule"), |rule| format!("rule {family} {rule}"))?);
            lines.extend(rows(node, &format!("ip -j {family} neighbour show nud permanent"), neighbour)?);
        }
        lines.extend(firewall(&json(node, "nft -j list ruleset")?));
        lines.extend(node.run(|| files("/run/netns", "namespace"))?);
        for dir in STATE {
            lines.extend(node.run(|| files(dir, "file"))?.into_iter().filter(|line| !line.contains(LEASES)));
        }
        lines.extend(leases(node)?);
        Ok(Self(lines))
    }

    /// What is there now and was not (`+`), and what was there and is not any more (`-`). Empty when all is the same:
    /// `assert_eq!(before.diff(&after), [""; 0])` shows the very differences when it fails.
    pub fn diff(&self, now: &Self) -> Vec<String> {
        let gone = self.0.difference(&now.0).map(|line| format!("- {line}"));
        let new = now.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }

    /// The lines that contain `part`.
    pub fn matching(&self, part: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|line| line.contains(part)).collect()
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn json(node: &Node, command: &str) -> Result<Value> {
    let text = node.sh(command)?;
    // ip prints nothing at all for an empty IPv6 table.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text)
        .map_err(|_not_json| Error::Shape { what: command.to_owned(), text: text.to_owned() })
}

fn rows<T>(node: &Node, command: &str, row: impl Fn(&Value) -> T) -> Result<Vec<T>> {
    Ok(json(node, command)?.as_array().into_iter().flatten().map(row).collect())
}

fn link(link: &Value) -> String {
    let [name, mac, mtu, alias] = ["ifname", "address", "mtu", "ifalias"].map(|key| text(link, key));
    let kind = link.pointer("/linkinfo/info_kind").map_or("-", |kind| kind.as_str().unwrap_or("-"));
    format!("link {name} kind {kind} mac {mac} mtu {mtu} alias {alias}")
}

fn address(link: &Value) -> Vec<String> {
    let name = text(link, "ifname");
    let all = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
    let lasting = all.filter(|address| text(address, "scope") != "link" || text(address, "family") == "inet");
    lasting
        .map(|address| format!("address {name} {}/{}", text(address, "local"), text(address, "prefixlen")))
        .collect()
}

fn route(route: &Value) -> String {
    let parts = ["type", "dst", "gateway", "dev", "table", "scope", "prefsrc", "metric"];
    let parts = parts.map(|key| match route.get(key) {
        None if key == "type" => "type unicast".to_owned(),
        _ => format!("{key} {}", text(route, key)),
    });
    format!("route {}", parts.join(" "))
}

/// The kernel has anycast addresses for as long as a node forwards, which it goes on to do, and link-local ones come when a
/// link has settled.
fn varies(route: &str) -> bool {
    route.starts_with("route type anycast") || route.contains(" dst fe80:")
}

fn neighbour(neighbour: &Value) -> String {
    let [to, dev, mac] = ["dst", "dev", "lladdr"].map(|key| text(neighbour, key));
    format!("neighbour {to} dev {dev} mac {mac}")
}

fn firewall(ruleset: &Value) -> Vec<String> {
    let objects = ruleset.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let lasting = objects.filter(|object| object.get("metainfo").is_none());
    lasting.map(|object| format!("nftables {}", without_handles(object.clone()))).collect()
}

fn without_handles(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["handle", "packets", "bytes"].contains(&key.as_str()));
            fields.values_mut().for_each(|field| *field = without_handles(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_handles(item.take())),
        _ => {}
    }
    value
}

fn leases(node: &Node) -> Result<Vec<String>> {
    if !node.run(|| Path::new(LEASES).exists())? {
        return Ok(Vec::new());
    }
    let networks = json(node, &format!("{} list --json", binaries::weft("weft-ipam")?.display()))?;
    let networks = networks.get("networks").and_then(Value::as_array).into_iter().flatten();
    let all =
        networks.flat_map(|network| network.get("leases").and_then(Value::as_array).into_iter().flatten());
    Ok(all.map(|lease| format!("lease {lease}")).collect())
}

fn files(dir: impl AsRef<Path>, kind: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let below = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind_of) if kind_of.is_dir() => files(entry.path(), kind),
        _ => vec![format!("{kind} {}", entry.path().display())],
    };
    entries.flat_map(below).collect()
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
