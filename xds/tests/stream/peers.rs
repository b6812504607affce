//! Two scripts, one per peer, over one stream of either variant. The clock moves only when a script says so.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, Resource as Wrapper, ResourceError,
};
use envoy_types::pb::google::rpc::Status;
use prost::{Message, Name};
use weft_xds::stream::{Action, Policy, Refusal, Request, Response, Service, Stream, Variant};
use weft_xds::{Event, Reference, Resource, Revision, Snapshot, StreamId, TypeUrl};

pub(crate) const CDS: TypeUrl = TypeUrl::CLUSTER;
pub(crate) const EDS: TypeUrl = TypeUrl::ENDPOINT;
pub(crate) const SDS: TypeUrl = TypeUrl::SECRET;
pub(crate) const LDS: TypeUrl = TypeUrl::LISTENER;
pub(crate) const RDS: TypeUrl = TypeUrl::ROUTE;
pub(crate) const VHDS: TypeUrl = TypeUrl::VIRTUAL_HOST;
pub(crate) const RTDS: TypeUrl = TypeUrl::RUNTIME;

/// Any resource: all that matters to the protocol is that it has a name and that its content can differ.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "100")]
    pub(crate) content: String,
}

/// The resource written `name@content`. A cluster takes its endpoints from EDS under its own name.
pub(crate) fn resource(type_url: &TypeUrl, text: &str) -> Resource {
    let (name, content) = text.split_once('@').expect("written as name@content");
    let body = Body { name: name.into(), content: content.into() };
    let resource = Resource::from_bytes(type_url.clone(), name, body.encode_to_vec().into());
    if *type_url == CDS { resource.refers_to(Reference::optional(EDS, name)) } else { resource }
}

/// A snapshot of resources written `name@content`.
pub(crate) fn snapshot(revision: u64, resources: &[(TypeUrl, &[&str])]) -> Snapshot {
    let mut builder = Snapshot::builder();
    for (type_url, text) in resources.iter().flat_map(|(t, texts)| texts.iter().map(move |text| (t, text))) {
        builder.insert(resource(type_url, text));
    }
    builder.build(Revision(revision)).expect("names are unique")
}

/// What a response says: `name@content` for each resource, `~name` for a heartbeat, `-name` for a removal and
/// `!name code` for an error.
pub(crate) fn texts(response: &Response) -> Vec<String> {
    match response.to_delta() {
        Some(delta) => {
            let removed = delta.removed_resources.iter().map(|name| format!("-{name}"));
            delta.resources.iter().map(wrapped).chain(removed).chain(errors(&delta.resource_errors)).collect()
        }
        None => {
            let sotw = response.to_sotw().expect("one of the variants");
            sotw.resources.iter().map(packed).chain(errors(&sotw.resource_errors)).collect()
        }
    }
}

fn packed(any: &envoy_types::pb::google::protobuf::Any) -> String {
    if any.type_url == Wrapper::type_url() {
        return wrapped(&Wrapper::decode(any.value.as_slice()).unwrap());
    }
    let body = Body::decode(any.value.as_slice()).unwrap();
    format!("{}@{}", body.name, body.content)
}

fn wrapped(wrapper: &Wrapper) -> String {
    let ttl = wrapper.ttl.map(|ttl| format!(" for {} s", ttl.seconds)).unwrap_or_default();
    match &wrapper.resource {
        Some(any) => {
            assert!(!wrapper.version.is_empty(), "every resource has a version");
            let body = Body::decode(any.value.as_slice()).unwrap();
            assert_eq!(body.name, wrapper.name, "the wrapper has the name of the body");
            format!("{}@{}{ttl}", body.name, body.content)
        }
        None => format!("~{}{ttl}", wrapper.name),
    }
}

fn errors(errors: &[ResourceError]) -> impl Iterator<Item = String> {
    errors.iter().map(|error| {
        let code = error.error_detail.as_ref().map(|status| status.code).unwrap_or_default();
        format!("!{} {code}", error.resource_name.as_ref().unwrap().name)
    })
}

