//! Memory for a process that lives for milliseconds.
#![expect(unsafe_code, reason = "it is what memory is made of")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What every block is a multiple of, and aligned to.
const GRAIN: usize = 16;
/// Blocks above this are the C library's.
const LARGEST: usize = 32 << 10;
/// Of powers of two from [`GRAIN`] to [`LARGEST`].
const CLASSES: usize = (LARGEST / GRAIN).ilog2() as usize + 1;
/// How much is asked of the C library at a time, which asks the kernel for just that. An ADD needs one.
const PIECE: Layout = match Layout::from_size_align(256 << 10, GRAIN) {
    Ok(piece) => piece,
    Err(_) => panic!("a power of two is an alignment"),
};

/// An allocator whose blocks are powers of two, cut from large pieces and used again by size.
///
/// An ADD has some six hundred blocks, nearly all of them small and soon given back. The C library sorts and joins what comes back,
/// which is a fifth of the instructions of an ADD. This one puts a block where the next of its size finds it. Nothing goes back to the
/// kernel before the process ends. Whatever lives longer should have another.
#[derive(Debug)]
pub struct Heap {
    is_locked: AtomicBool,
    blocks: UnsafeCell<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    /// By class, the block that was given back last.
    free: [*mut Free; CLASSES],
    /// What is left of the piece.
    next: *mut u8,
    left: usize,
}

/// A block that nobody has.
#[derive(Debug)]
struct Free {
    next: *mut Free,
}

// SAFETY: whoever touches the blocks holds the lock.
unsafe impl Sync for Heap {}

impl Heap {
    /// One that has nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        let blocks = Blocks { free: [ptr::null_mut(); CLASSES], next: ptr::null_mut(), left: 0 };
        Self { is_locked: AtomicBool::new(false), blocks: UnsafeCell::new(blocks) }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Blocks) -> T) -> T {
        while self.is_locked.swap(true, Ordering::Acquire) {
            thread::yield_now();
        }
        // SAFETY: the lock is held, and nobody has got a reference out of here.
        let result = work(unsafe { &mut *self.blocks.get() });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Blocks {
    fn take(&mut self, class: usize) -> *mut u8 {
        let Some(free) = self.free.get_mut(class) else { return ptr::null_mut() };
        if !free.is_null() {
            let block = *free;
            // SAFETY: a block in the list is nobody's, and was given its successor when it came in.
            *free = unsafe { (*block).next };
            return block.cast();
        }
        self.cut(GRAIN << class)
    }

    /// What was left of a piece that is too short is forgotten.
    fn cut(&mut self, size: usize) -> *mut u8 {
        if self.left < size && !self.grow() {
            return ptr::null_mut();
        }
        let block = self.next;
        // SAFETY: that much is left of the piece.
        self.next = unsafe { block.add(size) };
        self.left -= size;
        block
    }

    fn grow(&mut self) -> bool {
        // SAFETY: it is of a size.
        let piece = unsafe { System.alloc(PIECE) };
        if piece.is_null() {
            return false;
        }
        (self.next, self.left) = (piece, PIECE.size());
        true
    }

    fn give(&mut self, block: *mut u8, class: usize) {
        let Some(free) = self.free.get_mut(class) else { return };
        let block: *mut Free = block.cast();
        // SAFETY: its owner has given it up; it is large enough and aligned, for all are multiples of the grain.
        unsafe { block.write(Free { next: *free }) };
        *free = block;
    }
}

/// None of those that are the C library's.
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(GRAIN);
    (size <= LARGEST && layout.align() <= GRAIN)
        .then(|| (size - 1).ilog2() as usize + 1 - GRAIN.ilog2() as usize)
}

// SAFETY: a block is of the size and alignment asked for, and nobody's but the caller's until it is given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some(class) => self.locked(|blocks| blocks.take(class)),
            // SAFETY: what the caller promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            Some(class) => self.locked(|blocks| blocks.give(block, class)),
            // SAFETY: what the caller promises.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is allowed.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(wanted)) {
            (Some(now), Some(then)) if now == then => block,
            // SAFETY: what the caller promises.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            // SAFETY: what the caller promises.
            _ => unsafe { self.moved(block, layout, wanted) },
        }
    }
}

