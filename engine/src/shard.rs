//! One shard: the engine's front.
//!
//! A shard belongs to one thread. Point operations go through [`Shard::try_execute`], which answers
//! at once when memory has everything, or else [`Shard::execute`]. Behind them four tasks run: the
//! log's writer, the flusher, the compactor and the space keeper.
//!
//! What may depend on what: a pointer is durable only after its target (log, then table, then
//! manifest); a file is freed only after the manifest no longer names it and nobody reads it.

mod abandoned;
mod admission;
mod answer;
mod apply;
mod background;
mod backpressure;
mod batch;
mod collect;
mod compression;
pub mod execute;
mod first_segment;
mod journal;
mod keyed;
mod large;
mod leases;
mod locate;
mod memory;
pub mod namespaces;
mod once;
mod open;
mod operation_buffer;
pub mod options;
mod page_values;
mod pins;
mod quota;
mod ranges;
mod record_limit;
mod refusals;
mod replay_rate;
mod scan;
mod scrub;
#[cfg(test)]
pub(crate) mod simulation;
mod space;
mod space_report;
pub mod statistics;
mod turns;
mod urgency;
mod warm;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_runtime::disk_budget::Shortage;
use larder_runtime::env::Env;

use crate::cache::ItemCache;
use crate::collector::Collector;
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::index::Index;
use crate::key::Key;
use crate::manifest::{Edit, SegmentSeal};
use crate::scrub::Scrubber;
use crate::signal::{Exclusive, Signal};
use crate::space::{
    DeadRecords, FreeSegments, Gain, Lifetimes, ListedRecords, LogRate, Pace, SteadyLive,
};
use crate::value_log::ValueLog;
use crate::value_log::segment::StoreIdentity;

pub use crate::value_log::commit::Acknowledgement;
pub use answer::{Answer, AnswerBuf};
pub use batch::{BATCH_STEPS_MAX, BatchAnswer, BatchStep, ItemBatch};
pub use compression::CompressionCounters;
pub use execute::Attempt;
pub use first_segment::FIRST_SEGMENT_BYTES_MIN;
pub use leases::{LEASE_NANOSECONDS_MAX, LEASES_MAX, LeaseGiven, LeaseStatistics};
pub use memory::MemoryStatistics;
pub use namespaces::{CachePolicy, NamespaceCompression, NamespaceOptions};
pub use once::Once;
pub use open::OpenReport;
pub use operation_buffer::OperationBuf;
pub use options::{RangeOptions, ShardOptions};
pub use space::Ingest;
pub use statistics::Statistics;
pub use warm::Announced;

use admission::NotApplied;
use backpressure::Backpressure;
use compression::Compression;
use journal::Journal;
use large::Uploads;
use leases::Leases;
use memory::CacheRoom;
use namespaces::Namespaces;
use pins::Pins;
use refusals::Refusals;
use replay_rate::ReplayRate;
use space::Fullness;
use statistics::OperationCounters;
use turns::Turns;

/// How often it is looked whether a memtable has been written out, in nanoseconds.
const WRITE_OUT_STEP_NANOSECONDS: u64 = 1_000_000;

struct State {
    items: ItemCache,
    namespaces: Namespaces,
    uploads: Uploads,
    key_scratch: Vec<u8>,
    full: Fullness,
    closing: bool,
    operations: OperationCounters,
}

/// What is known of segments in the course of collecting.
struct Garbage {
    /// Records that are known to be dead.
    dead: RefCell<DeadRecords>,
    /// Records that entries came to point to since the start.
    listed: RefCell<ListedRecords>,
    /// When what was written since the start expires.
    lifetimes: RefCell<Lifetimes>,
    /// A segment is being collected.
    is_collecting: Cell<bool>,
    /// It does not go on before the log has another segment.
    awaits_segment: Cell<bool>,
    /// Segments of which nothing lives any more, until they are freed.
    collected: RefCell<BTreeSet<u32>>,
    /// Segments that were given up because something in them cannot be read.
    unreadable: RefCell<BTreeSet<u32>>,
    /// The latest that the clock has shown when something in a segment was found expired that goes
    /// with the segment: it stays gone if the clock is set back.
    expired: RefCell<BTreeMap<u32, u32>>,
    /// How long the collector owes to its rate limit, in nanoseconds.
    owed_nanoseconds: Cell<u64>,
}