struct Wire {
    variant: Variant,
    policy: Policy,
    node: Node,
    stream: Stream,
    streams: u64,
    now: Instant,
    snapshot: Option<Arc<Snapshot>>,
    greeted: bool,
    /// Nonces and versions of the responses on this stream.
    received: HashMap<TypeUrl, Vec<(String, String)>>,
    /// State of the world: what is subscribed to, and the last version that was accepted on any stream.
    names: HashMap<TypeUrl, BTreeSet<String>>,
    accepted: HashMap<TypeUrl, String>,
    events: Vec<Event>,
    refused: Option<Refusal>,
}

impl Wire {
    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Notify(event) => self.events.push(event),
                Action::Close(refusal) => self.refused = Some(refusal),
            }
        }
    }

    fn request(&mut self, mut request: Request) {
        if !std::mem::replace(&mut self.greeted, true) {
            request = request.with_node(self.node.clone());
        }
        let actions = self.stream.on_request(self.now, request);
        self.perform(actions);
    }

    fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = Some(Arc::clone(&snapshot));
        let actions = self.stream.on_snapshot(self.now, snapshot);
        self.perform(actions);
    }
}

/// The script of the client.
pub(crate) struct Client(Rc<RefCell<Wire>>);
/// The script of the server.
pub(crate) struct Server(Rc<RefCell<Wire>>);

/// A client and a server that have just been connected for incremental xDS.
pub(crate) fn peers() -> (Client, Server) {
    peers_with(Policy::default())
}

pub(crate) fn peers_with(policy: Policy) -> (Client, Server) {
    Setup { policy, ..Setup::default() }.connect()
}

/// The same for the state of the world.
pub(crate) fn sotw_peers() -> (Client, Server) {
    Setup { variant: Variant::StateOfTheWorld, ..Setup::default() }.connect()
}

/// Plays the same scripts in both variants.
pub(crate) fn in_both_variants(play: impl Fn(Client, Server)) {
    for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
        let (client, server) = Setup { variant, ..Setup::default() }.connect();
        play(client, server);
    }
}

/// What is out of the ordinary about two peers.
pub(crate) struct Setup {
    pub(crate) variant: Variant,
    pub(crate) policy: Policy,
    pub(crate) of_type: Option<TypeUrl>,
    pub(crate) features: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self { variant: Variant::Incremental, policy: Policy::default(), of_type: None, features: &[] }
    }
}

impl Setup {
    pub(crate) fn connect(self) -> (Client, Server) {
        let service = Service { variant: self.variant, type_url: self.of_type };
        let client_features = strings(self.features);
        let wire = Rc::new(RefCell::new(Wire {
            variant: self.variant,
            policy: self.policy,
            node: Node { id: "envoy".into(), client_features, ..Default::default() },
            stream: Stream::new(StreamId(1), service, self.policy),
            streams: 1,
            now: Instant::now(),
            snapshot: None,
            greeted: false,
            received: HashMap::new(),
            names: HashMap::new(),
            accepted: HashMap::new(),
            events: Vec::new(),
            refused: None,
        }));
        (Client(Rc::clone(&wire)), Server(wire))
    }
}

