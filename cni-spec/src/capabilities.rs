//! What a runtime says of its capabilities in `runtimeConfig`.

use serde_json::{Map, Value};

/// The capabilities whose values are objects, and the keys of these, as CNI's CONVENTIONS.md writes them.
const CONVENTIONS: [(&str, &[&str]); 4] = [
    ("portMappings", &["hostPort", "containerPort", "protocol", "hostIP"]),
    ("ipRanges", &["subnet", "rangeStart", "rangeEnd", "gateway"]),
    ("bandwidth", &["ingressRate", "ingressBurst", "egressRate", "egressBurst"]),
    ("dns", &["servers", "searches", "options"]),
];

/// Gives the keys of the conventions their own spelling. containerd writes `HostPort` and `IngressRate` (go-cni's types have
/// no JSON names), and Go, which the reference is written in, takes keys in whatever case.
pub(crate) fn spell(document: &mut Map<String, Value>) {
    let Some(Value::Object(given)) = document.get_mut("runtimeConfig") else { return };
    for (capability, keys) in CONVENTIONS {
        if let Some(value) = given.get_mut(capability) {
            spell_keys(value, keys);
        }
    }
}

fn spell_keys(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| spell_keys(item, keys)),
        Value::Object(fields) => keys.iter().for_each(|key| spell_key(fields, key)),
        _ => {}
    }
}

/// A key that is there in its own spelling stays; what another spelling says beside it is for the reader to refuse.
fn spell_key(fields: &mut Map<String, Value>, key: &str) {
    if fields.contains_key(key) {
        return;
    }
    let other = fields.keys().find(|other| other.eq_ignore_ascii_case(key)).cloned();
    if let Some(value) = other.and_then(|other| fields.remove(&other)) {
        fields.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spelled(given: Value) -> Value {
        let mut document = Map::from_iter([("runtimeConfig".to_owned(), given)]);
        spell(&mut document);
        document.remove("runtimeConfig").unwrap_or_default()
    }

    /// As containerd 1.6 sent it.
    #[test]
    fn keys_with_a_capital_are_those_of_the_conventions() {
        let mapping = json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""});
        assert_eq!(
            spelled(json!({"portMappings": [mapping]})),
            json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]})
        );
        assert_eq!(
            spelled(json!({"bandwidth": {"IngressRate": 8, "EgressBurst": 9}})),
            json!({"bandwidth": {"ingressRate": 8, "egressBurst": 9}})
        );
        assert_eq!(
            spelled(
                json!({"ipRanges": [[{"Subnet": "10.0.0.0/24", "Gateway": ""}]], "dns": {"Servers": ["10.0.0.1"]}})
            ),
            json!({"ipRanges": [[{"subnet": "10.0.0.0/24", "gateway": ""}]], "dns": {"servers": ["10.0.0.1"]}})
        );
    }

    #[test]
    fn what_no_convention_names_stays_as_it_is() {
        for given in [
            json!(7),
            json!({"portMappings": null, "bandwidth": [7], "Dns": {"Servers": []}}),
            json!({"io.kubernetes.cri.pod-annotations": {"HostPort": "1"}}),
            json!({"portMappings": [{"hostport_": 1, "hostPort": 2, "HostPort": 3}]}),
        ] {
            assert_eq!(spelled(given.clone()), given);
        }
    }
}
