//! Services that Envoy itself asks: authorisation, keys, collectors of traces and logs.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3::{GrpcService, HttpUri};

use super::duration;
use crate::model::Backend;

/// By gRPC. Without an authority Envoy says its cluster's name, and what has a slash in it is none: servers that look (hyper
/// does) reset the request.
pub(super) fn over_grpc(service: &Backend) -> GrpcService {
    let envoy = EnvoyGrpc {
        cluster_name: service.to_string(),
        authority: authority(service),
        ..EnvoyGrpc::default()
    };
    GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)), ..GrpcService::default() }
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
