//! From a mesh to a snapshot, at a cost in proportion to what has changed.
//!
//! An [`Encoder`] keeps the mesh that it encoded last; a service that is equal to what it was is neither translated nor
//! encoded again, and the virtual host of one that is not is put between those of the others, which are there as bytes.
//! The same holds for what is made of no service, as a whole. The snapshot shares with the last whatever is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};
use weft_xds::snapshot::Builder;
use weft_xds::{Reference, Resource, Revision, Snapshot, SnapshotError, TypeUrl};

use crate::model::{Mesh, MeshService, Proxy, ServiceKey};
use crate::translate::{NO_BACKEND, OUTBOUND, OfService, Resources, Sourced, of_service, shared};

/// The field of a `RouteConfiguration` that holds its virtual hosts.
const VIRTUAL_HOSTS: u32 = 2;

/// Encodes one mesh after the other.
#[derive(Debug, Default)]
pub struct Encoder {
    mesh: Option<Arc<Mesh>>,
    snapshot: Snapshot,
    services: BTreeMap<Arc<ServiceKey>, Encoded>,
    /// What is made of no service.
    shared: BTreeSet<ResourceKey>,
    /// The outbound route configuration without its virtual hosts.
    head: Option<Resource>,
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

/// The next snapshot in the making.
struct Edit {
    builder: Builder,
    inserted: BTreeSet<ResourceKey>,
    /// What is left out unless it is inserted.
    replaced: BTreeSet<ResourceKey>,
}

impl Encoder {
    /// The snapshot of `mesh`; equal to what a new encoder makes of it.
    ///
    /// # Errors
    /// Two resources have the same name, or one refers to another that is not there. The next mesh is then encoded as if it
    /// were the first.
    pub fn encode(&mut self, mesh: &Arc<Mesh>, revision: Revision) -> Result<Snapshot, SnapshotError> {
        let mut next = std::mem::take(self);
        let before = next.mesh.replace(Arc::clone(mesh));
        let mut edit = Edit::of(&next.snapshot);
        let mut routes_differ = next.encode_proxy(before.as_deref(), &mesh.proxy, &mut edit);
        for (key, service) in changes(before.as_deref(), mesh) {
            routes_differ |= next.encode_service(&mesh.proxy, key, service, &mut edit);
        }
        if let Some(head) = next.head.as_ref().filter(|_| routes_differ) {
            edit.insert(whole(head, &next.services));
        }
        next.snapshot = edit.finish(revision)?;
        *self = next;
        Ok(self.snapshot.clone())
    }

    /// Whether the head of the route configuration is another one than before.
    fn encode_proxy(&mut self, before: Option<&Mesh>, proxy: &Arc<Proxy>, edit: &mut Edit) -> bool {
        if before.is_some_and(|mesh| Arc::ptr_eq(&mesh.proxy, proxy) || mesh.proxy == *proxy) {
            return false;
        }
        let mut resources = shared(proxy);
        let head = Some(take_outbound(&mut resources));
        edit.replace(&self.shared);
        self.shared = encoded(resources).map(|resource| edit.insert(resource)).collect();
        let differs = self.head != head;
        self.head = head;
        differs
    }

    /// Whether its virtual hosts are others than before.
    fn encode_service(
        &mut self,
        proxy: &Proxy,
        key: &Arc<ServiceKey>,
        service: Option<&Arc<MeshService>>,
        edit: &mut Edit,
    ) -> bool {
        let before = self.services.remove(key).unwrap_or_default();
        edit.replace(&before.resources);
        let Some(service) = service else { return !before.hosts.is_empty() };
        let now = Encoded::of(of_service(proxy, key, service), edit);
        let differs = (&before.hosts, &before.references) != (&now.hosts, &now.references);
        self.services.insert(Arc::clone(key), now);
        differs
    }
}

/// The services that are not what they were, with what they are now, if they are there at all.
fn changes<'m>(
    before: Option<&'m Mesh>,
    now: &'m Mesh,
) -> Vec<(&'m Arc<ServiceKey>, Option<&'m Arc<MeshService>>)> {
    let translated_alike = before.is_some_and(|before| are_alike(&before.proxy, &now.proxy));
    let is_same = |one, other| translated_alike && (Arc::ptr_eq(one, other) || one == other);
    let mut old = before.into_iter().flat_map(|mesh| &mesh.services).peekable();
    let mut found = Vec::new();
    for (key, service) in &now.services {
        let known = loop {
            match old.peek() {
                Some((other, _)) if *other == key => break old.next().map(|(_, known)| known),
                Some((other, _)) if *other < key => found.extend(old.next().map(|(gone, _)| (gone, None))),
                _ => break None,
            }
        };
        if !known.is_some_and(|known| is_same(known, service)) {
            found.push((key, Some(service)));
        }
    }
    found.extend(old.map(|(gone, _)| (gone, None)));
    found
}

/// Whether both make the same of a service: [`of_service`] looks at nothing else.
fn are_alike(one: &Arc<Proxy>, other: &Arc<Proxy>) -> bool {
    Arc::ptr_eq(one, other) || (&one.sidecar, &one.patches) == (&other.sidecar, &other.patches)
}

impl Edit {
    fn of(snapshot: &Snapshot) -> Self {
        let mut builder = snapshot.edit();
        // The one name to which a listener may refer though nothing is called so.
        builder.external(TypeUrl::CLUSTER, NO_BACKEND);
        Self { builder, inserted: BTreeSet::new(), replaced: BTreeSet::new() }
    }

    fn insert(&mut self, resource: Resource) -> ResourceKey {
        let key = (resource.type_url().clone(), Arc::clone(resource.shared_name()));
        self.builder.insert(resource);
        self.inserted.insert(ResourceKey::clone(&key));
        key
    }

    fn replace<'k>(&mut self, resources: impl IntoIterator<Item = &'k ResourceKey>) {
        self.replaced.extend(resources.into_iter().cloned());
    }

    fn finish(mut self, revision: Revision) -> Result<Snapshot, SnapshotError> {
        for (type_url, name) in self.replaced.difference(&self.inserted) {
            self.builder.remove(type_url, name);
        }
        self.builder.build(revision)
    }
}

impl Encoded {
    fn of(service: OfService, edit: &mut Edit) -> Self {
        let mut all = Self::default();
        let clusters = service.clusters.into_iter().map(one);
        let endpoints = service.endpoints.into_iter().map(one);
        all.resources = clusters.chain(endpoints).map(|resource| edit.insert(resource)).collect();
        for host in service.hosts.into_iter().map(one) {
            let body = host.body();
            encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut all.hosts);
            encode_varint(body.len() as u64, &mut all.hosts);
            all.hosts.extend_from_slice(&body);
            all.references.extend_from_slice(host.references());
        }
        all.hosts.shrink_to_fit();
        all.references.shrink_to_fit();
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
fn whole(head: &Resource, services: &BTreeMap<Arc<ServiceKey>, Encoded>) -> Resource {
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
