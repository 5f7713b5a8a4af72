//! Opening a shard: superblock, manifest, tables, then the log after the last flush.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass, TaskQueue};

use super::abandoned::Abandoned;
use super::compression::Compression;
use super::first_segment::{self, FirstSegment};
use super::journal::Journal;
use super::leases::Leases;
use super::memory::CacheRoom;
use super::namespaces::{self, Namespaces};
use super::pins::Pins;
use super::replay_rate::ReplayRate;
use super::turns::Turns;
use super::{Garbage, Pacing, Shard, ShardOptions, State};
use crate::cache::ItemCache;
use crate::collector::Collector;
use crate::concurrent::{OPENINGS_MAX, concurrently};
use crate::entry::{Entry, Payload};
use crate::error::EngineError;
use crate::index::{Index, table};
use crate::manifest::{
    self, Edit, LogPosition, Manifest, ManifestError, SegmentSeal, SegmentState,
};
use crate::range_tombstones::RangeTombstone;
use crate::scrub::Scrubber;
use crate::signal::{Exclusive, Signal};
use crate::space::FreeSegments;
use crate::superblock::ShardIdentity;
use crate::value_log::record::RecordKind;
use crate::value_log::recovery::{self, Damage, ReplaySegment, Replayed};
use crate::value_log::segment::{self, StoreIdentity};
use crate::value_log::{LogSegments, ValueLog};

/// The file that a node locks in the directory above; it may be here in a single-shard store.
const LOCK_FILE: &str = "LOCK";

/// What opening a shard has found.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Whether the shard was created.
    pub created: bool,
    /// Records replayed from the log.
    pub records: u64,
    /// Whether writes that were never acknowledged were dropped from the log's end.
    pub torn: bool,
    /// Damage to acknowledged data.
    pub damage: Vec<Damage>,
}

/// The files of a shard's directory that the manifest does not list by itself.
#[derive(Default)]
struct Files {
    /// The length in bytes by number.
    segments: BTreeMap<u32, u64>,
    tables: Vec<u64>,
    /// Bytes of all files.
    bytes: u64,
}

/// How many segments replay may span before a start writes out what it found, so that starts that
/// are followed by crashes do not pile segments up: those of one life, the current and the spare.
const REPLAYED_SEGMENTS_MAX: usize = 2;

impl<E: Env> Shard<E> {
    /// Opens the shard in `directory`, or creates it if there is none.
    ///
    /// When it returns, everything that was ever acknowledged as durable is there, and what was
    /// found of it is durable again. Nothing is written before the state is known.
    ///
    /// # Errors
    ///
    /// [`EngineError::Open`], whose text names the file and what to do; [`EngineError::Full`] if
    /// there is no room for a segment of [`FIRST_SEGMENT_BYTES_MIN`].
    ///
    /// [`FIRST_SEGMENT_BYTES_MIN`]: super::FIRST_SEGMENT_BYTES_MIN
    pub async fn open(
        env: E,
        directory: &Path,
        mut options: ShardOptions,
    ) -> Result<(Rc<Self>, OpenReport), EngineError> {
        let mut report = OpenReport::default();
        if !Manifest::exists(&env, directory).map_err(|error| open_error(&error))? {
            create(&env, directory, &options).await?;
            report.created = true;
        }
        let (manifest, state, superblock) =
            Manifest::open(env.clone(), directory).await.map_err(|error| open_error(&error))?;
        check_identity(directory, &superblock.identity, &options)?;
        options.segment_bytes = superblock.identity.segment_bytes;
        let identity = StoreIdentity { store: superblock.identity.store_id, shard: options.shard };

        let files = list_files(&env, directory)?;
        check_manifest_is_latest(&env, directory, identity, &state, &files).await?;
        let store = identity.store;
        let index = Index::open(env.clone(), directory, store, options.index(), &state).await?;
        let mut opening = Opening {
            index,
            namespaces: Namespaces::from_manifest(&state.namespace_generations),
            inline_bytes_max: options.inline_bytes_max,
            replay_rate: ReplayRate::default(),
            abandoned: Abandoned::of(&state),
        };
        let began = env.now();
        let (segments, outcome) =
            replay(&env, directory, identity, &state, &files, &mut opening).await?;
        opening.replay_rate = ReplayRate {
            bytes: replayed_bytes(&state, &outcome),
            nanoseconds: env.now().saturating_sub(began),
        };
        report.records = outcome.records;
        report.torn = outcome.torn;
        report.damage.clone_from(&outcome.damage);

        remove_orphans(&env, directory, &state, &files, options.segment_bytes).await?;
        let disk = Disk { env, directory, identity };
        let shard =
            disk.start(options, manifest, state, &files, opening, segments, &outcome).await?;
        Ok((shard, report))
    }
}

