//! The tasks that collect garbage, and keep writers at its pace.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Shard;
use super::space::Ingest;
use crate::canary::{self, Defect};
use crate::collector::{
    CollectorHost, EXPIRY_CLASSES_OPEN_MAX, Fate, Newest, Passage, RecordMove, Separation, Victim,
};
use crate::entry::{Entry, Metadata, Payload, Pointer};
use crate::error::EngineError;
use crate::index::Host as _;
use crate::index::memtable::Found;
use crate::index::table::{Resident, key_hash};
use crate::manifest::{Edit, SegmentSeal, SegmentState};
use crate::space::victims::{self, Foresight, VictimCandidate};
use crate::space::{
    Collecting, ListedPart, ListedRecord, Purpose, Runway, SpaceLimits, SpaceUsage,
};
use crate::value_log::Append;
use crate::value_log::commit::Refused;
use crate::value_log::moves::{MOVE_BYTES_MAX, MovesBuilder};
use crate::value_log::record::RecordKind;
use crate::value_log::segment::Segment;

/// How long the collector waits before it tries again what there was no space for, in nanoseconds.
const RETRY_FULL_NANOSECONDS: u64 = 200_000_000;

/// The longest that the collector waits for what it has collected to be freed before it takes
/// another segment, in nanoseconds: somebody may still read it.
const FREED_NANOSECONDS_MAX: u64 = 50_000_000;

/// How often the pace is looked at while it is kept, in nanoseconds: the step of a delay.
const PACE_STEP_NANOSECONDS: u64 = 1_000_000;

/// How often time alone is looked at: what has expired, and how old the log is, in nanoseconds.
const TICK_NANOSECONDS: u64 = 1_000_000_000;

/// Of the bytes that live, so many hundredths have to expire before such records are kept apart.
const EXPIRING_APART_PERCENT: u64 = 10;

/// So many segments have to live before records that were moved before are kept apart, and for each
/// class of records that expire besides the first: the segment that they are moved to is then a
/// small part of everything.
const APART_SEGMENTS: u64 = 16;

/// Whether a record that was copied is still where its key's newest entry points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    There,
    /// The key was changed, or its record was moved already.
    Gone,
    /// Tables may know something newer, or the entry has changed but for its pointer.
    Unsure,
}

/// What the log's record of these moves takes at most, in bytes.
fn bytes_of(moves: &[RecordMove]) -> usize {
    moves.iter().map(|one| one.key.len() + MOVE_BYTES_MAX).sum()
}

impl<E: Env> Shard<E> {
    pub(super) async fn keep_collecting(self: Rc<Self>) {
        let next = || {
            if self.state.borrow().closing || self.log.stopped().is_some() {
                return Some(None);
            }
            // Whoever waits for space counts on every victim there is; see `is_freeing`.
            let is_awaited = self.state.borrow().full.ingest != Ingest::Open;
            let is_wanted = is_awaited || self.usage().wants_collection(&self.limits());
            if is_wanted { self.victim_for_now().map(Some) } else { None }
        };
        while let Some(victim) = self.work.wait_for(next).await {
            self.garbage.is_collecting.set(true);
            let result = self.collect(victim).await;
            self.garbage.is_collecting.set(false);
            let wait = match result {
                Ok(()) => {
                    self.note_full(|full| full.collections = false);
                    0
                }
                Err(EngineError::Full) => {
                    self.note_full(|full| full.collections = true);
                    self.give_file_back().await.err().map_or(RETRY_FULL_NANOSECONDS, |_| 0)
                }
                Err(EngineError::Read(reason) | EngineError::Damaged { reason, .. }) => {
                    tracing::error!(
                        segment = victim.number,
                        "collecting a segment failed, and it is kept: {reason}"
                    );
                    self.garbage.unreadable.borrow_mut().insert(victim.number);
                    0
                }
                Err(_) if self.is_closing() => return,
                Err(error) => return self.log.stop(format!("collecting garbage: {error}")),
            };
            self.space_changed();
            self.something_changed();
            if wait > 0 {
                self.env.sleep(wait).await;
            }
        }
    }

