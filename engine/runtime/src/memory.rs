//! Large, long-lived memory: zeroed, of a fixed length, on huge pages where the system has them.
//!
//! A look-up in a table of many megabytes costs a walk of the page tables besides the cache miss,
//! and in a virtual machine that walk is two-dimensional. On 2 MiB pages it nearly always ends in
//! the TLB.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// Memory of at least this many bytes lies on huge pages.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of at least this many bytes gets pages of its own: it is no part of the heap.
pub const MAPPED_BYTES_MIN: usize = 128 << 10;

/// The unit in which memory is given back to the operating system.
pub const PAGE_BYTES: usize = 4096;

/// The size and alignment of a cache line, in bytes.
pub const CACHE_LINE: usize = 64;

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
    const ALIGNMENT_FITS: () = assert!(align_of::<T>() <= CACHE_LINE && size_of::<T>() > 0);

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

impl ZeroedSlice<u8> {
    /// Lets no more of the slice lie on huge pages: the kernel would bring back as a whole what is
    /// given back in part.
    pub fn use_small_pages(&mut self) {
        if self.len >= HUGE_PAGE_BYTES {
            // SAFETY: the range is this value's own mapping, whose contents this does not change.
            unsafe { libc::madvise(self.memory.as_ptr().cast(), self.len, libc::MADV_NOHUGEPAGE) };
        }
    }

    /// Gives the memory of `range` back to the operating system: its bytes are zero from then on,
    /// and take no memory until they are written to. Both ends must be multiples of
    /// [`PAGE_BYTES`], but for the end of the slice. Says whether it was given back; if not, the
    /// bytes stay as they are. A slice of less than [`MAPPED_BYTES_MIN`] gives nothing back.
    pub fn release(&mut self, range: Range<usize>) -> bool {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the slice");
        let ends_whole = range.end.is_multiple_of(PAGE_BYTES) || range.end == self.len;
        assert!(range.start.is_multiple_of(PAGE_BYTES) && ends_whole, "whole pages");
        if self.len < MAPPED_BYTES_MIN || range.is_empty() {
            return false;
        }
        // SAFETY: the range lies in this value's own private anonymous mapping and begins at a page
        // of it, and zero bytes are a value of `u8`; `&mut self` says that nobody reads it. A
        // mapping ends with a whole page, so nothing else lies behind the slice.
        let given = unsafe {
            let start = self.memory.as_ptr().add(range.start);
            libc::madvise(start.cast(), range.len(), libc::MADV_DONTNEED)
        };
        given == 0
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = small_layout(bytes);
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

fn small_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, CACHE_LINE).expect("a size that fits isize")
}

fn map(bytes: usize) -> NonNull<u8> {
    let is_huge = bytes >= HUGE_PAGE_BYTES;
    let asked = if is_huge { bytes.saturating_add(HUGE_PAGE_BYTES) } else { bytes };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), asked, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        handle_alloc_error(small_layout(bytes));
    }
    let mapped = NonNull::new(mapped.cast()).expect("the kernel maps nothing at address 0");
    if is_huge { align_to_huge_pages(mapped, bytes) } else { mapped }
}

