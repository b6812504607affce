//! The descriptors of Envoy's messages: what may stand in one, held against what somebody wrote.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorError, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
};
use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostic;
use crate::read::decode::{Report, Shape};
use crate::read::{Entry, Node, Value};

/// Made from the `.proto` files of `envoy-types` and held equal to them by a test (`tests/descriptors.rs`).
const DESCRIPTORS: &[u8] = include_bytes!("translate/envoy.binpb");

static POOL: LazyLock<Result<DescriptorPool, DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS));

/// The descriptors of every message that is emitted, and of what patches may add.
pub fn pool() -> Result<&'static DescriptorPool, &'static DescriptorError> {
    POOL.as_ref()
}

/// `node` as the JSON of the message of this name, with the names that JSON has for fields. Every field that the message
/// does not have, and every value that does not fit its field, is reported where it stands.
pub fn checked(message: &str, node: &Node, report: &mut Report) -> Option<Json> {
    if report.saw(|| Shape::Any) {
        return None;
    }
    let descriptor = POOL.as_ref().ok().and_then(|pool| pool.get_message_by_name(message));
    match descriptor {
        Some(descriptor) => of_message(&descriptor, node, report),
        None => report.error(node.span, format!("nothing is known of {message}")),
    }
}

/// Types that JSON writes in a way of its own.
fn of_message(descriptor: &MessageDescriptor, node: &Node, report: &mut Report) -> Option<Json> {
    match descriptor.full_name() {
        "google.protobuf.Any" => of_any(node, report),
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => Some(node.into()),
        "google.protobuf.Duration" => of_duration(node, report),
        "google.protobuf.Timestamp" | "google.protobuf.FieldMask" => of_text(node, report).map(Json::String),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let value = descriptor.get_field_by_name("value")?;
            of_kind(&value.kind(), node, report)
        }
        _ => of_fields(descriptor, entries(descriptor.name(), node, report)?, report).map(Json::Object),
    }
}

fn entries<'n>(what: &str, node: &'n Node, report: &mut Report) -> Option<&'n [Entry]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        _ => report.error(node.span, format!("{what} must be a mapping, this is {}", node.described())),
    }
}

fn of_fields<'n>(
    descriptor: &MessageDescriptor,
    entries: impl IntoIterator<Item = &'n Entry>,
    report: &mut Report,
) -> Option<Map<String, Json>> {
    let mut object = Map::new();
    let mut taken: Vec<(OneofDescriptor, String)> = Vec::new();
    let errors = report.errors();
    for entry in entries {
        let Some(field) = field(descriptor, &entry.key) else {
            report.add::<()>(entry.key_span, unknown(descriptor, &entry.key));
            continue;
        };
        if let Some(one) = field.containing_oneof() {
            if let Some((_, other)) = taken.iter().find(|(known, _)| *known == one) {
                let both = format!("{:?} and {other:?} exclude each other", entry.key);
                report.error::<()>(entry.key_span, both);
            }
            taken.push((one, entry.key.clone()));
        }
        let value = match &entry.value.value {
            Value::Null => Some(Json::Null),
            _ => of_field(&field, &entry.value, report),
        };
        object.insert(field.json_name().to_owned(), value.unwrap_or_default());
    }
    (report.errors() == errors).then_some(object)
}

fn field(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name))
}

/// The nearest is offered in the way of writing that was chosen.
fn unknown(descriptor: &MessageDescriptor, name: &str) -> Diagnostic {
    let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    let as_json = fields.iter().map(FieldDescriptor::json_name);
    let as_proto = fields.iter().map(FieldDescriptor::name);
    let mistake = Diagnostic::error(format!("unknown field {name:?} in {}", descriptor.full_name()));
    if name.contains('_') { mistake.nearest(name, as_proto) } else { mistake.nearest(name, as_json) }
}

fn of_field(field: &FieldDescriptor, node: &Node, report: &mut Report) -> Option<Json> {
    let kind = field.kind();
    if field.is_map() {
        let value = kind.as_message()?.map_entry_value_field().kind();
        let entries = entries(field.name(), node, report)?;
        let pairs = entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), of_kind(&value, &entry.value, report)?)));
        return Some(Json::Object(pairs.collect()));
    }
    if !field.is_list() {
        return of_kind(&kind, node, report);
    }
    match &node.value {
        Value::List(items) => {
            Some(Json::Array(items.iter().filter_map(|item| of_kind(&kind, item, report)).collect()))
        }
        _ => {
            let message = format!("{:?} must be a list, this is {}", field.json_name(), node.described());
            report.error(node.span, message)
        }
    }
}

fn of_kind(kind: &Kind, node: &Node, report: &mut Report) -> Option<Json> {
    let fits = match (kind, &node.value) {
        (Kind::Message(message), _) => return of_message(message, node, report),
        (Kind::Enum(values), _) => return of_enum(values, node, report),
        (Kind::String | Kind::Bytes, Value::Text(_)) | (Kind::Bool, Value::Bool(_)) => true,
        (Kind::Double | Kind::Float, Value::Integer(_) | Value::Float(_)) => true,
        (Kind::Uint32 | Kind::Fixed32, Value::Integer(value)) => u32::try_from(*value).is_ok(),
        (Kind::Uint64 | Kind::Fixed64, Value::Integer(value)) => *value >= 0,
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, Value::Integer(value)) => i32::try_from(*value).is_ok(),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, Value::Integer(_)) => true,
        _ => false,
    };
    if fits {
        return Some(node.into());
    }
    report.error(node.span, format!("{} is expected, this is {}", expected(kind), node.described()))
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "a text",
        Kind::Bytes => "base64",
        Kind::Bool => "true or false",
        Kind::Double | Kind::Float => "a number",
        Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64 => "a whole number, not below 0,",
        _ => "a whole number",
    }
}