/// Where a shard is opened.
struct Disk<'a, E: Env> {
    env: E,
    directory: &'a Path,
    identity: StoreIdentity,
}

impl<E: Env> Disk<'_, E> {
    /// Makes what replay has found the shard's state and starts its tasks.
    #[allow(clippy::too_many_arguments, reason = "what was found, handed over once")]
    async fn start(
        self,
        options: ShardOptions,
        manifest: Manifest<E>,
        state: manifest::State,
        files: &Files,
        opening: Opening<E>,
        segments: LogSegments<E::File>,
        outcome: &recovery::Outcome,
    ) -> Result<Rc<Shard<E>>, EngineError> {
        let Self { env, directory, identity } = self;
        let mut free = free_segments(files, &state, options.segment_bytes);
        let number = state.segment_id_next.max(free.number_next());
        let garbage = Garbage::new(number, &options);
        options.budget.adopt(files.bytes);
        let first = first_segment::choose(&env, directory, &options, &mut free)?;
        let FirstSegment { origin, bytes, promise } = first;
        let current =
            segment::prepare(&env, directory, identity, number, bytes, origin, || IoClass::Commit)
                .await?;

        let sequence_next = state.version_ceiling.max(outcome.sequence_next).max(1);
        let replayed = replayed_segments(&state).count();
        let journal = Journal::new(manifest, state);
        let sequences = (sequence_next, sequence_next + options.version_step);
        let edit = |state: &_| Some(opening_edit(state, outcome, (number, bytes), sequences));
        journal.commit(edit, async || Ok(false)).await?;
        let log =
            ValueLog::start(&env, directory, identity, options.log, current, segments, sequences);
        let mut items = ItemCache::new(options.cache_maxima().0);
        let shard = Rc::new(Shard {
            compression: Compression::new(options.compress_from, options.inline_bytes_max),
            cache_room: CacheRoom::new(&options, &mut items, opening.index.blocks()),
            index: opening.index,
            collector: Collector::new(env.clone(), identity.store),
            scrubber: Scrubber::new(env.clone(), identity.store, options.scrub),
            garbage,
            segment_numbers: Exclusive::default(),
            accounted: Cell::new(files.bytes),
            space_freed: Signal::default(),
            is_merging: Cell::new(false),
            waiting_since: Cell::new(None),
            removal_waits: Cell::new(false),
            shortage: RefCell::default(),
            refusals: Cell::default(),
            pacing: Pacing::default(),
            ranges_unflushed: Cell::default(),
            pins: Pins::default(),
            leases: Leases::default(),
            turns: Turns::default(),
            upload_turns: Turns::default(),
            replay_rate: opening.replay_rate,
            frozen_log_bytes: Cell::new(0),
            work: Signal::default(),
            unread: Signal::default(),
            free: RefCell::new(free),
            state: RefCell::new(State::new(items, opening.namespaces, sequence_next)),
            env: env.clone(),
            directory: directory.to_path_buf(),
            identity,
            options,
            log,
            journal,
        });
        spawn_tasks(&env, &shard, opening.abandoned);
        drop(promise);
        shard.settle_in(replayed);
        Ok(shard)
    }
}

