//! The server on a real Unix socket, spoken to by a gRPC client.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use weft_xds::server::{Config, Peers, ServeError};
use weft_xds::{Event, Publisher, Resource, Revision, Server, Snapshot, StreamId, TypeUrl};

const SOON: Duration = Duration::from_secs(10);
const TEST: TypeUrl = TypeUrl::RUNTIME;

struct Running {
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
    directory: tempfile::TempDir,
}

struct Ads {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

fn serve(config: Config) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("xds.sock")).unwrap();
    let (server, publisher, events) = Server::new(config);
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve_unix(listener, async {
        drop(stopped.await);
    }));
    Running { publisher, events, stop, served, directory }
}

async fn dial(directory: &Path) -> AggregatedDiscoveryServiceClient<Channel> {
    let uri = format!("unix://{}", directory.join("xds.sock").display());
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    AggregatedDiscoveryServiceClient::new(channel)
}

impl Running {
    async fn connect(&self) -> Result<Ads, Status> {
        let (requests, sent) = mpsc::channel(8);
        let mut client = dial(self.directory.path()).await;
        let responses = client.delta_aggregated_resources(ReceiverStream::new(sent)).await?.into_inner();
        Ok(Ads { requests, responses })
    }

    async fn event(&mut self) -> Event {
        timeout(SOON, self.events.recv()).await.expect("an event in time").expect("an event")
    }
}

impl Ads {
    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = timeout(SOON, self.responses.message()).await.expect("a response in time");
        response.map(|response| response.expect("a stream never ends with OK"))
    }
}

fn snapshot(revision: u64, content: Vec<u8>) -> Arc<Snapshot> {
    let mut builder = Snapshot::builder();
    builder.insert(Resource::from_bytes(TEST, "a", content.into()));
    builder.build(Revision(revision)).unwrap().into()
}

fn subscription() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: "node".into(), ..Default::default() }),
        type_url: TEST.as_str().into(),
        resource_names_subscribe: vec!["a".into()],
        ..Default::default()
    }
}

fn content(response: &DeltaDiscoveryResponse) -> &[u8] {
    &response.resources[0].resource.as_ref().unwrap().value
}

#[tokio::test]
async fn a_client_gets_every_revision_and_the_owner_learns_of_it() {
    let mut server = serve(Config::default());
    let mut ads = server.connect().await.unwrap();
    ads.send(subscription()).await;
    assert!(matches!(server.event().await, Event::Connected { node, .. } if node.id == "node"));
    for revision in 1..=3 {
        server.publisher.publish(snapshot(revision, vec![revision as u8; 9]));
        let response = ads.receive().await.unwrap();
        assert_eq!(content(&response), vec![revision as u8; 9]);
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..Default::default()
        };
        ads.send(ack).await;
        let (stream, revision) = (StreamId(1), Revision(revision));
        assert_eq!(server.event().await, Event::Acked { stream, type_url: TEST, revision });
        assert_eq!(server.event().await, Event::InSync { stream, revision });
    }
    drop(ads);
    assert_eq!(server.event().await, Event::Disconnected { stream: StreamId(1) });
}

// gRPC's default limit of 4 MiB has caused outages: istio#32644, envoygateway#9564.
#[tokio::test]
async fn messages_beyond_4_mib_pass_both_ways() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![7; 6 << 20]));
    let (requests, sent) = mpsc::channel(8);
    let mut client = dial(server.directory.path()).await.max_decoding_message_size(64 << 20);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let mut ads = Ads { requests, responses };
    let filler = "a-long-name-to-fill-the-message".repeat(50);
    let names = (0..4_000).map(|i| (format!("{filler}{i}"), "0".to_owned()));
    ads.send(DeltaDiscoveryRequest { initial_resource_versions: names.collect(), ..subscription() }).await;
    assert_eq!(content(&ads.receive().await.unwrap()).len(), 6 << 20);
}

#[tokio::test]
async fn shutdown_ends_streams_with_unavailable_and_returns() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![1]));
    let mut ads = server.connect().await.unwrap();
    ads.send(subscription()).await;
    ads.receive().await.unwrap();
    server.stop.send(()).unwrap();
    assert_eq!(ads.receive().await.unwrap_err().code(), Code::Unavailable);
    timeout(SOON, server.served).await.expect("the server stops in time").unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_without_a_node_is_an_invalid_argument() {
    let server = serve(Config::default());
    let mut ads = server.connect().await.unwrap();
    ads.send(DeltaDiscoveryRequest { node: None, ..subscription() }).await;
    let status = ads.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("node"), "{status}");
}

#[tokio::test]
async fn only_the_users_allowed_may_connect() {
    let server = serve(Config { peers: Peers::Uids(vec![u32::MAX]), ..Config::default() });
    assert_eq!(server.connect().await.err().map(|status| status.code()), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn state_of_the_world_is_refused_with_a_hint() {
    let server = serve(Config::default());
    let mut client = dial(server.directory.path()).await;
    let (_requests, sent) = mpsc::channel::<DiscoveryRequest>(1);
    let status = client.stream_aggregated_resources(ReceiverStream::new(sent)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("DELTA_GRPC"), "{status}");
}
