//! What a client has of one name.

use std::sync::Arc;
use std::time::Instant;

use super::due::Step;
use crate::{Resource, Version};

/// What a client has of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) sent: Sent,
    pub(super) accepted: Option<Content>,
    pub(super) rejected: Option<Rejected>,
    /// It was in a response that was rejected for the sake of another name. The client may have applied it, and does
    /// not remember its version (envoy#12592).
    pub(super) doubtful: bool,
    /// Since when it is as it is.
    pub(super) since: Option<Instant>,
}

/// What was last sent under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing yet, or the client asks again.
    #[default]
    Nothing,
    /// That it does not exist.
    Absent,
    /// Something we cannot tell: from another server, or out of a response rejected for the sake of another name.
    Unknown,
    /// This content.
    Content(Content),
}

/// A content, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Ours(Resource),
    /// What an earlier stream has brought; the client says this version of it.
    Theirs(Version),
}

/// A content that the client has rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) version: Version,
    pub(super) reason: Arc<str>,
    pub(super) at: Instant,
}

impl Held {
    /// Sent and accepted.
    pub(super) fn settled(resource: &Resource) -> Self {
        let content = Content::Ours(resource.clone());
        Self { sent: Sent::Content(content.clone()), accepted: Some(content), ..Self::default() }
    }

    /// Told to be absent.
    pub(super) fn absent() -> Self {
        Self { sent: Sent::Absent, ..Self::default() }
    }

    /// What was accepted earlier, if that is known; what has become of it since is not.
    pub(super) fn unknown(accepted: Option<&Resource>) -> Self {
        let accepted = accepted.cloned().map(Content::Ours);
        Self { sent: Sent::Unknown, accepted, ..Self::default() }
    }

    pub(super) fn from_earlier_stream(version: &str) -> Self {
        let accepted = Version::parse(version).map(Content::Theirs);
        Self { sent: accepted.clone().map_or(Sent::Unknown, Sent::Content), accepted, ..Self::default() }
    }

    /// What the name is due, if `wanted` is what it should hold.
    pub(super) fn step(&self, wanted: Option<&Resource>) -> Step {
        match (wanted, &self.sent) {
            (Some(wanted), _) if self.has_rejected(wanted.version()) => Step::Park,
            (Some(wanted), Sent::Content(sent)) if sent.is(wanted) => Step::Nothing,
            (Some(_), Sent::Nothing | Sent::Absent) | (None, Sent::Nothing) => Step::Answer,
            (Some(_), Sent::Unknown | Sent::Content(_)) => Step::Change,
            (None, Sent::Absent) => Step::Nothing,
            (None, Sent::Unknown | Sent::Content(_)) => Step::Remove,
        }
    }

    pub(super) fn has_rejected(&self, version: Version) -> bool {
        self.rejected.as_ref().is_some_and(|rejected| rejected.version == version)
    }

    /// Whether there is no more to know about it than that `wanted` is in force.
    pub(super) fn is_settled(&self, wanted: Option<&Resource>) -> bool {
        let in_force = match wanted {
            None => self.sent == Sent::Absent,
            Some(wanted) => {
                matches!(&self.sent, Sent::Content(sent) if sent.is(wanted))
                    && self.accepted.as_ref().is_some_and(|accepted| accepted.is(wanted))
            }
        };
        in_force && self.rejected.is_none() && !self.doubtful
    }

    /// What a client certainly has, or had last.
    pub(super) fn good(&self) -> Option<&Resource> {
        match &self.sent {
            Sent::Content(Content::Ours(sent)) if !self.has_rejected(sent.version()) => Some(sent),
            _ => match &self.accepted {
                Some(Content::Ours(accepted)) => Some(accepted),
                _ => None,
            },
        }
    }
}

impl Content {
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Ours(resource) => resource.version(),
            Self::Theirs(version) => *version,
        }
    }

    fn is(&self, wanted: &Resource) -> bool {
        let alike = |ours: &Resource| ours.ttl() == wanted.ttl() && ours.aliases() == wanted.aliases();
        self.version() == wanted.version()
            && match self {
                Self::Ours(ours) => alike(ours),
                Self::Theirs(_) => true,
            }
    }
}