    /// The segment that is most worth collecting, whatever will have expired soon.
    pub(super) fn next_victim(&self) -> Option<Victim> {
        self.choose_victim(0)
    }

    /// The same, but for segments that are waited for: much of them will have expired before there
    /// is need of their space.
    fn victim_for_now(&self) -> Option<Victim> {
        let is_awaited = self.state.borrow().full.ingest != Ingest::Open;
        let patience = || self.usage().patience(&self.limits(), self.log_left());
        self.choose_victim(if is_awaited { 0 } else { patience() })
    }

    /// What is known of the near future, where the log may grow by `patience` bytes before space is
    /// needed.
    fn foresight(&self, patience: u64) -> Foresight {
        let (now, rate) = (self.unix_now(), self.pacing.log_rate.get());
        let left = if patience == 0 { 0 } else { rate.seconds_for(patience) };
        Foresight {
            now,
            need: now.saturating_add(left),
            newest: self.journal.state().segment_id_next,
            seconds_per_1024_segments: rate
                .seconds_for(u64::from(self.options.segment_bytes) * 1024),
        }
    }

    fn choose_victim(&self, patience: u64) -> Option<Victim> {
        let foresight = self.foresight(patience);
        let journal = self.journal.state();
        let free = self.free.borrow();
        let unreadable = self.garbage.unreadable.borrow();
        let may_go = |number: u32, segment: &SegmentState| {
            // Where a segment ends must be known: damage would else look like its end.
            let is_closed = segment.sealed.is_some()
                && (!segment.is_log() || number < journal.replay_from.segment)
                && !self.collector.writes_to(number);
            // What memtables point to is not counted as live yet.
            is_closed
                && !free.is_leaving(number)
                && !unreadable.contains(&number)
                && !self.index.memtables_point_into(number)
        };
        let mean = self.index.estimate().mean_record_bytes;
        let dead = self.garbage.dead.borrow();
        let lifetimes = self.garbage.lifetimes.borrow();
        let of = |(&number, segment): (&u32, &SegmentState)| {
            let candidate = VictimCandidate::of(number, segment, dead.bytes_in(number), mean)?;
            Some(candidate.foreseen(segment, &lifetimes, &foresight))
        };
        let candidates = journal.segments.iter().filter(|(number, s)| may_go(**number, s));
        let chosen = victims::choose(candidates.filter_map(of))?;
        let segment = journal.segments.get(&chosen.number)?;
        Some(Victim {
            number: chosen.number,
            generation: segment.generation,
            end: segment.sealed?.end,
        })
    }

    pub(super) async fn collect(&self, victim: Victim) -> Result<(), EngineError> {
        // From now on no entry comes to point into it; see `is_leaving`.
        self.free.borrow_mut().leave(victim.number);
        self.garbage.forget_expired(victim.number);
        let result = match self.log.segment(victim.number).await {
            Ok(Some(source)) => self.collector.collect(victim, &source, self).await,
            Ok(None) => Err(EngineError::Read("the segment is not there".to_owned())),
            Err(error) => Err(error),
        };
        let collected = match result {
            Ok(collected) => collected,
            Err(error) => {
                self.free.borrow_mut().stay(victim.number);
                return Err(error);
            }
        };
        {
            let mut state = self.state.borrow_mut();
            state.operations.collected_records += collected.moved;
            state.operations.collected_bytes += collected.moved_bytes;
            state.operations.collected_cached_bytes += collected.cached_bytes;
            state.operations.collections += 1;
        }
        if !collected.is_complete {
            self.free.borrow_mut().stay(victim.number);
            if !CollectorHost::is_closing(self) {
                tracing::error!(
                    segment = victim.number,
                    "a part of the segment cannot be read: it is kept, and its keys answer errors"
                );
                self.garbage.unreadable.borrow_mut().insert(victim.number);
            }
            return Ok(());
        }
        // The records of the moves are durable before their old places are gone. The keeper frees
        // the segment once no memtable names it: a replay must not need it.
        if !canary::has(Defect::FreeVictimEarly) {
            self.log.flush().await?;
        }
        self.garbage.collected.borrow_mut().insert(victim.number);
        Ok(())
    }

