//! Documents to a [`Mesh`]: every reference followed, every rule in its place.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::http_route::{BackendRef, HttpRoute, ParentRef, RouteRule};
use super::precedence::Precedence;
use super::service::{EndpointSlice, Service, ServicePort};
use super::sidecar::Sidecar;
use super::{Action, Backend, Document, Mesh, MeshPort, MeshService, Object, Routing, Rule, ServiceKey};
use crate::diagnostic::{Diagnostic, Origin, Severity, Span};

/// More are not shown: nobody reads them, and comparing them with the last ones would hold up the next change.
pub const MAX_DIAGNOSTICS: usize = 1_000;

/// What came of a set of documents.
#[derive(Debug)]
pub struct Resolution {
    /// The mesh, unless there was an error.
    pub mesh: Option<Mesh>,
    /// Errors and warnings, by place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Connects the documents. The result depends on the set of documents alone, not on their order.
pub fn resolve(documents: &[Arc<Document>]) -> Resolution {
    let documents = by_place(documents);
    let mut diagnostics = Vec::new();
    let mesh = the_sidecar(&documents, &mut diagnostics).map(|(sidecar, origin)| {
        let index = Index::new(sidecar, &documents, &mut diagnostics);
        let mut resolver = Resolver { index: &index, diagnostics: &mut diagnostics };
        resolver.check_parents();
        resolver.check_slices();
        Mesh { sidecar: sidecar.clone(), sidecar_origin: origin.clone(), services: resolver.services() }
    });
    let failed = diagnostics.iter().any(Diagnostic::is_error);
    Resolution { mesh: mesh.filter(|_| !failed), diagnostics: in_order(diagnostics) }
}

/// By place, without repetitions; of too many, errors are kept before warnings.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| place(a).cmp(&place(b)));
    diagnostics.dedup();
    if diagnostics.len() > MAX_DIAGNOSTICS {
        diagnostics.sort_by_key(|diagnostic| !diagnostic.is_error());
        diagnostics.truncate(MAX_DIAGNOSTICS);
        diagnostics.sort_by(|a, b| place(a).cmp(&place(b)));
    }
    diagnostics
}

fn place(diagnostic: &Diagnostic) -> Option<(&str, Span)> {
    diagnostic.origin.as_ref().map(|origin| (origin.file(), origin.span()))
}

/// By place, so that which of two is the first does not depend on the order of reading.
fn by_place(documents: &[Arc<Document>]) -> Vec<&Document> {
    let mut sorted: Vec<&Document> = documents.iter().map(AsRef::as_ref).collect();
    sorted.sort_by(|a, b| (a.origin.file(), a.origin.span()).cmp(&(b.origin.file(), b.origin.span())));
    sorted
}

/// The one `Sidecar` among the documents.
fn the_sidecar<'d>(
    documents: &[&'d Document],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(&'d Sidecar, &'d Origin)> {
    let mut sidecars = documents.iter().filter_map(|document| match &document.object {
        Object::Sidecar(sidecar) => Some((sidecar, &document.origin)),
        _ => None,
    });
    let Some((sidecar, first)) = sidecars.next() else {
        diagnostics.push(
            Diagnostic::error("there is no Sidecar, so nothing says whose configuration this is")
                .help("add a document with apiVersion: weft.dev/v1alpha1 and kind: Sidecar"),
        );
        return None;
    };
    diagnostics.extend(sidecars.map(|(_, origin)| {
        Diagnostic::error("there is a second Sidecar; a configuration is about one workload")
            .at(origin)
            .help(format!("the first is at {first}"))
    }));
    Some((sidecar, first))
}

/// The documents by what refers to them.
struct Index<'d> {
    sidecar: &'d Sidecar,
    services: BTreeMap<ServiceKey, (&'d Document, &'d Service)>,
    slices: BTreeMap<ServiceKey, Vec<(&'d Document, &'d EndpointSlice)>>,
    routes: BTreeMap<ServiceKey, Vec<Attached<'d>>>,
}

/// A route at one of its parents.
#[derive(Clone, Copy)]
struct Attached<'d> {
    document: &'d Document,
    namespace: &'d str,
    route: &'d HttpRoute,
    parent: &'d ParentRef,
}

