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
//!
//! On a stream of a single type there is nothing to order.
//!
//! # Two variants
//!
//! Both variants of the protocol are one state: what a client has of each name, and what it should have. They differ
//! in how a request changes the subscriptions, and in what a response has to say: in the state of the world a name that
//! is not said is deleted, where the client asks for everything. Such a response therefore repeats whatever the client
//! is to keep: what does not exist any more but may not go yet, and the last good content of what it has
//! rejected.
//!
//! # What the client does not say
//!
//! A client that rejects a response for the sake of one resource may have applied the others, and does not remember
//! their versions (envoy#12592): after a reconnect it reports what it had before. A [`Recollection`] carries such
//! knowledge from one stream of a client to the next.

mod due;
mod held;
mod memory;
mod phase;
mod policy;
mod rejection;
mod render;
mod request;
mod response;
mod service;
mod status;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use thiserror::Error;

pub use self::memory::Recollection;
pub use self::policy::Policy;
pub use self::request::Request;
pub use self::response::Response;
pub use self::service::{Service, Variant};
pub use self::status::{ResourceState, ResourceStatus, StreamStatus, TypeStatus};
use self::subscription::{Opening, Subscription};
use crate::{Event, Revision, Snapshot, StreamId, TypeUrl, Version};

/// What the owner of a stream has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Pass this on to whoever follows the clients.
    Notify(Event),
    /// End the stream with this reason, and drop it.
    Close(Refusal),
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Only the first request of a stream is certain to say who the client is, so it must.
    #[error("the first request of a stream must carry a node with an id")]
    MissingNode,
    /// On an aggregated stream nothing else says which resources are meant.
    #[error("a request on an aggregated stream must carry a type_url")]
    MissingTypeUrl,
    /// The service is for one type, and the request for another.
    #[error("this service has only its own type of resources")]
    WrongType,
    /// More than [`Policy::max_names`].
    #[error("the client asks for more than {0} names")]
    TooManyNames(usize),
    /// More than [`Policy::max_name_bytes`].
    #[error("the names that the client asks for take more than {0} bytes")]
    NamesTooLong(usize),
    /// More than [`Policy::max_types`].
    #[error("the client asks for more than {0} types")]
    TooManyTypes(usize),
}

/// The protocol state of one stream: what the client has asked for, was sent and has accepted.
///
/// After every call of `on_request`, `on_snapshot` or `on_tick`, and whenever the transport has taken a response, ask
/// [`on_writable`](Self::on_writable) for responses until it returns `None`.
///
/// ```
/// use std::time::Instant;
///
/// use envoy_types::pb::envoy::config::core::v3::Node;
/// use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
/// use weft_xds::stream::{Policy, Service, Stream, Variant};
/// use weft_xds::{Resource, Revision, Snapshot, StreamId, TypeUrl};
///
/// let mut stream = Stream::new(StreamId(1), Service::aggregated(Variant::Incremental), Policy::default());
/// let resource = Resource::from_bytes(TypeUrl::RUNTIME, "layer", Default::default());
/// let snapshot = Snapshot::builder().insert(resource).build(Revision(1))?;
/// stream.on_snapshot(Instant::now(), snapshot.into());
///
/// let request = DeltaDiscoveryRequest {
///     node: Some(Node { id: "me".into(), ..Default::default() }),
///     type_url: TypeUrl::RUNTIME.as_str().into(),
///     resource_names_subscribe: vec!["layer".into()],
///     ..Default::default()
/// };
/// stream.on_request(Instant::now(), request);
/// let response = stream.on_writable(Instant::now()).expect("a subscription is answered");
/// assert_eq!(response.resources().next().map(Resource::name), Some("layer"));
/// # Ok::<(), weft_xds::SnapshotError>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    service: Service,
    policy: Policy,
    node: Option<Arc<Node>>,
    target: Option<Arc<Snapshot>>,
    subscriptions: BTreeMap<TypeUrl, Subscription>,
    recollection: Recollection,
    last_nonce: u64,
    opened_at: Option<Instant>,
    /// The client held resources when it came.
    resumed: bool,
    /// The client knows times to live.
    timed: bool,
    /// Since when nothing that is gone is needed any more.
    idle_since: Option<Instant>,
    in_sync: Option<Revision>,
    /// Found out while a response was made.
    news: Vec<Event>,
}

