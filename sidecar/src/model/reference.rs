//! References from one object to another, as the Gateway API writes them.

use std::sync::Arc;

use super::filter::Filters;
use super::metadata::dns_name;
use super::route::RouteKind;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Fields, Report, integer, port, text};

/// A Service or Gateway, or a part of it, that a route attaches to.
#[derive(Debug, Clone, PartialEq)]
pub struct ParentRef {
    /// Where the reference stands.
    pub span: Span,
    /// What it refers to.
    pub kind: ParentKind,
    /// The parent's namespace, where it is given.
    pub namespace: Option<String>,
    /// The parent's name.
    pub name: String,
    /// Only this port.
    pub port: Option<u16>,
    /// Only the port, or the listener, of this name.
    pub section_name: Option<String>,
    /// Where that stands; where `span` is, without it.
    pub section_span: Span,
}

/// What a route can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentKind {
    /// A Gateway: requests from outside.
    Gateway,
    /// A Service: requests of the application to it.
    Service,
}

/// A port of a service as it is referred to (BackendObjectReference).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// Where the reference stands.
    pub span: Span,
    /// The service's namespace, where it is given.
    pub namespace: Option<String>,
    /// The service's name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Whether it is known to lead nowhere, for those whom Envoy itself asks.
    pub leads_nowhere: bool,
}

/// One of the destinations of connections.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRef {
    /// Where they go.
    pub backend: BackendRef,
    /// Its share; 0 means none.
    pub weight: u32,
}

/// One of the destinations of a rule (HTTPBackendRef, GRPCBackendRef).
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedRef {
    /// Where requests go.
    pub backend: BackendRef,
    /// Its share; 0 means none.
    pub weight: u32,
    /// What is done to the requests that go there, and to their answers.
    pub filters: Option<Arc<Filters>>,
}

/// The largest weight of the Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

/// Reads a ParentReference.
pub(super) fn parent_ref(node: &Node, report: &mut Report) -> Option<ParentRef> {
    let mut fields = report.fields(node, "parentRef")?;
    let group = fields.optional("group", text);
    let kind = fields.optional("kind", text);
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
    let port = fields.optional("port", port);
    let section_name = fields.optional("sectionName", text);
    let span = fields.key_span("name");
    let kind = parent_kind(group.as_deref(), kind.as_deref(), span, fields.report());
    fields.finish();
    let section_span = node.get("sectionName").map_or(span, |section| section.span);
    Some(ParentRef { span, kind: kind?, namespace, name: name?, port, section_name, section_span })
}

/// Group and kind default to a Gateway (ParentReference in the API reference).
fn parent_kind(
    group: Option<&str>,
    kind: Option<&str>,
    span: Span,
    report: &mut Report,
) -> Option<ParentKind> {
    match (group, kind.unwrap_or("Gateway")) {
        (Some("" | "core"), "Service") => Some(ParentKind::Service),
        (None | Some("gateway.networking.k8s.io"), "Gateway") => Some(ParentKind::Gateway),
        (None, "Service") => {
            let mistake = Diagnostic::error("a parentRef to a Service must name its group")
                .help("add group: \"\" (the default is gateway.networking.k8s.io)");
            report.add(span, mistake)
        }
        (_, kind) => {
            let mistake = Diagnostic::error(format!("a parentRef to a {kind} is not supported yet"))
                .help("attach the route to a Gateway, or to a Service with group: \"\", kind: Service");
            report.add(span, mistake)
        }
    }
}

/// Reads a BackendObjectReference.
pub(in crate::model) fn object_ref(node: &Node, report: &mut Report) -> Option<BackendRef> {
    let mut fields = report.fields(node, "backendRef")?;
    let backend = backend_of(&mut fields);
    fields.finish();
    backend
}

/// Reads a BackendRef, which has no filters.
pub(super) fn stream_ref(node: &Node, report: &mut Report) -> Option<StreamRef> {
    let mut fields = report.fields(node, "backendRef")?;
    let backend = backend_of(&mut fields);
    let weight = fields.optional("weight", integer(0, MAX_WEIGHT)).unwrap_or(1);
    fields.finish();
    Some(StreamRef { backend: backend?, weight })
}

/// Reads an HTTPBackendRef or GRPCBackendRef.
pub(super) fn backend_ref(node: &Node, report: &mut Report, of: RouteKind) -> Option<WeightedRef> {
    let mut fields = report.fields(node, "backendRef")?;
    let backend = backend_of(&mut fields);
    let weight = fields.optional("weight", integer(0, MAX_WEIGHT)).unwrap_or(1);
    let filters = Filters::decode(&mut fields, of);
    fields.finish();
    Some(WeightedRef { backend: backend?, weight, filters })
}

fn backend_of(fields: &mut Fields<'_, '_>) -> Option<BackendRef> {
    let group = fields.optional("group", text).unwrap_or_default();
    let kind = fields.optional("kind", text).unwrap_or_else(|| "Service".into());
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
    let port = fields.required("port", port);
    let span = fields.key_span("name");
    if kind != "Service" || !matches!(group.as_str(), "" | "core") {
        fields.report().error::<()>(span, format!("a backendRef to a {kind} is not supported yet"));
    }
    Some(BackendRef { span, namespace, name: name?, port: port?, leads_nowhere: false })
}
