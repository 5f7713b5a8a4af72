//! Keeping caches and tables within the memory that they have together, and giving each cache what
//! it makes the most of.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_lite::future;
use larder_runtime::env::Env;

use super::{Shard, ShardOptions, State};
use crate::cache::{CacheCounters, ItemCache};
use crate::index::table::BlockCache;
use crate::memory::{CacheBalance, CacheDivision, CacheKind, CacheSeen, CacheSizes};

/// How long reads are counted before memory may move from one cache to the other, in nanoseconds.
const WINDOW_NANOSECONDS: u64 = 1_000_000_000;

/// What a shard's caches give up for its tables, and how they share the rest.
pub(super) struct CacheRoom {
    balance: CacheBalance,
    given_up: Cell<usize>,
    /// What the block cache is to have, in bytes, as long as tables leave it that.
    blocks: Cell<usize>,
    division: RefCell<CacheDivision>,
    /// When the current window ends.
    window_end: Cell<u64>,
    /// What was counted when it began.
    before: Cell<Counts>,
    /// The most that the value cache is to have, in bytes, whatever there is room for.
    values_max: Cell<usize>,
    /// Whether that was said since the caches were made as large as they are.
    is_limited_anew: Cell<bool>,
    /// The excess that was last warned of, in bytes.
    warned: Cell<usize>,
}

/// What the caches have counted since the start.
#[derive(Clone, Copy, Default)]
struct Counts {
    values: CacheCounters,
    blocks: CacheCounters,
    /// Of the values' near misses, those for which the value was read.
    near_values: u64,
}

/// A shard's memory in numbers, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStatistics {
    /// What indexes and filters of tables may have together with both caches.
    pub tables_and_caches_max: u64,
    /// What indexes and filters of tables take beyond all that the caches can give up.
    pub excess: u64,
    /// What the marks of dead records take.
    pub dead_records: u64,
    /// What the lists of records take.
    pub listed_records: u64,
}

impl CacheRoom {
    pub(super) fn new(options: &ShardOptions, items: &mut ItemCache, blocks: &BlockCache) -> Self {
        let caches = options.item_cache_bytes.saturating_add(options.block_cache_bytes);
        let balance = CacheBalance::new(options.table_memory_bytes, caches, items, blocks);
        if balance.step() > 0 {
            items.set_margin(balance.step());
            blocks.set_margin(balance.step());
        }
        Self {
            balance,
            given_up: Cell::new(0),
            blocks: Cell::new(options.block_cache_bytes),
            division: RefCell::default(),
            window_end: Cell::new(0),
            before: Cell::default(),
            values_max: Cell::new(usize::MAX),
            is_limited_anew: Cell::new(false),
            warned: Cell::new(0),
        }
    }

    /// What the caches are to be.
    fn sizes(&self) -> CacheSizes {
        let sizes = self.balance.sizes(self.given_up.get(), self.blocks.get());
        let values_max = self.values_max.get().max(self.balance.values.0);
        CacheSizes { values: sizes.values.min(values_max), ..sizes }
    }

    /// What they are to be once one of them has a step of the other's; `None` if that cannot be.
    fn moved(&self, to: CacheKind) -> Option<CacheSizes> {
        let (now, step) = (self.sizes(), self.balance.step());
        let blocks = match to {
            CacheKind::Values => now.blocks.saturating_sub(step),
            CacheKind::Blocks => now.blocks.saturating_add(step),
        };
        let sizes = self.balance.sizes(self.given_up.get(), blocks);
        let values_max = self.values_max.get();
        let is_whole = sizes.blocks == blocks
            && sizes.values.abs_diff(now.values) == step
            && sizes.values <= values_max;
        is_whole.then_some(sizes)
    }

    /// Whether a window has ended.
    fn is_window_over(&self, now: u64) -> bool {
        self.balance.step() > 0 && now >= self.window_end.get()
    }
}

/// What of a cache was seen in a window, but for what it may give and take.
fn seen_of(now: &CacheCounters, before: &CacheCounters, saved: u64) -> CacheSeen {
    CacheSeen {
        size: now.capacity,
        held: now.bytes_used,
        hits: now.hits - before.hits,
        saved,
        ..CacheSeen::default()
    }
}

/// What was seen of the values' and the blocks' cache between two counts.
fn seen_between(before: &Counts, now: &Counts) -> [CacheSeen; 2] {
    let (values, blocks) = (&now.values, &now.blocks);
    let value_reads = now.near_values - before.near_values;
    // A value that is in memory saves what its look-up reads as well: as much as others do.
    let near = values.near_misses - before.values.near_misses;
    let looked_up = values.reads - before.values.reads;
    let block_reads = (blocks.reads - before.blocks.reads).min(looked_up);
    let look_ups = near.saturating_mul(block_reads).checked_div(looked_up).unwrap_or(0);
    let of_blocks = blocks.near_misses - before.blocks.near_misses;
    [
        seen_of(values, &before.values, value_reads + look_ups),
        seen_of(blocks, &before.blocks, of_blocks),
    ]
}

impl State {
    /// Counts that an item's value, or what leads to it, was read, and is going to be cached.
    pub(super) fn note_value_read(&mut self, hash: u64, is_in_log: bool) {
        let is_near = self.items.note_read(hash);
        self.operations.near_values += u64::from(is_near && is_in_log);
    }
}

