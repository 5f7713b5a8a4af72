//! The index: the newest entry of every key, in memtables and tables.
//!
//! Changes go into the active memtable. A full one is frozen and flushed: it becomes a table of
//! level 0. Compaction merges tables downwards, so that few are in the way of a look-up. An
//! [`Index`] belongs to one thread; what it needs of the shard around it comes in as a [`Host`].
//!
//! Invariants:
//! - a key's newest entry is in the active memtable, else the frozen one, else in the tables in the
//!   order of [`Tables::visits`];
//! - a table becomes part of the index only after the manifest names it, and a file is removed only
//!   after the manifest does not.

mod compact;
pub mod compaction;
mod deleted;
mod flush;
mod hiding;
mod host;
mod live_bytes;
mod look_up;
pub mod memtable;
mod recent;
mod remove;
pub mod scan;
pub mod snapshot;
pub mod table;
mod tables;
#[cfg(test)]
mod test_host;
#[cfg(test)]
mod tests;
mod totals;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use crate::cache::CacheCounters;
use crate::canary::{self, Defect};
use crate::concurrent::{OPENINGS_MAX, concurrently};
use crate::entry::{Entry, Pointer};
use crate::error::EngineError;
use crate::generations::Generations;
use crate::manifest::{self, LogPosition};
use crate::range_tombstones::{RangeTombstone, RangeTombstones};

use compaction::picker::{self, PickerOptions};
use memtable::Memtable;
use recent::Recent;
use snapshot::Snapshots;
use table::{
    ALL, BlockCache, Hiding, SequenceOptions, Table, TableError, TableIdentity, TableMeta,
    TableOptions,
};
use tables::Tables;

pub use deleted::Newer;
use hiding::Older;
pub use host::{Host, Living};

/// How often a table that was just written is opened before it counts as not written.
const OPEN_ATTEMPTS_MAX: u32 = 3;

/// How long to wait before that is tried again, in nanoseconds.
const OPEN_RETRY_NANOSECONDS: u64 = 10_000_000;

/// An index's settings. Sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// A memtable is full when it is this large; two may exist at a time.
    pub memtable_bytes: usize,
    /// Memory of the table block cache, at its largest.
    pub block_cache_bytes: usize,
    /// The tables' settings.
    pub tables: TableOptions,
    /// The compaction picker's settings.
    pub picker: PickerOptions,
}

/// What an index has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexCounters {
    /// Memtables written out.
    pub flushes: u64,
    /// Bytes of tables written by flushes.
    pub flush_bytes: u64,
    /// Merges done; tables that moved unread are not counted.
    pub compactions: u64,
    /// Bytes of tables written by merges.
    pub compaction_bytes: u64,
    /// Tables that were taken out unread.
    pub removals: u64,
}

/// What an index holds and has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexStatistics {
    /// What was done.
    pub counters: IndexCounters,
    /// The block cache.
    pub blocks: CacheCounters,
    /// Keys in the memtables.
    pub memtable_entries: u64,
    /// Bytes of the memtables, estimated.
    pub memtable_bytes: u64,
    /// Bytes of the log records that entries of memtables point to.
    pub memtable_separate_bytes: u64,
    /// Entries in tables: keys, older versions of keys, and tombstones.
    pub table_entries: u64,
    /// Tables.
    pub tables: u64,
    /// Tables that are there only to say which keys are lost.
    pub stubs: u64,
    /// Bytes of the tables' files.
    pub table_bytes: u64,
    /// Bytes of files that the manifest no longer names, and that are still read.
    pub retired_bytes: u64,
    /// Bytes that the tables' indexes and filters keep in memory.
    pub table_memory_bytes: u64,
    /// Bytes of memory that what look-ups have just found takes.
    pub recent_memory_bytes: u64,
}

/// The most memory that an index takes to remember what look-ups have just found, in bytes.
pub const RECENT_BYTES_MAX: usize = Recent::BYTES_MAX;

/// A memtable that takes no more entries and is to be written out.
struct Frozen {
    memtable: Memtable,
    /// Replay from here finds everything that is neither in this memtable nor in tables.
    position: LogPosition,
    /// What lived when the memtable was frozen; other entries are not written out.
    living: Living,
}