impl<E: Env> Shard<E> {
    /// Makes everything fit what was found, `replayed` segments of the log among it.
    fn settle_in(&self, replayed: usize) {
        self.size_empty_caches();
        self.account();
        self.log.mark(self.replay_rate.bytes);
        if replayed > REPLAYED_SEGMENTS_MAX || self.is_flush_due() {
            self.freeze(&mut self.state.borrow_mut());
        }
    }
}

/// The files of segments that the manifest does not name and that can be used again.
fn free_segments(files: &Files, state: &manifest::State, segment_bytes: u32) -> FreeSegments {
    let mut free = FreeSegments::default();
    for (&number, &len) in &files.segments {
        if !state.segments.contains_key(&number) && len == u64::from(segment_bytes) {
            free.add(number);
        }
    }
    free
}

/// Starts the tasks of a shard.
fn spawn_tasks<E: Env>(env: &E, shard: &Rc<Shard<E>>, abandoned: Abandoned) {
    env.spawn(TaskQueue::Flush, Rc::clone(shard).keep_flushing());
    env.spawn(TaskQueue::Compaction, Rc::clone(shard).keep_compacting());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).keep_space());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).keep_removing_files());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).keep_memory());
    env.spawn(TaskQueue::GarbageCollection, Rc::clone(shard).keep_collecting());
    env.spawn(TaskQueue::Foreground, Rc::clone(shard).keep_pace());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).keep_time());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).keep_scrubbing());
    env.spawn(TaskQueue::GarbageCollection, Rc::clone(shard).keep_ranges());
    env.spawn(TaskQueue::GarbageCollection, Rc::clone(shard).keep_uploads());
    env.spawn(TaskQueue::Maintenance, Rc::clone(shard).seal_abandoned(abandoned));
}

/// The segments of the log that a start replays.
fn replayed_segments(state: &manifest::State) -> impl Iterator<Item = (u32, SegmentState)> {
    let segments = state.segments.iter();
    segments
        .filter(|(number, segment)| is_replayed(state, **number, segment))
        .map(|(number, segment)| (*number, *segment))
}

fn is_replayed(state: &manifest::State, number: u32, segment: &SegmentState) -> bool {
    number >= state.replay_from.segment && segment.is_log()
}

/// How many bytes of the log the next start would replay.
fn replayed_bytes(state: &manifest::State, outcome: &recovery::Outcome) -> u64 {
    let ends = replayed_segments(state).filter_map(|(number, segment)| {
        let found = || outcome.seals.iter().find(|seal| seal.segment == number).copied();
        Some(u64::from(segment.sealed.or_else(found)?.end))
    });
    ends.sum::<u64>().saturating_sub(u64::from(state.replay_from.offset))
}

fn open_error(error: &ManifestError) -> EngineError {
    EngineError::Open(error.to_string())
}

async fn create<E: Env>(
    env: &E,
    directory: &Path,
    options: &ShardOptions,
) -> Result<(), EngineError> {
    let identity = ShardIdentity {
        store_id: u128::from(env.random()) << 64 | u128::from(env.random()),
        shard_index: options.shard,
        shard_count: options.shards,
        route_seed: crate::key::ROUTE_SEED,
        segment_bytes: options.segment_bytes,
    };
    Manifest::create(env.clone(), directory, identity).await.map_err(|error| open_error(&error))?;
    Ok(())
}

fn check_identity(
    directory: &Path,
    found: &ShardIdentity,
    options: &ShardOptions,
) -> Result<(), EngineError> {
    let fits = found.shard_index == options.shard
        && found.shard_count == options.shards
        && found.route_seed == crate::key::ROUTE_SEED;
    if fits {
        return Ok(());
    }
    Err(EngineError::Open(format!(
        "{} is shard {} of {}, not shard {} of {}: the number of shards is fixed when the data \
         directory is created; start with --shards {}",
        directory.display(),
        found.shard_index,
        found.shard_count,
        options.shard,
        options.shards,
        found.shard_count,
    )))
}

