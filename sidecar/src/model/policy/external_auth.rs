//! `externalAuthorization`: another service says whether a request may pass.

use std::time::Duration;

use super::value::some_time;
use crate::model::matching::header_name;
use crate::model::reference::{BackendRef, object_ref};
use crate::read::Node;
use crate::read::decode::{Report, boolean, integer, text};

/// Who is asked, and what becomes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuthorization {
    /// Who is asked.
    pub by: Authorizer,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Whether requests pass while nobody answers; otherwise they are answered with 403.
    pub fail_open: bool,
    /// So many bytes of the body are sent along; none if not given.
    pub body: Option<Body>,
}

/// How the body is sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// So much of it at most.
    pub max_bytes: u32,
    /// Whether a longer one is cut off; otherwise it is answered with 413.
    pub allow_partial: bool,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorizer {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc(BackendRef),
    /// The request itself, without its body: 200 lets it pass, anything else is the answer to it.
    Http {
        /// The service.
        backend: BackendRef,
        /// Comes before the path.
        path_prefix: String,
        /// Headers of the answer that the upstream gets.
        to_upstream: Vec<String>,
        /// Headers of the answer that the client gets when it is refused, beside the usual ones.
        to_client: Vec<String>,
    },
}

impl ExternalAuthorization {
    /// The service that is asked.
    pub(super) fn reference(&mut self) -> &mut BackendRef {
        match &mut self.by {
            Authorizer::Grpc(backend) | Authorizer::Http { backend, .. } => backend,
        }
    }
}

/// Reads `externalAuthorization`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<ExternalAuthorization> {
    let mut fields = report.fields(node, "externalAuthorization")?;
    let grpc = fields.optional("grpc", grpc);
    let http = fields.optional("http", http);
    let timeout = fields.optional("timeout", some_time).unwrap_or(Duration::from_millis(200));
    let fail_open = fields.optional("failOpen", boolean).unwrap_or(false);
    let body = fields.optional("body", body);
    if node.get("grpc").is_some() == node.get("http").is_some() {
        fields.error::<()>("externalAuthorization has either \"grpc\" or \"http\"");
    }
    fields.finish();
    Some(ExternalAuthorization { by: grpc.or(http)?, timeout, fail_open, body })
}

fn grpc(node: &Node, report: &mut Report) -> Option<Authorizer> {
    let mut fields = report.fields(node, "grpc")?;
    let backend = fields.required("backendRef", object_ref);
    fields.finish();
    backend.map(Authorizer::Grpc)
}

fn http(node: &Node, report: &mut Report) -> Option<Authorizer> {
    let mut fields = report.fields(node, "http")?;
    let backend = fields.required("backendRef", object_ref);
    let path_prefix = fields.optional("pathPrefix", prefix).unwrap_or_default();
    let to_upstream = fields.list("headersToUpstream", header_name);
    let to_client = fields.list("headersToClient", header_name);
    fields.finish();
    Some(Authorizer::Http { backend: backend?, path_prefix, to_upstream, to_client })
}

fn prefix(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if given.starts_with('/') {
        return Some(given.trim_end_matches('/').to_owned());
    }
    report.error(node.span, format!("the path {given:?} must begin with a slash"))
}

fn body(node: &Node, report: &mut Report) -> Option<Body> {
    let mut fields = report.fields(node, "body")?;
    let max_bytes = fields.optional("maxBytes", integer(1, u32::MAX)).unwrap_or(8_192);
    let allow_partial = fields.optional("allowPartial", boolean).unwrap_or(false);
    fields.finish();
    Some(Body { max_bytes, allow_partial })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn nobody_passes_while_nobody_answers() {
        let auth = good("{grpc: {backendRef: {name: auth, port: 9000}}}", decode);
        assert!(!auth.fail_open);
        assert_eq!(auth.timeout, Duration::from_millis(200));
        let auth = good("{http: {backendRef: {name: auth, port: 80}, pathPrefix: /check/}}", decode);
        assert!(matches!(auth.by, Authorizer::Http { path_prefix, .. } if path_prefix == "/check"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(mistakes("{}", decode), ["1:4 externalAuthorization has either \"grpc\" or \"http\""]);
        assert_eq!(
            mistakes("{grpc: {backendRef: {name: auth}}}", decode),
            ["1:24 backendRef has no \"port\""]
        );
    }
}
