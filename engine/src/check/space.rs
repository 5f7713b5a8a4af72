//! What every byte of a shard's directory is for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use larder_runtime::env::{DirectoryEntry, Env, IoClass};

use super::log::{self, Log};
use super::segments::{self, Ends};
use super::survey::list;
use super::{CheckError, CheckProgress};
use crate::entry::{Entry, Pointer};
use crate::index::compaction::{MergeIterator, Verdict};
use crate::index::table::{self, Table, TableIdentity};
use crate::manifest::{self, ManifestError, Reading, SegmentState, State};
use crate::superblock::SUPERBLOCK_FILE;
use crate::value_log::segment;

/// What the bytes of one segment's file are for. The parts after `file_bytes` add up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentSpace {
    /// The segment's number.
    pub number: u32,
    /// Whether it holds records that were collected from other segments, and is no part of the log.
    pub is_collected: bool,
    /// Whether it takes no more frames.
    pub is_sealed: bool,
    /// The file's length.
    pub file_bytes: u64,
    /// The segment's header.
    pub header: u64,
    /// Records that reading a key may lead to.
    pub live: u64,
    /// Records that only entries of tables refer to which compaction drops: overwritten, deleted,
    /// expired, or of a namespace that was emptied.
    pub superseded: u64,
    /// Records that nothing refers to, and the headers and padding of frames.
    pub dead: u64,
    /// What was written since the last flush: a start replays it.
    pub replayed: u64,
    /// What can still be written to the open segment, or is lost behind a sealed one's end.
    pub unwritten: u64,
}

/// What the bytes of a shard's directory are for, in bytes unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceReport {
    /// Lengths of all files: the sum of all parts.
    pub total: u64,
    /// The superblock.
    pub superblock: u64,
    /// The manifest file in force.
    pub manifest: u64,
    /// The segments that the manifest names.
    pub segments: Vec<SegmentSpace>,
    /// Files of freed segments that are kept for use under another number.
    pub spare: u64,
    /// Tables that the manifest names.
    pub tables: u64,
    /// Files that an interrupted change has left, which the next start removes.
    pub orphans: u64,
    /// Files that are not a shard's.
    pub foreign: u64,
    /// Tables, as a number.
    pub table_count: u64,
    /// Entries of the tables, as a number.
    pub entries: u64,
    /// Those that are tombstones.
    pub tombstones: u64,
    /// Entries that a newer one of their key hides: compaction drops them.
    pub duplicates: u64,
    /// Newest entries whose time is up: compaction drops them.
    pub expired: u64,
    /// Newest entries of a namespace's generation that is gone: compaction drops them.
    pub emptied: u64,
    /// Changes that a start replays, as a number of keys.
    pub replayed_keys: u64,
}

impl SpaceReport {
    /// One part of all segments together.
    pub fn sum(&self, part: impl Fn(&SegmentSpace) -> u64) -> u64 {
        self.segments.iter().map(part).sum()
    }

    /// About how many bytes of the tables compaction would give back.
    pub fn debt(&self) -> u64 {
        let dropped = u128::from(self.duplicates + self.expired + self.emptied);
        let share = dropped * u128::from(self.tables) / u128::from(self.entries.max(1));
        u64::try_from(share).unwrap_or(self.tables)
    }
}

/// Explains every byte of the shard in `directory`.
///
/// # Errors
///
/// As [`super::check`], and [`CheckError::Damaged`] if the tables or the manifest are damaged.
pub async fn space<E: Env>(
    env: &E,
    directory: &Path,
    progress: &mut dyn FnMut(CheckProgress<'_>),
) -> Result<SpaceReport, CheckError> {
    let reading = manifest::read(env, directory).await.map_err(|error| match error {
        error @ (ManifestError::Damaged { .. } | ManifestError::Io { operation: "read", .. }) => {
            CheckError::Damaged(error.to_string())
        }
        error => CheckError::of_manifest(error),
    })?;
    let files = list(env, directory)?;
    let store = reading.superblock.identity.store_id;
    let log = log::replay(env, directory, store, &reading.state).await?;
    let mut report = SpaceReport::default();
    let ends = segments::ends(env, directory, store, &reading.state).await?;
    for file in &files {
        report.file(file, &reading, &log, &ends);
    }
    let tally = RefCell::new(Tally::new(&reading.state, (&log, &ends), env.unix_seconds()));
    count(env, directory, store, &tally, (report.total, progress)).await?;
    let tally = tally.into_inner();
    report.duplicates = tally.duplicates;
    report.expired = tally.expired;
    report.emptied = tally.emptied;
    for segment in &mut report.segments {
        segment.count(&tally);
    }
    Ok(report)
}

impl SpaceReport {
    fn file(&mut self, file: &DirectoryEntry, reading: &Reading, log: &Log, ends: &Ends) {
        let state = &reading.state;
        self.total += file.len;
        let name = file.name.as_str();
        if name == SUPERBLOCK_FILE {
            self.superblock += file.len;
        } else if name == reading.manifest_name {
            self.manifest += file.len;
        } else if let Some(number) = segment::parse_file_name(name) {
            if let Some(known) = state.segments.get(&number) {
                self.segments.push(SegmentSpace::new(number, file.len, known, log, ends));
            } else if file.len == u64::from(reading.superblock.identity.segment_bytes) {
                self.spare += file.len;
            } else {
                self.orphans += file.len;
            }
        } else if let Some(id) = table::parse_file_name(name) {
            match state.levels.iter().flatten().find(|meta| meta.id == id) {
                Some(meta) if meta.is_stub() => {
                    self.tables += file.len;
                    self.table_count += 1;
                }
                Some(meta) => {
                    self.tables += file.len;
                    self.table_count += 1;
                    self.entries += meta.entries;
                    self.tombstones += meta.tombstones;
                }
                None => self.orphans += file.len,
            }
        } else if manifest::owns_file(name) {
            self.orphans += file.len;
        } else {
            self.foreign += file.len;
        }
        self.replayed_keys = log.changes.len() as u64;
    }
}

impl SegmentSpace {
    /// The parts that the manifest and the replayed log decide; the part of the flushed records is
    /// all in `dead` at first.
    fn new(number: u32, file_bytes: u64, known: &SegmentState, log: &Log, ends: &Ends) -> Self {
        let flushed = u64::from(ends[&number]);
        let found = log.outcome.seals.iter().find(|seal| seal.segment == number);
        let seal = known.sealed.as_ref().or(found);
        let header = u64::from(segment::HEADER_BYTES).min(file_bytes);
        let flushed = flushed.clamp(header, file_bytes);
        let end = seal.map_or(flushed, |seal| u64::from(seal.end)).clamp(flushed, file_bytes);
        Self {
            number,
            is_collected: !known.is_log(),
            is_sealed: known.sealed.is_some(),
            file_bytes,
            header,
            live: 0,
            superseded: 0,
            dead: flushed - header,
            replayed: end - flushed,
            unwritten: file_bytes - end,
        }
    }

    fn count(&mut self, tally: &Tally<'_>) {
        let of = |bytes: &BTreeMap<u32, u64>| bytes.get(&self.number).copied().unwrap_or(0);
        self.live = of(&tally.live).min(self.dead);
        self.dead -= self.live;
        self.superseded = of(&tally.superseded).min(self.dead);
        self.dead -= self.superseded;
    }
}

/// What the entries of all tables come to.
struct Tally<'a> {
    state: &'a State,
    log: &'a Log,
    ends: &'a Ends,
    now: u32,
    live: BTreeMap<u32, u64>,
    superseded: BTreeMap<u32, u64>,
    /// Where the older entries point to of the key that comes next.
    older: BTreeSet<Pointer>,
    duplicates: u64,
    expired: u64,
    emptied: u64,
}