/// Makes a mapping that is one huge page longer than `bytes` begin at a huge page and end after
/// `bytes`, so that offsets into it say where huge pages begin.
fn align_to_huge_pages(mapped: NonNull<u8>, bytes: usize) -> NonNull<u8> {
    let before = mapped.addr().get().next_multiple_of(HUGE_PAGE_BYTES) - mapped.addr().get();
    let kept = bytes.next_multiple_of(PAGE_BYTES);
    let after = (bytes + HUGE_PAGE_BYTES).next_multiple_of(PAGE_BYTES) - before - kept;
    // SAFETY: what is unmapped are whole pages at both ends of a mapping that nobody uses yet. A
    // refusal of advice only means that pages stay small.
    unsafe {
        let memory = mapped.add(before);
        if before > 0 {
            libc::munmap(mapped.as_ptr().cast(), before);
        }
        if after > 0 {
            libc::munmap(memory.add(kept).as_ptr().cast(), after);
        }
        libc::madvise(memory.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        memory
    }
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

/// Asks the processor to bring the cache lines of `bytes` near, without waiting for them.
#[inline]
pub fn prefetch_bytes(bytes: &[u8]) {
    bytes.iter().step_by(CACHE_LINE).for_each(prefetch);
}

/// Asks the processor to bring the cache lines behind the end of `vector` near, which are to be
/// written next: those of `len` elements at most, as far as there is room.
#[inline]
pub fn prefetch_tail<T>(vector: &mut Vec<T>, len: usize) {
    let tail = vector.spare_capacity_mut();
    let len = len.min(tail.len());
    let start = tail.as_mut_ptr().cast::<u8>();
    for offset in (0..size_of_val(&tail[..len])).step_by(CACHE_LINE) {
        let line = start.wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect but on the caches, and the address lies in the vector's
        // memory.
        unsafe {
            std::arch::asm!(
                "prefetchw [{line}]",
                line = in(reg) line,
                options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
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
    fn released_memory_is_zero_again_and_the_rest_stays() {
        for len in [MAPPED_BYTES_MIN, HUGE_PAGE_BYTES + 5, 3 * HUGE_PAGE_BYTES + 100] {
            let mut slice: ZeroedSlice<u8> = ZeroedSlice::new(len);
            let page = if len < HUGE_PAGE_BYTES { PAGE_BYTES } else { HUGE_PAGE_BYTES };
            assert!(slice.as_ptr().addr().is_multiple_of(page));
            slice.fill(7);
            let middle = PAGE_BYTES..5 * PAGE_BYTES;
            assert!(slice.release(middle.clone()));
            for (at, byte) in slice.iter().enumerate() {
                assert_eq!(*byte == 0, middle.contains(&at), "byte {at} of {len}");
            }
            slice[PAGE_BYTES] = 9;
            let last = (len - 1) / PAGE_BYTES * PAGE_BYTES;
            assert!(slice.release(last..len));
            assert_eq!((slice[PAGE_BYTES], slice[last - 1], slice[last]), (9, 7, 0));
            assert!(!slice.release(0..0), "nothing is nothing to give back");
        }
        let mut small: ZeroedSlice<u8> = ZeroedSlice::new(2 * PAGE_BYTES);
        small.fill(7);
        assert!(!small.release(0..PAGE_BYTES), "it lies in the heap");
        assert!(small.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn released_memory_is_no_longer_resident() {
        const BYTES: usize = 64 << 20;
        let resident = |slice: &ZeroedSlice<u8>| -> usize {
            let mut pages = vec![0u8; BYTES / PAGE_BYTES];
            let start = slice.as_ptr().cast_mut().cast();
            // SAFETY: the range is mapped, and there is a byte for each of its pages.
            let result = unsafe { libc::mincore(start, BYTES, pages.as_mut_ptr()) };
            assert_eq!(result, 0, "mincore");
            pages.iter().filter(|page| **page & 1 == 1).count() * PAGE_BYTES
        };
        let mut slice: ZeroedSlice<u8> = ZeroedSlice::new(BYTES);
        slice.fill(1);
        assert_eq!(resident(&slice), BYTES);
        assert!(slice.release(BYTES / 2..BYTES));
        assert_eq!(resident(&slice), BYTES / 2);
        slice.use_small_pages();
        assert!(slice.release(PAGE_BYTES..2 * PAGE_BYTES));
        assert_eq!(resident(&slice), BYTES / 2 - PAGE_BYTES);
        slice[PAGE_BYTES] = 1;
        assert_eq!(resident(&slice), BYTES / 2, "one page, not a huge one");
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
            assert!(slice.as_ptr().addr().is_multiple_of(CACHE_LINE));
            prefetch(&slice[len - 1]);
        }
    }

    #[test]
    fn bringing_bytes_near_changes_none_and_stays_inside() {
        for len in [0, 1, 64, 1000] {
            let mut bytes = Vec::with_capacity(len);
            bytes.resize(len / 2, 7);
            let capacity = bytes.capacity();
            prefetch_bytes(&bytes);
            prefetch_tail(&mut bytes, 4096);
            assert_eq!((bytes.len(), bytes.capacity()), (len / 2, capacity));
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }
}
