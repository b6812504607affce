//! The server on a real Unix socket, spoken to by a gRPC client.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
};
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use envoy_types::pb::envoy::service::status::v3::{ClientStatusRequest, ConfigStatus};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use weft_xds::server::{Config, Grouping, Peers, ServeError};
use weft_xds::stream::{ResourceState, StreamStatus};
use weft_xds::{Event, Publisher, Resource, Revision, Server, Snapshot, StreamId, TypeUrl};

const SOON: Duration = Duration::from_secs(10);
const TEST: TypeUrl = TypeUrl::RUNTIME;

struct Running {
    status: weft_xds::server::Status,
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
    let status = server.status();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve_unix(listener, async {
        drop(stopped.await);
    }));
    Running { status, publisher, events, stop, served, directory }
}

async fn channel(directory: &Path) -> Channel {
    let uri = format!("unix://{}", directory.join("xds.sock").display());
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

async fn dial(directory: &Path) -> AggregatedDiscoveryServiceClient<Channel> {
    AggregatedDiscoveryServiceClient::new(channel(directory).await)
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
        let acked = server.event().await;
        assert!(
            matches!(&acked, Event::Acked { revision: of, after, .. } if *of == revision && *after < SOON)
        );
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
    let server = serve(Config {
        peers: Peers::Listed { uids: vec![u32::MAX], gids: vec![u32::MAX] },
        ..Config::default()
    });
    assert_eq!(server.connect().await.err().map(|status| status.code()), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn the_state_of_the_world_is_served_beside_it() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![9; 9]));
    let mut client = dial(server.directory.path()).await;
    let (requests, sent) = mpsc::channel(8);
    let request = DiscoveryRequest {
        node: subscription().node,
        type_url: TEST.as_str().into(),
        resource_names: vec!["a".into()],
        ..Default::default()
    };
    requests.send(request).await.unwrap();
    let mut responses =
        client.stream_aggregated_resources(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let response = timeout(SOON, responses.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(response.resources[0].value, [9; 9]);
    assert_eq!(response.resources[0].type_url, TEST.as_str());
}

#[tokio::test]
async fn each_type_has_a_service_of_its_own() {
    use envoy_types::pb::envoy::service::runtime::v3::runtime_discovery_service_client::RuntimeDiscoveryServiceClient;
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![9]));
    let mut client = RuntimeDiscoveryServiceClient::new(channel(server.directory.path()).await);
    let (requests, sent) = mpsc::channel(8);
    requests.send(DeltaDiscoveryRequest { type_url: String::new(), ..subscription() }).await.unwrap();
    let responses = client.delta_runtime(ReceiverStream::new(sent)).await.unwrap().into_inner();
    assert_eq!(content(&Ads { requests, responses }.receive().await.unwrap()), [9]);
}

#[tokio::test]
async fn each_group_of_clients_gets_its_own_snapshots() {
    let server =
        serve(Config { groups: Grouping::by(|node| node.cluster.as_str().into()), ..Config::default() });
    server.publisher.publish_to("red", snapshot(1, vec![1]));
    server.publisher.publish_to("blue", snapshot(1, vec![2]));
    for (cluster, expected) in [("red", 1), ("blue", 2)] {
        let mut ads = server.connect().await.unwrap();
        let node = Node { id: "node".into(), cluster: cluster.into(), ..Default::default() };
        ads.send(DeltaDiscoveryRequest { node: Some(node), ..subscription() }).await;
        assert_eq!(content(&ads.receive().await.unwrap()), [expected]);
    }
    assert!(server.publisher.retire("nobody"));
    assert_eq!(server.publisher.current_of("red").unwrap().revision(), Revision(1));
}

#[tokio::test]
async fn one_stream_too_many_is_refused() {
    let server = serve(Config { max_streams: 1, ..Config::default() });
    server.publisher.publish(snapshot(1, vec![1]));
    let mut first = server.connect().await.unwrap();
    first.send(subscription()).await;
    first.receive().await.unwrap();
    assert_eq!(server.connect().await.err().map(|status| status.code()), Some(Code::ResourceExhausted));
    drop(first);
    let again = timeout(SOON, async { while server.connect().await.is_err() {} }).await;
    assert!(again.is_ok(), "there is room again");
}

// consul#9689: what a client may ask for has an end.
#[tokio::test]
async fn a_request_too_large_ends_its_stream() {
    let server = serve(Config { max_request_bytes: 100, ..Config::default() });
    let mut ads = server.connect().await.unwrap();
    ads.send(DeltaDiscoveryRequest { resource_names_subscribe: vec!["a".repeat(200)], ..subscription() })
        .await;
    assert_eq!(ads.receive().await.unwrap_err().code(), Code::ResourceExhausted);
}

// A client in a loop costs what the limit allows: three requests are over, at ten a second.
#[tokio::test]
async fn requests_beyond_the_limit_wait_and_responses_do_not() {
    let limited = |number| NonZeroU32::new(number).unwrap();
    let config =
        Config { request_burst: limited(5), max_requests_per_second: limited(10), ..Config::default() };
    let server = serve(config);
    server.publisher.publish(snapshot(1, vec![1]));
    let mut ads = server.connect().await.unwrap();
    let begun = Instant::now();
    for number in 0..8 {
        let names = vec![format!("a{number}")];
        ads.send(DeltaDiscoveryRequest { resource_names_subscribe: names, ..subscription() }).await;
    }
    assert!(!ads.receive().await.unwrap().removed_resources.is_empty());
    assert!(begun.elapsed() < Duration::from_millis(300), "the response had to wait");
    let asked = |streams: &[StreamStatus]| streams[0].types[0].resources.len();
    wait_for(&server.status, |streams| asked(streams) == 8).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "after {:?}", begun.elapsed());
}

