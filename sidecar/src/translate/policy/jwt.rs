//! Tokens.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::config::route::v3::RouteMatch;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementOrList,
    RemoteJwks, RequirementRule,
};
use envoy_types::pb::google::protobuf::Empty;

use crate::model::policy::jwt::{Jwks, Jwt, Provider};
use crate::translate::asked::{cluster, over_http};
use crate::translate::{any, duration};

/// Where the filter leaves what it has verified: the namespace is Envoy's, the key within it ours.
pub(super) const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// See [`NAMESPACE`].
pub(super) const CLAIMS: &str = "claims";

const JWKS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The first of the files that Envoy reads, if it reads any.
pub(super) fn file(jwt: &Jwt) -> Option<&str> {
    jwt.providers.iter().find_map(|provider| match &provider.jwks {
        Jwks::File(path) => Some(path.as_str()),
        Jwks::Inline(_) | Jwks::Remote { .. } => None,
    })
}

pub(super) fn filter(jwt: &Jwt) -> TypedExtensionConfig {
    let providers = jwt.providers.iter().map(|one| (one.name.clone(), provider(one)));
    let everything =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() };
    let requires = RequirementType::Requires(requirement(jwt));
    let rule = RequirementRule { r#match: Some(everything), requirement_type: Some(requires) };
    let config = JwtAuthentication {
        providers: providers.collect(),
        rules: vec![rule],
        ..JwtAuthentication::default()
    };
    TypedExtensionConfig { name: NAMESPACE.into(), typed_config: Some(any(&config)) }
}

fn requirement(jwt: &Jwt) -> JwtRequirement {
    let of = |requires| JwtRequirement { requires_type: Some(requires) };
    let named = jwt.providers.iter().map(|provider| of(RequiresType::ProviderName(provider.name.clone())));
    let missing = jwt.optional.then(|| of(RequiresType::AllowMissing(Empty::default())));
    let mut any: Vec<JwtRequirement> = named.chain(missing).collect();
    if any.len() > 1 {
        return of(RequiresType::RequiresAny(JwtRequirementOrList { requirements: any }));
    }
    any.pop().unwrap_or_default()
}

fn provider(provider: &Provider) -> JwtProvider {
    let header =
        |(name, prefix): &(String, String)| JwtHeader { name: name.clone(), value_prefix: prefix.clone() };
    let claim = |(claim, header): &(String, String)| JwtClaimToHeader {
        header_name: header.clone(),
        claim_name: claim.clone(),
        ..JwtClaimToHeader::default()
    };
    JwtProvider {
        issuer: provider.issuer.clone().unwrap_or_default(),
        audiences: provider.audiences.clone(),
        forward: provider.forward,
        from_headers: provider.from_headers.iter().map(header).collect(),
        from_params: provider.from_params.clone(),
        from_cookies: provider.from_cookies.clone(),
        payload_in_metadata: CLAIMS.into(),
        claim_to_headers: provider.claim_headers.iter().map(claim).collect(),
        jwks_source_specifier: Some(jwks(&provider.jwks)),
        ..JwtProvider::default()
    }
}

fn jwks(jwks: &Jwks) -> JwksSourceSpecifier {
    let local = |source| {
        JwksSourceSpecifier::LocalJwks(DataSource { specifier: Some(source), ..DataSource::default() })
    };
    match jwks {
        Jwks::Inline(keys) => local(Specifier::InlineString(keys.clone())),
        Jwks::File(path) => local(Specifier::Filename(path.clone())),
        Jwks::Remote { uri, backend, cache } => {
            let cluster = cluster(backend);
            JwksSourceSpecifier::RemoteJwks(RemoteJwks {
                http_uri: Some(over_http(cluster, uri.clone(), JWKS_TIMEOUT)),
                cache_duration: Some(duration(*cache)),
                ..RemoteJwks::default()
            })
        }
    }
}
