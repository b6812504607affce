//! Values as YAML, for people: block style, names first, and comments where there is something to say.

use serde_json::{Map, Value};

/// Says what is to be remarked about a mapping.
pub(super) type Remark<'a> = &'a dyn Fn(&Map<String, Value>) -> Option<String>;

/// `value` as a block of YAML, with `remark`'s comments before the mappings they are about.
pub(super) fn block(value: &Value, remark: Remark<'_>) -> String {
    let mut text = String::new();
    write(&mut text, value, 0, remark);
    text
}

fn write(text: &mut String, value: &Value, indent: usize, remark: Remark<'_>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (key, value)) in in_order(fields).into_iter().enumerate() {
                if at > 0 {
                    new_line(text, indent);
                }
                text.push_str(&scalar(key));
                text.push(':');
                nested(text, value, indent, remark);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    new_line(text, indent);
                }
                if let Some(comment) = item.as_object().and_then(remark) {
                    text.push_str("# ");
                    text.push_str(&comment);
                    new_line(text, indent);
                }
                text.push_str("- ");
                write(text, item, indent + 2, remark);
            }
        }
        Value::String(string) => text.push_str(&scalar(string)),
        // Numbers, booleans, null and what is empty are the same in JSON.
        other => text.push_str(&other.to_string()),
    }
}

fn nested(text: &mut String, value: &Value, indent: usize, remark: Remark<'_>) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        new_line(text, indent + 2);
    } else {
        text.push(' ');
    }
    write(text, value, indent + 2, remark);
}

fn new_line(text: &mut String, indent: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
}

/// What something is and is called comes first.
fn in_order(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
    let rank = |key: &str| match key {
        "@type" => 0,
        "name" | "cluster_name" => 1,
        "match" => 2,
        _ => 3,
    };
    fields.sort_by_key(|(key, _)| rank(key));
    fields
}

/// A text as it is if nobody can take it for anything else, and as JSON has it otherwise.
fn scalar(text: &str) -> String {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '/';
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    // These are texts for YAML 1.2 and something else for some of its readers.
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(letter)
        && text.chars().all(plain)
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::diagnostic::Source;
    use crate::read::yaml;

    fn read(text: &str) -> Value {
        let source = Arc::new(Source { name: "f.yaml".into(), text: text.into() });
        let documents = yaml::documents(&source).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:?}"));
        Value::from(&documents[0])
    }

    #[test]
    fn a_block_reads_as_one_would_write_it() {
        let value =
            json!({"routes": [{"zone": "1", "name": "shop/web", "list": [[1, "a b"], []], "empty": {}}]});
        let remark = |fields: &Map<String, Value>| fields.get("name").map(|_| "routes.yaml:3".to_owned());
        assert_eq!(
            block(&value, &remark),
            "routes:\n  # routes.yaml:3\n  - name: shop/web\n    empty: {}\n    list:\n      - - 1\n        - \"a b\"\n      - []\n    zone: \"1\""
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}|[-:#~ \\[{&*!|>'\"%@`\\n\\ttruefalsnoye0-9.]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z@. :#]{1,6}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(value in value()) {
            let value = json!({"k": value});
            prop_assert_eq!(read(&block(&value, &|_| Some("why".into()))), value);
        }
    }
}