impl<'a> Tally<'a> {
    fn new(state: &'a State, (log, ends): (&'a Log, &'a Ends), now: u64) -> Self {
        let mut tally = Self {
            state,
            log,
            ends,
            now: u32::try_from(now).unwrap_or(u32::MAX),
            live: BTreeMap::new(),
            superseded: BTreeMap::new(),
            older: BTreeSet::new(),
            duplicates: 0,
            expired: 0,
            emptied: 0,
        };
        for pointer in log.changes.iter().filter_map(|(_, found)| found.entry.pointer()) {
            tally.add(pointer, true);
        }
        tally
    }

    /// Counts a record, unless it lies in the part of the log that is replayed.
    fn add(&mut self, pointer: Pointer, is_live: bool) {
        let end = self.ends.get(&pointer.segment).copied().unwrap_or(0);
        if pointer.offset < end {
            let bytes = if is_live { &mut self.live } else { &mut self.superseded };
            *bytes.entry(pointer.segment).or_default() += u64::from(pointer.len);
        }
    }

    fn older(&mut self, entry: &Entry<'_>) {
        self.duplicates += 1;
        self.older.extend(entry.pointer());
    }

    fn newest(&mut self, key: &[u8], entry: &Entry<'_>) {
        let change = self.log.changes.get(key);
        let is_emptied = !self.log.namespaces.generations().has_key(key);
        let is_expired = entry.metadata.is_expired(self.now);
        let in_force = match change {
            Some(change) => {
                self.duplicates += 1;
                change.entry.pointer()
            }
            None if is_emptied => {
                self.emptied += 1;
                None
            }
            None if is_expired => {
                self.expired += 1;
                None
            }
            None => entry.pointer(),
        };
        let mut pointers = std::mem::take(&mut self.older);
        pointers.extend(entry.pointer());
        for pointer in pointers {
            // What the log's own change points to was counted with it.
            if Some(pointer) != in_force {
                self.add(pointer, false);
            } else if change.is_none() {
                self.add(pointer, true);
            }
        }
    }
}

/// Shows every entry of every table to `tally`.
async fn count<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    tally: &RefCell<Tally<'_>>,
    (total_bytes, progress): (u64, &mut dyn FnMut(CheckProgress<'_>)),
) -> Result<(), CheckError> {
    let state = tally.borrow().state;
    let mut tables = Vec::new();
    for meta in state.levels.iter().flatten() {
        let file = table::file_name(meta.id);
        progress(CheckProgress { file: &file, done_bytes: 0, total_bytes });
        let identity = TableIdentity { store, table: meta.id };
        let table = Table::open(env.clone(), directory, identity, meta, IoClass::Scrub).await;
        tables.push(Rc::new(table.map_err(|error| CheckError::Damaged(error.to_string()))?));
    }
    let filter = |key: &[u8], entry: &Entry<'_>, _| {
        tally.borrow_mut().newest(key, entry);
        Verdict::Keep
    };
    let on_dropped = |entry: &Entry<'_>| tally.borrow_mut().older(entry);
    let mut merge = MergeIterator::new(tables, IoClass::Scrub, filter, on_dropped);
    while merge.next().await.map_err(|error| CheckError::Damaged(error.to_string()))?.is_some() {}
    match merge.damaged().iter().find(|(table, _)| !table.meta().is_stub()) {
        Some((table, _)) => {
            let name = table::file_name(table.meta().id);
            Err(CheckError::Damaged(format!("{name} has blocks that cannot be read")))
        }
        None => Ok(()),
    }
}
