//! How far a client has got, in full.

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;

use super::due::Step;
use super::held::{Content, Held, Sent};
use super::subscription::Subscription;
use super::{Service, Stream};
use crate::{Resource, Revision, StreamId, TypeUrl, Version};

/// Everything about one stream.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamId,
    /// Which service it is on.
    pub service: Service,
    /// Who the client is. `None` before its first request.
    pub node: Option<Arc<Node>>,
    /// Since when it is connected.
    pub since: Option<Instant>,
    /// What it should have.
    pub target: Option<Revision>,
    /// Whether it has, and has accepted, all of that.
    pub in_sync: bool,
    /// The types it has asked for, in make-before-break order.
    pub types: Vec<TypeStatus>,
}

/// Everything about one type on a stream.
#[derive(Clone, Debug)]
pub struct TypeStatus {
    /// The type.
    pub type_url: TypeUrl,
    /// Whether it has asked for all there is.
    pub wildcard: bool,
    /// The collections it has asked for (`xdstp://…/*`), sorted.
    pub collections: Vec<Arc<str>>,
    /// The response that it has not answered, and when that was sent. For clusters: they are warming.
    pub unanswered: Option<(Revision, Instant)>,
    /// Every name it has asked for, has or should have, sorted.
    pub resources: Vec<ResourceStatus>,
}

/// Everything about one name.
#[derive(Clone, Debug)]
pub struct ResourceStatus {
    /// The name.
    pub name: Arc<str>,
    /// Subscribed to, and not through the wildcard alone.
    pub named: bool,
    /// What the client should have. `None`: it does not exist.
    pub wanted: Option<Resource>,
    /// What it was sent last, as far as that is known.
    pub sent: Option<Version>,
    /// What it has accepted last.
    pub accepted: Option<Version>,
    /// What it has rejected and would be sent otherwise, why, and when.
    pub rejected: Option<(Version, Arc<str>, Instant)>,
    /// Where that leaves it.
    pub state: ResourceState,
    /// Since when: what was there when the stream first had everything has been there since then at the latest. `None` as
    /// long as nothing has happened to it on this stream.
    pub since: Option<Instant>,
}

/// Where a resource is on its way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceState {
    /// There is something to send, which waits for its turn.
    Due,
    /// Sent and not answered yet.
    Sent,
    /// The client has what it should.
    Accepted,
    /// The client has rejected what it should have.
    Rejected,
    /// The client asks for it, and it does not exist.
    Absent,
}

impl Stream {
    /// Everything about the stream. It costs what the client holds: for people, not for each change.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        let types = self.subscriptions.iter().map(|(type_url, subscription)| subscription.status(type_url));
        StreamStatus {
            stream: self.id,
            service: self.service.clone(),
            node: self.node.clone(),
            since: self.opened_at,
            target: self.target.as_ref().map(|target| target.revision()),
            in_sync: self.in_sync.is_some(),
            types: types.collect(),
        }
    }
}

impl Subscription {
    fn status(&self, type_url: &TypeUrl) -> TypeStatus {
        let unanswered = self.unanswered().filter(|_| self.is_live());
        TypeStatus {
            type_url: type_url.clone(),
            wildcard: self.is_wildcard(),
            collections: self.collections().cloned().collect(),
            unanswered: unanswered.map(|sent| (sent.revision, sent.sent_at)),
            resources: self.all_names().into_iter().map(|name| self.of_name(name)).collect(),
        }
    }

    fn of_name(&self, name: Arc<str>) -> ResourceStatus {
        let held = self.state(&name).map(std::borrow::Cow::into_owned).unwrap_or_default();
        let wanted = self.wanted(&name).cloned();
        let version = |content: &Content| content.version();
        let sent = match &held.sent {
            Sent::Content(content) => Some(content.version()),
            Sent::Nothing | Sent::Absent | Sent::Unknown => None,
        };
        ResourceStatus {
            named: self.is_named(&name),
            state: self.state_of(&name, &held, wanted.as_ref()),
            sent,
            accepted: held.accepted.as_ref().map(version),
            rejected: held.rejected.map(|rejected| (rejected.version, rejected.reason, rejected.at)),
            since: held.since.or_else(|| self.settled_since(&name)),
            wanted,
            name,
        }
    }

    fn state_of(&self, name: &str, held: &Held, wanted: Option<&Resource>) -> ResourceState {
        match (self.due().step(name), wanted) {
            (Step::Answer | Step::Change | Step::Remove, _) => ResourceState::Due,
            (Step::Park, _) => ResourceState::Rejected,
            (Step::Nothing, None) => ResourceState::Absent,
            (Step::Nothing, Some(_)) if held.is_settled(wanted) => ResourceState::Accepted,
            (Step::Nothing, Some(_)) => ResourceState::Sent,
        }
    }
}
