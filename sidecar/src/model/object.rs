//! One document to one object.

use super::http_route;
use super::metadata::Metadata;
use super::route::Route;
use super::service::{EndpointSlice, Service};
use super::sidecar::Sidecar;
use crate::diagnostic::{Diagnostic, Origin, Span};
use crate::read::decode::{Fields, Report, Shape, describe, text};
use crate::read::{Entry, Node, Value};

/// The fields that every Kubernetes object may have beside its own.
pub const COMMON_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// A document that is right in itself; whether its references lead anywhere is for the whole to say.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where its name stands, which is the place that messages about the whole document show.
    pub origin: Origin,
    /// The file it is in, with the place of anything else being taken from it.
    pub metadata: Metadata,
    /// What it says.
    pub object: Object,
}

/// What a document can be.
#[derive(Debug, Clone)]
pub enum Object {
    /// This workload.
    Sidecar(Sidecar),
    /// A service it may call.
    Service(Service),
    /// Endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// How requests to a service are distributed.
    HttpRoute(Route),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sidecar,
    Service,
    EndpointSlice,
    HttpRoute,
}

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

const KINDS: &[(&str, &str, Kind)] = &[
    ("weft.dev/v1alpha1", "Sidecar", Kind::Sidecar),
    ("v1", "Service", Kind::Service),
    ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
    (GATEWAY, "HTTPRoute", Kind::HttpRoute),
];

/// Kinds that the vocabulary has and that have no effect yet: refused, so that nobody relies on them.
const KNOWN_BUT_UNSUPPORTED: &[&str] = &[
    "BackendTLSPolicy",
    "EnvoyPatch",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "List",
    "ReferenceGrant",
    "Secret",
    "TCPRoute",
    "TLSRoute",
    "TrafficPolicy",
];

/// Every kind that is read, with its `apiVersion`, and what its documents may hold.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, Shape)> {
    KINDS.iter().map(|(version, kind, _)| {
        let entry = |key: &str, value: &str| Entry {
            key: key.into(),
            key_span: Span::default(),
            value: Node { span: Span::default(), value: Value::Text(value.into()) },
        };
        let entries = vec![entry("apiVersion", version), entry("kind", kind)];
        let document = Node { span: Span::default(), value: Value::Map(entries) };
        (*version, *kind, describe(&document, Document::decode))
    })
}

impl Document {
    /// Reads a document. `Some` may come with errors in the report; then it must not be used.
    pub fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "a document")?;
        let kind = decode_kind(node, &mut fields)?;
        fields.accept(COMMON_FIELDS);
        let label = kind == Kind::Service;
        let metadata = fields.required("metadata", |node, report| Metadata::decode(node, report, label));
        let object = decode_object(kind, node, metadata.as_ref(), &mut fields);
        if kind != Kind::EndpointSlice {
            fields.finish();
        }
        let metadata = metadata?;
        Some(Self { origin: report.origin(metadata.span), metadata, object: object? })
    }
}

fn decode_kind(node: &Node, fields: &mut Fields<'_, '_>) -> Option<Kind> {
    let version = fields.required("apiVersion", text);
    let kind = fields.required("kind", text);
    let (version, kind) = (version?, kind?);
    let Some((right_version, _, found)) = KINDS.iter().find(|(_, name, _)| *name == kind) else {
        let span = node.get("kind").map_or(node.span, |kind| kind.span);
        return fields.report().add(span, unknown_kind(&kind));
    };
    if version == *right_version {
        return Some(*found);
    }
    let span = node.get("apiVersion").map_or(node.span, |version| version.span);
    let mistake = Diagnostic::error(format!("{kind} has no apiVersion {version:?}"))
        .help(format!("use {right_version}"));
    fields.report().add(span, mistake)
}

fn unknown_kind(kind: &str) -> Diagnostic {
    if KNOWN_BUT_UNSUPPORTED.contains(&kind) {
        return Diagnostic::error(format!("{kind} is not supported yet"));
    }
    let all = KINDS.iter().map(|(_, name, _)| *name).chain(KNOWN_BUT_UNSUPPORTED.iter().copied());
    Diagnostic::error(format!("unknown kind {kind:?}")).nearest(kind, all)
}

fn decode_object(
    kind: Kind,
    node: &Node,
    metadata: Option<&Metadata>,
    fields: &mut Fields<'_, '_>,
) -> Option<Object> {
    match kind {
        Kind::Sidecar => {
            let spec =
                fields.optional("spec", |node, report| Some(Sidecar::decode(metadata?, Some(node), report)));
            spec.unwrap_or_else(|| Sidecar::decode(metadata?, None, fields.report())).map(Object::Sidecar)
        }
        Kind::Service => fields.required("spec", Service::decode).map(Object::Service),
        Kind::EndpointSlice => {
            EndpointSlice::decode(metadata?, node, fields.report()).map(Object::EndpointSlice)
        }
        Kind::HttpRoute => fields.required("spec", http_route::decode).map(Object::HttpRoute),
    }
}