    /// What an entry tells that points to `pointer`, and has not expired.
    fn newest_of(&self, entry: &Entry<'_>, pointer: Pointer) -> Option<Newest> {
        let Payload::Separate(at, value_len) = entry.payload else { return None };
        if at != pointer && !canary::has(Defect::MoveUnconditionally) {
            return None;
        }
        let now = self.unix_now();
        if entry.metadata.is_expired(now) {
            self.garbage.note_expired(pointer.segment, now);
            return None;
        }
        let table_changes = self.index.table_changes();
        Some(Newest { metadata: entry.metadata, value_len, table_changes })
    }

    /// One attempt to point keys to the copies of their records, with one record of the log.
    /// Returns those of which the index has to be asked again.
    fn try_moves(&self, moves: &[RecordMove]) -> Result<Vec<RecordMove>, Refused> {
        let mut state = self.state.borrow_mut();
        if state.closing {
            return Err(Refused::Stopped);
        }
        // Moves wait for a flush as all changes do: they would fill the memtable without a bound.
        if self.index.has_frozen() && self.is_flush_due() && !state.full.flushes {
            return Err(Refused::Queued);
        }
        let mut record = MovesBuilder::default();
        let mut made: Vec<(&RecordMove, u64)> = Vec::with_capacity(moves.len());
        let mut unsure = Vec::new();
        for one in moves {
            let hash = key_hash(&one.key);
            // A copy that a failed collection has left may wait beside that of a later one.
            let is_twice = made.iter().any(|(_, other)| *other == hash);
            match self.standing(one, hash) {
                Standing::Gone => {}
                Standing::There if !is_twice => {
                    let Newest { metadata, value_len, .. } = one.newest;
                    record.add(&one.key, metadata, one.to, value_len);
                    state.items.prefetch_index(hash);
                    made.push((one, hash));
                }
                Standing::There | Standing::Unsure => unsure.push(one.clone()),
            }
        }
        if made.is_empty() {
            return Ok(unsure);
        }
        made.iter().for_each(|(_, hash)| state.items.prefetch_header(*hash));
        let described = (RecordKind::Moves, Metadata::default());
        let appended = self.log.append(&Append::new(described, &[], record.payload(), None))?;
        // It takes of the log what writers would have: they go the slower.
        self.note_written(appended.pointer.len);
        self.waiting_since.set(None);
        for (RecordMove { key, newest, from, to }, hash) in made {
            let payload = Payload::Separate(*to, newest.value_len);
            let entry = Entry { metadata: newest.metadata, payload };
            self.index.insert(key, hash, &entry, appended.sequence);
            self.garbage.note_record(*to, hash, newest.metadata.expiry);
            state.items.move_value(hash, key, *from, *to);
        }
        if self.is_flush_due() {
            self.freeze(&mut state);
        }
        Ok(unsure)
    }

    /// Whether records may still be moved.
    fn check_moving(&self) -> Result<(), EngineError> {
        if CollectorHost::is_closing(self) || self.log.stopped().is_some() {
            return Err(EngineError::Stopped("the shard is being closed".to_owned()));
        }
        Ok(())
    }

