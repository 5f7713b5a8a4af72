//! What the edits of the manifest come to.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::edit::{
    Edit, EditError, LogPosition, NamespaceGeneration, SegmentExpiry, SegmentPointers,
};
use super::levels::{self, Levels};
use super::segments::{self, SegmentState};
use crate::range_tombstones::RangeTombstones;

/// A shard's files and counters, as of some edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Tables by level: level 0 from the newest to the oldest, the others sorted by key.
    pub levels: Levels,
    /// The value log's segments by number.
    pub segments: BTreeMap<u32, SegmentState>,
    /// Where replay of the value log starts.
    pub replay_from: LogPosition,
    /// Freed segments by number, of which tables still name items that had expired by then: those
    /// stay gone if the clock is set back. Any other entry that leads there has lost its record.
    pub segments_expired: BTreeMap<u32, SegmentExpiry>,
    /// Versions below this may have been given out.
    pub version_ceiling: u64,
    /// The lowest table id that was never used.
    pub table_id_next: u64,
    /// The lowest segment id that was never used.
    pub segment_id_next: u32,
    /// The living generation of each namespace that was ever emptied.
    pub namespace_generations: BTreeMap<u32, u64>,
    /// The ranges of keys that were deleted and may still hide something in tables.
    pub ranges: Rc<RangeTombstones>,
}

/// The counters after an edit.
struct Counters {
    replay_from: LogPosition,
    version_ceiling: u64,
    table_id_next: u64,
}

impl State {
    /// Applies `edit`.
    ///
    /// An error means that the edit contradicts the state: it removes, moves, seals, frees or
    /// counts what is not there, reuses a number, makes tables of a level other than 0 overlap,
    /// makes live bytes negative, or takes a counter back. The state is
    /// then unchanged.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        let segments = segments::plan(&self.segments, self.segment_id_next, edit)?;
        levels::check(&self.levels, edit)?;
        let counters = self.plan_counters(edit)?;
        self.check_flushes(edit)?;
        check_ranges(edit)?;

        // All is decided; nothing below can fail.
        for (segment, state) in segments.changed {
            match state {
                Some(state) => self.segments.insert(segment, state),
                None => self.segments.remove(&segment),
            };
        }
        self.segment_id_next = segments.id_next;
        levels::commit(&mut self.levels, edit);
        segments::apply_expired(&mut self.segments_expired, edit);
        self.replay_from = counters.replay_from;
        self.version_ceiling = counters.version_ceiling;
        self.table_id_next = counters.table_id_next;
        for flush in &edit.namespace_generations {
            self.namespace_generations.insert(flush.namespace, flush.generation);
        }
        if !edit.ranges_forgotten.is_empty() || !edit.ranges_deleted.is_empty() {
            let ranges = Rc::make_mut(&mut self.ranges);
            edit.ranges_forgotten.iter().for_each(|range| ranges.forget(range));
            edit.ranges_deleted.iter().for_each(|range| ranges.add(range.clone()));
        }
        Ok(())
    }

    /// Whether an item that expires at `expiry`, and whose record was in `segment`, had expired
    /// when the segment was freed, so that it was not moved.
    pub fn had_expired(&self, segment: u32, expiry: u32) -> bool {
        let freed = self.segments_expired.get(&segment);
        expiry != 0 && freed.is_some_and(|freed| expiry <= freed.until)
    }

    fn plan_counters(&self, edit: &Edit) -> Result<Counters, EditError> {
        let replay_from = edit.replay_from.unwrap_or(self.replay_from);
        ascend("the replay position", self.replay_from.sequence, replay_from.sequence)?;
        let version_ceiling = edit.version_ceiling.unwrap_or(self.version_ceiling);
        ascend("the version ceiling", self.version_ceiling, version_ceiling)?;
        let mut table_id_next = self.table_id_next;
        for table in &edit.tables_added {
            let after = table.id.checked_add(1);
            let after = after.ok_or(EditError::NumbersExhausted { what: "table" })?;
            table_id_next = table_id_next.max(after);
        }
        if let Some(id_next) = edit.table_id_next {
            ascend("the next table number", table_id_next, id_next)?;
            table_id_next = id_next;
        }
        Ok(Counters { replay_from, version_ceiling, table_id_next })
    }

    fn check_flushes(&self, edit: &Edit) -> Result<(), EditError> {
        let mut latest = BTreeMap::new();
        for flush in &edit.namespace_generations {
            let before = latest
                .insert(flush.namespace, flush.generation)
                .or_else(|| self.namespace_generations.get(&flush.namespace).copied());
            ascend("a namespace's generation", before.unwrap_or(0), flush.generation)?;
        }
        Ok(())
    }

    /// The edit that makes this state out of the empty one.
    pub fn snapshot(&self) -> Edit {
        let [unsorted, sorted @ ..] = &self.levels;
        let segments = || self.segments.iter();
        Edit {
            // Each addition to level 0 is newer than the ones before it.
            tables_added: unsorted.iter().rev().chain(sorted.iter().flatten()).cloned().collect(),
            segments_opened: segments().map(|(&id, state)| (id, state.file_bytes)).collect(),
            segments_collected: segments()
                .filter(|(_, state)| !state.is_log())
                .map(|(&id, state)| (id, state.generation))
                .collect(),
            segments_sealed: segments().filter_map(|(_, state)| state.sealed).collect(),
            live_bytes: segments()
                .filter(|(_, state)| state.live_bytes > 0)
                .map(|(&id, state)| (id, state.live_bytes.cast_signed()))
                .collect(),
            segment_pointers: segments()
                .filter(|(_, state)| state.expiry_max != 0)
                .map(|(&segment, state)| SegmentPointers {
                    segment,
                    expiry: state.expiry_max,
                    end: state.pointers_end_max,
                })
                .collect(),
            segments_expired: self.segments_expired.values().copied().collect(),
            replay_from: Some(self.replay_from),
            version_ceiling: Some(self.version_ceiling),
            table_id_next: Some(self.table_id_next),
            segment_id_next: Some(self.segment_id_next),
            namespace_generations: self
                .namespace_generations
                .iter()
                .map(|(&namespace, &generation)| NamespaceGeneration { namespace, generation })
                .collect(),
            ranges_deleted: self.ranges.iter().collect(),
            ..Edit::default()
        }
    }
}

fn check_ranges(edit: &Edit) -> Result<(), EditError> {
    let mut ranges = edit.ranges_deleted.iter().chain(&edit.ranges_forgotten);
    match ranges.all(|range| range.start < range.end) {
        true => Ok(()),
        false => Err(EditError::RangeReversed),
    }
}

fn ascend(what: &'static str, from: u64, to: u64) -> Result<(), EditError> {
    if to < from { Err(EditError::MovedBack { what, from, to }) } else { Ok(()) }
}