fn of_enum(values: &prost_reflect::EnumDescriptor, node: &Node, report: &mut Report) -> Option<Json> {
    let name = of_text(node, report)?;
    if values.get_value_by_name(&name).is_some() {
        return Some(Json::String(name));
    }
    let all: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
    let mistake = Diagnostic::error(format!("{name:?} is not one of {}", all.join(", ")));
    report.add(node.span, mistake.nearest(&name, all.iter().map(String::as_str)))
}

fn of_text(node: &Node, report: &mut Report) -> Option<String> {
    crate::read::decode::text(node, report)
}

/// Seconds, as protobuf has them: `0.25s`.
fn of_duration(node: &Node, report: &mut Report) -> Option<Json> {
    let given = of_text(node, report)?;
    let number = given.strip_suffix('s').filter(|number| {
        let digits = number.strip_prefix('-').unwrap_or(number);
        digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && digits.parse::<f64>().is_ok()
    });
    match number {
        Some(_) => Some(Json::String(given)),
        None => report.error(node.span, format!("{given:?} is not a duration as 0.25s")),
    }
}

/// A message of any type: what it is stands in `@type`.
fn of_any(node: &Node, report: &mut Report) -> Option<Json> {
    let fields = entries("Any", node, report)?;
    let Some(url) = node.get("@type") else {
        let help = "\"@type\": type.googleapis.com/NAME.OF.THE.MESSAGE says what it is";
        return report.add(node.span, Diagnostic::error("this has no \"@type\"").help(help));
    };
    let given = of_text(url, report)?;
    let name = given.rsplit('/').next().unwrap_or_default();
    let Some(descriptor) = POOL.as_ref().ok().and_then(|pool| pool.get_message_by_name(name)) else {
        return report.add(url.span, unknown_type(name));
    };
    let mut object = of_fields(&descriptor, fields.iter().filter(|entry| entry.key != "@type"), report)?;
    object.insert("@type".into(), Json::String(format!("type.googleapis.com/{name}")));
    Some(Json::Object(object))
}

fn unknown_type(name: &str) -> Diagnostic {
    let all: Vec<String> = POOL
        .as_ref()
        .map(|pool| pool.all_messages().map(|message| message.full_name().to_owned()).collect())
        .unwrap_or_default();
    let mistake = Diagnostic::error(format!("nothing is known of a message {name:?}"));
    mistake.nearest(name, all.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::tests::{good, mistakes};

    fn cluster(node: &Node, report: &mut Report) -> Option<Json> {
        checked("envoy.config.cluster.v3.Cluster", node, report)
    }

    #[test]
    fn both_ways_of_writing_a_field_are_read_and_json_is_made() {
        let value = good(
            "{name: a, connect_timeout: 0.25s, circuitBreakers: {thresholds: [{max_requests: 5}]}, type: STATIC}",
            cluster,
        );
        let expected = serde_json::json!({
            "name": "a", "connectTimeout": "0.25s", "type": "STATIC",
            "circuitBreakers": {"thresholds": [{"maxRequests": 5}]}
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn each_mistake_has_its_place_and_the_nearest_right_spelling() {
        assert_eq!(
            mistakes(
                "{nam: a, connect_timeot: 1s, connectTimeout: 1, type: STATIK, circuitBreakers: {thresholds: {}}, perConnectionBufferLimitBytes: -1}",
                cluster
            ),
            [
                "1:5 unknown field \"nam\" in envoy.config.cluster.v3.Cluster (did you mean \"name\"?)",
                "1:13 unknown field \"connect_timeot\" in envoy.config.cluster.v3.Cluster (did you mean \"connect_timeout\"?)",
                "1:49 a text is expected, this is the number 1 (put it in quotes)",
                "1:58 \"STATIK\" is not one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST (did you mean \"STATIC\"?)",
                "1:96 \"thresholds\" must be a list, this is a mapping",
                "1:132 a whole number, not below 0, is expected, this is the number -1",
            ]
        );
        assert_eq!(
            mistakes(
                "{type: STATIC, clusterType: {name: a}, metadata: {typedFilterMetadata: {a: {\"@type\": a/envoy.config.cluster.v3.Clutser}, b: {}}}}",
                cluster
            ),
            [
                "1:19 \"clusterType\" and \"type\" exclude each other",
                "1:89 nothing is known of a message \"envoy.config.cluster.v3.Clutser\" (did you mean \"envoy.config.cluster.v3.Cluster\"?)",
                "1:128 this has no \"@type\" (\"@type\": type.googleapis.com/NAME.OF.THE.MESSAGE says what it is)",
            ]
        );
    }
}
