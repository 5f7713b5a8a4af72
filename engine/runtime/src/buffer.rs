//! Aligned memory for direct I/O.
//!
//! Invariant: a buffer's address is a multiple of [`DISK_ALIGNMENT`](crate::env::DISK_ALIGNMENT)
//! and all `len` bytes are initialised, so safe code may read whatever a buffer holds.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::env::DISK_ALIGNMENT;

/// An owned, aligned run of bytes.
pub struct Buffer {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zero bytes. Its capacity is `len` rounded up to the alignment.
    pub fn zeroed(len: usize) -> Self {
        let capacity = len.max(1).next_multiple_of(DISK_ALIGNMENT);
        let layout = layout(capacity);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, capacity, len }
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
        // SAFETY: allocated in `zeroed` with the same layout, and dropped once.
        unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Buffer({} of {} bytes)", self.len, self.capacity)
    }
}