    /// Waits until moves of `bytes` that the log has refused may be tried again.
    async fn wait_to_move(&self, refused: Refused, bytes: usize) -> Result<(), EngineError> {
        match refused {
            Refused::Stopped => {}
            Refused::NoSpace => return Err(EngineError::Full),
            Refused::NoSegment if self.state.borrow().full.removals => {
                return Err(EngineError::Full);
            }
            Refused::NoSegment => {
                self.garbage.awaits_segment.set(true);
                self.wait_for_room(bytes).await;
                self.garbage.awaits_segment.set(false);
            }
            Refused::Queued | Refused::NoSequence => self.wait_for_room(bytes).await,
        }
        Ok(())
    }

    /// What memory tells of a key whose record is to be moved.
    fn standing(&self, one: &RecordMove, hash: u64) -> Standing {
        let RecordMove { key, newest, from, .. } = one;
        if canary::has(Defect::MoveAsLookedUp) {
            return Standing::There;
        }
        if self.index.table_changes() != newest.table_changes {
            return Standing::Unsure;
        }
        let now = |found: Found<'_>| (found.entry.pointer(), found.entry.metadata);
        match self.index.in_memtables(key, hash, now) {
            Some((pointer, _)) if pointer != Some(*from) => Standing::Gone,
            // No change of metadata alone points into a segment that is leaving. But a collection
            // that failed has let its segment stay, and what it copied may wait for its frame
            // still.
            Some((_, metadata)) if metadata != newest.metadata => Standing::Unsure,
            _ => Standing::There,
        }
    }

    /// Waits for the space of segments that were collected and are free in a moment, where there is
    /// no other for a segment to copy to: the files may not outgrow the cap.
    async fn wait_for_collected(&self) {
        let segment = u64::from(self.options.segment_bytes);
        let has_space = || self.usage().headroom(&self.limits()) >= segment;
        let is_coming =
            || !self.garbage.collected.borrow().is_empty() || self.free.borrow().has_files_in_use();
        let is_over = || (has_space() || !is_coming() || self.is_closing()).then_some(());
        let freed = self.space_freed.wait_for(is_over);
        futures_lite::future::or(freed, self.env.sleep(FREED_NANOSECONDS_MAX)).await;
    }

    /// Begins or ends to keep writers at the collector's pace.
    pub(super) fn update_pace(&self) {
        let (usage, limits) = (self.usage(), self.limits());
        let log = self.log_left();
        let slack = usage.slack(&limits, log);
        let is_kept = usage.wants_pace(slack, &limits) && self.can_collect();
        let mut pace = self.pacing.pace.get();
        pace.keep(is_kept, self.env.now());
        if !self.garbage.is_collecting.get() {
            pace.see(self.runway(u64::from(self.options.segment_bytes)));
        }
        self.pacing.pace.set(pace);
        self.note_pace(is_kept);
        self.note_urgency(&usage, &limits, log);
    }

    /// Bytes for which the log has its segments, but for what only deletes may use.
    fn log_left(&self) -> u64 {
        self.log.space_left().0.saturating_sub(self.options.delete_reserve_bytes())
    }

    /// How far writers and the collector have to go, which has `left` bytes of its segment.
    fn runway(&self, left: u64) -> Runway {
        let (room, gain) = (self.collector.room(), self.pacing.gain.get());
        self.usage().runway(&self.limits(), self.log_left(), Collecting { left, room, gain })
    }

    fn can_collect(&self) -> bool {
        self.garbage.is_collecting.get() || self.victim_for_now().is_some()
    }

    /// Whether space is short and nothing can be collected.
    pub(super) fn wants_garbage(&self, usage: &SpaceUsage, limits: &SpaceLimits) -> bool {
        usage.wants_collection(limits) && !self.may_collect()
    }

    /// Lets answers go that were held back, as time passes.
    pub(super) async fn keep_pace(self: Rc<Self>) {
        loop {
            let next = || {
                let closing = self.state.borrow().closing || self.log.stopped().is_some();
                (closing || self.pacing.is_kept.get()).then_some(closing)
            };
            if self.work.wait_for(next).await {
                return;
            }
            self.env.sleep(PACE_STEP_NANOSECONDS).await;
            self.log.changed().notify();
        }
    }

