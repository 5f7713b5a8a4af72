//! Keeping caches and tables within the memory that they have together.

use std::cell::Cell;
use std::rc::Rc;

use futures_lite::future;
use larder_runtime::env::Env;

use super::{Shard, ShardOptions};
use crate::cache::ItemCache;
use crate::index::table::BlockCache;
use crate::memory::{CacheBalance, CacheSizes};

/// What a shard's caches give up for its tables.
pub(super) struct CacheRoom {
    balance: CacheBalance,
    given_up: Cell<usize>,
    /// The most that the value cache is to have, in bytes, whatever there is room for.
    values_max: Cell<usize>,
    /// Whether that was said since the caches were made as large as they are.
    is_limited_anew: Cell<bool>,
    /// The excess that was last warned of, in bytes.
    warned: Cell<usize>,
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
    pub(super) fn new(options: &ShardOptions, items: &ItemCache, blocks: &BlockCache) -> Self {
        let balance = CacheBalance::new(options.table_memory_bytes, items, blocks);
        Self {
            balance,
            given_up: Cell::new(0),
            values_max: Cell::new(usize::MAX),
            is_limited_anew: Cell::new(false),
            warned: Cell::new(0),
        }
    }

    /// What the caches are to be.
    fn sizes(&self) -> CacheSizes {
        let sizes = self.balance.sizes(self.given_up.get());
        let values_max = self.values_max.get().max(self.balance.values.0);
        CacheSizes { values: sizes.values.min(values_max), ..sizes }
    }
}

impl<E: Env> Shard<E> {
    /// Makes the caches as large as the tables let them be, for as long as the shard is open.
    pub(super) async fn keep_memory(self: Rc<Self>) {
        loop {
            let next = || {
                let closing = self.state.borrow().closing;
                let has_limit = self.cache_room.is_limited_anew.get();
                (closing || has_limit || self.cache_room_wanted().is_some()).then_some(closing)
            };
            if self.work.wait_for(next).await {
                return;
            }
            self.cache_room.is_limited_anew.set(false);
            self.take_cache_room();
            while !self.resize_caches() {
                future::yield_now().await;
            }
        }
    }

    /// The value cache has at most so many bytes from now on, though no less than the third of its
    /// largest that it can shrink to; more than there is room for means all of that. A start knows
    /// nothing of it.
    pub fn limit_value_cache(&self, bytes: usize) {
        self.cache_room.values_max.set(bytes);
        self.cache_room.is_limited_anew.set(true);
        self.something_changed();
    }

    /// Makes empty caches as large as the tables that a start has found let them be.
    pub(super) fn size_empty_caches(&self) {
        self.take_cache_room();
        while !self.resize_caches() {}
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

    /// Takes a step towards what was decided, and says whether it is reached.
    fn resize_caches(&self) -> bool {
        let sizes = self.cache_room.sizes();
        let values = self.state.borrow_mut().items.resize(sizes.values);
        let blocks = self.index.blocks().resize(sizes.blocks);
        values && blocks
    }

    pub(super) fn memory_statistics(&self) -> MemoryStatistics {
        let room = &self.cache_room;
        let CacheBalance { tables, values, blocks } = room.balance;
        MemoryStatistics {
            tables_and_caches_max: tables.saturating_add(values.1).saturating_add(blocks.1) as u64,
            excess: room.sizes().excess as u64,
            dead_records: self.garbage.dead.borrow().memory_bytes() as u64,
            listed_records: self.garbage.listed.borrow().memory_bytes() as u64,
        }
    }
}
