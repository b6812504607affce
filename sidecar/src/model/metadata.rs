//! The metadata that all objects share.

use super::tag::{self, Tag};
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Report, text, texts};

/// Fields that a cluster adds to objects and that mean nothing here.
const FROM_THE_CLUSTER: &[&str] = &[
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An object's name and what else identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// Its namespace, where the document gives one.
    pub namespace: Option<String>,
    /// Its labels, in the order of the document.
    pub labels: Vec<(String, String)>,
    /// When it was created, as RFC 3339 in UTC, where the document says so. Compares as the times do.
    pub created: Option<String>,
    /// The tags that its annotations give it, sorted by key.
    pub tags: Vec<Tag>,
}

impl Metadata {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == key).map(|(_, value)| value.as_str())
    }

    /// Reads `metadata`; the name must be a DNS subdomain or, if `label`, a DNS label (RFC 1123).
    pub fn decode(node: &Node, report: &mut Report, label: bool) -> Option<Self> {
        let mut fields = report.fields(node, "metadata")?;
        let name = fields.required("name", |node, report| dns_name(node, report, label));
        let span = node.get("name").map_or(node.span, |name| name.span);
        let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
        let labels = fields.optional("labels", texts).unwrap_or_default();
        let tags = fields.optional("annotations", tag::of_annotations).unwrap_or_default();
        let created = fields.optional("creationTimestamp", timestamp);
        fields.accept(FROM_THE_CLUSTER);
        fields.finish();
        let labels = labels.into_iter().map(|(entry, value)| (entry.key.clone(), value)).collect();
        Some(Self { name: name?, span, namespace, labels, created, tags })
    }
}

/// A DNS label, or a subdomain of several.
pub fn dns_name(node: &Node, report: &mut Report, label: bool) -> Option<String> {
    let given = text(node, report)?;
    let (longest, kind) = if label { (63, "DNS label") } else { (253, "DNS name") };
    let parts_fit = if label { is_dns_label(&given) } else { given.split('.').all(is_dns_label) };
    if parts_fit && given.len() <= longest {
        return Some(given);
    }
    report.add(
        node.span,
        Diagnostic::error(format!("{given:?} is not a {kind}"))
            .help("use lower-case letters, digits and dashes, with a letter or digit at both ends"),
    )
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Kubernetes writes times in UTC and to the second, so that texts compare as times do; nothing else is taken.
fn timestamp(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let shape = "0000-00-00T00:00:00Z";
    let fits = given.len() == shape.len()
        && given.bytes().zip(shape.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        });
    if fits {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} is not a time as 2026-01-31T12:00:00Z"))
}
