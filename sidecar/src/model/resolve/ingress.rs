//! The documents about what enters from outside, by what refers to them.

use std::collections::BTreeMap;

use super::index::{Attached, twice};
use crate::diagnostic::Diagnostic;
use crate::model::backend_tls::BackendTlsPolicy;
use crate::model::gateway::{Gateway, GatewayClass};
use crate::model::secret::Secret;
use crate::model::stream_route::{StreamKind, StreamRoute};
use crate::model::{Document, Object, ServiceKey};

type Found<'d, T> = (&'d Document, &'d T);

/// The documents about what enters from outside.
#[derive(Default)]
pub(super) struct Ingress<'d> {
    pub(super) gateways: BTreeMap<ServiceKey, Found<'d, Gateway>>,
    pub(super) secrets: BTreeMap<ServiceKey, Found<'d, Secret>>,
    pub(super) config_maps: BTreeMap<ServiceKey, Found<'d, Secret>>,
    pub(super) streams: BTreeMap<(StreamKind, ServiceKey), Found<'d, StreamRoute>>,
    pub(super) policies: BTreeMap<ServiceKey, Found<'d, BackendTlsPolicy>>,
    /// The policies by the Services that they are about.
    pub(super) policies_of: BTreeMap<ServiceKey, Vec<ServiceKey>>,
    /// The routes of requests that name a Gateway, by that.
    pub(super) routes: BTreeMap<ServiceKey, Vec<Attached<'d>>>,
    /// Neither classes nor namespaces are in a namespace.
    classes: BTreeMap<&'d str, Found<'d, GatewayClass>>,
    namespaces: BTreeMap<&'d str, &'d Document>,
}

impl<'d> Ingress<'d> {
    /// Takes a document of a kind that this is about.
    pub(super) fn add(&mut self, key: ServiceKey, document: &'d Document, diagnostics: &mut Vec<Diagnostic>) {
        let name = document.metadata.name.as_str();
        let first = match &document.object {
            Object::Gateway(gateway) => add(&mut self.gateways, key, document, gateway),
            Object::GatewayClass(class) => add(&mut self.classes, name, document, class),
            Object::Secret(secret) => add(&mut self.secrets, key, document, secret),
            Object::ConfigMap(map) => add(&mut self.config_maps, key, document, map),
            Object::StreamRoute(route) => add(&mut self.streams, (route.kind, key), document, route),
            Object::BackendTlsPolicy(policy) => {
                for target in &policy.targets {
                    let service = ServiceKey { namespace: key.namespace.clone(), name: target.name.clone() };
                    self.policies_of.entry(service).or_default().push(key.clone());
                }
                add(&mut self.policies, key, document, policy)
            }
            Object::Namespace => {
                self.namespaces.insert(name, document);
                None
            }
            _ => None,
        };
        diagnostics.extend(first.map(|first| twice(kind(&document.object), name, document, &first.origin)));
    }

    /// The labels of a namespace; every one has its name as one (KEP-2161).
    pub(super) fn labels(&self, namespace: &str) -> Vec<(String, String)> {
        let own = self.namespaces.get(namespace).map(|document| document.metadata.labels.as_slice());
        let name = ("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        own.unwrap_or_default().iter().cloned().chain([name]).collect()
    }
}

/// Returns the one that is there already.
fn add<'d, K: Ord, T>(
    to: &mut BTreeMap<K, Found<'d, T>>,
    key: K,
    document: &'d Document,
    object: &'d T,
) -> Option<&'d Document> {
    if let Some((first, _)) = to.get(&key) {
        return Some(first);
    }
    to.insert(key, (document, object));
    None
}

fn kind(object: &Object) -> &'static str {
    match object {
        Object::Gateway(_) => "Gateway",
        Object::GatewayClass(_) => "GatewayClass",
        Object::Secret(_) => "Secret",
        Object::ConfigMap(_) => "ConfigMap",
        Object::StreamRoute(route) => route.kind.name(),
        Object::BackendTlsPolicy(_) => "BackendTLSPolicy",
        _ => "object",
    }
}
