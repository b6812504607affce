//! Active health checks.

use envoy_types::pb::envoy::config::core::v3::HealthCheck as Envoys;
use envoy_types::pb::envoy::config::core::v3::RequestMethod;
use envoy_types::pb::envoy::config::core::v3::health_check::payload::Payload as Bytes;
use envoy_types::pb::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck,
};
use envoy_types::pb::envoy::r#type::v3::{CodecClientType, Int64Range};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::model::policy::health::{HealthCheck, Probe};
use crate::model::service::AppProtocol;
use crate::translate::duration;

/// `host` is what a request is addressed to, unless the policy says.
pub(super) fn check(of: &HealthCheck, protocol: AppProtocol, host: &str) -> Envoys {
    let interval = Some(duration(of.interval));
    Envoys {
        timeout: Some(duration(of.timeout)),
        interval,
        // Not all Envoys of all pods at the same moment.
        interval_jitter_percent: 10,
        unhealthy_threshold: Some(UInt32Value { value: of.unhealthy_threshold }),
        healthy_threshold: Some(UInt32Value { value: of.healthy_threshold }),
        // A cluster without traffic is asked just as often: its first request must find out who is well.
        no_traffic_interval: interval,
        health_checker: Some(checker(&of.probe, protocol, host)),
        ..Envoys::default()
    }
}

fn checker(probe: &Probe, protocol: AppProtocol, host: &str) -> HealthChecker {
    match probe {
        Probe::Http { path, host: given, method, expected } => {
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                host: given.clone().unwrap_or_else(|| host.to_owned()),
                path: path.clone(),
                method: RequestMethod::from_str_name(method).unwrap_or_default().into(),
                expected_statuses: expected.iter().map(range).collect(),
                codec_client_type: codec(protocol).into(),
                ..HttpHealthCheck::default()
            })
        }
        Probe::Grpc { service, authority } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: service.clone(),
            authority: authority.clone().unwrap_or_else(|| host.to_owned()),
            ..GrpcHealthCheck::default()
        }),
        Probe::Tcp { send, receive } => HealthChecker::TcpHealthCheck(TcpHealthCheck {
            send: send.as_deref().map(payload),
            receive: receive.iter().map(|text| payload(text)).collect(),
            ..TcpHealthCheck::default()
        }),
    }
}

/// Envoy's ranges leave out their end.
fn range(&(from, to): &(u16, u16)) -> Int64Range {
    Int64Range { start: from.into(), end: i64::from(to) + 1 }
}

fn codec(protocol: AppProtocol) -> CodecClientType {
    match protocol {
        AppProtocol::Http | AppProtocol::Tcp => CodecClientType::Http1,
        AppProtocol::H2c => CodecClientType::Http2,
    }
}

/// As hexadecimal digits, which is how Envoy writes bytes.
fn payload(text: &str) -> Payload {
    let digits = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    Payload { payload: Some(Bytes::Text(digits)) }
}
