//! What a runtime asks for at ADD and tells nobody again: the lease remembers it, so that the plan can be decided anew
//! without the runtime.

use serde_json::{Map, Value};
use weft_ipam::lease::Notes;

use crate::config::{Bandwidth, Config};
use crate::ports;

/// Under which names a lease has it; host ports have one of their own, for DEL needs them.
const CAPABILITIES: &str = "runtimeConfig";
const ARGS: &str = "args";
const PORTS: &str = "portMappings";

/// What `config` was made of and the file does not say.
pub(crate) fn note(document: &Map<String, Value>, config: &Config) -> Notes {
    let mut notes = ports::note(&config.ports);
    let mut asked = Map::new();
    if let Some(bandwidth) = given(document, CAPABILITIES, "bandwidth")
        && config.bandwidth != Bandwidth::default()
        && !Bandwidth::is_outruled(document)
    {
        asked.insert("bandwidth".to_owned(), bandwidth.clone());
    }
    // Also where it comes from `CNI_ARGS` or `args.cni`.
    if let Some(mac) = config.mac.map(|mac| mac.to_string())
        && document.get("mac").and_then(Value::as_str) != Some(&mac)
    {
        asked.insert("mac".to_owned(), mac.into());
    }
    if !asked.is_empty() {
        notes.insert(CAPABILITIES.to_owned(), asked.into());
    }
    if let Some(convention) = given(document, ARGS, "cni") {
        notes.insert(ARGS.to_owned(), Map::from_iter([("cni".to_owned(), convention.clone())]).into());
    }
    notes
}

/// Puts it into the configuration, as the runtime did.
pub(crate) fn recall(notes: &Notes, document: &mut Map<String, Value>) {
    let mut capabilities = notes.get(CAPABILITIES).and_then(Value::as_object).cloned().unwrap_or_default();
    capabilities.extend(notes.get(PORTS).map(|ports| (PORTS.to_owned(), ports.clone())));
    document.insert(CAPABILITIES.to_owned(), capabilities.into());
    document.extend(notes.get(ARGS).map(|args| (ARGS.to_owned(), args.clone())));
}

/// The rates that the runtime asked for; none where the configuration has outruled it.
pub(crate) fn bandwidth(notes: &Notes) -> Bandwidth {
    let mut document = Map::new();
    recall(notes, &mut document);
    // What was good enough for ADD has no mistakes.
    Bandwidth::of(&document)
}

fn given<'a>(document: &'a Map<String, Value>, place: &str, key: &str) -> Option<&'a Value> {
    document.get(place)?.get(key).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_cni_spec::{Args, Conf};

    use super::*;

    fn config(extra: &Value, args: &str) -> (Conf, Config) {
        let mut document = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "weft-cni",
            "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
        });
        document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let conf = Conf::parse(document.to_string().as_bytes()).unwrap();
        let config = Config::read(&conf, &Args::parse(args).unwrap()).unwrap();
        (conf, config)
    }

    #[test]
    fn the_configuration_of_an_add_comes_out_again() {
        let bandwidth = json!({"ingressRate": 8000, "ingressBurst": 8000});
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        for (extra, args) in [
            (json!({}), ""),
            (json!({"runtimeConfig": {"bandwidth": bandwidth, "portMappings": ports}}), ""),
            (json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}), ""),
            (json!({"mac": "02:00:00:00:00:03"}), "MAC=02:00:00:00:00:02"),
            (json!({"args": {"cni": {"txQLen": 7, "sysctl": {"net.core.somaxconn": "5"}}}}), ""),
        ] {
            let (conf, asked) = config(&extra, args);
            let notes = note(&conf.document, &asked);
            let file = config(&json!({"mac": extra.get("mac")}), "").0.document;
            let mut document = Value::Object(file);
            recall(&notes, document.as_object_mut().unwrap());
            let (_, again) = config(&document, "");
            assert_eq!(
                (again.bandwidth, again.mac, again.ports, again.tuning),
                (asked.bandwidth, asked.mac, asked.ports, asked.tuning),
                "{extra} {args}"
            );
        }
    }

    #[test]
    fn what_the_file_says_is_not_noted() {
        let egress = json!({"bandwidth": {"egressRate": 8000, "egressBurst": 8000}});
        let (conf, asked) = config(
            &json!({
                "ingressRate": 8000, "ingressBurst": 8000, "mac": "02:00:00:00:00:01", "runtimeConfig": egress
            }),
            "",
        );
        assert_eq!(note(&conf.document, &asked), Notes::new());
        assert_eq!(bandwidth(&Notes::new()), Bandwidth::default());
    }
}
