//! What the documents mean: typed objects, and the mesh that they make up together.
//!
//! [`object`] turns one document into one [`Object`]; [`resolve`](resolve::resolve) connects all of them into a
//! [`Mesh`], in which every reference leads somewhere and the rules of a service stand in the order in which they are
//! to be tried.

pub mod backend_tls;
pub mod envoy_patch;
pub mod filter;
pub mod gateway;
pub mod grpc_route;
pub mod hostname;
pub mod http_route;
pub mod ingress;
pub mod matching;
pub mod metadata;
pub mod object;
pub mod policy;
pub mod precedence;
pub mod reference;
pub mod reference_grant;
pub mod regex;
pub mod resolve;
pub mod route;
pub mod secret;
pub mod service;
pub mod sidecar;
pub mod status;
pub mod stream_route;
pub mod tag;
pub mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

pub use object::{Document, Object};

use crate::diagnostic::Origin;
use envoy_patch::Change;
use filter::{Filters, Fraction};
use ingress::{Entrance, Proof, Trust};
use matching::Match;
use policy::Policy;
use policy::subsets::WhenEmpty;
use route::{Retry, RouteKind, Session, Timeouts};
use service::AppProtocol;
use sidecar::Sidecar;
use tag::Tag;
use telemetry::Telemetry;

/// Everything this workload's Envoy is to know, with all references resolved. Cheap to clone: what does not change is
/// shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// The workload's own side of it.
    pub proxy: Arc<Proxy>,
    /// The services it can call, by namespace and name.
    pub services: Services,
}

/// Services by namespace and name.
pub type Services = BTreeMap<Arc<ServiceKey>, Arc<MeshService>>;

/// What is said of the workload and its Envoy, apart from the services that it can call.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// The workload.
    pub sidecar: Sidecar,
    /// Its document.
    pub sidecar_origin: Origin,
    /// Where its access log and its traces go, and what is counted by tag.
    pub telemetry: Telemetry,
    /// What is changed in the result, in this order.
    pub patches: Vec<Patch>,
    /// What its Gateways take connections for, by where they listen.
    pub entrances: BTreeMap<SocketAddr, Vec<Entrance>>,
    /// The certificates that something refers to, by the name under which Envoy asks for them.
    pub proofs: BTreeMap<String, Proof>,
}

/// A change of a resource, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Where it names the resource.
    pub origin: Origin,
    /// The change.
    pub change: Change,
}

/// A service by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A service, one entry for each of its TCP ports.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshService {
    /// Its document.
    pub origin: Origin,
    /// Its ports, in the order of the document.
    pub ports: Vec<MeshPort>,
}

/// A port of a service: who answers on it, and how requests to it are distributed.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshPort {
    /// The number under which clients know it.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// The ready endpoints, sorted.
    pub endpoints: Vec<MeshEndpoint>,
    /// The documents the endpoints come from.
    pub endpoint_origins: Vec<Origin>,
    /// Where Envoy finds them by itself, instead.
    pub dns: Option<Arc<Dns>>,
    /// That it is spoken to in TLS, and who it must be.
    pub tls: Option<Arc<Trust>>,
    /// How requests are distributed.
    pub routing: Routing,
    /// What else holds for requests to it.
    pub policy: Option<Arc<Policy>>,
}

/// A name that Envoy resolves, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name.
    pub host: String,
    /// The port that everyone behind it has.
    pub port: u16,
    /// Whether this is somebody else's server: then requests bear the name as their host, and its addresses stand for one
    /// endpoint. Else each address is an endpoint.
    pub is_external: bool,
}

/// Somebody who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshEndpoint {
    /// Where.
    pub address: SocketAddr,
    /// What tells it from other endpoints, where a policy asks for that.
    pub detail: Option<Arc<EndpointDetail>>,
}

/// What tells an endpoint from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointDetail {
    /// 0 for those that come first; without gaps among those of a port.
    pub priority: u32,
    /// The zone it is in, if zones matter.
    pub zone: Option<String>,
    /// The subsets it is in.
    pub subsets: BTreeSet<String>,
}

/// How requests to a port of a service are distributed.
#[derive(Debug, Clone, PartialEq)]
pub enum Routing {
    /// To the port's own endpoints: no route is attached.
    Direct,
    /// By the first of these that matches; a request that none matches is answered with 404.
    Rules(Vec<Arc<Rule>>),
}

/// One match of one rule of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `namespace/route/rule/match`, counted from 0; unique within the mesh.
    pub name: String,
    /// Which requests it is about.
    pub matching: Match,
    /// What happens to them; shared by all matches of the rule.
    pub action: Arc<Action>,
}

/// What a rule of a route does with a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The route that the rule is of.
    pub route: Arc<RouteData>,
    /// The rule in its document.
    pub origin: Origin,
    /// The name that the document gives the rule, for what targets a part of a route.
    pub rule: Option<String>,
    /// What is done to requests and answers, apart from mirroring.
    pub filters: Option<Arc<Filters>>,
    /// To whom requests are sent as well.
    pub mirrors: Vec<Mirror>,
    /// Where requests go, unless the filters redirect them.
    pub destination: Destination,
    /// How long requests may take.
    pub timeouts: Timeouts,
    /// When they are tried again.
    pub retry: Option<Retry>,
    /// How a client stays with its endpoint.
    pub session: Option<Session>,
    /// What else holds for them.
    pub policy: Option<Arc<Policy>>,
}

/// What all rules of a route share.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteData {
    /// Which kind of route it is.
    pub kind: RouteKind,
    /// Its namespace and name.
    pub key: ServiceKey,
    /// Its document.
    pub origin: Origin,
    /// The tags of its requests, beside the workload's; sorted by key.
    pub tags: Vec<Tag>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// One of these, in proportion to their weights. Never empty.
    Forward(Vec<Share>),
    /// No backend has a weight above 0: it fails, as the Gateway API says.
    NoBackend,
}

/// One of the backends of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The backend; where the document names one that does not exist, requests that would go there fail.
    pub backend: Option<Backend>,
    /// Which of its endpoints.
    pub subset: Option<ChosenSubset>,
    /// Its share of the requests.
    pub weight: NonZeroU32,
    /// The host that requests to it bear, instead of the one they came with.
    pub authority: Option<Arc<str>>,
    /// What is done to the requests that go there, after what the rule does.
    pub filters: Option<Arc<Filters>>,
    /// To whom these requests are sent as well.
    pub mirrors: Vec<Mirror>,
}

/// A subset of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenSubset {
    /// Its name.
    pub name: String,
    /// What becomes of a request when nobody is in it.
    pub when_empty: WhenEmpty,
}

/// Someone else who sees requests; the answers are thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Who.
    pub backend: Backend,
    /// Which share of the requests.
    pub share: Fraction,
}

/// A port of a service as the destination of requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The service.
    pub service: ServiceKey,
    /// Its port.
    pub port: u16,
}

impl Dns {
    /// The host that requests to it bear: somebody else's server knows itself by no other. The ports that go without saying
    /// are those of the two schemes; nobody speaks clear text on that of TLS.
    pub fn authority(&self) -> Option<Arc<str>> {
        let plain = matches!(self.port, 80 | 443);
        let host = if plain { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        self.is_external.then(|| host.into())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `namespace/service/port`: without dots and colons, which Envoy's statistics would cut or replace.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.port)
    }
}
