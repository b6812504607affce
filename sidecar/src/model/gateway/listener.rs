//! A listener of a Gateway: Listener and ListenerTLSConfig.

use super::AllowedRoutes;
use crate::diagnostic::Span;
use crate::model::hostname::Hostname;
use crate::model::metadata::dns_name;
use crate::read::Node;
use crate::read::decode::{Report, one_of, port, text};

/// Where a Gateway takes connections, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where its name stands.
    pub span: Span,
    /// Its name, by which routes choose it (`sectionName`).
    pub name: String,
    /// The hosts it is for: all of them without one. Never there with [`Protocol::Tcp`].
    pub hostname: Option<Hostname>,
    /// Its port.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// How TLS is spoken; there with [`Protocol::Https`] and [`Protocol::Tls`] alone.
    pub tls: Option<Tls>,
    /// Which routes may attach to it.
    pub allowed: AllowedRoutes,
}

/// What is spoken on a listener: ProtocolType.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// The same in TLS that ends here.
    Https,
    /// TLS, which ends here or is passed on.
    Tls,
    /// Anything in TCP.
    Tcp,
    /// What is not supported, by the name it was given.
    Other(String),
}

/// ListenerTLSConfig.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Whether it is passed on unopened.
    pub passthrough: bool,
    /// Certificates to show, where it ends here.
    pub certificates: Vec<SecretRef>,
}

/// SecretObjectReference.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretRef {
    /// Where it stands.
    pub span: Span,
    /// Group and kind of what it refers to; a Secret of the core group by default.
    pub target: (String, String),
    /// The namespace, where it is given.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl Protocol {
    /// Core protocols are told without regard to case (ProtocolType).
    fn of(name: String) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            _ => Self::Other(name),
        }
    }

    /// Whether TLS tells one listener on a port from another.
    pub fn has_tls(&self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

impl Listener {
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "listener")?;
        let name = fields.required("name", |node, report| dns_name(node, report, false));
        let hostname = fields.optional("hostname", hostname).flatten();
        let port = fields.required("port", port);
        let protocol = fields.required("protocol", text).map(Protocol::of);
        let tls = fields.optional("tls", tls);
        let allowed = fields.optional("allowedRoutes", AllowedRoutes::decode).unwrap_or_default();
        let (span, tls_span) = (fields.key_span("name"), fields.key_span("tls"));
        let hostname_span = fields.key_span("hostname");
        fields.finish();
        let protocol = protocol?;
        if let Some(mistake) = wrong_tls(&protocol, tls.as_ref()) {
            report.error::<()>(tls_span, mistake);
        }
        if protocol == Protocol::Tcp && hostname.is_some() {
            report.error::<()>(hostname_span, "a listener with protocol TCP cannot know a hostname");
        }
        Some(Self { span, name: name?, hostname, port: port?, protocol, tls, allowed })
    }

    /// Whether the API takes the two for the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.port, &self.protocol, &self.hostname) == (other.port, &other.protocol, &other.hostname)
    }

    /// Whether TLS ends here.
    pub fn terminates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.passthrough)
    }
}

/// An empty one is none (Listener.hostname).
fn hostname(node: &Node, report: &mut Report) -> Option<Option<Hostname>> {
    match text(node, report)?.as_str() {
        "" => Some(None),
        _ => Hostname::decode(node, report).map(Some),
    }
}

/// The API's own validation (GatewaySpec.listeners).
fn wrong_tls(protocol: &Protocol, tls: Option<&Tls>) -> Option<&'static str> {
    match (protocol, tls) {
        (Protocol::Https | Protocol::Tls, None) => Some("a listener with this protocol needs \"tls\""),
        (Protocol::Https, Some(tls)) if tls.passthrough => {
            Some("what is passed on unopened has protocol TLS, not HTTPS")
        }
        (Protocol::Https | Protocol::Tls, Some(tls)) if !tls.passthrough && tls.certificates.is_empty() => {
            Some("TLS that ends here needs \"certificateRefs\"")
        }
        (Protocol::Http | Protocol::Tcp, Some(_)) => {
            Some("a listener with this protocol cannot have \"tls\"")
        }
        _ => None,
    }
}

fn tls(node: &Node, report: &mut Report) -> Option<Tls> {
    let mut fields = report.fields(node, "tls")?;
    let modes = [("Terminate", false), ("Passthrough", true)];
    let passthrough = fields.optional("mode", one_of(&modes)).unwrap_or(false);
    let certificates = fields.list("certificateRefs", secret_ref);
    fields.unsupported(&["options", "frontendValidation"]);
    fields.finish();
    Some(Tls { passthrough, certificates })
}

fn secret_ref(node: &Node, report: &mut Report) -> Option<SecretRef> {
    let mut fields = report.fields(node, "certificateRef")?;
    let group = fields.optional("group", text).unwrap_or_default();
    let kind = fields.optional("kind", text).unwrap_or_else(|| "Secret".into());
    let namespace = fields.optional("namespace", |node, report| dns_name(node, report, true));
    let name = fields.required("name", |node, report| dns_name(node, report, false));
    let span = fields.key_span("name");
    fields.finish();
    let group = if group == "core" { String::new() } else { group };
    Some(SecretRef { span, target: (group, kind), namespace, name: name? })
}
