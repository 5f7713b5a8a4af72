//! How a shard's memory is divided, and what its caches give up when tables need more: pure.
//!
//! Every part has a bound of its own, and the bounds add up to the shard's share. Tables' indexes
//! and filters grow with the data: beyond their part they take from the value cache, and when that
//! is at its least from the block cache. What is left of the caches' part moves between the two
//! while the shard runs ([`CacheDivision`]), within bounds for each.

mod division;

pub use division::{CacheDivision, CacheKind, CacheSeen};

use crate::cache::ItemCache;
use crate::index::RECENT_BYTES_MAX;
use crate::index::table::BlockCache;

/// The least that both caches get together, in bytes: below it they hold nothing useful.
const CACHES_MIN: usize = 2 << 20;

/// The parts of seven of both caches that each begins with, and that it may have at most: what a
/// cache is made for at most it reserves addresses for, and a little of that is taken whether it
/// is used or not.
const VALUE_PARTS: (usize, usize) = (5, 6);
const BLOCK_PARTS: (usize, usize) = (2, 5);
const PARTS: usize = 7;

/// A cache can be made smaller to a part of what it was made for, so it is made for no more than so
/// many times what it begins with.
const VALUE_GROWTH_MAX: usize = 2;
const BLOCK_GROWTH_MAX: usize = 3;

/// Where one of the caches begins with less, both stay as they are: a cache of a few pages cannot
/// be made smaller.
const DIVIDED_MIN: usize = 256 << 10;

/// No cache is made for more: a cache addresses no more than that.
const CACHE_MAX: usize = 32 << 30;

/// The bounds of a shard's parts of the memory, in bytes. They add up to its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMemory {
    /// The longest value that the parts were planned for.
    pub value_bytes_max: usize,
    /// Two memtables, one of which is being written out.
    pub memtables: usize,
    /// Frames of the log that wait for the device.
    pub log_queue: usize,
    /// Frames' buffers that are kept for later ones.
    pub log_buffers: usize,
    /// The one frame that may exceed the queue.
    pub log_frame: usize,
    /// The one long value that may be compressed at a time, compressed.
    pub compression: usize,
    /// What flushes, merges, collection and scrubbing read and write at a time.
    pub maintenance: usize,
    /// Which log records are known to be dead.
    pub dead_records: usize,
    /// Which records the newest segments of the log have.
    pub listed_records: usize,
    /// What look-ups have just found in tables.
    pub recent: usize,
    /// Indexes and filters of tables, before caches give up room for them.
    pub tables: usize,
    /// What the value cache begins with.
    pub value_cache: usize,
    /// What the cache of tables' blocks begins with. Both together stay as large as this.
    pub block_cache: usize,
    /// What the allocator loses between allocations, and what is too little to be counted.
    pub reserve: usize,
}

impl ShardMemory {
    /// Divides `share` bytes for a shard whose values have up to `value_bytes_max`; `None` if that
    /// is less than [`Self::share_min`].
    pub fn plan(share: usize, value_bytes_max: usize) -> Option<Self> {
        let mut plan = Self {
            value_bytes_max,
            memtables: 2 * (share / 16).clamp(256 << 10, 32 << 20),
            log_queue: (share / 32).clamp(1 << 20, 8 << 20),
            log_buffers: (share / 64).clamp(256 << 10, 4 << 20),
            log_frame: value_bytes_max.max(1 << 20),
            compression: value_bytes_max,
            // Read-ahead of a merge's tables, the hashes of two tables' filters, the collector's
            // window and frames, and a value that passes through them.
            maintenance: (share / 16)
                .clamp(4 << 20, 20 << 20)
                .saturating_add(value_bytes_max.saturating_mul(2)),
            dead_records: share / 64,
            listed_records: share / 64,
            recent: RECENT_BYTES_MAX,
            tables: share / 16,
            value_cache: 0,
            block_cache: 0,
            reserve: share / 16,
        };
        let caches = share.checked_sub(plan.total()).filter(|caches| *caches >= CACHES_MIN)?;
        plan.value_cache = caches / PARTS * VALUE_PARTS.0;
        plan.block_cache = caches - plan.value_cache;
        Some(plan)
    }

    /// The least share that suffices, in bytes, in whole MiB.
    pub fn share_min(value_bytes_max: usize) -> usize {
        let shares = (1usize..).map(|mebibytes| mebibytes << 20);
        let fits = |share: &usize| Self::plan(*share, value_bytes_max).is_some();
        shares.take_while(|share| *share < usize::MAX >> 1).find(fits).unwrap_or(usize::MAX)
    }

