//! A client of either variant, by the book: what any client may rely on, and no more. It asks for whatever it likes,
//! accepts or rejects, lags behind, leaves and comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use weft_xds::stream::{Action, Policy, Request, Response, Service, Stream, StreamStatus, Variant};
use weft_xds::{Event, Snapshot, StreamId, TypeUrl};

use crate::peers::{Body, CDS, EDS, LDS, RDS};

/// Content that is rejected, with a message that names it.
pub(crate) const BAD: &str = "bad";
/// Content that is rejected with a message that names nobody.
pub(crate) const BAD_UNNAMED: &str = "worse";

pub(crate) const TYPES: [TypeUrl; 4] = [CDS, EDS, LDS, RDS];

/// What a client has of one type.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// It has sent a request on this stream.
    open: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// Content and version by name.
    holds: BTreeMap<String, (String, String)>,
    /// State of the world: the last version that was good.
    version: String,
    nonce: String,
    unanswered: VecDeque<Response>,
}

/// A client, the stream it is served by, and the wire between them.
pub(crate) struct Client {
    variant: Variant,
    stream: Stream,
    streams: u64,
    now: Instant,
    snapshot: Option<Arc<Snapshot>>,
    greeted: bool,
    types: BTreeMap<TypeUrl, Asked>,
    /// There was something since the last response: a request, an answer, a snapshot or time.
    cause: bool,
    pub(crate) in_sync: Option<u64>,
}

impl Client {
    pub(crate) fn connect(variant: Variant) -> Self {
        let service = Service::aggregated(variant);
        Self {
            variant,
            stream: Stream::new(StreamId(0), service, Policy::default()),
            streams: 0,
            now: Instant::now(),
            snapshot: None,
            greeted: false,
            types: TYPES.map(|type_url| (type_url, Asked::default())).into(),
            cause: false,
            in_sync: None,
        }
    }

    /// Comes back on a new stream and asks for what it had asked for.
    pub(crate) fn reconnect(&mut self) {
        let known = self.stream.recollect();
        self.streams += 1;
        self.stream =
            Stream::new(StreamId(self.streams), Service::aggregated(self.variant), Policy::default());
        self.stream.recall(known);
        (self.greeted, self.in_sync) = (false, None);
        if let Some(snapshot) = self.snapshot.clone() {
            self.publish(snapshot);
        }
        for type_url in TYPES {
            let Some(asked) = self.types.get_mut(&type_url) else { continue };
            asked.unanswered.clear();
            asked.nonce.clear();
            if std::mem::take(&mut asked.open) && (asked.wildcard || !asked.names.is_empty()) {
                self.introduce(&type_url);
            }
        }
    }

