//! Services and their ready endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Resolver;
use super::index::Index;
use super::proofs::Demand;
use crate::diagnostic::{Diagnostic, Severity};
use crate::model::policy::Policy;
use crate::model::policy::balancing::LoadBalancing;
use crate::model::policy::locality::{Locality, Place};
use crate::model::policy::subsets::{Members, Subset};
use crate::model::service::{
    EndpointSlice, SERVICE_NAME_LABEL, Service, ServiceKind, ServicePort, SliceEndpoint,
};
use crate::model::sidecar::Sidecar;
use crate::model::{Dns, Document, EndpointDetail, MeshEndpoint, MeshPort, ServiceKey};

type Slices<'d> = [(&'d Document, &'d EndpointSlice)];

/// Slices by the service whose endpoints they hold; those of a service by place.
pub(super) type SlicesOf<'d> = BTreeMap<ServiceKey, Vec<(&'d Document, &'d EndpointSlice)>>;

/// Says who answers: the only place in which the content of slices is looked at.
pub(super) struct Answering<'s, 'd> {
    /// Those of the service in question, and of those that its subsets are made of.
    pub(super) slices: &'s SlicesOf<'d>,
    /// Where the workload is.
    pub(super) sidecar: &'s Sidecar,
}

impl<'i, 'd> Resolver<'i, 'd> {
    /// A slice without its service is harmless: Kubernetes removes the two one after the other.
    pub(super) fn check_slices(&mut self) {
        for (key, slices) in &self.index.slices {
            if let Err(mistake) = self.index.service(key) {
                let warning = Diagnostic { severity: Severity::Warning, leads_nowhere: false, ..mistake };
                self.diagnostics.extend(slices.iter().map(|(document, slice)| {
                    warning.clone().at(&document.origin.with_span(slice.service_span))
                }));
            }
        }
    }

    pub(super) fn port(&mut self, key: &ServiceKey, document: &Document, port: &ServicePort) -> MeshPort {
        let slices = self.slices(key);
        let policy = self.policies.of_port(key, &port.name);
        self.check_members(key, policy.as_deref());
        let answering = Answering { slices: &self.index.slices, sidecar: self.index.sidecar };
        let mut endpoints = answering.endpoints(key, &port.name, policy.as_deref());
        let mut dns = self.index.dns(key, port);
        let tls = match self.demand(key, port) {
            Demand::Nothing => None,
            Demand::Proof(trust) => Some(trust),
            Demand::Impossible => {
                endpoints.clear();
                dns = None;
                None
            }
        };
        if endpoints.is_empty() && dns.is_none() {
            self.diagnostics.push(no_endpoints(key, port, slices).at(&document.origin));
        }
        MeshPort {
            number: port.number,
            protocol: self.index.protocol(key, port),
            endpoints,
            dns: dns.map(Arc::new),
            tls,
            endpoint_origins: slices.iter().map(|(document, _)| document.origin.clone()).collect(),
            routing: self.routing(key, port),
            policy,
        }
    }

    fn slices(&self, key: &ServiceKey) -> &'i Slices<'d> {
        self.index.slices.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn check_members(&mut self, key: &ServiceKey, policy: Option<&Policy>) {
        let Some(policy) = policy else { return };
        for subset in policy.subsets.iter().flat_map(|subsets| &subsets.0) {
            let Members::Service { name, span } = &subset.members else { continue };
            let service = ServiceKey { name: name.clone(), ..key.clone() };
            if let Err(mistake) = self.index.service(&service) {
                let places = policy.origins.iter().map(|origin| mistake.clone().at(&origin.with_span(*span)));
                self.diagnostics.extend(places.take(1));
            }
        }
    }
}

impl Answering<'_, '_> {
    /// The ready endpoints of a port of a service, sorted.
    pub(super) fn endpoints(
        &self,
        key: &ServiceKey,
        port: &str,
        policy: Option<&Policy>,
    ) -> Vec<MeshEndpoint> {
        match policy {
            Some(policy) if policy.tells_endpoints_apart() => self.detailed(key, port, policy),
            _ => plain(self.of(key), port),
        }
    }

    fn of(&self, key: &ServiceKey) -> &Slices<'_> {
        self.slices.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The endpoints with what the policy wants to know of each.
    fn detailed(&self, key: &ServiceKey, port: &str, policy: &Policy) -> Vec<MeshEndpoint> {
        let subsets = self.subsets(key, port, policy);
        let locality = policy.balancing.as_deref().and_then(|balancing| balancing.locality.as_ref());
        let own = own_place(self.sidecar);
        let mut found = BTreeMap::<SocketAddr, EndpointDetail>::new();
        for (document, slice) in self.of(key) {
            for (address, endpoint) in slice.endpoints(port) {
                let detail = found.entry(address).or_insert_with(|| EndpointDetail {
                    zone: locality.and(endpoint.zone.clone()),
                    priority: distance(locality, own, endpoint),
                    subsets: BTreeSet::new(),
                });
                let inside = subsets.iter().filter(|subset| subset.has(document, slice, address));
                detail.subsets.extend(inside.map(|subset| subset.name.to_owned()));
            }
        }
        shared(close_up(found))
    }

