//! HTTP for pods: an upstream that says who it is and what it was asked, and a client that keeps its connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Doing, Error, Result};
use crate::pod::Pod;
use crate::served::Served;

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(1);

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// No answer of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What an [`Upstream`] says of itself and of the request it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The upstream's name.
    pub name: String,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The request's headers, with lower-case names; values of one name are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// The address the connection came from.
    pub peer: SocketAddr,
}

/// An HTTP server in a pod, for HTTP/1.1 and for HTTP/2 in clear text, that answers every request with status 200 and an
/// [`Echo`] as JSON; gRPC requests with trailers that say OK. It ends when dropped.
///
/// A request can ask for something else: its header `x-script` says what becomes of each try (of those with the same
/// `x-request-id`), as in `503,slow,200`. A slow answer takes a second; after the end of the script it is 200.
#[derive(Debug)]
pub struct Upstream {
    served: Served,
    seen: Seen,
}

impl Upstream {
    /// Listens on `port` (0: any) of the pod, IPv4 and IPv6. It accepts connections when this returns.
    pub fn start(pod: &Pod, port: u16, name: &str) -> Result<Self> {
        Self::always(pod, port, name, "")
    }

    /// The same, but `step` becomes of every request without a script.
    pub fn always(pod: &Pod, port: u16, name: &str, step: &'static str) -> Result<Self> {
        let (name, seen) = (name.to_owned(), Seen::default());
        let noted = seen.clone();
        let served = Served::start(pod, port, move |peer, request| {
            let echo = echo(&name, peer, &request);
            let tries = noted.note(&echo);
            async move { answer(&echo, tries, step).await }
        })?;
        Ok(Self { served, seen })
    }

    /// Every request that it got so far.
    pub fn seen(&self) -> Vec<Echo> {
        self.seen.all()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.served.port()
    }
}

/// The requests that an upstream got.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<Echo>>>);

impl Seen {
    fn all(&self) -> Vec<Echo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a request, and tells how many came before it with the same id.
    fn note(&self, echo: &Echo) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = echo.headers.get("x-request-id");
        let before =
            all.iter().filter(|earlier| id.is_some() && earlier.headers.get("x-request-id") == id).count();
        all.push(echo.clone());
        before
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body of an [`Upstream`].
    pub fn echo(&self) -> Result<Echo> {
        let text = || format!("{}: {}", self.status, self.body);
        serde_json::from_str(&self.body)
            .map_err(|_error| Error::Shape { what: "an answer".to_owned(), text: text() })
    }
}

/// A client with one connection, opened in a pod's (or the node's) network and kept.
#[derive(Debug)]
pub struct Client {
    to: SocketAddr,
    runtime: Runtime,
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    /// Connects from the calling thread's network: call it inside [`Pod::run`] or
    /// [`Node::run`](crate::node::Node::run), or use [`Client::from`]. The client may then be used anywhere.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        let runtime = runtime()?;
        let doing = || format!("connect to {to}");
        let sender = runtime.block_on(async {
            let stream = timely(to, TcpStream::connect(to)).await?.doing(doing)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| Error::Http { to: to.to_string(), source })?;
            // Its failure shows in the request that it carries.
            tokio::spawn(async { drop(connection.await) });
            Ok::<_, Error>(sender)
        })?;
        Ok(Self { to, runtime, sender })
    }

    /// Connects from a pod.
    pub fn from(pod: &Pod, to: SocketAddr) -> Result<Self> {
        pod.run(|| Self::connect(to))?
    }

    /// GET of `path`, with these headers. `host` becomes the authority.
    pub fn get(&mut self, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.request("GET", host, path, headers)
    }

    /// As [`Client::get`], with any method; there is no body.
    pub fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let shape =
            |error: hyper::http::Error| Error::Shape { what: error.to_string(), text: path.to_owned() };
        let request = request.body(Empty::new()).map_err(shape)?;
        let (to, sender) = (self.to, &mut self.sender);
        self.runtime.block_on(async { timely(to, exchange(to, sender, request)).await? })
    }
}

/// One GET on a connection of its own, from the pod.
pub fn get(pod: &Pod, to: SocketAddr, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    Client::from(pod, to)?.get(host, path, headers)
}

async fn exchange(
    to: SocketAddr,
    sender: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Answer> {
    let failed = |source| Error::Http { to: to.to_string(), source };
    sender.ready().await.map_err(failed)?;
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = body.collect().await.map_err(failed)?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

pub(crate) async fn timely<T>(to: SocketAddr, work: impl Future<Output = T>) -> Result<T> {
    let late = |_elapsed| Error::Deadline {
        what: format!("an answer from {to}"),
        limit: PATIENCE,
        last: String::new(),
    };
    tokio::time::timeout(PATIENCE, work).await.map_err(late)
}

pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().doing(|| "start an async runtime".to_owned())
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the script says for this try, and the echo.
#[expect(clippy::disallowed_methods, reason = "a slow answer is what is asked for")]
async fn answer(echo: &Echo, tries: usize, otherwise: &str) -> Response<Body> {
    let scripted = |script: &String| script.split(',').nth(tries).unwrap_or_default().to_owned();
    let step = echo.headers.get("x-script").map_or_else(|| otherwise.to_owned(), scripted);
    if step == "slow" {
        tokio::time::sleep(SLOW).await;
    }
    let body = Full::from(serde_json::to_vec(echo).unwrap_or_default());
    let mut response = match echo.headers.get("content-type") {
        Some(grpc) if grpc.starts_with("application/grpc") => {
            let ok = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
            let trailers = async { Some(Ok::<_, Infallible>(ok)) };
            let mut response = Response::new(body.with_trailers(trailers).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        _ => Response::new(body.boxed_unsync()),
    };
    if let Some(status) = step.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
        *response.status_mut() = status;
    }
    response
}

fn echo(name: &str, peer: SocketAddr, request: &Request<Incoming>) -> Echo {
    let mut headers = BTreeMap::<String, String>::new();
    for (key, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(key.to_string())
            .and_modify(|known| *known = format!("{known}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    if let Some(authority) = request.uri().authority() {
        headers.entry("host".into()).or_insert_with(|| authority.to_string());
    }
    Echo {
        name: name.to_owned(),
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        headers,
        peer,
    }
}
