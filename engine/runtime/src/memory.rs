//! Large, long-lived memory: zeroed, of a fixed length, on huge pages where the system has them.
//!
//! A look-up in a table of many megabytes costs a walk of the page tables besides the cache miss,
//! and in a virtual machine that walk is two-dimensional. On 2 MiB pages it nearly always ends in
//! the TLB.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Memory of at least this many bytes lies on huge pages.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of at least this many bytes gets pages of its own: it is no part of the heap.
pub const MAPPED_BYTES_MIN: usize = 128 << 10;

/// The size and alignment of a cache line.
const LINE_BYTES: usize = 64;

/// Plain values for which all-zero bytes are valid.
///
/// # Safety
///
/// Zero bytes are a value of the type, it has no padding, and its alignment is at most a cache
/// line's.
pub unsafe trait Zeroable: Copy + 'static {}

// SAFETY: integers and arrays of them.
unsafe impl Zeroable for u8 {}
// SAFETY: as above.
unsafe impl Zeroable for [u32; 16] {}

/// A slice whose elements start as zero and whose length is fixed.
///
/// Pages that were never written to take no memory. The slice starts at a cache line's boundary.
pub struct ZeroedSlice<T: Zeroable> {
    memory: NonNull<T>,
    len: usize,
}

impl<T: Zeroable> ZeroedSlice<T> {
    const ALIGNMENT_FITS: () = assert!(align_of::<T>() <= LINE_BYTES && size_of::<T>() > 0);

    /// `len` zero elements.
    pub fn new(len: usize) -> Self {
        let () = Self::ALIGNMENT_FITS;
        let bytes = len.checked_mul(size_of::<T>()).expect("the size fits the address space");
        let memory = if bytes == 0 {
            NonNull::dangling()
        } else if bytes >= MAPPED_BYTES_MIN {
            map(bytes).cast()
        } else {
            allocate(bytes).cast()
        };
        Self { memory, len }
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = small_layout(bytes);
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

fn small_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, LINE_BYTES).expect("a size that fits isize")
}

fn map(bytes: usize) -> NonNull<u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        handle_alloc_error(small_layout(bytes));
    }
    if bytes >= HUGE_PAGE_BYTES {
        // SAFETY: the range was just mapped. A refusal only means that pages stay small.
        unsafe { libc::madvise(memory, bytes, libc::MADV_HUGEPAGE) };
    }
    NonNull::new(memory.cast()).expect("the kernel maps nothing at address 0")
}

impl<T: Zeroable> Drop for ZeroedSlice<T> {
    fn drop(&mut self) {
        let bytes = self.bytes();
        if bytes == 0 {
            return;
        }
        if bytes >= MAPPED_BYTES_MIN {
            // SAFETY: mapped in `new` with this length, and dropped once.
            unsafe { libc::munmap(self.memory.as_ptr().cast(), bytes) };
        } else {
            // SAFETY: allocated in `new` with this layout, and dropped once.
            unsafe { dealloc(self.memory.as_ptr().cast(), small_layout(bytes)) };
        }
    }
}

impl<T: Zeroable> Deref for ZeroedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `memory` points to `len` initialised elements that this value owns (zero bytes
        // are a value of `T`), or is dangling and `len` is 0.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for ZeroedSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> std::fmt::Debug for ZeroedSlice<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ZeroedSlice({} bytes)", self.bytes())
    }
}

/// What the allocator of the process holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// What was asked for and not given back, with what each allocation costs besides.
    pub in_use: usize,
    /// What was given back and is kept for what will be asked for.
    pub free: usize,
}

/// What the allocator holds; `None` where it does not say.
#[cfg(target_env = "gnu")]
pub fn heap() -> Option<Heap> {
    // SAFETY: it takes no arguments and locks what it reads.
    let info = unsafe { libc::mallinfo2() };
    Some(Heap { in_use: info.uordblks + info.hblkhd, free: info.fordblks })
}

/// What the allocator holds; `None` where it does not say.
#[cfg(not(target_env = "gnu"))]
pub fn heap() -> Option<Heap> {
    None
}

/// Asks the processor to bring `value`'s cache line near, without waiting for it.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the caches, and the address is that of a reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_keeps_what_is_written() {
        for len in [0, 1, 1000, MAPPED_BYTES_MIN, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 5] {
            let mut slice: ZeroedSlice<u8> = ZeroedSlice::new(len);
            assert_eq!(slice.len(), len);
            assert!(slice.iter().all(|byte| *byte == 0));
            if let Some(last) = slice.last_mut() {
                *last = 7;
            }
            assert_eq!(slice.last().copied(), (len > 0).then_some(7));
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_heap_holds_what_is_allocated_and_mapped_memory_is_no_part_of_it() {
        const BYTES: usize = 300 << 20;
        let before = heap().expect("it says so").in_use;
        let mapped: ZeroedSlice<u8> = ZeroedSlice::new(BYTES);
        let with_mapped = heap().expect("it says so").in_use;
        let allocated = vec![0u8; BYTES];
        let with_both = heap().expect("it says so").in_use;
        // Other tests allocate meanwhile, but not so much.
        assert!(with_mapped < before + BYTES / 2, "{before} to {with_mapped}");
        assert!(with_both > with_mapped + BYTES / 2, "{with_mapped} to {with_both}");
        assert_eq!((mapped.len(), allocated.len()), (BYTES, BYTES));
    }

    #[test]
    fn lines_start_at_lines() {
        for len in [1, 100_000] {
            let slice: ZeroedSlice<[u32; 16]> = ZeroedSlice::new(len);
            assert!(slice.as_ptr().addr().is_multiple_of(LINE_BYTES));
            prefetch(&slice[len - 1]);
        }
    }
}
