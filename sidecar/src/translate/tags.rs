//! The workload's tags in each of the places where Envoy can carry them.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::common::mutation_rules::v3::{
    HeaderMutation as Mutation, header_mutation,
};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, Metadata};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, Mutations};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use envoy_types::pb::google::protobuf::{Struct, Value, value};

use crate::model::sidecar::{Sidecar, TAG_HEADER_PREFIX};

/// The one metadata namespace for tags: of the node, listeners, routes and clusters.
pub const NAMESPACE: &str = "weft.tags";

/// The tags as Envoy metadata; none without tags.
pub(super) fn metadata(sidecar: &Sidecar) -> Option<Metadata> {
    let text = |value: &String| Value { kind: Some(value::Kind::StringValue(value.clone())) };
    let fields = sidecar.tags.iter().map(|tag| (tag.key.clone(), text(&tag.value))).collect();
    let filter_metadata = HashMap::from([(NAMESPACE.to_owned(), Struct { fields })]);
    (!sidecar.tags.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}

/// The headers that tell upstreams the tags, in the order of their names.
pub(super) fn request_headers(sidecar: &Sidecar) -> Vec<HeaderValueOption> {
    let injected = sidecar.tags.iter().filter(|tag| sidecar.request_headers.contains(&tag.key));
    let mut headers: Vec<HeaderValueOption> =
        injected.map(|tag| header(tag.header(), literal(&tag.value))).collect();
    headers.sort_by_key(|option| option.header.as_ref().map(|header| header.key.clone()));
    headers
}

/// Removes every tag header that the application sent, known or not: what an upstream sees is ours.
pub(super) fn strip_forged() -> HeaderMutation {
    let pattern = string_matcher::MatchPattern::Prefix(TAG_HEADER_PREFIX.into());
    let key_matcher = StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    let remove = header_mutation::RemoveOnMatch { key_matcher: Some(key_matcher) };
    let mutation = Mutation { action: Some(header_mutation::Action::RemoveOnMatch(remove)) };
    let mutations = Mutations { request_mutations: vec![mutation], ..Mutations::default() };
    HeaderMutation { mutations: Some(mutations), ..HeaderMutation::default() }
}

/// A tag may be empty; Envoy leaves out an empty header unless told otherwise.
fn header(key: String, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key, value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    }
}

/// In a header value `%` begins a command for Envoy's formatter, and a lone one has the whole configuration rejected.
pub(super) fn literal(value: &str) -> String {
    value.replace('%', "%%")
}