    /// The parts, by name.
    pub fn parts(&self) -> [(&'static str, usize); 9] {
        let log = [self.log_queue, self.log_buffers, self.log_frame, self.compression];
        let log = log.into_iter().fold(0, usize::saturating_add);
        [
            ("memtables", self.memtables),
            ("log", log),
            ("maintenance", self.maintenance),
            ("dead_records", self.dead_records),
            ("listed_records", self.listed_records),
            ("recent", self.recent),
            ("tables", self.tables),
            ("caches", self.value_cache.saturating_add(self.block_cache)),
            ("reserve", self.reserve),
        ]
    }

    /// What the parts come to: the share.
    pub fn total(&self) -> usize {
        self.parts().iter().fold(0, |sum, (_, bytes)| usize::saturating_add(sum, *bytes))
    }
}

/// What the caches and the tables of a shard may have together, and how the caches make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBalance {
    /// What tables have without taking from the caches, in bytes.
    pub tables: usize,
    /// What both caches have together while tables need no more, in bytes.
    pub caches: usize,
    /// The value cache: its least capacity and its largest.
    pub values: (usize, usize),
    /// The block cache: the same.
    pub blocks: (usize, usize),
}

/// What the caches are to be, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSizes {
    /// The value cache's capacity.
    pub values: usize,
    /// The block cache's.
    pub blocks: usize,
    /// What tables take beyond all that the caches can give up.
    pub excess: usize,
}

/// What the value cache and the block cache are made for at most, in bytes, if they begin with
/// `values` and `blocks`.
pub fn cache_maxima(values: usize, blocks: usize) -> (usize, usize) {
    if values.min(blocks) < DIVIDED_MIN {
        return (values, blocks);
    }
    let part = values.saturating_add(blocks) / PARTS;
    let most = |parts: usize, growth: usize, first: usize| {
        (part * parts).min(first.saturating_mul(growth)).min(CACHE_MAX).max(first)
    };
    (most(VALUE_PARTS.1, VALUE_GROWTH_MAX, values), most(BLOCK_PARTS.1, BLOCK_GROWTH_MAX, blocks))
}

impl CacheBalance {
    /// How a shard's caches, as they were made, share `caches` bytes, and those with tables that
    /// have `tables` bytes.
    pub(crate) fn new(
        tables: usize,
        caches: usize,
        values: &ItemCache,
        blocks: &BlockCache,
    ) -> Self {
        Self {
            tables,
            caches,
            values: (values.capacity_min(), values.counters().capacity),
            blocks: (blocks.capacity_min(), blocks.counters().capacity),
        }
    }

    /// How much memory moves between the caches at a time, in bytes; 0 if none ever does.
    pub fn step(&self) -> usize {
        let is_divided = self.values.1.saturating_add(self.blocks.1) > self.caches;
        if is_divided { self.caches / division::STEPS } else { 0 }
    }

    /// How much the caches are to give up for tables that take `table_bytes`, where they have given
    /// up `now`. Not every change is followed: a cache that becomes smaller loses what it held.
    pub fn given_up(&self, table_bytes: usize, now: usize) -> usize {
        let step = (self.caches / 64).max(1);
        let over = table_bytes.saturating_sub(self.tables);
        let wanted = over.checked_next_multiple_of(step).unwrap_or(over);
        if wanted > now || now - wanted > 2 * step { wanted } else { now }
    }