    /// Looks at what time alone changes: what has expired, and how old the unflushed log is.
    pub(super) async fn keep_time(self: Rc<Self>) {
        while !self.state.borrow().closing && self.log.stopped().is_none() {
            self.env.sleep(TICK_NANOSECONDS).await;
            let mut log_rate = self.pacing.log_rate.get();
            log_rate.see(self.log.counters().frame_bytes, self.env.now());
            self.pacing.log_rate.set(log_rate);
            self.update_pace();
            self.tell_of_refusals();
            self.log.needs().notify();
            self.work.notify();
            let is_old = self.log.nanoseconds_since_mark() >= self.options.recovery_log_nanoseconds;
            let is_wanted = self.state.borrow().full.ingest != Ingest::Open;
            // Tables of a cleared generation go once the manifest knows that it is dead.
            let is_cleared = {
                let state = self.state.borrow();
                *state.namespaces.generations() != self.durable().generations
            };
            let waits_for_ranges = self.ranges_wait_for_flush();
            if is_old
                || is_cleared
                || waits_for_ranges
                || (is_wanted && !self.is_freeing() && self.flush_would_help())
            {
                self.freeze(&mut self.state.borrow_mut());
            }
        }
    }
}

impl<E: Env> CollectorHost<E> for Shard<E> {
    fn listed(&self, segment: u32, from: usize, most: (usize, usize)) -> Option<ListedPart> {
        let dead = self.garbage.dead.borrow();
        let lives = |record: &ListedRecord| {
            !dead.has(Pointer { segment, offset: record.offset, len: record.len })
        };
        let part = self.garbage.listed.borrow().part(segment, from, most, lives)?;
        // All of them are looked at next: their misses happen together instead of in turn.
        let state = self.state.borrow();
        part.records.iter().for_each(|record| state.items.prefetch_index(record.hash));
        part.records.iter().for_each(|record| state.items.prefetch_item(record.hash));
        Some(part)
    }

    fn in_memory(&self, hash: u64, pointer: Pointer) -> Option<(Vec<u8>, Vec<u8>)> {
        let state = self.state.borrow();
        let (key, value) = state.items.value_at(hash, pointer)?;
        Some((key.to_vec(), value.to_vec()))
    }

    fn fate(&self, key: &[u8], pointer: Pointer) -> Fate {
        if self.garbage.dead.borrow().has(pointer)
            || !self.state.borrow().namespaces.generations().has_key(key)
        {
            return Fate::Dead;
        }
        // The value cache cannot tell: a reader that began before a move puts an item there with
        // the place that it was read from.
        let hash = key_hash(key);
        if canary::has(Defect::BelieveTheCache) {
            let cached = self.state.borrow().items.place_of(hash, key);
            if cached.is_some_and(|cached| cached != pointer) {
                return Fate::Dead;
            }
        }
        let newest = |entry: &Entry<'_>| self.newest_of(entry, pointer);
        let found = match self.index.in_memtables(key, hash, |found| newest(&found.entry)) {
            Some(found) => found,
            None => {
                let look = |entry: Option<Entry<'_>>| entry.as_ref().and_then(newest);
                match self.index.in_resident_tables(key, hash, look) {
                    Resident::Answer(found) => found,
                    Resident::NeedsDevice => return Fate::Unknown,
                }
            }
        };
        found.map_or(Fate::Dead, Fate::Lives)
    }

    async fn newest_at(&self, key: &[u8], pointer: Pointer) -> Result<Option<Newest>, EngineError> {
        let hash = key_hash(key);
        loop {
            let newest = |entry: &Entry<'_>| self.newest_of(entry, pointer);
            if let Some(found) = self.index.in_memtables(key, hash, |found| newest(&found.entry)) {
                return Ok(found);
            }
            let table_changes = self.index.table_changes();
            let class = IoClass::GarbageCollection;
            let found = self.index.in_tables(key, hash, class).await?;
            // What was found in tables that are gone may have been dropped meanwhile.
            if self.index.table_changes() == table_changes {
                return Ok(found.and_then(|entry| newest(&entry.as_entry())));
            }
        }
    }

