//! Which streams there are, and what is remembered of those that were.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Line;
use super::service::Shared;
use crate::StreamId;
use crate::stream::{Recollection, StreamStatus};

/// All streams of a server. A node may have several at once: an Envoy that restarts hot, a connection that is half
/// dead, services of single types.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    live: BTreeMap<StreamId, Arc<Line>>,
    /// What was known at the end of streams, the oldest first.
    left: VecDeque<(String, Recollection)>,
}

impl Registry {
    /// Adds a stream; `None` if there are too many.
    pub(super) fn enter(&self, line: &Arc<Line>, max: usize) -> Option<()> {
        let mut streams = self.streams();
        (streams.live.len() < max).then(|| drop(streams.live.insert(line.id(), Arc::clone(line))))
    }

    /// Takes a stream out, and keeps what the next one of its node should know.
    pub(super) fn leave(&self, line: &Line, max: usize) {
        let (node, known) = line.with_stream(|stream| (stream.node().cloned(), stream.recollect()));
        let mut streams = self.streams();
        streams.live.remove(&line.id());
        if let Some(node) = node.filter(|_| !known.is_empty()) {
            streams.left.push_back((node.id.clone(), known));
            let excess = streams.left.len().saturating_sub(max);
            streams.left.drain(..excess);
        }
    }

    /// What is known of a node that opens `stream`: from streams that have ended, which is handed over, and from those
    /// that have not noticed yet that they are dead.
    pub(super) fn recall(&self, stream: StreamId, node: &str) -> Recollection {
        let mut streams = self.streams();
        let mut known = Recollection::default();
        let left = std::mem::take(&mut streams.left);
        let (own, others) = left.into_iter().partition(|(of, _)| of == node);
        let own: VecDeque<_> = own;
        streams.left = others;
        own.into_iter().for_each(|(_, earlier)| known.merge(earlier));
        for line in streams.live.values().filter(|line| line.id() < stream) {
            let of_node = |known: &mut Recollection, other: &crate::stream::Stream| {
                if other.node().is_some_and(|other| other.id == node) {
                    known.merge(other.recollect());
                }
            };
            line.with_stream(|other| of_node(&mut known, other));
        }
        known
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        self.streams().live.values().cloned().collect()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how far every client has got.
#[derive(Clone, Debug)]
pub struct Status(Arc<Shared>);

impl Status {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Every stream, the oldest first. Each is held for as long as it takes to describe it, one after the other.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.0.registry.lines().iter().map(|line| line.with_stream(|stream| stream.status())).collect()
    }

    /// One stream; `None` once it has ended.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<StreamStatus> {
        let lines = self.0.registry.lines();
        let line = lines.iter().find(|line| line.id() == id)?;
        Some(line.with_stream(|stream| stream.status()))
    }
}
