//! From files to documents that still know where every value came from.
//!
//! [`files`] lists and loads, [`yaml`] parses into [`Node`]s, [`decode`] turns nodes into types and collects all
//! mistakes on the way.

pub mod decode;
pub mod files;
pub mod surroundings;
pub mod yaml;

use crate::diagnostic::Span;

/// A YAML or JSON value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub span: Span,
    /// The value.
    pub value: Value,
}

/// A value of the YAML 1.2 core schema, which JSON is a part of.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`; not `yes` or `on`, which are texts since YAML 1.2.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text, quoted or not.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are texts and differ from each other.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub key_span: Span,
    /// What it is set to.
    pub value: Node,
}

/// The value without its places.
impl From<&Node> for serde_json::Value {
    fn from(node: &Node) -> Self {
        match &node.value {
            Value::Null => Self::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.clone().into(),
            Value::List(items) => items.iter().map(Self::from).collect(),
            Value::Map(entries) => Self::Object(
                entries.iter().map(|entry| (entry.key.clone(), Self::from(&entry.value))).collect(),
            ),
        }
    }
}

impl Node {
    /// Whether the value says nothing: null, false, an empty list or an empty mapping.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null | Value::Bool(false) => true,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            Value::Bool(true) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => false,
        }
    }

    /// What `key` is set to, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The kind of value in words, for messages.
    pub fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Integer(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(value) => format!("the text {value:?}"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}
