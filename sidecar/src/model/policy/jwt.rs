//! `jwt`: requests must carry a token that somebody trusted has signed.

use std::time::Duration;

use super::session::name as cookie_name;
use super::value::some_time;
use crate::diagnostic::Diagnostic;
use crate::model::matching::{header_name, header_value};
use crate::model::reference::{BackendRef, object_ref};
use crate::read::Node;
use crate::read::decode::{Report, boolean, text};

/// Which tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Who signs them; a token of any of these will do. Never empty, names differ.
    pub providers: Vec<Provider>,
    /// Whether a request without a token passes; one with a bad token never does.
    pub optional: bool,
}

/// Somebody who signs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name, for messages and statistics.
    pub name: String,
    /// The `iss` that its tokens must have, if it is given.
    pub issuer: Option<String>,
    /// One of these must be in the tokens' `aud`, if there are any.
    pub audiences: Vec<String>,
    /// Its public keys.
    pub jwks: Jwks,
    /// Where the token is; in the header `Authorization` after `Bearer `, if nothing is given.
    pub from_headers: Vec<(String, String)>,
    /// Query parameters it may be in.
    pub from_params: Vec<String>,
    /// Cookies it may be in.
    pub from_cookies: Vec<String>,
    /// Whether the upstream gets the token, too.
    pub forward: bool,
    /// Claims that the upstream gets as headers: the claim, with dots between the levels, and the header.
    pub claim_headers: Vec<(String, String)>,
}

/// Where public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    /// They stand in the policy.
    Inline(String),
    /// Envoy reads them from this file, once.
    File(String),
    /// Envoy fetches them.
    Remote {
        /// From here.
        uri: String,
        /// Through this service.
        backend: BackendRef,
        /// How often.
        cache: Duration,
    },
}

impl Jwt {
    /// The services that keys are fetched through.
    pub(super) fn references(&mut self) -> impl Iterator<Item = &mut BackendRef> {
        self.providers.iter_mut().filter_map(|provider| match &mut provider.jwks {
            Jwks::Remote { backend, .. } => Some(backend),
            Jwks::Inline(_) | Jwks::File(_) => None,
        })
    }
}

/// Reads `jwt`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Jwt> {
    let mut fields = report.fields(node, "jwt")?;
    let providers = fields.list("providers", provider);
    let optional = fields.optional("optional", boolean).unwrap_or(false);
    let span = fields.key_span("providers");
    if node.get("providers").is_none_or(Node::is_empty) {
        fields.error::<()>("jwt has no \"providers\"");
    }
    for (at, provider) in providers.iter().enumerate() {
        if providers.iter().take(at).any(|earlier| earlier.name == provider.name) {
            fields.report().error::<()>(span, format!("the provider {:?} is there twice", provider.name));
        }
    }
    fields.finish();
    Some(Jwt { providers, optional })
}

fn provider(node: &Node, report: &mut Report) -> Option<Provider> {
    let mut fields = report.fields(node, "provider")?;
    let name = fields.required("name", text);
    let issuer = fields.optional("issuer", text);
    let audiences = fields.list("audiences", text);
    let jwks = fields.required("jwks", jwks);
    let from_headers = fields.list("fromHeaders", from_header);
    let from_params = fields.list("fromParams", cookie_name);
    let from_cookies = fields.list("fromCookies", cookie_name);
    let forward = fields.optional("forward", boolean).unwrap_or(false);
    let claim_headers = fields.list("claimHeaders", claim_header);
    fields.finish();
    Some(Provider {
        name: name?,
        issuer,
        audiences,
        jwks: jwks?,
        from_headers,
        from_params,
        from_cookies,
        forward,
        claim_headers,
    })
}

fn from_header(node: &Node, report: &mut Report) -> Option<(String, String)> {
    let mut fields = report.fields(node, "fromHeaders")?;
    let name = fields.required("name", header_name);
    let prefix = fields.optional("prefix", text).unwrap_or_default();
    fields.finish();
    Some((name?, prefix))
}

fn claim_header(node: &Node, report: &mut Report) -> Option<(String, String)> {
    let mut fields = report.fields(node, "claimHeaders")?;
    let claim = fields.required("claim", header_value);
    let header = fields.required("header", header_name);
    fields.finish();
    Some((claim?, header?))
}

fn jwks(node: &Node, report: &mut Report) -> Option<Jwks> {
    let mut fields = report.fields(node, "jwks")?;
    let inline = fields.optional("inline", keys).map(Jwks::Inline);
    let file = fields.optional("file", absolute).map(Jwks::File);
    let remote = fields.optional("remote", remote);
    if ["inline", "file", "remote"].iter().filter(|kind| node.get(kind).is_some()).count() != 1 {
        fields.error::<()>("jwks has one of inline, file and remote");
    }
    fields.finish();
    inline.or(file).or(remote)
}

/// RFC 7517, section 5: an object with a list of `keys`.
fn keys(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let set: Option<serde_json::Value> = serde_json::from_str(&given).ok();
    if set.as_ref().and_then(|set| set.get("keys")).is_some_and(serde_json::Value::is_array) {
        return Some(given);
    }
    let mistake = Diagnostic::error("this is not a JSON Web Key Set").help("it is JSON: {\"keys\": [...]}");
    report.add(node.span, mistake)
}

pub(super) fn absolute(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if given.starts_with('/') && !given.contains('\0') {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} is not an absolute path; Envoy reads it, wherever that runs"))
}

fn remote(node: &Node, report: &mut Report) -> Option<Jwks> {
    let mut fields = report.fields(node, "remote")?;
    let uri = fields.required("uri", uri);
    let backend = fields.required("backendRef", object_ref);
    let cache = fields.optional("cacheDuration", some_time).unwrap_or(Duration::from_secs(300));
    fields.finish();
    Some(Jwks::Remote { uri: uri?, backend: backend?, cache })
}

fn uri(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let rest = given.strip_prefix("https://").or_else(|| given.strip_prefix("http://"));
    if rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic())) {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} is not an http or https URI"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn keys_are_inline_in_a_file_or_fetched() {
        let jwt = good(
            "{providers: [{name: a, issuer: me, jwks: {inline: '{\"keys\": []}'}}, {name: b, jwks: {remote: {uri: 'http://keys/x', backendRef: {name: keys, port: 80}}}}]}",
            decode,
        );
        assert_eq!(jwt.providers[0].jwks, Jwks::Inline("{\"keys\": []}".into()));
        assert!(matches!(&jwt.providers[1].jwks, Jwks::Remote { cache, .. } if cache.as_secs() == 300));
        assert!(!jwt.optional);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{providers: [{name: a, jwks: {inline: keys}}, {name: b, jwks: {file: x}}]}", decode),
            [
                "1:42 this is not a JSON Web Key Set (it is JSON: {\"keys\": [...]})",
                "1:73 \"x\" is not an absolute path; Envoy reads it, wherever that runs",
            ]
        );
        assert_eq!(mistakes("{}", decode), ["1:4 jwt has no \"providers\""]);
    }
}
