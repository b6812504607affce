//! Collections: all resources of one directory, asked for in one name ([xRFC TP1][tp1]).
//!
//! Envoy asks so for clusters and listeners where its bootstrap has a `cds_resources_locator` or `lds_resources_locator`
//! that ends in `/*`, and subscribes to `xdstp://authority/type/directory/*?parameters`. The resources of the collection are
//! those with the same authority, type and parameters one step below the directory, which is how Envoy itself gives what
//! it receives to its collections (`WatchMap::watchesInterestedIn` in its `watch_map.cc`). Parameters are compared as they are written;
//! Envoy sorts them. Any other `xdstp` name is a name.
//!
//! [tp1]: https://github.com/cncf/xds/blob/main/proposals/TP1-xds-transport-next.md

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The collections that a client asks for.
#[derive(Clone, Debug, Default)]
pub(in crate::stream) struct Collections(BTreeSet<Arc<str>>);

impl Collections {
    /// Whether a name stands for a collection.
    pub(super) fn is_one(name: &str) -> bool {
        collection(name).is_some_and(|collection| collection == name)
    }

    /// Whether a resource is in this collection.
    pub(super) fn holds(collection: &str, name: &str) -> bool {
        self::collection(name).is_some_and(|of_name| of_name == collection)
    }

    /// Whether a resource is in any of them.
    pub(super) fn cover(&self, name: &str) -> bool {
        !self.0.is_empty() && collection(name).is_some_and(|of_name| self.0.contains(&*of_name))
    }

    pub(super) fn contains(&self, collection: &str) -> bool {
        self.0.contains(collection)
    }

    pub(super) fn insert(&mut self, collection: &str) {
        self.0.insert(collection.into());
    }

    pub(super) fn remove(&mut self, collection: &str) {
        self.0.remove(collection);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::stream) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

/// The collection that a resource of this name is in: its name with `*` for the last step of the path.
fn collection(name: &str) -> Option<Cow<'_, str>> {
    let rest = name.strip_prefix("xdstp://")?;
    let end = name.find(['?', '#']).unwrap_or(name.len());
    let (path, parameters) = name.split_at_checked(end)?;
    let (directory, last) = path.rsplit_once('/')?;
    // Between the authority and the last step there is a type at least.
    rest.split(['?', '#']).next()?.split_once('/')?.1.split_once('/')?;
    match last {
        "*" => Some(Cow::Borrowed(name)),
        _ => Some(Cow::Owned(format!("{directory}/*{parameters}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_in_the_collection_of_its_directory_and_parameters() {
        let mut collections = Collections::default();
        collections.insert("xdstp://a/t.Cluster/foo/*?k=v");
        assert!(collections.cover("xdstp://a/t.Cluster/foo/bar?k=v"));
        for other in [
            "xdstp://a/t.Cluster/foo/bar/baz?k=v",
            "xdstp://a/t.Cluster/foo/bar",
            "xdstp://b/t.Cluster/foo/bar?k=v",
            "xdstp://a/t.Cluster/bar?k=v",
            "foo/bar",
        ] {
            assert!(!collections.cover(other), "{other}");
        }
    }

    #[test]
    fn only_the_glob_of_an_xdstp_name_stands_for_a_collection() {
        assert!(Collections::is_one("xdstp://a/t.Cluster/*"));
        assert!(Collections::is_one("xdstp:///t.Cluster/foo/*?k=v"));
        for name in ["*", "foo/*", "xdstp://a/*", "xdstp://a/t.Cluster/foo*", "xdstp://a/t.Cluster/foo?k=/*"]
        {
            assert!(!Collections::is_one(name), "{name}");
        }
    }
}
