//! Objects of Kubernetes as values: read from files, found and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder of manifests.
pub(crate) fn deploy() -> PathBuf {
    crate::repository().join("deploy")
}

/// The documents of a file, in order.
pub(crate) fn read(file: &Path) -> Vec<Value> {
    parse(&fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// The documents of a text, in order. What YAML leaves open (a key twice, an unknown escape) is a mistake.
pub(crate) fn parse(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// By kind and name.
pub(crate) fn keyed(objects: Vec<Value>) -> BTreeMap<(String, String), Value> {
    objects.into_iter().map(|object| (key(&object), with_lists_read(object))).collect()
}

/// Kind and name.
pub(crate) fn key(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no object: {object}")).to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// A configuration list is the same however it is laid out.
fn with_lists_read(mut object: Value) -> Value {
    for (name, text) in object.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
        if name.ends_with(".conflist") {
            *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
        }
    }
    object
}

/// The one object of this kind.
pub(crate) fn of_kind<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}

/// The agent's DaemonSet.
pub(crate) fn agent(objects: &[Value]) -> &Value {
    of_kind(objects, "DaemonSet")
}

/// The texts among values, each once.
pub(crate) fn sorted<'v>(values: impl IntoIterator<Item = &'v Value>) -> Vec<&'v str> {
    let texts: BTreeSet<_> = values.into_iter().map(|value| value.as_str().unwrap()).collect();
    texts.into_iter().collect()
}

/// Without what replaces the agents when their configuration is another: a hash in a name here, an annotation there.
pub(crate) fn without_hash(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        if object["kind"] == "ConfigMap" {
            object["metadata"]["name"] = "weft-node".into();
        }
        let volumes = object.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut);
        for volume in volumes.into_iter().flatten().filter(|volume| volume["configMap"].is_object()) {
            volume["configMap"]["name"] = "weft-node".into();
        }
        if let Some(about) = object.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
            let annotations = about.get_mut("annotations").and_then(Value::as_object_mut);
            if annotations.is_some_and(|all| all.remove("weft.dev/config").is_some() && all.is_empty()) {
                about.remove("annotations");
            }
        }
    }
    objects
}
