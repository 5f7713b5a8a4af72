//! The task that keeps the log supplied: segments, sequence numbers, and files to use again; and
//! the shard's share of the node's disk budget.

use std::rc::Rc;

use larder_runtime::disk_budget::{DiskBudget, Promise};
use larder_runtime::env::{Env, IoClass};

use super::Shard;
use super::refusals::Line;
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::index::Host;
use crate::index::compaction::picker::Choice;
use crate::manifest::{Edit, SegmentExpiry, State};
use crate::space::{Purpose, SpaceLimits, SpaceUsage};
use crate::value_log::segment::{self, Origin, Segment};

/// How long to wait before looking again for space, in nanoseconds.
const RETRY_NANOSECONDS: u64 = 50_000_000;

/// The longest that writes wait for the cap without any progress of what frees space, in
/// nanoseconds.
const CAP_WAIT_NANOSECONDS_MAX: u64 = 200_000_000;

/// Space is kept for a merge of tables of so many segments' length; of longer ones for half.
const MERGE_SEGMENTS: u64 = 2;

/// What manifest and superblock may take besides what the manifest says of other files.
pub(super) const MANIFEST_BYTES: u64 = 2 << 20;

/// Whether the log may grow for changes that are not deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ingest {
    /// It may.
    #[default]
    Open,
    /// Not before something is freed, and there is something to free: who writes has to wait.
    Waiting,
    /// There is no space, and nothing to free.
    Refused,
}

/// For what there is no space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fullness {
    pub ingest: Ingest,
    /// There is no room to write the memtable out.
    pub flushes: bool,
    /// There is no room for an edit of the manifest.
    pub manifest: bool,
    /// Merging tables does not go on: there is no room, or damage has stopped it.
    pub merges: bool,
    /// There is no room to collect garbage.
    pub collections: bool,
    /// The log has begun to use the reserve, which is for deletes and moves.
    pub reserve_in_use: bool,
}

impl Fullness {
    /// Whether writes are refused.
    pub(super) fn refuses(self) -> bool {
        self.ingest == Ingest::Refused || self.flushes || self.manifest
    }

    /// Whether others had better give back what they can do without.
    fn is_shortage(self) -> bool {
        self.refuses() || self.collections
    }
}

