//! The tags in each of the places where Envoy can carry them.
//!
//! Their values stand in metadata: of the node, of listeners and clusters those of the workload, of a route those of its
//! requests. Everything else names the tag and takes the value from there while a request is served, so that all places
//! show the same, and so that no value is ever read as a format.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::common::mutation_rules::v3::{
    HeaderMutation as Mutation, header_mutation,
};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, Metadata};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute, Mutations,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value};
use serde_json::json;

use super::any;
use super::listener::HEADER_MUTATION;
use crate::model::tag::{self, HEADER_PREFIX, Tag};
use crate::model::telemetry::{Injected, Telemetry};

/// The one metadata namespace for tags: of the node, listeners, routes, clusters and endpoints.
pub const NAMESPACE: &str = "weft.tags";

/// The tags as Envoy metadata; none without tags.
pub(super) fn metadata(tags: &[Tag]) -> Option<Metadata> {
    let text = |value: &String| Value { kind: Some(value::Kind::StringValue(value.clone())) };
    let fields = tags.iter().map(|tag| (tag.key.clone(), text(&tag.value))).collect();
    let filter_metadata = HashMap::from([(NAMESPACE.to_owned(), Struct { fields })]);
    (!tags.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}

/// The headers that tell upstreams the tags of the route.
pub(super) fn request_headers(telemetry: &Telemetry) -> Vec<HeaderValueOption> {
    telemetry.request_headers.iter().map(header).collect()
}

/// What the filter that [strips requests](strip_forged) does to the responses of a route configuration: they carry the
/// tags of the route, and no others. It stands with the routes, so that a change reaches the connections that are open.
pub(super) fn response_headers(telemetry: &Telemetry) -> HashMap<String, Any> {
    let tags = telemetry.response_headers.iter().map(|tag| header_mutation::Action::Append(header(tag)));
    let actions = std::iter::once(remove_all()).chain(tags);
    let response_mutations = actions.map(|action| Mutation { action: Some(action) }).collect();
    let mutations = Mutations { response_mutations, ..Mutations::default() };
    let per_route = HeaderMutationPerRoute { mutations: Some(mutations) };
    HashMap::from([(HEADER_MUTATION.to_owned(), any(&per_route))])
}

/// Removes every tag header that a request brings, known or not: what it carries from here on is ours.
pub(super) fn strip_forged() -> HeaderMutation {
    let request_mutations = vec![Mutation { action: Some(remove_all()) }];
    let mutations = Mutations { request_mutations, ..Mutations::default() };
    HeaderMutation { mutations: Some(mutations), ..HeaderMutation::default() }
}

/// All tags of a request, for a format: those of its route, or the workload's where no route took it.
pub(super) fn all_of_request() -> String {
    let operators = ["ROUTE", "LISTENER"]
        .map(|place| json!({ "command": "METADATA", "param": format!("{place}:{NAMESPACE}") }));
    format!("%COALESCE({})%", json!({ "operators": operators }))
}

/// One tag of a request, for a format, as [`all_of_request`].
pub(super) fn one_of_request(key: &str) -> String {
    let operators = ["ROUTE", "LISTENER"]
        .map(|place| json!({ "command": "METADATA", "param": format!("{place}:{NAMESPACE}:{key}") }));
    format!("%COALESCE({})%", json!({ "operators": operators }))
}

fn remove_all() -> header_mutation::Action {
    let pattern = string_matcher::MatchPattern::Prefix(HEADER_PREFIX.into());
    let key_matcher = StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    header_mutation::Action::RemoveOnMatch(header_mutation::RemoveOnMatch { key_matcher: Some(key_matcher) })
}

/// A tag may be empty; Envoy leaves out an empty header unless told otherwise. A tag that some routes lack is not there
/// with an empty value.
fn header(tag: &Injected) -> HeaderValueOption {
    let value = format!("%METADATA(ROUTE:{NAMESPACE}:{})%", tag.key);
    HeaderValueOption {
        header: Some(HeaderValue { key: tag::header(&tag.key), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: tag.always,
        ..HeaderValueOption::default()
    }
}

/// In a header value `%` begins a command for Envoy's formatter, and a lone one has the whole configuration rejected.
pub(super) fn literal(value: &str) -> String {
    value.replace('%', "%%")
}