    /// The subsets, with the endpoints of those that are given by another service.
    fn subsets<'p>(&self, key: &ServiceKey, port: &str, policy: &'p Policy) -> Vec<Membership<'p>> {
        let all = policy.subsets.iter().flat_map(|subsets| &subsets.0);
        all.map(|subset| self.membership(key, port, subset)).collect()
    }

    fn membership<'p>(&self, key: &ServiceKey, port: &str, subset: &'p Subset) -> Membership<'p> {
        let name = subset.name.as_str();
        match &subset.members {
            Members::Tags(tags) => Membership { name, rule: Rule::Tags(tags) },
            Members::Service { name: service, .. } => {
                let slices = self.of(&ServiceKey { name: service.clone(), ..key.clone() });
                Membership { name, rule: rule(slices, port) }
            }
        }
    }
}

/// By the endpoints of the port of this name, because pods of both services may share the address of their node. A service that
/// has no such port says with its others which pods are meant.
fn rule<'p>(slices: &Slices<'_>, port: &str) -> Rule<'p> {
    let slices = || slices.iter().map(|(_, slice)| *slice);
    let members: BTreeSet<_> =
        slices().flat_map(|slice| slice.endpoints(port)).map(|(address, _)| address).collect();
    if members.is_empty() {
        Rule::Addresses(slices().flat_map(|slice| &slice.ready).map(|ready| ready.address).collect())
    } else {
        Rule::Endpoints(members)
    }
}

/// Who is in a subset.
struct Membership<'p> {
    name: &'p str,
    rule: Rule<'p>,
}

enum Rule<'p> {
    Tags(&'p BTreeMap<String, String>),
    Endpoints(BTreeSet<SocketAddr>),
    Addresses(BTreeSet<IpAddr>),
}

impl Membership<'_> {
    fn has(&self, document: &Document, slice: &EndpointSlice, endpoint: SocketAddr) -> bool {
        match &self.rule {
            Rule::Tags(tags) => {
                tags.iter().all(|(key, value)| slice.tag(&document.metadata, key) == Some(value.as_str()))
            }
            Rule::Endpoints(members) => members.contains(&endpoint),
            Rule::Addresses(members) => members.contains(&endpoint.ip()),
        }
    }
}

impl Policy {
    fn tells_endpoints_apart(&self) -> bool {
        let located =
            self.balancing.as_deref().is_some_and(|LoadBalancing { locality, .. }| locality.is_some());
        located || self.subsets.is_some()
    }
}

/// This workload's own zone and node are its tags of these names, which come from the downward API.
fn own_place(sidecar: &Sidecar) -> Place<'_> {
    let tag = |key: &str| sidecar.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str());
    Place { zone: tag("zone"), node: tag("node") }
}

fn distance(locality: Option<&Locality>, own: Place<'_>, of: &SliceEndpoint) -> u32 {
    let Some(Locality::Failover(failover)) = locality else { return 0 };
    let of = Place { zone: of.zone.as_deref(), node: of.node.as_deref() };
    u32::try_from(failover.distance(own, of)).unwrap_or(u32::MAX)
}

/// Envoy takes no priorities with gaps between them.
fn close_up(mut found: BTreeMap<SocketAddr, EndpointDetail>) -> BTreeMap<SocketAddr, EndpointDetail> {
    let used: BTreeSet<u32> = found.values().map(|detail| detail.priority).collect();
    let places: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    for detail in found.values_mut() {
        detail.priority = places.get(&detail.priority).copied().unwrap_or_default();
    }
    found
}

/// Endpoints of which the same is known share it.
fn shared(found: BTreeMap<SocketAddr, EndpointDetail>) -> Vec<MeshEndpoint> {
    let mut known = BTreeSet::<Arc<EndpointDetail>>::new();
    let endpoints = found.into_iter().map(|(address, detail)| {
        let detail = known.get(&detail).cloned().unwrap_or_else(|| {
            let detail = Arc::new(detail);
            known.insert(Arc::clone(&detail));
            detail
        });
        MeshEndpoint { address, detail: Some(detail) }
    });
    endpoints.collect()
}

fn plain(slices: &Slices<'_>, port: &str) -> Vec<MeshEndpoint> {
    let all = slices.iter().flat_map(|(_, slice)| slice.endpoints(port));
    let mut endpoints: Vec<MeshEndpoint> =
        all.map(|(address, _)| MeshEndpoint { address, detail: None }).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    endpoints.shrink_to_fit();
    endpoints
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
