//! A server that takes whatever it is sent: a stand-in for collectors of traces and logs.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::error::{Doing, Result};
use crate::http::runtime;
use crate::pod::Pod;

/// Takes requests of HTTP/1.1 and HTTP/2 and keeps their bodies, also of those that never end, as streams of gRPC. It ends when
/// dropped.
#[derive(Debug)]
pub struct Sink {
    taken: Taken,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The path of each request, and what has come of its body.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl Sink {
    /// Listens on `port` of the pod's loopback address. It accepts connections when this returns.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let doing = || format!("listen on port {port} in {}", pod.name());
        let listener = pod.run(|| std::net::TcpListener::bind(("127.0.0.1", port)))?.doing(doing)?;
        listener.set_nonblocking(true).doing(doing)?;
        let (stop, stopped) = oneshot::channel();
        let (runtime, taken) = (runtime()?, Taken::default());
        let kept = Arc::clone(&taken);
        let thread = thread::spawn(move || {
            // The server has no end of its own; the only one is `stopped`.
            runtime.block_on(async {
                tokio::select! { _ = stopped => (), _ = serve(listener, kept) => () }
            });
        });
        Ok(Self { taken, stop: Some(stop), thread: Some(thread) })
    }

    /// All that has come to `path` so far, as text as far as it is text.
    pub fn taken(&self, path: &str) -> String {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = taken.iter().filter(|(to, _)| to == path).map(|(_, body)| String::from_utf8_lossy(body));
        bodies.collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

async fn serve(listener: std::net::TcpListener, taken: Taken) -> std::io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let taken = Arc::clone(&taken);
        let answer = service_fn(move |request| take(request, Arc::clone(&taken)));
        // A connection that breaks off concerns its peer alone.
        tokio::spawn(async move {
            drop(
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await,
            )
        });
    }
}

async fn take(
    request: Request<Incoming>,
    taken: Taken,
) -> std::result::Result<Response<Empty<Bytes>>, Infallible> {
    let at = {
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push((request.uri().path().to_owned(), Vec::new()));
        taken.len() - 1
    };
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let (Some(data), Some((_, body))) =
            (frame.data_ref(), taken.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at))
        {
            body.extend_from_slice(data);
        }
    }
    Ok(Response::new(Empty::new()))
}
