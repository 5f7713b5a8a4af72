//! Aligned memory for direct I/O.
//!
//! Invariant: a buffer's address is a multiple of [`DISK_ALIGNMENT`] and all `len` bytes are
//! initialised, so safe code may read whatever a buffer holds.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::buffer_pool::{Block, BufferPool};
use crate::env::DISK_ALIGNMENT;

thread_local! {
    /// Bytes of this thread's buffers that have memory of their own. A buffer never leaves the
    /// thread that made it.
    static OWN_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of the calling thread's buffers, those of its pools included.
pub fn thread_bytes() -> usize {
    OWN_BYTES.get()
}

/// An owned, aligned run of bytes: memory of its own, or a block of a core's pool that returns to
/// the pool when the buffer is dropped.
pub struct Buffer {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
    home: Option<(BufferPool, Block)>,
}

impl Buffer {
    /// A buffer of `len` zero bytes. Its capacity is `len` rounded up to the alignment.
    pub fn zeroed(len: usize) -> Self {
        let capacity = len.max(1).next_multiple_of(DISK_ALIGNMENT);
        let layout = layout(capacity);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        OWN_BYTES.set(OWN_BYTES.get() + capacity);
        Self { memory, capacity, len, home: None }
    }

    /// A buffer of `len` bytes in a block of `pool`, which holds what it held before.
    ///
    /// # Safety
    ///
    /// `memory` points to the block's `capacity >= len` initialised bytes, which nothing else uses
    /// until the block is given back.
    pub(crate) unsafe fn pooled(
        memory: NonNull<u8>,
        capacity: usize,
        len: usize,
        home: (BufferPool, Block),
    ) -> Self {
        debug_assert!(len <= capacity);
        Self { memory, capacity, len, home: Some(home) }
    }

    /// The pool that the buffer belongs to.
    pub(crate) fn pool(&self) -> Option<&BufferPool> {
        self.home.as_ref().map(|(pool, _)| pool)
    }

    /// How long the buffer can become without moving, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes the buffer `len` bytes long, at most its capacity. Bytes that come into view hold what
    /// they held before.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "a buffer of {} bytes cannot hold {len}", self.capacity);
        self.len = len;
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, DISK_ALIGNMENT).expect("a buffer's size fits isize")
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` points to `capacity >= len` initialised bytes that this value owns.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((pool, block)) = self.home.take() {
            pool.give_back(block);
            return;
        }
        // A thread that ends may drop buffers after its count.
        let _ended = OWN_BYTES.try_with(|bytes| bytes.set(bytes.get() - self.capacity));
        // SAFETY: allocated in `zeroed` with the same layout, and dropped once.
        unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Buffer({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_what_its_buffers_take() {
        let pool = BufferPool::new(1 << 20);
        let before = thread_bytes();
        assert!(before >= 1 << 20);
        let own = Buffer::zeroed(5000);
        assert_eq!((own.capacity(), thread_bytes()), (8192, before + 8192));
        let pooled = pool.buffer(10_000);
        assert_eq!(thread_bytes(), before + 8192, "the pool's memory is counted already");
        drop((own, pooled));
        assert_eq!(thread_bytes(), before);
        drop(pool);
        assert_eq!(thread_bytes(), before - (1 << 20));
    }
}
