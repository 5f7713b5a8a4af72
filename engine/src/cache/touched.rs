//! How much of a table is in memory that is written to all over.

use larder_runtime::memory::HUGE_PAGE_BYTES;

/// Counts writes to places that hashes choose. A page comes into memory as a whole with the first
/// write to it, so as many writes as a table has pages bring nearly all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    writes: usize,
}

impl Touched {
    /// One place was written to.
    #[inline]
    pub(super) fn one(&mut self) {
        self.writes = self.writes.saturating_add(1);
    }

    /// All were.
    pub(super) fn all(&mut self) {
        self.writes = usize::MAX;
    }

    /// How much of a table of `allocated` bytes is in memory, at most.
    pub(super) fn bytes_of(self, allocated: usize) -> usize {
        self.writes.saturating_mul(HUGE_PAGE_BYTES).min(allocated)
    }
}
