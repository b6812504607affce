//! The standard health service: `SERVING` once there is something to serve.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Publisher;

/// The beginning of its paths.
pub(super) const PREFIX: &str = "/grpc.health.v1.Health/";

/// How often a watched status is looked at.
const EVERY: Duration = Duration::from_secs(1);

pub(super) async fn serve(
    publisher: Publisher,
    stopping: watch::Receiver<bool>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let mut service = HealthServer::new(Readiness { publisher, stopping });
    service.call(request).await.unwrap_or_else(|never| match never {})
}

#[derive(Clone, Debug)]
struct Readiness {
    publisher: Publisher,
    stopping: watch::Receiver<bool>,
}

impl Readiness {
    fn look(&self) -> HealthCheckResponse {
        let ready = self.publisher.is_ready() && !*self.stopping.borrow();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        HealthCheckResponse { status: status.into() }
    }

    /// The status, once it is another than `last`; `None` when the server has stopped.
    async fn after(&self, last: Option<HealthCheckResponse>) -> Option<HealthCheckResponse> {
        let mut stopping = self.stopping.clone();
        loop {
            let now = self.look();
            if Some(&now) != last.as_ref() {
                return Some(now);
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return None,
                () = sleep_until(Instant::now() + EVERY) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(self.look()))
    }

    type WatchStream = Pin<Box<dyn futures_util::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = futures_util::stream::unfold((self.clone(), None), |(readiness, last)| async move {
            let now = readiness.after(last).await?;
            Some((Ok(now), (readiness, Some(now))))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