fn list_files<E: Env>(env: &E, directory: &Path) -> Result<Files, EngineError> {
    let entries = env.list(directory).map_err(|source| {
        EngineError::Open(format!("cannot list {}: {source}", directory.display()))
    })?;
    let mut files = Files::default();
    for entry in entries {
        files.bytes += entry.len;
        if let Some(number) = segment::parse_file_name(&entry.name) {
            files.segments.insert(number, entry.len);
        } else if let Some(id) = table::parse_file_name(&entry.name) {
            files.tables.push(id);
        } else if !manifest::owns_file(&entry.name) && entry.name != LOCK_FILE {
            return Err(EngineError::Open(format!(
                "{} is not a file of a shard: move it out of the data directory",
                directory.join(&entry.name).display()
            )));
        }
    }
    Ok(files)
}

/// Refuses a manifest that was cut short or put back: the log has gone on since.
async fn check_manifest_is_latest<E: Env>(
    env: &E,
    directory: &Path,
    identity: StoreIdentity,
    state: &manifest::State,
    files: &Files,
) -> Result<(), EngineError> {
    for &number in files.segments.range(state.segment_id_next..).map(|(number, _)| number) {
        let path = directory.join(segment::file_name(number));
        let holds = recovery::holds_frames(env, &path, identity.store, number).await;
        // Of a file that cannot be read nothing is known, and the manifest does not miss it.
        if holds.unwrap_or(false) {
            return Err(EngineError::Open(format!(
                "the manifest is older than the directory: it does not know {}, which holds \
                 changes; restore the directory from a backup",
                path.display()
            )));
        }
    }
    Ok(())
}

/// What replaying fills.
struct Opening<E: Env> {
    index: Index<E>,
    namespaces: Namespaces,
    inline_bytes_max: usize,
    replay_rate: ReplayRate,
    abandoned: Abandoned,
}

impl<E: Env> Opening<E> {
    fn visit(&mut self, replayed: &Replayed<'_>) {
        let record = &replayed.record;
        let separate = Payload::Separate(replayed.pointer, record.value_len());
        let payload = match record.kind {
            RecordKind::FlushNamespace | RecordKind::ScheduleFlush => {
                namespaces::replay(&mut self.namespaces, record, replayed.payload_intact);
                return;
            }
            RecordKind::DeleteRange => {
                if let Some((start, end)) = RangeTombstone::decode_key(record.key) {
                    self.namespaces.see_key(start);
                    let (start, end) = (start.to_vec(), end.to_vec());
                    self.index.delete_range(RangeTombstone {
                        start,
                        end,
                        sequence: replayed.sequence,
                    });
                }
                return;
            }
            // Each of the moves comes by itself.
            RecordKind::Moves => return,
            RecordKind::Delete => Payload::Tombstone,
            // A damaged value stays where it is, so that reading it says so.
            _ if !replayed.payload_intact => separate,
            RecordKind::Put if record.is_inline(self.inline_bytes_max) => {
                Payload::Inline(record.payload)
            }
            RecordKind::Put => separate,
            RecordKind::Repoint => match Entry::decode(record.payload) {
                Some(entry) => entry.payload,
                None => separate,
            },
        };
        self.namespaces.see_key(record.key);
        let entry = Entry { metadata: record.metadata, payload };
        if let Some(pointer) = entry.pointer() {
            self.abandoned.see(pointer);
        }
        self.index.insert(record.key, table::key_hash(record.key), &entry, replayed.sequence);
    }
}

