//! Equal messages, equal bytes.
//!
//! The generated messages keep map fields in hash maps with random seeds, so that encoding one message twice can give
//! two different texts. A version is a hash of the text: an unchanged listener would look changed, be sent again, and have
//! its connections drained.
//!
//! [`encode`] therefore sorts the entries of every map field in the encoded bytes, at any depth, messages packed in
//! `google.protobuf.Any` included. It knows the map fields of Envoy's configuration and extension messages, from a table
//! that is generated out of their `.proto` files. Bytes of messages it does not know stay as they are. The order of
//! repeated fields has a meaning and is never changed.

mod schema;
mod wire;

use bytes::Bytes;

use self::schema::MESSAGES;
use self::wire::Field;

/// What a field holds, where a map can be inside. Numbers are places in [`MESSAGES`].
#[derive(Clone, Copy, Debug)]
enum Kind {
    Message(u16),
    Map,
    MapOf(u16),
}

/// The fields of one message in which a map can be found.
#[derive(Debug)]
struct Message {
    name: &'static str,
    fields: &'static [(u32, Kind)],
}

/// Encodes `message` so that equal messages give equal bytes.
pub fn encode<M: prost::Message + prost::Name>(message: &M) -> Bytes {
    encode_as(&M::full_name(), message).into()
}

/// The same, for a message whose name is known.
pub(crate) fn encode_as(name: &str, message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    if let Some(message) = Message::find(name) {
        message.order(&mut bytes);
    }
    bytes
}

impl Message {
    fn find(name: &str) -> Option<&'static Self> {
        let at = MESSAGES.binary_search_by(|message| message.name.cmp(name)).ok()?;
        MESSAGES.get(at)
    }

    fn at(place: u16) -> Option<&'static Self> {
        MESSAGES.get(usize::from(place))
    }

    /// Sorts all maps in the encoded message. Sorting moves bytes only, so that no length around them changes.
    /// Bytes that are not such a message are left alone from where that shows.
    fn order(&self, bytes: &mut [u8]) {
        if self.name == "google.protobuf.Any" {
            order_packed(bytes);
            return;
        }
        let mut rest = bytes;
        while let Some(field) = Field::first(rest) {
            let length = match self.kind(field.number) {
                Some(Kind::Map) => order_entries(rest, field.number, None),
                Some(Kind::MapOf(value)) => order_entries(rest, field.number, Message::at(value)),
                Some(Kind::Message(inner)) => {
                    order_inner(field.payload(rest), Message::at(inner));
                    field.length
                }
                None => field.length,
            };
            rest = rest.split_at_mut_checked(length).map(|(_, rest)| rest).unwrap_or_default();
        }
    }

    fn kind(&self, number: u32) -> Option<Kind> {
        self.fields.iter().find(|(of, _)| *of == number).map(|(_, kind)| *kind)
    }
}

fn order_inner(payload: &mut [u8], message: Option<&Message>) {
    if let Some(message) = message {
        message.order(payload);
    }
}

/// Sorts the message packed in an `Any`.
fn order_packed(any: &mut [u8]) {
    let url = Field::numbered(any, 1).and_then(|field| String::from_utf8(field.payload(any).to_vec()).ok());
    let message = url.as_deref().and_then(|url| Message::find(url.rsplit('/').next()?));
    if let Some(value) = Field::numbered(any, 2) {
        order_inner(value.payload(any), message);
    }
}

/// Sorts the entries of the map that `bytes` begins with, and what is in their values. Returns the length of all.
fn order_entries(bytes: &mut [u8], number: u32, value: Option<&Message>) -> usize {
    let mut entries = Vec::new();
    let mut length = 0;
    while let Some((entry, field)) = entry_at(bytes, length, number) {
        if let Some(content) = Field::numbered(field.payload(entry), 2) {
            order_inner(content.payload(field.payload(entry)), value);
        }
        entries.push(entry.to_vec());
        length += entry.len();
    }
    entries.sort_unstable();
    if let Some(run) = bytes.get_mut(..length) {
        run.copy_from_slice(&entries.concat());
    }
    length
}

fn entry_at(bytes: &mut [u8], start: usize, number: u32) -> Option<(&mut [u8], Field)> {
    let rest = bytes.get_mut(start..)?;
    let field = Field::first(rest).filter(|field| field.number == number)?;
    Some((rest.get_mut(..field.length)?, field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
    use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
    use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
    use envoy_types::pb::google::protobuf::{Any, Struct, Value};
    use prost::Message as _;

    fn number(number: f64) -> Value {
        Value { kind: Some(ValueKind::NumberValue(number)) }
    }

    /// A new hash map, and so a new random order, with each call.
    fn metadata() -> Metadata {
        let fields = || (0..12).map(|i| (format!("key{i}"), number(f64::from(i)))).collect();
        let nested = Value { kind: Some(ValueKind::StructValue(Struct { fields: fields() })) };
        let outer = || Struct {
            fields: [("nested".to_owned(), nested.clone())].into_iter().chain(fields()).collect(),
        };
        let filter_metadata = (0..6).map(|i| (format!("filter{i}"), outer())).collect();
        Metadata { filter_metadata, ..Default::default() }
    }

    fn listener() -> Listener {
        let host = VirtualHost { name: "host".into(), metadata: Some(metadata()), ..Default::default() };
        let hosts = vec![VirtualHost { name: "z".into(), ..Default::default() }, host];
        let routes = RouteConfiguration { virtual_hosts: hosts, ..Default::default() };
        let manager = HttpConnectionManager {
            route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
            ..Default::default()
        };
        let type_url = <HttpConnectionManager as prost::Name>::type_url();
        let packed = Any { type_url, value: manager.encode_to_vec() };
        let filter = Filter { name: "http".into(), config_type: Some(ConfigType::TypedConfig(packed)) };
        let chain = FilterChain { filters: vec![filter], ..Default::default() };
        Listener { name: "l".into(), filter_chains: vec![chain], ..Default::default() }
    }

    #[test]
    fn equal_messages_have_equal_bytes_at_any_depth() {
        let plain: std::collections::HashSet<_> = (0..20).map(|_| listener().encode_to_vec()).collect();
        assert!(plain.len() > 1, "if plain encoding were stable, this module would not be needed");
        let ordered: std::collections::HashSet<_> = (0..20).map(|_| encode(&listener())).collect();
        assert_eq!(ordered.len(), 1);
    }

    #[test]
    fn the_message_stays_the_same() {
        let metadata = metadata();
        assert_eq!(Metadata::decode(encode(&metadata)).unwrap(), metadata);
        let bytes = encode(&listener());
        assert_eq!(bytes.len(), listener().encode_to_vec().len());
        Listener::decode(bytes).unwrap();
    }

    #[test]
    fn bytes_that_are_no_message_are_left_alone() {
        for bytes in [&[0x0a, 0xff][..], &[0x0b, 0x01], &[0xff; 20], &[0x0a, 0x02, 0x0a]] {
            let mut ordered = bytes.to_vec();
            Message::find("envoy.config.core.v3.Metadata").unwrap().order(&mut ordered);
            assert_eq!(ordered, bytes);
        }
    }
}
