//! gRPC for pods: calls without a message, which is all that routing looks at.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::error::{Doing, Error, Result};
use crate::http::{Answer, runtime, timely};
use crate::pod::Pod;

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
