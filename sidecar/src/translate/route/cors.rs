//! Which pages of other origins may read the answers.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::{Any, BoolValue};

use super::matching::regex;
use crate::model::filter::{Cors, Origin};
use crate::translate::any;
use crate::translate::listener::CORS;

/// What the filter does for a route.
pub(super) fn policy(cors: &Cors) -> (String, Any) {
    let policy = CorsPolicy {
        allow_origin_string_match: cors.origins.iter().flat_map(matchers).collect(),
        allow_methods: cors.methods.join(", "),
        allow_headers: cors.headers.join(", "),
        expose_headers: cors.exposed.join(", "),
        max_age: cors.max_age.to_string(),
        allow_credentials: cors.credentials.then_some(BoolValue { value: true }),
        // The application would have to know about it.
        forward_not_matching_preflights: Some(BoolValue { value: false }),
        ..CorsPolicy::default()
    };
    (CORS.into(), any(&policy))
}

/// Browsers leave out a port that goes without saying; other clients may not.
fn matchers(origin: &Origin) -> Vec<StringMatcher> {
    let Origin::Pattern { scheme, host, port } = origin else {
        return vec![matcher(MatchPattern::SafeRegex(regex(".*")))];
    };
    let with_port = format!("{}://{host}:{port}", scheme.name());
    let without = (*port == scheme.port()).then(|| format!("{}://{host}", scheme.name()));
    let all = without.into_iter().chain([with_port]);
    all.map(|text| matcher(pattern(text))).collect()
}

fn pattern(text: String) -> MatchPattern {
    if !text.contains('*') {
        return MatchPattern::Exact(text);
    }
    let literal: Vec<String> = text.split('*').map(regex_syntax::escape).collect();
    MatchPattern::SafeRegex(regex(&literal.join("[^:/]+")))
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}
