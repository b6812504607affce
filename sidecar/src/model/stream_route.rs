//! `TLSRoute` and `TCPRoute` (gateway.networking.k8s.io): connections that are passed on as they are.

use super::hostname::Hostname;
use super::metadata::dns_name;
use super::reference::{ParentRef, StreamRef, parent_ref, stream_ref};
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Fields, Report};

/// A route of connections as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRoute {
    /// Which kind it is of.
    pub kind: StreamKind,
    /// The listeners whose connections it takes. Never empty.
    pub parents: Vec<ParentRef>,
    /// The server names it is for, by SNI; all that a listener is for without one. Empty in a TCPRoute.
    pub hostnames: Vec<Hostname>,
    /// Where its rule stands.
    pub rule: Span,
    /// Where connections go. Never empty.
    pub backends: Vec<StreamRef>,
}

/// The kinds of routes that are about connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// `TLSRoute`.
    Tls,
    /// `TCPRoute`.
    Tcp,
}

impl StreamKind {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

impl StreamRoute {
    /// Reads the `spec` of a `TLSRoute`.
    pub fn decode_tls(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "TLSRoute spec")?;
        let hostnames = fields.list("hostnames", Hostname::decode);
        Self::decode(StreamKind::Tls, hostnames, spec, fields)
    }

    /// Reads the `spec` of a `TCPRoute`.
    pub fn decode_tcp(spec: &Node, report: &mut Report) -> Option<Self> {
        let fields = report.fields(spec, "TCPRoute spec")?;
        Self::decode(StreamKind::Tcp, Vec::new(), spec, fields)
    }

    /// Rules have no matches, so that there can be one only (TLSRouteSpec.rules, TCPRouteSpec.rules).
    fn decode(
        kind: StreamKind,
        hostnames: Vec<Hostname>,
        spec: &Node,
        mut fields: Fields<'_, '_>,
    ) -> Option<Self> {
        let parents = fields.list("parentRefs", parent_ref);
        if spec.get("parentRefs").is_none_or(Node::is_empty) {
            fields.error::<()>("the route is attached to nothing: it has no \"parentRefs\"");
        }
        let mut rules = fields.list("rules", rule);
        if spec.get("rules").is_none_or(Node::is_empty) {
            fields.error::<()>("the route leads nowhere: it has no \"rules\"");
        }
        let rules_span = fields.key_span("rules");
        fields.unsupported(&["useDefaultGateways"]);
        if rules.len() > 1 {
            let mistake = Diagnostic::error(format!("a {} has one rule only", kind.name()))
                .help("rules of connections match nothing, so that the first would take them all");
            fields.report().add::<()>(rules_span, mistake);
        }
        fields.finish();
        let (rule, backends) = rules.pop()?;
        Some(Self { kind, parents, hostnames, rule, backends })
    }
}

fn rule(node: &Node, report: &mut Report) -> Option<(Span, Vec<StreamRef>)> {
    let mut fields = report.fields(node, "rule")?;
    fields.optional("name", |node, report| dns_name(node, report, false));
    let backends = fields.list("backendRefs", stream_ref);
    if node.get("backendRefs").is_none_or(Node::is_empty) {
        fields.error::<()>("the rule leads nowhere: it has no \"backendRefs\"");
    }
    fields.finish();
    Some((node.span, backends))
}