struct Contents<E: Env> {
    active: Memtable,
    frozen: Option<Rc<Frozen>>,
    tables: Rc<Tables<E>>,
    /// The ranges of keys that were deleted, as far as they may hide something.
    ranges: Rc<RangeTombstones>,
}

/// The newest entry of every key.
pub struct Index<E: Env> {
    env: E,
    directory: PathBuf,
    store: u128,
    options: IndexOptions,
    blocks: BlockCache,
    table_id_next: Cell<u64>,
    contents: RefCell<Contents<E>>,
    /// Tables that the manifest no longer names, and whose files look-ups may still read.
    retired: RefCell<Vec<Rc<Table<E>>>>,
    snapshots: Snapshots<E>,
    pressure: Cell<Pressure>,
    /// What entries of memtables hide, if they are like those that were flushed last.
    memtable_hiding: Cell<Hiding>,
    counters: Cell<IndexCounters>,
    /// How often the tables have changed.
    table_changes: Cell<u64>,
    recent: RefCell<Recent>,
    /// Of the file that is being removed.
    removing_bytes: Cell<u64>,
    /// Whether a range was deleted that may hide something.
    has_ranges: Cell<bool>,
    /// Changes below this log sequence are in tables and in the manifest.
    flushed_until: Cell<u64>,
    /// Above the newest deletion of a range that was forgotten.
    forgotten_until: Cell<u64>,
    /// What ranges take that were deleted since the last memtable was frozen, in bytes.
    unflushed_range_bytes: Cell<usize>,
}

/// What newer entries hide, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of log records that tables point to, and that no newer table hides.
    pub visible_bytes: u64,
    /// Bytes of log records that may still count as live because no merge has met both their index
    /// entry and the newer one of their key.
    pub hidden_bytes: u64,
    /// The mean length of the log records that items in tables point to.
    pub mean_record_bytes: u64,
    /// Bytes of log records that tables point to and entries of memtables hide.
    pub memtable_hidden_bytes: u64,
}

/// What the tables' shape means for others; known anew when it changes.
#[derive(Clone, Copy, Default)]
struct Pressure {
    debt: u32,
    estimate: Estimate,
    memory_bytes: usize,
}

impl<E: Env> Index<E> {
    /// The index in `directory` of the store with this id: the tables that the manifest names and
    /// an empty memtable.
    ///
    /// # Errors
    ///
    /// [`EngineError::Open`] if a table cannot be opened.
    pub async fn open(
        env: E,
        directory: &Path,
        store: u128,
        options: IndexOptions,
        manifest: &manifest::State,
    ) -> Result<Self, EngineError> {
        let index = Self {
            env,
            directory: directory.to_path_buf(),
            store,
            options,
            blocks: BlockCache::new(options.block_cache_bytes),
            table_id_next: Cell::new(manifest.table_id_next),
            contents: RefCell::new(Contents {
                active: Memtable::default(),
                frozen: None,
                tables: Rc::default(),
                ranges: Rc::clone(&manifest.ranges),
            }),
            has_ranges: Cell::new(!manifest.ranges.is_empty()),
            flushed_until: Cell::new(manifest.replay_from.sequence),
            unflushed_range_bytes: Cell::new(0),
            forgotten_until: Cell::new(0),
            retired: RefCell::default(),
            snapshots: Snapshots::default(),
            pressure: Cell::default(),
            memtable_hiding: Cell::default(),
            counters: Cell::default(),
            table_changes: Cell::default(),
            recent: RefCell::new(Recent::new()),
            removing_bytes: Cell::default(),
        };
        index.open_tables(manifest).await?;
        Ok(index)
    }

