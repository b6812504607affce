//! One stream of one client, as a value.
//!
//! A [`Stream`] has no socket, no clock and no task. Its owner feeds it what happens — a request, a new snapshot, time
//! passing — and asks it for the next response whenever the transport can take one. It keeps no queue: a response is
//! rendered from the newest snapshot at the moment it can be sent, so a client that is slow, or was away for a hundred
//! revisions, receives one response per type.
//!
//! # Make before break
//!
//! A change of the snapshot reaches the client in three phases, decided anew on each call from what the client holds:
//!
//! ```text
//!   supply                         traffic                        retire
//!   clusters added or changed      listeners, routes and          clusters, endpoints and
//!   → their endpoints, secrets     everything else                secrets that are gone
//!              │                        ▲         │                    ▲
//!              └── clusters ACKed ──────┘         └── all of it ACKed ─┘
//! ```
//!
//! Envoy withholds the ACK for clusters until all of them are warm (measured with 1.40), so that ACK is an exact barrier:
//! no route ever names a cluster that cannot serve, and no cluster goes while a route may still name it. Endpoints and
//! secrets are never held back: a cluster warms on them. A NACK stops the later phases and the client keeps the last good
//! state; a client that holds nothing yet is given what there is. No phase waits longer than
//! [`Policy::warm_timeout`] for an answer.

mod rejection;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;
use thiserror::Error;

use self::subscription::{Permit, Subscription};
use crate::{Event, Resource, Revision, Snapshot, StreamId, TypeUrl, Version};

/// How patient a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A response unanswered for this long is reported, and a newer one of its type may overtake it: Envoy
    /// processes a correction although the earlier response is unanswered. Default: 2 s.
    pub answer_timeout: Duration,
    /// Listeners and routes wait this long at most for the clusters, and clusters that are gone wait this long
    /// at most for the listeners and routes. Default: 20 s, which is more than the 15 s after which Envoy itself
    /// stops waiting for the endpoints of a warming cluster.
    pub warm_timeout: Duration,
    /// How long clusters that are gone stay after the last answer about listeners and routes. Connections to a
    /// replaced listener keep its routes until it has drained; a revision is in sync only afterwards. Default: 0.
    pub removal_grace: Duration,
    /// A client that comes back subscribes to one type after the other, in no fixed order. For this long nothing that
    /// it holds is changed before its clusters are, or taken away. Default: 1 s.
    pub resume_wait: Duration,
    /// Resources beyond this many bytes go into a further response. One resource is never split. Default: 32 MiB.
    pub max_response_bytes: usize,
    /// Answer a subscription to a route configuration that does not exist with an empty one of that name. The answer
    /// of the protocol, a removal, leaves the listener of an Envoy 1.40 warming for ever, and its port
    /// closed; the empty one answers 404. gRPC clients want the removal. Default: true.
    pub empty_route_for_missing: bool,
}

/// What the owner of a stream has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Pass this on to whoever follows the clients.
    Notify(Event),
    /// End the stream with this reason, and drop it.
    Close(Refusal),
}

/// Why a stream cannot go on. On the wire it is `INVALID_ARGUMENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Only the first request of a stream is certain to say who the client is, so it must.
    #[error("the first request of a stream must carry a node with an id")]
    MissingNode,
    /// On an aggregated stream nothing else says which resources are meant.
    #[error("a request on an aggregated stream must carry a type_url")]
    MissingTypeUrl,
}

/// The protocol state of one stream: what the client has asked for, was sent and has accepted.
///
/// After every call of `on_request`, `on_snapshot` or `on_tick`, and whenever the transport has taken a response, ask
/// [`on_writable`](Self::on_writable) for responses until it returns `None`.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    policy: Policy,
    node: Option<Arc<Node>>,
    target: Option<Arc<Snapshot>>,
    subscriptions: BTreeMap<TypeUrl, Subscription>,
    last_nonce: u64,
    opened_at: Option<Instant>,
    /// The client held resources when it came.
    resumed: bool,
    /// Since when nothing that is gone is needed any more.
    idle_since: Option<Instant>,
    in_sync: Option<Revision>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            warm_timeout: Duration::from_secs(20),
            removal_grace: Duration::ZERO,
            resume_wait: Duration::from_secs(1),
            max_response_bytes: 32 << 20,
            empty_route_for_missing: true,
        }
    }
}

impl Stream {
    /// A stream on which nothing has happened. `id` goes into its events.
    #[must_use]
    pub fn new(id: StreamId, policy: Policy) -> Self {
        Self {
            id,
            policy,
            node: None,
            target: None,
            subscriptions: BTreeMap::new(),
            last_nonce: 0,
            opened_at: None,
            resumed: false,
            idle_since: None,
            in_sync: None,
        }
    }

