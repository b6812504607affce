//! A server that takes whatever it is sent: a stand-in for collectors of traces and logs.

use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};

use crate::error::Result;
use crate::pod::Pod;
use crate::served::Served;

/// Takes requests of HTTP/1.1 and HTTP/2 and keeps their bodies, also of those that never end, as streams of gRPC. It ends when
/// dropped.
#[derive(Debug)]
pub struct Sink {
    taken: Taken,
    _served: Served,
}

/// The path of each request, and what has come of its body.
type Taken = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl Sink {
    /// Listens on `port` of the pod. It accepts connections when this returns.
    pub fn start(pod: &Pod, port: u16) -> Result<Self> {
        let taken = Taken::default();
        let kept = Arc::clone(&taken);
        let served = Served::start(pod, port, move |_peer, request| take(request, Arc::clone(&kept)))?;
        Ok(Self { taken, _served: served })
    }

    /// All that has come to `path` so far, as text as far as it is text.
    pub fn taken(&self, path: &str) -> String {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = taken.iter().filter(|(to, _)| to == path).map(|(_, body)| String::from_utf8_lossy(body));
        bodies.collect()
    }
}

async fn take(request: Request<Incoming>, taken: Taken) -> Response<Empty<Bytes>> {
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
    Response::new(Empty::new())
}
