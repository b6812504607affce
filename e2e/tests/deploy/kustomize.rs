//! What `kubectl kustomize` makes of our folders. Only what they use: `resources`, `components`, `images`, JSON patches (RFC 6902)
//! of one target by kind and name, and ConfigMaps from files. Anything else is refused, so nothing is believed that kustomize would do
//! otherwise.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::objects::{key, parse, read};

/// The objects that a folder gives, in no particular order.
pub(crate) fn build(folder: &Path) -> Vec<Value> {
    let kustomization = kustomization(folder);
    let parts = resources(folder).into_iter();
    let mut objects: Vec<_> =
        parts.flat_map(|part| if part.is_dir() { build(&part) } else { read(&part) }).collect();
    generate_all(&mut objects, &kustomization, folder);
    for component in list(&kustomization, "components") {
        change(&mut objects, &folder.join(component.as_str().unwrap()));
    }
    transform(&mut objects, &kustomization, folder);
    objects
}

/// What a component makes of them.
pub(crate) fn change(objects: &mut [Value], component: &Path) {
    let kustomization = kustomization(component);
    assert_eq!(kustomization["kind"], "Component");
    transform(objects, &kustomization, component);
}

fn transform(objects: &mut [Value], kustomization: &Value, folder: &Path) {
    list(kustomization, "images")
        .iter()
        .for_each(|image| objects.iter_mut().for_each(|object| rename(object, image)));
    list(kustomization, "patches").iter().for_each(|patch| apply(objects, patch, folder));
}

/// The files and folders that a folder is made of, in its order.
pub(crate) fn resources(folder: &Path) -> Vec<PathBuf> {
    let kustomization = kustomization(folder);
    list(&kustomization, "resources").iter().map(|name| folder.join(name.as_str().unwrap())).collect()
}

fn kustomization(folder: &Path) -> Value {
    let kustomization = read(&folder.join("kustomization.yaml")).remove(0);
    const RENDERED: [&str; 8] = [
        "apiVersion",
        "kind",
        "resources",
        "components",
        "images",
        "patches",
        "configMapGenerator",
        "generatorOptions",
    ];
    for name in kustomization.as_object().unwrap().keys() {
        assert!(RENDERED.contains(&name.as_str()), "`{name}` is not rendered here");
    }
    kustomization
}

fn list<'k>(kustomization: &'k Value, name: &str) -> &'k [Value] {
    kustomization.get(name).map_or(&[], |list| list.as_array().unwrap())
}

fn generate_all(objects: &mut Vec<Value>, kustomization: &Value, folder: &Path) {
    let options = &kustomization["generatorOptions"];
    for generator in list(kustomization, "configMapGenerator") {
        let mut map = generate(folder, generator, &options["labels"]);
        if options["disableNameSuffixHash"] != true {
            let name = map["metadata"]["name"].as_str().unwrap().to_owned();
            let hashed = format!("{name}-{}", hash(&map["data"]));
            objects.iter_mut().for_each(|object| refer(object, &name, &hashed));
            map["metadata"]["name"] = hashed.into();
        }
        objects.push(map);
    }
}

fn generate(folder: &Path, generator: &Value, labels: &Value) -> Value {
    for name in generator.as_object().unwrap().keys() {
        assert!(["name", "namespace", "files"].contains(&name.as_str()), "`{name}` is not rendered here");
    }
    let content = |file: &Value| {
        let path = folder.join(file.as_str().unwrap());
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap().into())
    };
    let data: Map<String, Value> = generator["files"].as_array().unwrap().iter().map(content).collect();
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": generator["name"], "namespace": generator["namespace"] },
        "data": data,
    });
    if labels.is_object() {
        map["metadata"]["labels"] = labels.clone();
    }
    map
}

/// Of the content alone, without the letters that could make a word.
fn hash(data: &Value) -> String {
    let hashed = json!({ "data": data, "kind": "ConfigMap", "name": "" }).to_string();
    assert!(!hashed.contains(['<', '>', '&']), "Go writes these in another way");
    let sum: String = Sha256::digest(hashed).iter().map(|byte| format!("{byte:02x}")).collect();
    let letter = |digit| match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    sum.chars().take(10).map(letter).collect()
}

/// Gives volumes from a ConfigMap its new name.
fn refer(object: &mut Value, name: &str, hashed: &str) {
    let volumes = object.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter(|volume| volume["configMap"]["name"] == name) {
        volume["configMap"]["name"] = hashed.into();
    }
}

/// Gives containers whose image has this name another name, or tag.
fn rename(object: &mut Value, image: &Value) {
    let pod = object.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut);
    let lists = pod
        .into_iter()
        .flat_map(|pod| pod.iter_mut())
        .filter(|(name, _)| name.to_lowercase().ends_with("containers"));
    for container in lists.flat_map(|(_, containers)| containers.as_array_mut().unwrap()) {
        let (name, tag) = container["image"].as_str().unwrap().rsplit_once(':').unwrap();
        if image["name"] == name {
            let name = image.get("newName").map_or(name, |name| name.as_str().unwrap());
            let tag = image.get("newTag").map_or(tag, |tag| tag.as_str().unwrap());
            container["image"] = format!("{name}:{tag}").into();
        }
    }
}

fn apply(objects: &mut [Value], patch: &Value, folder: &Path) {
    let target = &patch["target"];
    let target = [&target["kind"], &target["name"]].map(|part| part.as_str().unwrap().to_owned()).into();
    let object =
        objects.iter_mut().find(|object| key(object) == target).unwrap_or_else(|| panic!("no {target:?}"));
    let operations = match patch["path"].as_str() {
        Some(file) => read(&folder.join(file)).remove(0),
        None => parse(patch["patch"].as_str().unwrap()).remove(0),
    };
    operations.as_array().unwrap().iter().for_each(|operation| operate(object, operation));
}

fn operate(object: &mut Value, operation: &Value) {
    let (parent, last) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("nowhere: {operation}"));
    let value = operation["value"].clone();
    match (operation["op"].as_str().unwrap(), parent) {
        ("add", Value::Array(items)) if last == "-" => items.push(value),
        ("add", Value::Object(fields)) => drop(fields.insert(last.to_owned(), value)),
        ("remove", Value::Object(fields)) => {
            fields.remove(last).unwrap_or_else(|| panic!("nothing there: {operation}"));
        }
        ("test", Value::Object(fields)) => assert_eq!(fields.get(last), Some(&value), "{operation}"),
        ("replace", parent) => {
            *parent.get_mut(last).unwrap_or_else(|| panic!("nothing there: {operation}")) = value
        }
        _ => panic!("not rendered here: {operation}"),
    }
}