impl Garbage {
    /// Nothing is known. The first segment that is written to from now on has the number `first`.
    fn new(first: u32, options: &ShardOptions) -> Self {
        let dead = DeadRecords::new(options.segment_bytes, options.dead_records_bytes);
        Self {
            dead: RefCell::new(dead),
            listed: RefCell::new(ListedRecords::new(first, options.listed_records_bytes)),
            lifetimes: RefCell::default(),
            is_collecting: Cell::default(),
            awaits_segment: Cell::default(),
            collected: RefCell::default(),
            unreadable: RefCell::default(),
            expired: RefCell::default(),
            owed_nanoseconds: Cell::default(),
        }
    }

    /// Marks records dead: the places where memory has known the value of an item that was replaced
    /// or deleted. No entry points to one of them again, not even by what a reader has cached.
    fn mark_dead(&self, places: [Option<Pointer>; 3]) {
        let mut dead = self.dead.borrow_mut();
        let mut last = None;
        for place in
            places.into_iter().flatten().filter(|place| last.replace(*place) != Some(*place))
        {
            dead.mark(place);
        }
    }

    /// Notes a record that the newest entry of a key with this hash points to, and when its item
    /// expires; 0 for never.
    fn note_record(&self, place: Pointer, hash: u64, expiry: u32) {
        self.listed.borrow_mut().add(place, hash);
        self.lifetimes.borrow_mut().add(place.segment, expiry, place.len);
    }

    /// Notes that something in `segment`, which takes no more entries, was found expired at `now`,
    /// in Unix seconds, and goes with it.
    fn note_expired(&self, segment: u32, now: u32) {
        let mut expired = self.expired.borrow_mut();
        let until = expired.entry(segment).or_insert(now);
        *until = now.max(*until);
    }

    /// Forgets what was found expired in `segment`: it stays after all, and is there.
    fn forget_expired(&self, segment: u32) {
        self.expired.borrow_mut().remove(&segment);
    }
}

/// Holding answers back, so that writers do not run ahead of the collector, nor of merges.
struct Pacing {
    /// What lived lately, for the cap.
    lived: Cell<SteadyLive>,
    pace: Cell<Pace>,
    gain: Cell<Gain>,
    /// How fast the log grows.
    log_rate: Cell<LogRate>,
    backpressure: Cell<Backpressure>,
    /// Whether one of them has a reason to: little headroom is left, and there is garbage; or
    /// merges are behind.
    is_kept: Cell<bool>,
    /// Answers that need the log beyond this are held back by the pace; `u64::MAX` if none are.
    held_end: Cell<u64>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            lived: Cell::default(),
            pace: Cell::default(),
            gain: Cell::default(),
            log_rate: Cell::default(),
            backpressure: Cell::default(),
            is_kept: Cell::new(false),
            held_end: Cell::new(u64::MAX),
        }
    }
}

/// One shard's storage.
pub struct Shard<E: Env> {
    env: E,
    directory: PathBuf,
    identity: StoreIdentity,
    options: ShardOptions,
    log: ValueLog<E>,
    journal: Journal<E>,
    index: Index<E>,
    free: RefCell<FreeSegments>,
    collector: Collector<E>,
    scrubber: Scrubber<E>,
    garbage: Garbage,
    /// Held while a segment is made: their numbers are given out in the order of the edits.
    segment_numbers: Exclusive,
    /// What the node's disk budget was told of this shard's files, in bytes.
    accounted: Cell<u64>,
    /// Files were freed or given back.
    space_freed: Signal,
    /// Tables are being merged.
    is_merging: Cell<bool>,
    /// Since when the log may not grow because of the cap, and nothing was freed or moved.
    waiting_since: Cell<Option<u64>>,
    /// A delete, or several in one frame, did not fit into what the log has left, and waits.
    removal_waits: Cell<bool>,
    /// Told to the node's other shards while this one is refused space.
    shortage: RefCell<Option<Shortage>>,
    refusals: Cell<Refusals>,
    pacing: Pacing,
    /// Deleted ranges wait for tombstones to be written out.
    ranges_unflushed: Cell<bool>,
    compression: Compression,
    pins: Pins,
    leases: Leases<E>,
    cache_room: CacheRoom,
    turns: Turns,
    /// Those on uploads of large values: none of them is also one on a key, whatever keys a client
    /// chooses.
    upload_turns: Turns,
    /// The replay of this start.
    replay_rate: ReplayRate,
    /// Bytes of the log that a start would replay for the frozen memtable, while there is one.
    frozen_log_bytes: Cell<u64>,
    /// Something for the flusher, the compactor or the space keeper to look at.
    work: Signal,
    /// A look-up has ended that may have read files which are to be removed.
    unread: Signal,
    state: RefCell<State>,
}

