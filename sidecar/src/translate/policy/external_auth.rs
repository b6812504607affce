//! External authorisation.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ApiVersion, GrpcService, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{ListStringMatcher, StringMatcher};

use crate::model::policy::external_auth::{Authorizer, ExternalAuthorization};
use crate::model::reference::BackendRef;
use crate::translate::asked::{authority, cluster, over_grpc_at, over_http};
use crate::translate::route::matching::regex;
use crate::translate::{any, duration};

/// What is between the caller and Envoy; a service that is asked over HTTP is shown every other header. (Without lists Envoy
/// would show it none but `Authorization`; one that is asked over gRPC is shown all.)
const OF_THE_CONNECTION: &[&str] = &["connection", "expect", "te", "transfer-encoding", "upgrade"];

pub(super) fn filter(auth: &ExternalAuthorization) -> TypedExtensionConfig {
    let services = match &auth.by {
        Authorizer::Grpc(backend) => Services::GrpcService(grpc(backend, auth.timeout)),
        Authorizer::Http { backend, path_prefix, to_upstream, to_client } => {
            let answer = AuthorizationResponse {
                allowed_upstream_headers: names(to_upstream),
                allowed_client_headers: names(to_client),
                ..AuthorizationResponse::default()
            };
            Services::HttpService(http(backend, path_prefix, auth.timeout, answer))
        }
    };
    let over_http = matches!(auth.by, Authorizer::Http { .. });
    let config = ExtAuthz {
        services: Some(services),
        allowed_headers: over_http.then(any_header),
        disallowed_headers: over_http.then(|| names(OF_THE_CONNECTION)).flatten(),
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: auth.fail_open,
        with_request_body: auth.body.map(|body| BufferSettings {
            max_request_bytes: body.max_bytes,
            allow_partial_message: body.allow_partial,
            pack_as_bytes: false,
        }),
        // What the service adds may be what routes look at; but this policy is that of the route that was found.
        clear_route_cache: false,
        ..ExtAuthz::default()
    };
    TypedExtensionConfig { name: "envoy.filters.http.ext_authz".into(), typed_config: Some(any(&config)) }
}

fn grpc(backend: &BackendRef, timeout: Duration) -> GrpcService {
    let asked = over_grpc_at(cluster(backend), authority(&backend.resolved("")));
    GrpcService { timeout: Some(duration(timeout)), ..asked }
}

fn http(
    backend: &BackendRef,
    path_prefix: &str,
    timeout: Duration,
    answer: AuthorizationResponse,
) -> HttpService {
    let uri = format!("http://{}", authority(&backend.resolved("")));
    HttpService {
        server_uri: Some(over_http(cluster(backend), uri, timeout)),
        path_prefix: path_prefix.into(),
        authorization_response: Some(answer),
        ..HttpService::default()
    }
}

fn any_header() -> ListStringMatcher {
    ListStringMatcher { patterns: vec![pattern(MatchPattern::SafeRegex(regex(".*")))] }
}

fn names<T: AsRef<str>>(headers: &[T]) -> Option<ListStringMatcher> {
    let exact = |name: &T| pattern(MatchPattern::Exact(name.as_ref().into()));
    (!headers.is_empty()).then(|| ListStringMatcher { patterns: headers.iter().map(exact).collect() })
}

fn pattern(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}
