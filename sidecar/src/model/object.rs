//! One document to one object.

use super::backend_tls::BackendTlsPolicy;
use super::envoy_patch::EnvoyPatch;
use super::gateway::{Gateway, GatewayClass};
use super::metadata::Metadata;
use super::policy::TrafficPolicy;
use super::reference_grant::ReferenceGrant;
use super::route::Route;
use super::secret::Secret;
use super::service::{EndpointSlice, Service};
use super::sidecar::Sidecar;
use super::stream_route::StreamRoute;
use super::{grpc_route, http_route};
use crate::diagnostic::{Diagnostic, Origin, Span};
use crate::read::decode::{Fields, Report, Shape, describe, text};
use crate::read::{Entry, Node, Value};

/// The fields that every Kubernetes object may have beside its own.
pub const COMMON_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// A document that is right in itself; whether its references lead anywhere is for the whole to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where its name stands, which is the place that messages about the whole document show.
    pub origin: Origin,
    /// The file it is in, with the place of anything else being taken from it.
    pub metadata: Metadata,
    /// What it says.
    pub object: Object,
}

/// What a document can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// This workload.
    Sidecar(Box<Sidecar>),
    /// A service it may call.
    Service(Service),
    /// Endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// How requests to a service are distributed.
    HttpRoute(Route),
    /// The same for gRPC.
    GrpcRoute(Route),
    /// What other namespaces may refer to.
    ReferenceGrant(ReferenceGrant),
    /// What else holds for requests and endpoints.
    TrafficPolicy(Box<TrafficPolicy>),
    /// Where requests from outside enter.
    Gateway(Gateway),
    /// Who plays Gateways.
    GatewayClass(GatewayClass),
    /// Where connections go, by the server name that they ask for; or all of them.
    StreamRoute(StreamRoute),
    /// That a Service is spoken to in TLS.
    BackendTlsPolicy(BackendTlsPolicy),
    /// Certificates and private keys.
    Secret(Secret),
    /// Certificates of authorities.
    ConfigMap(Secret),
    /// The labels of a namespace, which its metadata has.
    Namespace,
    /// Changes of Envoy's own resources.
    EnvoyPatch(EnvoyPatch),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sidecar,
    Service,
    EndpointSlice,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    TrafficPolicy,
    Gateway,
    GatewayClass,
    TlsRoute,
    TcpRoute,
    BackendTlsPolicy,
    Secret,
    ConfigMap,
    Namespace,
    EnvoyPatch,
}

const GATEWAY: &[&str] = &["gateway.networking.k8s.io/v1"];
const GATEWAY_OR_BETA: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

const TLS_ROUTE: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
const TCP_ROUTE: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"];
const BACKEND_TLS: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"];

/// Each kind with its versions, all of which have the same shape; the first is the one to write.
const KINDS: &[(&[&str], &str, Kind)] = &[
    (&["weft.dev/v1alpha1"], "Sidecar", Kind::Sidecar),
    (&["v1"], "Service", Kind::Service),
    (&["discovery.k8s.io/v1"], "EndpointSlice", Kind::EndpointSlice),
    (GATEWAY_OR_BETA, "HTTPRoute", Kind::HttpRoute),
    (GATEWAY, "GRPCRoute", Kind::GrpcRoute),
    (GATEWAY_OR_BETA, "ReferenceGrant", Kind::ReferenceGrant),
    (&["weft.dev/v1alpha1"], "TrafficPolicy", Kind::TrafficPolicy),
    (GATEWAY_OR_BETA, "Gateway", Kind::Gateway),
    (GATEWAY_OR_BETA, "GatewayClass", Kind::GatewayClass),
    (TLS_ROUTE, "TLSRoute", Kind::TlsRoute),
    (TCP_ROUTE, "TCPRoute", Kind::TcpRoute),
    (BACKEND_TLS, "BackendTLSPolicy", Kind::BackendTlsPolicy),
    (&["v1"], "Secret", Kind::Secret),
    (&["v1"], "ConfigMap", Kind::ConfigMap),
    (&["v1"], "Namespace", Kind::Namespace),
    (&["weft.dev/v1alpha1"], "EnvoyPatch", Kind::EnvoyPatch),
];

/// Kinds that the vocabulary has and that have no effect yet: refused, so that nobody relies on them.
const KNOWN_BUT_UNSUPPORTED: &[&str] = &["ListenerSet", "UDPRoute"];

/// Every kind that is read, with the versions of its `apiVersion`, and what its documents may hold.
pub fn kinds() -> impl Iterator<Item = (&'static [&'static str], &'static str, Shape)> {
    KINDS.iter().map(|(versions, kind, _)| {
        let version = versions.first().copied().unwrap_or_default();
        let entry = |key: &str, value: &str| Entry {
            key: key.into(),
            key_span: Span::default(),
            value: Node { span: Span::default(), value: Value::Text(value.into()) },
        };
        let entries = vec![entry("apiVersion", version), entry("kind", kind)];
        let document = Node { span: Span::default(), value: Value::Map(entries) };
        (*versions, *kind, describe(&document, Document::decode))
    })
}

