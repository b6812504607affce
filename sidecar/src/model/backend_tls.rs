//! `BackendTLSPolicy` (gateway.networking.k8s.io): that a Service is spoken to in TLS, and how it proves who it is.

use super::hostname::Hostname;
use super::metadata::dns_name;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// A policy as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendTlsPolicy {
    /// The Services it is about, of its own namespace. Never empty.
    pub targets: Vec<TlsTarget>,
    /// Who is trusted.
    pub authorities: Authorities,
    /// The name that is asked for by SNI, and that the certificate must have unless `names` says otherwise.
    pub hostname: Hostname,
    /// Names one of which the certificate must have, instead of the host's.
    pub names: Vec<SubjectAltName>,
}

/// A Service, or one port of it: LocalPolicyTargetReferenceWithSectionName.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsTarget {
    /// Where it stands.
    pub span: Span,
    /// The Service's name.
    pub name: String,
    /// Only the port of this name.
    pub section_name: Option<String>,
}

/// Whose signature makes a certificate a good one.
#[derive(Debug, Clone, PartialEq)]
pub enum Authorities {
    /// Those that the system trusts: `wellKnownCACertificates: System`.
    System,
    /// Those in these objects. Never empty.
    In(Vec<AuthorityRef>),
}

/// An object with the certificates of authorities: LocalObjectReference.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityRef {
    /// Where it stands.
    pub span: Span,
    /// Its group and kind.
    pub target: (String, String),
    /// Its name.
    pub name: String,
}

/// A name that a certificate can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A host; `*.` stands for one or more labels.
    Dns(Hostname),
    /// A URI, as a SPIFFE ID.
    Uri(String),
}

impl BackendTlsPolicy {
    /// Reads the `spec` of a `BackendTLSPolicy`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "BackendTLSPolicy spec")?;
        let targets = fields.list("targetRefs", target);
        if spec.get("targetRefs").is_none_or(Node::is_empty) {
            fields.error::<()>("the policy is about nothing: it has no \"targetRefs\"");
        }
        let validation = fields.required("validation", validation);
        fields.unsupported(&["options"]);
        fields.finish();
        let (authorities, hostname, names) = validation?;
        Some(Self { targets, authorities, hostname, names })
    }
}

fn target(node: &Node, report: &mut Report) -> Option<TlsTarget> {
    let mut fields = report.fields(node, "targetRef")?;
    let group = fields.required("group", text);
    let kind = fields.required("kind", text);
    let name = fields.required("name", |node, report| dns_name(node, report, true));
    let section_name = fields.optional("sectionName", text);
    let span = fields.key_span("name");
    fields.finish();
    let (group, kind) = (group?, kind?);
    if kind != "Service" || !matches!(group.as_str(), "" | "core") {
        let mistake = Diagnostic::error(format!("a BackendTLSPolicy for a {kind} is not supported yet"))
            .help("Services can be its targets: group: \"\", kind: Service");
        return report.add(span, mistake);
    }
    Some(TlsTarget { span, name: name?, section_name })
}

type Validation = (Authorities, Hostname, Vec<SubjectAltName>);

fn validation(node: &Node, report: &mut Report) -> Option<Validation> {
    let mut fields = report.fields(node, "validation")?;
    let refs = fields.list("caCertificateRefs", authority);
    let system = fields.optional("wellKnownCACertificates", one_of(&[("System", true), ("", false)]));
    let hostname = fields.required("hostname", Hostname::precise);
    let names = fields.list("subjectAltNames", subject_alt_name);
    let given = node.get("caCertificateRefs").is_some_and(|refs| !refs.is_empty());
    let system = system.unwrap_or(false);
    if given == system {
        let mistake = if given {
            "caCertificateRefs and wellKnownCACertificates exclude each other"
        } else {
            "either caCertificateRefs or wellKnownCACertificates must say who is trusted"
        };
        fields.error::<()>(mistake);
    }
    fields.finish();
    Some((if system { Authorities::System } else { Authorities::In(refs) }, hostname?, names))
}

fn authority(node: &Node, report: &mut Report) -> Option<AuthorityRef> {
    let mut fields = report.fields(node, "caCertificateRef")?;
    let group = fields.required("group", text);
    let kind = fields.required("kind", text);
    let name = fields.required("name", |node, report| dns_name(node, report, false));
    let span = fields.key_span("name");
    fields.finish();
    let group = group.map(|group| if group == "core" { String::new() } else { group });
    Some(AuthorityRef { span, target: (group?, kind?), name: name? })
}

fn subject_alt_name(node: &Node, report: &mut Report) -> Option<SubjectAltName> {
    let mut fields = report.fields(node, "subjectAltName")?;
    let is_host = fields.required("type", one_of(&[("Hostname", true), ("URI", false)]));
    let hostname = fields.optional("hostname", Hostname::decode);
    let uri = fields.optional("uri", absolute_uri);
    fields.finish();
    match (is_host?, hostname, uri) {
        (true, Some(name), None) => Some(SubjectAltName::Dns(name)),
        (false, None, Some(uri)) => Some(SubjectAltName::Uri(uri)),
        (true, ..) => report.error(node.span, "a name of type Hostname has a \"hostname\", and no \"uri\""),
        (false, ..) => report.error(node.span, "a name of type URI has a \"uri\", and no \"hostname\""),
    }
}

fn absolute_uri(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let scheme = given.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme && !given.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} is not a URI with a scheme, as spiffe://example.com/web"))
}
