//! gRPC for pods: calls without a message, which is all that routing looks at; and a server that answers messages.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Collected, Empty, Full};
use hyper::body::{Body, Bytes};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::error::{Doing, Error, Result};
use crate::http::{Answer, runtime, timely};
use crate::pod::Pod;
use crate::served::Served;

/// One call on a connection of its own, from the pod. `method` is as `/package.Service/Method`; the trailers stand among the
/// answer's headers, `grpc-status` with them.
pub fn call(
    pod: &Pod,
    to: SocketAddr,
    authority: &str,
    method: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let mut request = Request::post(format!("http://{authority}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let shape = |error: hyper::http::Error| Error::Shape { what: error.to_string(), text: method.to_owned() };
    let request = request.body(Empty::<Bytes>::new()).map_err(shape)?;
    pod.run(|| runtime()?.block_on(async { timely(to, exchange(to, request)).await? }))?
}

/// A gRPC server in a pod, for unary calls. It ends when dropped.
#[derive(Debug)]
pub struct Server(#[expect(dead_code, reason = "it serves until it is dropped")] Served);

impl Server {
    /// Listens on `port` of the pod. `answer` gets a method, as `/package.Service/Method`, and the message that came with it,
    /// and says what to send back.
    pub fn start<A>(pod: &Pod, port: u16, answer: A) -> Result<Self>
    where
        A: Fn(&str, &[u8]) -> Vec<u8> + Clone + Send + Sync + 'static,
    {
        let served = Served::start(pod, port, move |_peer, request| {
            let answer = answer.clone();
            async move {
                let method = request.uri().path().to_owned();
                // A request that breaks off is answered to nobody.
                let asked = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
                respond(&answer(&method, asked.get(PREFIX..).unwrap_or_default()))
            }
        })?;
        Ok(Self(served))
    }
}

/// What stands before each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

fn respond(message: &[u8]) -> Response<impl Body<Data = Bytes, Error = Infallible> + use<>> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = [&[0], length.as_slice(), message].concat();
    let ok = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let mut response = Response::new(Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(ok)) }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn exchange(to: SocketAddr, request: Request<Empty<Bytes>>) -> Result<Answer> {
    let failed = |source| Error::Http { to: to.to_string(), source };
    let stream = TcpStream::connect(to).await.doing(|| format!("connect to {to}"))?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
    // Its failure shows in the request that it carries.
    tokio::spawn(async { drop(connection.await) });
    let (mut head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = body.collect().await.map_err(failed)?;
    head.headers.extend(body.trailers().cloned().unwrap_or_default());
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}