    /// The number it was made with.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Who the client is. `None` before its first request.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The version of a resource that the client has accepted, whatever it was sent since.
    #[must_use]
    pub fn accepted(&self, type_url: &TypeUrl, name: &str) -> Option<Version> {
        self.subscriptions.get(type_url)?.accepted(name)
    }

    /// The client has sent a request.
    ///
    /// An answer to a response that is no longer waited for is ignored, but the subscriptions beside it are not: the
    /// protocol has them honoured on a stale nonce too.
    pub fn on_request(&mut self, now: Instant, request: DeltaDiscoveryRequest) -> Vec<Action> {
        let mut actions = match self.greet(now, &request) {
            Ok(actions) => actions,
            Err(refusal) => return vec![Action::Close(refusal)],
        };
        let type_url = TypeUrl::new(&request.type_url);
        actions.extend(self.settle(&type_url, &request));
        self.resumed |= !request.initial_resource_versions.is_empty();
        match self.subscriptions.get_mut(&type_url) {
            Some(subscription) => subscription.change(&request),
            None => self.open(type_url, &request),
        }
        actions.extend(self.check_sync(now));
        actions
    }

    /// There is a new snapshot. What the client lacks of an earlier one is forgotten.
    ///
    /// Before the first snapshot a stream answers nothing: an empty answer would tell the client to delete everything.
    pub fn on_snapshot(&mut self, now: Instant, snapshot: Arc<Snapshot>) -> Vec<Action> {
        let old = self.target.replace(Arc::clone(&snapshot));
        for (type_url, subscription) in &mut self.subscriptions {
            let same = |old: &Arc<Snapshot>| old.of_type(type_url).same(snapshot.of_type(type_url));
            if !old.as_ref().is_some_and(same) {
                subscription.mark_dirty();
            }
        }
        self.in_sync = None;
        self.check_sync(now)
    }

    /// The transport can take a response: the next one, if there is one to send.
    pub fn on_writable(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        let target = self.refresh()?;
        self.note_idle(now);
        let (type_url, names) = self.subscriptions.iter().find_map(|(type_url, subscription)| {
            let free = subscription.is_free(now, self.policy.answer_timeout);
            let names = if free { subscription.batch(self.permit(type_url, now)) } else { None };
            Some((type_url.clone(), names?))
        })?;
        Some(self.respond(now, &target, type_url, names))
    }

    /// Time has passed. Reports what has been unanswered for too long; call it at the [`deadline`](Self::deadline).
    pub fn on_tick(&mut self, now: Instant) -> Vec<Action> {
        let (stream, timeout) = (self.id, self.policy.answer_timeout);
        let late = self.subscriptions.iter_mut().flat_map(|(type_url, subscription)| {
            let revisions = subscription.overdue(now, timeout).into_iter();
            revisions.map(|revision| Event::Unanswered { stream, type_url: type_url.clone(), revision })
        });
        late.map(Action::Notify).collect()
    }