/// A client that has cluster `old`, and route `r` to it, at revision 1.
pub(crate) fn serving() -> (Client, Server) {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["old@1"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["old@1"]);
    client.acks(CDS);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
    client.subscribes(RDS, &["r"]);
    client.acks(LDS);
    server.answers(RDS, &["r@old"]);
    client.acks(RDS);
    assert_eq!(server.told_in_sync(), [1]);
    (client, server)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Client {
    pub(crate) fn sends(&self, request: impl Into<Request>) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let actions = wire.stream.on_request(now, request);
        wire.perform(actions);
    }

    /// The old form, in which nothing means everything; Envoy 1.40 still uses it.
    pub(crate) fn subscribes_to_all(&self, type_url: TypeUrl) {
        self.subscribes(type_url, &[]);
    }

    pub(crate) fn subscribes(&self, type_url: TypeUrl, names: &[&str]) {
        self.changes(type_url, None, names, &[]);
    }

    pub(crate) fn unsubscribes(&self, type_url: TypeUrl, names: &[&str]) {
        self.changes(type_url, None, &[], names);
    }

    /// Changes its subscriptions, next to the answer to a response if there is a nonce.
    fn changes(&self, type_url: TypeUrl, nonce: Option<&str>, more: &[&str], less: &[&str]) {
        let mut wire = self.0.borrow_mut();
        if wire.variant == Variant::Incremental {
            let request = DeltaDiscoveryRequest {
                type_url: type_url.as_str().into(),
                response_nonce: nonce.unwrap_or_default().into(),
                resource_names_subscribe: strings(more),
                resource_names_unsubscribe: strings(less),
                ..Default::default()
            };
            return wire.request(request.into());
        }
        let names = wire.names.entry(type_url.clone()).or_default();
        names.extend(strings(more));
        names.retain(|name| !less.contains(&name.as_str()));
        let last = wire.received.get(&type_url).and_then(|all| all.last()).map(|(nonce, _)| nonce.clone());
        let request = DiscoveryRequest {
            type_url: type_url.as_str().into(),
            version_info: wire.accepted.get(&type_url).cloned().unwrap_or_default(),
            response_nonce: nonce.map(str::to_owned).or(last).unwrap_or_default(),
            resource_names: wire.names.get(&type_url).into_iter().flatten().cloned().collect(),
            ..Default::default()
        };
        wire.request(request.into());
    }

    /// Comes back on a new stream, holding what is written `name@content`. Incremental.
    pub(crate) fn resumes(&self, type_url: TypeUrl, names: &[&str], held: &[&str]) {
        let version = |text: &&str| {
            let resource = resource(&type_url, text);
            (resource.name().to_owned(), resource.version().to_string())
        };
        let request = DeltaDiscoveryRequest {
            type_url: type_url.as_str().into(),
            resource_names_subscribe: strings(names),
            initial_resource_versions: held.iter().map(version).collect(),
            ..Default::default()
        };
        self.0.borrow_mut().request(request.into());
    }

    /// Loses its stream and opens a new one, of which the server knows what it knew of the old.
    pub(crate) fn reconnects(&self) {
        let mut wire = self.0.borrow_mut();
        let recollection = wire.stream.recollect();
        wire.streams += 1;
        let service = Service { variant: wire.variant, type_url: None };
        wire.stream = Stream::new(StreamId(wire.streams), service, wire.policy);
        wire.stream.recall(recollection);
        wire.received.clear();
        wire.greeted = false;
        if let Some(snapshot) = wire.snapshot.clone() {
            wire.publish(snapshot);
        }
    }

    fn received(&self, type_url: &TypeUrl, back: usize) -> (String, String) {
        let wire = self.0.borrow();
        wire.received
            .get(type_url)
            .and_then(|all| all.iter().rev().nth(back))
            .expect("a response came")
            .clone()
    }

    pub(crate) fn is_sotw(&self) -> bool {
        self.0.borrow().variant == Variant::StateOfTheWorld
    }

    /// The version of the last response. State of the world.
    pub(crate) fn version(&self, type_url: TypeUrl) -> String {
        self.received(&type_url, 0).1
    }

    pub(crate) fn acks(&self, type_url: TypeUrl) {
        self.acks_and_subscribes(type_url, &[]);
    }

    pub(crate) fn acks_and_subscribes(&self, type_url: TypeUrl, names: &[&str]) {
        let (nonce, version) = self.received(&type_url, 0);
        self.0.borrow_mut().accepted.insert(type_url.clone(), version);
        self.changes(type_url, Some(&nonce), names, &[]);
    }

    /// Repeats the answer to the response before the last, and subscribes to more in the same message.
    pub(crate) fn subscribes_on_a_stale_nonce(&self, type_url: TypeUrl, names: &[&str]) {
        let (nonce, _) = self.received(&type_url, 1);
        self.changes(type_url, Some(&nonce), names, &[]);
    }

    /// Gives names up next to the nonce of the response before the last.
    pub(crate) fn leaves_on_a_stale_nonce(&self, type_url: TypeUrl, names: &[&str]) {
        let (nonce, _) = self.received(&type_url, 1);
        self.changes(type_url, Some(&nonce), &[], names);
    }

    pub(crate) fn nacks(&self, type_url: TypeUrl, message: &str) {
        self.nacks_and_subscribes(type_url, message, &[]);
    }

    pub(crate) fn nacks_and_subscribes(&self, type_url: TypeUrl, message: &str, names: &[&str]) {
        let (response_nonce, _) = self.received(&type_url, 0);
        let error_detail = Some(Status { code: 13, message: message.into(), ..Default::default() });
        let mut wire = self.0.borrow_mut();
        let url = type_url.as_str().to_owned();
        let request: Request = match wire.variant {
            Variant::Incremental => DeltaDiscoveryRequest {
                response_nonce,
                type_url: url,
                error_detail,
                resource_names_subscribe: strings(names),
                ..Default::default()
            }
            .into(),
            Variant::StateOfTheWorld => {
                wire.names.entry(type_url.clone()).or_default().extend(strings(names));
                let resource_names = wire.names.get(&type_url).into_iter().flatten().cloned().collect();
                let version_info = wire.accepted.get(&type_url).cloned().unwrap_or_default();
                DiscoveryRequest {
                    response_nonce,
                    type_url: url,
                    error_detail,
                    resource_names,
                    version_info,
                    ..Default::default()
                }
                .into()
            }
        };
        wire.request(request);
    }
}

