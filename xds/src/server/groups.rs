//! Snapshots on their way to the streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::Snapshot;

/// Gives snapshots to all streams of a server, those to come included.
///
/// Each group of clients has its own newest snapshot; see [`Grouping`](super::Grouping). A client whose group has none is
/// not answered.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Mutex<BTreeMap<Arc<str>, Sender>>>);

type Sender = watch::Sender<Option<Arc<Snapshot>>>;

impl Publisher {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Makes `snapshot` the one that every client of the group without a name shall have. Never waits.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.publish_to("", snapshot);
    }

    /// Makes `snapshot` the one that every client of `group` shall have. Never waits.
    pub fn publish_to(&self, group: &str, snapshot: Arc<Snapshot>) {
        self.channel(group, |sender| drop(sender.send_replace(Some(snapshot))));
    }

    /// The snapshot that was published last to the group without a name.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current_of("")
    }

    /// The snapshot that was published last to `group`.
    #[must_use]
    pub fn current_of(&self, group: &str) -> Option<Arc<Snapshot>> {
        self.groups().get(group)?.borrow().clone()
    }

    /// Forgets a group without clients. Returns whether it had none.
    pub fn retire(&self, group: &str) -> bool {
        let mut groups = self.groups();
        let unused = groups.get(group).is_none_or(|sender| sender.receiver_count() == 0);
        if unused {
            groups.remove(group);
        }
        unused
    }

    pub(super) fn subscribe(&self, group: &str) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.channel(group, |sender| sender.subscribe())
    }

    /// Whether any client can be answered.
    #[cfg(feature = "health")]
    pub(super) fn is_ready(&self) -> bool {
        self.groups().values().any(|sender| sender.borrow().is_some())
    }

    fn channel<T>(&self, group: &str, act: impl FnOnce(&Sender) -> T) -> T {
        let mut groups = self.groups();
        match groups.get(group) {
            Some(sender) => act(sender),
            None => act(groups.entry(group.into()).or_insert_with(|| watch::channel(None).0)),
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Sender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
