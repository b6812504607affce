//! What is remembered of a client from one stream to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::held::Held;
use crate::snapshot::Resources;
use crate::{TypeUrl, Version};

/// What a client does not say when it comes back: what it has rejected, and what it may have applied out of a response
/// that it rejected, without remembering the version (envoy#12592). In the state-of-the-world variant also
/// which resources the version stands for that it names.
///
/// [`Stream::recollect`](super::Stream::recollect) makes it, [`Stream::recall`](super::Stream::recall) takes it. What was
/// rejected counts only for a client that shows that it holds something: another process of the same name may accept it.
#[derive(Clone, Debug, Default)]
pub struct Recollection(pub(super) BTreeMap<TypeUrl, Remembered>);

#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    /// What is out of the ordinary.
    pub(super) held: BTreeMap<Arc<str>, Held>,
    /// State of the world only: what else was in force of what was asked for, at whichever of these versions the client
    /// says it is: the last one it has accepted, or one under way, of which the answer may have been lost.
    pub(super) in_force: Option<(Vec<Version>, Resources)>,
}

impl Recollection {
    /// Whether it is no loss to forget it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Remembered::is_empty)
    }

    /// How much there is to remember: the names, and what is beside each.
    pub(crate) fn bytes(&self) -> usize {
        const BESIDE: usize = 200;
        let names = self.0.values().flat_map(|of_type| of_type.held.keys());
        names.map(|name| name.len() + BESIDE).sum()
    }

    /// Adds what another, later stream of the client knows.
    pub fn merge(&mut self, later: Self) {
        for (type_url, later) in later.0 {
            let known = self.0.entry(type_url).or_default();
            known.held.extend(later.held);
            known.in_force = later.in_force.or(known.in_force.take());
        }
    }
}

impl Remembered {
    /// What was in force, if `version` is known to stand for it.
    pub(super) fn in_force_at(&self, version: &str) -> Option<&Resources> {
        let (versions, resources) = self.in_force.as_ref()?;
        versions.iter().any(|known| known.to_string() == version).then_some(resources)
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.in_force.is_none()
    }
}
