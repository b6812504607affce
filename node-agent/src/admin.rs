//! Health, metrics and the status over HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.

use std::collections::VecDeque;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::aside::aside;
use crate::metrics;
use crate::status::{Board, Status};

/// Where it is served unless somebody says otherwise: for the node itself alone.
pub const ADDRESS: &str = "127.0.0.1:15090";

/// Who asks is a kubelet, a Prometheus and a person. One more takes the place of the one that is open for the longest time.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
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
pub(crate) type Refresh = Arc<dyn Fn(&mut Status) + Send + Sync>;

/// Connections, as they came. Whoever opens many and says nothing keeps nobody from being answered: a request is answered as soon as it is
/// there, so the oldest of so many is one that said nothing.
#[derive(Debug, Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    fn make_room(&mut self) {
        self.0.retain(|connection| !connection.is_finished());
        while self.0.len() >= CONNECTIONS {
            self.0.pop_front().iter().for_each(AbortHandle::abort);
        }
    }
}

/// Listens on `address`.
///
/// # Errors
/// Where the address is taken.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
    tracing::info!(%address, "serving health, metrics and status");
    Ok(listener)
}

/// Serves what is on the `board`, after `refresh` has completed it.
///
/// # Errors
/// Never.
pub(crate) async fn serve(
    listener: TcpListener,
    board: Board,
    refresh: Refresh,
) -> Result<Infallible, Infallible> {
    let mut open = Open::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep_until(Instant::now() + BREATH).await;
            continue;
        };
        open.make_room();
        let served = tokio::task::spawn_local(answer_all(stream, board.clone(), Arc::clone(&refresh)));
        open.0.push_back(served.abort_handle());
    }
}

async fn answer_all(stream: TcpStream, board: Board, refresh: Refresh) {
    let look = move |request: Request<Incoming>| {
        let (board, refresh) = (board.clone(), Arc::clone(&refresh));
        async move {
            let status = seen(request.uri().path(), board, refresh).await;
            Ok::<_, Infallible>(page(request.method(), request.uri().path(), &status))
        }
    };
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A connection that breaks off concerns its peer alone.
    server.serve_connection(TokioIo::new(stream), service_fn(look)).await.ok();
}

/// Health needs no more than what is known. For the rest leases are read, which may wait for a lock.
async fn seen(path: &str, board: Board, refresh: Refresh) -> Status {
    let mut status = board.read();
    if !matches!(path, "/metrics" | "/status") {
        return status;
    }
    aside(move || {
        refresh(&mut status);
        status
    })
    .await
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;

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
        status.network.is_known = true;
        assert_eq!(code(Method::HEAD, "/readyz", &status), 200);
    }

    async fn asked(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hundreds_of_connections_that_say_nothing_or_half_of_it_keep_nobody_from_being_answered() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let refresh: Refresh = Arc::new(|status| status.node.name = "a".into());
        let served = async {
            serve(listener, Board::default(), refresh).await.unwrap();
        };
        let asking = async {
            let mut silent = Vec::new();
            for nth in 0..300 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                if nth % 2 == 0 {
                    stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
                }
                silent.push(stream);
            }
            let start = std::time::Instant::now();
            for path in ["/livez", "/status", "/metrics"] {
                assert!(asked(address, path).await.starts_with("HTTP/1.1 200"), "{path}");
            }
            assert!(start.elapsed() < PATIENCE, "nobody had to give up first");
            // The oldest were shown the door.
            let mut rest = Vec::new();
            silent.remove(1).read_to_end(&mut rest).await.ok();
            assert!(rest.is_empty());
        };
        LocalSet::new()
            .run_until(async {
                tokio::select! { () = served => {}, () = asking => {} }
            })
            .await;
    }
}