impl Stream {
    /// A stream on which nothing has happened. `id` goes into its events.
    #[must_use]
    pub fn new(id: StreamId, service: Service, policy: Policy) -> Self {
        Self {
            id,
            service,
            policy,
            node: None,
            target: None,
            subscriptions: BTreeMap::new(),
            recollection: Recollection::default(),
            last_nonce: 0,
            opened_at: None,
            resumed: false,
            timed: false,
            idle_since: None,
            in_sync: None,
            news: Vec::new(),
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

    /// Goes on with another policy. Of use before the first request, when it is known who the client is.
    pub fn suit(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes what an earlier stream of the client knew. Of use before the first request.
    pub fn recall(&mut self, recollection: Recollection) {
        self.recollection = recollection;
    }

    /// What the next stream of this client should know, if this one ended now.
    #[must_use]
    pub fn recollect(&self) -> Recollection {
        let whole_world = self.service.variant == Variant::StateOfTheWorld;
        let of_type =
            |(type_url, one): (&TypeUrl, &Subscription)| (type_url.clone(), one.recollect(whole_world));
        let mut known = self.recollection.clone();
        // What the client has asked for on this stream is known better now.
        known.0.retain(|type_url, _| !self.subscriptions.contains_key(type_url));
        known.0.extend(self.subscriptions.iter().map(of_type));
        known
    }

    /// The client has sent a request.
    ///
    /// An answer to a response that is no longer waited for is ignored, but the subscriptions beside it are not: the
    /// incremental protocol has them honoured on a stale nonce too. In the state of the world the client repeats them
    /// with its next answer, before which nothing is sent; but a client that has left a type gives no more answers.
    pub fn on_request(&mut self, now: Instant, request: impl Into<Request>) -> Vec<Action> {
        let request = request.into();
        let mut actions = self.take_news();
        let type_url = match self.greet(now, &request, &mut actions) {
            Ok(type_url) => type_url,
            Err(refusal) => return vec![Action::Close(refusal)],
        };
        let repeated = self.is_repeated(&type_url, &request);
        actions.extend(self.settle(now, &type_url, &request));
        match self.subscriptions.get_mut(&type_url) {
            Some(subscription) if repeated => subscription.ask_again(),
            Some(subscription) => subscription.change(&request.wants),
            None => self.open(type_url, &request),
        }
        actions.extend(self.check_sync(now).map(Action::Notify));
        actions
    }

    /// There is a new snapshot. What the client lacks of an earlier one is forgotten.
    ///
    /// Before the first snapshot a stream answers nothing: an empty answer would tell the client to delete everything.
    pub fn on_snapshot(&mut self, now: Instant, snapshot: Arc<Snapshot>) -> Vec<Action> {
        for (type_url, subscription) in &mut self.subscriptions {
            subscription.retarget(&snapshot.of_type(type_url));
        }
        self.target = Some(snapshot);
        self.in_sync = None;
        let mut actions = self.take_news();
        actions.extend(self.check_sync(now).map(Action::Notify));
        actions
    }

    /// Time has passed. Reports what has been unanswered for too long; call it at the [`deadline`](Self::deadline).
    pub fn on_tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.take_news();
        let (stream, timeout) = (self.id, self.policy.answer_timeout);
        let late = self.subscriptions.iter_mut().flat_map(|(type_url, subscription)| {
            let revisions = subscription.overdue(now, timeout).into_iter();
            revisions.map(|revision| Event::Unanswered { stream, type_url: type_url.clone(), revision })
        });
        actions.extend(late.map(Action::Notify));
        actions
    }

    /// When the stream wants [`on_tick`](Self::on_tick), and then [`on_writable`](Self::on_writable), if nothing else
    /// happens before.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let Policy { answer_timeout, warm_timeout, removal_grace, resume_wait, .. } = self.policy;
        let waiting = || self.subscriptions.values().flat_map(Subscription::waiting);
        let unreported =
            waiting().filter(|(_, reported)| !reported).map(|(sent_at, _)| sent_at + answer_timeout);
        let beats = self.subscriptions.values().filter(|_| self.timed).filter_map(Subscription::beat_due);
        let later = waiting()
            .map(|(sent_at, _)| sent_at + warm_timeout)
            .chain(self.idle_since.map(|since| since + removal_grace))
            .chain(self.opened_at.filter(|_| self.resumed).map(|at| at + resume_wait))
            .chain(beats)
            .filter(|at| *at > now);
        let news = (!self.news.is_empty()).then_some(now);
        unreported.chain(later).chain(news).min()
    }

    fn take_news(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.news).into_iter().map(Action::Notify).collect()
    }

    fn greet(
        &mut self,
        now: Instant,
        request: &Request,
        actions: &mut Vec<Action>,
    ) -> Result<TypeUrl, Refusal> {
        if self.node.is_none() {
            let named = request.node.as_ref().filter(|node| !node.id.is_empty());
            let node = Arc::new(named.ok_or(Refusal::MissingNode)?.clone());
            self.timed = self.policy.assume_ttl || self.service.variant.has_ttl(&node);
            self.node = Some(Arc::clone(&node));
            self.opened_at = Some(now);
            actions.push(Action::Notify(Event::Connected { stream: self.id, node }));
        }
        let type_url = self.service.resolve(&request.type_url)?;
        self.check_limits(&type_url, request)?;
        Ok(type_url)
    }