impl State {
    /// Uploads that come now have at least the number `first_upload`.
    fn new(items: ItemCache, namespaces: Namespaces, first_upload: u64) -> Self {
        Self {
            items,
            namespaces,
            uploads: Uploads::new(first_upload),
            key_scratch: Vec::new(),
            full: Fullness::default(),
            closing: false,
            operations: OperationCounters::default(),
        }
    }

    /// The key as the tables have it: that of the namespace's living generation.
    fn encode_key(&self, key: &Key<'_>, out: &mut Vec<u8>) {
        out.clear();
        key.encode_into(out);
        self.set_generation(key.namespace, out);
    }

    /// Makes an encoded key, or one of the same record and item, belong to the living generation of
    /// `namespace`.
    fn set_generation(&self, namespace: u32, encoded: &mut [u8]) {
        encoded[..4].copy_from_slice(&self.namespaces.generation(namespace).to_be_bytes());
    }

    fn flush_is_due(&self, now: u32) -> bool {
        self.namespaces.flush_is_due(now)
    }
}

impl<E: Env> Shard<E> {
    /// The log position up to which answers may be sent. It may go back, for answers that have not
    /// been sent yet: see [`ValueLog::acknowledged_end`], [`Pace`] and [`Backpressure`].
    pub fn acknowledged_end(&self) -> u64 {
        let end = self.log.acknowledged_end();
        if !self.pacing.is_kept.get() {
            return end;
        }
        let now = self.env.now();
        let next = end.min(self.log.sequence_next());
        let mut pace = self.pacing.pace.get();
        let mut held_end = u64::MAX;
        if pace.holds(now) {
            held_end = self.pacing.held_end.get().min(next);
        }
        self.pacing.pace.set(pace);
        self.pacing.held_end.set(held_end);
        let mut backpressure = self.pacing.backpressure.get();
        let acknowledged_end = backpressure.acknowledged_end(next, now).min(held_end);
        self.pacing.backpressure.set(backpressure);
        acknowledged_end
    }

    /// Whether an answer that needs the log up to `sequence_end` may be sent, going by what its
    /// request asks for. While writers are slowed those who need not wait for the device are, as
    /// the others.
    pub fn may_tell(&self, sequence_end: u64, how: Acknowledgement) -> bool {
        let is_durable = || self.log.durable_end() >= sequence_end;
        match how {
            Acknowledgement::Durable if !is_durable() => false,
            Acknowledgement::Made if !self.pacing.is_kept.get() => {
                self.log.made_end() >= sequence_end
            }
            _ => self.acknowledged_end() >= sequence_end,
        }
    }

    /// Has the log made durable up to `sequence_end` if the request asks for that, in whatever
    /// mode.
    pub fn demand(&self, sequence_end: u64, how: Acknowledgement) {
        if how == Acknowledgement::Durable {
            self.log.demand_durable(sequence_end);
        }
    }

    /// The first sequences that are not acknowledged, not durable, and not told to those who need
    /// not wait for the device: when none of them has moved, no answer may leave that might not
    /// before.
    pub fn log_ends(&self) -> [u64; 3] {
        [self.acknowledged_end(), self.log.durable_end(), self.log.made_end()]
    }

    /// Bytes of the log that wait for the device, and those that it has taken since the start.
    #[inline]
    pub fn log_backlog(&self) -> (usize, u64) {
        self.log.backlog()
    }

    /// Completes when answers that need the log up to `sequence_end` may be sent.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`].
    pub async fn wait_acknowledged(&self, sequence_end: u64) -> Result<(), EngineError> {
        self.wait_told(sequence_end, Acknowledgement::Configured).await
    }

