//! Gateways to what Envoy does with connections: each listener with the routes that are attached to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::Resolver;
use super::attachment::{Claim, Place};
use super::index::Attached;
use super::listeners::{AllPlayed, GROUP, Problem, State};
use crate::diagnostic::{Diagnostic, Origin};
use crate::model::gateway::Protocol;
use crate::model::hostname::Hostname;
use crate::model::ingress::{Content, Entrance, Host, Stream};
use crate::model::reference::{ParentKind, ParentRef};
use crate::model::stream_route::StreamRoute;
use crate::model::{Document, ServiceKey};

/// A route of connections at a listener.
#[derive(Clone, Copy)]
struct StreamAt<'d> {
    namespace: &'d str,
    document: &'d Document,
    route: &'d StreamRoute,
}

/// Who is attached to the listeners, by Gateway and position, and for which hosts.
#[derive(Default)]
struct Attachments<'d> {
    routes: BTreeMap<ListenerKey, Vec<ForHost<Attached<'d>>>>,
    streams: BTreeMap<ListenerKey, Vec<ForHost<StreamAt<'d>>>>,
}

/// A Gateway, and the position of a listener in it.
type ListenerKey = (ServiceKey, usize);

/// A route and one of the hosts that it is attached for.
type ForHost<T> = (Option<Hostname>, T);

/// Where and for whom a listener is that others are compared with.
type Neighbour<'p> = (SocketAddr, Option<&'p Hostname>);

