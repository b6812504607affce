//! The translation, as JSON, against golden files. `WEFT_BLESS=1` rewrites them; review the difference.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use weft_sidecar::configuration::Configuration;
use weft_sidecar::encoding::Encoder;
use weft_sidecar::model::Mesh;
use weft_sidecar::read::files::Roots;
use weft_sidecar::translate::{Resources, json, translate};
use weft_xds::Revision;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn mesh(config: &Path) -> Mesh {
    let mut configuration = Configuration::new(Roots::new([config.to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let mistakes = configuration.mistakes();
    let mistakes: Vec<String> =
        mistakes.iter().filter(|mistake| mistake.is_fatal()).map(ToString::to_string).collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n\n"));
    configuration.resolve().mesh.expect("no mistakes")
}

fn resources(config: &Path) -> Resources {
    translate(&mesh(config))
}

/// The configurations that have a golden file, by its name: `tests/golden/NAME.yaml`, and as `example-NAME` every
/// directory of `docs/examples` that has a `sidecar.yaml`.
fn configurations() -> BTreeMap<String, PathBuf> {
    let entries = |dir: &str| -> Vec<PathBuf> {
        fs::read_dir(here(dir)).expect("list").map(|entry| entry.expect("an entry").path()).collect()
    };
    let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let goldens =
        entries("tests/golden").into_iter().filter(|path| path.extension() == Some("yaml".as_ref()));
    let examples = entries("../docs/examples").into_iter().filter(|path| path.join("sidecar.yaml").exists());
    let examples = examples.map(|path| (format!("example-{}", stem(&path)), path));
    goldens.map(|path| (stem(&path), path)).chain(examples).collect()
}

fn golden(name: &str) -> PathBuf {
    here("tests/golden").join(format!("{name}.json"))
}

#[test]
fn every_configuration_is_translated_as_it_was() {
    let mut different = Vec::new();
    for (name, config) in configurations() {
        let translated = format!("{:#}\n", json::resources(&resources(&config)).expect("JSON"));
        if std::env::var_os("WEFT_BLESS").is_some() {
            fs::write(golden(&name), &translated).expect("write");
        }
        let expected = fs::read_to_string(golden(&name)).unwrap_or_default();
        if translated != expected {
            different.push(format!("{name}: {}", first_difference(&expected, &translated)));
        }
    }
    assert!(different.is_empty(), "{}\n(WEFT_BLESS=1 accepts the change)", different.join("\n"));
}

fn first_difference(expected: &str, translated: &str) -> String {
    let at = expected.lines().zip(translated.lines()).take_while(|(was, is)| was == is).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(its end)").trim().to_owned();
    format!("line {} was {} and is {}", at + 1, line(expected), line(translated))
}

#[test]
fn every_golden_file_has_its_configuration() {
    let known = configurations();
    for entry in fs::read_dir(here("tests/golden")).expect("list") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(known.contains_key(&name), "{} comes from nothing", path.display());
    }
}

#[test]
fn the_order_of_files_does_not_matter() {
    let dir = tempfile::tempdir().expect("directory");
    for (from, to) in [("routes.yaml", "a.yaml"), ("sidecar.yaml", "z.yaml"), ("web.yaml", "m.yaml")] {
        fs::copy(here("../docs/examples/mesh").join(from), dir.path().join(to)).expect("copy");
    }
    let shown = |config: &Path| json::resources(&resources(config)).expect("JSON");
    assert_eq!(shown(dir.path()), shown(&here("../docs/examples/mesh")));
}

/// `deprecated` options come from Envoy's own `.proto` files.
#[test]
fn nothing_deprecated_is_emitted() {
    let mut found = Vec::new();
    for (name, config) in configurations() {
        let all = resources(&config);
        let mut check = |message: Result<DynamicMessage, json::Error>| {
            deprecated_fields(&message.unwrap_or_else(|error| panic!("{name}: {error}")), &mut found);
        };
        all.clusters.iter().for_each(|resource| check(json::dynamic(&resource.message)));
        all.endpoints.iter().for_each(|resource| check(json::dynamic(&resource.message)));
        all.listeners.iter().for_each(|resource| check(json::dynamic(&resource.message)));
        all.routes.iter().for_each(|resource| check(json::dynamic(&resource.message)));
        all.secrets.iter().for_each(|resource| check(json::dynamic(&resource.message)));
    }
    assert_eq!(found, Vec::<String>::new());
}

fn deprecated_fields(message: &DynamicMessage, found: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let options = field.field_descriptor_proto().options.as_ref();
        if options.is_some_and(|options| options.deprecated()) {
            found.push(field.full_name().to_owned());
        }
        walk(value, found);
    }
    if message.descriptor().full_name() == "google.protobuf.Any" {
        deprecated_fields(&unpacked(message), found);
    }
}

fn unpacked(any: &DynamicMessage) -> DynamicMessage {
    let field = |name: &str| any.get_field_by_name(name).expect("Any has it").into_owned();
    let (Value::String(url), Value::Bytes(bytes)) = (field("type_url"), field("value")) else {
        panic!("not an Any: {any:?}")
    };
    let name = url.rsplit('/').next().expect("a type");
    let pool = any.descriptor().parent_pool().clone();
    let descriptor = pool.get_message_by_name(name).unwrap_or_else(|| panic!("no descriptor of {name}"));
    DynamicMessage::decode(descriptor, bytes).expect("a message of that type")
}

fn walk(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Message(message) => deprecated_fields(message, found),
        Value::List(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Map(entries) => entries.values().for_each(|item| walk(item, found)),
        _ => {}
    }
}

#[test]
fn a_gateway_with_connections_for_nobody_can_be_published() {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("file");
    let text = fs::read_to_string(here("tests/golden/gateway_tls.yaml")).expect("read");
    let without_backends =
        text.replace("kind: Service\nmetadata: { name: web }", "kind: Namespace\nmetadata: { name: web }");
    assert_ne!(without_backends, text);
    let without_backends = without_backends.replace("\nspec: { ports: [{ port: 80 }] }", "");
    fs::write(file.path(), without_backends).expect("write");
    Encoder::default().encode(&Arc::new(mesh(file.path())), Revision(1)).expect("a snapshot");
}
