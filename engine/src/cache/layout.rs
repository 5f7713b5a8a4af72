//! How a capacity is divided between the queues, the index and the ghost.

use super::arena::{ARENA_BYTES_MAX, UNIT};
use super::ghost::{self, WAYS};
use super::index::Index;
use super::margin::Margin;
use super::pages::Pages;

/// The small queue's share of what both queues have is one part in this many.
pub(super) const SMALL_PARTS: usize = 10;

/// The longest entry is one part in this many of the main queue.
const MAIN_ENTRY_PARTS: usize = 8;

/// The main queue may be made so many times smaller.
const MAIN_PARTS_MAX: usize = 8;
const _: () = assert!(MAIN_PARTS_MAX <= MAIN_ENTRY_PARTS, "the longest entry fits");

/// The longest entry that starts in the small queue is one part in this many of it: a longer one
/// would push everything else out before it could be used again.
const SMALL_ENTRY_PARTS: usize = 4;

/// Sizes that stay as they are while the cache lives, but for the queues', which are the most that
/// they may be. All are 0 when no entry fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) small_bytes: usize,
    pub(super) main_bytes: usize,
    pub(super) index_entries: usize,
    pub(super) ghost_buckets: usize,
    pub(super) margin_buckets: usize,
}

impl Layout {
    /// Divides `capacity_bytes` for entries of `entry_bytes_mean` bytes, the shortest of which
    /// takes `entry_bytes_min`.
    pub(super) fn plan(
        capacity_bytes: usize,
        entry_bytes_mean: usize,
        entry_bytes_min: usize,
    ) -> Self {
        let entries = capacity_bytes.min(ARENA_BYTES_MAX) / entry_bytes_mean.max(entry_bytes_min);
        let index_entries = entries.max(1);
        let ghost_buckets = index_entries.div_ceil(WAYS);
        let margin_buckets = Margin::buckets_for(index_entries);
        let remembered = (ghost_buckets + margin_buckets) * ghost::BUCKET_BYTES;
        let tables = Index::bytes_for(index_entries) + remembered;
        let arena = capacity_bytes.saturating_sub(tables).min(ARENA_BYTES_MAX) / UNIT * UNIT;
        // What is free between the queues when they are shorter can then be given back as a whole.
        let whole = Pages::whole_bytes(arena).unwrap_or(UNIT);
        let small_bytes = arena / SMALL_PARTS / whole * whole;
        let main_bytes = arena - small_bytes;
        let layout = Self { small_bytes, main_bytes, index_entries, ghost_buckets, margin_buckets };
        if Self::entry_bytes_max(main_bytes) < entry_bytes_min { Self::default() } else { layout }
    }

    /// The longest entry that is admitted when the main queue has `main_bytes`, in bytes of the
    /// arena.
    pub(super) fn entry_bytes_max(main_bytes: usize) -> usize {
        (main_bytes / MAIN_ENTRY_PARTS).min(u32::MAX as usize)
    }

    /// The least that the main queue may be made, in bytes: it holds any entry that it took when it
    /// was whole.
    pub(super) fn main_bytes_min(&self) -> usize {
        self.main_bytes.div_ceil(MAIN_PARTS_MAX)
    }

    /// The longest entry that starts in the small queue when that has `small_bytes`.
    pub(super) fn small_entry_bytes_max(small_bytes: usize) -> usize {
        small_bytes / SMALL_ENTRY_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(layout: Layout) -> usize {
        let remembered = layout.ghost_buckets + layout.margin_buckets;
        let remembered = remembered * ghost::BUCKET_BYTES;
        let tables = Index::bytes_for(layout.index_entries) + remembered;
        layout.small_bytes + layout.main_bytes + tables
    }

    proptest! {
        #[test]
        fn the_parts_fit_in_the_capacity(
            capacity in prop_oneof![0usize..10_000, 0usize..1 << 20, 0usize..1 << 40],
            mean in 0usize..10_000,
        ) {
            let layout = Layout::plan(capacity, mean, 48);
            prop_assert!(total(layout) <= capacity);
            if (1 << 18..=ARENA_BYTES_MAX).contains(&capacity) {
                prop_assert!(layout.small_bytes + layout.main_bytes >= capacity / 100 * 65);
            }
        }

        #[test]
        fn at_the_default_mean_a_tenth_is_for_the_tables_at_most(
            capacity in (1usize << 22)..ARENA_BYTES_MAX,
        ) {
            let layout = Layout::plan(capacity, 128, 48);
            prop_assert!(layout.small_bytes + layout.main_bytes >= capacity / 10 * 9);
            prop_assert!(layout.main_bytes >= layout.small_bytes * 9);
            let longest = Layout::entry_bytes_max(layout.main_bytes);
            prop_assert!(Layout::small_entry_bytes_max(layout.small_bytes) < longest);
            // A tenth, to the last whole page.
            let arena = layout.small_bytes + layout.main_bytes;
            let whole = Pages::whole_bytes(arena).unwrap_or(UNIT);
            prop_assert!(layout.small_bytes + whole > arena / SMALL_PARTS);
            prop_assert!(whole <= arena / 16, "a page is a small part of an arena");
        }
    }

    #[test]
    fn a_capacity_without_room_for_an_entry_has_nothing() {
        assert_eq!(Layout::plan(0, 128, 48), Layout::default());
        assert_eq!(Layout::plan(500, 128, 48), Layout::default());
        assert_eq!(Layout::plan(1000, 4096, 48).index_entries, 1);
        assert_eq!(Layout::plan(1000, 4096, 200), Layout::default());
    }
}