    async fn open_segment(
        &self,
        generation: u8,
        bytes: u32,
    ) -> Result<Segment<E::File>, EngineError> {
        self.wait_for_collected().await;
        let _held = self.segment_numbers.enter().await;
        let segment = self.new_segment(bytes, Purpose::Collection, generation).await?;
        self.log.add_collected(segment.clone());
        Ok(segment)
    }

    async fn seal_segment(&self, number: u32, end: u32) -> Result<(), EngineError> {
        let seal = SegmentSeal { segment: number, end, sequence_last: 0 };
        let edit = Edit { segments_sealed: vec![seal], ..Edit::default() };
        self.commit_edit(|_| Some(edit)).await
    }

    async fn room_for_moves(&self, moves: &[RecordMove]) -> Result<(), EngineError> {
        loop {
            self.check_moving()?;
            let bytes = bytes_of(moves);
            match self.log.make_room(0, bytes) {
                Ok(()) => return Ok(()),
                Err(refused) => self.wait_to_move(refused, bytes).await?,
            }
        }
    }

    async fn move_records(&self, mut moves: Vec<RecordMove>) -> Result<(), EngineError> {
        while !moves.is_empty() {
            self.check_moving()?;
            match self.try_moves(&moves) {
                Ok(unsure) => {
                    moves.clear();
                    for one in unsure {
                        let newest = self.newest_at(&one.key, one.from).await?;
                        moves.extend(newest.map(|newest| RecordMove { newest, ..one }));
                    }
                }
                Err(refused) => self.wait_to_move(refused, bytes_of(&moves)).await?,
            }
        }
        // What they waited for they may not have needed.
        self.log.offer_room();
        Ok(())
    }

    fn separation(&self) -> Separation {
        let (expiring, all) = self.index.expiring_bytes();
        let segments = self.usage().live() / u64::from(self.options.segment_bytes);
        let classes = usize::try_from(1 + segments / APART_SEGMENTS).unwrap_or(usize::MAX);
        let is_much = expiring * 100 > all * EXPIRING_APART_PERCENT;
        Separation {
            by_age: segments >= APART_SEGMENTS,
            expiry_classes: if is_much { classes.min(EXPIRY_CLASSES_OPEN_MAX) } else { 0 },
            live_segments: segments,
            now: self.unix_now(),
        }
    }

    fn is_closing(&self) -> bool {
        self.state.borrow().closing
    }

    async fn passed(&self, passage: Passage) {
        let Passage { bytes, dead, left } = passage;
        if dead > 0 {
            self.waiting_since.set(None);
        }
        self.update_pace();
        let mut gain = self.pacing.gain.get();
        gain.see(bytes, dead, u64::from(self.options.segment_bytes));
        self.pacing.gain.set(gain);
        let mut pace = self.pacing.pace.get();
        pace.see(self.runway(left.max(bytes)));
        pace.passed(bytes);
        self.pacing.pace.set(pace);
        if self.pacing.is_kept.get() {
            self.log.changed().notify();
        }
        if let Some(rate) = self.options.collect_bytes_per_second {
            let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
            let owed = self.garbage.owed_nanoseconds.get()
                + u64::try_from(nanoseconds).unwrap_or(u64::MAX / 2);
            // A sleep for every small frame would cost more than the frame.
            let sleeps = owed >= PACE_STEP_NANOSECONDS;
            self.garbage.owed_nanoseconds.set(if sleeps { 0 } else { owed });
            if sleeps {
                self.env.sleep(owed).await;
            }
        }
    }
}