    fn introduce(&mut self, type_url: &TypeUrl) {
        let Some(asked) = self.types.get_mut(type_url) else { return };
        asked.open = true;
        let mut names: Vec<_> = asked.names.iter().cloned().collect();
        names.extend(asked.wildcard.then(|| "*".to_owned()));
        let type_url = type_url.as_str().to_owned();
        let holds = asked.holds.iter().map(|(name, (_, version))| (name.clone(), version.clone()));
        let request: Request = match self.variant {
            Variant::Incremental => DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: names,
                initial_resource_versions: holds.collect(),
                ..Default::default()
            }
            .into(),
            Variant::StateOfTheWorld => DiscoveryRequest {
                type_url,
                resource_names: names,
                version_info: asked.version.clone(),
                ..Default::default()
            }
            .into(),
        };
        self.request(request);
    }

    fn request(&mut self, mut request: Request) {
        if !std::mem::replace(&mut self.greeted, true) {
            request = request.with_node(Node { id: "client".into(), ..Default::default() });
        }
        let actions = self.stream.on_request(self.now, request);
        self.hear(actions);
    }

    fn hear(&mut self, actions: Vec<Action>) {
        self.cause = true;
        for action in actions {
            match action {
                Action::Notify(Event::InSync { revision, .. }) => self.in_sync = Some(revision.0),
                Action::Notify(_) => {}
                Action::Close(refusal) => panic!("the stream was closed: {refusal}"),
            }
        }
    }

    pub(crate) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = Some(Arc::clone(&snapshot));
        let actions = self.stream.on_snapshot(self.now, snapshot);
        self.hear(actions);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        let actions = self.stream.on_tick(self.now);
        self.hear(actions);
    }

    /// Asks for a name, or for everything.
    pub(crate) fn subscribe(&mut self, type_url: &TypeUrl, name: &str) {
        let Some(asked) = self.types.get_mut(type_url) else { return };
        if name == "*" {
            asked.wildcard = true;
        } else {
            asked.names.insert(name.to_owned());
        }
        self.say(type_url, &[name], &[]);
    }

    /// Gives up a name, or the wildcard; and with it what it holds.
    pub(crate) fn unsubscribe(&mut self, type_url: &TypeUrl, name: &str) {
        let Some(asked) = self.types.get_mut(type_url).filter(|asked| asked.open) else { return };
        if name == "*" {
            asked.wildcard = false;
            asked.forget_the_rest();
        } else if asked.names.remove(name) {
            asked.forget_the_rest();
        }
        if !asked.wildcard && asked.names.is_empty() {
            // It drops what comes for a type it has left.
            asked.unanswered.clear();
        }
        self.say(type_url, &[], &[name]);
    }

    /// Says so, with the nonce of the last response in the state of the world, and none otherwise.
    fn say(&mut self, type_url: &TypeUrl, more: &[&str], less: &[&str]) {
        let Some(asked) = self.types.get_mut(type_url) else { return };
        let first = !std::mem::replace(&mut asked.open, true);
        if first && self.variant == Variant::StateOfTheWorld {
            return self.introduce(type_url);
        }
        let request = asked.request(self.variant, type_url, more, less, None);
        self.request(request);
    }

    /// The transport takes one response, if there is one. There is none without a cause.
    pub(crate) fn carry(&mut self) -> bool {
        let Some(response) = self.stream.on_writable(self.now) else {
            self.cause = false;
            return false;
        };
        assert!(self.cause, "a response without a cause");
        let asked = self.types.get_mut(response.type_url()).expect("it was asked for");
        if asked.wildcard || !asked.names.is_empty() {
            asked.unanswered.push_back(response);
            assert!(asked.unanswered.len() <= 1, "two responses of a type are in flight");
        }
        true
    }

    /// Reads the oldest response of a type and answers it.
    pub(crate) fn process(&mut self, type_url: &TypeUrl) -> bool {
        let variant = self.variant;
        let Some(asked) = self.types.get_mut(type_url) else { return false };
        let Some(response) = asked.unanswered.pop_front() else { return false };
        let error = asked.apply(variant, &response);
        asked.nonce = response.nonce().to_string();
        let request = asked.request(variant, type_url, &[], &[], error);
        self.request(request);
        true
    }

    /// What the client holds is what it asked for and what there is.
    pub(crate) fn assert_agrees_with(&self, snapshot: &Snapshot) {
        for (type_url, asked) in &self.types {
            let wanted = |name: &str| asked.open && asked.wants(name);
            let there: BTreeMap<_, _> = snapshot
                .iter()
                .filter(|(url, resource)| *url == type_url && wanted(resource.name()))
                .map(|(_, resource)| Body::decode(resource.body()).expect("a body"))
                .map(|body| (body.name, body.content))
                .collect();
            let mut held = asked.contents();
            if self.variant == Variant::StateOfTheWorld && !asked.wildcard && !is_whole(type_url) {
                // There is no way to take away what is asked for by name.
                held.retain(|name, _| there.contains_key(name));
            }
            held.retain(|name, content| *type_url != RDS || there.contains_key(name) || !content.is_empty());
            assert_eq!(held, there, "{type_url}, by {:?}", self.variant);
        }
    }

    pub(crate) fn status(&self) -> StreamStatus {
        self.stream.status()
    }

    pub(crate) fn asks_for_roots(&self) -> bool {
        [CDS, LDS].iter().all(|root| self.types.get(root).is_some_and(|asked| asked.open))
    }
}

