//! A sorted map that is cheap to copy, to change and to compare.

use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk that grows beyond this many entries is cut in two.
const MAX_CHUNK: usize = 64;

/// How full chunks are made by names that come in order; later ones find room.
const FILLED: usize = 56;

/// A sorted map in chunks that copies share. A change copies one chunk, and one pointer for each of the others; a
/// comparison of two copies skips what they share.
#[derive(Debug)]
pub(crate) struct Chunks<V>(Arc<Vec<Chunk<V>>>);

/// Never empty, sorted by name.
type Chunk<V> = Arc<Vec<(Arc<str>, V)>>;

impl<V> Clone for Chunks<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Default for Chunks<V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<V> Chunks<V> {
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let (place, at) = self.find(name)?;
        self.0.get(place)?.get(at).map(|(_, value)| value)
    }

    /// Looks names up that come in order, for less than a search each.
    pub(crate) fn finder(&self) -> Finder<'_, V> {
        Finder { map: self, next: Cursor::new(self) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.0.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The chunk of a name, and its place in it.
    fn find(&self, name: &str) -> Option<(usize, usize)> {
        if self.ends_before(name) {
            return None;
        }
        let place = self.place(name);
        let at = self.0.get(place)?.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some((place, at))
    }

    /// The chunk in which `name` is, or would be.
    fn place(&self, name: &str) -> usize {
        let begins_before = |chunk: &Chunk<V>| chunk.first().is_some_and(|(key, _)| &**key <= name);
        self.0.partition_point(begins_before).saturating_sub(1)
    }

    /// Whether all names are less than this one. Names often come in order, and then need no search.
    fn ends_before(&self, name: &str) -> bool {
        let last = self.0.last().and_then(|chunk| chunk.last());
        last.is_none_or(|(key, _)| **key < *name)
    }

    /// Tells of every name for which the two do not share the value, in the order of the names.
    pub(crate) fn for_each_difference<'a>(
        &'a self,
        newer: &'a Self,
        mut tell: impl FnMut(&'a Arc<str>, Option<&'a V>, Option<&'a V>),
    ) {
        let (mut old, mut new) = (Cursor::new(self), Cursor::new(newer));
        loop {
            old.skip_shared(&mut new);
            let (before, after) = (old.peek(), new.peek());
            let order = match (before, after) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((before, _)), Some((after, _))) => before.cmp(after),
            };
            let before = before.filter(|_| order.is_le());
            let after = after.filter(|_| order.is_ge());
            if let Some((name, _)) = before.or(after) {
                tell(name, before.map(|(_, value)| value), after.map(|(_, value)| value));
            }
            old.advance(before.is_some());
            new.advance(after.is_some());
        }
    }
}

impl<V: Clone> Chunks<V> {
    pub(crate) fn insert(&mut self, name: Arc<str>, value: V) -> Option<V> {
        if self.ends_before(&name) {
            self.append(name, value);
            return None;
        }
        let place = self.place(&name);
        let chunks = Arc::make_mut(&mut self.0);
        let chunk = Arc::make_mut(chunks.get_mut(place)?);
        let old = match chunk.binary_search_by(|(key, _)| key.cmp(&name)) {
            Ok(at) => chunk.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                chunk.insert(at, (name, value));
                None
            }
        };
        if chunk.len() > MAX_CHUNK {
            let rest = chunk.split_off(MAX_CHUNK / 2);
            chunks.insert(place + 1, Arc::new(rest));
        }
        old
    }

    /// Adds a name behind all others.
    fn append(&mut self, name: Arc<str>, value: V) {
        let chunks = Arc::make_mut(&mut self.0);
        match chunks.last_mut().filter(|last| last.len() < FILLED) {
            Some(last) => Arc::make_mut(last).push((name, value)),
            None => {
                let mut chunk = Vec::with_capacity(FILLED);
                chunk.push((name, value));
                chunks.push(Arc::new(chunk));
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        let (place, at) = self.find(name)?;
        let chunks = Arc::make_mut(&mut self.0);
        let chunk = Arc::make_mut(chunks.get_mut(place)?);
        let (_, old) = chunk.remove(at);
        if chunk.is_empty() {
            chunks.remove(place);
        }
        Some(old)
    }
}

/// Looks names up, best in their order: the one behind the last that was found needs no search.
#[derive(Debug)]
pub(crate) struct Finder<'a, V> {
    map: &'a Chunks<V>,
    next: Cursor<'a, V>,
}