impl<'d> Index<'d> {
    fn new(sidecar: &'d Sidecar, documents: &[&'d Document], diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut index =
            Self { sidecar, services: BTreeMap::new(), slices: BTreeMap::new(), routes: BTreeMap::new() };
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
                Object::HttpRoute(route) => match first_routes.get(&key) {
                    Some(first) => diagnostics.push(twice("HTTPRoute", &key, document, first)),
                    None => {
                        first_routes.insert(key, document.origin.clone());
                        index.attach(document, route);
                    }
                },
            }
        }
        index
    }

    fn namespace(&self, document: &'d Document) -> &'d str {
        document.metadata.namespace.as_deref().unwrap_or(&self.sidecar.namespace)
    }

    fn key(&self, document: &'d Document) -> ServiceKey {
        ServiceKey { namespace: self.namespace(document).to_owned(), name: document.metadata.name.clone() }
    }

    /// A route of the service's own namespace is meant for all of its clients; one of another namespace only for the
    /// clients in that (GEP-1426, "namespace boundaries").
    fn attach(&mut self, document: &'d Document, route: &'d HttpRoute) {
        let namespace = self.namespace(document);
        for parent in &route.parents {
            let of_service = parent.namespace.as_deref().unwrap_or(namespace);
            if of_service == namespace || namespace == self.sidecar.namespace {
                let key = ServiceKey { namespace: of_service.to_owned(), name: parent.name.clone() };
                self.routes.entry(key).or_default().push(Attached { document, namespace, route, parent });
            }
        }
    }

    /// The routes that distribute requests to `port`. Those of the client's own namespace stand in for those of the
    /// service's (GEP-1426: consumer routes override producer routes, they are not merged).
    fn attached(&self, key: &ServiceKey, port: &ServicePort) -> Vec<Attached<'d>> {
        let all = self.routes.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut attached: Vec<_> = all.iter().copied().filter(|at| at.parent.selects(port)).collect();
        let is_consumer = |at: &Attached<'_>| at.namespace != key.namespace;
        if attached.iter().any(is_consumer) {
            attached.retain(is_consumer);
        }
        attached.dedup_by(|a, b| std::ptr::eq(a.document, b.document));
        attached
    }

    fn service(&self, key: &ServiceKey) -> Result<&'d Service, Diagnostic> {
        if let Some((_, service)) = self.services.get(key) {
            return Ok(service);
        }
        let mistake = Diagnostic::error(format!("there is no Service {key}"));
        let near = self.services.keys().filter(|other| other.namespace == key.namespace);
        Err(match self.services.keys().find(|other| other.name == key.name) {
            Some(other) => mistake.help(format!("there is one in namespace {}", other.namespace)),
            None => mistake.nearest(&key.name, near.map(|other| other.name.as_str())),
        })
    }
}

/// Follows references and says which lead nowhere.
struct Resolver<'i, 'd> {
    index: &'i Index<'d>,
    diagnostics: &'i mut Vec<Diagnostic>,
}

/// A rule that still knows where it stands among those of its service.
struct Ranked<'d> {
    precedence: Precedence<'d>,
    rule: Rule,
}

