//! The resources of one type.

use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::chunks::{Chunks, Finder};
use crate::{Resource, Version};

/// The resources of one type, by name and by alias.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources {
    all: Chunks<Resource>,
    /// Those with a time to live.
    timed: Chunks<Resource>,
    /// Why a name has no resource.
    failures: Chunks<Failure>,
    /// The sum of [`Version::named`].
    fingerprint: u64,
}

impl Resources {
    /// The resource called so, or with such an alias.
    pub(crate) fn get(&self, name: &str) -> Option<&Resource> {
        self.all.get(name)
    }

    /// The same for many names, best in their order.
    pub(super) fn finder(&self) -> Finder<'_, Resource> {
        self.all.finder()
    }

    /// Why there is no resource of this name.
    pub(crate) fn failure(&self, name: &str) -> Option<&Failure> {
        self.failures.get(name)
    }

    /// In the order of the names; an alias is no entry of its own.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.all.iter().filter(|(key, resource)| ***key == *resource.name()).map(|(_, resource)| resource)
    }

    /// Those with a time to live.
    pub(crate) fn timed(&self) -> impl Iterator<Item = (&Resource, Duration)> {
        self.timed.iter().filter_map(|(_, resource)| Some((resource, resource.ttl()?)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.failures.is_empty()
    }

    /// The version of all of them together.
    pub(crate) fn version(&self) -> Version {
        Version::from_bits(self.fingerprint)
    }

    /// Tells of every name or alias under which there may be something else than in `newer`. It costs what has
    /// changed between the two.
    pub(crate) fn for_each_difference<'a>(&'a self, newer: &'a Self, mut tell: impl FnMut(&'a Arc<str>)) {
        self.all.for_each_difference(&newer.all, |name, before, after| {
            if before != after {
                tell(name);
            }
        });
        self.failures.for_each_difference(&newer.failures, |name, before, after| {
            if before != after {
                tell(name);
            }
        });
    }

    pub(super) fn insert(&mut self, resource: &Resource) -> Option<Resource> {
        let old = self.remove(resource.name());
        for name in [resource.shared_name()].into_iter().chain(resource.aliases()) {
            self.all.insert(Arc::clone(name), resource.clone());
        }
        if resource.ttl().is_some() {
            self.timed.insert(Arc::clone(resource.shared_name()), resource.clone());
        }
        self.fingerprint = self.fingerprint.wrapping_add(resource.version().named(resource.name()));
        old
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Resource> {
        self.failures.remove(name);
        let old = self.all.get(name).filter(|old| old.name() == name).cloned()?;
        for key in [old.shared_name()].into_iter().chain(old.aliases()) {
            self.all.remove(key);
        }
        self.timed.remove(name);
        self.fingerprint = self.fingerprint.wrapping_sub(old.version().named(name));
        Some(old)
    }

    pub(super) fn fail(&mut self, name: Arc<str>, failure: Failure) -> Option<Resource> {
        let old = self.remove(&name);
        self.failures.insert(name, failure);
        old
    }
}
