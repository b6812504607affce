//! How patient and how generous a stream is.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;

/// How patient and how generous a stream is, and what its client can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A response unanswered for this long is reported, and a newer one of its type may overtake it: Envoy
    /// processes a correction although the earlier response is unanswered. Default: 2 s.
    pub answer_timeout: Duration,
    /// Listeners and routes wait this long at most for the clusters, and clusters that are gone wait this long
    /// at most for the listeners and routes. Default: 20 s, which is more than the 15 s after which Envoy itself
    /// stops waiting for the endpoints of a warming cluster.
    pub warm_timeout: Duration,
    /// How long clusters that are gone stay after the last answer about listeners and routes. Connections to a
    /// replaced listener keep its routes until it has drained; a revision is in sync only afterwards. Default: 0.
    pub removal_grace: Duration,
    /// A client that comes back subscribes to one type after the other, in no fixed order. For this long nothing that
    /// it holds is changed before its clusters are, or taken away. Default: 1 s.
    pub resume_wait: Duration,
    /// Resources beyond this many bytes go into a further response, where the protocol allows it: not for clusters
    /// and listeners in the state-of-the-world variant. One resource is never split. Default: 32 MiB.
    pub max_response_bytes: usize,
    /// A response beyond this is never sent: what makes it so large is [withheld](crate::Event::Withheld) instead of
    /// breaking the stream again and again. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// How many names, versions included, a client may have on one stream, over all types. Default: 1 000 000.
    pub max_names: usize,
    /// How long these names may be together. Default: 128 MiB.
    pub max_name_bytes: usize,
    /// How many types a client may ask for on one stream. Default: 64.
    pub max_types: usize,
    /// Answer a subscription to a route configuration that does not exist with an empty one of that name. The answer
    /// of the protocol, a removal, leaves the listener of an Envoy 1.40 warming for ever, and its port
    /// closed; the empty one answers 404. In the state of the world also endpoints: there is no removal, and a cluster
    /// would warm on them for 15 s. gRPC clients want neither. Default: true.
    pub empty_for_missing: bool,
    /// The client reads `resource_errors` ([xRFC TP3][tp3]), so that it can be told why a name has no resource, and in
    /// the state-of-the-world variant that it has none at all. Default: false; Envoy 1.40 does not.
    ///
    /// [tp3]: https://github.com/cncf/xds/blob/main/proposals/TP3-xds-error-propagation.md
    pub resource_errors: bool,
    /// Send times to live and heartbeats also to clients that do not list the [client features][features] for
    /// them. Envoy 1.40 lists none and has both. Default: false.
    ///
    /// [features]: https://www.envoyproxy.io/docs/envoy/latest/api/client_features
    pub assume_ttl: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            warm_timeout: Duration::from_secs(20),
            removal_grace: Duration::ZERO,
            resume_wait: Duration::from_secs(1),
            max_response_bytes: 32 << 20,
            max_message_bytes: 64 << 20,
            max_names: 1_000_000,
            max_name_bytes: 128 << 20,
            max_types: 64,
            empty_for_missing: true,
            resource_errors: false,
            assume_ttl: false,
        }
    }
}

impl Policy {
    /// The same, but with what the client at `node` is known to want: gRPC libraries wait for the removal of missing
    /// routes and read `resource_errors` (gRFC A88).
    #[must_use]
    pub fn suited_to(self, node: &Node) -> Self {
        let is_grpc = node.user_agent_name.starts_with("gRPC");
        Self {
            empty_for_missing: self.empty_for_missing && !is_grpc,
            resource_errors: self.resource_errors || is_grpc,
            ..self
        }
    }
}