    /// The sizes of caches that give up `given_up`, if the block cache is to have `blocks` and the
    /// value cache the rest: the value cache gives up first, down to its least.
    pub fn sizes(&self, given_up: usize, blocks: usize) -> CacheSizes {
        let left = self.caches.saturating_sub(given_up);
        let beside_values = left.saturating_sub(self.values.0);
        let blocks = blocks.min(beside_values).clamp(self.blocks.0, self.blocks.1);
        let values = left.saturating_sub(blocks).clamp(self.values.0, self.values.1);
        let taken = values.saturating_add(blocks).saturating_add(given_up);
        CacheSizes { values, blocks, excess: taken.saturating_sub(self.caches) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_are_divided_as_in_this_table() {
        let mebibytes = |share: usize, value: usize| {
            let plan = ShardMemory::plan(share << 20, value << 20).expect("enough");
            plan.parts().map(|(_, bytes)| bytes >> 20)
        };
        // Memtables, log, maintenance, dead and listed records, recent, tables, caches, reserve.
        for (share, value, expected) in [
            (16, 1, [2, 3, 6, 0, 0, 0, 1, 2, 1]),
            (112, 1, [14, 7, 9, 1, 1, 0, 7, 64, 7]),
            (896, 1, [64, 14, 22, 14, 14, 0, 56, 655, 56]),
            (896, 128, [64, 268, 276, 14, 14, 0, 56, 147, 56]),
            (65_536, 1, [64, 14, 22, 1024, 1024, 0, 4096, 55_195, 4096]),
        ] {
            assert_eq!(mebibytes(share, value), expected, "{share} MiB, values of {value} MiB");
        }
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_share_and_what_is_too_little_is_refused(
            share in prop_oneof![0usize..64 << 20, 0usize..1 << 40, Just(usize::MAX)],
            value in prop_oneof![1usize << 10..8 << 20, 1usize << 10..128 << 20, Just(usize::MAX)],
        ) {
            match ShardMemory::plan(share, value) {
                Some(plan) => {
                    prop_assert_eq!(plan.total(), share);
                    prop_assert!(plan.value_cache + plan.block_cache >= CACHES_MIN);
                    prop_assert!(plan.block_cache < plan.value_cache);
                }
                None => prop_assert!(value == usize::MAX || share < ShardMemory::share_min(value)),
            }
        }

        #[test]
        fn the_least_share_suffices_and_so_does_any_larger(
            value in 1usize << 10..128 << 20,
            more in 0usize..1 << 40,
        ) {
            let least = ShardMemory::share_min(value);
            prop_assert!(ShardMemory::plan(least - (1 << 20), value).is_none());
            prop_assert!(ShardMemory::plan(least + more, value).is_some());
        }

        #[test]
        fn caches_that_move_their_bounds_can_shrink_to_what_they_begin_with(
            values in prop_oneof![0usize..64 << 20, DIVIDED_MIN..DIVIDED_MIN + (1 << 20)],
            blocks in prop_oneof![0usize..64 << 20, DIVIDED_MIN..DIVIDED_MIN + (1 << 20)],
        ) {
            let maxima = cache_maxima(values, blocks);
            prop_assert!(maxima.0 >= values && maxima.1 >= blocks);
            let made = (ItemCache::new(maxima.0), BlockCache::new(maxima.1));
            let balance = CacheBalance::new(0, values + blocks, &made.0, &made.1);
            let sizes = balance.sizes(0, blocks);
            prop_assert_eq!(sizes, CacheSizes { values, blocks, excess: 0 });
            let is_divided = values.min(blocks) >= DIVIDED_MIN;
            prop_assert_eq!(balance.step() > 0, is_divided, "{:?}", balance);
        }

        #[test]
        fn caches_and_tables_stay_within_what_they_have_together(
            tables in 0usize..1 << 30,
            values in (0usize..1 << 30, 0usize..1 << 30),
            blocks in (0usize..1 << 30, 0usize..1 << 30),
            caches in 0usize..1 << 31,
            steps in proptest::collection::vec((0usize..1 << 31, 0usize..1 << 31), 1..30),
        ) {
            let ordered = |(min, more): (usize, usize)| (min, min + more);
            let (values, blocks) = (ordered(values), ordered(blocks));
            let balance = CacheBalance { tables, caches, values, blocks };
            let all = tables + caches;
            let step = (caches / 64).max(1);
            let mut given_up = 0;
            for (table_bytes, wanted) in steps {
                given_up = balance.given_up(table_bytes, given_up);
                let sizes = balance.sizes(given_up, wanted);
                prop_assert!((values.0..=values.1).contains(&sizes.values));
                prop_assert!((blocks.0..=blocks.1).contains(&sizes.blocks));
                let taken = table_bytes + sizes.values + sizes.blocks;
                prop_assert!(taken <= all + sizes.excess, "{} of {}", taken, all);
                let is_least = sizes.blocks == blocks.0 && sizes.values == values.0;
                prop_assert!(sizes.excess == 0 || is_least);
                let is_as_wanted = sizes.blocks == wanted.clamp(blocks.0, blocks.1);
                prop_assert!(is_as_wanted || sizes.values == values.0 || sizes.excess > 0);
                prop_assert_eq!(balance.given_up(table_bytes, given_up), given_up);
                let over = table_bytes.saturating_sub(tables);
                prop_assert!(given_up <= over + 3 * step, "what is not needed comes back");
            }
        }
    }
}
