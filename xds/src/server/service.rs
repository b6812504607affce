//! From the path of a request to a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as Tower, http};
use tonic::transport::server::UdsConnectInfo;

use super::admission::Allowed;
use super::body::Responses;
use super::config::Config;
use super::connection::{Line, Reader};
use super::frame::Messages;
use super::groups::Publisher;
use super::metric::OpenStream;
use super::pace::Pace;
use super::registry::Registry;
use super::{Status as Progress, csds};
use crate::stream::{Service as Kind, Stream, Variant};
use crate::{Event, StreamId, TypeUrl};

/// What all streams of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) publisher: Publisher,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) registry: Registry,
    next_stream: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: Config, publisher: Publisher, events: mpsc::Sender<Event>) -> Self {
        Self { config, publisher, events, registry: Registry::default(), next_stream: AtomicU64::new(1) }
    }
}

/// All gRPC services of a server: for any stack that takes a tower service for HTTP/2. [`Server`](super::Server) puts
/// it on sockets.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
    allowed: Option<Allowed>,
    stopping: watch::Receiver<bool>,
}

/// The service, the name in its methods, and its type. Virtual hosts come in the incremental variant only.
const SERVICES: [(&str, &str, TypeUrl); 9] = [
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", TypeUrl::CLUSTER),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", TypeUrl::ENDPOINT),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", TypeUrl::LISTENER),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", TypeUrl::ROUTE),
    ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", TypeUrl::SCOPED_ROUTE),
    ("envoy.service.route.v3.VirtualHostDiscoveryService", "VirtualHosts", TypeUrl::VIRTUAL_HOST),
    ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets", TypeUrl::SECRET),
    ("envoy.service.runtime.v3.RuntimeDiscoveryService", "Runtime", TypeUrl::RUNTIME),
    (
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        "ExtensionConfigs",
        TypeUrl::EXTENSION_CONFIG,
    ),
];

/// The service and variant that a path stands for.
fn kind(path: &str) -> Option<Kind> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    if service == "envoy.service.discovery.v3.AggregatedDiscoveryService" {
        return Some(Kind::aggregated(match method {
            "StreamAggregatedResources" => Variant::StateOfTheWorld,
            "DeltaAggregatedResources" => Variant::Incremental,
            _ => return None,
        }));
    }
    let (_, things, type_url) = SERVICES.into_iter().find(|(name, ..)| *name == service)?;
    let variant = match method.strip_suffix(things)? {
        "Stream" if type_url != TypeUrl::VIRTUAL_HOST => Variant::StateOfTheWorld,
        "Delta" => Variant::Incremental,
        _ => return None,
    };
    Some(Kind::of_type(type_url, variant))
}

impl Service {
    pub(super) fn new(
        shared: Arc<Shared>,
        allowed: Option<Allowed>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { shared, allowed, stopping }
    }

    fn admit<T>(&self, request: &http::Request<T>) -> Result<(), Status> {
        let Some(allowed) = &self.allowed else { return Ok(()) };
        allowed.admit(request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred))
    }

    /// Starts the reader of a stream; its writer is the body.
    fn open(&self, kind: Kind, requests: Body) -> Result<http::Response<Body>, Status> {
        let shared = Arc::clone(&self.shared);
        let id = StreamId(shared.next_stream.fetch_add(1, Ordering::Relaxed));
        let (variant, open) = (kind.variant, OpenStream::new(&kind));
        let line = Arc::new(Line::new(Stream::new(id, kind, shared.config.policy)));
        shared
            .registry
            .enter(&line, shared.config.max_streams)
            .ok_or_else(|| Status::resource_exhausted("there are too many xDS streams"))?;
        let requests = Messages::new(requests, shared.config.max_request_bytes);
        let pace = Pace::new(shared.config.request_burst, shared.config.max_requests_per_second);
        let stopping = self.stopping.clone();
        let body = Responses::new(Arc::clone(&line), variant);
        tokio::spawn(Reader { line, shared, requests, variant, stopping, pace, slowed: false, open }.run());
        let mut response = http::Response::new(Body::new(body));
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        Ok(response)
    }

    /// Everything but the resources themselves.
    async fn serve_other(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path();
        if path.starts_with(csds::PREFIX) {
            return csds::serve(Progress::new(self.shared), request).await;
        }
        #[cfg(feature = "health")]
        if path.starts_with(super::health::PREFIX) {
            return super::health::serve(self.shared.publisher.clone(), self.stopping, request).await;
        }
        #[cfg(feature = "reflection")]
        if path.starts_with(super::reflection::PREFIX) {
            return super::reflection::serve(request).await;
        }
        Status::unimplemented(format!("{path} is not served here")).into_http()
    }
}

impl Tower<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Err(status) = self.admit(&request) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        match kind(request.uri().path()) {
            Some(kind) => {
                let opened = self.open(kind, request.into_body()).unwrap_or_else(Status::into_http);
                Box::pin(std::future::ready(Ok(opened)))
            }
            None => {
                let service = self.clone();
                Box::pin(async move { Ok(service.serve_other(request).await) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_discovery_service_is_found_by_its_path() {
        let found = |path: &str| kind(path).map(|kind| (kind.type_url, kind.variant));
        let ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
        assert_eq!(found(&format!("{ads}StreamAggregatedResources")), Some((None, Variant::StateOfTheWorld)));
        assert_eq!(found(&format!("{ads}DeltaAggregatedResources")), Some((None, Variant::Incremental)));
        let cds = "/envoy.service.cluster.v3.ClusterDiscoveryService/";
        assert_eq!(
            found(&format!("{cds}StreamClusters")),
            Some((Some(TypeUrl::CLUSTER), Variant::StateOfTheWorld))
        );
        assert_eq!(
            found(&format!("{cds}DeltaClusters")),
            Some((Some(TypeUrl::CLUSTER), Variant::Incremental))
        );
        assert_eq!(found(&format!("{cds}FetchClusters")), None);
        let vhds = "/envoy.service.route.v3.VirtualHostDiscoveryService/";
        assert_eq!(found(&format!("{vhds}StreamVirtualHosts")), None);
        assert!(found(&format!("{vhds}DeltaVirtualHosts")).is_some());
        assert_eq!(found("/"), None);
    }
}
