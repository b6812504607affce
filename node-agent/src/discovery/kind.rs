//! What is watched.

use crate::kubernetes::Resource;

/// A kind of objects, all of which are in namespaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// As documents have it.
    pub(super) name: &'static str,
    /// How its files begin: its name in lower case.
    pub(super) prefix: &'static str,
    /// As documents have it where the API leaves it out, as it does in lists of its own types.
    pub(super) version: &'static str,
    pub(super) resource: Resource,
    pub(super) role: Role,
}

/// How its documents are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    EndpointSlice,
    /// Of requests, to Services and Gateways.
    Route,
    /// Of connections, to Gateways alone.
    StreamRoute,
    BackendTls,
    /// The `spec` as it is.
    Whole,
}

const CORE: &[&str] = &["/api/v1"];
const DISCOVERY: &[&str] = &["/apis/discovery.k8s.io/v1"];
const WEFT: &[&str] = &["/apis/weft.dev/v1alpha1"];

macro_rules! gateway {
    ($($version:literal),*) => { &[$(concat!("/apis/gateway.networking.k8s.io/", $version)),*] };
}

const GATEWAY_V1: &str = "gateway.networking.k8s.io/v1";

/// All of them. Versions are those that `weft-sidecar` reads, and have the same fields.
pub(super) const KINDS: &[Kind] = &[
    kind("Service", "service", "v1", CORE, "services", Role::Service),
    kind(
        "EndpointSlice",
        "endpointslice",
        "discovery.k8s.io/v1",
        DISCOVERY,
        "endpointslices",
        Role::EndpointSlice,
    ),
    kind("HTTPRoute", "httproute", GATEWAY_V1, gateway!["v1", "v1beta1"], "httproutes", Role::Route),
    kind("GRPCRoute", "grpcroute", GATEWAY_V1, gateway!["v1"], "grpcroutes", Role::Route),
    kind(
        "TLSRoute",
        "tlsroute",
        GATEWAY_V1,
        gateway!["v1", "v1alpha3", "v1alpha2"],
        "tlsroutes",
        Role::StreamRoute,
    ),
    kind("TCPRoute", "tcproute", GATEWAY_V1, gateway!["v1", "v1alpha2"], "tcproutes", Role::StreamRoute),
    kind(
        "ReferenceGrant",
        "referencegrant",
        GATEWAY_V1,
        gateway!["v1", "v1beta1"],
        "referencegrants",
        Role::Whole,
    ),
    kind(
        "BackendTLSPolicy",
        "backendtlspolicy",
        GATEWAY_V1,
        gateway!["v1", "v1alpha3"],
        "backendtlspolicies",
        Role::BackendTls,
    ),
    kind("TrafficPolicy", "trafficpolicy", "weft.dev/v1alpha1", WEFT, "trafficpolicies", Role::Whole),
];

const fn kind(
    name: &'static str,
    prefix: &'static str,
    version: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    role: Role,
) -> Kind {
    Kind { name, prefix, version, resource: Resource { versions, plural }, role }
}

impl Kind {
    /// Every cluster has the Service `default/kubernetes` and its endpoints: a list without any is none of a cluster that
    /// runs.
    pub(super) fn is_never_empty(&self) -> bool {
        matches!(self.role, Role::Service | Role::EndpointSlice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_different_kinds_never_have_the_same_name() {
        for (at, kind) in KINDS.iter().enumerate() {
            assert_eq!(kind.prefix, kind.name.to_lowercase());
            assert!(KINDS[..at].iter().all(|other| other.prefix != kind.prefix));
        }
    }
}
