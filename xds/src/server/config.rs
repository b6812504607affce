//! How a server behaves.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;

use super::Peers;
use crate::stream::Policy;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How patient its streams are. gRPC clients are given what [suits](Policy::suited_to) them.
    pub policy: Policy,
    /// Who may connect to a Unix socket.
    pub peers: Peers,
    /// Which clients get which snapshots. Default: all the same.
    pub groups: Grouping,
    /// The largest request it takes. A client that reconnects names everything it holds: 102 KB for 1 000
    /// clusters, so gRPC's usual 4 MiB end large configurations for good. Default: 64 MiB.
    pub max_request_bytes: usize,
    /// How many streams there may be; one more is refused with `RESOURCE_EXHAUSTED`. Default: 10 000.
    pub max_streams: usize,
    /// How many streams there may be on one connection; the client waits with one more, and says nothing. An Envoy has
    /// a single stream for all aggregated types, but one for each subscription to another service: as many as it has
    /// clusters, if their endpoints come from the endpoint service rather than from `ads`. Such a stream never
    /// ends, so that too low a limit leaves the rest without endpoints. Default: 10 000.
    pub max_streams_per_connection: u32,
    /// How many requests of one stream are taken as fast as they come, answers included; one that rests earns them again.
    /// Default: 10 000, which is an Envoy that asks for the endpoints of each of its clusters in a request of its own.
    pub request_burst: NonZeroU32,
    /// How many requests of one stream are taken in a second after that. More wait with the client, by flow control: the
    /// stream goes on, and what a client costs that asks or rejects in a loop has a bound. See
    /// [`REQUESTS_DELAYED`](super::metric::REQUESTS_DELAYED). Default: 500.
    pub max_requests_per_second: NonZeroU32,
    /// Of how many clients that have left it is remembered what they will not say when they come back. Default: 1000.
    pub max_recollections: usize,
    /// How often an idle connection is probed. Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long a probe may stay unanswered, and how long a TLS handshake may take. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// How long clients may take to leave on shutdown. Default: 2 s.
    pub shutdown_grace: Duration,
    /// Events that may wait for the owner. Beyond it streams wait for the owner, so read them. Default: 1024.
    pub event_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            peers: Peers::SameUser,
            groups: Grouping::default(),
            max_request_bytes: 64 << 20,
            max_streams: 10_000,
            max_streams_per_connection: 10_000,
            request_burst: const { NonZeroU32::new(10_000).unwrap() },
            max_requests_per_second: const { NonZeroU32::new(500).unwrap() },
            max_recollections: 1000,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(2),
            event_capacity: 1024,
        }
    }
}

/// Chooses the group of a client, by which it is [published to](super::Publisher::publish_to).
///
/// ```
/// use weft_xds::server::{Config, Grouping};
///
/// let by_cluster = Grouping::by(|node| node.cluster.as_str().into());
/// let config = Config { groups: by_cluster, ..Config::default() };
/// ```
#[derive(Clone)]
pub struct Grouping(Arc<Choice>);

type Choice = dyn Fn(&Node) -> Arc<str> + Send + Sync;

impl Grouping {
    /// All clients for which `choose` says the same are one group.
    #[must_use]
    pub fn by(choose: impl Fn(&Node) -> Arc<str> + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    pub(super) fn of(&self, node: &Node) -> Arc<str> {
        (self.0)(node)
    }
}

impl Default for Grouping {
    /// All clients are one group, whose name is empty.
    fn default() -> Self {
        Self::by(|_| "".into())
    }
}

impl fmt::Debug for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grouping").finish_non_exhaustive()
    }
}

/// Certificates and keys, as PEM.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub struct Tls {
    /// The certificate of the server, with those that lead to its authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Who signs the certificates of clients. With it they must have one (mutual TLS).
    pub client_authority: Option<Vec<u8>>,
}

#[cfg(feature = "tls")]
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("mutual", &self.client_authority.is_some()).finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
impl From<Tls> for tonic::transport::ServerTlsConfig {
    fn from(tls: Tls) -> Self {
        let identity = tonic::transport::Identity::from_pem(tls.certificate, tls.key);
        let config = Self::new().identity(identity);
        match tls.client_authority {
            Some(authority) => config.client_ca_root(tonic::transport::Certificate::from_pem(authority)),
            None => config,
        }
    }
}
