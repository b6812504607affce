//! Changes of EndpointSlices alone, followed without resolving anything else.
//!
//! Of what an EndpointSlice says about its endpoints a mesh depends in one place, the endpoints of services, as long as there are
//! any: that there are none is told in a warning. [`Answering`] has that place, for the whole and for this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::endpoints::{Answering, SlicesOf};
use crate::model::policy::Policy;
use crate::model::policy::subsets::Members;
use crate::model::service::EndpointSlice;
use crate::model::{Document, Mesh, MeshPort, MeshService, Object, ServiceKey};

/// What the endpoints of a mesh were resolved from, kept for the next change of them.
#[derive(Debug)]
pub struct Slices {
    services: BTreeMap<Arc<ServiceKey>, Sources>,
    /// The services with subsets made of another service's endpoints, by that one.
    borrowers: BTreeMap<ServiceKey, BTreeSet<Arc<ServiceKey>>>,
}

/// The documents of a service.
#[derive(Debug)]
struct Sources {
    service: Arc<Document>,
    /// By place.
    slices: Vec<Arc<Document>>,
}

/// The documents of a file, before and after a change.
pub type Change<'c> = (&'c [Arc<Document>], &'c [Arc<Document>]);

impl Slices {
    /// What the endpoints of `mesh`, which was made of `documents` without a mistake, depend on.
    pub fn of(documents: &[Arc<Document>], mesh: &Mesh) -> Self {
        let mut sorted: Vec<&Arc<Document>> = documents.iter().collect();
        sorted.sort_by(|a, b| (a.origin.file(), a.origin.span()).cmp(&(b.origin.file(), b.origin.span())));
        let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for document in sorted {
            match &document.object {
                Object::Service(_) => {
                    services.insert(key(mesh, document, &document.metadata.name), Arc::clone(document));
                }
                Object::EndpointSlice(slice) => {
                    slices.entry(key(mesh, document, &slice.service)).or_default().push(Arc::clone(document));
                }
                _ => {}
            }
        }
        let sources = mesh.services.keys().filter_map(|key| {
            let slices = slices.remove(key).unwrap_or_default();
            Some((Arc::clone(key), Sources { service: services.remove(key)?, slices }))
        });
        Self { services: sources.collect(), borrowers: borrowers(mesh) }
    }

    /// `mesh` with the endpoints that are there after `changes`, and what the next change of it needs; `None` if more has
    /// changed than endpoints.
    pub fn follow(mut self, mesh: &Mesh, changes: &[Change<'_>]) -> Option<(Mesh, Self)> {
        let mut touched = BTreeSet::new();
        for (before, after) in changes {
            if before.len() != after.len() {
                return None;
            }
            for (old, new) in before.iter().zip(*after) {
                match service_of_both(mesh, old, new) {
                    Some(service) => touched.insert(self.replace(service, new)?),
                    None if old == new => false,
                    None => return None,
                };
            }
        }
        let borrowing = touched.iter().filter_map(|key| self.borrowers.get(key)).flatten().cloned();
        let touched: BTreeSet<Arc<ServiceKey>> = borrowing.chain(touched.iter().cloned()).collect();
        let mut services = mesh.services.clone();
        for key in &touched {
            let service = services.get_mut(key)?;
            *service = Arc::new(self.answered(mesh, key, service)?);
        }
        Some((Mesh { proxy: Arc::clone(&mesh.proxy), services }, self))
    }

    /// Puts a slice in the place of the one of the same name.
    fn replace(&mut self, service: ServiceKey, new: &Arc<Document>) -> Option<Arc<ServiceKey>> {
        let sources = self.services.get_mut(&service)?;
        let old = sources.slices.iter_mut().find(|old| old.metadata.name == new.metadata.name)?;
        *old = Arc::clone(new);
        self.services.get_key_value(&service).map(|(key, _)| Arc::clone(key))
    }

    /// The service with its endpoints as they are now. `None` where a port has none, or had none: then there is more to say.
    fn answered(&self, mesh: &Mesh, key: &ServiceKey, service: &MeshService) -> Option<MeshService> {
        let sources = self.services.get(key)?;
        let Object::Service(document) = &sources.service.object else { return None };
        let lenders = service.ports.iter().flat_map(|port| lenders(key, port.policy.as_deref()));
        let concerned = lenders.chain([key.clone()]);
        let slices: SlicesOf<'_> = concerned.map(|key| (key.clone(), self.slices(&key))).collect();
        let answering = Answering { slices: &slices, sidecar: &mesh.proxy.sidecar };
        let ports = service.ports.iter().zip(&document.ports).map(|(port, named)| {
            let endpoints = answering.endpoints(key, &named.name, port.policy.as_deref());
            let some_before_and_after = !port.endpoints.is_empty() && !endpoints.is_empty();
            let endpoint_origins = sources.slices.iter().map(|slice| slice.origin.clone()).collect();
            some_before_and_after.then(|| MeshPort { endpoints, endpoint_origins, ..port.clone() })
        });
        Some(MeshService { origin: service.origin.clone(), ports: ports.collect::<Option<_>>()? })
    }

    fn slices(&self, key: &ServiceKey) -> Vec<(&Document, &EndpointSlice)> {
        let slices = self.services.get(key).into_iter().flat_map(|sources| &sources.slices);
        let slices = slices.filter_map(|document| match &document.object {
            Object::EndpointSlice(slice) => Some((document.as_ref(), slice)),
            _ => None,
        });
        slices.collect()
    }
}

/// The service of two states of one slice, if they differ in nothing but endpoints and places.
fn service_of_both(mesh: &Mesh, old: &Document, new: &Document) -> Option<ServiceKey> {
    let (Object::EndpointSlice(before), Object::EndpointSlice(after)) = (&old.object, &new.object) else {
        return None;
    };
    let named = |document: &Document| key(mesh, document, &document.metadata.name);
    let same =
        named(old) == named(new) && old.metadata.tags == new.metadata.tags && before.service == after.service;
    same.then(|| key(mesh, new, &after.service))
}

fn key(mesh: &Mesh, document: &Document, name: &str) -> ServiceKey {
    let namespace = document.metadata.namespace.as_ref().unwrap_or(&mesh.proxy.sidecar.namespace);
    ServiceKey { namespace: namespace.clone(), name: name.to_owned() }
}

fn borrowers(mesh: &Mesh) -> BTreeMap<ServiceKey, BTreeSet<Arc<ServiceKey>>> {
    let mut borrowers = BTreeMap::<_, BTreeSet<_>>::new();
    for (key, service) in &mesh.services {
        for lender in service.ports.iter().flat_map(|port| lenders(key, port.policy.as_deref())) {
            borrowers.entry(lender).or_default().insert(Arc::clone(key));
        }
    }
    borrowers
}

/// The services whose endpoints are in subsets of this one.
fn lenders<'p>(key: &ServiceKey, policy: Option<&'p Policy>) -> impl Iterator<Item = ServiceKey> + use<'p> {
    let (namespace, subsets) = (key.namespace.clone(), policy.and_then(|policy| policy.subsets.as_deref()));
    subsets.into_iter().flat_map(|subsets| &subsets.0).filter_map(move |subset| match &subset.members {
        Members::Service { name, .. } => {
            Some(ServiceKey { namespace: namespace.clone(), name: name.clone() })
        }
        Members::Tags(_) => None,
    })
}
