//! The task that keeps the log supplied: segments, sequence numbers, and files to use again.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use larder_runtime::env::Env;

use super::Shard;
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::manifest::{Edit, State as ManifestState};
use crate::value_log::segment::{self, Origin};

/// How long to wait before looking again for space on a full disk, in nanoseconds.
const RETRY_NANOSECONDS: u64 = 200_000_000;

/// Why changes are refused for want of space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fullness {
    /// There is no room for another segment of the log.
    pub segments: bool,
    /// There is no room to write the memtable out.
    pub flushes: bool,
    /// The log has begun to use the reserve, which is for deletes.
    pub reserve_in_use: bool,
}

impl Fullness {
    /// Whether there is no room for something.
    pub(super) fn any(self) -> bool {
        self.segments || self.flushes
    }
}

/// Files of freed segments: first those that somebody may still read, then those to use again.
#[derive(Default)]
pub(super) struct FreeSegments {
    /// Segments that are being taken out of the manifest.
    leaving: BTreeSet<u32>,
    /// (moment of freeing, number)
    in_use: VecDeque<(u64, u32)>,
    ready: BTreeSet<u32>,
}

impl FreeSegments {
    /// A file that nobody reads.
    pub(super) fn add(&mut self, number: u32) {
        self.ready.insert(number);
    }

    /// Takes a file to use again.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.ready.pop_first()
    }

    /// Whether the file of a segment with this number is free, or will be.
    #[cfg(test)]
    pub(super) fn holds(&self, number: u32) -> bool {
        self.ready.contains(&number)
            || self.leaving.contains(&number)
            || self.in_use.iter().any(|(_, freed)| *freed == number)
    }

    /// Above every number in the set.
    pub(super) fn number_next(&self) -> u32 {
        self.ready.last().map_or(0, |last| last + 1)
    }
}

/// What the keeper found to do.
enum Task {
    Stop,
    ReserveSequences,
    Free(Vec<u32>),
    Prepare(u32),
    Release(u32),
}

impl<E: Env> Shard<E> {
    pub(super) async fn keep_space(self: Rc<Self>) {
        loop {
            let task = self.log.needs().wait_for(|| self.next_task()).await;
            let result = match task {
                Task::Stop => return,
                Task::ReserveSequences => self.reserve_sequences().await,
                Task::Free(numbers) => self.free_segments(numbers).await,
                Task::Prepare(bytes) => self.prepare_segment(bytes).await,
                Task::Release(number) => self.release_file(number).await,
            };
            match result {
                Ok(()) => {}
                Err(EngineError::Full) => self.env.sleep(RETRY_NANOSECONDS).await,
                Err(error) => return self.log.stop(error.to_string()),
            }
        }
    }

    fn next_task(&self) -> Option<Task> {
        if self.state.borrow().closing || self.log.stopped().is_some() {
            return Some(Task::Stop);
        }
        if self.log.needs_sequences() {
            return Some(Task::ReserveSequences);
        }
        let dead = self.dead_segments();
        if !dead.is_empty() {
            return Some(Task::Free(dead));
        }
        if let Some(number) = self.next_unread_file() {
            return Some(Task::Release(number));
        }
        self.log.wants_segment(self.options.segment_bytes).map(Task::Prepare)
    }

    /// Segments that nothing points into: neither tables, nor memtables, nor a future replay.
    fn dead_segments(&self) -> Vec<u32> {
        let journal = self.journal.state();
        let state = self.state.borrow();
        let frozen = state.frozen.as_ref();
        let is_dead = |state_of: &ManifestState, number: u32| {
            number < state_of.replay_from.segment
                && state_of.segments.get(&number).is_some_and(|segment| {
                    segment.live_bytes == 0 || canary::has(Defect::FreeSegmentEarly)
                })
                && !state.active.points_into(number)
                && !frozen.is_some_and(|frozen| frozen.memtable.points_into(number))
        };
        journal.segments.keys().copied().filter(|number| is_dead(&journal, *number)).collect()
    }

    fn next_unread_file(&self) -> Option<u32> {
        let mut free = self.free.borrow_mut();
        let &(moment, number) = free.in_use.front()?;
        if !self.pins.has_passed(moment) {
            return None;
        }
        free.in_use.pop_front();
        Some(number)
    }

    /// Lets the keeper look again for files that nobody reads any more.
    pub(super) fn release_files(&self) {
        if !self.free.borrow().in_use.is_empty() {
            self.log.needs().notify();
        }
    }

    /// Whether a segment is no longer, or not for long, one that an entry may point into.
    pub(super) fn is_leaving(&self, number: u32) -> bool {
        self.free.borrow().leaving.contains(&number)
            || !self.journal.state().segments.contains_key(&number)
    }

