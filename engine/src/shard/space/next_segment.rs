//! Segments that are made: the log's next one, kept ahead, and those of the collector.

use larder_runtime::env::{Env, IoClass};

use super::Ingest;
use crate::error::EngineError;
use crate::manifest::Edit;
use crate::shard::Shard;
use crate::space::Purpose;
use crate::value_log::segment::{self, Origin, Segment};

impl<E: Env> Shard<E> {
    pub(super) async fn prepare_segment(&self, bytes: u32) -> Result<(), EngineError> {
        let standard = bytes == self.options.segment_bytes;
        match self.extend_log(bytes, Purpose::Ingest).await {
            Ok(()) => {
                if standard {
                    self.open_ingest();
                }
                Ok(())
            }
            Err(EngineError::Full) if standard => {
                self.close_ingest();
                self.extend_for_removals(bytes).await?;
                Err(EngineError::Full)
            }
            Err(EngineError::Full) if !self.may_extend(bytes) => {
                self.close_ingest();
                Err(EngineError::Full)
            }
            // What a lease kept will be free in a moment: then it is looked at again.
            Err(EngineError::Full) if self.end_lease_for_space() || self.files_are_going() => {
                Err(EngineError::Full)
            }
            // What asked for a long segment is refused; the others can go on.
            Err(EngineError::Full) => {
                self.log.refuse_segment(bytes);
                Err(EngineError::Full)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes and moves go on when the log may not grow for writes: they are what frees space.
    async fn extend_for_removals(&self, bytes: u32) -> Result<(), EngineError> {
        if self.removals_need_segment() {
            self.note_full(|full| full.reserve_in_use = true);
            match self.extend_log(bytes, Purpose::Removal).await {
                Ok(()) => self.note_full(|full| full.removals = false),
                Err(EngineError::Full) => self.free_for_removals(),
                Err(error) => return Err(error),
            }
        } else if self.state.borrow().full.ingest == Ingest::Refused
            && self.may_extend(0)
            && self.promise(0, Purpose::Ingest).is_ok()
        {
            // The reserve is whole again, and what is left of a segment from it is for writes.
            self.note_full(|full| full.reserve_in_use = false);
        }
        Ok(())
    }

    /// Whether the log has less left than is kept for deletes, and moves.
    pub(in crate::shard) fn is_low_for_removals(&self) -> bool {
        self.log.space_left().0 < self.options.delete_reserve_bytes()
    }

    /// The same, or one of them has found that too short. A batch of deletes is one frame, which
    /// may be longer than what is kept. It fits into a segment: see [`BATCH_STEPS_MAX`].
    ///
    /// [`BATCH_STEPS_MAX`]: crate::shard::BATCH_STEPS_MAX
    pub(super) fn removals_need_segment(&self) -> bool {
        self.does_removal_wait() || self.is_low_for_removals()
    }

    /// Whether a delete or a move waits for another segment.
    fn does_removal_wait(&self) -> bool {
        self.removal_waits.get() || self.garbage.awaits_segment.get()
    }

    /// There is no space for deletes and moves either. A flush lets the log go that holds nothing
    /// else, and however little that is, it is worth it for one that waits. Where nothing frees
    /// space any more, they are refused.
    fn free_for_removals(&self) {
        let waits = self.does_removal_wait();
        if self.flush_would_help() || (waits && self.has_unflushed()) {
            self.freeze(&mut self.state.borrow_mut());
        }
        // A collection whose moves wait for the log does not go on.
        let collects = !self.garbage.awaits_segment.get() && self.may_collect();
        let is_hopeless = waits && !self.is_freeing_beside_collections() && !collects;
        self.note_full(|full| full.removals = is_hopeless);
    }

    async fn extend_log(&self, bytes: u32, purpose: Purpose) -> Result<(), EngineError> {
        if purpose == Purpose::Ingest && !self.may_extend(bytes) {
            return Err(EngineError::Full);
        }
        let _held = self.segment_numbers.enter().await;
        let segment = self.new_segment(bytes, purpose, 0).await?;
        self.removal_waits.set(false);
        if let Some(replaced) = self.log.offer_segment(segment) {
            self.drop_spare(replaced).await?;
        }
        Ok(())
    }

    /// Frees a spare that a longer one has replaced. Nothing was ever written to it.
    async fn drop_spare(&self, number: u32) -> Result<(), EngineError> {
        let edit = Edit { segments_freed: vec![number], ..Edit::default() };
        self.commit_edit(|_| Some(edit)).await?;
        self.free.borrow_mut().add(number);
        Ok(())
    }

    /// Makes a segment of at least `bytes` that the manifest knows; generation 0 is the log's.
    ///
    /// The caller holds `segment_numbers`: numbers are given out in the order of the edits.
    pub(in crate::shard) async fn new_segment(
        &self,
        bytes: u32,
        purpose: Purpose,
        generation: u8,
    ) -> Result<Segment<E::File>, EngineError> {
        let bytes = bytes.max(self.options.segment_bytes);
        let standard = bytes == self.options.segment_bytes;
        let number = self.journal.state().segment_id_next.max(self.free.borrow().number_next());
        let has_file = standard && self.free.borrow().ready() > 0;
        let promise = self.promise(if has_file { 0 } else { u64::from(bytes) }, purpose)?;
        let recycled = if has_file { self.free.borrow_mut().take() } else { None };
        let new = if generation == 0 { Origin::Zeroed } else { Origin::Allocated };
        let origin = recycled.map_or(new, Origin::Recycled);
        let (env, directory) = (&self.env, &self.directory);
        // Nobody waits for a spare; who waits for the log to go on waits as for a commit.
        let is_awaited = || generation == 0 && self.log.has_no_room();
        let class = || if is_awaited() { IoClass::Commit } else { IoClass::Scrub };
        let segment =
            segment::prepare(env, directory, self.identity, number, bytes, origin, class).await?;
        let segments_collected =
            if generation == 0 { Vec::new() } else { vec![(number, generation)] };
        let edit =
            Edit { segments_opened: vec![(number, bytes)], segments_collected, ..Edit::default() };
        self.commit_edit(|_| Some(edit)).await?;
        self.account();
        drop(promise);
        Ok(segment)
    }
}
