//! From a mesh to a snapshot, at a cost in proportion to what has changed.
//!
//! Encoding is nine tenths of what a change costs. An [`Encoder`] keeps the mesh that it encoded last; a service that is
//! equal to what it was is neither translated nor encoded again, and the virtual host of one that is not is put between
//! those of the others, which are there as bytes. What depends on more than one service is translated anew each time.
//! The snapshot shares with the last whatever is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};
use weft_xds::{Reference, Resource, Revision, Snapshot, SnapshotError, TypeUrl};

use crate::model::{Mesh, MeshService, ServiceKey};
use crate::translate::{OUTBOUND, OfService, Resources, Sourced, of_service, shared};

/// The field of a `RouteConfiguration` that holds its virtual hosts.
const VIRTUAL_HOSTS: u32 = 2;

/// Encodes one mesh after the other.
#[derive(Debug, Default)]
pub struct Encoder {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    mesh: Arc<Mesh>,
    snapshot: Snapshot,
    services: BTreeMap<ServiceKey, Arc<Encoded>>,
    shared: BTreeSet<ResourceKey>,
    /// The outbound route configuration without its virtual hosts.
    head: Resource,
}

type ResourceKey = (TypeUrl, Arc<str>);

/// What a service has become.
#[derive(Debug, Default, PartialEq)]
struct Encoded {
    resources: Vec<ResourceKey>,
    /// Its virtual hosts as fields of a `RouteConfiguration`, one after the other.
    hosts: Vec<u8>,
    references: Vec<Reference>,
}

impl Encoder {
    /// The snapshot of `mesh`; equal to what a new encoder makes of it.
    ///
    /// # Errors
    /// Two resources have the same name, or one refers to another that is not there. Then the last mesh stays what it was.
    pub fn encode(&mut self, mesh: &Arc<Mesh>, revision: Revision) -> Result<Snapshot, SnapshotError> {
        let before = self.last.as_ref();
        let mut builder = before.map_or_else(Snapshot::builder, |last| last.snapshot.edit());
        let services: BTreeMap<ServiceKey, Arc<Encoded>> = mesh
            .services
            .iter()
            .map(|(key, service)| {
                let known = before.and_then(|last| last.encoded(mesh, key, service));
                let encoded = known.unwrap_or_else(|| {
                    Arc::new(Encoded::of(of_service(mesh, key, service), |resource| {
                        builder.insert(resource);
                    }))
                });
                (key.clone(), encoded)
            })
            .collect();
        let mut resources = shared(mesh);
        let head = take_outbound(&mut resources);
        if before.is_none_or(|last| last.head != head || last.hosts_differ(&services)) {
            builder.insert(whole(&head, &services));
        }
        let shared: BTreeSet<ResourceKey> = encoded(resources)
            .map(|resource| {
                let key = key(&resource);
                builder.insert(resource);
                key
            })
            .collect();
        for (type_url, name) in before.into_iter().flat_map(|last| last.gone(&services, &shared)) {
            builder.remove(&type_url, &name);
        }
        let snapshot = builder.build(revision)?;
        self.last = Some(Last { mesh: Arc::clone(mesh), snapshot: snapshot.clone(), services, shared, head });
        Ok(snapshot)
    }
}

impl Last {
    /// What the service was encoded to, if it is what it was.
    fn encoded(&self, mesh: &Mesh, key: &ServiceKey, service: &MeshService) -> Option<Arc<Encoded>> {
        let same = self.mesh.sidecar == mesh.sidecar
            && self.mesh.patches == mesh.patches
            && self.mesh.services.get(key) == Some(service);
        same.then(|| self.services.get(key).cloned()).flatten()
    }

    fn hosts_differ(&self, services: &BTreeMap<ServiceKey, Arc<Encoded>>) -> bool {
        let same = |(one, other): (&Arc<Encoded>, &Arc<Encoded>)| {
            Arc::ptr_eq(one, other) || (&one.hosts, &one.references) == (&other.hosts, &other.references)
        };
        self.services.len() != services.len() || !self.services.values().zip(services.values()).all(same)
    }

    /// What was there and is not any more.
    fn gone<'l>(
        &'l self,
        services: &'l BTreeMap<ServiceKey, Arc<Encoded>>,
        shared: &'l BTreeSet<ResourceKey>,
    ) -> impl Iterator<Item = ResourceKey> + 'l {
        let of_services = self.services.iter().flat_map(move |(key, encoded)| {
            let now = services.get(key);
            let unchanged = now.is_some_and(|now| Arc::ptr_eq(now, encoded));
            let known = now.filter(|_| !unchanged).map(|now| now.resources.as_slice()).unwrap_or_default();
            let all = if unchanged { &[][..] } else { encoded.resources.as_slice() };
            all.iter().filter(move |resource| !known.contains(resource))
        });
        of_services.chain(self.shared.difference(shared)).cloned()
    }
}

impl Encoded {
    fn of(service: OfService, mut insert: impl FnMut(Resource)) -> Self {
        let mut all = Self::default();
        let clusters = service.clusters.into_iter().map(one);
        for resource in clusters.chain(service.endpoints.into_iter().map(one)) {
            all.resources.push(key(&resource));
            insert(resource);
        }
        for host in service.hosts.into_iter().map(one) {
            let body = host.body();
            encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut all.hosts);
            encode_varint(body.len() as u64, &mut all.hosts);
            all.hosts.extend_from_slice(&body);
            all.references.extend_from_slice(host.references());
        }
        all
    }
}

/// Takes out the outbound route configuration, which lacks its virtual hosts.
fn take_outbound(resources: &mut Resources) -> Resource {
    let found = resources.routes.iter().position(|routes| routes.name == OUTBOUND);
    let outbound = found.map(|at| resources.routes.remove(at));
    let message = outbound.map(|outbound| outbound.message).unwrap_or_default();
    Resource::encode(OUTBOUND, &message)
}

/// The outbound route configuration with the virtual hosts of all services. In a protobuf message a field may stand
/// anywhere.
fn whole(head: &Resource, services: &BTreeMap<ServiceKey, Arc<Encoded>>) -> Resource {
    let head_body = head.body();
    let length = services.values().map(|encoded| encoded.hosts.len()).sum::<usize>() + head_body.len();
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(&head_body);
    services.values().for_each(|encoded| body.extend_from_slice(&encoded.hosts));
    let references: BTreeSet<&Reference> =
        services.values().flat_map(|encoded| &encoded.references).chain(head.references()).collect();
    Resource::from_bytes(TypeUrl::ROUTE, OUTBOUND, body.into()).referring_to(references.into_iter().cloned())
}

fn encoded(resources: Resources) -> impl Iterator<Item = Resource> {
    let Resources { clusters, endpoints, listeners, routes, secrets } = resources;
    let clusters = clusters.into_iter().map(one);
    let endpoints = endpoints.into_iter().map(one);
    let listeners = listeners.into_iter().map(one);
    let secrets = secrets.into_iter().map(one);
    clusters.chain(endpoints).chain(secrets).chain(listeners).chain(routes.into_iter().map(one))
}

fn one<M: Message + Name + 'static>(resource: Sourced<M>) -> Resource {
    Resource::encode(resource.name, &resource.message)
}

fn key(resource: &Resource) -> ResourceKey {
    (resource.type_url().clone(), resource.name().into())
}
