//! Services and their ready endpoints.

use std::sync::Arc;

use super::Resolver;
use super::index::Index;
use crate::diagnostic::{Diagnostic, Severity};
use crate::model::service::{EndpointSlice, SERVICE_NAME_LABEL, Service, ServiceKind, ServicePort};
use crate::model::{Dns, Document, MeshPort, ServiceKey};

impl Resolver<'_, '_> {
    /// A slice without its service is harmless: Kubernetes removes the two one after the other.
    pub(super) fn check_slices(&mut self) {
        for (key, slices) in &self.index.slices {
            if let Err(mistake) = self.index.service(key) {
                let warning = Diagnostic { severity: Severity::Warning, ..mistake };
                self.diagnostics.extend(slices.iter().map(|(document, slice)| {
                    warning.clone().at(&document.origin.with_span(slice.service_span))
                }));
            }
        }
    }

    pub(super) fn port(&mut self, key: &ServiceKey, document: &Document, port: &ServicePort) -> MeshPort {
        let slices = self.index.slices.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints: Vec<_> =
            slices.iter().flat_map(|(_, slice)| slice.endpoints(&port.name)).collect();
        endpoints.sort();
        endpoints.dedup();
        let dns = self.index.dns(key, port);
        if endpoints.is_empty() && dns.is_none() {
            self.diagnostics.push(no_endpoints(key, port, slices).at(&document.origin));
        }
        MeshPort {
            number: port.number,
            protocol: self.index.protocol(key, port),
            endpoints,
            dns: dns.map(Arc::new),
            endpoint_origins: slices.iter().map(|(document, _)| document.origin.clone()).collect(),
            routing: self.routing(key, port),
            policy: None,
        }
    }
}

impl Index<'_> {
    /// The name to resolve: of a service that has no slices, if there is a name to expect them behind.
    pub(super) fn dns(&self, key: &ServiceKey, port: &ServicePort) -> Option<Dns> {
        let (_, Service { kind, .. }) = self.services.get(key)?;
        match kind {
            ServiceKind::External(host) => {
                Some(Dns { host: host.to_string(), port: port.number, is_external: true })
            }
            // Its name resolves to the endpoints themselves, which have the port that the Service calls its target.
            ServiceKind::Headless if !self.slices.contains_key(key) => Some(Dns {
                host: format!("{}.{}.svc.cluster.local", key.name, key.namespace),
                port: port.target.unwrap_or(port.number),
                is_external: false,
            }),
            ServiceKind::Headless | ServiceKind::Cluster => None,
        }
    }

    /// The host that requests to the port must bear, if it is a certain one.
    pub(super) fn authority(&self, key: &ServiceKey, port: u16) -> Option<Arc<str>> {
        let (_, service) = self.services.get(key)?;
        let port = service.ports.iter().find(|one| one.number == port)?;
        self.dns(key, port)?.authority()
    }
}

fn no_endpoints(key: &ServiceKey, port: &ServicePort, slices: &[(&Document, &EndpointSlice)]) -> Diagnostic {
    let warning = Diagnostic::warning(format!(
        "port {} of Service {key} has no ready endpoint; requests to it are answered with 503",
        port.number
    ));
    let other = slices.iter().flat_map(|(_, slice)| &slice.ports).find(|(name, _)| *name != port.name);
    match other {
        None if slices.is_empty() => {
            warning.help(format!("add an EndpointSlice with the label {}: {}", SERVICE_NAME_LABEL, key.name))
        }
        Some((name, _)) if slices.iter().all(|(_, slice)| slice.endpoints(&port.name).next().is_none()) => {
            warning
                .help(format!("the Service's port is called {:?}, the EndpointSlice's {name:?}", port.name))
        }
        _ => warning,
    }
}