impl<'a, V> Finder<'a, V> {
    pub(crate) fn get(&mut self, name: &str) -> Option<&'a V> {
        if self.next.peek().is_none_or(|(key, _)| **key != *name) {
            let (place, at) = self.map.find(name)?;
            self.next = Cursor::at(self.map, place, at);
        }
        let (_, found) = self.next.peek()?;
        self.next.advance(true);
        Some(found)
    }
}

/// A place in a map.
#[derive(Debug)]
struct Cursor<'a, V> {
    chunks: &'a [Chunk<V>],
    entries: &'a [(Arc<str>, V)],
}

impl<'a, V> Cursor<'a, V> {
    fn new(map: &'a Chunks<V>) -> Self {
        let mut cursor = Self { chunks: &map.0, entries: &[] };
        cursor.enter();
        cursor
    }

    fn at(map: &'a Chunks<V>, place: usize, at: usize) -> Self {
        let chunks = map.0.get(place..).unwrap_or_default();
        let mut cursor = Self { chunks, entries: &[] };
        cursor.enter();
        cursor.entries = cursor.entries.get(at..).unwrap_or_default();
        cursor
    }

    /// Goes on to the next chunk where one is over.
    fn enter(&mut self) {
        if let (true, Some((first, rest))) = (self.entries.is_empty(), self.chunks.split_first()) {
            (self.chunks, self.entries) = (rest, first);
        }
    }

    fn peek(&self) -> Option<(&'a Arc<str>, &'a V)> {
        self.entries.first().map(|(key, value)| (key, value))
    }

    fn advance(&mut self, taken: bool) {
        if let (true, Some((_, rest))) = (taken, self.entries.split_first()) {
            self.entries = rest;
            self.enter();
        }
    }

    /// Goes past what both cursors have in common: the same memory is the same content.
    fn skip_shared(&mut self, other: &mut Self) {
        while !self.entries.is_empty() && std::ptr::eq(self.entries, other.entries) {
            (self.entries, other.entries) = (&[], &[]);
            self.enter();
            other.enter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn differences(old: &Chunks<u32>, new: &Chunks<u32>) -> Vec<(String, Option<u32>, Option<u32>)> {
        let mut found = Vec::new();
        old.for_each_difference(new, |name, before, after| {
            if before != after {
                found.push((name.to_string(), before.copied(), after.copied()));
            }
        });
        found
    }

    #[test]
    fn a_change_is_found_without_looking_at_what_is_shared() {
        let mut map = Chunks::default();
        for number in 0..10_000 {
            map.insert(format!("{number:05}").into(), number);
        }
        let mut changed = map.clone();
        changed.insert("05000".into(), 1);
        let mut looked = 0;
        map.for_each_difference(&changed, |_, _, _| looked += 1);
        assert!(looked <= MAX_CHUNK, "{looked} entries were compared");
        assert_eq!(differences(&map, &changed), [("05000".to_owned(), Some(5000), Some(1))]);
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_finds_every_difference(
            first in proptest::collection::vec((0u32..400, any::<bool>()), 0..600),
            second in proptest::collection::vec((0u32..400, any::<bool>()), 0..60),
        ) {
            let (mut map, mut model) = (Chunks::default(), BTreeMap::new());
            let mut change = |map: &mut Chunks<u32>, changes: &[(u32, bool)]| {
                for (at, (key, keep)) in (0..).zip(changes) {
                    let name: Arc<str> = format!("{key:03}").into();
                    let expected = if *keep { model.insert(name.to_string(), at) } else { model.remove(&*name) };
                    let found = if *keep { map.insert(name, at) } else { map.remove(&name) };
                    assert_eq!(found, expected);
                }
                model.clone()
            };
            let old_model = change(&mut map, &first);
            let old = map.clone();
            let model = change(&mut map, &second);
            prop_assert!(map.iter().map(|(name, value)| (name.to_string(), *value)).eq(model.clone()));
            prop_assert_eq!(map.is_empty(), model.is_empty());
            for name in (0..400).map(|key| format!("{key:03}")) {
                prop_assert_eq!(map.get(&name), model.get(&name));
            }
            let mut finder = map.finder();
            for name in second.iter().map(|(key, _)| *key).chain(0..400).map(|key| format!("{key:03}")) {
                prop_assert_eq!(finder.get(&name), model.get(&name));
            }
            let names: std::collections::BTreeSet<_> = old_model.keys().chain(model.keys()).collect();
            let expected: Vec<_> = names
                .into_iter()
                .map(|name| (name.clone(), old_model.get(name).copied(), model.get(name).copied()))
                .filter(|(_, before, after)| before != after)
                .collect();
            prop_assert_eq!(differences(&old, &map), expected);
        }
    }
}