impl<'d> Resolver<'_, 'd> {
    /// What each Gateway takes connections for; what keeps one from it is a warning, for the rest is served.
    pub(super) fn entrances(&mut self) -> BTreeMap<SocketAddr, Vec<Entrance>> {
        let index = self.index;
        let all = index.played();
        self.warn_of_gateways(&all);
        let attachments = self.attachments(&all);
        let neighbours = neighbours(&all);
        let mut entrances = BTreeMap::<SocketAddr, Vec<Entrance>>::new();
        for (key, played) in &all {
            let served = played.listeners.iter().enumerate().filter(|(_, state)| state.is_served());
            for (at, state) in served {
                for address in &played.addresses {
                    let address = SocketAddr::new(*address, state.listener.port);
                    let near = neighbours.iter().filter(|(other, _)| *other == address);
                    let near: Vec<&Hostname> = near.filter_map(|(_, name)| *name).collect();
                    let origin = played.document.origin.with_span(state.listener.span);
                    let content = self.content(&attachments, (key, at), state, &near);
                    let entrance = self.entrance(key, state, origin, content);
                    entrances.entry(address).or_default().push(entrance);
                }
            }
        }
        entrances
    }

    fn entrance(
        &mut self,
        key: &ServiceKey,
        state: &State<'_>,
        origin: Origin,
        content: Content,
    ) -> Entrance {
        let certificates = state.certificates.iter().filter_map(|secret| self.key_pair(secret)).collect();
        Entrance {
            gateway: key.clone(),
            listener: state.listener.name.clone(),
            origin,
            hostname: state.listener.hostname.clone(),
            certificates: state.listener.terminates().then_some(certificates),
            content,
        }
    }

    fn content(
        &mut self,
        attachments: &Attachments<'d>,
        (key, at): (&ServiceKey, usize),
        state: &State<'_>,
        near: &[&Hostname],
    ) -> Content {
        let place = (key.clone(), at);
        let is_mine = |host: &Option<Hostname>| !is_of_another(state, host.as_ref(), near);
        match state.listener.protocol {
            Protocol::Http | Protocol::Https => {
                let all = attachments.routes.get(&place).map(Vec::as_slice).unwrap_or_default();
                Content::Requests(self.hosts(state, all.iter().filter(|(host, _)| is_mine(host))))
            }
            Protocol::Tls | Protocol::Tcp | Protocol::Other(_) => {
                let all = attachments.streams.get(&place).map(Vec::as_slice).unwrap_or_default();
                Content::Streams(self.streams(all.iter().filter(|(host, _)| is_mine(host))))
            }
        }
    }

    /// The listener's own hosts are always among them: what no route takes is not for a listener that is less specific.
    fn hosts<'a>(
        &mut self,
        state: &State<'_>,
        routes: impl Iterator<Item = &'a ForHost<Attached<'d>>>,
    ) -> Vec<Host>
    where
        'd: 'a,
    {
        let mut by_host = BTreeMap::<Option<Hostname>, Vec<Attached<'d>>>::new();
        by_host.entry(state.listener.hostname.clone()).or_default();
        for (host, at) in routes {
            let at_host = by_host.entry(host.clone()).or_default();
            if !at_host.iter().any(|known| std::ptr::eq(known.document, at.document)) {
                at_host.push(*at);
            }
        }
        let hosts = by_host.into_iter().map(|(name, attached)| {
            let attached = self.of_the_oldest_kind(attached);
            Host { name, rules: self.ranked_rules(&attached) }
        });
        hosts.collect()
    }

    /// At the same hosts of a listener there are HTTPRoutes or GRPCRoutes, not both: the oldest decides
    /// (GRPCRouteSpec.hostnames).
    fn of_the_oldest_kind(&mut self, mut attached: Vec<Attached<'d>>) -> Vec<Attached<'d>> {
        let oldest = attached.iter().min_by_key(|at| age(at.document, at.namespace)).copied();
        let Some(oldest) = oldest else { return attached };
        let (name, kind) = (&oldest.document.metadata.name, oldest.route.kind);
        for at in attached.iter().filter(|at| at.route.kind != kind) {
            let message = format!("the older {} {name} is for the same hosts, and goes first", kind.name());
            self.diagnostics.push(
                Diagnostic::warning(message)
                    .at(&at.document.origin.with_span(at.parent.span))
                    .help("give the two different hostnames"),
            );
        }
        attached.retain(|at| at.route.kind == kind);
        attached
    }

    /// Of several routes for the same hosts the oldest is taken: connections match nothing else.
    fn streams<'a>(&mut self, routes: impl Iterator<Item = &'a ForHost<StreamAt<'d>>>) -> Vec<Stream>
    where
        'd: 'a,
    {
        let mut by_host = BTreeMap::<&Option<Hostname>, StreamAt<'d>>::new();
        for (host, at) in routes {
            let taken = by_host.entry(host).or_insert(*at);
            if age(at.document, at.namespace) < age(taken.document, taken.namespace) {
                *taken = *at;
            }
        }
        by_host.into_iter().map(|(name, at)| self.stream(name.clone(), at)).collect()
    }

    fn stream(&mut self, name: Option<Hostname>, at: StreamAt<'d>) -> Stream {
        let mut shares = Vec::new();
        for reference in &at.route.backends {
            let from = (GROUP, at.route.kind.name());
            let backend = self.index.granted_backend(from, at.namespace, &reference.backend);
            let backend = backend.map_err(|problem| {
                let mistake = Diagnostic::error(problem.message).leading_nowhere();
                let place = at.document.origin.with_span(problem.span);
                self.diagnostics.push(mistake.with_effect("connections for it are closed").at(&place));
            });
            shares.extend(NonZeroU32::new(reference.weight).map(|weight| (backend.ok(), weight)));
        }
        let origin = at.document.origin.with_span(at.route.rule);
        let route =
            ServiceKey { namespace: at.namespace.to_owned(), name: at.document.metadata.name.clone() };
        Stream { name, route, origin, shares }
    }

    fn attachments(&mut self, all: &AllPlayed<'d>) -> Attachments<'d> {
        let index = self.index;
        let mut attachments = Attachments::default();
        for (key, attached) in &index.ingress.routes {
            for at in attached {
                let claim = at.claim();
                for Place { listener, hosts } in self.places(all, key, claim, at.document) {
                    let known = attachments.routes.entry((key.clone(), listener)).or_default();
                    known.extend(hosts.into_iter().map(|host| (host, *at)));
                }
            }
        }
        for (document, route) in index.ingress.streams.values() {
            let at = StreamAt { namespace: index.namespace(document), document, route };
            for (key, claim) in claims(at.namespace, route) {
                for Place { listener, hosts } in self.places(all, &key, claim, document) {
                    let known = attachments.streams.entry((key.clone(), listener)).or_default();
                    known.extend(hosts.into_iter().map(|host| (host, at)));
                }
            }
        }
        attachments
    }

    fn places(
        &mut self,
        all: &AllPlayed<'d>,
        gateway: &ServiceKey,
        claim: Claim<'_>,
        document: &Document,
    ) -> Vec<Place> {
        let place = document.origin.with_span(claim.parent.span);
        if claim.parent.kind == ParentKind::Service {
            let message = format!("a {} cannot be attached to a Service yet", claim.kind);
            let mistake = Diagnostic::error(message).help("attach it to a Gateway");
            self.diagnostics.push(mistake.at(&place));
            return Vec::new();
        }
        let found = match all.get(gateway) {
            Some(played) => self.index.attach_to(gateway, played, claim),
            None => Err(Problem::no_gateway(gateway, claim.parent)),
        };
        found.unwrap_or_else(|problem| {
            let near = all.keys().filter(|other| other.namespace == gateway.namespace && *other != gateway);
            let near = near.map(|other| other.name.as_str()).filter(|_| !all.contains_key(gateway));
            let warning = Diagnostic::warning(format!("{}: {}", problem.reason, problem.message))
                .nearest(&gateway.name, near);
            self.diagnostics.push(warning.at(&place));
            Vec::new()
        })
    }

    fn warn_of_gateways(&mut self, all: &AllPlayed<'_>) {
        for played in all.values() {
            let of_listeners = played.listeners.iter().flat_map(|state| {
                let odd = state.conflict.iter().chain(&state.refusal).map(|problem| (problem, false));
                let all =
                    odd.chain(state.unresolved.iter().map(|problem| (problem, problem.leads_nowhere())));
                all.map(move |(problem, leads_nowhere)| {
                    let lost = if state.is_served() { "" } else { "; the listener is not served" };
                    (problem, leads_nowhere, format!("listener {:?}: ", state.listener.name), lost)
                })
            });
            let of_gateway = played.problem.iter().map(|problem| (problem, false, String::new(), ""));
            for (Problem { reason, message, span }, leads_nowhere, whose, lost) in
                of_gateway.chain(of_listeners)
            {
                let text = format!("{whose}{reason}: {message}{lost}");
                let mistake = match leads_nowhere {
                    true => Diagnostic::error(text).leading_nowhere(),
                    false => Diagnostic::warning(text),
                };
                self.diagnostics.push(mistake.at(&played.document.origin.with_span(*span)));
            }
        }
    }
}

impl Problem {
    pub(super) fn no_gateway(gateway: &ServiceKey, parent: &ParentRef) -> Self {
        let message = format!("there is no Gateway {gateway}, so that the route takes no requests from it");
        Self::new("NoMatchingParent", message, parent.span)
    }
}

/// What a route of connections asks of each of its parents.
pub(super) fn claims<'d>(
    namespace: &'d str,
    route: &'d StreamRoute,
) -> impl Iterator<Item = (ServiceKey, Claim<'d>)> {
    route.parents.iter().map(move |parent| {
        let of_parent = parent.namespace.as_deref().unwrap_or(namespace).to_owned();
        let claim = Claim { namespace, kind: route.kind.name(), hostnames: &route.hostnames, parent };
        (ServiceKey { namespace: of_parent, name: parent.name.clone() }, claim)
    })
}

