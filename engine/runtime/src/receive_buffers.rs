//! Buffers that the kernel picks from when bytes arrive, so that an idle connection holds none.
//!
//! The kernel reads the ring of free buffers up to the tail that this side publishes. Invariant: a
//! buffer is in the ring, or between its completion and [`ReceiveBuffers::recycle`], never both.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buffer::Buffer;

/// The memory of a provided-buffer ring and of its buffers.
pub(crate) struct ReceiveBuffers {
    ring: Buffer,
    memory: Buffer,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl ReceiveBuffers {
    /// `count` buffers (a power of two, at most 32,768) of `buffer_bytes` each, all free.
    pub(crate) fn new(count: u16, buffer_bytes: usize) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} receive buffers");
        assert!((1..=1 << 30).contains(&buffer_bytes), "{buffer_bytes} bytes per receive buffer");
        let ring = Buffer::zeroed(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Buffer::zeroed(usize::from(count) * buffer_bytes);
        let mut buffers = Self { ring, memory, count, buffer_bytes, tail: 0 };
        for buffer in 0..count {
            buffers.recycle(buffer);
        }
        buffers
    }

    /// The address at which the kernel is told to find the ring.
    pub(crate) fn ring_address(&self) -> u64 {
        self.ring.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// The first `len` bytes of a buffer.
    ///
    /// # Safety
    ///
    /// The kernel has handed the buffer out and it has not been recycled since.
    pub(crate) unsafe fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < self.count && len <= self.buffer_bytes, "buffer {buffer}, {len} bytes");
        let start = usize::from(buffer) * self.buffer_bytes;
        // SAFETY: the range lies in `memory` by the assertion, and by the caller's promise the
        // kernel does not write to it while the slice lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), len) }
    }

    /// Puts a buffer at the end of the ring of free ones.
    #[inline]
    pub(crate) fn recycle(&mut self, buffer: u16) {
        assert!(buffer < self.count, "receive buffer {buffer} of {}", self.count);
        let address = self.memory.as_ptr() as u64 + u64::from(buffer) * self.buffer_bytes as u64;
        let entries = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot < count`, and `ring` has room for `count` entries. The kernel reads an
        // entry only after the tail below has passed it. The first entry's spare field is the tail
        // itself, so the fields are set one by one.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring starts at `entries`, whose first entry is initialised; the tail is
        // aligned for and only accessed as an atomic by both sides.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}
