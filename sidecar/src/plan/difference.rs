//! Where two values differ, by the names of things rather than by their place in a list.

use serde_json::{Map, Value};

/// A field in which two values differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The way to it: `virtual_hosts[shop/web/80].routes[shop/web/0/0].route.timeout`.
    pub path: String,
    /// What it was; `None` if it was not there.
    pub before: Option<Value>,
    /// What it would be; `None` if it would not be there.
    pub after: Option<Value>,
}

/// Every field in which `after` differs from `before`.
pub(super) fn between(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let mut keys: Vec<&String> =
                before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                compare(format!("{path}{dot}{key}"), before.get(key), after.get(key), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => items(&path, before, after, found),
        (before, after) => {
            found.push(Difference { path, before: before.cloned(), after: after.cloned() });
        }
    }
}

/// By their names where all have one, and differ; else by their places.
fn items(path: &str, before: &[Value], after: &[Value], found: &mut Vec<Difference>) {
    let (Some(named_before), Some(named_after)) = (by_name(before), by_name(after)) else {
        for at in 0..before.len().max(after.len()) {
            compare(format!("{path}[{at}]"), before.get(at), after.get(at), found);
        }
        return;
    };
    let names: Vec<&String> = named_before.iter().map(|(name, _)| name).collect();
    let get = |all: &[(String, Value)], name: &String| -> Option<Value> {
        all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let new = named_after.iter().map(|(name, _)| name).filter(|name| !names.contains(name));
    for name in names.iter().copied().chain(new) {
        let (old, now) = (get(&named_before, name), get(&named_after, name));
        compare(format!("{path}[{name}]"), old.as_ref(), now.as_ref(), found);
    }
    let kept = |all: &[(String, Value)], other: &[(String, Value)]| -> Vec<String> {
        all.iter()
            .map(|(name, _)| name.clone())
            .filter(|name| other.iter().any(|(known, _)| known == name))
            .collect()
    };
    let (order, order_now) = (kept(&named_before, &named_after), kept(&named_after, &named_before));
    if order != order_now {
        // The first route that matches counts.
        found.push(Difference {
            path: format!("{path} (order)"),
            before: Some(order.into()),
            after: Some(order_now.into()),
        });
    }
}

fn by_name(items: &[Value]) -> Option<Vec<(String, Value)>> {
    let named: Option<Vec<(String, Value)>> =
        items.iter().map(|item| Some((name(item.as_object()?)?, item.clone()))).collect();
    let named = named?;
    let mut names: Vec<&String> = named.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    (names.len() == items.len()).then_some(named)
}

/// What tells an item from its neighbours.
fn name(fields: &Map<String, Value>) -> Option<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let of_header = || text(fields.get("header")?.get("key"));
    text(fields.get("name")).or_else(of_header).or_else(|| {
        let address = fields.get("endpoint")?.pointer("/address/socket_address")?;
        Some(format!("{}:{}", address.get("address")?.as_str()?, address.get("port_value")?))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(before: Value, after: Value) -> Vec<String> {
        let text = |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let line = |one: Difference| format!("{}: {} {}", one.path, text(one.before), text(one.after));
        between(&before, &after).into_iter().map(line).collect()
    }

    #[test]
    fn named_things_are_compared_by_name() {
        let host = |name: &str, timeout: &str| json!({ "name": name, "timeout": timeout });
        assert_eq!(
            shown(
                json!({ "hosts": [host("a", "1s"), host("b", "1s")] }),
                json!({ "hosts": [host("new", "1s"), host("b", "2s"), host("a", "1s")] })
            ),
            [
                "hosts[b].timeout: \"1s\" \"2s\"",
                "hosts[new]: - {\"name\":\"new\",\"timeout\":\"1s\"}",
                "hosts (order): [\"a\",\"b\"] [\"b\",\"a\"]"
            ]
        );
    }

    #[test]
    fn other_lists_are_compared_by_place() {
        assert_eq!(shown(json!([1, 2, 3]), json!([1, 4])), ["[1]: 2 4", "[2]: 3 -"]);
        assert_eq!(shown(json!({ "a": 1 }), json!({ "a": 1 })), [""; 0]);
    }
}