impl<E: Env> Shard<E> {
    /// Makes the caches as large as the tables let them be, and each as large as is of use, for as
    /// long as the shard is open.
    pub(super) async fn keep_memory(self: Rc<Self>) {
        let room = &self.cache_room;
        loop {
            let next = || {
                let closing = self.state.borrow().closing;
                let has_limit = room.is_limited_anew.get();
                let is_due = has_limit
                    || self.cache_room_wanted().is_some()
                    || room.is_window_over(self.env.now());
                (closing || is_due).then_some(closing)
            };
            if self.work.wait_for(next).await {
                return;
            }
            room.is_limited_anew.set(false);
            self.take_cache_room();
            if room.is_window_over(self.env.now()) {
                self.divide_caches();
            }
            while !self.resize_caches() {
                future::yield_now().await;
            }
        }
    }

    /// The value cache has at most so many bytes from now on, though no less than what it can
    /// shrink to; more than there is room for means all of that. While that is less than its part,
    /// no memory moves between the caches. A start knows nothing of it.
    pub fn limit_value_cache(&self, bytes: usize) {
        self.cache_room.values_max.set(bytes);
        self.cache_room.is_limited_anew.set(true);
        self.something_changed();
    }

    /// Makes empty caches as large as the tables that a start has found let them be.
    pub(super) fn size_empty_caches(&self) {
        self.cache_room.window_end.set(self.env.now() + WINDOW_NANOSECONDS);
        self.take_cache_room();
        while !self.resize_caches() {}
    }

    /// Ends a window: looks whether one of the caches should have more of the other's memory.
    fn divide_caches(&self) {
        let room = &self.cache_room;
        room.window_end.set(self.env.now() + WINDOW_NANOSECONDS);
        let now = {
            let state = self.state.borrow();
            let (values, near_values) = (state.items.counters(), state.operations.near_values);
            Counts { values, blocks: self.index.blocks().counters(), near_values }
        };
        let mut seen = seen_between(&room.before.replace(now), &now);
        let [to_values, to_blocks] =
            [CacheKind::Values, CacheKind::Blocks].map(|to| room.moved(to));
        for (cache, to_it, to_other) in [(0, to_values, to_blocks), (1, to_blocks, to_values)] {
            (seen[cache].can_take, seen[cache].can_give) = (to_it.is_some(), to_other.is_some());
        }
        let moved = room.division.borrow_mut().judge(seen, room.balance.step());
        if let Some(sizes) = moved.and_then(|to| room.moved(to)) {
            room.blocks.set(sizes.blocks);
            tracing::debug!(
                shard = self.options.shard,
                "the caches have {} KiB for values and {} KiB for blocks of tables from now on",
                sizes.values >> 10,
                sizes.blocks >> 10,
            );
        }
    }

    /// How much the caches should give up, if that is not what they do.
    fn cache_room_wanted(&self) -> Option<usize> {
        let (room, now) = (&self.cache_room, self.cache_room.given_up.get());
        let wanted = room.balance.given_up(self.index.memory_bytes(), now);
        (wanted != now).then_some(wanted)
    }

    /// Decides anew how much the caches give up, and warns when that cannot be enough.
    fn take_cache_room(&self) {
        let room = &self.cache_room;
        if let Some(wanted) = self.cache_room_wanted() {
            room.given_up.set(wanted);
        }
        let excess = room.sizes().excess;
        let warned = room.warned.get();
        if excess > 2 * warned {
            tracing::warn!(
                shard = self.options.shard,
                "indexes and filters of tables take {} MiB, {} MiB more than this shard has room \
                 for with caches at their least: raise --memory by {} MiB, or the process takes \
                 more than it was given",
                self.index.memory_bytes() >> 20,
                excess.div_ceil(1 << 20),
                excess.saturating_mul(usize::from(self.options.shards)).div_ceil(1 << 20),
            );
            room.warned.set(excess);
        } else if excess == 0 {
            room.warned.set(0);
        }
    }

    /// Takes a step towards what was decided, and says whether it is reached. No cache grows before
    /// the other is as small as it is to be.
    fn resize_caches(&self) -> bool {
        let sizes = self.cache_room.sizes();
        let blocks = self.index.blocks();
        let items = &mut self.state.borrow_mut().items;
        let is_smaller = |size: usize, now: CacheCounters| size < now.capacity;
        let values_shrink = is_smaller(sizes.values, items.counters());
        let blocks_shrink = is_smaller(sizes.blocks, blocks.counters());
        if values_shrink || blocks_shrink {
            let are_values_small = !values_shrink || items.resize(sizes.values);
            let are_blocks_small = !blocks_shrink || blocks.resize(sizes.blocks);
            if !are_values_small || !are_blocks_small {
                return false;
            }
        }
        let values_reached = items.resize(sizes.values);
        blocks.resize(sizes.blocks) && values_reached
    }

    pub(super) fn memory_statistics(&self) -> MemoryStatistics {
        let room = &self.cache_room;
        let CacheBalance { tables, caches, .. } = room.balance;
        MemoryStatistics {
            tables_and_caches_max: tables.saturating_add(caches) as u64,
            excess: room.sizes().excess as u64,
            dead_records: self.garbage.dead.borrow().memory_bytes() as u64,
            listed_records: self.garbage.listed.borrow().memory_bytes() as u64,
        }
    }
}
