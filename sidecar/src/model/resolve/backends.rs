//! Backends as the API's conditions speak of them.

use super::grants::Reference;
use super::index::{Index, missing_port};
use super::listeners::Problem;
use crate::model::Backend;
use crate::model::reference::BackendRef;

impl Index<'_> {
    /// The backend that a document of this group and kind refers to from `namespace`.
    pub(super) fn granted_backend(
        &self,
        from: (&str, &str),
        namespace: &str,
        reference: &BackendRef,
    ) -> Result<Backend, Problem> {
        let backend = reference.resolved(namespace);
        let permitted = self.grants.permit(Reference {
            from,
            from_namespace: namespace,
            to: ("", "Service"),
            to_namespace: &backend.service.namespace,
            to_name: &backend.service.name,
        });
        if permitted {
            return self.existing_backend(backend, reference);
        }
        let message =
            format!("Service {} is in another namespace, which does not permit it", backend.service);
        Err(Problem::new("RefNotPermitted", message, reference.span))
    }

    /// The backend, if there is one.
    pub(super) fn existing_backend(
        &self,
        backend: Backend,
        reference: &BackendRef,
    ) -> Result<Backend, Problem> {
        let missing = |message: String| Problem::new("BackendNotFound", message, reference.span);
        let service = self.service(&backend.service).map_err(|mistake| missing(mistake.message))?;
        if service.ports.iter().any(|port| port.number == backend.port) {
            return Ok(backend);
        }
        let mistake = missing_port(&backend.service, &backend.port.to_string(), service);
        Err(missing(mistake.message))
    }
}
