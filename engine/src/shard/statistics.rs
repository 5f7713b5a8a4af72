//! What a shard has done and holds, for metrics and `stats`.

use larder_runtime::env::Env;

use super::{CompressionCounters, Ingest, LeaseStatistics, MemoryStatistics, Shard};
use crate::cache::CacheCounters;
use crate::index::IndexStatistics;
use crate::operation::Operation;
use crate::scrub::ScrubCounters;
use crate::value_log::commit::LogCounters;

/// How often each kind of operation was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperationCounters {
    /// Reads.
    pub reads: u64,
    /// Stores of any mode.
    pub stores: u64,
    /// Deletes.
    pub deletes: u64,
    /// Increments and decrements.
    pub arithmetics: u64,
    /// Reads that the value cache answered.
    pub cached: u64,
    /// Operations that had to wait for the device, for their turn, or for space.
    pub later: u64,
    /// Values that were read from the log.
    pub value_reads: u64,
    /// Of these, those that a little more memory for values would have saved: one step of those in
    /// which memory moves between the caches.
    pub near_values: u64,
    /// Segments that were collected.
    pub collections: u64,
    /// Records that were moved by collections.
    pub collected_records: u64,
    /// Bytes of these records.
    pub collected_bytes: u64,
    /// Of these bytes, what was copied from the value cache.
    pub collected_cached_bytes: u64,
}

impl OperationCounters {
    pub(super) fn count(&mut self, operation: &Operation<'_>) {
        match operation {
            Operation::Read(_) => self.reads += 1,
            Operation::Store(_) => self.stores += 1,
            Operation::Delete(_) => self.deletes += 1,
            Operation::Arithmetic(_) => self.arithmetics += 1,
            Operation::Exchange(exchange) if !exchange.stores() => self.deletes += 1,
            Operation::Exchange(_) => self.stores += 1,
        }
    }
}

/// A shard's space, and its node's, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceStatistics {
    /// Of all files of the shard but manifest and superblock, which do not grow.
    pub allocated: u64,
    /// Of these, bytes that leases alone keep, which do not count for the cap.
    pub leased: u64,
    /// What lives: keys and values, estimated from below.
    pub live: u64,
    /// What the files may take, going by that estimate.
    pub cap: u64,
    /// What they may still grow by, going by the cap and by what the node has left.
    pub headroom: u64,
    /// The disk limit of the node, if there is one.
    pub node_limit: Option<u64>,
    /// Files of the node, and what is promised to files that are being made.
    pub node_taken: u64,
    /// What the node may still take, by its limit and by the file system.
    pub node_headroom: u64,
}

/// How far writers are held back for the collector, and for merges.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaceStatistics {
    /// Whether little headroom is left, and writers have to keep the collector's pace; or merges
    /// are behind, and writers are slowed.
    pub is_kept: bool,
    /// How often answers were held back.
    pub holds: u64,
    /// For how long in all.
    pub held_nanoseconds: u64,
}

/// What a start would have to do now.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoveryStatistics {
    /// Bytes of the log that it would replay.
    pub log_bytes: u64,
    /// How long that would take, estimated from the replay of this start.
    pub nanoseconds: u64,
}

/// A shard's state in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Operations so far.
    pub operations: OperationCounters,
    /// Leases.
    pub leases: LeaseStatistics,
    /// The log so far.
    pub log: LogCounters,
    /// The value cache.
    pub items: CacheCounters,
    /// The index.
    pub index: IndexStatistics,
    /// Segments of the value log.
    pub segments: u64,
    /// Bytes of the segments' files.
    pub segment_bytes: u64,
    /// Bytes of records in the log that tables point at.
    pub live_bytes: u64,
    /// Operations waiting for their turn or the device, by key.
    pub waiting_keys: u64,
    /// Whether writes are refused because the disk is full.
    pub disk_full: bool,
    /// Whether the log may grow for writes.
    pub ingest: Ingest,
    /// Segments that are not collected because something in them cannot be read.
    pub unreadable_segments: u64,
    /// The space.
    pub space: SpaceStatistics,
    /// The memory of caches and tables.
    pub memory: MemoryStatistics,
    /// Holding writers back.
    pub pace: PaceStatistics,
    /// What a start would have to do.
    pub recovery: RecoveryStatistics,
    /// What scrubbing has done.
    pub scrub: ScrubCounters,
    /// What compressing values has come to.
    pub compression: CompressionCounters,
}

impl<E: Env> Shard<E> {
    /// The shard in numbers.
    pub fn statistics(&self) -> Statistics {
        let state = self.state.borrow();
        let journal = self.journal.state();
        Statistics {
            operations: state.operations,
            leases: self.leases.statistics(),
            log: self.log.counters(),
            items: state.items.counters(),
            index: self.index.statistics(),
            segments: journal.segments.len() as u64,
            segment_bytes: journal.segments.values().map(|s| u64::from(s.file_bytes)).sum(),
            live_bytes: journal.segments.values().map(|segment| segment.live_bytes).sum(),
            waiting_keys: self.turns.len() as u64,
            disk_full: state.full.refuses(),
            ingest: state.full.ingest,
            unreadable_segments: self.garbage.unreadable.borrow().len() as u64,
            space: self.space_statistics(),
            memory: self.memory_statistics(),
            pace: self.pace_statistics(),
            recovery: self.recovery_statistics(),
            scrub: self.scrubber.counters(),
            compression: self.compression.counters(),
        }
    }

    fn space_statistics(&self) -> SpaceStatistics {
        let (usage, limits, budget) = (self.usage(), self.limits(), &self.options.budget);
        // A file system that does not answer sets no limit here; making files will say so.
        let free = self.env.free_space(&self.directory).unwrap_or(u64::MAX);
        SpaceStatistics {
            allocated: usage.allocated + usage.leased,
            leased: usage.leased,
            live: usage.live(),
            cap: usage.cap(&limits),
            headroom: usage.headroom(&limits),
            node_limit: budget.limit(),
            node_taken: budget.taken(),
            node_headroom: budget.headroom(free),
        }
    }

    fn pace_statistics(&self) -> PaceStatistics {
        let pace = self.pacing.pace.get().totals();
        let backpressure = self.pacing.backpressure.get().totals();
        PaceStatistics {
            is_kept: self.pacing.is_kept.get(),
            holds: pace.0 + backpressure.0,
            held_nanoseconds: pace.1 + backpressure.1,
        }
    }

    fn recovery_statistics(&self) -> RecoveryStatistics {
        let log_bytes = self.unflushed_log_bytes();
        RecoveryStatistics { log_bytes, nanoseconds: self.replay_rate.nanoseconds_for(log_bytes) }
    }

    /// Bytes of the log that are in no table: a start replays them.
    fn unflushed_log_bytes(&self) -> u64 {
        let frozen = if self.index.has_frozen() { self.frozen_log_bytes.get() } else { 0 };
        frozen + self.log.bytes_since_mark()
    }
}
