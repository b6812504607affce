//! An ordered map in the pages of a file: a B+ tree with entries of one size.
//!
//! Pages are read when they are needed, and changes stay in memory until all are written. Each page is [`PAGE`] bytes, of
//! which the first is not the tree's; numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | CRC-32 (IEEE) of the bytes from 4 to the last entry's end, and of the page's own number (4 bytes) after them |
//! | 4 | kind: 1 leaf, 2 branch, 3 free |
//! | 5 | 0 |
//! | 6..8 | number of entries, [`CAPACITY`] at most |
//! | 8.. | the entries, in ascending order of their keys save for the first one of a branch, 33 bytes each: key (table, 1 byte; number, 16 bytes), value (16 bytes) |
//!
//! The value of a branch's entry is the page of a child; its key is not above any key of that child and above all of the
//! children before it, save that the first child has whatever is below the second one's key, and its own says nothing. A free page has one entry, whose value
//! is the next free page, or 0. Only the root may be empty.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::store::local::{crc32, disk};

/// The size of a page.
pub const PAGE: usize = 4096;

/// How many entries a page has room for.
pub const CAPACITY: usize = (PAGE - HEAD) / ENTRY;

const HEAD: usize = 8;
const ENTRY: usize = 33;

/// Far more levels than 2³² pages can have.
const DEEPEST: u8 = 32;

/// A table and a number in it.
pub(super) type Key = (u8, u128);

type Entry = (Key, u128);

/// Why a page cannot be used. It begins at byte 4096 × its number.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The system says so.
    #[error("page {page} cannot be read")]
    Read {
        /// Its number.
        page: u32,
        /// Why.
        source: io::Error,
    },
    /// Its checksum says so.
    #[error("page {page} is not what was written")]
    Damaged {
        /// Its number.
        page: u32,
    },
}

/// The map. What is in `file` and in `pages` together is its state.
#[derive(Debug)]
pub(super) struct Tree {
    file: Option<File>,
    pages: RefCell<Vec<Option<Arc<Node>>>>,
    /// By page, whether it was changed.
    dirty: Vec<bool>,
    shape: Shape,
}

/// Where a tree begins and ends in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) root: u32,
    pub(super) free: u32,
    /// How many pages there are, that which is not the tree's included.
    pub(super) pages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leaf = 1,
    Branch = 2,
    Free = 3,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    entries: Vec<Entry>,
}

impl Tree {
    /// An empty tree that is in no file yet.
    pub(super) fn new() -> Self {
        let root = Node { kind: Kind::Leaf, entries: Vec::new() };
        Self {
            file: None,
            pages: RefCell::new(vec![None, Some(Arc::new(root))]),
            dirty: vec![false, true],
            shape: Shape { root: 1, free: 0, pages: 2 },
        }
    }

    /// The tree that was written to `file`.
    pub(super) fn open(file: File, shape: Shape) -> Self {
        Self { file: Some(file), pages: RefCell::default(), dirty: Vec::new(), shape }
    }

    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Writes the pages that were changed. Until that is done the file is neither the old tree nor the new one.
    pub(super) fn write(&mut self, file: File) -> io::Result<()> {
        for ((number, page), is_dirty) in (0..).zip(self.pages.get_mut()).zip(&self.dirty) {
            if let Some(node) = page.as_ref().filter(|_| *is_dirty) {
                disk::write_at(&file, &node.encode(number), offset_of(number))?;
            }
        }
        self.dirty.clear();
        self.file = Some(file);
        Ok(())
    }

    pub(super) fn is_written(&self) -> bool {
        self.dirty.is_empty()
    }

    pub(super) fn get(&self, key: Key) -> Result<Option<u128>, Flaw> {
        let found = self.last_at_or_before(key)?;
        Ok(found.filter(|(its, _)| *its == key).map(|(_, value)| value))
    }

    /// The entry with the greatest key that is not above `key`.
    pub(super) fn last_at_or_before(&self, key: Key) -> Result<Option<Entry>, Flaw> {
        self.last_below(self.shape.root, key, 0)
    }