// envoy#12592, over real streams: what a lost stream knew is known to the next.
#[tokio::test]
async fn a_rejection_outlives_its_stream() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![1]));
    let mut ads = server.connect().await.unwrap();
    ads.send(subscription()).await;
    let accepted = ads.receive().await.unwrap();
    let answer = |response: &DeltaDiscoveryResponse| DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    };
    ads.send(answer(&accepted)).await;
    server.publisher.publish(snapshot(2, vec![2]));
    let rejected = ads.receive().await.unwrap();
    let error_detail =
        Some(envoy_types::pb::google::rpc::Status { message: "no".into(), ..Default::default() });
    ads.send(DeltaDiscoveryRequest { error_detail, ..answer(&rejected) }).await;
    wait_for(&server.status, |streams| {
        streams.first().is_some_and(|one| one.types[0].resources[0].state == ResourceState::Rejected)
    })
    .await;
    drop(ads);

    let mut ads = server.connect().await.unwrap();
    let holds = accepted.resources.iter().map(|one| (one.name.clone(), one.version.clone())).collect();
    ads.send(DeltaDiscoveryRequest { initial_resource_versions: holds, ..subscription() }).await;
    server.publisher.publish(snapshot(3, vec![3]));
    assert_eq!(content(&ads.receive().await.unwrap()), [3], "revision 2 is not sent again");
}

// istio's agent closes the older one; an Envoy that restarts hot needs both.
#[tokio::test]
async fn two_streams_of_one_node_are_both_served() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![1]));
    let (mut parent, mut child) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    for ads in [&mut parent, &mut child] {
        ads.send(subscription()).await;
        assert_eq!(content(&ads.receive().await.unwrap()), [1]);
    }
    let nodes: Vec<_> =
        server.status.streams().iter().filter_map(|stream| Some(stream.node.as_ref()?.id.clone())).collect();
    assert_eq!(nodes, ["node", "node"]);
}

#[tokio::test]
async fn standard_tools_can_ask_how_far_clients_are() {
    let server = serve(Config::default());
    server.publisher.publish(snapshot(7, vec![1]));
    let mut ads = server.connect().await.unwrap();
    ads.send(subscription()).await;
    let response = ads.receive().await.unwrap();
    let ask = || async {
        let mut client = ClientStatusDiscoveryServiceClient::new(channel(server.directory.path()).await);
        client.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner().config
    };
    let sent = ask().await;
    assert_eq!(sent[0].node.as_ref().unwrap().id, "node");
    assert_eq!(sent[0].generic_xds_configs[0].config_status(), ConfigStatus::Stale);
    let ack = DeltaDiscoveryRequest {
        type_url: response.type_url,
        response_nonce: response.nonce,
        ..Default::default()
    };
    ads.send(ack).await;
    wait_for(&server.status, |streams| streams.first().is_some_and(|stream| stream.in_sync)).await;
    let accepted = &ask().await[0].generic_xds_configs[0];
    assert_eq!((accepted.config_status(), accepted.name.as_str()), (ConfigStatus::Synced, "a"));
    assert_eq!(accepted.xds_config.as_ref().unwrap().value, [1]);
}

async fn wait_for(status: &weft_xds::server::Status, done: impl Fn(&[StreamStatus]) -> bool) {
    let waiting = async {
        while !done(&status.streams()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it comes in time");
}

#[tokio::test]
async fn it_serves_over_tcp_as_well() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, publisher, _events) = Server::new(Config::default());
    publisher.publish(snapshot(1, vec![5]));
    let serving = tokio::spawn(server.serve_tcp(listener, std::future::pending()));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (requests, sent) = mpsc::channel(8);
    requests.send(subscription()).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(sent)).await.unwrap().into_inner();
    assert_eq!(content(&Ads { requests, responses }.receive().await.unwrap()), [5]);
    serving.abort();
}

// grpcurl and its like say all they have to say at once, and then only read.
#[tokio::test]
async fn a_client_that_ends_its_half_is_answered_all_the_same() {
    let mut server = serve(Config::default());
    server.publisher.publish(snapshot(1, vec![1]));
    for _ in 0..20 {
        let mut client = dial(server.directory.path()).await;
        let asked = tokio_stream::once(subscription());
        let mut responses = client.delta_aggregated_resources(asked).await.unwrap().into_inner();
        let response = timeout(SOON, responses.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(content(&response), [1]);
        let end = timeout(SOON, responses.message()).await.unwrap().unwrap_err();
        assert_eq!(end.code(), Code::Cancelled);
        while !matches!(server.event().await, Event::Disconnected { .. }) {}
    }
    assert!(server.status.streams().is_empty());
}

// A client that does not read holds up nobody: neither the owner nor the others.
#[tokio::test]
async fn a_slow_reader_gets_the_newest_when_it_reads_again() {
    let mut server = serve(Config::default());
    let mut ads = server.connect().await.unwrap();
    ads.send(subscription()).await;
    assert!(matches!(server.event().await, Event::Connected { .. }));
    for revision in 1..=50 {
        server.publisher.publish(snapshot(revision, vec![revision as u8; 128 << 10]));
        tokio::task::yield_now().await;
    }
    let mut last = ads.receive().await.unwrap();
    let mut responses = 1;
    while content(&last)[0] != 50 {
        let ack = DeltaDiscoveryRequest {
            type_url: last.type_url,
            response_nonce: last.nonce,
            ..Default::default()
        };
        ads.send(ack).await;
        last = ads.receive().await.unwrap();
        responses += 1;
    }
    assert!(responses < 10, "{responses} responses were sent");
}
