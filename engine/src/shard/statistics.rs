//! What a shard has done and holds, for metrics and `stats`.

use larder_runtime::env::Env;

use super::Shard;
use crate::cache::CacheCounters;
use crate::index::IndexStatistics;
use crate::operation::Operation;
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
    /// Segments that were collected.
    pub collections: u64,
    /// Records that were moved by collections.
    pub collected_records: u64,
    /// Bytes of these records.
    pub collected_bytes: u64,
}

impl OperationCounters {
    pub(super) fn count(&mut self, operation: &Operation<'_>) {
        match operation {
            Operation::Read(_) => self.reads += 1,
            Operation::Store(_) => self.stores += 1,
            Operation::Delete(_) => self.deletes += 1,
            Operation::Arithmetic(_) => self.arithmetics += 1,
        }
    }
}

/// A shard's state in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Operations so far.
    pub operations: OperationCounters,
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
}

impl<E: Env> Shard<E> {
    /// The shard in numbers.
    pub fn statistics(&self) -> Statistics {
        let state = self.state.borrow();
        let journal = self.journal.state();
        Statistics {
            operations: state.operations,
            log: self.log.counters(),
            items: state.items.counters(),
            index: self.index.statistics(),
            segments: journal.segments.len() as u64,
            segment_bytes: journal.segments.values().map(|s| u64::from(s.file_bytes)).sum(),
            live_bytes: journal.segments.values().map(|segment| segment.live_bytes).sum(),
            waiting_keys: self.turns.len() as u64,
            disk_full: state.full.refuses(),
        }
    }
}
