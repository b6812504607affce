//! The difference between what a client holds and what it should.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a name is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Asked for by name and not answered yet, or all of a subscription that never got anything.
    Answer,
    /// Held in another version, or new under the wildcard.
    Change,
    /// Held and no longer there.
    Remove,
    /// Held back because the client has rejected this very content.
    Park,
}

/// All names that are due something.
#[derive(Clone, Debug, Default)]
pub(super) struct Due {
    steps: BTreeMap<Arc<str>, Step>,
    answers: usize,
    changes: usize,
    removals: usize,
    parked: usize,
}

/// Which part of what is due may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permit {
    pub(super) answers: bool,
    pub(super) changes: bool,
    pub(super) removals: bool,
}

impl Permit {
    fn allows(self, step: Step) -> bool {
        match step {
            Step::Answer => self.answers,
            Step::Change => self.changes,
            Step::Remove => self.removals,
            Step::Nothing | Step::Park => false,
        }
    }
}

impl Due {
    pub(super) fn set(&mut self, name: &Arc<str>, step: Step) {
        let old = match step {
            Step::Nothing => self.steps.remove(name),
            step => self.steps.insert(Arc::clone(name), step),
        };
        if let Some(count) = self.count(old.unwrap_or(Step::Nothing)) {
            *count -= 1;
        }
        if let Some(count) = self.count(step) {
            *count += 1;
        }
    }

    fn count(&mut self, step: Step) -> Option<&mut usize> {
        match step {
            Step::Nothing => None,
            Step::Answer => Some(&mut self.answers),
            Step::Change => Some(&mut self.changes),
            Step::Remove => Some(&mut self.removals),
            Step::Park => Some(&mut self.parked),
        }
    }

    pub(super) fn step(&self, name: &str) -> Step {
        self.steps.get(name).copied().unwrap_or(Step::Nothing)
    }

    /// In the order of the names.
    pub(super) fn permitted(&self, permit: Permit) -> impl Iterator<Item = &Arc<str>> {
        self.steps.iter().filter(move |(_, step)| permit.allows(**step)).map(|(name, _)| name)
    }

    /// Whether [`permitted`](Self::permitted) has any, without a look at each.
    pub(super) fn has_permitted(&self, permit: Permit) -> bool {
        permit.answers && self.answers > 0
            || permit.changes && self.changes > 0
            || permit.removals && self.removals > 0
    }

    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    pub(super) fn removals(&self) -> usize {
        self.removals
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    /// Whether there is nothing to be sent. What is parked does not count.
    pub(super) fn is_empty(&self) -> bool {
        self.answers + self.changes + self.removals == 0
    }
}
