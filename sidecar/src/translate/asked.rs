//! Services that Envoy itself asks: authorisation, keys, collectors of traces and logs.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3::{GrpcService, HttpUri};

use super::NO_BACKEND;
use super::duration;
use crate::model::Backend;
use crate::model::reference::BackendRef;

/// By gRPC. Without an authority Envoy says its cluster's name, and what has a slash in it is none: servers that look (hyper
/// does) reset the request.
pub(super) fn over_grpc(service: &Backend) -> GrpcService {
    over_grpc_at(service.to_string(), authority(service))
}

/// The same, to a cluster of any name.
pub(super) fn over_grpc_at(cluster_name: String, authority: String) -> GrpcService {
    let envoy = EnvoyGrpc { cluster_name, authority, ..EnvoyGrpc::default() };
    GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)), ..GrpcService::default() }
}

/// The cluster of a service that a policy names by namespace and name. One that leads nowhere is none, which to Envoy is a service that
/// does not answer.
pub(super) fn cluster(service: &BackendRef) -> String {
    if service.leads_nowhere { NO_BACKEND.into() } else { service.resolved("").to_string() }
}

/// By HTTP. Envoy takes host and path of the URI; where the request goes is the cluster's business.
pub(super) fn over_http(cluster: String, uri: String, timeout: Duration) -> HttpUri {
    HttpUri {
        uri,
        http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
        timeout: Some(duration(timeout)),
    }
}

/// The name that the service is asked by.
pub(super) fn authority(service: &Backend) -> String {
    format!("{}.{}:{}", service.service.name, service.service.namespace, service.port)
}
