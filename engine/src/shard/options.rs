//! A shard's settings.

use std::sync::Arc;

use larder_runtime::disk_budget::DiskBudget;

use crate::index::IndexOptions;
use crate::index::compaction::picker::PickerOptions;
use crate::index::table::TableOptions;
use crate::large::{LARGE_BYTES_MAX, LargeOptions, UPLOADS_OF_STAGED};
use crate::memory::{self, ShardMemory};
use crate::scrub::ScrubOptions;
use crate::space::Purpose;
use crate::value_log::LogOptions;

use super::space::MANIFEST_BYTES;

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
    /// Values of namespaces that say nothing about it are compressed from this length on; `None`:
    /// not at all. See [`Shard::set_compression`].
    ///
    /// [`Shard::set_compression`]: super::Shard::set_compression
    pub compress_from: Option<usize>,
    /// The longest value.
    pub value_bytes_max: usize,
    /// Memory that the value cache begins with. What both caches have together does not change, but
    /// for what tables need; the shard moves memory from one to the other as reads show what it
    /// is of use for. Where one of them begins with little or nothing none is moved.
    pub item_cache_bytes: usize,
    /// Memory that the table block cache begins with.
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
    /// What becomes of deletions of ranges.
    pub ranges: RangeOptions,
    /// How large values are kept.
    pub large: LargeOptions,
}

/// How deletions of ranges are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOptions {
    /// What deletions take in memory, and roughly in the manifest, before further ones wait for
    /// these to be carried out; in bytes. The memtable is written out for their sake at a quarter.
    pub bytes_max: usize,
    /// How often deletions are carried out, in nanoseconds.
    pub round_nanoseconds: u64,
    /// How old the unflushed log may become while a deletion in it waits to be carried out, in
    /// nanoseconds.
    pub unflushed_nanoseconds_max: u64,
}

impl Default for RangeOptions {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            round_nanoseconds: 1_000_000_000,
            unflushed_nanoseconds_max: 10_000_000_000,
        }
    }
}

/// From which length on values are compressed unless it is said, in bytes.
pub const COMPRESS_FROM_DEFAULT: usize = 1 << 10;

/// The standard length of a segment: shorter on a small disk, of which a few segments would else be
/// all.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// So many segments make a shard's part of the disk at least, where they are longer than the least.
///
/// Besides what lives, a full shard has an open segment of the log and its spare, those that
/// collected records are moved to (one or two, and from 16 that live up to four, where items
/// expire), and an eighth of everything that is dead but not worth collecting. With so many
/// segments more than that is dead when a half of the keys is deleted, whichever half.
const SEGMENTS_OF_DISK_MIN: u64 = 32;

/// Large values that are staged take at most this part of a shard's part of the disk; of a small
/// one twice as much, up to what lets values have their usual length.
const STAGED_OF_DISK: u64 = 4;

/// Bytes that may be staged on the smallest disk.
const STAGED_BYTES_MIN: u64 = 4 << 20;

/// A table has this part of a segment's length.
const TABLES_OF_SEGMENT: u64 = 8;

impl ShardOptions {
    /// Settings for a shard that has so much memory.
    pub fn for_memory(shard: u16, shards: u16, memory: &ShardMemory) -> Self {
        let memtable_bytes = memory.memtables / 2;
        let table_bytes = TableOptions::default().table_bytes;
        Self {
            shard,
            shards,
            segment_bytes: SEGMENT_BYTES_MAX as u32,
            memtable_bytes,
            inline_bytes_max: 128,
            compress_from: Some(COMPRESS_FROM_DEFAULT),
            value_bytes_max: memory.value_bytes_max,
            item_cache_bytes: memory.value_cache,
            block_cache_bytes: memory.block_cache,
            table_memory_bytes: memory.tables,
            dead_records_bytes: memory.dead_records,
            listed_records_bytes: memory.listed_records,
            disk_reserve_bytes: disk_reserve_bytes(memtable_bytes, table_bytes),
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
            ranges: RangeOptions::default(),
            large: LargeOptions::default(),
        }
    }