    /// Opens the tables that the manifest names, several at a time, and estimates what they hide.
    async fn open_tables(&self, manifest: &manifest::State) -> Result<(), EngineError> {
        let mut oldest_first = Vec::new();
        for level in &manifest.levels {
            let from = oldest_first.len();
            oldest_first.extend(level.iter().rev());
            if canary::has(Defect::ReverseLevelZero) {
                oldest_first[from..].reverse();
            }
        }
        let openings = oldest_first.into_iter().map(|meta| self.open_table(meta, IoClass::Read));
        let mut tables = Tables::default();
        // Level 0 lists the newest first, and adding puts each in front of those before.
        for opened in concurrently(OPENINGS_MAX, openings).await {
            let table = opened.map_err(|error: TableError| {
                EngineError::Open(format!("{error}; restore the directory from a backup"))
            })?;
            tables.add(table.meta().level, Rc::new(table));
        }
        self.change_tables(&mut self.contents.borrow_mut(), |none| *none = tables);
        let tables = Rc::clone(&self.contents.borrow().tables);
        let estimates = tables.tables().map(|table| {
            let older = Older::Than(table.meta().id);
            self.estimate_hiding(table, older, IoClass::Read)
        });
        concurrently(OPENINGS_MAX, estimates).await;
        self.change_tables(&mut self.contents.borrow_mut(), |_| {});
        Ok(())
    }

    /// Makes `entry` the newest of `key`, whose hash is [`table::key_hash`]. `sequence` is the
    /// change's place in the log. Returns where the value was of an entry that this replaces in the
    /// active memtable, if that was in the log.
    pub fn insert(
        &self,
        key: &[u8],
        hash: u64,
        entry: &Entry<'_>,
        sequence: u64,
    ) -> Option<Pointer> {
        self.contents.borrow_mut().active.insert(key, hash, entry, sequence)
    }

    /// Deletes a range of keys. Its sequence is the change's place in the log.
    pub fn delete_range(&self, range: RangeTombstone) {
        let mut contents = self.contents.borrow_mut();
        let ranges = Rc::make_mut(&mut contents.ranges);
        let before = ranges.bytes();
        ranges.add(range);
        // One that takes the place of others waits to be flushed all the same.
        let more = ranges.bytes().saturating_sub(before).max(1);
        self.unflushed_range_bytes.set(self.unflushed_range_bytes.get() + more);
        self.has_ranges.set(true);
    }

    /// What deletions of ranges take in memory that no flush has begun to write out, in bytes.
    pub fn unflushed_range_bytes(&self) -> usize {
        self.unflushed_range_bytes.get()
    }

    /// Forgets deletions of ranges that hide nothing any more.
    pub fn forget_ranges(&self, ranges: &[RangeTombstone]) {
        let mut contents = self.contents.borrow_mut();
        let known = Rc::make_mut(&mut contents.ranges);
        for range in ranges {
            known.forget(range);
            self.forgotten_until.set(self.forgotten_until.get().max(range.sequence + 1));
        }
        self.has_ranges.set(!known.is_empty());
    }

    /// The sequence of the newest deletion of a range with `key` in it.
    #[inline]
    pub fn deleted_at(&self, key: &[u8]) -> Option<u64> {
        if !self.has_ranges.get() {
            return None;
        }
        self.contents.borrow().ranges.newest(key)
    }

    /// Whether `key` may have been deleted with a range at this log sequence or later.
    pub fn may_be_deleted_since(&self, key: &[u8], sequence: u64) -> bool {
        // One that was forgotten meanwhile is not known any more.
        let is_forgotten = self.forgotten_until.get() > sequence;
        is_forgotten || self.deleted_at(key).is_some_and(|at| at >= sequence)
    }

    /// The deleted ranges that may hide something.
    pub fn ranges(&self) -> Rc<RangeTombstones> {
        Rc::clone(&self.contents.borrow().ranges)
    }

    /// Changes below this log sequence are in tables and in the manifest.
    pub fn flushed_until(&self) -> u64 {
        self.flushed_until.get()
    }

    /// Whether the active memtable has reached its size.
    pub fn is_memtable_full(&self) -> bool {
        self.contents.borrow().active.bytes() >= self.options.memtable_bytes
    }

    /// Bytes of the active memtable.
    pub fn active_bytes(&self) -> u64 {
        self.contents.borrow().active.bytes() as u64
    }

    /// Whether a frozen memtable waits to be flushed.
    pub fn has_frozen(&self) -> bool {
        self.contents.borrow().frozen.is_some()
    }

