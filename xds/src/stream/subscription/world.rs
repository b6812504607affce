//! The state of the world, as a client shall see it now.

use std::sync::Arc;

use super::Subscription;
use crate::Resource;
use crate::stream::due::Step;

impl Subscription {
    /// Whether a response of the state-of-the-world variant has to name everything, because what it does not name is
    /// deleted.
    pub(in crate::stream) fn is_whole(&self) -> bool {
        self.wildcard || !self.type_url.is_named()
    }

    /// Everything the client shall have once `batch` has been dealt with: of what is held back, that which it has.
    pub(in crate::stream) fn world(&self, batch: &[Arc<str>]) -> Vec<Resource> {
        let chosen = |name: &Arc<str>| batch.binary_search(name).is_ok();
        let shown = |name: Arc<str>| match self.due.step(&name) {
            Step::Nothing => self.wanted(&name).cloned(),
            _ if chosen(&name) => self.wanted(&name).cloned(),
            _ => self.state(&name)?.good().cloned(),
        };
        self.all_names().into_iter().filter_map(shown).collect()
    }
}
