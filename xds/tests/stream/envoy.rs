//! What Envoy 1.40 does with a stream, as far as it was measured: it withholds the answer to a cluster update while a
//! cluster warms, warms a changed cluster on endpoints that it does not ask for again, subscribes to what it has just
//! learned the name of, and does not remember versions out of a response that it rejects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use weft_xds::stream::{Action, Policy, Request, Response, Service, Stream, Variant};
use weft_xds::{Event, Snapshot, StreamId, TypeUrl};

use crate::peers::{Body, CDS, EDS, LDS, RDS};

/// Content that is rejected.
pub(crate) const BAD: &str = "bad";

/// An Envoy, the stream it is served by, and the wire between them.
pub(crate) struct Envoy {
    stream: Stream,
    streams: u64,
    now: Instant,
    snapshot: Option<Arc<Snapshot>>,
    variant: Variant,
    on_the_wire: VecDeque<Response>,
    greeted: bool,
    versions: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    contents: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    asked: BTreeMap<TypeUrl, BTreeSet<String>>,
    warming: BTreeSet<String>,
    able_to_serve: BTreeSet<String>,
    withheld: Vec<(TypeUrl, Request)>,
    /// State of the world: of the last response that was processed, and of the last that was good.
    nonces: BTreeMap<TypeUrl, String>,
    good: BTreeMap<TypeUrl, String>,
    pub(crate) in_sync: Option<u64>,
}

impl Envoy {
    pub(crate) fn connect(variant: Variant) -> Self {
        let mut envoy = Self {
            variant,
            nonces: BTreeMap::new(),
            good: BTreeMap::new(),
            stream: Stream::new(StreamId(0), Service::aggregated(variant), Policy::default()),
            streams: 0,
            now: Instant::now(),
            snapshot: None,
            on_the_wire: VecDeque::new(),
            greeted: false,
            versions: BTreeMap::new(),
            contents: BTreeMap::new(),
            asked: BTreeMap::new(),
            warming: BTreeSet::new(),
            able_to_serve: BTreeSet::new(),
            withheld: Vec::new(),
            in_sync: None,
        };
        envoy.reconnect();
        envoy
    }

    /// Comes back on a new stream. Endpoints are asked for first while a cluster is warming (measured).
    pub(crate) fn reconnect(&mut self) {
        self.streams += 1;
        let recollection = self.stream.recollect();
        self.stream =
            Stream::new(StreamId(self.streams), Service::aggregated(self.variant), Policy::default());
        self.stream.recall(recollection);
        self.on_the_wire.clear();
        self.withheld.clear();
        // Of every type, asked for or not (`GrpcMuxImpl::clearNonce`).
        self.nonces.clear();
        (self.greeted, self.in_sync) = (false, None);
        if let Some(snapshot) = self.snapshot.clone() {
            self.publish(snapshot);
        }
        let order = if self.warming.is_empty() { [CDS, EDS, LDS, RDS] } else { [EDS, LDS, RDS, CDS] };
        for type_url in order {
            let names = self.asked.get(&type_url).cloned().unwrap_or_default();
            if type_url == CDS || type_url == LDS || !names.is_empty() {
                self.introduce(type_url, names);
            }
        }
    }

    fn introduce(&mut self, type_url: TypeUrl, names: BTreeSet<String>) {
        let held = self.versions.get(&type_url).cloned().unwrap_or_default();
        let request = match self.variant {
            Variant::Incremental => DeltaDiscoveryRequest {
                type_url: type_url.as_str().into(),
                resource_names_subscribe: names.into_iter().collect(),
                initial_resource_versions: held.into_iter().collect(),
                ..Default::default()
            }
            .into(),
            Variant::StateOfTheWorld => self.world(&type_url, None),
        };
        self.request(request);
    }

    /// State of the world: all names, with the last nonce and the last good version.
    fn world(&self, type_url: &TypeUrl, error_detail: Option<Status>) -> Request {
        DiscoveryRequest {
            type_url: type_url.as_str().into(),
            resource_names: self.asked.get(type_url).into_iter().flatten().cloned().collect(),
            version_info: self.good.get(type_url).cloned().unwrap_or_default(),
            response_nonce: self.nonces.get(type_url).cloned().unwrap_or_default(),
            error_detail,
            ..Default::default()
        }
        .into()
    }

