//! What enters from outside, with all references resolved: listeners of Gateways, and who proves to be whom.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::backend_tls::SubjectAltName;
use super::filter::Scheme;
use super::hostname::Hostname;
use super::secret::KeyPair;
use super::{Backend, Rule, ServiceKey};
use crate::diagnostic::Origin;

/// A listener of a Gateway at one of its addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct Entrance {
    /// The Gateway.
    pub gateway: ServiceKey,
    /// The listener's name in it.
    pub listener: String,
    /// Where the listener stands.
    pub origin: Origin,
    /// The hosts it is for; all that no other listener of the port is for without one.
    pub hostname: Option<Hostname>,
    /// The certificates that it shows, by name, if TLS ends here. Never an empty list.
    pub certificates: Option<Vec<String>>,
    /// What it does with connections.
    pub content: Content,
}

/// What is done with the connections of a listener.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Requests are routed.
    Requests(Vec<Host>),
    /// They are passed on, each by the server name that it asks for.
    Streams(Vec<Stream>),
}

/// The requests to some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The hosts; without one all that the listener is for.
    pub name: Option<Hostname>,
    /// Requests are routed by the first of these that matches; one that none matches is answered with 404.
    pub rules: Vec<Arc<Rule>>,
}

/// The connections to some hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The hosts, by SNI; without one all that the listener is for.
    pub name: Option<Hostname>,
    /// `namespace/name` of the route.
    pub route: ServiceKey,
    /// Its rule.
    pub origin: Origin,
    /// Where connections go, in proportion to the weights; those to a backend that is not there are closed.
    pub shares: Vec<(Option<Backend>, NonZeroU32)>,
}

/// A piece of a proof, which Envoy asks for by name, so that a new one changes nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// The document it is in.
    pub origin: Origin,
    /// What it is.
    pub content: ProofContent,
}

/// What proves who somebody is.
#[derive(Debug, Clone, PartialEq)]
pub enum ProofContent {
    /// What a server shows.
    KeyPair(KeyPair),
    /// The certificates of authorities, in PEM.
    Authorities(Arc<[u8]>),
}

/// How a server that is spoken to in TLS proves who it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Trust {
    /// The policy that says so.
    pub origin: Origin,
    /// The name of the certificates of the authorities; the system's without one.
    pub authorities: Option<String>,
    /// The name that is asked for by SNI.
    pub server_name: Hostname,
    /// Names one of which the certificate must have. Never empty.
    pub names: Vec<SubjectAltName>,
}

impl Entrance {
    /// `namespace/gateway/listener`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.gateway, self.listener)
    }

    /// As what clients know it.
    pub fn scheme(&self) -> Scheme {
        if self.certificates.is_some() { Scheme::Https } else { Scheme::Http }
    }
}