    fn last_below(&self, page: u32, key: Key, depth: u8) -> Result<Option<Entry>, Flaw> {
        let node = self.load(page, depth)?;
        if node.kind == Kind::Leaf {
            return Ok(node.entries.iter().take(node.count_to(key)).next_back().copied());
        }
        // The first that is looked into has nothing where its lowest entries were removed; the one before it has.
        let children = node.entries.iter().take(node.child_of(key) + 1);
        for (_, child) in children.rev() {
            if let Some(found) = self.last_below(*child as u32, key, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Shows the entries with keys from `first` to `last`, both included, in their order, until `visit` has seen enough.
    pub(super) fn scan(
        &self,
        first: Key,
        last: Key,
        visit: &mut dyn FnMut(Key, u128) -> ControlFlow<()>,
    ) -> Result<(), Flaw> {
        self.scan_below(self.shape.root, first, last, visit, 0).map(|_| ())
    }

    fn scan_below(
        &self,
        page: u32,
        first: Key,
        last: Key,
        visit: &mut dyn FnMut(Key, u128) -> ControlFlow<()>,
        depth: u8,
    ) -> Result<ControlFlow<()>, Flaw> {
        let node = self.load(page, depth)?;
        let is_leaf = node.kind == Kind::Leaf;
        let skipped = if is_leaf { node.count_below(first) } else { node.child_of(first) };
        for (index, (key, value)) in node.entries.iter().enumerate().skip(skipped) {
            let is_over = *key > last && (is_leaf || index > skipped);
            let flow = if is_over {
                ControlFlow::Break(())
            } else if is_leaf {
                visit(*key, *value)
            } else {
                self.scan_below(*value as u32, first, last, visit, depth + 1)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Sets the value of `key` and returns the one it had.
    pub(super) fn insert(&mut self, key: Key, value: u128) -> Result<Option<u128>, Flaw> {
        let root = self.shape.root;
        let (former, sibling) = self.insert_below(root, key, value, 0)?;
        if let Some(sibling) = sibling {
            let entries = vec![((0, 0), root.into()), sibling];
            self.shape.root = self.add(Node { kind: Kind::Branch, entries })?;
        }
        Ok(former)
    }

    /// Also returns what the parent needs to know of a page that was split off.
    fn insert_below(
        &mut self,
        page: u32,
        key: Key,
        value: u128,
        depth: u8,
    ) -> Result<(Option<u128>, Option<Entry>), Flaw> {
        let node = self.load(page, depth)?;
        let (former, at) = if node.kind == Kind::Leaf {
            drop(node);
            let entries = self.edit(page)?;
            match entries.binary_search_by_key(&key, |entry| entry.0) {
                Ok(at) => {
                    let entry = entries.get_mut(at).map(|entry| &mut entry.1);
                    return Ok((entry.map(|held| std::mem::replace(held, value)), None));
                }
                Err(at) => {
                    entries.insert(at, (key, value));
                    (None, at)
                }
            }
        } else {
            let index = node.child_of(key);
            let child = node.child(index).ok_or(Flaw::Damaged { page })?;
            drop(node);
            let (former, sibling) = self.insert_below(child, key, value, depth + 1)?;
            let Some(sibling) = sibling else { return Ok((former, None)) };
            self.edit(page)?.insert(index + 1, sibling);
            (former, index + 1)
        };
        Ok((former, self.split_if_full(page, at)?))
    }

    /// Where the last entry is the new one, keys are coming in their order, and the page stays full.
    fn split_if_full(&mut self, page: u32, at: usize) -> Result<Option<Entry>, Flaw> {
        let entries = self.edit(page)?;
        let count = entries.len();
        if count <= CAPACITY {
            return Ok(None);
        }
        let right = entries.split_off(if at + 1 == count { at } else { count / 2 });
        let first = right.first().map(|entry| entry.0).ok_or(Flaw::Damaged { page })?;
        let kind = self.load(page, 0)?.kind;
        let new = self.add(Node { kind, entries: right })?;
        Ok(Some((first, new.into())))
    }

    /// Takes out `key` and returns its value.
    pub(super) fn remove(&mut self, key: Key) -> Result<Option<u128>, Flaw> {
        let former = self.remove_below(self.shape.root, key, 0)?;
        loop {
            let root = self.load(self.shape.root, 0)?;
            match (root.kind, root.entries.as_slice()) {
                (Kind::Branch, [(_, child)]) => {
                    let old = std::mem::replace(&mut self.shape.root, *child as u32);
                    self.free(old)?;
                }
                _ => return Ok(former),
            }
        }
    }

    /// A page that becomes empty goes; those that are nearly so stay as they are, and what is inserted near them fills
    /// them again.
    fn remove_below(&mut self, page: u32, key: Key, depth: u8) -> Result<Option<u128>, Flaw> {
        let node = self.load(page, depth)?;
        if node.kind == Kind::Leaf {
            let Ok(at) = node.entries.binary_search_by_key(&key, |entry| entry.0) else { return Ok(None) };
            drop(node);
            return Ok(Some(self.edit(page)?.remove(at).1));
        }
        let index = node.child_of(key);
        let child = node.child(index).ok_or(Flaw::Damaged { page })?;
        // A branch has several children, or it could not lose one: the root goes before it has only one, and another
        // goes with its last.
        drop(node);
        let former = self.remove_below(child, key, depth + 1)?;
        if self.load(child, 0)?.entries.is_empty() {
            self.free(child)?;
            self.edit(page)?.remove(index);
        }
        Ok(former)
    }

    fn add(&mut self, node: Node) -> Result<u32, Flaw> {
        let number = self.shape.free;
        if number == 0 {
            let number = self.shape.pages;
            self.shape.pages += 1;
            self.keep(number, Arc::new(node));
            self.mark(number);
            return Ok(number);
        }
        let free = self.fetch(number)?;
        match (free.kind, free.entries.as_slice()) {
            (Kind::Free, [(_, next)]) => self.shape.free = *next as u32,
            _ => return Err(Flaw::Damaged { page: number }),
        }
        self.keep(number, Arc::new(node));
        self.mark(number);
        Ok(number)
    }

    fn free(&mut self, number: u32) -> Result<(), Flaw> {
        let next = self.shape.free;
        self.keep(number, Arc::new(Node { kind: Kind::Free, entries: vec![((0, 0), next.into())] }));
        self.mark(number);
        self.shape.free = number;
        Ok(())
    }

    /// A page of the tree itself.
    fn load(&self, number: u32, depth: u8) -> Result<Arc<Node>, Flaw> {
        let node = self.fetch(number)?;
        if node.kind == Kind::Free || depth > DEEPEST {
            Err(Flaw::Damaged { page: number })
        } else {
            Ok(node)
        }
    }

    fn fetch(&self, number: u32) -> Result<Arc<Node>, Flaw> {
        if let Some(Some(node)) = self.pages.borrow().get(number as usize) {
            return Ok(node.clone());
        }
        let Some(file) = self.file.as_ref().filter(|_| (1..self.shape.pages).contains(&number)) else {
            return Err(Flaw::Damaged { page: number });
        };
        let mut bytes = [0; PAGE];
        let length = file
            .read_at(&mut bytes, offset_of(number))
            .map_err(|source| Flaw::Read { page: number, source })?;
        let node = bytes.get(..length).and_then(|bytes| Node::decode(bytes, number));
        let node = Arc::new(node.ok_or(Flaw::Damaged { page: number })?);
        self.keep(number, node.clone());
        Ok(node)
    }

    fn keep(&self, number: u32, node: Arc<Node>) {
        let mut pages = self.pages.borrow_mut();
        let index = number as usize;
        if pages.len() <= index {
            pages.resize(index + 1, None);
        }
        if let Some(page) = pages.get_mut(index) {
            *page = Some(node);
        }
    }

    fn mark(&mut self, number: u32) {
        let index = number as usize;
        if self.dirty.len() <= index {
            self.dirty.resize(index + 1, false);
        }
        if let Some(is_dirty) = self.dirty.get_mut(index) {
            *is_dirty = true;
        }
    }

    fn edit(&mut self, number: u32) -> Result<&mut Vec<Entry>, Flaw> {
        drop(self.fetch(number)?);
        self.mark(number);
        match self.pages.get_mut().get_mut(number as usize) {
            Some(Some(node)) => Ok(&mut Arc::make_mut(node).entries),
            _ => Err(Flaw::Damaged { page: number }),
        }
    }
}

impl Node {
    fn count_to(&self, key: Key) -> usize {
        self.entries.partition_point(|entry| entry.0 <= key)
    }

    fn count_below(&self, key: Key) -> usize {
        self.entries.partition_point(|entry| entry.0 < key)
    }

    /// Of a branch: the index of the child that `key` belongs to. The first child's own key is not looked at: it may be
    /// above that of the second, when the first one took what is below its key and was split.
    fn child_of(&self, key: Key) -> usize {
        self.entries.get(1..).unwrap_or_default().partition_point(|entry| entry.0 <= key)
    }

    fn child(&self, index: usize) -> Option<u32> {
        self.entries.get(index).map(|(_, page)| *page as u32)
    }

    fn encode(&self, number: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.extend([0, 0, 0, 0, self.kind as u8, 0]);
        bytes.extend((self.entries.len() as u16).to_le_bytes());
        for ((table, key), value) in &self.entries {
            bytes.push(*table);
            bytes.extend(key.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        let checksum = checksum(bytes.get(4..).unwrap_or_default(), number);
        bytes.splice(..4, checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], number: u32) -> Option<Self> {
        let (written, rest) = bytes.split_first_chunk::<4>()?;
        let (&[kind, _, low, high], _) = rest.split_first_chunk::<4>()?;
        let count = usize::from(u16::from_le_bytes([low, high]));
        let covered = rest.get(..HEAD - 4 + count * ENTRY)?;
        let kind = [Kind::Leaf, Kind::Branch, Kind::Free].into_iter().find(|known| *known as u8 == kind)?;
        if checksum(covered, number) != u32::from_le_bytes(*written) {
            return None;
        }
        let entries = covered.get(4..)?.chunks_exact(ENTRY).map(decode_entry).collect::<Option<_>>()?;
        Some(Self { kind, entries })
    }
}

fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let (table, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (value, _) = rest.split_first_chunk()?;
    Some(((*table, u128::from_le_bytes(*key)), u128::from_le_bytes(*value)))
}

fn checksum(bytes: &[u8], number: u32) -> u32 {
    crc32::hash_all([bytes, &number.to_le_bytes()])
}

fn offset_of(number: u32) -> u64 {
    u64::from(number) * PAGE as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn reopened(tree: &mut Tree, file: &File) -> Tree {
        tree.write(file.try_clone().unwrap()).unwrap();
        Tree::open(file.try_clone().unwrap(), tree.shape())
    }

    fn everything(tree: &Tree) -> Vec<Entry> {
        let mut entries = Vec::new();
        tree.scan((0, 0), (u8::MAX, u128::MAX), &mut |key, value| {
            entries.push((key, value));
            ControlFlow::Continue(())
        })
        .unwrap();
        entries
    }

    /// Every page is either in the tree, once, or free, once; and those in the tree are as the module says.
    fn audit(tree: &Tree) {
        let mut seen = vec![false; tree.shape().pages as usize];
        let mut meet =
            |page: u32| assert!(!std::mem::replace(&mut seen[page as usize], true), "page {page} twice");
        meet(0);
        let lowest = (0, 0);
        let mut todo = vec![(tree.shape().root, lowest, None, 0)];
        while let Some((page, from, to, depth)) = todo.pop() {
            meet(page);
            let node = tree.load(page, depth).unwrap();
            let keys: Vec<Key> = node.entries.iter().map(|entry| entry.0).collect();
            assert!(
                keys.len() <= CAPACITY && (depth == 0 || !keys.is_empty()),
                "page {page}: {}",
                keys.len()
            );
            let telling = if node.kind == Kind::Leaf { &keys[..] } else { &keys[1..] };
            assert!(telling.windows(2).all(|two| two[0] < two[1]), "page {page} is in order");
            let is_within = |key: &Key| *key >= from && to.is_none_or(|to| *key < to);
            assert!(telling.iter().all(is_within), "page {page} has what is its own");
            if node.kind == Kind::Leaf {
                continue;
            }
            for (index, child) in node.entries.iter().enumerate() {
                let from = if index == 0 { from } else { keys[index] };
                todo.push((child.1 as u32, from, keys.get(index + 1).copied().or(to), depth + 1));
            }
        }
        let mut free = tree.shape().free;
        while free != 0 {
            meet(free);
            free = tree.fetch(free).unwrap().entries[0].1 as u32;
        }
        assert!(seen.iter().all(|seen| *seen), "a page is lost");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn behaves_as_an_ordered_map(
            steps in prop::collection::vec((0u8..8, 0u8..3, 0u128..2000, 1u128..400), 1..60),
            probes in prop::collection::vec((0u8..3, 0u128..2000), 20),
        ) {
            let file = tempfile::tempfile().unwrap();
            let (mut tree, mut plain) = (Tree::new(), BTreeMap::new());
            for (what, table, first, count) in steps {
                for number in first..first + count {
                    let number = number.wrapping_mul(if what % 2 == 0 { 1 } else { 7919 }) % 2000;
                    // Both ends of what a key can be.
                    let key = if table == 2 { (u8::MAX, u128::MAX - number) } else { (table, number) };
                    if what < 4 {
                        prop_assert_eq!(tree.insert(key, number).unwrap(), plain.insert(key, number));
                    } else {
                        prop_assert_eq!(tree.remove(key).unwrap(), plain.remove(&key));
                    }
                }
                audit(&tree);
                if what % 3 == 0 {
                    tree = reopened(&mut tree, &file);
                }
                for key in &probes {
                    prop_assert_eq!(tree.get(*key).unwrap(), plain.get(key).copied());
                    let before = plain.range(..=*key).next_back().map(|(key, value)| (*key, *value));
                    prop_assert_eq!(tree.last_at_or_before(*key).unwrap(), before);
                }
            }
            prop_assert_eq!(everything(&tree), plain.clone().into_iter().collect::<Vec<_>>());
            for key in plain.keys() {
                tree.remove(*key).unwrap();
            }
            audit(&tree);
            let pages = tree.shape().pages;
            for number in 0..u128::from(pages) * 20 {
                tree.insert((1, number), 0).unwrap();
            }
            prop_assert!(tree.shape().pages <= pages.max(4), "pages that were emptied are used again");
        }
    }

    #[test]
    fn a_page_that_is_not_what_was_written_is_told_from_one_that_is() {
        let file = tempfile::tempfile().unwrap();
        let mut tree = Tree::new();
        for number in 0..1000 {
            tree.insert((1, number), number).unwrap();
        }
        let shape = reopened(&mut tree, &file).shape();
        let open = || Tree::open(file.try_clone().unwrap(), shape);
        for page in 1..shape.pages {
            let mut bytes = [0; PAGE];
            let length = file.read_at(&mut bytes, offset_of(page)).unwrap();
            let used = HEAD + usize::from(u16::from_le_bytes([bytes[6], bytes[7]])) * ENTRY;
            assert!(length >= used);
            for offset in (0..used).step_by(7) {
                let mut damaged = bytes;
                damaged[offset] ^= 0x10;
                file.write_all_at(&damaged[..length], offset_of(page)).unwrap();
                assert!(open().fetch(page).is_err(), "byte {offset} of page {page}");
            }
            // Another page of the same tree in its place.
            file.read_at(&mut bytes, offset_of(page % (shape.pages - 1) + 1)).unwrap();
            let before = everything(&tree);
            file.write_all_at(&bytes[..length], offset_of(page)).unwrap();
            assert!(open().fetch(page).is_err());
            assert_eq!(everything(&tree), before, "what is in memory is not read again");
            tree.dirty = vec![true; shape.pages as usize];
            tree.write(file.try_clone().unwrap()).unwrap();
        }
        assert_eq!(everything(&open()).len(), 1000);
    }

    #[test]
    fn a_tree_that_leads_in_a_circle_is_damaged() {
        let mut tree = Tree::new();
        tree.keep(1, Arc::new(Node { kind: Kind::Branch, entries: vec![((0, 0), 1), ((1, 0), 1)] }));
        assert!(tree.get((1, 1)).is_err());
        assert!(tree.insert((1, 1), 1).is_err());
        assert!(tree.remove((1, 1)).is_err());
        assert!(tree.scan((0, 0), (9, 9), &mut |_, _| ControlFlow::Continue(())).is_err());
        assert!(tree.last_at_or_before((1, 1)).is_err());
    }
}