    /// When the stream wants [`on_tick`](Self::on_tick), if nothing else happens before.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let Policy { answer_timeout, warm_timeout, removal_grace, resume_wait, .. } = self.policy;
        let waiting = || self.subscriptions.values().flat_map(Subscription::waiting);
        let unreported =
            waiting().filter(|(_, reported)| !reported).map(|(sent_at, _)| sent_at + answer_timeout);
        let later = waiting()
            .map(|(sent_at, _)| sent_at + warm_timeout)
            .chain(self.idle_since.map(|since| since + removal_grace))
            .chain(self.opened_at.filter(|_| self.resumed).map(|at| at + resume_wait))
            .filter(|at| *at > now);
        unreported.chain(later).min()
    }

    fn greet(&mut self, now: Instant, request: &DeltaDiscoveryRequest) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        if self.node.is_none() {
            let named = request.node.as_ref().filter(|node| !node.id.is_empty());
            let node = Arc::new(named.ok_or(Refusal::MissingNode)?.clone());
            self.node = Some(Arc::clone(&node));
            self.opened_at = Some(now);
            actions.push(Action::Notify(Event::Connected { stream: self.id, node }));
        }
        if request.type_url.is_empty() {
            return Err(Refusal::MissingTypeUrl);
        }
        Ok(actions)
    }

    /// A client that comes back names the versions it holds, and they are believed, except for endpoints asked for
    /// ahead of the clusters: Envoy does that while a cluster is warming, and then waits for endpoints even if it
    /// knows them (order of types measured with 1.40).
    fn open(&mut self, type_url: TypeUrl, request: &DeltaDiscoveryRequest) {
        let warming = type_url == TypeUrl::ENDPOINT && !self.subscriptions.contains_key(&TypeUrl::CLUSTER);
        let opened = Subscription::open(&type_url, request, !warming);
        self.subscriptions.insert(type_url, opened);
    }

    /// Applies the ACK or NACK in a request, if there is one.
    fn settle(&mut self, type_url: &TypeUrl, request: &DeltaDiscoveryRequest) -> Vec<Action> {
        let Some(subscription) = self.subscriptions.get_mut(type_url) else { return Vec::new() };
        let mut settled =
            request.response_nonce.parse().map_or_else(|_| Vec::new(), |nonce| subscription.settle(nonce));
        let rejected = if request.error_detail.is_some() { settled.pop() } else { None };
        let (stream, mut actions) = (self.id, Vec::new());
        for response in settled {
            subscription.accept(&response);
            let (type_url, revision) = (type_url.clone(), response.revision);
            actions.push(Action::Notify(Event::Acked { stream, type_url, revision }));
        }
        if let (Some(response), Some(status)) = (rejected, &request.error_detail) {
            let resources = subscription.reject(&response, |offered| blame(&status.message, offered));
            let (type_url, revision, message) = (type_url.clone(), response.revision, status.message.clone());
            actions.push(Action::Notify(Event::Nacked { stream, type_url, revision, resources, message }));
        }
        actions
    }

    /// Brings every list of what is due up to date with the newest snapshot.
    fn refresh(&mut self) -> Option<Arc<Snapshot>> {
        let target = self.target.clone()?;
        for (type_url, subscription) in &mut self.subscriptions {
            subscription.refresh(target.of_type(type_url));
        }
        Some(target)
    }

    /// Which part of what is due for a type its phase lets through.
    fn permit(&self, type_url: &TypeUrl, now: Instant) -> Permit {
        if type_url.is_supply() {
            return Permit { answers: true, changes: true, removals: self.may_retire(type_url, now) };
        }
        let ready = !self.is_supply_underway(now);
        let safe = ready && !self.is_rejected(TypeUrl::is_supply) && !self.awaits_clusters(now);
        Permit { answers: ready, changes: safe, removals: safe }
    }

    /// Whether a cluster is still warming, or has not been given what it warms on.
    fn is_supply_underway(&self, now: Instant) -> bool {
        let owed = |subscription: &Subscription| {
            !subscription.due().answers.is_empty() || !subscription.due().changes.is_empty()
        };
        let clusters = self.subscriptions.get(&TypeUrl::CLUSTER);
        clusters.is_some_and(|clusters| clusters.is_in_flight(now, self.policy.warm_timeout))
            || self.of_phase(TypeUrl::is_supply).any(owed)
    }

    /// Whether the client has rejected something of this phase that has not been replaced since.
    fn is_rejected(&self, phase: impl Fn(&TypeUrl) -> bool) -> bool {
        self.of_phase(phase).any(|subscription| subscription.due().parked > 0)
    }

    /// Whether a client that has come back, and holds routes of old, has yet to ask for its clusters.
    fn awaits_clusters(&self, now: Instant) -> bool {
        let supplied =
            self.target.as_ref().is_some_and(|target| !target.of_type(&TypeUrl::CLUSTER).is_empty());
        supplied && !self.subscriptions.contains_key(&TypeUrl::CLUSTER) && self.is_resuming(now)
    }

    fn is_resuming(&self, now: Instant) -> bool {
        self.resumed && self.opened_at.is_some_and(|at| now < at + self.policy.resume_wait)
    }

    /// Whether resources that are gone may go. Endpoints and secrets follow the clusters that used them: Envoy
    /// then drops its subscriptions by itself.
    fn may_retire(&self, type_url: &TypeUrl, now: Instant) -> bool {
        let rested = self.idle_since.is_some_and(|since| now >= since + self.policy.removal_grace);
        let clusters = self.subscriptions.get(&TypeUrl::CLUSTER).filter(|_| *type_url != TypeUrl::CLUSTER);
        let leading = clusters.is_some_and(|clusters| {
            !clusters.due().removals.is_empty() || clusters.is_in_flight(now, self.policy.warm_timeout)
        });
        rested && !leading
    }

    /// Keeps track of since when listeners and routes are settled.
    fn note_idle(&mut self, now: Instant) {
        self.idle_since = if self.is_settled(now) { self.idle_since.or(Some(now)) } else { None };
    }

    fn is_settled(&self, now: Instant) -> bool {
        let traffic = |type_url: &TypeUrl| !type_url.is_supply();
        let busy = |subscription: &Subscription| {
            !subscription.due().is_empty() || subscription.is_in_flight(now, self.policy.warm_timeout)
        };
        !self.is_resuming(now)
            && !self.is_rejected(|_| true)
            && !self.is_supply_underway(now)
            && !self.of_phase(traffic).any(busy)
    }

    fn of_phase(&self, phase: impl Fn(&TypeUrl) -> bool) -> impl Iterator<Item = &Subscription> {
        let of_phase = self.subscriptions.iter().filter(move |(type_url, _)| phase(type_url));
        of_phase.map(|(_, subscription)| subscription)
    }

    /// Renders a response and records it as sent.
    fn respond(
        &mut self,
        now: Instant,
        target: &Snapshot,
        type_url: TypeUrl,
        names: Vec<Arc<str>>,
    ) -> DeltaDiscoveryResponse {
        self.last_nonce += 1;
        let mut response = DeltaDiscoveryResponse {
            system_version_info: target.revision().to_string(),
            type_url: type_url.as_str().to_owned(),
            nonce: self.last_nonce.to_string(),
            ..Default::default()
        };
        let sent = self.fill(&mut response, target, &type_url, names);
        if type_url == TypeUrl::CLUSTER {
            self.repeat_endpoints(target, &sent);
        }
        if let Some(subscription) = self.subscriptions.get_mut(&type_url) {
            subscription.sending(self.last_nonce, target.revision(), now, sent);
        }
        response
    }

    /// Puts as many of `names` into the response as it may hold; returns those with their versions.
    fn fill(
        &self,
        response: &mut DeltaDiscoveryResponse,
        target: &Snapshot,
        type_url: &TypeUrl,
        names: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Option<Version>)> {
        let (resources, mut room) = (target.of_type(type_url), self.policy.max_response_bytes);
        let mut sent = Vec::with_capacity(names.len());
        for name in names {
            let found = resources.get(&name);
            let size = found.map_or(0, |resource| resource.body().len());
            if size > room && !sent.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            match found {
                Some(resource) => response.resources.push(wire(type_url, resource)),
                None if self.is_empty_route_due(type_url, &name) => {
                    response.resources.push(wire(type_url, &empty_route(&name)));
                }
                None => response.removed_resources.push(name.to_string()),
            }
            sent.push((name, found.map(Resource::version)));
        }
        sent
    }

    /// A listener that waits for its first routes gets empty ones. Routes it already has are removed, which Envoy
    /// ignores: connections of a listener that is draining still use them.
    fn is_empty_route_due(&self, type_url: &TypeUrl, name: &Arc<str>) -> bool {
        let asked =
            self.subscriptions.get(type_url).is_some_and(|routes| routes.due().answers.contains(name));
        self.policy.empty_route_for_missing && *type_url == TypeUrl::ROUTE && asked
    }

    /// A changed cluster warms until its endpoints arrive, and an incremental Envoy does not ask for them again:
    /// they are sent unasked, right behind the cluster (measured with 1.40: 2 ms instead of 15 s).
    fn repeat_endpoints(&mut self, target: &Snapshot, clusters: &[(Arc<str>, Option<Version>)]) {
        let Some(endpoints) = self.subscriptions.get_mut(&TypeUrl::ENDPOINT) else { return };
        let changed = clusters.iter().filter(|(_, version)| version.is_some());
        for eds_name in changed.filter_map(|(cluster, _)| target.eds_name(cluster)) {
            endpoints.repeat(eds_name);
        }
    }

    /// Says so when the client has just reached the newest revision.
    fn check_sync(&mut self, now: Instant) -> Vec<Action> {
        let Some(target) = self.refresh() else { return Vec::new() };
        self.note_idle(now);
        if !self.is_in_sync(&target) {
            self.in_sync = None;
            return Vec::new();
        }
        let (stream, revision) = (self.id, target.revision());
        let news = self.in_sync.replace(revision) != Some(revision);
        news.then_some(Action::Notify(Event::InSync { stream, revision })).into_iter().collect()
    }

    fn is_in_sync(&self, target: &Snapshot) -> bool {
        let asked = |root: &TypeUrl| target.of_type(root).is_empty() || self.subscriptions.contains_key(root);
        let roots = [TypeUrl::CLUSTER, TypeUrl::LISTENER];
        self.node.is_some()
            && roots.iter().all(asked)
            && self.subscriptions.values().all(Subscription::is_in_sync)
    }
}

/// Splits a client's message; a resource that was alone in its response needs no naming.
fn blame(message: &str, offered: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let named = rejection::split(message, offered);
    match (named.is_empty(), offered) {
        (true, [only]) => vec![(Arc::clone(only), message.to_owned())],
        _ => named,
    }
}

fn wire(type_url: &TypeUrl, resource: &Resource) -> WireResource {
    WireResource {
        name: resource.name().to_owned(),
        version: resource.version().to_string(),
        resource: Some(Any { type_url: type_url.as_str().to_owned(), value: resource.body().to_vec() }),
        ..Default::default()
    }
}

fn empty_route(name: &Arc<str>) -> Resource {
    let route = RouteConfiguration { name: name.to_string(), ..Default::default() };
    Resource::encode(Arc::clone(name), &route)
}
