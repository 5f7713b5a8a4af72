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
use crate::entry::{Entry, Payload, Pointer};
use crate::index::compaction::{MergeIterator, Source, Verdict};
use crate::index::table::{self, Table, TableIdentity};
use crate::manifest::{self, ManifestError, Reading, SegmentState, State};
use crate::space::{CompressedSpace, SegmentEnds, SegmentSpace, SpaceReport};
use crate::superblock::SUPERBLOCK_FILE;
use crate::value_log::{record, segment};

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
    report.unflushed_keys = log.changes.len() as u64;
    let tally = RefCell::new(Tally::new(&reading.state, (&log, &ends), env.unix_seconds()));
    count(env, directory, store, &tally, (report.total(), progress)).await?;
    let tally = tally.into_inner();
    report.duplicates = tally.duplicates;
    report.expired = tally.expired;
    report.emptied = tally.emptied;
    report.compressed = Some(tally.compressed);
    for segment in &mut report.segments {
        let of = |bytes: &BTreeMap<u32, u64>| bytes.get(&segment.number).copied().unwrap_or(0);
        let (live, superseded) = (of(&tally.live), of(&tally.superseded));
        segment.count(live, superseded);
    }
    Ok(report)
}

/// The mean length of the log records that items in tables point to.
fn mean_record_bytes(state: &State) -> u64 {
    let tables = || state.levels.iter().flatten().filter(|table| !table.is_stub());
    let bytes: u64 = tables().map(|table| table.separate_bytes).sum();
    let items: u64 = tables().map(|table| table.entries.saturating_sub(table.tombstones)).sum();
    bytes.div_ceil(items.max(1))
}

impl SpaceReport {
    /// Counts a file, by its name.
    fn file(&mut self, file: &DirectoryEntry, reading: &Reading, log: &Log, ends: &Ends) {
        let state = &reading.state;
        let name = file.name.as_str();
        if name == SUPERBLOCK_FILE {
            self.superblock += file.len;
        } else if name == reading.manifest_name {
            self.manifest += file.len;
        } else if let Some(number) = segment::parse_file_name(name) {
            if let Some(known) = state.segments.get(&number) {
                let ends = segment_ends(number, known, log, ends);
                self.segments.push(SegmentSpace::new(
                    number,
                    file.len,
                    known,
                    ends,
                    (0, mean_record_bytes(state)),
                ));
            } else if file.len == u64::from(reading.superblock.identity.segment_bytes) {
                self.free += file.len;
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
    }
}

/// Where the parts of a segment end. Those that a start replays end where it finds them to.
fn segment_ends(number: u32, known: &SegmentState, log: &Log, ends: &Ends) -> SegmentEnds {
    let flushed = u64::from(ends[&number]);
    let found = log.outcome.seals.iter().find(|seal| seal.segment == number);
    let seal = known.sealed.as_ref().or(found);
    let appended = seal.map_or(flushed, |seal| u64::from(seal.end));
    // What a start finds it makes durable, if it is not.
    SegmentEnds { flushed, durable: appended, appended }
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
    compressed: CompressedSpace,
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
            compressed: CompressedSpace::default(),
        };
        for (key, found) in log.visible() {
            tally.see_compressed(key, &found.entry);
            if let Some(pointer) = found.entry.pointer() {
                tally.add(pointer, true);
            }
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

    /// Counts the value of an entry that is in force, if it is compressed: its record has another
    /// length then.
    fn see_compressed(&mut self, key: &[u8], entry: &Entry<'_>) {
        let Payload::Separate(pointer, value_len) = entry.payload else { return };
        if pointer.len as usize != record::encoded_len(key.len(), value_len as usize) {
            self.compressed.values += 1;
            self.compressed.value_bytes += u64::from(value_len);
            self.compressed.record_bytes += u64::from(pointer.len);
        }
    }

    fn older(&mut self, entry: &Entry<'_>) {
        self.duplicates += 1;
        self.older.extend(entry.pointer());
    }

    fn newest(&mut self, key: &[u8], entry: &Entry<'_>, deleted_until: u64) {
        let change = self.log.change_of(key);
        let is_emptied = self.log.living.is_deleted(key, deleted_until);
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
            None => {
                self.see_compressed(key, entry);
                entry.pointer()
            }
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
    let filter = |key: &[u8], entry: &Entry<'_>, source: Source| {
        tally.borrow_mut().newest(key, entry, source.deleted_until);
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
