//! Health, metrics and the status over HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.

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
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics;
use crate::status::{Board, Status};

/// Where it is served unless somebody says otherwise: for the node itself alone.
pub const ADDRESS: &str = "127.0.0.1:15090";

/// Who asks is a kubelet, a Prometheus and a person.
const CONNECTIONS: usize = 16;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until files or memory are there again.
const BREATH: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; `--admin` takes another address")]
pub struct Error {
    /// Where.
    address: SocketAddr,
    /// Why.
    source: io::Error,
}

/// What is looked up for each answer, because nobody else needs it.
pub(crate) type Refresh = Arc<dyn Fn(&mut Status)>;

/// Serves what is on the `board`, after `refresh` has completed it.
///
/// # Errors
/// Where the address is taken. It never ends otherwise.
pub(crate) async fn serve(address: SocketAddr, board: Board, refresh: Refresh) -> Result<Infallible, Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
    tracing::info!(%address, "serving health, metrics and status");
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep_until(tokio::time::Instant::now() + BREATH).await;
            continue;
        };
        let (board, refresh) = (board.clone(), Arc::clone(&refresh));
        tokio::task::spawn_local(async move {
            let look = move |request: Request<Incoming>| {
                let mut status = board.read();
                refresh(&mut status);
                std::future::ready(Ok::<_, Infallible>(page(request.method(), request.uri().path(), &status)))
            };
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // A connection that breaks off concerns its peer alone.
            server.serve_connection(TokioIo::new(stream), service_fn(look)).await.ok();
            drop(place);
        });
    }
}

fn page(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/livez" => answer(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => readyz(status),
        "/metrics" => answer(StatusCode::OK, METRICS, metrics::render(status)),
        "/status" => answer(StatusCode::OK, JSON, json(status)),
        "/" => answer(StatusCode::OK, TEXT, "/livez\n/readyz\n/metrics\n/status\n".into()),
        _ => answer(StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
    }
}

fn readyz(status: &Status) -> Response<Full<Bytes>> {
    match status.readiness() {
        Ok(()) => answer(StatusCode::OK, TEXT, "ok\n".into()),
        Err(missing) => {
            let lines: String = missing.iter().map(|why| format!("{why}\n")).collect();
            answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
        }
    }
}

fn json(status: &Status) -> String {
    serde_json::to_string_pretty(status)
        .map_or_else(|error| format!("{{\"error\": \"{error}\"}}\n"), |text| text + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SelfTest;

    #[test]
    fn each_page_has_its_status() {
        let mut status = Status::default();
        let code = |method: Method, path, status: &Status| page(&method, path, status).status().as_u16();
        assert_eq!(code(Method::GET, "/livez", &status), 200);
        assert_eq!(code(Method::GET, "/readyz", &status), 503);
        assert_eq!(code(Method::GET, "/metrics", &status), 200);
        assert_eq!(code(Method::GET, "/status", &status), 200);
        assert_eq!(code(Method::GET, "/healthz", &status), 404);
        assert_eq!(code(Method::POST, "/livez", &status), 405);
        status.install.self_test = SelfTest::Passed { milliseconds: 1, addresses: vec![] };
        status.install.conflist = Some("x".into());
        status.network.stands = true;
        assert_eq!(code(Method::HEAD, "/readyz", &status), 200);
    }
}