impl Server {
    pub(crate) fn has(&self, revision: u64, resources: &[(TypeUrl, &[&str])]) {
        self.publishes(snapshot(revision, resources));
    }

    pub(crate) fn publishes(&self, snapshot: Snapshot) {
        self.0.borrow_mut().publish(snapshot.into());
    }

    pub(crate) fn answers(&self, type_url: TypeUrl, expected: &[&str]) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let response =
            wire.stream.on_writable(now).unwrap_or_else(|| panic!("no answer, but {type_url} {expected:?}"));
        assert_eq!((response.type_url(), texts(&response)), (&type_url, strings(expected)));
        let version = response.to_sotw().map(|response| response.version_info).unwrap_or_default();
        wire.received.entry(type_url).or_default().push((response.nonce().to_string(), version));
    }

    pub(crate) fn is_silent(&self) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let response = wire.stream.on_writable(now);
        assert!(response.is_none(), "{:?}", response.map(|one| (one.type_url().clone(), texts(&one))));
    }

    pub(crate) fn waits(&self, time: Duration) {
        let mut wire = self.0.borrow_mut();
        wire.now += time;
        let now = wire.now;
        let actions = wire.stream.on_tick(now);
        wire.perform(actions);
    }

    /// What the owner has learned since it was last asked.
    pub(crate) fn told(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    pub(crate) fn told_in_sync(&self) -> Vec<u64> {
        let in_sync = |event| match event {
            Event::InSync { revision, .. } => Some(revision.0),
            _ => None,
        };
        self.told().into_iter().filter_map(in_sync).collect()
    }

    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.0.borrow().refused
    }

    pub(crate) fn wakes_within(&self, time: Duration) -> bool {
        let wire = self.0.borrow();
        wire.stream.deadline(wire.now).is_some_and(|at| at <= wire.now + time)
    }

    pub(crate) fn status(&self) -> weft_xds::stream::StreamStatus {
        self.0.borrow().stream.status()
    }
}
