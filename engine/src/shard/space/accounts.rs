//! What the shard takes of the disk: promised by the node's budget, told to it, and held against
//! the limits.

use larder_runtime::disk_budget::{DiskBudget, Promise};
use larder_runtime::env::Env;

use super::MANIFEST_BYTES;
use crate::error::EngineError;
use crate::shard::Shard;
use crate::space::{Purpose, SpaceLimits, SpaceUsage};

/// Space is kept for a merge of tables of so many segments' length; of longer ones for half.
const MERGE_SEGMENTS: u64 = 2;

impl<E: Env> Shard<E> {
    /// Sets `bytes` of the node's budget aside.
    pub(in crate::shard) fn promise(
        &self,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<Promise, EngineError> {
        let options = &self.options;
        let left = purpose.left(options.disk_reserve_bytes, options.segment_bytes, options.shards);
        // Files to be used again could be given back at once.
        let left = left.saturating_sub(self.recyclable());
        let free = || self.env.free_space(&self.directory);
        let promise =
            DiskBudget::promise(&options.budget, bytes, left, free).map_err(|source| {
                EngineError::io(&self.directory, "asking for the free space of", &source)
            })?;
        promise.ok_or(EngineError::Full)
    }

    /// Tells the node's budget what the shard's files take now.
    pub(in crate::shard) fn account(&self) {
        let now = self.allocated();
        let before = self.accounted.replace(now);
        if now > before {
            self.options.budget.adopt(now - before);
        } else {
            self.options.budget.release(before - now);
        }
    }

    /// Notes that files came or went, and lets those look again who wait for space.
    pub(in crate::shard) fn space_changed(&self) {
        let before = self.accounted.get();
        self.account();
        if self.accounted.get() < before {
            self.waiting_since.set(None);
        }
        self.update_pace();
        self.space_freed.notify();
        self.log.needs().notify();
    }

    /// Bytes of all files of the shard.
    fn allocated(&self) -> u64 {
        let journal = self.journal.state();
        let segments: u64 = journal.segments.values().map(|s| u64::from(s.file_bytes)).sum();
        let tables: u64 = journal.levels.iter().flatten().map(|table| table.file_bytes).sum();
        let free = self.free.borrow().bytes(self.options.segment_bytes);
        segments + tables + free + self.index.doomed_bytes() + MANIFEST_BYTES
    }

    /// Bytes of the files that are used again before new ones are made.
    fn recyclable(&self) -> u64 {
        self.free.borrow().ready() as u64 * u64::from(self.options.segment_bytes)
    }

    /// How full the shard is.
    pub(in crate::shard) fn usage(&self) -> SpaceUsage {
        let budget = &self.options.budget;
        let free = self.env.free_space(&self.directory).unwrap_or(u64::MAX);
        let (index, estimate) = (self.index.statistics(), self.index.estimate());
        let ingest = Purpose::Ingest.left(
            self.options.disk_reserve_bytes,
            self.options.segment_bytes,
            self.options.shards,
        );
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = signed(budget.headroom(free)) - signed(ingest);
        let shared_by = if left > 0 { i64::from(self.options.shards.max(1)) } else { 1 };
        let leased = self.leased_bytes();
        let mut usage = SpaceUsage {
            // Manifest and superblock do not grow with what is stored.
            allocated: self.accounted.get().saturating_sub(MANIFEST_BYTES + leased),
            leased,
            recyclable: self.recyclable(),
            merging: self.merging_bytes(index.table_bytes),
            left: left / shared_by,
            in_tables: estimate.visible_bytes,
            mean_record: estimate.mean_record_bytes,
            table_entries: index.table_entries,
            table_bytes: index.table_bytes,
            memtable_hidden: estimate.memtable_hidden_bytes,
            memtable_referenced: index.memtable_separate_bytes,
            lived: 0,
            collector_room: self.collector.room(),
        };
        let mut lived = self.pacing.lived.get();
        usage.lived = lived.see(usage.live(), self.env.now());
        self.pacing.lived.set(lived);
        usage
    }

    /// What is kept for a merge of these many bytes of tables. Between merges, tables that were
    /// replaced and wait for their removal, which is soon, count as a part of it.
    fn merging_bytes(&self, table_bytes: u64) -> u64 {
        // Where values stand in the tables, a merge of all of them does not fit below the cap.
        let whole = table_bytes.min(MERGE_SEGMENTS * u64::from(self.options.segment_bytes));
        // A table may overlap more of the next level than merges usually take.
        let picker = &self.options.picker;
        let usual = 4 * picker.merge_bytes_of(table_bytes);
        let bytes = whole.max(table_bytes / 2).min(usual).min(2 * picker.merge_bytes);
        let doomed = if self.is_merging.get() { 0 } else { self.index.doomed_bytes() };
        bytes.saturating_sub(doomed)
    }

    /// The limits that the usage is held against.
    pub(in crate::shard) fn limits(&self) -> SpaceLimits {
        SpaceLimits {
            amplification_percent: self.options.space_amplification_percent,
            segment_bytes: self.options.segment_bytes,
        }
    }
}
