//! A server of HTTP/1.1 and HTTP/2 in clear text, on a thread of its own: what every stand-in of the tests is made of.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread;

use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::error::{Doing, Result};
use crate::http::runtime;
use crate::pod::Pod;

/// A running server. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Served {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    /// Listens on `port` (0: any) of the pod, IPv4 and IPv6, and answers what each peer asks. It accepts connections when
    /// this returns.
    pub(crate) fn start<A, F, B>(pod: &Pod, port: u16, answer: A) -> Result<Self>
    where
        A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let doing = || format!("listen on port {port} in {}", pod.name());
        let listener = pod.run(|| std::net::TcpListener::bind(("::", port)))?.doing(doing)?;
        listener.set_nonblocking(true).doing(doing)?;
        let port = listener.local_addr().doing(doing)?.port();
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime()?;
        let thread = thread::spawn(move || {
            // The server has no end of its own; the only one is `stopped`.
            runtime.block_on(async {
                tokio::select! { _ = stopped => (), _ = serve(listener, answer) => () }
            });
        });
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

async fn serve<A, F, B>(listener: std::net::TcpListener, answer: A) -> std::io::Result<Infallible>
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(peer, request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        // A connection that breaks off concerns its peer alone.
        tokio::spawn(async move {
            drop(
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            )
        });
    }
}