/// The documents that `node` holds: itself, or the items of a `List`, as `kubectl get -o yaml` prints several objects.
pub fn items<'n>(node: &'n Node, report: &mut Report) -> Vec<&'n Node> {
    let says = |key: &str, wanted: &str| {
        node.get(key).is_some_and(|value| matches!(&value.value, Value::Text(text) if text == wanted))
    };
    if !says("apiVersion", "v1") || !says("kind", "List") {
        return vec![node];
    }
    let Some(mut fields) = report.fields(node, "a List") else { return Vec::new() };
    fields.accept(&["apiVersion", "kind", "metadata"]);
    let items = fields.list("items", |item, _| Some(item));
    fields.finish();
    items
}

impl Document {
    /// Reads a document. `Some` may come with errors in the report; then it must not be used.
    pub fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "a document")?;
        let kind = decode_kind(node, &mut fields)?;
        fields.accept(COMMON_FIELDS);
        let label = matches!(kind, Kind::Service | Kind::Namespace);
        let metadata = fields.required("metadata", |node, report| Metadata::decode(node, report, label));
        if kind == Kind::Sidecar || kind == Kind::Service {
            refuse_tags(metadata.as_ref(), fields.report());
        }
        let object = decode_object(kind, node, metadata.as_ref(), &mut fields);
        if !kind.has_fields_of_its_own() {
            fields.finish();
        }
        let metadata = metadata?;
        Some(Self { origin: report.origin(metadata.span), metadata, object: object? })
    }
}

/// A workload has its own place for tags, and a service none: who answers is said by what refers to it.
fn refuse_tags(metadata: Option<&Metadata>, report: &mut Report) {
    if let Some(metadata) = metadata.filter(|metadata| !metadata.tags.is_empty()) {
        let mistake = Diagnostic::error("annotations give tags to routes, not to this")
            .help("the tags of a workload are spec.tags of its Sidecar");
        report.add::<()>(metadata.span, mistake);
    }
}

impl Kind {
    /// Whether what it says stands beside its metadata, without a `spec`.
    fn has_fields_of_its_own(self) -> bool {
        matches!(self, Self::EndpointSlice | Self::Secret | Self::ConfigMap)
    }
}

fn decode_kind(node: &Node, fields: &mut Fields<'_, '_>) -> Option<Kind> {
    let version = fields.required("apiVersion", text);
    let kind = fields.required("kind", text);
    let (version, kind) = (version?, kind?);
    let Some((versions, _, found)) = KINDS.iter().find(|(_, name, _)| *name == kind) else {
        let span = node.get("kind").map_or(node.span, |kind| kind.span);
        return fields.report().add(span, unknown_kind(&kind));
    };
    if versions.contains(&version.as_str()) {
        return Some(*found);
    }
    let span = node.get("apiVersion").map_or(node.span, |version| version.span);
    let mistake = Diagnostic::error(format!("{kind} has no apiVersion {version:?}"))
        .help(format!("use {}", versions.first().copied().unwrap_or_default()));
    fields.report().add(span, mistake)
}

fn unknown_kind(kind: &str) -> Diagnostic {
    if KNOWN_BUT_UNSUPPORTED.contains(&kind) {
        return Diagnostic::error(format!("{kind} is not supported yet"));
    }
    let all = KINDS.iter().map(|(_, name, _)| *name).chain(KNOWN_BUT_UNSUPPORTED.iter().copied());
    let known = KINDS.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ");
    Diagnostic::error(format!("unknown kind {kind:?}")).help(format!("there are {known}")).nearest(kind, all)
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
            let sidecar = spec.unwrap_or_else(|| Sidecar::decode(metadata?, None, fields.report()));
            sidecar.map(|sidecar| Object::Sidecar(Box::new(sidecar)))
        }
        Kind::Service => fields.required("spec", Service::decode).map(Object::Service),
        Kind::EndpointSlice => {
            EndpointSlice::decode(metadata?, node, fields.report()).map(Object::EndpointSlice)
        }
        Kind::HttpRoute => fields.required("spec", http_route::decode).map(Object::HttpRoute),
        Kind::GrpcRoute => fields.required("spec", grpc_route::decode).map(Object::GrpcRoute),
        Kind::ReferenceGrant => fields.required("spec", ReferenceGrant::decode).map(Object::ReferenceGrant),
        Kind::EnvoyPatch => fields.required("spec", EnvoyPatch::decode).map(Object::EnvoyPatch),
        Kind::TrafficPolicy => {
            fields.required("spec", TrafficPolicy::decode).map(Box::new).map(Object::TrafficPolicy)
        }
        Kind::Gateway => fields.required("spec", Gateway::decode).map(Object::Gateway),
        Kind::GatewayClass => fields.required("spec", GatewayClass::decode).map(Object::GatewayClass),
        Kind::TlsRoute => fields.required("spec", StreamRoute::decode_tls).map(Object::StreamRoute),
        Kind::TcpRoute => fields.required("spec", StreamRoute::decode_tcp).map(Object::StreamRoute),
        Kind::BackendTlsPolicy => {
            fields.required("spec", BackendTlsPolicy::decode).map(Object::BackendTlsPolicy)
        }
        Kind::Secret => Secret::decode(node, fields.report()).map(Object::Secret),
        Kind::ConfigMap => Secret::decode_config_map(node, fields.report()).map(Object::ConfigMap),
        Kind::Namespace => {
            fields.accept(&["spec"]);
            Some(Object::Namespace)
        }
    }
}
