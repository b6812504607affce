//! The schema for editors and the decoders say the same: on every document of the golden files and examples, and on each of
//! them with one thing changed.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use weft_sidecar::diagnostic::{Source, Span};
use weft_sidecar::model::Document;
use weft_sidecar::read::decode::Report;
use weft_sidecar::read::{Entry, Node, Value as Read, yaml};
use weft_sidecar::schema;

fn files() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![here.join("tests/golden"), here.join("../docs/examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some("yaml".as_ref()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every document of those files that is one of ours.
fn documents() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("read");
        let source = Arc::new(Source { name: path.display().to_string(), text });
        for node in yaml::documents(&source).expect("valid YAML") {
            let value = Value::from(&node);
            if value["kind"].as_str().is_some_and(|kind| schema::names().contains(&kind)) {
                all.push((format!("{}:{}", path.display(), node.span.line), value));
            }
        }
    }
    assert!(all.len() > 5);
    all
}

fn to_node(value: &Value) -> Node {
    let value = match value {
        Value::Null => Read::Null,
        Value::Bool(value) => Read::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Read::Float(number.as_f64().expect("a number")), Read::Integer)
        }
        Value::String(text) => Read::Text(text.clone()),
        Value::Array(items) => Read::List(items.iter().map(to_node).collect()),
        Value::Object(fields) => Read::Map(
            fields
                .iter()
                .map(|(key, value)| Entry {
                    key: key.clone(),
                    key_span: Span::default(),
                    value: to_node(value),
                })
                .collect(),
        ),
    };
    Node { span: Span::default(), value }
}

/// What the decoders have against a document.
fn mistakes(document: &Value) -> Vec<String> {
    let source = Arc::new(Source { name: String::new(), text: String::new() });
    let mut report = Report::new(&source);
    let decoded = Document::decode(&to_node(document), &mut report);
    let mistakes: Vec<String> = report
        .into_diagnostics()
        .iter()
        .filter(|one| one.is_error())
        .map(|one| one.message.clone())
        .collect();
    assert!(decoded.is_some() || !mistakes.is_empty(), "{document} is refused without a reason");
    mistakes
}

/// What the schema has against a value; as much of JSON Schema as `schema` makes use of.
fn complaint(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    if *schema == Value::Bool(true) {
        return None;
    }
    for keyword in schema.as_object().expect("a schema").keys() {
        let known = [
            "$schema",
            "$defs",
            "$ref",
            "title",
            "description",
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "enum",
            "const",
            "minimum",
            "maximum",
            "pattern",
            "allOf",
            "if",
            "then",
        ];
        assert!(known.contains(&keyword.as_str()), "{keyword} is not known here");
    }
    if let Some(name) = schema["$ref"].as_str() {
        return complaint(
            root,
            root.pointer(name.strip_prefix('#').expect("local")).expect("defined"),
            value,
        );
    }
    if let Some(of_type) = schema.get("type") {
        let wanted: Vec<&str> = match of_type {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !wanted.contains(&is) {
            return Some(format!("{value} is no {of_type}"));
        }
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|constant| constant != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    if let (Some(low), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && !(low..=schema["maximum"].as_i64().expect("both")).contains(&number)
    {
        return Some(format!("{value} is out of bounds"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex::Regex::new(pattern).expect("a pattern").is_match(text)
    {
        return Some(format!("{value} is not like {pattern}"));
    }
    if let Some(items) = schema.get("items") {
        let wrong = value.as_array().into_iter().flatten().find_map(|item| complaint(root, items, item));
        if wrong.is_some() {
            return wrong;
        }
    }
    if let Some(fields) = value.as_object() {
        let missing = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|name| !fields.contains_key(name.as_str().expect("a name")));
        if let Some(missing) = missing {
            return Some(format!("{missing} is missing"));
        }
        for (name, value) in fields {
            let of_field = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            match of_field {
                Some(Value::Bool(false)) => return Some(format!("{name} is unknown")),
                Some(schema) => {
                    if let Some(wrong) = complaint(root, schema, value) {
                        return Some(format!("{name}: {wrong}"));
                    }
                }
                None => {}
            }
        }
    }
    let choices = schema["allOf"].as_array().into_iter().flatten();
    let taken = choices.filter(|choice| complaint(root, &choice["if"], value).is_none());
    taken.into_iter().find_map(|choice| complaint(root, &choice["then"], value))
}

/// Each document that differs from `value` in one place.
fn neighbours(value: &Value) -> Vec<Value> {
    let replacements = [json!(null), json!(true), json!(-7), json!("x"), json!([]), json!({}), json!([{}])];
    let mut all: Vec<Value> = replacements.into_iter().filter(|other| other != value).collect();
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                all.extend(neighbours(item).into_iter().map(|other| {
                    let mut items = items.clone();
                    items[at] = other;
                    Value::Array(items)
                }));
            }
        }
        Value::Object(fields) => {
            let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
                let mut fields = fields.clone();
                change(&mut fields);
                Value::Object(fields)
            };
            all.push(changed(&|fields| {
                fields.insert("zzz".into(), json!("z"));
            }));
            for (name, field) in fields {
                all.push(changed(&|fields| {
                    fields.remove(name);
                }));
                all.extend(neighbours(field).into_iter().map(|other| {
                    changed(&|fields| {
                        fields.insert(name.clone(), other.clone());
                    })
                }));
            }
        }
        _ => {}
    }
    all
}

#[test]
fn the_schema_takes_every_document_that_the_decoders_take() {
    let schema = schema::schema(None).expect("of any kind");
    for (place, document) in documents() {
        if mistakes(&document).is_empty() {
            assert_eq!(complaint(&schema, &schema, &document), None, "{place}");
        }
        for other in neighbours(&document).iter().filter(|other| mistakes(other).is_empty()) {
            assert_eq!(complaint(&schema, &schema, other), None, "{place}: {other}");
        }
    }
}

/// An unknown or missing field, and a value of the wrong type where the decoder says which it wants.
#[test]
fn the_schema_refuses_what_the_decoders_refuse_for_its_form() {
    let schema = schema::schema(None).expect("of any kind");
    let (mut refused, mut missed) = (0, Vec::new());
    // What is inside of a patch is Envoy's, whose descriptors are no part of the schema.
    for (place, document) in documents().into_iter().filter(|(_, document)| document["kind"] != "EnvoyPatch")
    {
        for other in neighbours(&document) {
            let mistakes = mistakes(&other);
            let is_formal = |mistake: &String| {
                mistake.starts_with("unknown field")
                    || mistake.contains(" must be a mapping, this is ")
                    || mistake.contains(" must be a list, this is ")
                    || mistake.contains("text is expected, this is")
            };
            if let Some(mistake) = mistakes.iter().find(|mistake| is_formal(mistake)) {
                refused += 1;
                if complaint(&schema, &schema, &other).is_none() {
                    missed.push(format!("{place}: {mistake}"));
                }
            }
        }
    }
    missed.dedup();
    assert!(refused > 100, "{refused}");
    assert!(
        missed.is_empty(),
        "{} of {refused}:\n{}",
        missed.len(),
        missed[..missed.len().min(20)].join("\n")
    );
}

#[test]
fn each_kind_has_a_schema_of_its_own() {
    for kind in schema::names() {
        let own = schema::schema(Some(kind)).expect("known");
        assert_eq!((&own["properties"]["kind"]["const"], &own["title"]), (&kind.into(), &kind.into()));
        assert_eq!(own["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
    assert_eq!(schema::schema(Some("Nothing")), None);
}
