//! Whether two contestants have asked the kernel for the same: else their times could not be compared.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weft_e2e::{Pod, Result, wait};

use crate::contestant::Contestant;
use crate::shape;

/// Everything that a pod's network consists of, without names: one line an object, with how many there are of it.
type Objects = BTreeMap<String, usize>;

/// Fails where a pod of the one consists of something that a pod of the other does not.
pub(crate) fn compare(one: &Contestant, other: &Contestant) -> Result<()> {
    let [before, other_before] = [standing(one, None)?, standing(other, None)?];
    let [guest, other_guest] = [one.guest(0)?, other.guest(0)?];
    let (_, result) = one.add(&guest)?;
    let (_, other_result) = other.add(&other_guest)?;
    // The kernel takes note of a carrier by itself, a little later.
    let outcome = wait::until("the same kernel objects on both nodes", Duration::from_secs(5), || {
        let look = || {
            let ours = added(standing(one, Some(&guest.pod))?, &before);
            let theirs = added(standing(other, Some(&other_guest.pod))?, &other_before);
            Ok(differences(&one.name, &ours, &theirs) + &differences(&other.name, &theirs, &ours))
        };
        let differ: Result<String> = look();
        match differ {
            Ok(differ) if differ.is_empty() => Ok(()),
            Ok(differ) => Err(differ),
            Err(error) => Err(error.to_string()),
        }
    });
    one.del(&guest, &result)?;
    other.del(&other_guest, &other_result)?;
    outcome
}

fn differences(name: &str, ours: &Objects, theirs: &Objects) -> String {
    added(ours.clone(), theirs).iter().map(|(object, many)| format!("\n{name}: {many} × {object}")).collect()
}

/// What is in `now` and was not in `before`.
fn added(mut now: Objects, before: &Objects) -> Objects {
    now.iter_mut()
        .for_each(|(object, many)| *many = many.saturating_sub(before.get(object).copied().unwrap_or(0)));
    now.retain(|_, many| *many > 0);
    now
}

/// What stands on the contestant's node and in `pod`.
fn standing(contestant: &Contestant, pod: Option<&Pod>) -> Result<Objects> {
    let mut objects = Objects::new();
    let mut look = |side: &str, sh: &dyn Fn(&str) -> Result<String>| -> Result<()> {
        for line in network(sh)? {
            *objects.entry(format!("{side} {line}")).or_default() += 1;
        }
        Ok(())
    };
    look("node", &|line| contestant.node().sh(line))?;
    pod.map_or(Ok(()), |pod| look("pod", &|line| pod.sh(line)))?;
    Ok(objects)
}

fn network(sh: &dyn Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    const LINK: [&str; 6] = ["linkinfo", "mtu", "operstate", "flags", "txqlen", "inet6_addr_gen_mode"];
    const ADDRESS: [&str; 6] = ["local", "prefixlen", "scope", "noprefixroute", "nodad", "dynamic"];
    const ROUTE: [&str; 8] = ["type", "dst", "gateway", "prefsrc", "scope", "protocol", "metric", "table"];
    let mut lines = Vec::new();
    for link in rows(sh, "ip -j -d link")? {
        lines.push(format!("link {} alias {}", fields(&link, &LINK), link.get("ifalias").is_some()));
    }
    for link in rows(sh, "ip -j address")? {
        let addresses = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
        lines.extend(addresses.map(|address| format!("address {}", fields(address, &ADDRESS))));
    }
    for family in ["-4", "-6"] {
        let routes = rows(sh, &format!("ip -j {family} route show table all"))?;
        lines.extend(routes.iter().map(|route| format!("route {}", fields(route, &ROUTE))));
        let neighbours = rows(sh, &format!("ip -j {family} neighbour show nud permanent"))?;
        lines.extend(neighbours.iter().map(|neighbour| format!("neighbour {}", fields(neighbour, &["dst"]))));
    }
    for qdisc in rows(sh, "tc -j qdisc")? {
        lines.push(format!("qdisc {}", fields(&qdisc, &["kind", "handle", "root", "options"])));
    }
    let ruleset = json(sh, "nft -j list ruleset")?;
    let objects = ruleset.get("nftables").and_then(Value::as_array).into_iter().flatten();
    for set in objects.filter_map(|object| object.get("set").or_else(|| object.get("map"))) {
        let elements = set.get("elem").and_then(Value::as_array).into_iter().flatten();
        lines.extend(
            elements.map(|element| format!("element {} {}", fields(set, &["name"]), anonymous(element))),
        );
    }
    Ok(lines)
}

/// Link-local addresses come from hardware addresses, which are everybody's own.
fn fields(row: &Value, keys: &[&str]) -> String {
    let field = |key: &&str| {
        let value = row.get(key).unwrap_or(&Value::Null);
        match value.as_str() {
            Some(text) if text.starts_with("fe80::") && !text.contains('/') => format!("{key} link-local"),
            _ => format!("{key} {value}"),
        }
    };
    keys.iter().map(field).collect::<Vec<_>>().join(" ")
}

/// An element of a set or a map, without whose it is.
fn anonymous(element: &Value) -> String {
    let mut element = element.clone();
    let mut forget = |pointer: &str| {
        if let Some(comment) = element.pointer_mut(pointer) {
            *comment = Value::Null;
        }
    };
    ["/elem/comment", "/0/elem/comment"].into_iter().for_each(&mut forget);
    element.to_string()
}

fn rows(sh: &dyn Fn(&str) -> Result<String>, command: &str) -> Result<Vec<Value>> {
    match json(sh, command)? {
        Value::Array(rows) => Ok(rows),
        other => Err(shape(command, &other.to_string())),
    }
}

fn json(sh: &dyn Fn(&str) -> Result<String>, command: &str) -> Result<Value> {
    let text = sh(command)?;
    // ip prints nothing at all for an empty IPv6 table.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).map_err(|_not_json| shape(command, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_one_has_and_the_other_has_not_is_told_with_its_number() {
        let objects = |lines: &[(&str, usize)]| {
            lines.iter().map(|(object, many)| ((*object).to_owned(), *many)).collect::<Objects>()
        };
        let (ours, theirs) = (objects(&[("a", 2), ("b", 1)]), objects(&[("a", 1), ("b", 1), ("c", 1)]));
        assert_eq!(differences("we", &ours, &theirs), "\nwe: 1 × a");
        assert_eq!(differences("they", &theirs, &ours), "\nthey: 1 × c");
        assert_eq!(differences("we", &ours, &ours), "");
    }
}
