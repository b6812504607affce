//! A [`Mesh`] to the resources of its Envoy.
//!
//! Pure and deterministic: the same mesh gives the same messages. What is emitted is accepted by Envoy 1.40 without a
//! deprecation warning; a listener names no route configuration but the one that comes with it, because Envoy 1.40
//! does not recover from one that is missing.
//!
//! ```text
//! Sidecar            listener "outbound" on 127.0.0.1; listener, routes and cluster "inbound/PORT"
//! Gateway            listener "gateway/PORT" for each port; where TLS ends a filter chain for each of its listeners
//! Service port       cluster and endpoints "namespace/service/port", virtual host of the same name
//! rule of HTTPRoute  one route for each of its matches, in the virtual hosts of its parents
//! ```

mod asked;
mod cluster;
mod endpoint;
pub mod json;
mod listener;
pub mod patch;
mod policy;
mod provenance;
mod route;
mod secret;
mod tags;
mod telemetry;

use std::fmt;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::google::protobuf;
use prost::{Message, Name};
use weft_xds::canonical;

pub use listener::NO_BACKEND;
pub use provenance::{Part, Provenance};
pub use tags::NAMESPACE as TAGS_NAMESPACE;

use crate::model::envoy_patch::Kind;
use crate::model::service::AppProtocol;
use crate::model::{Backend, Mesh, MeshPort, MeshService, Proxy, ServiceKey};

/// The name of the listener, of its route configuration and of its statistics.
pub const OUTBOUND: &str = "outbound";

/// Everything Envoy is to have, by type; within a type sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// One for each TCP port of each service.
    pub clusters: Vec<Sourced<Cluster>>,
    /// One for each cluster whose endpoints Envoy does not find by itself, of the same name.
    pub endpoints: Vec<Sourced<ClusterLoadAssignment>>,
    /// Of Gateways, inbound, and outbound.
    pub listeners: Vec<Sourced<Listener>>,
    /// One for each listener that takes requests apart, or for each listener of a Gateway where TLS ends.
    pub routes: Vec<Sourced<RouteConfiguration>>,
    /// The certificates that the others refer to.
    pub secrets: Vec<Sourced<Secret>>,
}

/// A resource that remembers which documents it was made from. Shown, it is its name: it may hold a private key.
#[derive(Clone)]
pub struct Sourced<M> {
    /// The name under which Envoy asks for it.
    pub name: String,
    /// What Envoy gets.
    pub message: M,
    /// What it was made from.
    pub parts: Vec<Part>,
}

impl<M> fmt::Debug for Sourced<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

/// The port of a service that is being translated.
#[derive(Debug, Clone, Copy)]
struct PortOf<'m> {
    key: &'m ServiceKey,
    service: &'m MeshService,
    port: &'m MeshPort,
}

/// What is made of one service alone, whatever else the mesh holds: who has it keeps it until the service, or the
/// `Sidecar`, changes ([`Encoder`](crate::encoding::Encoder)).
#[derive(Debug, Default)]
pub struct OfService {
    /// A cluster for each of its ports.
    pub clusters: Vec<Sourced<Cluster>>,
    /// The endpoints of each cluster whose endpoints Envoy does not find by itself.
    pub endpoints: Vec<Sourced<ClusterLoadAssignment>>,
    /// A virtual host of the outbound route configuration for each port.
    pub hosts: Vec<Sourced<VirtualHost>>,
}

/// Translates all of `mesh`.
pub fn translate(mesh: &Mesh) -> Resources {
    let mut all = shared(&mesh.proxy);
    for (key, service) in &mesh.services {
        let of_service = of_service(&mesh.proxy, key, service);
        all.clusters.extend(of_service.clusters);
        all.endpoints.extend(of_service.endpoints);
        if let Some(outbound) = all.routes.iter_mut().find(|routes| routes.name == OUTBOUND) {
            for host in of_service.hosts {
                outbound.message.virtual_hosts.push(host.message);
                outbound.parts.extend(host.parts);
            }
        }
    }
    all
}

/// Translates a service. Of the proxy the result depends on the `Sidecar` and the patches alone.
pub fn of_service(proxy: &Proxy, key: &ServiceKey, service: &MeshService) -> OfService {
    let (sidecar, patches) = (&proxy.sidecar, &proxy.patches);
    let mut all = OfService::default();
    for port in ports(key, service) {
        all.clusters.push(cluster::cluster(sidecar, port));
        if port.port.dns.is_none() {
            all.endpoints.push(endpoint::endpoints(port));
        }
        if port.port.protocol != AppProtocol::Tcp {
            all.hosts.push(route::host(sidecar, port));
        }
    }
    patch::merge(patches, Kind::Cluster, &mut all.clusters);
    patch::merge(patches, Kind::ClusterLoadAssignment, &mut all.endpoints);
    patch::merge(patches, Kind::VirtualHost, &mut all.hosts);
    all
}

/// What is not made of one service alone. The outbound route configuration is without its virtual hosts.
pub fn shared(proxy: &Proxy) -> Resources {
    let mut all = Resources { secrets: secret::secrets(proxy).collect(), ..Resources::default() };
    for (address, entrances) in &proxy.entrances {
        let at = listener::At { address: *address, entrances };
        if let Some(found) = listener::gateway(proxy, at) {
            all.listeners.push(found);
            all.routes.extend(listener::gateway_routes(proxy, at));
        }
    }
    for inbound in &proxy.sidecar.inbound {
        all.clusters.push(listener::inbound::cluster(proxy, inbound));
        all.listeners.push(listener::inbound::listener(proxy, inbound));
        all.routes.push(listener::inbound::routes(proxy, inbound));
    }
    all.listeners.push(listener::outbound(proxy));
    all.routes.push(route::outbound(proxy));
    let patches = &proxy.patches;
    patch::merge(patches, Kind::Cluster, &mut all.clusters);
    patch::merge(patches, Kind::Listener, &mut all.listeners);
    patch::merge(patches, Kind::RouteConfiguration, &mut all.routes);
    all.clusters.extend(patch::added(patches, Kind::Cluster));
    all.endpoints.extend(patch::added(patches, Kind::ClusterLoadAssignment));
    all.listeners.extend(patch::added(patches, Kind::Listener));
    if let Some(outbound) = all.routes.iter_mut().find(|routes| routes.name == OUTBOUND) {
        for host in patch::added::<VirtualHost>(patches, Kind::VirtualHost) {
            outbound.message.virtual_hosts.push(host.message);
            outbound.parts.extend(host.parts);
        }
    }
    all.routes.extend(patch::added(patches, Kind::RouteConfiguration));
    all
}

impl PortOf<'_> {
    fn cluster_name(&self) -> String {
        Backend { service: self.key.clone(), port: self.port.number }.to_string()
    }
}

fn ports<'m>(key: &'m ServiceKey, service: &'m MeshService) -> impl Iterator<Item = PortOf<'m>> {
    let mut ports: Vec<&MeshPort> = service.ports.iter().collect();
    ports.sort_by_key(|port| port.number.to_string());
    ports.into_iter().map(move |port| PortOf { key, service, port })
}

/// Packs an extension's configuration. Equal messages give equal bytes, whatever the order of their maps.
fn any<M: Message + Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: canonical::encode(message).into() }
}

fn duration(value: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}
