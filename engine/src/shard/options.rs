//! A shard's settings.

use std::sync::Arc;

use larder_runtime::disk_budget::DiskBudget;

use crate::index::IndexOptions;
use crate::index::compaction::picker::PickerOptions;
use crate::index::table::TableOptions;
use crate::memory::ShardMemory;
use crate::scrub::ScrubOptions;
use crate::value_log::LogOptions;

/// A shard's settings. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// This shard's index in its store.
    pub shard: u16,
    /// How many shards the store has.
    pub shards: u16,
    /// The standard length of a value log segment.
    pub segment_bytes: u32,
    /// A memtable is written out when it is this large; two may exist at a time.
    pub memtable_bytes: usize,
    /// Values up to this long live in the index, longer ones in the log only.
    pub inline_bytes_max: usize,
    /// The longest value.
    pub value_bytes_max: usize,
    /// Memory of the value cache, at most.
    pub item_cache_bytes: usize,
    /// Memory of the table block cache, at most.
    pub block_cache_bytes: usize,
    /// Memory for marks of dead log records.
    pub dead_records_bytes: usize,
    /// Memory for the lists of records of the newest segments of the log.
    pub listed_records_bytes: usize,
    /// Memory of tables' indexes and filters above which the caches give up room.
    pub table_memory_bytes: usize,
    /// Free space that is left to flushes, compaction and deletes when the disk fills up.
    pub disk_reserve_bytes: u64,
    /// Files of freed segments that are kept for use as new ones.
    pub free_segments_max: usize,
    /// Bytes of the log that a start may have to replay: when half of it is not flushed, the
    /// memtable is written out.
    pub recovery_log_bytes: u64,
    /// When the unflushed log is so old, in nanoseconds, the memtable is written out.
    pub recovery_log_nanoseconds: u64,
    /// Files may take this many hundredths of what lives, and a floor of six segments besides.
    pub space_amplification_percent: u32,
    /// How fast segments are collected, in bytes a second; none means as fast as is needed.
    pub collect_bytes_per_second: Option<u64>,
    /// How fast files are scrubbed.
    pub scrub: ScrubOptions,
    /// The disk space of the node, shared by all its shards.
    pub budget: Arc<DiskBudget>,
    /// How many version numbers are reserved in the manifest at a time.
    pub version_step: u64,
    /// The log's settings.
    pub log: LogOptions,
    /// The tables' settings.
    pub tables: TableOptions,
    /// The compaction picker's settings.
    pub picker: PickerOptions,
}

impl ShardOptions {
    /// Settings for a shard that has so much memory.
    pub fn for_memory(shard: u16, shards: u16, memory: &ShardMemory) -> Self {
        let memtable_bytes = memory.memtables / 2;
        let table_bytes = TableOptions::default().table_bytes;
        Self {
            shard,
            shards,
            segment_bytes: 64 << 20,
            memtable_bytes,
            inline_bytes_max: 128,
            value_bytes_max: memory.value_bytes_max,
            item_cache_bytes: memory.value_cache,
            block_cache_bytes: memory.block_cache,
            table_memory_bytes: memory.tables,
            dead_records_bytes: memory.dead_records,
            listed_records_bytes: memory.listed_records,
            // A flush, one merge of a level 0 with what it overlaps, and the manifest.
            disk_reserve_bytes: 2 * memtable_bytes as u64 + 16 * table_bytes,
            free_segments_max: 8,
            recovery_log_bytes: (256 << 20) / u64::from(shards.max(1)),
            recovery_log_nanoseconds: 3600 * 1_000_000_000,
            space_amplification_percent: 150,
            collect_bytes_per_second: None,
            scrub: ScrubOptions::default(),
            budget: DiskBudget::new(None),
            version_step: 1 << 24,
            log: LogOptions {
                queued_bytes_max: memory.log_queue,
                kept_bytes_max: memory.log_buffers,
                ..LogOptions::default()
            },
            tables: TableOptions::default(),
            picker: PickerOptions::default(),
        }
    }

    /// The index's part of the settings.
    pub fn index(&self) -> IndexOptions {
        IndexOptions {
            memtable_bytes: self.memtable_bytes,
            block_cache_bytes: self.block_cache_bytes,
            tables: self.tables,
            picker: self.picker,
        }
    }

    /// Log space that only deletes and the collector's moves may use when the log may not grow.
    pub fn delete_reserve_bytes(&self) -> u64 {
        u64::from(self.segment_bytes / 4)
    }
}