impl Heap {
    /// # Safety
    /// As of [`GlobalAlloc::realloc`].
    unsafe fn moved(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        // SAFETY: both blocks are at least as long as what is copied, and the caller has given up the old one.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(wanted.size()));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    /// A block with a byte of its own throughout, which is looked for when it goes.
    struct Block<'a> {
        heap: &'a Heap,
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl<'a> Block<'a> {
        fn new(heap: &'a Heap, layout: Layout, mark: u8) -> Self {
            // SAFETY: no layout of these tests is of no size.
            let at = unsafe { heap.alloc(layout) };
            assert!(!at.is_null());
            assert_eq!(at as usize % layout.align(), 0, "{layout:?}");
            let mut block = Self { heap, at, layout, mark };
            block.bytes().fill(mark);
            block
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: it is as long as its layout says, and nobody else's.
            unsafe { slice::from_raw_parts_mut(self.at, self.layout.size()) }
        }

        fn resize(&mut self, size: usize) {
            let kept = self.layout.size().min(size);
            // SAFETY: the block is of this heap and layout.
            self.at = unsafe { self.heap.realloc(self.at, self.layout, size) };
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            let mark = self.mark;
            assert!(self.bytes().get(..kept).unwrap().iter().all(|byte| *byte == mark));
            self.bytes().fill(mark);
        }
    }

    impl Drop for Block<'_> {
        fn drop(&mut self) {
            let mark = self.mark;
            assert!(self.bytes().iter().all(|byte| *byte == mark), "somebody wrote into {:?}", self.layout);
            // SAFETY: the block is of this heap and layout.
            unsafe { self.heap.dealloc(self.at, self.layout) };
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Sizes and alignments on both sides of every edge.
    fn layouts() -> impl Iterator<Item = Layout> {
        let sizes = (0..18).flat_map(|power: u32| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
        sizes.filter(|size| *size > 0).flat_map(|size: usize| [1, 8, 16, 64].map(|align| layout(size, align)))
    }

    #[test]
    fn no_two_blocks_share_a_byte_whatever_their_sizes() {
        let heap = Heap::new();
        let marks = (0..=u8::MAX).cycle();
        let mut blocks: Vec<_> =
            layouts().zip(marks).map(|(layout, mark)| Block::new(&heap, layout, mark)).collect();
        // Every other one goes, and others come into their places.
        let mut nth = 0;
        blocks.retain(|_| (nth += 1, nth % 2 == 0).1);
        blocks.extend(layouts().map(|layout| Block::new(&heap, layout, 0xa5)));
    }

    #[test]
    fn a_block_keeps_what_is_in_it_when_it_grows_and_shrinks() {
        let heap = Heap::new();
        for first in layouts() {
            let mut block = Block::new(&heap, first, 0x5a);
            layouts().step_by(7).for_each(|then| block.resize(then.size()));
        }
    }

    #[test]
    fn what_was_given_back_is_used_again() {
        let heap = Heap::new();
        let first = Block::new(&heap, layout(100, 8), 1);
        let place = first.at;
        drop(first);
        assert_eq!(Block::new(&heap, layout(128, 16), 2).at, place);
    }

    #[test]
    fn zeroed_blocks_are_zero_also_when_they_were_somebody_elses() {
        let heap = Heap::new();
        drop(Block::new(&heap, layout(64, 8), 0xff));
        // SAFETY: it is of a size.
        let at = unsafe { heap.alloc_zeroed(layout(64, 8)) };
        let mut block = Block { heap: &heap, at, layout: layout(64, 8), mark: 0 };
        assert_eq!(block.bytes(), [0; 64]);
    }

    #[test]
    fn threads_get_blocks_of_their_own() {
        let heap = Heap::new();
        thread::scope(|scope| {
            for mark in 1..=4 {
                let heap = &heap;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let size = 1 + (round * 37 + usize::from(mark)) % 500;
                        let mut block = Block::new(heap, layout(size, 8), mark);
                        block.resize(size * 3);
                    }
                });
            }
        });
    }
}