impl<'d> Attached<'d> {
    pub(super) fn claim(&self) -> Claim<'d> {
        Claim {
            namespace: self.namespace,
            kind: self.route.kind.name(),
            hostnames: &self.route.hostnames,
            parent: self.parent,
        }
    }
}

/// All listeners that are served, where they are and whom they are for.
fn neighbours<'p>(all: &'p AllPlayed<'_>) -> Vec<Neighbour<'p>> {
    let of_gateways = all.values().flat_map(|played| {
        let served = played.listeners.iter().filter(|state| state.is_served());
        served.flat_map(|state| {
            let of_listener = (state.listener.port, state.listener.hostname.as_ref());
            played
                .addresses
                .iter()
                .map(move |address| (SocketAddr::new(*address, of_listener.0), of_listener.1))
        })
    });
    of_gateways.collect()
}

/// Whether the hosts are those of a listener that is more specific (GatewaySpec.listeners, "Listeners that are distinct
/// only by Hostname").
fn is_of_another(state: &State<'_>, host: Option<&Hostname>, near: &[&Hostname]) -> bool {
    let own = state.listener.hostname.as_ref();
    let is_narrower = |other: &Hostname| own.is_none_or(|own| own != other && own.covers(other));
    host.is_some_and(|host| near.iter().any(|other| other.covers(host) && is_narrower(other)))
}

/// The oldest first, then the first by name (GatewaySpec.listeners, AllowedRoutes).
fn age<'a>(document: &'a Document, namespace: &'a str) -> (bool, Option<&'a str>, &'a str, &'a str) {
    let created = document.metadata.created.as_deref();
    (created.is_none(), created, namespace, &document.metadata.name)
}
