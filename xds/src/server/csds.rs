//! The Client Status Discovery Service: standard tools ask here how far the clients have got.

mod nodes;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
};
use envoy_types::pb::google::protobuf::{Any, Timestamp};
use futures_util::StreamExt;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Streaming};

use self::nodes::Nodes;
use super::Status;
use crate::stream::{ResourceState, ResourceStatus, StreamStatus, TypeStatus};

/// The beginning of its paths.
pub(super) const PREFIX: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/";

pub(super) async fn serve(status: Status, request: http::Request<Body>) -> http::Response<Body> {
    let mut service = ClientStatusDiscoveryServiceServer::from_arc(Arc::new(Csds(status)));
    service.call(request).await.unwrap_or_else(|never| match never {})
}

#[derive(Debug)]
struct Csds(Status);

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<ClientStatusResponse, tonic::Status>> + Send>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, tonic::Status> {
        let status = self.0.clone();
        let answers = request.into_inner().map(move |asked| answer(&status, &asked?));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, tonic::Status> {
        answer(&self.0, request.get_ref()).map(Response::new)
    }
}

fn answer(status: &Status, asked: &ClientStatusRequest) -> Result<ClientStatusResponse, tonic::Status> {
    let (clock, nodes) = (Clock::new(), Nodes::new(&asked.node_matchers)?);
    let unknown = Node::default();
    let streams = status.streams().into_iter();
    let asked_for = streams.filter(|stream| nodes.include(stream.node.as_deref().unwrap_or(&unknown)));
    let config = asked_for.map(|stream| describe(&stream, &clock, !asked.exclude_resource_contents));
    Ok(ClientStatusResponse { config: config.collect() })
}

/// Both clocks at one moment: what happened is known by one, and told by the other.
struct Clock {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clock {
    fn new() -> Self {
        Self { monotonic: super::connection::now(), wall: SystemTime::now() }
    }

    fn timestamp(&self, at: Instant) -> Option<Timestamp> {
        let wall = self.wall.checked_sub(self.monotonic.saturating_duration_since(at))?;
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let nanos = i32::try_from(since.subsec_nanos()).ok()?;
        Some(Timestamp { seconds: i64::try_from(since.as_secs()).ok()?, nanos })
    }
}

fn describe(stream: &StreamStatus, clock: &Clock, contents: bool) -> ClientConfig {
    let of_type = |one: &TypeStatus| {
        let resources = one.resources.iter();
        resources.map(|resource| resource_status(one, resource, clock, contents)).collect::<Vec<_>>()
    };
    ClientConfig {
        node: stream.node.as_deref().cloned(),
        generic_xds_configs: stream.types.iter().flat_map(of_type).collect(),
        client_scope: format!("stream {}", stream.stream.0),
        ..Default::default()
    }
}

fn resource_status(
    of: &TypeStatus,
    resource: &ResourceStatus,
    clock: &Clock,
    contents: bool,
) -> GenericXdsConfig {
    let (config_status, client_status) = match resource.state {
        ResourceState::Due if resource.sent.is_none() => {
            (ConfigStatus::NotSent, ClientResourceStatus::Requested)
        }
        ResourceState::Due | ResourceState::Sent => (ConfigStatus::Stale, ClientResourceStatus::Requested),
        ResourceState::Accepted => (ConfigStatus::Synced, ClientResourceStatus::Acked),
        ResourceState::Rejected => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        ResourceState::Absent => (ConfigStatus::Synced, ClientResourceStatus::DoesNotExist),
    };
    let packed = |resource: &crate::Resource| Any {
        type_url: resource.type_url().as_str().into(),
        value: resource.body().into(),
    };
    let wanted = resource.wanted.as_ref();
    let in_force = wanted.filter(|wanted| contents && resource.accepted == Some(wanted.version()));
    let error_state = resource.rejected.as_ref().map(|(version, reason, at)| UpdateFailureState {
        failed_configuration: wanted.filter(|wanted| contents && wanted.version() == *version).map(packed),
        last_update_attempt: clock.timestamp(*at),
        details: reason.to_string(),
        version_info: version.to_string(),
    });
    GenericXdsConfig {
        type_url: of.type_url.as_str().into(),
        name: resource.name.to_string(),
        version_info: resource.accepted.map(|version| version.to_string()).unwrap_or_default(),
        xds_config: in_force.map(packed),
        last_updated: resource.since.and_then(|since| clock.timestamp(since)),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state,
        is_static_resource: false,
    }
}
