//! `/livez`, `/readyz` and `/metrics` over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::health::Health;
use super::metrics::Registry;

/// Who asks is a kubelet, a Prometheus and a person.
const CONNECTIONS: usize = 32;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until files or memory are there again.
const BREATH: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nothing can be served at the admin address.
#[derive(Debug, Error)]
#[error("cannot listen on admin.address {address}")]
pub struct Error {
    /// The address.
    address: SocketAddr,
    /// Why.
    source: io::Error,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Admin(JoinHandle<Infallible>);

/// What is served.
#[derive(Debug, Clone)]
struct Pages {
    health: Health,
    metrics: Registry,
}

impl Admin {
    /// Serves at `address`, if there is one.
    pub(super) async fn start_at(
        address: Option<SocketAddr>,
        health: &Health,
        metrics: &Registry,
    ) -> Result<Option<Self>, Error> {
        let Some(address) = address else { return Ok(None) };
        let pages = Pages { health: health.clone(), metrics: metrics.clone() };
        let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
        tracing::info!(%address, "serving health and metrics");
        Ok(Some(Self(tokio::spawn(serve(listener, pages)))))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: TcpListener, pages: Pages) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep_until(tokio::time::Instant::now() + BREATH).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let answer =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(pages.answer(&request))));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(true);
            // A connection that breaks off concerns its peer alone.
            server.serve_connection(TokioIo::new(stream), answer).await.ok();
            drop(place);
        });
    }
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let json =
            request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "format=json"));
        self.page(request.method(), request.uri().path(), json)
    }

    fn page(&self, method: &Method, path: &str, json: bool) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/livez" => page(StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" => self.readyz(json),
            "/metrics" => page(StatusCode::OK, METRICS, self.metrics.render()),
            "/" => page(StatusCode::OK, TEXT, "/livez\n/readyz\n/readyz?format=json\n/metrics\n".into()),
            _ => page(StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
        }
    }

    fn readyz(&self, json: bool) -> Response<Full<Bytes>> {
        let readiness = self.health.readiness();
        let status = if readiness.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if json {
            return page(status, JSON, format!("{:#}\n", self.health.details()));
        }
        let text = readiness.map_or_else(|why| format!("not ready: {why}\n"), |()| "ok\n".into());
        page(status, TEXT, text)
    }
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_status() {
        let pages = Pages { health: Health::default(), metrics: Registry::default() };
        let status = |method: Method, path| pages.page(&method, path, false).status().as_u16();
        assert_eq!(status(Method::GET, "/livez"), 200);
        assert_eq!(status(Method::GET, "/readyz"), 503);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/healthz"), 404);
        assert_eq!(status(Method::POST, "/livez"), 405);
        pages.health.served(1);
        pages.health.note(&weft_xds::Event::InSync {
            stream: weft_xds::StreamId(1),
            revision: weft_xds::Revision(1),
        });
        assert_eq!(status(Method::HEAD, "/readyz"), 200);
    }
}
