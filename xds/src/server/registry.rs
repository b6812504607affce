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
    left: VecDeque<Left>,
}

#[derive(Debug)]
struct Left {
    node: String,
    known: Recollection,
    bytes: usize,
}

/// How much is remembered of all together: nodes are whoever a client says it is.
const MAX_REMEMBERED_BYTES: usize = 64 << 20;

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
            let bytes = known.bytes();
            streams.left.push_back(Left { node: node.id.clone(), known, bytes });
            streams.forget_the_oldest(max);
        }
    }

    /// What is known of a node that opens `stream`: from streams that have ended, which is handed over, and from those
    /// that have not noticed yet that they are dead.
    pub(super) fn recall(&self, stream: StreamId, node: &str) -> Recollection {
        let mut streams = self.streams();
        let mut known = Recollection::default();
        let left = std::mem::take(&mut streams.left);
        let (own, others): (VecDeque<_>, _) = left.into_iter().partition(|left| left.node == node);
        streams.left = others;
        own.into_iter().for_each(|left| known.merge(left.known));
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

impl Streams {
    fn forget_the_oldest(&mut self, max: usize) {
        let mut bytes: usize = self.left.iter().map(|left| left.bytes).sum();
        while self.left.len() > max || bytes > MAX_REMEMBERED_BYTES {
            let Some(oldest) = self.left.pop_front() else { return };
            bytes -= oldest.bytes;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_a_limit_in_number_and_in_size() {
        let mut streams = Streams::default();
        let mut leave = |node: &str, bytes| {
            let known = Recollection::default();
            streams.left.push_back(Left { node: node.into(), known, bytes });
            streams.forget_the_oldest(2);
            streams.left.iter().map(|left| left.node.clone()).collect::<Vec<_>>()
        };
        assert_eq!(leave("a", 1), ["a"]);
        assert_eq!(leave("b", 1), ["a", "b"]);
        assert_eq!(leave("c", 1), ["b", "c"]);
        assert_eq!(leave("d", MAX_REMEMBERED_BYTES - 1), ["c", "d"]);
        assert_eq!(leave("e", 1), ["d", "e"]);
        assert_eq!(leave("f", MAX_REMEMBERED_BYTES + 1), Vec::<String>::new());
    }
}
