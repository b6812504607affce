//! What the golden files of the sidecar hold is accepted by the real Envoy (`--mode validate`) without a warning about
//! anything deprecated.
//!
//! Envoy validates what stands in its bootstrap, so that everything it would ask us for is put there: route configurations
//! into their listeners, endpoints into their clusters, secrets beside them.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use weft_e2e::{binaries, output};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace")
}

/// `(name, configuration, golden file)`: `NAME.json` comes from `NAME.yaml`, `example-NAME.json` from `docs/examples/NAME`.
fn goldens() -> Vec<(String, PathBuf, PathBuf)> {
    let dir = repository().join("sidecar/tests/golden");
    let mut found: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some("json".as_ref()))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let config = match name.strip_prefix("example-") {
                Some(example) => repository().join("docs/examples").join(example),
                None => path.with_extension("yaml"),
            };
            (name, config, path)
        })
        .collect();
    found.sort();
    found
}

fn bootstrap(config: &Path) -> Value {
    let mut command = Command::new(binaries::weft("weft-sidecar").unwrap());
    command.args(["bootstrap", "--config"]).arg(config);
    serde_json::from_str(&output(&mut command).unwrap()).unwrap()
}

/// The bootstrap with all of `golden` in it.
fn self_contained(mut bootstrap: Value, golden: &Value) -> Value {
    let mut listeners = golden["listeners"].clone();
    settle(&mut listeners, golden);
    let mut clusters = bootstrap["static_resources"]["clusters"].as_array().cloned().unwrap_or_default();
    clusters.extend(golden["clusters"].as_array().unwrap().iter().map(|cluster| settled(cluster, golden)));
    bootstrap["static_resources"] = json!({
        "listeners": listeners,
        "clusters": clusters,
        "secrets": golden.get("secrets").cloned().unwrap_or_else(|| json!([])),
    });
    bootstrap
}

/// A cluster with its endpoints in it.
fn settled(cluster: &Value, golden: &Value) -> Value {
    let mut cluster = cluster.clone();
    settle(&mut cluster, golden);
    if cluster["type"] == "EDS" {
        let fields = cluster.as_object_mut().unwrap();
        fields.remove("edsClusterConfig");
        fields.insert("type".into(), json!("STATIC"));
        let assignment = named(&golden["endpoints"], "clusterName", &fields["name"]);
        fields.insert("loadAssignment".into(), assignment);
    }
    cluster
}

/// Puts in what is otherwise asked for: route configurations by `rds`, secrets by a name of their own.
fn settle(value: &mut Value, golden: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, golden)),
        Value::Object(fields) => {
            settle_routes(fields, golden);
            if fields.contains_key("sdsConfig") {
                fields.remove("sdsConfig");
            }
            fields.values_mut().for_each(|field| settle(field, golden));
        }
        _ => {}
    }
}

fn settle_routes(fields: &mut Map<String, Value>, golden: &Value) {
    if let Some(rds) = fields.remove("rds") {
        let routes = named(&golden["routes"], "name", &rds["routeConfigName"]);
        fields.insert("routeConfig".into(), without_cluster_check(routes));
    }
}

/// A static route configuration may name only clusters that exist; one that is asked for may name any.
fn without_cluster_check(mut routes: Value) -> Value {
    routes["validateClusters"] = json!(false);
    routes
}

fn named(all: &Value, field: &str, name: &Value) -> Value {
    let mut all = all.as_array().unwrap().iter();
    all.find(|one| one[field] == *name).unwrap_or_else(|| panic!("nothing is called {name}")).clone()
}

/// What Envoy has against it.
fn complaints(bootstrap: &Value, file: &Path) -> Option<String> {
    fs::write(file, bootstrap.to_string()).unwrap();
    let mut envoy = Command::new(binaries::envoy().unwrap());
    envoy.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(file);
    let done = envoy.output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    let deprecated = said.to_ascii_lowercase().contains("deprecat");
    (!done.status.success() || deprecated).then_some(said)
}

#[test]
fn the_real_envoy_accepts_every_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for (name, config, golden) in goldens() {
        let golden: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
        let file = dir.path().join(format!("{name}.json"));
        let said = complaints(&self_contained(bootstrap(&config), &golden), &file);
        refused.extend(said.map(|said| format!("{name}: {said}")));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Without this a test that validates nothing would pass, too.
#[test]
fn the_real_envoy_refuses_a_golden_file_that_is_spoilt() {
    let dir = tempfile::tempdir().unwrap();
    let (_, config, golden) = goldens().into_iter().find(|(name, ..)| name == "example-mesh").unwrap();
    let mut golden: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    golden["routes"][0]["virtualHosts"][0]["domains"] = json!(["*", "*"]);
    let bootstrap = self_contained(bootstrap(&config), &golden);
    let said = complaints(&bootstrap, &dir.path().join("spoilt.json")).expect("a complaint");
    assert!(said.contains("single wildcard domain"), "{said}");
}