    fn check_limits(&self, type_url: &TypeUrl, request: &Request) -> Result<(), Refusal> {
        let Policy { max_names, max_name_bytes, max_types, .. } = self.policy;
        let stays = |of: &TypeUrl| of != type_url || request.wants.adds();
        let kept = || self.subscriptions.iter().filter(|(of, _)| stays(of)).map(|(_, kept)| kept);
        if kept().map(Subscription::named).sum::<usize>() + request.wants.names() > max_names {
            return Err(Refusal::TooManyNames(max_names));
        }
        if kept().map(Subscription::name_bytes).sum::<usize>() + request.name_bytes() > max_name_bytes {
            return Err(Refusal::NamesTooLong(max_name_bytes));
        }
        if self.subscriptions.len() >= max_types && !self.subscriptions.contains_key(type_url) {
            return Err(Refusal::TooManyTypes(max_types));
        }
        Ok(())
    }

    /// Whether a state-of-the-world client says again what it has said in its last answer.
    fn is_repeated(&self, type_url: &TypeUrl, request: &Request) -> bool {
        let Some(subscription) = self.subscriptions.get(type_url) else { return false };
        self.service.variant == Variant::StateOfTheWorld
            && request.nonce.parse().is_ok_and(|nonce| subscription.is_newest(nonce))
            && request.error.is_none()
            && subscription.unanswered().is_none()
            && subscription.is_named_so(&request.wants)
    }

    /// A client that comes back names the versions it holds, and they are believed, except for endpoints asked for
    /// ahead of the clusters: Envoy does that while a cluster is warming, and then waits for endpoints even if it
    /// knows them (order of types measured with 1.40).
    fn open(&mut self, type_url: TypeUrl, request: &Request) {
        self.resumed |= request.wants.resumes();
        let warming = type_url == TypeUrl::ENDPOINT && !self.subscriptions.contains_key(&TypeUrl::CLUSTER);
        let target = self.target.as_ref().map(|target| target.of_type(&type_url)).unwrap_or_default();
        let opening = Opening {
            target: &target,
            believed: !warming,
            remembered: self.recollection.0.get(&type_url),
            resumed: self.resumed,
        };
        let opened = Subscription::open(type_url.clone(), &request.wants, &opening);
        self.subscriptions.insert(type_url, opened);
    }

    /// Applies the ACK or NACK in a request, if there is one.
    fn settle(&mut self, now: Instant, type_url: &TypeUrl, request: &Request) -> Vec<Action> {
        let Some(subscription) = self.subscriptions.get_mut(type_url) else { return Vec::new() };
        let mut settled =
            request.nonce.parse().map_or_else(|_| Vec::new(), |nonce| subscription.settle(nonce));
        let rejected = if request.error.is_some() { settled.pop() } else { None };
        let (stream, mut actions) = (self.id, Vec::new());
        for response in settled {
            subscription.accept(&response, now);
            let (type_url, revision) = (type_url.clone(), response.revision);
            let after = now.saturating_duration_since(response.sent_at);
            actions.push(Action::Notify(Event::Acked { stream, type_url, revision, after }));
        }
        if let (Some(response), Some(status)) = (rejected, &request.error) {
            let resources = subscription.reject(&response, &status.message, now);
            let (type_url, revision, message) = (type_url.clone(), response.revision, status.message.clone());
            actions.push(Action::Notify(Event::Nacked { stream, type_url, revision, resources, message }));
        }
        actions
    }

    /// Says so when the client has just reached the newest revision.
    fn check_sync(&mut self, now: Instant) -> Option<Event> {
        let target = self.target.clone()?;
        self.note_idle(now);
        if !self.is_in_sync(&target) {
            self.in_sync = None;
            return None;
        }
        let (stream, revision) = (self.id, target.revision());
        let news = self.in_sync.replace(revision) != Some(revision);
        news.then_some(Event::InSync { stream, revision })
    }

    fn is_in_sync(&self, target: &Snapshot) -> bool {
        let asked = |root: &TypeUrl| !target.has_any(root) || self.subscriptions.contains_key(root);
        let roots = [TypeUrl::CLUSTER, TypeUrl::LISTENER];
        self.node.is_some()
            && (self.service.type_url.is_some() || roots.iter().all(asked))
            && self.subscriptions.values().all(Subscription::is_in_sync)
    }
}
