//! `ReferenceGrant` (gateway.networking.k8s.io): what other namespaces may refer to.

use super::metadata::dns_name;
use crate::read::Node;
use crate::read::decode::{Report, text};

/// A permission, given by the namespace that the document is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Who may refer. Never empty.
    pub from: Vec<GrantFrom>,
    /// To what. Never empty.
    pub to: Vec<GrantTo>,
}

/// The objects of a kind in another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFrom {
    /// Their group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// The objects of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTo {
    /// Their group; empty for the core of Kubernetes.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Only the one of this name.
    pub name: Option<String>,
}

impl ReferenceGrant {
    /// Reads the `spec` of a `ReferenceGrant`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "ReferenceGrant spec")?;
        let grant = Self { from: fields.list("from", from), to: fields.list("to", to) };
        for list in ["from", "to"] {
            if spec.get(list).is_none_or(Node::is_empty) {
                fields.error::<()>(format!("the grant permits nothing: it has no {list:?}"));
            }
        }
        fields.finish();
        Some(grant)
    }
}

fn from(node: &Node, report: &mut Report) -> Option<GrantFrom> {
    let mut fields = report.fields(node, "from")?;
    let group = fields.required("group", group);
    let kind = fields.required("kind", text);
    let namespace = fields.required("namespace", |node, report| dns_name(node, report, true));
    fields.finish();
    Some(GrantFrom { group: group?, kind: kind?, namespace: namespace? })
}

fn to(node: &Node, report: &mut Report) -> Option<GrantTo> {
    let mut fields = report.fields(node, "to")?;
    let group = fields.required("group", group);
    let kind = fields.required("kind", text);
    let name = fields.optional("name", |node, report| dns_name(node, report, false));
    fields.finish();
    Some(GrantTo { group: group?, kind: kind?, name })
}

/// "core" is taken for the empty group, as it is elsewhere.
fn group(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    Some(if given == "core" { String::new() } else { given })
}
