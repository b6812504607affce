//! The listeners of all Gateways: which can be served, and what keeps the others from it, in the words of the API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::grants::Reference;
use super::index::Index;
use crate::diagnostic::Span;
use crate::model::gateway::{Gateway, Listener, Protocol, SecretRef};
use crate::model::{Document, ServiceKey};

pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// What keeps something from being as its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The API's word for it.
    pub(super) reason: &'static str,
    /// What it is.
    pub(super) message: String,
    /// The place in the document.
    pub(super) span: Span,
}

/// A Gateway that is played here.
pub(super) struct Played<'d> {
    pub(super) document: &'d Document,
    /// Where it listens.
    pub(super) addresses: Vec<IpAddr>,
    /// Why it does not, at an address or at all.
    pub(super) problem: Option<Problem>,
    pub(super) listeners: Vec<State<'d>>,
}

/// A listener and what is known of it.
pub(super) struct State<'d> {
    pub(super) listener: &'d Listener,
    /// That it cannot be told from another one.
    pub(super) conflict: Option<Problem>,
    /// Why it cannot be accepted otherwise.
    pub(super) refusal: Option<Problem>,
    /// References that lead nowhere.
    pub(super) unresolved: Vec<Problem>,
    /// The Secrets with its certificates, as far as they are good.
    pub(super) certificates: Vec<ServiceKey>,
    /// The kinds of routes that it takes.
    pub(super) kinds: Vec<&'static str>,
}

/// All of them, by namespace and name.
pub(super) type AllPlayed<'d> = BTreeMap<ServiceKey, Played<'d>>;

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { reason, message: message.into(), span }
    }

    /// Whether it is a reference, and not something that is not supported.
    pub(super) fn leads_nowhere(&self) -> bool {
        matches!(self.reason, "InvalidCertificateRef" | "RefNotPermitted")
    }
}

impl State<'_> {
    /// Whether it is served: accepted, and with what it needs.
    pub(super) fn is_served(&self) -> bool {
        let has_certificates = !self.listener.terminates() || !self.certificates.is_empty();
        self.conflict.is_none() && self.refusal.is_none() && has_certificates && !self.kinds.is_empty()
    }
}

impl<'d> Index<'d> {
    /// Looks at all Gateways: whatever their class, nobody else reads these files.
    pub(super) fn played(&self) -> AllPlayed<'d> {
        let gateways = self.ingress.gateways.iter();
        let mut all: AllPlayed<'d> = gateways
            .map(|(key, (document, gateway))| (key.clone(), self.played_one(key, document, gateway)))
            .collect();
        let conflicts = conflicts(&all);
        for ((key, at), problem) in conflicts {
            if let Some(state) = all.get_mut(&key).and_then(|played| played.listeners.get_mut(at)) {
                state.conflict = Some(problem);
            }
        }
        all
    }

    fn played_one(&self, key: &ServiceKey, document: &'d Document, gateway: &'d Gateway) -> Played<'d> {
        let mut addresses = addresses(gateway);
        let unusable = gateway.addresses.iter().find(|address| address.ip.is_none());
        let problem = unusable.map(|address| {
            let message = "only IP addresses can be listened on, and none is assigned by itself";
            Problem::new("UnsupportedAddress", message, address.span)
        });
        if problem.is_some() {
            addresses.clear();
        }
        let states = gateway.listeners.iter().map(|listener| self.state(key, listener, &addresses));
        Played { document, listeners: states.collect(), addresses, problem }
    }

    fn state(&self, gateway: &ServiceKey, listener: &'d Listener, addresses: &[IpAddr]) -> State<'d> {
        let (kinds, mut unresolved) = kinds(listener);
        let mut certificates = Vec::new();
        let references = listener.tls.iter().filter(|tls| !tls.passthrough).flat_map(|tls| &tls.certificates);
        for reference in references {
            match self.certificate(gateway, reference) {
                Ok(key) => certificates.push(key),
                Err(problem) => unresolved.push(problem),
            }
        }
        let refusal = unsupported(listener).or_else(|| self.taken(listener, addresses));
        State { listener, conflict: None, refusal, unresolved, certificates, kinds }
    }

    /// The Secret that a listener refers to (ListenerTLSConfig.certificateRefs).
    fn certificate(&self, gateway: &ServiceKey, reference: &SecretRef) -> Result<ServiceKey, Problem> {
        let invalid = |message: String| Problem::new("InvalidCertificateRef", message, reference.span);
        let (group, kind) = (&reference.target.0, &reference.target.1);
        if (group.as_str(), kind.as_str()) != ("", "Secret") {
            return Err(invalid(format!("a certificate is in a Secret, not in a {kind}")));
        }
        let namespace = reference.namespace.as_ref().unwrap_or(&gateway.namespace);
        let key = ServiceKey { namespace: namespace.clone(), name: reference.name.clone() };
        let permitted = self.grants.permit(Reference {
            from: (GROUP, "Gateway"),
            from_namespace: &gateway.namespace,
            to: ("", "Secret"),
            to_namespace: &key.namespace,
            to_name: &key.name,
        });
        if !permitted {
            let message = format!("Secret {key} is in another namespace, which does not permit it");
            return Err(Problem::new("RefNotPermitted", message, reference.span));
        }
        let (_, secret) =
            self.ingress.secrets.get(&key).ok_or_else(|| invalid(format!("there is no Secret {key}")))?;
        let flawed = |why: String| invalid(format!("Secret {key} has no certificate: {why}"));
        secret.key_pair().map(|_| key.clone()).map_err(flawed)
    }

    /// The sidecar's own listeners were there first.
    fn taken(&self, listener: &Listener, addresses: &[IpAddr]) -> Option<Problem> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let own = [SocketAddr::new(loopback, self.sidecar.outbound_port), self.sidecar.envoy_admin];
        let inbound = self.sidecar.inbound.iter().map(|one| SocketAddr::new(one.address, one.port));
        let mut taken = own.into_iter().chain(inbound).filter(|own| own.port() == listener.port);
        let taken = taken.find(|own| addresses.iter().any(|address| overlap(*address, own.ip())))?;
        let message = format!("{taken} is a listener of the Sidecar itself");
        Some(Problem::new("PortUnavailable", message, listener.span))
    }
}

