//! What the golden files of the sidecar hold is accepted by the real Envoy (`--mode validate`) without a warning about
//! anything deprecated.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weft_e2e::tls::with_proofs;
use weft_e2e::{binaries, output, self_contained};

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
        let said = complaints(&self_contained(bootstrap(&config), &with_proofs(&golden).unwrap()), &file);
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

/// Manifests as the guides of the Gateway API write them, each with a Sidecar and what they name beside them.
/// `WEFT_MANIFESTS` is another directory of such directories: the API's own examples are tried so.
#[test]
fn the_real_envoy_accepts_what_is_written_for_the_gateway_api() {
    let own = || repository().join("sidecar/tests/gateway-api");
    let manifests = std::env::var_os("WEFT_MANIFESTS").map_or_else(own, PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for entry in fs::read_dir(manifests).unwrap() {
        let config = entry.unwrap().path();
        let mut translate = Command::new(binaries::weft("weft-sidecar").unwrap());
        translate.args(["translate", "--output", "json", "--config"]).arg(&config);
        let resources: Value = serde_json::from_str(&output(&mut translate).unwrap()).unwrap();
        let whole = self_contained(bootstrap(&config), &with_proofs(&resources).unwrap());
        let said = complaints(&whole, &dir.path().join("envoy.json"));
        refused.extend(said.map(|said| format!("{}: {said}", config.display())));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
