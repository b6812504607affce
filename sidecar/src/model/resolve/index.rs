//! The documents by what refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::diagnostic::{Diagnostic, Origin};
use crate::model::reference::{BackendRef, ParentKind, ParentRef};
use crate::model::route::{Route, RouteKind};
use crate::model::service::{AppProtocol, Service, ServicePort};
use crate::model::sidecar::Sidecar;
use crate::model::{Backend, Document, Object, ServiceKey};

use super::endpoints::SlicesOf;
use super::grants::Grants;
use super::ingress::Ingress;

/// The documents by what refers to them.
pub(super) struct Index<'d> {
    pub(super) sidecar: &'d Sidecar,
    pub(super) services: BTreeMap<ServiceKey, (&'d Document, &'d Service)>,
    pub(super) slices: SlicesOf<'d>,
    pub(super) routes: BTreeMap<ServiceKey, Vec<Attached<'d>>>,
    /// The ports that a GRPCRoute is about, or sends to.
    pub(super) grpc_ports: BTreeSet<Backend>,
    pub(super) grants: Grants<'d>,
    /// What enters from outside.
    pub(super) ingress: Ingress<'d>,
}

/// A route at one of its parents.
#[derive(Clone, Copy)]
pub(super) struct Attached<'d> {
    pub(super) document: &'d Document,
    pub(super) namespace: &'d str,
    pub(super) route: &'d Route,
    pub(super) parent: &'d ParentRef,
    /// Whether a backend in another namespace must be granted: not for those at a Service (GEP-1426).
    pub(super) needs_grant: bool,
}

impl<'d> Index<'d> {
    pub(super) fn new(
        sidecar: &'d Sidecar,
        documents: &[&'d Document],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut index = Self {
            sidecar,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            routes: BTreeMap::new(),
            grpc_ports: BTreeSet::new(),
            grants: Grants::default(),
            ingress: Ingress::default(),
        };
        let (mut first_slices, mut first_routes) = (BTreeMap::new(), BTreeMap::new());
        for document in documents {
            let key = index.key(document);
            match &document.object {
                Object::Sidecar(_) => {}
                Object::Service(service) => match index.services.get(&key) {
                    Some((first, _)) => diagnostics.push(twice("Service", &key, document, &first.origin)),
                    None => {
                        index.services.insert(key, (document, service));
                    }
                },
                Object::EndpointSlice(slice) => match first_slices.get(&key) {
                    Some(first) => diagnostics.push(twice("EndpointSlice", &key, document, first)),
                    None => {
                        let service = ServiceKey { name: slice.service.clone(), ..key.clone() };
                        first_slices.insert(key, document.origin.clone());
                        index.slices.entry(service).or_default().push((document, slice));
                    }
                },
                Object::HttpRoute(route) | Object::GrpcRoute(route) => {
                    match first_routes.get(&(route.kind, key.clone())) {
                        Some(first) => diagnostics.push(twice(route.kind.name(), &key, document, first)),
                        None => {
                            first_routes.insert((route.kind, key), document.origin.clone());
                            index.attach(document, route);
                        }
                    }
                }
                Object::TrafficPolicy(_) | Object::EnvoyPatch(_) => {}
                Object::ReferenceGrant(grant) => index.grants.add(index.namespace(document), grant),
                Object::Gateway(_)
                | Object::GatewayClass(_)
                | Object::StreamRoute(_)
                | Object::BackendTlsPolicy(_)
                | Object::Secret(_)
                | Object::ConfigMap(_)
                | Object::Namespace => index.ingress.add(key, document, diagnostics),
            }
        }
        index
    }

