//! A core's recycled disk buffers: one region that the ring knows, carved by a buddy allocator.
//!
//! Blocks are powers of two from 4 KiB to 1 MiB. A block that is given back merges with its buddy,
//! so the region never stays split by what was asked of it earlier. When it is used up, and for
//! larger buffers, memory comes from the heap.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::buffer::Buffer;
use crate::env::DISK_ALIGNMENT;

/// The largest block, in bytes.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// A block of the region: `DISK_ALIGNMENT << order` bytes, the `index`-th of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    order: usize,
    index: usize,
}

/// A handle on the pool; clones share it. The region is freed with the last handle or buffer.
#[derive(Clone)]
pub(crate) struct BufferPool {
    inner: Rc<Inner>,
}

struct Inner {
    blocks: RefCell<Buddies>,
    memory: NonNull<u8>,
    len: usize,
    /// Owns what `memory` points to; never accessed itself.
    _region: Buffer,
    is_registered: Cell<bool>,
}

impl BufferPool {
    /// A pool of at most `bytes`, rounded down to whole blocks; 0 makes every buffer come from the
    /// heap.
    pub(crate) fn new(bytes: usize) -> Self {
        let block_max = BLOCK_BYTES_MAX.min(1 << bytes.max(1).ilog2());
        let len = if bytes < DISK_ALIGNMENT { 0 } else { bytes - bytes % block_max };
        let mut region = Buffer::zeroed(len);
        let memory = NonNull::from(&mut *region).cast();
        let top = (block_max / DISK_ALIGNMENT).max(1).ilog2() as usize;
        let blocks = RefCell::new(Buddies::new(top, len / block_max));
        let is_registered = Cell::new(false);
        Self { inner: Rc::new(Inner { blocks, memory, len, _region: region, is_registered }) }
    }

    /// The region's address and length in bytes.
    pub(crate) fn region(&self) -> (*mut u8, usize) {
        (self.inner.memory.as_ptr(), self.inner.len)
    }

    /// Notes that the core's ring knows the region.
    pub(crate) fn set_registered(&self) {
        self.inner.is_registered.set(true);
    }

    /// Whether a disk request may name `buffer` as registered memory.
    pub(crate) fn is_registered(&self, buffer: &Buffer) -> bool {
        self.inner.is_registered.get()
            && buffer.pool().is_some_and(|pool| Rc::ptr_eq(&pool.inner, &self.inner))
    }

    /// A buffer of `len` bytes with unspecified contents.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        let order = len.div_ceil(DISK_ALIGNMENT).max(1).next_power_of_two().ilog2() as usize;
        let Some(index) = self.inner.blocks.borrow_mut().take(order) else {
            return Buffer::zeroed(len);
        };
        let capacity = DISK_ALIGNMENT << order;
        let home = (self.clone(), Block { order, index });
        // SAFETY: the block lies in the region, whose bytes are initialised and stay where they are
        // while `home` holds the pool; the buddies hand it out once until it is given back.
        unsafe {
            let memory = self.inner.memory.add(index * capacity);
            Buffer::pooled(memory, capacity, len, home)
        }
    }

    pub(crate) fn give_back(&self, block: Block) {
        self.inner.blocks.borrow_mut().give(block.order, block.index);
    }

    /// How many bytes of the region are free.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        let blocks = self.inner.blocks.borrow();
        let of_order = |(order, set): (usize, &FreeSet)| set.count * (DISK_ALIGNMENT << order);
        blocks.free.iter().enumerate().map(of_order).sum()
    }
}

/// Which blocks are free, by order.
struct Buddies {
    free: Vec<FreeSet>,
}

impl Buddies {
    /// `count` free blocks of order `top`.
    fn new(top: usize, count: usize) -> Self {
        let set = |order: usize| FreeSet::new(count << (top - order));
        let mut free: Vec<FreeSet> = (0..=top).map(set).collect();
        for index in 0..count {
            free[top].insert(index);
        }
        Self { free }
    }

    fn take(&mut self, order: usize) -> Option<usize> {
        let mut from = (order..self.free.len()).find(|&order| self.free[order].count > 0)?;
        let mut index = self.free[from].take_first();
        while from > order {
            from -= 1;
            index *= 2;
            self.free[from].insert(index + 1);
        }
        Some(index)
    }

    fn give(&mut self, mut order: usize, mut index: usize) {
        while order + 1 < self.free.len() && self.free[order].remove(index ^ 1) {
            index /= 2;
            order += 1;
        }
        self.free[order].insert(index);
    }
}

/// A set of block indices.
struct FreeSet {
    words: Vec<u64>,
    count: usize,
    /// No word before this one has a bit.
    first: usize,
}

impl FreeSet {
    fn new(indices: usize) -> Self {
        Self { words: vec![0; indices.div_ceil(64)], count: 0, first: 0 }
    }

    fn insert(&mut self, index: usize) {
        let (word, bit) = (index / 64, 1 << (index % 64));
        assert!(self.words[word] & bit == 0, "block {index} is given back twice");
        self.words[word] |= bit;
        self.count += 1;
        self.first = self.first.min(word);
    }

    fn remove(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1 << (index % 64));
        if self.words.get(word).is_none_or(|bits| bits & bit == 0) {
            return false;
        }
        self.words[word] &= !bit;
        self.count -= 1;
        true
    }

    fn take_first(&mut self) -> usize {
        while self.words[self.first] == 0 {
            self.first += 1;
        }
        let index = self.first * 64 + self.words[self.first].trailing_zeros() as usize;
        assert!(self.remove(index), "the bit was just seen");
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_pools_and_none_at_all() {
        let none = BufferPool::new(0);
        assert_eq!((none.region().1, none.buffer(100).len()), (0, 100));
        let one = BufferPool::new(5000);
        assert_eq!(one.region().1, 4096);
        let first = one.buffer(4096);
        assert_eq!(one.free_bytes(), 0);
        assert!(one.buffer(4096).pool().is_none(), "the second comes from the heap");
        drop(first);
        assert_eq!(one.free_bytes(), 4096);
    }

    #[test]
    fn a_buffer_outlives_the_handle() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.buffer(10_000);
        drop(pool);
        buffer.fill(7);
        assert!(buffer.iter().all(|&byte| byte == 7));
        assert_eq!(buffer.as_ptr() as usize % DISK_ALIGNMENT, 0);
    }

    proptest! {
        #[test]
        fn live_buffers_never_share_bytes_and_all_bytes_come_back(
            steps in proptest::collection::vec((0usize..300_000, any::<bool>()), 1..120),
        ) {
            let pool = BufferPool::new(2 << 20);
            let mut live: Vec<(Buffer, u8)> = Vec::new();
            for (step, (len, keep)) in steps.into_iter().enumerate() {
                let mut buffer = pool.buffer(len);
                buffer.fill(step as u8);
                prop_assert_eq!(buffer.len(), len);
                live.push((buffer, step as u8));
                if !keep {
                    let (buffer, fill) = live.swap_remove(len % live.len());
                    prop_assert!(buffer.iter().all(|&byte| byte == fill));
                }
            }
            for (buffer, fill) in live.drain(..) {
                prop_assert!(buffer.iter().all(|&byte| byte == fill));
            }
            prop_assert_eq!(pool.free_bytes(), 2 << 20);
        }
    }
}