    fn request(&mut self, mut request: Request) {
        if !std::mem::replace(&mut self.greeted, true) {
            request = request.with_node(Node { id: "envoy".into(), ..Default::default() });
        }
        let actions = self.stream.on_request(self.now, request);
        self.hear(actions);
    }

    fn hear(&mut self, actions: Vec<Action>) {
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

    /// The transport takes one response, if there is one.
    pub(crate) fn carry(&mut self) -> bool {
        let response = self.stream.on_writable(self.now);
        let carried = response.is_some();
        self.on_the_wire.extend(response);
        carried
    }

    /// Subscribes to one more name, next to a nonce that is long stale.
    pub(crate) fn ask(&mut self, name: &str) {
        let new = self.asked.entry(EDS).or_default().insert(name.into());
        let request = match self.variant {
            Variant::StateOfTheWorld if new => self.world(&EDS, None),
            Variant::StateOfTheWorld => return,
            Variant::Incremental => DeltaDiscoveryRequest {
                type_url: EDS.as_str().into(),
                response_nonce: "0".into(),
                resource_names_subscribe: vec![name.into()],
                ..Default::default()
            }
            .into(),
        };
        self.request(request);
    }

    /// Processes the oldest response on the wire.
    pub(crate) fn process(&mut self) -> bool {
        let Some(response) = self.on_the_wire.pop_front() else { return false };
        let type_url = response.type_url().clone();
        let warm = self.warming.clone();
        let bad = self.take(&type_url, &response);
        self.nonces.insert(type_url.clone(), response.nonce().to_string());
        let message = bad.iter().map(|name| format!("{name}: no")).collect::<Vec<_>>().join(", ");
        let error = (!bad.is_empty()).then(|| Status {
            code: 13,
            message: format!("Error adding/updating cluster(s) {message}"),
            ..Default::default()
        });
        let rewarms = self.warming.difference(&warm).next().is_some();
        let clusters = self.contents.get(&CDS).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        self.resubscribe(&EDS, clusters, rewarms);
        let routes = self.contents.get(&LDS).into_iter().flatten().map(|(_, route)| route.clone()).collect();
        self.resubscribe(&RDS, routes, false);
        let answer = match self.variant {
            Variant::StateOfTheWorld => self.world(&type_url, error),
            Variant::Incremental => DeltaDiscoveryRequest {
                type_url: type_url.as_str().into(),
                response_nonce: response.nonce().to_string(),
                error_detail: error,
                ..Default::default()
            }
            .into(),
        };
        self.answer(&type_url, answer);
        true
    }

    /// Applies the good ones; returns the bad ones. No version is remembered unless all are good.
    fn take(&mut self, type_url: &TypeUrl, response: &Response) -> Vec<String> {
        let resources: Vec<_> =
            response.resources().filter(|one| self.is_subscribed(type_url, one.name())).cloned().collect();
        let mut bad = Vec::new();
        for resource in &resources {
            let body = Body::decode(resource.body()).expect("a body");
            if body.content == BAD {
                bad.push(body.name);
            } else {
                self.apply(type_url, body);
            }
        }
        if bad.is_empty() {
            let versions = self.versions.entry(type_url.clone()).or_default();
            versions.extend(resources.iter().map(|one| (one.name().to_owned(), one.version().to_string())));
            let world = response.to_sotw().map(|world| world.version_info);
            self.good.extend(world.map(|version| (type_url.clone(), version)));
        }
        for name in self.removed(type_url, response) {
            self.remove(type_url, &name);
        }
        bad
    }

    /// Incremental: what is said to be gone. State of the world: clusters and listeners that are not said.
    fn removed(&self, type_url: &TypeUrl, response: &Response) -> Vec<String> {
        if let Some(delta) = response.to_delta() {
            return delta.removed_resources;
        }
        let said = |name: &String| response.resources().any(|one| one.name() == name);
        let held = self.contents.get(type_url).into_iter().flatten().map(|(name, _)| name);
        held.filter(|name| (*type_url == CDS || *type_url == LDS) && !said(name)).cloned().collect()
    }

    /// What was unsubscribed from while it was on its way is ignored.
    fn is_subscribed(&self, type_url: &TypeUrl, name: &str) -> bool {
        let wildcard = *type_url == CDS || *type_url == LDS;
        wildcard || self.asked.get(type_url).is_some_and(|names| names.contains(name))
    }

    fn apply(&mut self, type_url: &TypeUrl, Body { name, content }: Body) {
        let known = self.contents.get(type_url).and_then(|all| all.get(&name)) == Some(&content);
        if *type_url == CDS && !known {
            self.warming.insert(name.clone());
        } else if *type_url == EDS && self.warming.remove(&name) {
            self.able_to_serve.insert(name.clone());
        }
        self.contents.entry(type_url.clone()).or_default().insert(name, content);
    }

    fn remove(&mut self, type_url: &TypeUrl, name: &str) {
        if *type_url == CDS {
            self.warming.remove(name);
            self.able_to_serve.remove(name);
        } else if *type_url == EDS && self.warming.remove(name) {
            self.able_to_serve.insert(name.into());
        }
        self.forget(type_url, name);
    }

    fn forget(&mut self, type_url: &TypeUrl, name: &str) {
        self.contents.entry(type_url.clone()).or_default().remove(name);
        self.versions.entry(type_url.clone()).or_default().remove(name);
    }

    /// Subscribes to names that have come up, and leaves those that have gone.
    /// An Envoy of the state of the world repeats itself when a cluster warms whose endpoints it has asked for.
    fn resubscribe(&mut self, type_url: &TypeUrl, wanted: BTreeSet<String>, rewarms: bool) {
        let asked = self.asked.entry(type_url.clone()).or_default();
        let new: Vec<_> = wanted.difference(asked).cloned().collect();
        let gone: Vec<_> = asked.difference(&wanted).cloned().collect();
        *asked = wanted;
        if asked.is_empty() {
            // Responses for a type it has left are dropped without an answer.
            self.on_the_wire.retain(|response| response.type_url() != type_url);
        }
        for name in &gone {
            self.forget(type_url, name);
        }
        let changed = !new.is_empty() || !gone.is_empty();
        match self.variant {
            Variant::Incremental if changed => self.request(
                DeltaDiscoveryRequest {
                    type_url: type_url.as_str().into(),
                    resource_names_subscribe: new,
                    resource_names_unsubscribe: gone,
                    ..Default::default()
                }
                .into(),
            ),
            Variant::StateOfTheWorld if changed || rewarms => self.request(self.world(type_url, None)),
            _ => {}
        }
    }

    /// Answers, but holds back what is said about clusters until all are warm.
    fn answer(&mut self, type_url: &TypeUrl, answer: Request) {
        if *type_url == CDS {
            self.withheld.push((type_url.clone(), answer));
        } else {
            self.request(answer);
        }
        if self.warming.is_empty() {
            for (_, answer) in std::mem::take(&mut self.withheld) {
                self.request(answer);
            }
        }
    }

    /// At most one response of each type is on its way or unanswered.
    pub(crate) fn assert_one_in_flight(&self) {
        for type_url in [CDS, EDS, LDS, RDS] {
            let flying = self.on_the_wire.iter().filter(|response| *response.type_url() == type_url).count();
            let withheld = self.withheld.iter().filter(|(of, _)| *of == type_url).count();
            assert!(flying + withheld <= 1, "{} responses of {type_url} are unanswered", flying + withheld);
        }
    }

    /// Every route in use leads to a cluster that can serve.
    pub(crate) fn assert_no_request_fails(&self) {
        let empty = BTreeMap::new();
        let (listeners, routes) =
            (self.contents.get(&LDS).unwrap_or(&empty), self.contents.get(&RDS).unwrap_or(&empty));
        for cluster in listeners.values().filter_map(|route| routes.get(route)) {
            assert!(
                self.able_to_serve.contains(cluster),
                "a route leads to {cluster}, of {:?}",
                self.able_to_serve
            );
        }
    }

    /// What the client holds is what it should hold.
    pub(crate) fn assert_agrees_with(&self, snapshot: &Snapshot) {
        let wildcard = [CDS, LDS];
        for type_url in [CDS, EDS, LDS, RDS] {
            let asked = self.asked.get(&type_url).cloned().unwrap_or_default();
            let wanted = |name: &str| wildcard.contains(&type_url) || asked.contains(name);
            let held = self.contents.get(&type_url).cloned().unwrap_or_default();
            let there: BTreeMap<_, _> = snapshot
                .iter()
                .filter(|(url, resource)| **url == type_url && wanted(resource.name()))
                .map(|(_, resource)| Body::decode(resource.body().clone()).expect("a body"))
                .map(|body| (body.name, body.content))
                .collect();
            assert_eq!(held, there, "{type_url}");
        }
        assert_eq!(self.warming, BTreeSet::new());
        assert_eq!(self.in_sync, Some(snapshot.revision().0));
    }
}
