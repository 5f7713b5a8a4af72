//! How long entries usually are, and so how much of one is worth bringing near unseen.

use larder_runtime::memory::CACHE_LINE;

/// The cache lines of an entry that are brought near at least: descriptor, header, key and a short
/// value.
const LINES_MIN: usize = 3;

/// The most: of 16 entries that are brought near together these are 18 KiB, which the nearest cache
/// holds beside what else is touched. The processor recognizes a longer copy by itself and runs
/// ahead of it.
const LINES_MAX: usize = 18;

/// Entries over which the mean is taken, roughly.
const ENTRIES: usize = 64;

/// A mean over the entries that came last: with each that comes those before it count for a 64th
/// less.
#[derive(Debug, Default)]
pub(super) struct UsualLen {
    /// The mean times [`ENTRIES`], in bytes.
    sum: usize,
}

impl UsualLen {
    /// Counts an entry of `entry_bytes` that comes into the cache.
    #[inline]
    pub(super) fn note(&mut self, entry_bytes: usize) {
        self.sum = self.sum - self.sum / ENTRIES + entry_bytes;
    }

    /// The cache lines of an entry of usual length, within bounds. Of a longer one the beginning is
    /// brought near, with a shorter one lines of its neighbour are.
    #[inline]
    pub(super) fn lines(&self) -> usize {
        (self.sum / (ENTRIES * CACHE_LINE) + 1).clamp(LINES_MIN, LINES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, LINES_MIN, UsualLen};

    #[test]
    fn the_lines_follow_the_lengths_and_stay_within_their_bounds() {
        let mut usual = UsualLen::default();
        assert_eq!(usual.lines(), LINES_MIN);
        (0..1000).for_each(|_| usual.note(600));
        assert_eq!(usual.lines(), 10);
        (0..1000).for_each(|_| usual.note(1 << 20));
        assert_eq!(usual.lines(), LINES_MAX);
        (0..2000).for_each(|_| usual.note(64));
        assert_eq!(usual.lines(), LINES_MIN);
    }
}
