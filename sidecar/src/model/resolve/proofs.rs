//! Secrets and authorities that something refers to, and who must prove who they are.

use std::sync::Arc;

use super::Resolver;
use super::index::Index;
use super::listeners::Problem;
use crate::diagnostic::Diagnostic;
use crate::model::backend_tls::{Authorities, AuthorityRef, BackendTlsPolicy, SubjectAltName};
use crate::model::ingress::{Proof, ProofContent, Trust};
use crate::model::service::ServicePort;
use crate::model::{Document, ServiceKey};

/// What a policy comes to for a port.
pub(super) enum Demand {
    /// There is none: it is spoken to in clear text.
    Nothing,
    /// It must prove who it is.
    Proof(Arc<Trust>),
    /// It must, and nobody could tell: nobody may be connected to.
    Impossible,
}

impl Resolver<'_, '_> {
    /// The name of the Secret's certificate, which Envoy will be given.
    pub(super) fn key_pair(&mut self, key: &ServiceKey) -> Option<String> {
        let (document, secret) = self.index.ingress.secrets.get(key)?;
        let content = ProofContent::KeyPair(secret.key_pair().ok()?);
        let name = format!("Secret/{key}");
        self.proofs.insert(name.clone(), Proof { origin: document.origin.clone(), content });
        Some(name)
    }

    /// What a BackendTLSPolicy demands of a port.
    pub(super) fn demand(&mut self, service: &ServiceKey, port: &ServicePort) -> Demand {
        let Some((key, document, policy)) = self.index.policy(service, port) else { return Demand::Nothing };
        let authorities = match &policy.authorities {
            Authorities::System => None,
            Authorities::In(references) => match self.authorities(&key, document, references) {
                Some(name) => Some(name),
                None => return Demand::Impossible,
            },
        };
        let host = || vec![SubjectAltName::Dns(policy.hostname.clone())];
        let names = if policy.names.is_empty() { host() } else { policy.names.clone() };
        let server_name = policy.hostname.clone();
        Demand::Proof(Arc::new(Trust { origin: document.origin.clone(), authorities, server_name, names }))
    }

    fn authorities(
        &mut self,
        key: &ServiceKey,
        document: &Document,
        references: &[AuthorityRef],
    ) -> Option<String> {
        let mut pem = Vec::new();
        for reference in references {
            match self.index.authority_of(key, reference) {
                Ok(found) => {
                    pem.extend_from_slice(&found);
                    pem.push(b'\n');
                }
                Err(problem) => self.diagnostics.push(
                    Diagnostic::error(format!("{}: {}", problem.reason, problem.message))
                        .leading_nowhere()
                        .at(&document.origin.with_span(problem.span)),
                ),
            }
        }
        if pem.is_empty() {
            let warning = "NoValidCACertificate: nobody is trusted, so that requests are answered with 503";
            self.diagnostics.push(Diagnostic::warning(warning).at(&document.origin));
            return None;
        }
        let name = format!("BackendTLSPolicy/{key}");
        let content = ProofContent::Authorities(pem.into());
        self.proofs.insert(name.clone(), Proof { origin: document.origin.clone(), content });
        Some(name)
    }

    /// Policies that are about nothing that is there.
    pub(super) fn check_policies(&mut self) {
        for (key, (document, policy)) in &self.index.ingress.policies {
            for target in &policy.targets {
                let service = ServiceKey { namespace: key.namespace.clone(), name: target.name.clone() };
                let found = self.index.service(&service).map(|found| {
                    target.section_name.is_none()
                        || found.ports.iter().any(|port| Some(&port.name) == target.section_name.as_ref())
                });
                let mistake = match found {
                    Ok(true) => continue,
                    Ok(false) => Diagnostic::error(format!("Service {service} has no port of this name"))
                        .leading_nowhere(),
                    Err(mistake) => mistake,
                };
                self.diagnostics.push(mistake.at(&document.origin.with_span(target.span)));
            }
        }
    }
}

impl<'d> Index<'d> {
    /// The policy for a port: one that names the port before one that is for the whole Service, then the oldest
    /// (BackendTLSPolicySpec.targetRefs).
    pub(super) fn policy(
        &self,
        service: &ServiceKey,
        port: &ServicePort,
    ) -> Option<(ServiceKey, &'d Document, &'d BackendTlsPolicy)> {
        let of_service = self.ingress.policies_of.get(service)?;
        let targeting = of_service.iter().filter_map(|key| {
            let (document, policy) = self.ingress.policies.get(key)?;
            let mine = policy.targets.iter().filter(|target| {
                target.name == service.name
                    && target.section_name.as_ref().is_none_or(|name| *name == port.name)
            });
            let is_for_all = mine.map(|target| target.section_name.is_none()).min()?;
            let created = document.metadata.created.as_deref();
            Some(((is_for_all, created.is_none(), created, &key.name), (key, *document, *policy)))
        });
        let (_, (key, document, policy)) = targeting.min_by(|(one, _), (other, _)| one.cmp(other))?;
        Some((key.clone(), document, policy))
    }

    /// The certificates that a policy trusts (BackendTLSPolicyValidation.caCertificateRefs).
    pub(super) fn authority_of(
        &self,
        policy: &ServiceKey,
        reference: &AuthorityRef,
    ) -> Result<Arc<[u8]>, Problem> {
        let invalid = |message: String| Problem::new("InvalidCACertificateRef", message, reference.span);
        let key = ServiceKey { namespace: policy.namespace.clone(), name: reference.name.clone() };
        let (group, kind) = (reference.target.0.as_str(), reference.target.1.as_str());
        let found = match (group, kind) {
            ("", "ConfigMap") => self.ingress.config_maps.get(&key),
            ("", "Secret") => self.ingress.secrets.get(&key),
            _ => {
                let message = format!("certificates are in a ConfigMap or Secret, not in a {kind}");
                return Err(Problem::new("InvalidKind", message, reference.span));
            }
        };
        let (_, found) = found.ok_or_else(|| invalid(format!("there is no {kind} {key}")))?;
        found.authorities().map_err(|why| invalid(format!("{kind} {key} has no certificates: {why}")))
    }
}
