//! Segments that are freed, and their files: kept to be used again, or given back.

use larder_runtime::env::Env;

use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::manifest::{Edit, SegmentExpiry, SegmentState, State};
use crate::shard::Shard;
use crate::value_log::segment;

impl<E: Env> Shard<E> {
    /// Segments that nothing points into: neither tables, nor memtables, nor a future replay; and
    /// those of which everything has expired.
    pub(super) fn dead_segments(&self) -> Vec<u32> {
        let journal = self.journal.state();
        let now = self.unix_now();
        let is_dead = |number: u32, segment: &SegmentState| {
            let is_closed = if segment.is_log() {
                number < journal.replay_from.segment
            } else {
                !self.collector.writes_to(number)
            };
            let is_collected = self.garbage.collected.borrow().contains(&number);
            let has_expired = segment.has_expired(now);
            let is_empty = segment.live_bytes == 0 || has_expired;
            let may_go = is_collected || !self.free.borrow().is_leaving(number);
            let is_dead = is_closed
                && may_go
                && (is_empty || is_collected || canary::has(Defect::FreeSegmentEarly))
                && !self.index.memtables_point_into(number);
            if is_dead && has_expired {
                self.garbage.note_expired(number, now);
            }
            is_dead
        };
        let segments = journal.segments.iter();
        segments.filter(|(number, segment)| is_dead(**number, segment)).map(|(n, _)| *n).collect()
    }

    /// Lets the keeper look again for files that nobody reads any more.
    pub(in crate::shard) fn release_files(&self) {
        if self.index.has_retired() {
            self.unread.notify();
        }
        if self.free.borrow().has_files_in_use() {
            self.log.needs().notify();
        }
    }

    /// Whether a segment is no longer, or not for long, one that an entry may point into.
    pub(in crate::shard) fn is_leaving(&self, number: u32) -> bool {
        self.free.borrow().is_leaving(number) || self.is_gone(number)
    }

    /// Whether the manifest does not name a segment any more.
    pub(in crate::shard) fn is_gone(&self, number: u32) -> bool {
        !self.journal.state().segments.contains_key(&number)
    }

    /// Takes segments out of the manifest. Nothing points into them, or they were collected.
    pub(super) async fn free_segments(&self, numbers: Vec<u32>) -> Result<(), EngineError> {
        for number in &numbers {
            self.free.borrow_mut().leave(*number);
        }
        let mut bytes = Vec::with_capacity(numbers.len());
        self.commit_edit(|state| {
            let file_bytes = |number: &u32| state.segments.get(number).map(|s| s.file_bytes);
            bytes.extend(numbers.iter().filter_map(file_bytes));
            let segments_expired = self.segments_expired(&numbers, state);
            Some(Edit { segments_freed: numbers.clone(), segments_expired, ..Edit::default() })
        })
        .await?;
        // Who has pinned them, or all of a moment before this one, may still read the files.
        let moment = self.pins.present();
        let mut free = self.free.borrow_mut();
        for (number, bytes) in numbers.into_iter().zip(bytes) {
            self.garbage.collected.borrow_mut().remove(&number);
            self.garbage.dead.borrow_mut().forget(number);
            self.garbage.listed.borrow_mut().forget(number);
            self.garbage.lifetimes.borrow_mut().forget(number);
            self.garbage.forget_expired(number);
            free.freed(number, bytes, moment);
        }
        drop(free);
        self.log.needs().notify();
        Ok(())
    }

    /// What had expired in segments that are to be freed.
    fn segments_expired(&self, numbers: &[u32], state: &State) -> Vec<SegmentExpiry> {
        let expired = self.garbage.expired.borrow();
        let of = |&segment: &u32| {
            let live_bytes = state.segments.get(&segment)?.live_bytes;
            Some(SegmentExpiry { segment, until: *expired.get(&segment)?, live_bytes })
        };
        numbers.iter().filter_map(of).collect()
    }

    pub(super) async fn release_file(&self, number: u32, bytes: u32) -> Result<(), EngineError> {
        self.log.forget_segment(number);
        let ready = self.free.borrow().ready() as u64;
        let keep = bytes == self.options.segment_bytes && self.keeps_file(ready);
        if keep {
            self.free.borrow_mut().add(number);
        } else {
            self.remove_file(number).await?;
        }
        self.space_changed();
        Ok(())
    }

    /// Whether another file is kept to be used again besides `ready`.
    pub(super) fn keeps_file(&self, ready: u64) -> bool {
        !self.others_are_short()
            && self.usage().keeps_file(&self.limits(), ready, self.options.free_segments_max as u64)
    }

    /// Whether another shard is refused space: files that this one keeps to use again would count
    /// as free for this one alone, and shards that all kept some would wait for each other's.
    pub(in crate::shard) fn others_are_short(&self) -> bool {
        let own = u64::from(self.shortage.borrow().is_some());
        self.options.budget.shortages() > own
    }

    async fn remove_file(&self, number: u32) -> Result<(), EngineError> {
        let path = self.directory.join(segment::file_name(number));
        let removed = self.env.remove(&path).await;
        removed.map_err(|source| EngineError::io(&path, "removing", &source))
    }

    /// Gives the next file that could be used again back to the file system, or ends a lease that
    /// keeps others; false if there is neither.
    pub(in crate::shard) async fn give_file_back(&self) -> Result<bool, EngineError> {
        let number = self.free.borrow_mut().take();
        let Some(number) = number else { return Ok(self.end_lease_for_space()) };
        self.remove_file(number).await?;
        self.space_changed();
        Ok(true)
    }
}