    async fn reserve_sequences(&self) -> Result<(), EngineError> {
        let limit = self.log.sequence_limit() + self.options.version_step;
        let edit = Edit { version_ceiling: Some(limit), ..Edit::default() };
        self.journal.commit(|_| Some(edit)).await?;
        self.log.extend_sequences(limit);
        Ok(())
    }

    async fn free_segments(&self, numbers: Vec<u32>) -> Result<(), EngineError> {
        self.free.borrow_mut().leaving = numbers.iter().copied().collect();
        let edit = Edit { segments_freed: numbers.clone(), ..Edit::default() };
        self.journal.commit(|_| Some(edit)).await?;
        // Whoever began before this moment may still read the files.
        let moment = self.pins.present();
        let mut free = self.free.borrow_mut();
        free.leaving.clear();
        free.in_use.extend(numbers.into_iter().map(|number| (moment, number)));
        Ok(())
    }

    async fn release_file(&self, number: u32) -> Result<(), EngineError> {
        let bytes = self.log.forget_segment(number);
        let keep = bytes == Some(self.options.segment_bytes)
            && self.free.borrow().ready.len() < self.options.free_segments_max;
        if keep {
            self.free.borrow_mut().add(number);
            return Ok(());
        }
        self.remove_file(number).await
    }

    async fn remove_file(&self, number: u32) -> Result<(), EngineError> {
        let path = self.directory.join(segment::file_name(number));
        let removed = self.env.remove(&path).await;
        removed.map_err(|source| EngineError::io(&path, "removing", &source))
    }

    async fn prepare_segment(&self, bytes: u32) -> Result<(), EngineError> {
        let standard = bytes == self.options.segment_bytes;
        let reserve = self.options.disk_reserve_bytes;
        let result = self.try_prepare_segment(bytes, reserve).await;
        match &result {
            Ok(()) if standard => self.note_full(|full| {
                full.segments = false;
                full.reserve_in_use = false;
            }),
            Err(EngineError::Full) if standard => {
                self.note_full(|full| full.segments = true);
                return self.prepare_from_reserve(bytes).await;
            }
            // What asked for a long segment is refused; the others can go on.
            Err(EngineError::Full) => self.log.refuse_segment(bytes),
            _ => {}
        }
        result
    }

    /// Deletes go on when the disk is full: they are what frees space. Half of the reserve is
    /// theirs, and from now on nothing else gets into the log.
    async fn prepare_from_reserve(&self, bytes: u32) -> Result<(), EngineError> {
        if self.log.room().0 < self.options.delete_reserve_bytes() {
            self.note_full(|full| full.reserve_in_use = true);
            self.try_prepare_segment(bytes, self.options.disk_reserve_bytes / 2).await?;
            self.log.changed().notify();
        }
        Err(EngineError::Full)
    }

    /// Prepares a segment if `spare_bytes` of free space are left then.
    async fn try_prepare_segment(&self, bytes: u32, spare_bytes: u64) -> Result<(), EngineError> {
        let standard = bytes == self.options.segment_bytes;
        let number = self.journal.state().segment_id_next.max(self.free.borrow().number_next());
        let recycled = if standard { self.free.borrow_mut().take() } else { None };
        if recycled.is_none() {
            self.check_free_space(u64::from(bytes) + spare_bytes)?;
        }
        let origin = recycled.map_or(Origin::New, Origin::Recycled);
        let (env, directory) = (&self.env, &self.directory);
        let segment =
            segment::prepare(env, directory, self.identity, number, bytes, origin).await?;
        let edit = Edit { segments_opened: vec![(number, bytes)], ..Edit::default() };
        self.journal.commit(|_| Some(edit)).await?;
        if let Some(replaced) = self.log.offer_segment(segment) {
            let edit = Edit { segments_freed: vec![replaced], ..Edit::default() };
            self.journal.commit(|_| Some(edit)).await?;
            self.free.borrow_mut().add(replaced);
        }
        Ok(())
    }

    /// Whether files may grow by `bytes`.
    pub(super) fn check_free_space(&self, bytes: u64) -> Result<(), EngineError> {
        let free = self.env.free_space(&self.directory).map_err(|source| {
            EngineError::io(&self.directory, "asking for the free space of", &source)
        })?;
        if free < bytes { Err(EngineError::Full) } else { Ok(()) }
    }

    /// Notes for what there is space and for what not, and lets those who wait find out.
    pub(super) fn note_full(&self, note: impl FnOnce(&mut Fullness)) {
        let (before, after) = {
            let mut state = self.state.borrow_mut();
            let before = state.full;
            note(&mut state.full);
            (before, state.full)
        };
        if before == after {
            return;
        }
        if !before.any() {
            tracing::warn!(
                directory = %self.directory.display(),
                "the disk is full: writes are refused, reads and deletes go on"
            );
        } else if !after.any() {
            tracing::info!("there is space again: writes are accepted");
        }
        self.log.changed().notify();
    }
}