/// Loopback, unless something else is asked for.
fn addresses(gateway: &Gateway) -> Vec<IpAddr> {
    if gateway.addresses.is_empty() {
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    }
    let mut given: Vec<IpAddr> = gateway.addresses.iter().filter_map(|address| address.ip).collect();
    given.sort();
    given.dedup();
    given
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

fn unsupported(listener: &Listener) -> Option<Problem> {
    let Protocol::Other(name) = &listener.protocol else { return None };
    let message = format!("protocol {name:?} is not one of HTTP, HTTPS, TLS, TCP");
    Some(Problem::new("UnsupportedProtocol", message, listener.span))
}

/// The kinds of routes that a listener takes, and those that it is told to take and cannot (AllowedRoutes.kinds).
fn kinds(listener: &Listener) -> (Vec<&'static str>, Vec<Problem>) {
    let of_protocol: &[&'static str] = match &listener.protocol {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tls if listener.terminates() => &["TLSRoute", "TCPRoute"],
        Protocol::Tls => &["TLSRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::Other(_) => &[],
    };
    let asked = &listener.allowed.kinds;
    if asked.is_empty() {
        return (of_protocol.to_vec(), Vec::new());
    }
    let is_asked =
        |kind: &&'static str| asked.iter().any(|asked| asked.kind == **kind && asked.group == GROUP);
    let strange =
        asked.iter().filter(|asked| asked.group != GROUP || !of_protocol.contains(&asked.kind.as_str()));
    let problems = strange.map(|asked| {
        let message = format!("a listener with this protocol takes no {}", asked.kind);
        Problem::new("InvalidRouteKinds", message, asked.span)
    });
    (of_protocol.iter().copied().filter(is_asked).collect(), problems.collect())
}

/// Listeners of which no connection could say for which of them it is (GatewaySpec.listeners, "Handling indistinct
/// Listeners"): none of them is served.
fn conflicts(all: &AllPlayed<'_>) -> Vec<((ServiceKey, usize), Problem)> {
    let listeners: Vec<_> = all
        .iter()
        .flat_map(|(key, played)| {
            played.listeners.iter().enumerate().map(move |(at, state)| (key, at, state, &played.addresses))
        })
        .filter(|(_, _, state, _)| state.refusal.is_none())
        .collect();
    let mut found = Vec::new();
    for (key, at, state, addresses) in &listeners {
        let mut others = listeners.iter().filter(|(other_key, other_at, other, other_addresses)| {
            (other_key, other_at) != (key, at)
                && other.listener.port == state.listener.port
                && other_addresses.iter().any(|address| addresses.contains(address))
        });
        let conflict = others.find_map(|(other_key, _, other, _)| {
            let reason = conflict(state.listener, other.listener)?;
            let whose = if other_key == key { String::new() } else { format!(" of Gateway {other_key}") };
            let message =
                format!("it cannot be told from listener {:?}{whose} on this port", other.listener.name);
            Some(Problem::new(reason, message, state.listener.span))
        });
        found.extend(conflict.map(|problem| (((*key).clone(), *at), problem)));
    }
    found
}

fn conflict(one: &Listener, other: &Listener) -> Option<&'static str> {
    let tcp = one.protocol == Protocol::Tcp || other.protocol == Protocol::Tcp;
    if tcp || one.protocol.has_tls() != other.protocol.has_tls() {
        return Some("ProtocolConflict");
    }
    (one.hostname == other.hostname).then_some("HostnameConflict")
}