    /// Makes the active memtable immutable and starts a new one. `position` is where the log goes
    /// on, `generations` are those that live.
    ///
    /// # Panics
    ///
    /// If the last frozen memtable was not flushed yet.
    pub fn freeze(&self, position: LogPosition, generations: Generations) {
        let mut contents = self.contents.borrow_mut();
        assert!(contents.frozen.is_none(), "one memtable is flushed at a time");
        let memtable = std::mem::take(&mut contents.active);
        let living = Living { generations, ranges: Rc::clone(&contents.ranges) };
        contents.frozen = Some(Rc::new(Frozen { memtable, position, living }));
        self.unflushed_range_bytes.set(0);
    }

    /// Whether a memtable's entries have pointed into this segment: it must not be freed before
    /// they are in a table, which counts them.
    pub fn memtables_point_into(&self, segment: u32) -> bool {
        let contents = self.contents.borrow();
        let frozen = contents.frozen.as_ref();
        contents.active.points_into(segment)
            || frozen.is_some_and(|frozen| frozen.memtable.points_into(segment))
    }

    /// How far compaction is behind, from 0 (not at all) to [`picker::DEBT_MAX`] and beyond (no
    /// more should be taken in until it has caught up).
    pub fn debt(&self) -> u32 {
        self.pressure.get().debt
    }

    /// What of the log records that the index points to its newer entries hide.
    pub fn estimate(&self) -> Estimate {
        let contents = self.contents.borrow();
        let memtables = [Some(&contents.active), contents.frozen.as_ref().map(|f| &f.memtable)];
        let sum = |of: fn(&Memtable) -> u64| memtables.iter().flatten().map(|m| of(m)).sum::<u64>();
        let tombstones = sum(Memtable::tombstones);
        let puts = sum(|memtable| memtable.len() as u64) - tombstones;
        let hiding = self.memtable_hiding.get();
        let estimate = self.pressure.get().estimate;
        let mean = estimate.mean_record_bytes;
        // What is deleted was there. How long it was is not known where only items without a log
        // record were met.
        let record_bytes = hiding.record_bytes.filter(|bytes| *bytes > 0);
        let removals = Hiding { share: ALL, record_bytes };
        let removed = removals.bytes(tombstones, tombstones.saturating_mul(mean));
        let replaced = hiding.bytes(puts, sum(Memtable::separate_bytes));
        Estimate { memtable_hidden_bytes: removed.saturating_add(replaced), ..estimate }
    }

    /// Bytes of memory that open tables take, those included that only look-ups under way still
    /// need.
    pub fn memory_bytes(&self) -> usize {
        let retired = self.retired.borrow();
        let retired: usize = retired.iter().map(|table| table.memory_bytes()).sum();
        self.pressure.get().memory_bytes + retired
    }

    /// The blocks of tables that were read before.
    pub fn blocks(&self) -> &BlockCache {
        &self.blocks
    }

    /// The index in numbers.
    pub fn statistics(&self) -> IndexStatistics {
        let contents = self.contents.borrow();
        let frozen = contents.frozen.as_ref().map(|frozen| &frozen.memtable);
        let totals = contents.tables.totals();
        let retired = self.retired.borrow();
        IndexStatistics {
            counters: self.counters.get(),
            blocks: self.blocks.counters(),
            memtable_entries: (contents.active.len() + frozen.map_or(0, Memtable::len)) as u64,
            memtable_bytes: (contents.active.bytes() + frozen.map_or(0, Memtable::bytes)) as u64,
            memtable_separate_bytes: contents.active.separate_bytes()
                + frozen.map_or(0, Memtable::separate_bytes),
            table_entries: totals.entries,
            tables: totals.tables,
            stubs: totals.stubs,
            table_bytes: totals.file_bytes,
            retired_bytes: retired.iter().map(|table| table.meta().file_bytes).sum(),
            table_memory_bytes: self.memory_bytes() as u64,
            recent_memory_bytes: self.recent.borrow().memory_bytes() as u64,
        }
    }

    async fn open_table(&self, meta: &TableMeta, class: IoClass) -> Result<Table<E>, TableError> {
        let identity = TableIdentity { store: self.store, table: meta.id };
        Table::open(self.env.clone(), &self.directory, identity, meta, class).await
    }