impl<'d> Resolver<'_, 'd> {
    fn check_parents(&mut self) {
        for (key, attached) in &self.index.routes {
            for at in attached {
                if let Err(mistake) = self.check_parent(key, at.parent) {
                    self.diagnostics.push(mistake.at(&at.document.origin.with_span(at.parent.span)));
                }
            }
        }
    }

    fn check_parent(&self, key: &ServiceKey, parent: &ParentRef) -> Result<(), Diagnostic> {
        let service = self.index.service(key)?;
        if service.ports.iter().any(|port| parent.selects(port)) {
            return Ok(());
        }
        let which = match (parent.port, &parent.section_name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => format!("{name:?}"),
            (None, None) => "for HTTP".into(),
        };
        Err(missing_port(key, &which, service))
    }

    /// A slice without its service is harmless: Kubernetes removes the two one after the other.
    fn check_slices(&mut self) {
        for (key, slices) in &self.index.slices {
            if let Err(mistake) = self.index.service(key) {
                let warning = Diagnostic { severity: Severity::Warning, ..mistake };
                self.diagnostics.extend(slices.iter().map(|(document, slice)| {
                    warning.clone().at(&document.origin.with_span(slice.service_span))
                }));
            }
        }
    }

    fn services(&mut self) -> BTreeMap<ServiceKey, MeshService> {
        let index = self.index;
        let services = index.services.iter().map(|(key, (document, service))| {
            let ports = service.ports.iter().map(|port| self.port(key, document, port)).collect();
            (key.clone(), MeshService { origin: document.origin.clone(), ports })
        });
        services.collect()
    }

    fn port(&mut self, key: &ServiceKey, document: &Document, port: &ServicePort) -> MeshPort {
        let slices = self.index.slices.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints: Vec<_> =
            slices.iter().flat_map(|(_, slice)| slice.endpoints(&port.name)).collect();
        endpoints.sort();
        endpoints.dedup();
        if endpoints.is_empty() {
            self.diagnostics.push(no_endpoints(key, port, slices).at(&document.origin));
        }
        MeshPort {
            number: port.number,
            protocol: port.protocol,
            endpoints,
            endpoint_origins: slices.iter().map(|(document, _)| document.origin.clone()).collect(),
            routing: self.routing(key, port),
        }
    }

    fn routing(&mut self, key: &ServiceKey, port: &ServicePort) -> Routing {
        let attached = self.index.attached(key, port);
        if attached.is_empty() {
            return Routing::Direct;
        }
        let mut ranked: Vec<Ranked<'d>> = attached.into_iter().flat_map(|at| self.rules(at)).collect();
        ranked.sort_by(|a, b| a.precedence.cmp(&b.precedence));
        Routing::Rules(ranked.into_iter().map(|ranked| ranked.rule).collect())
    }

    fn rules(&mut self, at: Attached<'d>) -> Vec<Ranked<'d>> {
        let rules = at.route.rules.iter().enumerate();
        rules.flat_map(|(position, rule)| self.matches(at, position, rule)).collect()
    }

    fn matches(&mut self, at: Attached<'d>, rule_at: usize, rule: &RouteRule) -> Vec<Ranked<'d>> {
        let action = self.action(at, rule);
        let metadata = &at.document.metadata;
        let full_name = (at.namespace, metadata.name.as_str());
        let ranked = rule.matches.iter().enumerate().map(|(match_at, matching)| Ranked {
            precedence: Precedence::of(matching, metadata.created.as_deref(), full_name, (rule_at, match_at)),
            rule: Rule {
                name: format!("{}/{}/{rule_at}/{match_at}", at.namespace, metadata.name),
                origin: at.document.origin.with_span(rule.span),
                matching: matching.clone(),
                action: action.clone(),
            },
        });
        ranked.collect()
    }

    fn action(&mut self, at: Attached<'_>, rule: &RouteRule) -> Action {
        let mut backends = Vec::new();
        for reference in &rule.backends {
            match self.backend(at.namespace, reference) {
                Ok(backend) => {
                    backends.extend(NonZeroU32::new(reference.weight).map(|weight| (backend, weight)));
                }
                Err(mistake) => {
                    self.diagnostics.push(mistake.at(&at.document.origin.with_span(reference.span)));
                }
            }
        }
        if backends.is_empty() { Action::NoBackend } else { Action::Forward(backends) }
    }

    fn backend(&self, namespace: &str, reference: &BackendRef) -> Result<Backend, Diagnostic> {
        let target = reference.namespace.as_deref().unwrap_or(namespace);
        let key = ServiceKey { namespace: target.to_owned(), name: reference.name.clone() };
        if target != namespace {
            let mistake = format!("a backendRef to {key} in another namespace needs a ReferenceGrant");
            return Err(Diagnostic::error(mistake).help("ReferenceGrant is not supported yet"));
        }
        let service = self.index.service(&key)?;
        if service.ports.iter().any(|port| port.number == reference.port) {
            return Ok(Backend { service: key, port: reference.port });
        }
        Err(missing_port(&key, &reference.port.to_string(), service))
    }
}

impl ParentRef {
    fn selects(&self, port: &ServicePort) -> bool {
        self.port.is_none_or(|number| number == port.number)
            && self.section_name.as_ref().is_none_or(|name| *name == port.name)
    }
}

fn twice(kind: &str, key: &ServiceKey, document: &Document, first: &Origin) -> Diagnostic {
    Diagnostic::error(format!("the {kind} {key} is there twice"))
        .at(&document.origin)
        .help(format!("the first is at {first}"))
}

fn missing_port(key: &ServiceKey, which: &str, service: &Service) -> Diagnostic {
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    let mistake = Diagnostic::error(format!("Service {key} has no port {which}"));
    match ports.as_slice() {
        [] => mistake,
        [only] => mistake.help(format!("its port is {only}")),
        several => mistake.help(format!("its ports are {}", several.join(", "))),
    }
}

fn no_endpoints(key: &ServiceKey, port: &ServicePort, slices: &[(&Document, &EndpointSlice)]) -> Diagnostic {
    let warning = Diagnostic::warning(format!(
        "port {} of Service {key} has no ready endpoint; requests to it are answered with 503",
        port.number
    ));
    let other = slices.iter().flat_map(|(_, slice)| &slice.ports).find(|(name, _)| *name != port.name);
    match other {
        None if slices.is_empty() => warning.help(format!(
            "add an EndpointSlice with the label {}: {}",
            super::service::SERVICE_NAME_LABEL,
            key.name
        )),
        Some((name, _)) if slices.iter().all(|(_, slice)| slice.endpoints(&port.name).next().is_none()) => {
            warning
                .help(format!("the Service's port is called {:?}, the EndpointSlice's {name:?}", port.name))
        }
        _ => warning,
    }
}