async fn replay<E: Env>(
    env: &E,
    directory: &Path,
    identity: StoreIdentity,
    state: &manifest::State,
    files: &Files,
    opening: &mut Opening<E>,
) -> Result<(LogSegments<E::File>, recovery::Outcome), EngineError> {
    let mut segments = LogSegments::default();
    let mut opened_now = Vec::new();
    for (&number, known) in &state.segments {
        let path = directory.join(segment::file_name(number));
        let found = files.segments.get(&number).copied();
        segment::check_len(&path, found, known.file_bytes).map_err(EngineError::Open)?;
        if is_replayed(state, number, known) || known.sealed.is_none() {
            opened_now.push((number, known));
        } else {
            segments.add_unopened(number, known.file_bytes);
        }
    }
    let openings = opened_now.into_iter().map(|(number, known)| async move {
        let opened = segment::open(env, directory, identity, number, known.file_bytes).await?;
        Ok::<_, EngineError>((opened, known))
    });
    let mut to_replay = Vec::new();
    for opened in concurrently(OPENINGS_MAX, openings).await {
        let (segment, known) = opened?;
        if is_replayed(state, segment.number, known) {
            to_replay.push(ReplaySegment { segment, seal: known.sealed });
        } else {
            segments.add(Rc::new(segment));
        }
    }
    let store = identity.store;
    let outcome = recovery::replay(env, store, &to_replay, state.replay_from, |record| {
        opening.visit(&record);
    })
    .await
    .map_err(|error| EngineError::Open(format!("{}: {error}", directory.display())))?;
    for damage in &outcome.damage {
        tracing::error!(
            file = %directory.join(segment::file_name(damage.segment)).display(),
            offset = damage.offset,
            "acknowledged data in the value log is damaged: {}", damage.what
        );
    }
    for source in to_replay {
        segments.add(Rc::new(source.segment));
    }
    Ok((segments, outcome))
}

/// The edit that makes what replay has found the shard's state, before anything new is written.
///
/// `sequences` are the first that will be used and the first that will not be reserved.
fn opening_edit(
    state: &manifest::State,
    outcome: &recovery::Outcome,
    (number, bytes): (u32, u32),
    (sequence_next, ceiling): (u64, u64),
) -> Edit {
    let mut seals = outcome.seals.clone();
    // The sequences that are skipped belong to the last segment: replay comes from there to the
    // new one, and from the segments before it to their successors. A clean end may have sealed the
    // last one, and with it the sequences that it had reserved, but not those before it.
    let last = state.segments.iter().rev().find(|(_, segment)| segment.is_log());
    let last = last.map(|(number, _)| *number);
    let is_last = |seal: &&mut SegmentSeal| last == Some(seal.segment);
    if let Some(last) = seals.iter_mut().find(is_last) {
        last.sequence_last = sequence_next - 1;
    }
    let position =
        LogPosition { segment: number, offset: segment::HEADER_BYTES, sequence: sequence_next };
    Edit {
        segments_opened: vec![(number, bytes)],
        segments_sealed: seals,
        replay_from: state.segments.is_empty().then_some(position),
        version_ceiling: Some(ceiling),
        ..Edit::default()
    }
}

/// Removes the tables that no edit has named, and the segments that were never finished.
async fn remove_orphans<E: Env>(
    env: &E,
    directory: &Path,
    state: &manifest::State,
    files: &Files,
    segment_bytes: u32,
) -> Result<(), EngineError> {
    let known = |id: u64| state.levels.iter().flatten().any(|meta| meta.id == id);
    let tables = files.tables.iter().filter(|id| !known(**id)).map(|id| table::file_name(*id));
    // A file of another length is half prepared or was a long one: it cannot be used again.
    let segments = files.segments.iter().filter(|(number, len)| {
        !state.segments.contains_key(number) && **len != u64::from(segment_bytes)
    });
    let segments = segments.map(|(number, _)| segment::file_name(*number));
    for name in tables.chain(segments) {
        let path = directory.join(name);
        env.remove(&path).await.map_err(|source| EngineError::io(&path, "removing", &source))?;
    }
    Ok(())
}