/// What the keeper found to do.
enum Task {
    Stop,
    ReserveSequences,
    Free(Vec<u32>),
    Prepare(u32),
    Release(u32, u32),
    /// Files are kept that had better be given back.
    GiveBack,
    /// The log's growth was refused: look whether that still holds.
    LookAgain,
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
                Task::Release(number, bytes) => self.release_file(number, bytes).await,
                Task::GiveBack => self.give_file_back().await.map(|_| ()),
                Task::LookAgain => self.look_again(),
            };
            match result {
                Ok(()) => {}
                Err(EngineError::Full) => self.wait_for_space().await,
                Err(error) => return self.log.stop(error.to_string()),
            }
        }
    }

    /// Waits until something was freed, or for a moment: space may come from outside. Deletes that
    /// have used up what the log had do not wait for what was refused to others before.
    async fn wait_for_space(&self) {
        let mut first = true;
        let freed = self.space_freed.wait_for(|| (!std::mem::take(&mut first)).then_some(()));
        let was_low = self.is_low_for_removals();
        let is_low = || (!was_low && self.is_low_for_removals()).then_some(());
        let change = futures_lite::future::or(freed, self.log.needs().wait_for(is_low));
        futures_lite::future::or(change, self.env.sleep(RETRY_NANOSECONDS)).await;
    }

    /// Whether the log has less left than is kept for deletes, and moves.
    fn is_low_for_removals(&self) -> bool {
        self.log.space_left().0 < self.options.delete_reserve_bytes()
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
        let readers = |moment, number| self.pins.readers(moment, number);
        let unread = self.free.borrow_mut().take_unread(readers);
        if let Some((number, bytes)) = unread {
            return Some(Task::Release(number, bytes));
        }
        let ready = self.free.borrow().ready() as u64;
        let is_leased = || self.others_are_short() && self.leases_hold() > 0;
        if (ready > 0 && !self.keeps_file(ready - 1)) || is_leased() {
            return Some(Task::GiveBack);
        }
        if let Some(bytes) = self.log.wants_segment(self.options.segment_bytes) {
            return Some(Task::Prepare(bytes));
        }
        let full = self.state.borrow().full;
        (full.ingest != Ingest::Open).then_some(Task::LookAgain)
    }

    /// Segments that nothing points into: neither tables, nor memtables, nor a future replay; and
    /// those of which everything has expired.
    fn dead_segments(&self) -> Vec<u32> {
        let journal = self.journal.state();
        let now = self.unix_now();
        let is_dead = |number: u32, segment: &crate::manifest::SegmentState| {
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
    pub(super) fn release_files(&self) {
        if self.index.has_retired() {
            self.unread.notify();
        }
        if self.free.borrow().has_files_in_use() {
            self.log.needs().notify();
        }
    }

    /// Whether a segment is no longer, or not for long, one that an entry may point into.
    pub(super) fn is_leaving(&self, number: u32) -> bool {
        self.free.borrow().is_leaving(number) || self.is_gone(number)
    }

    /// Whether the manifest does not name a segment any more.
    pub(super) fn is_gone(&self, number: u32) -> bool {
        !self.journal.state().segments.contains_key(&number)
    }

    async fn reserve_sequences(&self) -> Result<(), EngineError> {
        let limit = self.log.sequence_limit() + self.options.version_step;
        let edit = Edit { version_ceiling: Some(limit), ..Edit::default() };
        self.commit_edit(|_| Some(edit)).await?;
        self.log.extend_sequences(limit);
        Ok(())
    }

    /// Takes segments out of the manifest. Nothing points into them, or they were collected.
    async fn free_segments(&self, numbers: Vec<u32>) -> Result<(), EngineError> {
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

    async fn release_file(&self, number: u32, bytes: u32) -> Result<(), EngineError> {
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
    fn keeps_file(&self, ready: u64) -> bool {
        !self.others_are_short()
            && self.usage().keeps_file(&self.limits(), ready, self.options.free_segments_max as u64)
    }

    /// Whether another shard is refused space: files that this one keeps to use again would count
    /// as free for this one alone, and shards that all kept some would wait for each other's.
    fn others_are_short(&self) -> bool {
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
    pub(super) async fn give_file_back(&self) -> Result<bool, EngineError> {
        let number = self.free.borrow_mut().take();
        let Some(number) = number else { return Ok(self.end_lease_for_space()) };
        self.remove_file(number).await?;
        self.space_changed();
        Ok(true)
    }

    async fn prepare_segment(&self, bytes: u32) -> Result<(), EngineError> {
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

    fn open_ingest(&self) {
        self.note_full(|full| {
            full.ingest = Ingest::Open;
            full.reserve_in_use = false;
        });
    }

    /// Notes that the log may not grow for writes: they wait if something can be freed. Where they
    /// are refused already that has not been enough, and they stay so until there is space.
    fn close_ingest(&self) {
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

    /// Deletes and moves go on when the log may not grow for writes: they are what frees space.
    async fn extend_for_removals(&self, bytes: u32) -> Result<(), EngineError> {
        if self.is_low_for_removals() {
            self.note_full(|full| full.reserve_in_use = true);
            let extended = self.extend_log(bytes, Purpose::Removal).await;
            if matches!(extended, Err(EngineError::Full)) && self.flush_would_help() {
                // A flush lets the log go that holds nothing but deletes, and moves.
                self.freeze(&mut self.state.borrow_mut());
            }
            extended?;
            self.log.changed_for_all();
        } else if self.state.borrow().full.ingest == Ingest::Refused
            && self.may_extend(0)
            && self.promise(0, Purpose::Ingest).is_ok()
        {
            // The reserve is whole again, and what is left of a segment from it is for writes.
            self.note_full(|full| full.reserve_in_use = false);
        }
        Ok(())
    }

    /// While a segment from the reserve hides that one is wanted: is there space for writes again?
    fn look_again(&self) -> Result<(), EngineError> {
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
    pub(super) fn is_freeing(&self) -> bool {
        let full = self.state.borrow().full;
        let flush = self.index.has_frozen();
        let merge = self.index.next_compaction(&self.durable()) != Choice::Nothing;
        let collection = self.garbage.is_collecting.get() || self.next_victim().is_some();
        (flush && !full.flushes)
            || (merge && !full.merges)
            || (collection && !full.collections)
            || self.files_are_going()
    }

    /// Whether writing the memtable out may show what is dead, or let segments of the log go. A
    /// few deletes of long values take next to nothing of the log, and may hide much.
    pub(super) fn flush_would_help(&self) -> bool {
        let enough = u64::from(self.options.segment_bytes / 8);
        let hidden = || self.index.estimate().memtable_hidden_bytes;
        // A range may hide anything, and nothing of it is freed before it is written out.
        self.index.unflushed_range_bytes() > 0
            || self.index.statistics().memtable_entries > 0
                && (self.log.bytes_since_mark() >= enough || hidden() >= enough)
    }

    /// Whether the cap allows the log another segment. Where nothing can be freed, or nothing was
    /// for long, the estimate of what lives must be wrong, and the budget alone decides.
    fn may_extend(&self, bytes: u32) -> bool {
        if self.usage().may_extend(&self.limits(), bytes) {
            self.waiting_since.set(None);
            return true;
        }
        let now = self.env.now();
        let since = self.waiting_since.get().unwrap_or(now);
        self.waiting_since.set(Some(since));
        !self.can_free_something() || now.saturating_sub(since) >= CAP_WAIT_NANOSECONDS_MAX
    }

    async fn extend_log(&self, bytes: u32, purpose: Purpose) -> Result<(), EngineError> {
        if purpose == Purpose::Ingest && !self.may_extend(bytes) {
            return Err(EngineError::Full);
        }
        let _held = self.segment_numbers.enter().await;
        let segment = self.new_segment(bytes, purpose, 0).await?;
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
    pub(super) async fn new_segment(
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
        let origin = recycled.map_or(Origin::New, Origin::Recycled);
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

    /// Sets `bytes` of the node's budget aside.
    pub(super) fn promise(&self, bytes: u64, purpose: Purpose) -> Result<Promise, EngineError> {
        let options = &self.options;
        let left = purpose.left(options.disk_reserve_bytes, options.segment_bytes, options.shards);
        // Files to be used again could be given back at once.
        let left = left.saturating_sub(self.recyclable());
        let free = || self.env.free_space(&self.directory);
        let promise =
            DiskBudget::promise(&options.budget, bytes, left, free).map_err(|source| {
                EngineError::io(&self.directory, "asking for the free space of", &source)
            })?;
        promise.ok_or(EngineError::Full)
    }

    /// Tells the node's budget what the shard's files take now.
    pub(super) fn account(&self) {
        let now = self.allocated();
        let before = self.accounted.replace(now);
        if now > before {
            self.options.budget.adopt(now - before);
        } else {
            self.options.budget.release(before - now);
        }
    }

    /// Notes that files came or went, and lets those look again who wait for space.
    pub(super) fn space_changed(&self) {
        let before = self.accounted.get();
        self.account();
        if self.accounted.get() < before {
            self.waiting_since.set(None);
        }
        self.update_pace();
        self.space_freed.notify();
        self.log.needs().notify();
    }

    /// Bytes of all files of the shard.
    fn allocated(&self) -> u64 {
        let journal = self.journal.state();
        let segments: u64 = journal.segments.values().map(|s| u64::from(s.file_bytes)).sum();
        let tables: u64 = journal.levels.iter().flatten().map(|table| table.file_bytes).sum();
        let free = self.free.borrow().bytes(self.options.segment_bytes);
        segments + tables + free + self.index.doomed_bytes() + MANIFEST_BYTES
    }

    /// Bytes of the files that are used again before new ones are made.
    fn recyclable(&self) -> u64 {
        self.free.borrow().ready() as u64 * u64::from(self.options.segment_bytes)
    }

    /// How full the shard is.
    pub(super) fn usage(&self) -> SpaceUsage {
        let budget = &self.options.budget;
        let free = self.env.free_space(&self.directory).unwrap_or(u64::MAX);
        let (index, estimate) = (self.index.statistics(), self.index.estimate());
        let ingest = Purpose::Ingest.left(
            self.options.disk_reserve_bytes,
            self.options.segment_bytes,
            self.options.shards,
        );
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = signed(budget.headroom(free)) - signed(ingest);
        let shared_by = if left > 0 { i64::from(self.options.shards.max(1)) } else { 1 };
        let leased = self.leased_bytes();
        let mut usage = SpaceUsage {
            // Manifest and superblock do not grow with what is stored.
            allocated: self.accounted.get().saturating_sub(MANIFEST_BYTES + leased),
            leased,
            recyclable: self.recyclable(),
            merging: self.merging_bytes(index.table_bytes),
            left: left / shared_by,
            in_tables: estimate.visible_bytes,
            mean_record: estimate.mean_record_bytes,
            table_entries: index.table_entries,
            table_bytes: index.table_bytes,
            memtable_hidden: estimate.memtable_hidden_bytes,
            memtable_referenced: index.memtable_separate_bytes,
            lived: 0,
        };
        let mut lived = self.pacing.lived.get();
        usage.lived = lived.see(usage.live(), self.env.now());
        self.pacing.lived.set(lived);
        usage
    }

    /// What is kept for a merge of these many bytes of tables. Between merges, tables that were
    /// replaced and wait for their removal, which is soon, count as a part of it.
    fn merging_bytes(&self, table_bytes: u64) -> u64 {
        // Where values stand in the tables, a merge of all of them does not fit below the cap.
        let whole = table_bytes.min(MERGE_SEGMENTS * u64::from(self.options.segment_bytes));
        let bytes = whole.max(table_bytes / 2).min(2 * self.options.picker.merge_bytes);
        let doomed = if self.is_merging.get() { 0 } else { self.index.doomed_bytes() };
        bytes.saturating_sub(doomed)
    }

    /// The limits that the usage is held against.
    pub(super) fn limits(&self) -> SpaceLimits {
        SpaceLimits {
            amplification_percent: self.options.space_amplification_percent,
            segment_bytes: self.options.segment_bytes,
        }
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
        if before.is_shortage() != after.is_shortage() {
            let shortage = after.is_shortage().then(|| DiskBudget::shortage(&self.options.budget));
            self.shortage.replace(shortage);
        }
        self.tell_of_refusals();
        self.log.changed_for_all();
    }

    /// Says in the log whether writes are refused, if it has changed and it is time to.
    pub(super) fn tell_of_refusals(&self) {
        let is_refusing = self.state.borrow().full.refuses();
        let mut refusals = self.refusals.get();
        let line = refusals.see(is_refusing, self.env.now());
        self.refusals.set(refusals);
        let Some(Line { is_refusing, times }) = line else { return };
        let (directory, times) = (self.directory.display(), times);
        if is_refusing {
            tracing::warn!(
                %directory,
                times,
                "there is no space: writes are refused, reads and deletes go on"
            );
        } else {
            tracing::info!(%directory, times, "there is space again: writes are accepted");
        }
    }
}
