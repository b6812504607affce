//! Two scripts, one per peer, over one stream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use weft_xds::stream::{Action, Policy, Refusal, Stream};
use weft_xds::{Event, Resource, Revision, Snapshot, StreamId, TypeUrl};

pub(crate) const CDS: TypeUrl = TypeUrl::CLUSTER;
pub(crate) const EDS: TypeUrl = TypeUrl::ENDPOINT;
pub(crate) const SDS: TypeUrl = TypeUrl::SECRET;
pub(crate) const LDS: TypeUrl = TypeUrl::LISTENER;
pub(crate) const RDS: TypeUrl = TypeUrl::ROUTE;

/// Any resource: all that matters to the protocol is that it has a name and that its content can differ.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "100")]
    pub(crate) content: String,
}

/// The resource written `name@content`.
pub(crate) fn resource(text: &str) -> Resource {
    let (name, content) = text.split_once('@').expect("written as name@content");
    let body = Body { name: name.into(), content: content.into() };
    Resource::from_bytes(name, body.encode_to_vec().into())
}

/// A snapshot of resources written `name@content`. Every cluster takes its endpoints from EDS under its own name.
pub(crate) fn snapshot(revision: u64, resources: &[(TypeUrl, &[&str])]) -> Snapshot {
    let mut builder = Snapshot::builder();
    for (type_url, text) in resources.iter().flat_map(|(t, texts)| texts.iter().map(move |text| (t, text))) {
        let resource = resource(text);
        let name = resource.name().to_owned();
        if *type_url == CDS {
            builder.insert_cluster(resource, Some(&name));
        } else {
            builder.insert(type_url.clone(), resource);
        }
    }
    builder.build(Revision(revision)).expect("names are unique")
}

/// What a response says: `name@content` for each resource, `-name` for each removal.
pub(crate) fn texts(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let shown = response.resources.iter().map(|resource| {
        let body = Body::decode(resource.resource.as_ref().unwrap().value.as_slice()).unwrap();
        assert_eq!(body.name, resource.name, "the wrapper has the name of the body");
        assert!(!resource.version.is_empty(), "every resource has a version");
        format!("{}@{}", body.name, body.content)
    });
    shown.chain(response.removed_resources.iter().map(|name| format!("-{name}"))).collect()
}

struct Wire {
    stream: Stream,
    now: Instant,
    greeted: bool,
    nonces: HashMap<TypeUrl, Vec<String>>,
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
}

/// The script of the client.
pub(crate) struct Client(Rc<RefCell<Wire>>);
/// The script of the server.
pub(crate) struct Server(Rc<RefCell<Wire>>);

/// A client and a server that have just been connected.
pub(crate) fn peers() -> (Client, Server) {
    peers_with(Policy::default())
}

pub(crate) fn peers_with(policy: Policy) -> (Client, Server) {
    let wire = Rc::new(RefCell::new(Wire {
        stream: Stream::new(StreamId(1), policy),
        now: Instant::now(),
        greeted: false,
        nonces: HashMap::new(),
        events: Vec::new(),
        refused: None,
    }));
    (Client(Rc::clone(&wire)), Server(wire))
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Client {
    pub(crate) fn sends(&self, request: DeltaDiscoveryRequest) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let actions = wire.stream.on_request(now, request);
        wire.perform(actions);
    }

    /// Sends a request, with the node if it is the first of the stream.
    fn asks(&self, mut request: DeltaDiscoveryRequest) {
        let greeted = std::mem::replace(&mut self.0.borrow_mut().greeted, true);
        request.node = (!greeted).then(|| Node { id: "envoy".into(), ..Default::default() });
        self.sends(request);
    }

    /// The old form, in which nothing means everything; Envoy 1.40 still uses it.
    pub(crate) fn subscribes_to_all(&self, type_url: TypeUrl) {
        self.subscribes(type_url, &[]);
    }

    pub(crate) fn subscribes(&self, type_url: TypeUrl, names: &[&str]) {
        let type_url = type_url.as_str().into();
        self.asks(DeltaDiscoveryRequest {
            type_url,
            resource_names_subscribe: strings(names),
            ..Default::default()
        });
    }

    pub(crate) fn unsubscribes(&self, type_url: TypeUrl, names: &[&str]) {
        let type_url = type_url.as_str().into();
        self.asks(DeltaDiscoveryRequest {
            type_url,
            resource_names_unsubscribe: strings(names),
            ..Default::default()
        });
    }

    /// Comes back on a new stream, holding what is written `name@content`.
    pub(crate) fn resumes(&self, type_url: TypeUrl, names: &[&str], held: &[&str]) {
        let version = |text: &&str| (resource(text).name().to_owned(), resource(text).version().to_string());
        self.asks(DeltaDiscoveryRequest {
            type_url: type_url.as_str().into(),
            resource_names_subscribe: strings(names),
            initial_resource_versions: held.iter().map(version).collect(),
            ..Default::default()
        });
    }

    fn nonce(&self, type_url: &TypeUrl, back: usize) -> String {
        let wire = self.0.borrow();
        wire.nonces.get(type_url).and_then(|all| all.iter().rev().nth(back)).expect("a response came").clone()
    }

    pub(crate) fn acks(&self, type_url: TypeUrl) {
        self.acks_and_subscribes(type_url, &[]);
    }

    pub(crate) fn acks_and_subscribes(&self, type_url: TypeUrl, names: &[&str]) {
        self.asks(DeltaDiscoveryRequest {
            response_nonce: self.nonce(&type_url, 0),
            type_url: type_url.as_str().into(),
            resource_names_subscribe: strings(names),
            ..Default::default()
        });
    }

    /// Repeats the answer to the response before the last, and subscribes to more in the same message.
    pub(crate) fn subscribes_on_a_stale_nonce(&self, type_url: TypeUrl, names: &[&str]) {
        self.asks(DeltaDiscoveryRequest {
            response_nonce: self.nonce(&type_url, 1),
            type_url: type_url.as_str().into(),
            resource_names_subscribe: strings(names),
            ..Default::default()
        });
    }

    pub(crate) fn nacks(&self, type_url: TypeUrl, message: &str) {
        self.asks(DeltaDiscoveryRequest {
            response_nonce: self.nonce(&type_url, 0),
            type_url: type_url.as_str().into(),
            error_detail: Some(Status { code: 13, message: message.into(), ..Default::default() }),
            ..Default::default()
        });
    }
}

impl Server {
    pub(crate) fn has(&self, revision: u64, resources: &[(TypeUrl, &[&str])]) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let actions = wire.stream.on_snapshot(now, snapshot(revision, resources).into());
        wire.perform(actions);
    }

    pub(crate) fn answers(&self, type_url: TypeUrl, expected: &[&str]) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let response =
            wire.stream.on_writable(now).unwrap_or_else(|| panic!("no answer, but {type_url} {expected:?}"));
        assert_eq!((response.type_url.as_str(), texts(&response)), (type_url.as_str(), strings(expected)));
        wire.nonces.entry(type_url).or_default().push(response.nonce);
    }

    pub(crate) fn is_silent(&self) {
        let mut wire = self.0.borrow_mut();
        let now = wire.now;
        let response = wire.stream.on_writable(now);
        assert!(
            response.is_none(),
            "{:?}",
            response.map(|response| (response.type_url.clone(), texts(&response)))
        );
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
}
