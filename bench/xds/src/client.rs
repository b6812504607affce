//! The client that all servers have: it asks for all clusters and their endpoints, accepts everything and counts bytes.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::resources::{CLUSTER, ENDPOINT, name, node};

/// Nothing that is sent here is too large, and the window never makes a server wait.
const MAX_MESSAGE: usize = 256 << 20;
const WINDOW: u32 = 16 << 20;

/// What the clients have received together.
#[derive(Default)]
pub struct Received {
    pub bytes: AtomicU64,
    pub clusters: AtomicU64,
    pub endpoints: AtomicU64,
    /// Responses about endpoints.
    pub updates: AtomicU64,
    pub arrived: Notify,
}

/// What a client needs to know.
#[derive(Clone)]
pub struct Asking {
    /// Which of the clients it is.
    pub at: usize,
    pub port: u16,
    pub clusters: usize,
    pub incremental: bool,
    pub received: Arc<Received>,
    /// Makes every client ask for endpoints again.
    pub again: broadcast::Sender<()>,
}

/// What both variants tell.
struct Response {
    type_url: String,
    version: String,
    nonce: String,
    resources: u64,
}

impl Asking {
    /// Connects, and takes what comes until the stream ends.
    pub async fn run(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let client = AggregatedDiscoveryServiceClient::new(self.connect().await?);
        let client = client.max_decoding_message_size(MAX_MESSAGE);
        if self.incremental { self.incremental(client).await } else { self.state_of_the_world(client).await }
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let (port, received) = (self.port, Arc::clone(&self.received));
        let connector = tower::service_fn(move |_| {
            let received = Arc::clone(&received);
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(Counted { stream, received }))
            }
        });
        let endpoint = Endpoint::from_static("http://server");
        let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        endpoint.connect_with_connector(connector).await
    }

    async fn incremental(
        self,
        mut client: AggregatedDiscoveryServiceClient<Channel>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (requests, sent) = mpsc::channel(8);
        let request = |type_url: &str, names: Vec<String>| DeltaDiscoveryRequest {
            node: Some(self.node()),
            type_url: type_url.into(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        requests.send(request(CLUSTER, Vec::new())).await?;
        requests.send(request(ENDPOINT, self.names())).await?;
        let mut responses = client.delta_aggregated_resources(ReceiverStream::new(sent)).await?.into_inner();
        let mut again = self.again.subscribe();
        loop {
            let request = tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    let response = Response {
                        resources: response.resources.len() as u64,
                        type_url: response.type_url,
                        version: String::new(),
                        nonce: response.nonce,
                    };
                    self.count(&response);
                    DeltaDiscoveryRequest { response_nonce: response.nonce, type_url: response.type_url, ..Default::default() }
                }
                _ = again.recv() => DeltaDiscoveryRequest { type_url: ENDPOINT.into(), ..Default::default() },
            };
            requests.send(request).await?;
        }
    }

    async fn state_of_the_world(
        self,
        mut client: AggregatedDiscoveryServiceClient<Channel>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (requests, sent) = mpsc::channel(8);
        let request = |type_url: &str| DiscoveryRequest {
            node: Some(self.node()),
            type_url: type_url.into(),
            resource_names: if type_url == ENDPOINT { self.names() } else { Vec::new() },
            ..Default::default()
        };
        requests.send(request(CLUSTER)).await?;
        requests.send(request(ENDPOINT)).await?;
        let mut responses = client.stream_aggregated_resources(ReceiverStream::new(sent)).await?.into_inner();
        let mut again = self.again.subscribe();
        let mut last = request(ENDPOINT);
        loop {
            let next = tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    let response = Response {
                        resources: response.resources.len() as u64,
                        type_url: response.type_url,
                        version: response.version_info,
                        nonce: response.nonce,
                    };
                    self.count(&response);
                    let mut answer = request(&response.type_url);
                    (answer.node, answer.version_info, answer.response_nonce) = (None, response.version, response.nonce);
                    if response.type_url == ENDPOINT {
                        last = answer.clone();
                    }
                    answer
                }
                _ = again.recv() => last.clone(),
            };
            requests.send(next).await?;
        }
    }

    fn node(&self) -> Node {
        Node { id: node(self.at), cluster: "bench".into(), ..Default::default() }
    }

    fn names(&self) -> Vec<String> {
        (0..self.clusters).map(name).collect()
    }

    fn count(&self, response: &Response) {
        let counter =
            if response.type_url == CLUSTER { &self.received.clusters } else { &self.received.endpoints };
        counter.fetch_add(response.resources, Ordering::Relaxed);
        if response.type_url == ENDPOINT {
            self.received.updates.fetch_add(1, Ordering::Relaxed);
        }
        self.received.arrived.notify_one();
    }
}

/// A connection that counts what it receives.
struct Counted {
    stream: TcpStream,
    received: Arc<Received>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received.bytes.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