    /// The same for a disk of `bytes`, which all shards of the store share: what is small there is
    /// made of small parts. A shard that is there keeps the length of its segments.
    pub fn on_disk_of(mut self, bytes: u64) -> Self {
        let part = bytes / u64::from(self.shards.max(1)) / SEGMENTS_OF_DISK_MIN;
        // A power of two, rounded down.
        let segment_bytes = (1 << part.max(1).ilog2()).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let table_bytes = self.tables.table_bytes.min(segment_bytes / TABLES_OF_SEGMENT);
        self.segment_bytes = segment_bytes as u32;
        self.memtable_bytes = self.memtable_bytes.min(segment_bytes as usize);
        self.tables.table_bytes = table_bytes;
        self.disk_reserve_bytes = disk_reserve_bytes(self.memtable_bytes, table_bytes);
        let staged_bytes = bytes / u64::from(self.shards.max(1)) / STAGED_OF_DISK;
        let usual = u64::from(LARGE_BYTES_MAX) * UPLOADS_OF_STAGED;
        let staged_bytes = staged_bytes.max(usual.min(2 * staged_bytes)).max(STAGED_BYTES_MIN);
        self.large.staged_bytes_max = self.large.staged_bytes_max.min(staged_bytes);
        self
    }

    /// Free bytes that a new shard needs in order to take writes.
    pub fn disk_bytes_min(&self) -> u64 {
        let left = Purpose::Ingest.left(self.disk_reserve_bytes, self.segment_bytes, 1);
        // The log's first segment and the next.
        left + 2 * u64::from(self.segment_bytes) + MANIFEST_BYTES
    }

    /// The index's part of the settings.
    pub fn index(&self) -> IndexOptions {
        IndexOptions {
            memtable_bytes: self.memtable_bytes,
            block_cache_bytes: self.cache_maxima().1,
            tables: self.tables,
            picker: self.picker,
        }
    }

    /// What the value cache and the block cache may have at most.
    pub fn cache_maxima(&self) -> (usize, usize) {
        memory::cache_maxima(self.item_cache_bytes, self.block_cache_bytes)
    }

    /// Log space that only deletes and the collector's moves may use when the log may not grow.
    pub fn delete_reserve_bytes(&self) -> u64 {
        u64::from(self.segment_bytes / 8)
    }
}

/// What a flush takes, one merge of a level 0 with what it overlaps, and the manifest.
fn disk_reserve_bytes(memtable_bytes: usize, table_bytes: u64) -> u64 {
    2 * memtable_bytes as u64 + 16 * table_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk_of(bytes: u64, shards: u16) -> ShardOptions {
        let memory = ShardMemory::plan(128 << 20, 1 << 20).expect("it is enough");
        ShardOptions::for_memory(0, shards, &memory).on_disk_of(bytes)
    }

    #[test]
    fn a_small_disk_has_short_segments() {
        let segment = |bytes, shards| on_disk_of(bytes, shards).segment_bytes >> 20;
        assert_eq!([4 << 30, 1 << 40, u64::MAX].map(|bytes| segment(bytes, 2)), [64; 3]);
        assert_eq!(segment(1536 << 20, 2), 16);
        assert_eq!([2048 << 20, 2047 << 20].map(|bytes| segment(bytes, 1)), [64, 32]);
        assert_eq!([0, 1, 100 << 20].map(|bytes| segment(bytes, 1)), [4; 3]);
    }

    #[test]
    fn most_of_a_small_disk_is_for_data() {
        for mib in [512, 800, 1024, 1536, 4096] {
            let options = on_disk_of(mib << 20, 2);
            let kept = 2 * options.disk_bytes_min();
            assert!(kept < (mib << 20) / 2, "{mib} MiB: {} MiB are kept", kept >> 20);
        }
    }

    #[test]
    fn large_values_leave_room_for_each_other_on_any_disk() {
        let staged = |mib: u64| {
            let options = on_disk_of(mib << 20, 2).large;
            (options.staged_bytes_max >> 20, options.len_max() >> 20)
        };
        assert_eq!([1 << 20, 8192, 3072].map(staged), [(16 << 10, 128), (1024, 128), (384, 128)]);
        assert_eq!([2048, 1536, 1024].map(staged), [(384, 128), (384, 128), (256, 85)]);
        assert_eq!([96, 0].map(staged), [(24, 8), (4, 1)]);
    }

    #[test]
    fn a_large_disk_changes_nothing() {
        let memory = ShardMemory::plan(256 << 20, 1 << 20).expect("it is enough");
        let plain = ShardOptions::for_memory(0, 2, &memory);
        let fitted = plain.clone().on_disk_of(1 << 40);
        let sizes = |it: &ShardOptions| {
            (it.segment_bytes, it.memtable_bytes, it.tables.table_bytes, it.disk_reserve_bytes)
        };
        assert_eq!(sizes(&plain), sizes(&fitted));
    }
}