fn is_whole(type_url: &TypeUrl) -> bool {
    *type_url == CDS || *type_url == LDS
}

impl Asked {
    fn wants(&self, name: &str) -> bool {
        let collection = || name.rsplit_once('/').map(|(directory, _)| format!("{directory}/*"));
        self.wildcard
            || self.names.contains(name)
            || collection().is_some_and(|collection| self.names.contains(&collection))
    }

    /// It keeps only what it still asks for.
    fn forget_the_rest(&mut self) {
        let mut holds = std::mem::take(&mut self.holds);
        holds.retain(|held, _| self.wants(held));
        self.holds = holds;
    }

    fn request(
        &self,
        variant: Variant,
        type_url: &TypeUrl,
        more: &[&str],
        less: &[&str],
        error_detail: Option<Status>,
    ) -> Request {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let answering = more.is_empty() && less.is_empty();
        let type_url = type_url.as_str().to_owned();
        match variant {
            Variant::Incremental => DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: strings(more),
                resource_names_unsubscribe: strings(less),
                response_nonce: if answering { self.nonce.clone() } else { String::new() },
                error_detail,
                ..Default::default()
            }
            .into(),
            Variant::StateOfTheWorld => DiscoveryRequest {
                type_url,
                resource_names: self.names.iter().cloned().chain(self.wildcard.then(|| "*".into())).collect(),
                version_info: self.version.clone(),
                response_nonce: self.nonce.clone(),
                error_detail,
                ..Default::default()
            }
            .into(),
        }
    }

    /// Takes what is good; says what is not. Versions are remembered only if all is good.
    fn apply(&mut self, variant: Variant, response: &Response) -> Option<Status> {
        let bodies: Vec<_> = response
            .to_delta()
            .map(|delta| delta.resources.into_iter().filter_map(|one| one.resource).collect())
            .or_else(|| response.to_sotw().map(|sotw| sotw.resources))
            .unwrap_or_default()
            .into_iter()
            .map(|any| Body::decode(any.value.as_slice()).expect("a body"))
            .filter(|body| self.wants(&body.name))
            .collect();
        let (bad, good): (Vec<_>, Vec<_>) =
            bodies.into_iter().partition(|body| body.content == BAD || body.content == BAD_UNNAMED);
        self.remove(variant, response, &good, &bad);
        let versions = response.to_delta().map(|delta| delta.resources).unwrap_or_default();
        let version =
            |name: &str| versions.iter().find(|one| one.name == name).map(|one| one.version.clone());
        for Body { name, content } in good {
            let new = version(&name).filter(|_| bad.is_empty());
            let known = self.holds.get(&name).map(|(_, known)| known.clone());
            self.holds.insert(name, (content, new.or(known).unwrap_or_default()));
        }
        if bad.is_empty() {
            self.version = response.to_sotw().map(|sotw| sotw.version_info).unwrap_or_default();
            return None;
        }
        let named: Vec<_> =
            bad.iter().filter(|body| body.content == BAD).map(|body| format!("{}: no", body.name)).collect();
        let message = format!("Error adding/updating cluster(s) {}", named.join(", "));
        Some(Status { code: 13, message, ..Default::default() })
    }

    /// Incremental: what is said to be gone. State of the world: what is not said.
    fn remove(&mut self, variant: Variant, response: &Response, good: &[Body], bad: &[Body]) {
        if let Some(delta) = response.to_delta() {
            delta.removed_resources.iter().for_each(|name| drop(self.holds.remove(name)));
        } else if variant == Variant::StateOfTheWorld && (self.wildcard || is_whole(response.type_url())) {
            let said = |name: &String| good.iter().chain(bad).any(|body| body.name == *name);
            self.holds.retain(|name, _| said(name));
        }
    }

    fn contents(&self) -> BTreeMap<String, String> {
        self.holds.iter().map(|(name, (content, _))| (name.clone(), content.clone())).collect()
    }
}