    pub(super) fn namespace(&self, document: &'d Document) -> &'d str {
        document.metadata.namespace.as_deref().unwrap_or(&self.sidecar.namespace)
    }

    pub(super) fn key(&self, document: &'d Document) -> ServiceKey {
        ServiceKey { namespace: self.namespace(document).to_owned(), name: document.metadata.name.clone() }
    }

    /// A route of the service's own namespace is meant for all of its clients; one of another namespace only for the
    /// clients in that (GEP-1426, "namespace boundaries").
    fn attach(&mut self, document: &'d Document, route: &'d Route) {
        let namespace = self.namespace(document);
        if route.kind == RouteKind::Grpc {
            self.note_grpc_ports(namespace, route);
        }
        for parent in &route.parents {
            if parent.kind == ParentKind::Gateway {
                let of_gateway = parent.namespace.as_deref().unwrap_or(namespace).to_owned();
                let key = ServiceKey { namespace: of_gateway, name: parent.name.clone() };
                let at = Attached { document, namespace, route, parent, needs_grant: true };
                self.ingress.routes.entry(key).or_default().push(at);
                continue;
            }
            let of_service = parent.namespace.as_deref().unwrap_or(namespace);
            if of_service == namespace || namespace == self.sidecar.namespace {
                let key = ServiceKey { namespace: of_service.to_owned(), name: parent.name.clone() };
                self.routes.entry(key).or_default().push(Attached {
                    document,
                    namespace,
                    route,
                    parent,
                    needs_grant: false,
                });
            }
        }
    }

    fn note_grpc_ports(&mut self, namespace: &str, route: &Route) {
        let backends = route.rules.iter().flat_map(|rule| &rule.backends).map(|weighted| &weighted.backend);
        self.grpc_ports.extend(backends.map(|reference| reference.resolved(namespace)));
    }

    /// The routes of the port's clients. Those of the client's own namespace stand in for those of the service's
    /// (GEP-1426: consumer routes override producer routes, they are not merged).
    pub(super) fn attached(&self, key: &ServiceKey, port: &ServicePort) -> Vec<Attached<'d>> {
        let all = self.routes.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut attached: Vec<_> = all.iter().copied().filter(|at| at.parent.selects(port)).collect();
        let is_consumer = |at: &Attached<'_>| at.namespace != key.namespace;
        if attached.iter().any(is_consumer) {
            attached.retain(is_consumer);
        }
        attached.dedup_by(|a, b| std::ptr::eq(a.document, b.document));
        attached
    }

    /// What is spoken on a port: what the Service says, or else what the routes to it need.
    pub(super) fn protocol(&self, key: &ServiceKey, port: &ServicePort) -> AppProtocol {
        let of_grpc = || {
            let backend = Backend { service: key.clone(), port: port.number };
            let at = self.routes.get(key).map(Vec::as_slice).unwrap_or_default();
            let attached = at.iter().any(|at| at.route.kind == RouteKind::Grpc && at.parent.selects(port));
            attached || self.grpc_ports.contains(&backend)
        };
        port.protocol.unwrap_or_else(|| if of_grpc() { AppProtocol::H2c } else { AppProtocol::Http })
    }

    pub(super) fn service(&self, key: &ServiceKey) -> Result<&'d Service, Diagnostic> {
        if let Some((_, service)) = self.services.get(key) {
            return Ok(service);
        }
        let mistake = Diagnostic::error(format!("there is no Service {key}")).leading_nowhere();
        let near = self.services.keys().filter(|other| other.namespace == key.namespace);
        Err(match self.services.keys().find(|other| other.name == key.name) {
            Some(other) => mistake.help(format!("there is one in namespace {}", other.namespace)),
            None => mistake.nearest(&key.name, near.map(|other| other.name.as_str())),
        })
    }
}

impl BackendRef {
    /// What it means in a document of `namespace`.
    pub(crate) fn resolved(&self, namespace: &str) -> Backend {
        let namespace = self.namespace.as_deref().unwrap_or(namespace).to_owned();
        Backend { service: ServiceKey { namespace, name: self.name.clone() }, port: self.port }
    }
}

impl ParentRef {
    pub(super) fn selects(&self, port: &ServicePort) -> bool {
        self.port.is_none_or(|number| number == port.number)
            && self.section_name.as_ref().is_none_or(|name| *name == port.name)
    }
}

pub(super) fn twice(kind: &str, key: impl fmt::Display, document: &Document, first: &Origin) -> Diagnostic {
    Diagnostic::error(format!("the {kind} {key} is there twice"))
        .at(&document.origin)
        .help(format!("the first is at {first}"))
        .against([first])
}

pub(super) fn missing_port(key: &ServiceKey, which: &str, service: &Service) -> Diagnostic {
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    let mistake = Diagnostic::error(format!("Service {key} has no port {which}")).leading_nowhere();
    match ports.as_slice() {
        [] => mistake,
        [only] => mistake.help(format!("its port is {only}")),
        several => mistake.help(format!("its ports are {}", several.join(", "))),
    }
}
