//! What the owner of a server learns about its clients.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;

use crate::{Revision, TypeUrl};

/// One stream of one client. Numbers are never used twice within a server; a client that reconnects gets a new
/// one, and during a hot restart a node has two streams at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Something happened on a stream.
///
/// The events of one stream arrive in order, [`Connected`](Self::Connected) first and
/// [`Disconnected`](Self::Disconnected) last.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client has said who it is.
    Connected {
        /// The stream.
        stream: StreamId,
        /// What the client says about itself.
        node: Arc<Node>,
    },
    /// A client has accepted a response. For clusters Envoy says this only once every cluster is warm.
    Acked {
        /// The stream.
        stream: StreamId,
        /// The type of the resources.
        type_url: TypeUrl,
        /// The snapshot the response was rendered from.
        revision: Revision,
        /// How long after the response was written.
        after: Duration,
    },
    /// A client has accepted everything of a revision that it subscribed to, and everything that is not in
    /// it has been taken away. Also said when nothing had to be sent.
    ///
    /// It is said once each time a stream gets there. Where the revision holds clusters or listeners it is not
    /// said before the client has asked for those types, so that a client that has only just connected is
    /// not taken for one that is done.
    InSync {
        /// The stream.
        stream: StreamId,
        /// The revision that is in force.
        revision: Revision,
    },
    /// A client has rejected a response. What is named is not sent again until its content changes.
    Nacked {
        /// The stream.
        stream: StreamId,
        /// The type of the resources.
        type_url: TypeUrl,
        /// The snapshot the response was rendered from.
        revision: Revision,
        /// The guilty resources and why, as far as the message tells. Empty if it names none of a response
        /// with several: the engine then offers them one by one and reports each that is rejected again.
        resources: Vec<(Arc<str>, String)>,
        /// The client's message, unabridged.
        message: String,
    },
    /// A response has been left unanswered for [`Policy::answer_timeout`](crate::stream::Policy). For clusters it
    /// means that one of them is still warming.
    Unanswered {
        /// The stream.
        stream: StreamId,
        /// The type of the resources.
        type_url: TypeUrl,
        /// The snapshot the response was rendered from.
        revision: Revision,
    },
    /// Resources are not sent, because the response would be larger than
    /// [`Policy::max_message_bytes`](crate::stream::Policy): it would break the stream, and the next one. The client
    /// keeps what it has of them until they change.
    Withheld {
        /// The stream.
        stream: StreamId,
        /// The type of the resources.
        type_url: TypeUrl,
        /// The snapshot they are in.
        revision: Revision,
        /// Their names.
        resources: Vec<Arc<str>>,
        /// How large the response would be.
        bytes: usize,
    },
    /// The stream is over.
    Disconnected {
        /// The stream.
        stream: StreamId,
    },
}

impl Event {
    /// The stream it happened on.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Connected { stream, .. }
            | Self::Acked { stream, .. }
            | Self::InSync { stream, .. }
            | Self::Nacked { stream, .. }
            | Self::Unanswered { stream, .. }
            | Self::Withheld { stream, .. }
            | Self::Disconnected { stream } => *stream,
        }
    }
}
