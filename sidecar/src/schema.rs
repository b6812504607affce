//! JSON Schema (2020-12) of every kind, for editors: made from what the decoders take ([`Shape`]), so that the two cannot
//! differ (`docs/adr`).
//!
//! A schema takes everything that the decoders take, and refuses unknown fields, missing ones and wrong types as they do. What
//! only they know, such as which characters a name has, is left to `validate`.

use serde_json::{Map, Value, json};

use crate::model::object::kinds;
use crate::read::decode::Shape;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a document of any kind; or of one kind, if there is such a one.
pub fn schema(of_kind: Option<&str>) -> Option<Value> {
    match of_kind {
        None => Some(of_any_kind()),
        Some(wanted) => {
            let (versions, kind, shape) = kinds().find(|(_, kind, _)| *kind == wanted)?;
            Some(with_dialect(of_one_kind(versions, kind, &shape)))
        }
    }
}

/// The kinds there are.
pub fn names() -> Vec<&'static str> {
    kinds().map(|(_, kind, _)| kind).collect()
}

/// By `if` and `then`, because of `oneOf` editors tell only that nothing fits.
fn of_any_kind() -> Value {
    let mut definitions = Map::new();
    let mut choices = Vec::new();
    for (versions, kind, shape) in kinds() {
        definitions.insert(kind.to_owned(), of_one_kind(versions, kind, &shape));
        choices.push(json!({
            "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] },
            "then": { "$ref": format!("#/$defs/{kind}") },
        }));
    }
    let names: Vec<&String> = definitions.keys().collect();
    with_dialect(json!({
        "title": "A document of Weft's configuration",
        "type": "object",
        "properties": { "kind": { "enum": names } },
        "required": ["apiVersion", "kind"],
        "allOf": choices,
        "$defs": definitions,
    }))
}

fn with_dialect(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("$schema".into(), DIALECT.into());
    }
    schema
}

fn of_one_kind(versions: &[&str], kind: &str, shape: &Shape) -> Value {
    let mut schema = of(shape);
    let version = match versions {
        [only] => json!({ "const": only }),
        several => json!({ "enum": several }),
    };
    for (field, value) in [("apiVersion", version), ("kind", json!({ "const": kind }))] {
        if let Some(property) = schema.pointer_mut(&format!("/properties/{field}")) {
            *property = value;
        }
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("title".into(), kind.into());
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!(true),
        Shape::Text => json!({ "type": "string" }),
        Shape::Like(pattern) => json!({ "type": "string", "pattern": pattern }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Shape::Empty => json!({ "enum": [null, false, [], {}], "description": "not supported yet" }),
        Shape::List(item) => json!({ "type": "array", "items": of(item) }),
        Shape::Object { what, fields } => {
            let required: Vec<&str> =
                fields.iter().filter(|(_, (is_required, _))| *is_required).map(|(name, _)| *name).collect();
            let properties = fields.iter().map(|(name, (is_required, shape))| {
                let schema = of(shape);
                ((*name).to_owned(), if *is_required { schema } else { or_null(schema) })
            });
            json!({
                "title": what,
                "type": "object",
                "properties": properties.collect::<Map<_, _>>(),
                "required": required,
                "additionalProperties": false,
            })
        }
    }
}

/// A field that is null is one that is not there.
fn or_null(mut schema: Value) -> Value {
    let Some(fields) = schema.as_object_mut() else { return schema };
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        if !values.contains(&Value::Null) {
            values.push(Value::Null);
        }
    } else if let Some(of_type) = fields.get("type").cloned() {
        fields.insert("type".into(), json!([of_type, "null"]));
    }
    schema
}
