//! Whether the log may grow for writes, and whether it is of use to wait where it may not.

use larder_runtime::env::Env;

use super::Ingest;
use crate::error::EngineError;
use crate::index::compaction::picker::Choice;
use crate::shard::Shard;
use crate::space::Purpose;

/// The longest that writes wait for the cap without any progress of what frees space, in
/// nanoseconds.
const CAP_WAIT_NANOSECONDS_MAX: u64 = 200_000_000;

/// The same while a merge is under way, which brings garbage to light at its end.
const MERGE_WAIT_NANOSECONDS_MAX: u64 = 5_000_000_000;

impl<E: Env> Shard<E> {
    /// Whether the cap allows the log another segment. Where nothing can be freed, or nothing was
    /// for long, the estimate of what lives must be wrong, and the budget alone decides. A merge
    /// may take longer.
    pub(super) fn may_extend(&self, bytes: u32) -> bool {
        if self.usage().may_extend(&self.limits(), bytes) {
            self.waiting_since.set(None);
            return true;
        }
        let now = self.env.now();
        let since = self.waiting_since.get().unwrap_or(now);
        self.waiting_since.set(Some(since));
        let is_merging = self.is_merging.get();
        let most = if is_merging { MERGE_WAIT_NANOSECONDS_MAX } else { CAP_WAIT_NANOSECONDS_MAX };
        !self.can_free_something() || now.saturating_sub(since) >= most
    }

    pub(super) fn open_ingest(&self) {
        self.note_full(|full| {
            full.ingest = Ingest::Open;
            full.reserve_in_use = false;
            full.removals = false;
        });
    }

    /// Notes that the log may not grow for writes: they wait if something can be freed. Where they
    /// are refused already that has not been enough, and they stay so until there is space.
    pub(super) fn close_ingest(&self) {
        // Where it is only the cap that refuses, leases are not what stands in the way.
        if self.promise(u64::from(self.options.segment_bytes), Purpose::Ingest).is_err() {
            self.end_lease_for_space();
        }
        let may_wait = self.can_free_something();
        self.note_full(|full| {
            let waits = may_wait && full.ingest != Ingest::Refused;
            full.ingest = if waits { Ingest::Waiting } else { Ingest::Refused };
        });
        if !self.is_freeing() && self.flush_would_help() {
            self.freeze(&mut self.state.borrow_mut());
        }
        self.work.notify();
    }

    /// While a segment from the reserve hides that one is wanted: is there space for writes again?
    pub(super) fn look_again(&self) -> Result<(), EngineError> {
        // The segment that the log has got is counted already.
        let bytes = if self.log.has_spare() { 0 } else { self.options.segment_bytes };
        if self.may_extend(bytes) && self.promise(u64::from(bytes), Purpose::Ingest).is_ok() {
            self.open_ingest();
            return Ok(());
        }
        self.close_ingest();
        Err(EngineError::Full)
    }

    /// Whether something is under way, or could be begun, that frees space.
    fn can_free_something(&self) -> bool {
        self.is_freeing() || (self.flush_would_help() && !self.state.borrow().full.flushes)
    }

    /// Whether something is under way that frees space, or is about to begin by itself.
    pub(in crate::shard) fn is_freeing(&self) -> bool {
        self.is_freeing_beside_collections()
            || (self.may_collect() && !self.state.borrow().full.removals)
    }

    /// The same without collections, which need the log.
    pub(super) fn is_freeing_beside_collections(&self) -> bool {
        let full = self.state.borrow().full;
        let flush = self.index.has_frozen();
        let merges = || self.is_merging.get() || self.next_compaction() != Choice::Nothing;
        (flush && !full.flushes) || self.files_are_going() || (!full.merges && merges())
    }

    /// Whether a segment is being collected, or can be, as far as there is room for the copies.
    pub(in crate::shard) fn may_collect(&self) -> bool {
        let collection = self.garbage.is_collecting.get() || self.next_victim().is_some();
        collection && !self.state.borrow().full.collections
    }

    /// Whether writing the memtable out may show what is dead, or let segments of the log go. A
    /// few deletes of long values take next to nothing of the log, and may hide much.
    pub(in crate::shard) fn flush_would_help(&self) -> bool {
        let enough = u64::from(self.options.segment_bytes / 8);
        let hidden = || self.index.estimate().memtable_hidden_bytes;
        // A range may hide anything, and nothing of it is freed before it is written out.
        self.index.unflushed_range_bytes() > 0
            || self.has_unflushed() && (self.log.bytes_since_mark() >= enough || hidden() >= enough)
    }

    /// Whether memtables have anything.
    pub(super) fn has_unflushed(&self) -> bool {
        self.index.unflushed_range_bytes() > 0 || self.index.statistics().memtable_entries > 0
    }
}
