//! What is built only where it is asked for: TLS, health and reflection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::status::v3::ClientStatusRequest;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use weft_xds::server::{Config, ServeError, Tls};
use weft_xds::{Publisher, Revision, Server, Snapshot};

async fn serve() -> (SocketAddr, Publisher, JoinHandle<Result<(), ServeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, publisher, _) = Server::new(Config::default());
    (address, publisher, tokio::spawn(server.serve_tcp(listener, std::future::pending())))
}

async fn dial(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn it_is_healthy_once_there_is_something_to_serve() {
    let (address, publisher, serving) = serve().await;
    let mut health = HealthClient::new(dial(address).await);
    let status =
        |response: tonic::Response<tonic_health::pb::HealthCheckResponse>| response.into_inner().status();
    let asked = HealthCheckRequest::default();
    assert_eq!(status(health.check(asked.clone()).await.unwrap()), ServingStatus::NotServing);
    let mut watched = health.watch(asked.clone()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    publisher.publish(Snapshot::builder().build(Revision(1)).unwrap().into());
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(status(health.check(asked).await.unwrap()), ServingStatus::Serving);
    serving.abort();
}

#[tokio::test]
async fn reflection_names_the_services() {
    let (address, _publisher, serving) = serve().await;
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(dial(address).await);
    let answers = client.server_reflection_info(tokio_stream::iter([asked])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        unreachable!("services were asked for")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"envoy.service.discovery.v3.AggregatedDiscoveryService"), "{names:?}");
    serving.abort();
}

/// An authority, and a certificate of it for the server or a client: both as PEM with keys.
struct Certificates {
    authority: String,
    server: (String, String),
    client: (String, String),
}

fn certificates() -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    Certificates { server: issue("xds.test"), client: issue("envoy.test"), authority: authority.pem() }
}

#[tokio::test]
async fn mutual_tls_lets_in_who_has_a_certificate_and_nobody_else() {
    let Certificates { authority, server, client } = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls {
        certificate: server.0.into(),
        key: server.1.into(),
        client_authority: Some(authority.clone().into()),
    };
    let (xds, _publisher, _events) = Server::new(Config::default());
    let serving = tokio::spawn(xds.serve_tls(listener, tls, std::future::pending()));
    let stranger =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority)).domain_name("xds.test");
    let known = stranger.clone().identity(Identity::from_pem(&client.0, &client.1));
    assert!(asks(address, known).await);
    assert!(!asks(address, stranger).await);
    serving.abort();
}

// Whoever connects and says nothing would hold a file descriptor for as long as it likes.
#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let server = certificates().server;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls { certificate: server.0.into(), key: server.1.into(), client_authority: None };
    let config = Config { keepalive_timeout: Duration::from_millis(100), ..Config::default() };
    let (xds, _publisher, _events) = Server::new(config);
    let serving = tokio::spawn(xds.serve_tls(listener, tls, std::future::pending()));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let closed = timeout(Duration::from_secs(10), silent.read(&mut [0])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    serving.abort();
}

async fn asks(address: SocketAddr, tls: ClientTlsConfig) -> bool {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    let mut client = ClientStatusDiscoveryServiceClient::new(channel);
    client.fetch_client_status(ClientStatusRequest::default()).await.is_ok()
}
