//! Services and their ready endpoints.

use super::Resolver;
use crate::diagnostic::{Diagnostic, Severity};
use crate::model::service::{EndpointSlice, SERVICE_NAME_LABEL, ServicePort};
use crate::model::{Document, MeshPort, ServiceKey};

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
        if endpoints.is_empty() {
            self.diagnostics.push(no_endpoints(key, port, slices).at(&document.origin));
        }
        MeshPort {
            number: port.number,
            protocol: self.index.protocol(key, port),
            endpoints,
            endpoint_origins: slices.iter().map(|(document, _)| document.origin.clone()).collect(),
            routing: self.routing(key, port),
            policy: None,
        }
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