    /// The same, going by what the request asks for, which the shard is told as well.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`].
    pub async fn wait_told(
        &self,
        sequence_end: u64,
        how: Acknowledgement,
    ) -> Result<(), EngineError> {
        self.demand(sequence_end, how);
        self.log
            .changed()
            .wait_for(|| {
                if self.may_tell(sequence_end, how) {
                    return Some(Ok(()));
                }
                self.stopped().map(|reason| Err(EngineError::Stopped(reason)))
            })
            .await
    }

    /// Counts bytes that were appended, for the pace.
    fn note_written(&self, bytes: u32) {
        if self.pacing.is_kept.get() {
            let mut pace = self.pacing.pace.get();
            pace.wrote(u64::from(bytes));
            self.pacing.pace.set(pace);
        }
    }

    /// Whether the memtable should be written out: it is full, or the log that a start would have
    /// to replay is half as long as it may be.
    fn is_flush_due(&self) -> bool {
        self.index.is_memtable_full()
            || self.log.bytes_since_mark() >= self.options.recovery_log_bytes / 2
            || self.index.unflushed_range_bytes() >= self.options.ranges.bytes_max / 4
    }

    /// Why the shard takes no more writes, if so.
    pub fn stopped(&self) -> Option<String> {
        self.log.stopped()
    }

    /// Where the shard's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The shard's settings.
    pub fn options(&self) -> &ShardOptions {
        &self.options
    }

    fn unix_now(&self) -> u32 {
        u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX)
    }

    /// Makes everything that was acknowledged durable and ends the background tasks. The shard
    /// takes no more changes; operations that wait to make one fail.
    ///
    /// The manifest then knows where the log ends, so that the next start can tell damage at its
    /// very end from a write that a crash has cut short.
    pub async fn close(&self) -> Result<(), EngineError> {
        if std::mem::replace(&mut self.state.borrow_mut().closing, true) {
            return Ok(());
        }
        self.something_changed();
        self.log.flush().await?;
        let segments_sealed = self.log.close();
        self.something_changed();
        self.end_urgency();
        let noted = self
            .commit_edit(|state| {
                let segments_sealed = segments_sealed
                    .into_iter()
                    .map(|seal| Self::seal_for_good(state, seal, self.log.position().segment));
                Some(Edit { segments_sealed: segments_sealed.collect(), ..Edit::default() })
            })
            .await;
        // All is durable: the next start finds the log's end as after a crash.
        if matches!(noted, Err(EngineError::Full)) {
            tracing::warn!("there is no space to note where the log ends");
            return Ok(());
        }
        noted
    }

    /// The next start goes on above every sequence that was reserved: the last segment's seal says
    /// so to later replays.
    fn seal_for_good(
        state: &crate::manifest::State,
        seal: SegmentSeal,
        current: u32,
    ) -> SegmentSeal {
        if seal.segment == current {
            return SegmentSeal { sequence_last: state.version_ceiling - 1, ..seal };
        }
        seal
    }

    /// Writes everything out to tables that a start would replay now.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`], and [`EngineError::Full`] if there is no room for the tables.
    pub async fn write_out(&self) -> Result<(), EngineError> {
        let mut is_frozen = false;
        loop {
            if let Some(reason) = self.stopped() {
                return Err(EngineError::Stopped(reason));
            }
            if self.state.borrow().full.flushes {
                return Err(EngineError::Full);
            }
            if !self.index.has_frozen() {
                if is_frozen {
                    return Ok(());
                }
                self.freeze(&mut self.state.borrow_mut());
                is_frozen = self.index.has_frozen();
            }
            self.env.sleep(WRITE_OUT_STEP_NANOSECONDS).await;
        }
    }

    /// Makes everything that was acknowledged durable, in any durability mode.
    pub async fn sync(&self) -> Result<(), EngineError> {
        self.log.flush().await
    }
}

impl<E: Env> Drop for Shard<E> {
    /// A shard that is gone has no part in the node's budget; its next start counts its files anew.
    fn drop(&mut self) {
        self.shortage.take();
        self.options.budget.release(self.accounted.get());
    }
}
