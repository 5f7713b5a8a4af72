//! What every byte of a running shard's files is for, from what the shard has in memory.

use larder_runtime::env::{DISK_ALIGNMENT, Env};

use super::Shard;
use crate::manifest::{SegmentState, State};
use crate::space::{PinnedFiles, SegmentEnds, SegmentSpace, SpaceReport};
use crate::superblock;
use crate::value_log::LogEnds;

/// The superblock's copies have a block each.
const SUPERBLOCK_BYTES: u64 = (superblock::COPIES * DISK_ALIGNMENT) as u64;

impl<E: Env> Shard<E> {
    /// What the shard's bytes are for. Nothing is read for it: what lives is told by the tables'
    /// metadata, and what of that is superseded is the estimate that the space cap goes by.
    pub fn space_report(&self) -> SpaceReport {
        let (journal, usage, index) = (self.journal.state(), self.usage(), self.index.statistics());
        let (estimate, free) = (self.index.estimate(), self.free.borrow());
        let segment_bytes = self.options.segment_bytes;
        let ready = free.ready() as u64 * u64::from(segment_bytes);
        let (operations, oldest) = self.pins.of_operations(free.unreleased());
        let tables = journal.levels.iter().flatten();
        let mut report = SpaceReport {
            is_running: true,
            superblock: SUPERBLOCK_BYTES,
            manifest: self.journal.manifest_bytes(),
            free: ready,
            pinned: PinnedFiles {
                bytes: free.bytes(segment_bytes) - ready + self.index.doomed_bytes(),
                operations,
                oldest_nanoseconds: oldest.map_or(0, |since| self.env.now().saturating_sub(since)),
                leases: self.leased_space(),
            },
            tables: tables.clone().map(|table| table.file_bytes).sum(),
            table_count: tables.clone().count() as u64,
            entries: index.table_entries,
            tombstones: tables.filter(|t| !t.is_stub()).map(|t| t.tombstones).sum(),
            duplicates: estimate.hidden_bytes / estimate.mean_record_bytes.max(1),
            unflushed_keys: index.memtable_entries,
            ..SpaceReport::default()
        };
        let ends = self.log.ends();
        let referenced: u64 = journal.segments.values().map(|known| known.live_bytes).sum();
        let superseded = usage.superseded(referenced);
        report.segments = journal
            .segments
            .iter()
            .map(|(&number, known)| {
                let ends = self.segment_ends(number, known, &journal, &ends);
                let file_bytes = u64::from(known.file_bytes);
                let marked = self.garbage.dead.borrow().bytes_in(number);
                let mut segment = SegmentSpace::new(
                    number,
                    file_bytes,
                    known,
                    ends,
                    (marked, estimate.mean_record_bytes),
                );
                // Which of the records are superseded is not known: each segment gets its share.
                let share = u128::from(known.live_bytes) * u128::from(superseded)
                    / u128::from(referenced.max(1));
                let hidden = u64::try_from(share).unwrap_or(known.live_bytes);
                segment.count(known.live_bytes - hidden, hidden);
                segment
            })
            .collect();
        report
    }

    fn segment_ends(
        &self,
        number: u32,
        known: &SegmentState,
        journal: &State,
        log: &LogEnds,
    ) -> SegmentEnds {
        let sealed = known.sealed.map(|seal| seal.end);
        let end = log.appended.get(&number).copied().or(sealed);
        // Of records that were moved here since the last flush tables know nothing yet. A segment
        // that the collector still writes to has room behind what they know of.
        let is_known = known.is_log() || !self.index.memtables_point_into(number);
        let referenced = (u64::from(crate::value_log::segment::HEADER_BYTES) + known.live_bytes)
            .min(u64::from(known.file_bytes));
        let appended = end.map_or(if known.is_log() { 0 } else { referenced }, u64::from);
        let durable = log.unwritten.get(&number).copied().map_or(appended, u64::from);
        let from = journal.replay_from;
        let flushed = match number {
            _ if known.is_log() && number > from.segment => 0,
            _ if known.is_log() && number == from.segment => u64::from(from.offset),
            _ if !is_known => referenced,
            _ => appended,
        };
        let flushed = flushed.min(durable);
        SegmentEnds { flushed, durable, appended }
    }
}