    /// Opens tables that were just written. What they were made of is still there, so a failure is
    /// not final: it is tried again, and then the tables, which the manifest does not name, are
    /// removed.
    async fn open_outputs(
        &self,
        outputs: &[TableMeta],
        class: IoClass,
    ) -> Result<Vec<Rc<Table<E>>>, EngineError> {
        let mut opened = Vec::new();
        for meta in outputs {
            let mut table = self.open_table(meta, class).await;
            for _ in 1..OPEN_ATTEMPTS_MAX {
                if table.is_err() {
                    self.env.sleep(OPEN_RETRY_NANOSECONDS).await;
                    table = self.open_table(meta, class).await;
                }
            }
            match table {
                Ok(table) => opened.push(Rc::new(table)),
                Err(error) => {
                    for output in outputs {
                        let path = self.directory.join(table::file_name(output.id));
                        // What stays is removed by the next start.
                        let _removed = self.env.remove(&path).await;
                    }
                    return Err(EngineError::Read(error.to_string()));
                }
            }
        }
        Ok(opened)
    }

    fn sequence_options(
        &self,
        level: u8,
        class: IoClass,
        deleted_until: u64,
    ) -> SequenceOptions<E> {
        SequenceOptions {
            env: self.env.clone(),
            directory: self.directory.clone(),
            store: self.store,
            level,
            class,
            tables: self.options.tables,
            cuts: self.output_cuts(level),
            blocks: Some(self.blocks.clone()),
            deleted_until,
        }
    }

    /// Where outputs in `level` end, so that none overlaps too much of the next.
    fn output_cuts(&self, level: u8) -> Vec<Vec<u8>> {
        let contents = self.contents.borrow();
        let below = contents.tables.level(usize::from(level) + 1);
        let below: Vec<_> = below
            .iter()
            .map(|table| picker::Candidate {
                bytes: table.meta().file_bytes,
                smallest: &table.meta().smallest,
                ..picker::Candidate::default()
            })
            .collect();
        let table_bytes = contents.tables.totals().file_bytes;
        picker::output_cuts(&below, self.options.picker.merge_bytes_of(table_bytes))
    }

    fn take_table_id(&self) -> u64 {
        let id = self.table_id_next.get();
        self.table_id_next.set(id + 1);
        id
    }

    fn count(&self, count: impl FnOnce(&mut IndexCounters)) {
        let mut counters = self.counters.get();
        count(&mut counters);
        self.counters.set(counters);
    }

    async fn sync_directory(&self) -> Result<(), EngineError> {
        if canary::has(Defect::SkipTableDirectorySync) {
            return Ok(());
        }
        let directory = &self.directory;
        let result = self.env.sync_directory(directory).await;
        result.map_err(|source| EngineError::io(directory, "syncing the directory", &source))
    }

    /// Replaces the tables by what `change` makes of them; look-ups under way keep the old ones.
    fn change_tables(&self, contents: &mut Contents<E>, change: impl FnOnce(&mut Tables<E>)) {
        let mut tables = (*contents.tables).clone();
        change(&mut tables);
        if let Some(newest) = tables.level(0).first() {
            self.memtable_hiding.set(newest.hiding());
        }
        let view = tables.view(&Living::default());
        self.pressure.set(Pressure {
            debt: picker::debt(&view, &self.options.picker),
            estimate: Estimate {
                visible_bytes: picker::visible_bytes(&view, &self.options.picker),
                hidden_bytes: picker::hidden_bytes(&view, &self.options.picker),
                mean_record_bytes: picker::mean_record_bytes(&view, &self.options.picker),
                memtable_hidden_bytes: 0,
            },
            memory_bytes: tables.memory_bytes(),
        });
        drop(view);
        contents.tables = Rc::new(tables);
        self.table_changes.set(self.table_changes.get() + 1);
    }

    /// How often the tables have changed: after another time they may know something newer of a key
    /// than what was found there, or have dropped it.
    pub fn table_changes(&self) -> u64 {
        self.table_changes.get()
    }

    fn unix_now(&self) -> u32 {
        u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX)
    }
}
