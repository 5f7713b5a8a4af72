//! One pass over all files of a shard's directory.

use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::env::{DirectoryEntry, Env};

use super::log::{self, Log};
use super::pointers::Pointers;
use super::reader::Reader;
use super::report::{FileReport, Report};
use super::{CheckError, CheckProgress, newest, segments, tables};
use crate::index::table::{self, TableMeta};
use crate::manifest::{self, ManifestError, Reading, SegmentState};
use crate::superblock::SUPERBLOCK_FILE;
use crate::value_log::recovery;
use crate::value_log::segment::{self, StoreIdentity};

/// The file that a node locks; it may lie here in a store of one shard.
const LOCK_FILE: &str = "LOCK";

/// Bytes read at once of a segment.
const AHEAD_BYTES: usize = 1 << 20;

/// What a directory holds and what is wrong with it.
pub(super) struct Survey {
    pub(super) report: Report,
}

struct Surveyor<'a, E: Env> {
    env: &'a E,
    directory: &'a Path,
    report: Report,
    progress: &'a mut dyn FnMut(CheckProgress<'_>),
    done_bytes: u64,
    total_bytes: u64,
}

/// The names of a directory's files and their lengths.
pub(super) fn list(env: &impl Env, directory: &Path) -> Result<Vec<DirectoryEntry>, CheckError> {
    env.list(directory).map_err(CheckError::io(directory, "list"))
}

/// Looks at everything in `directory`.
pub(super) async fn survey<E: Env>(
    env: &E,
    directory: &Path,
    progress: &mut dyn FnMut(CheckProgress<'_>),
) -> Result<Survey, CheckError> {
    let entries = list(env, directory)?;
    let mut surveyor = Surveyor {
        env,
        directory,
        report: Report::default(),
        progress,
        done_bytes: 0,
        total_bytes: entries.iter().map(|entry| entry.len).sum(),
    };
    for entry in &entries {
        surveyor.report.file(&entry.name).bytes = entry.len;
    }
    match manifest::read(env, directory).await {
        Ok(reading) => surveyor.everything(&reading, &entries).await?,
        Err(ManifestError::Damaged { path, offset, what }) => {
            surveyor.without_manifest(&path, Some(offset), &what);
        }
        Err(ManifestError::Io { path, operation: "read", source }) => {
            surveyor.without_manifest(&path, None, &format!("cannot be read: {source}"));
        }
        Err(error) => return Err(CheckError::of_manifest(error)),
    }
    Ok(Survey { report: surveyor.report })
}

impl<E: Env> Surveyor<'_, E> {
    async fn everything(
        &mut self,
        reading: &Reading,
        entries: &[DirectoryEntry],
    ) -> Result<(), CheckError> {
        self.heads(reading);
        let identity = StoreIdentity {
            store: reading.superblock.identity.store_id,
            shard: reading.superblock.identity.shard_index,
        };
        let state = &reading.state;
        let ends = segments::ends(self.env, self.directory, identity.store, state).await?;
        for (&number, known) in &state.segments {
            self.segment(identity, number, known, ends[&number]).await?;
        }
        let log = log::replay(self.env, self.directory, identity.store, state).await?;
        self.log(identity.store, state, &log).await?;
        let tables: Vec<&TableMeta> = state.levels.iter().flatten().collect();
        for (number, meta) in tables.iter().enumerate() {
            self.table(identity.store, state, meta, (&log, &tables[..number])).await?;
        }
        for entry in entries {
            self.other_file(identity.store, reading, entry).await;
        }
        Ok(())
    }

    fn without_manifest(&mut self, path: &Path, offset: Option<u64>, what: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for file in self.report.files.iter_mut().filter(|file| file.name != name) {
            "not checked: a shard is unreadable without its superblock and manifest"
                .clone_into(&mut file.checked);
        }
        self.report.file(&name).problem(offset, what);
    }

    fn begin(&mut self, name: &str) {
        let bytes = self.report.file(name).bytes;
        let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
        (self.progress)(CheckProgress { file: name, done_bytes, total_bytes });
        self.done_bytes += bytes;
    }

    fn heads(&mut self, reading: &Reading) {
        self.begin(SUPERBLOCK_FILE);
        let file = self.report.file(SUPERBLOCK_FILE);
        "four copies".clone_into(&mut file.checked);
        for copy in &reading.bad_copies {
            file.problem(4096 * *copy as u64, format!("copy {copy} is not the one in force"));
        }
        self.begin(&reading.manifest_name);
        self.report.file(&reading.manifest_name).checked = format!("{} edits", reading.records);
    }

    /// Checks a segment's header, and its frames as far as no start replays them.
    async fn segment(
        &mut self,
        identity: StoreIdentity,
        number: u32,
        known: &SegmentState,
        end: u32,
    ) -> Result<(), CheckError> {
        let name = segment::file_name(number);
        self.begin(&name);
        let path = self.directory.join(&name);
        let mut reader = match Reader::open(self.env, &path, AHEAD_BYTES).await {
            Ok(reader) => reader,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.report.file(&name).problem(None, "the manifest names it, but it is not there");
                return Ok(());
            }
            Err(error) => return Err(CheckError::io(&path, "open")(error)),
        };
        let mut file = FileReport::new(&name, reader.len());
        if reader.len() < u64::from(known.file_bytes) {
            let what = format!("cut short: the manifest says {} bytes", known.file_bytes);
            file.problem(reader.len(), what);
        }
        let header = reader.bytes(0, segment::HEADER_BYTES as usize).await;
        if !segment::header_matches(header.bytes, identity, number) {
            file.problem(0, "the segment's header is damaged");
        }
        let is_open = known.sealed.is_none() && !known.is_log();
        let scan = segments::scan(self.env, &mut reader, identity.store, number, end, is_open);
        let stretch = scan.await?;
        for (offset, what) in stretch.damage {
            file.problem(u64::from(offset), what);
        }
        file.checked = format!("{} frames, {} records", stretch.frames, stretch.records);
        self.report.frames += stretch.frames;
        self.report.records += stretch.records;
        *self.report.file(&name) = file;
        Ok(())
    }

    /// Notes what replaying has found, and follows the pointers of entries that no table has yet.
    async fn log(
        &mut self,
        store: u128,
        state: &manifest::State,
        log: &Log,
    ) -> Result<(), CheckError> {
        self.report.records += log.outcome.records;
        for damage in &log.outcome.damage {
            let file = self.report.file(&segment::file_name(damage.segment));
            file.problem(u64::from(damage.offset), &damage.what);
        }
        for &(number, offset) in &log.undecodable {
            let file = self.report.file(&segment::file_name(number));
            file.problem(u64::from(offset), "a record that should hold an entry does not");
        }
        let mut pointers = Pointers::of_log(log, state);
        let report = &mut self.report;
        let name = segment::file_name(state.replay_from.segment);
        let followed = pointers.follow(self.env, self.directory, store, state, |found| {
            if !log.may_be_gone(&found) {
                let what = dangling(found.key, found.pointer, &found.reason);
                report.file(&name).problem(None, what);
            }
        });
        let followed = followed.await?;
        self.report.pointers += followed;
        Ok(())
    }

    async fn table(
        &mut self,
        store: u128,
        state: &manifest::State,
        meta: &TableMeta,
        (log, newer): (&Log, &[&TableMeta]),
    ) -> Result<(), CheckError> {
        let name = table::file_name(meta.id);
        self.begin(&name);
        let mut pointers = Pointers::default();
        let scan = tables::scan(self.env, self.directory, store, meta, |key, entry| {
            // The readable entries of a stub are in other tables.
            if !meta.is_stub() {
                pointers.push(key, entry);
            }
        });
        let scan = scan.await?;
        let file = self.report.file(&name);
        if meta.is_stub() {
            let blocks = meta.bad_blocks.len();
            let what = format!("the keys of {blocks} blocks were lost when they were merged");
            file.problem(None, what);
        }
        for (offset, what) in scan.damage {
            file.problem(offset, what);
        }
        let mut freed = BTreeMap::new();
        let followed = pointers.follow(self.env, self.directory, store, state, |found| {
            let what = dangling(found.key, found.pointer, &found.reason);
            if !found.is_freed {
                file.problem(None, what);
            } else if !found.had_expired {
                freed.insert(found.key.to_vec(), what);
            }
        });
        let followed = followed.await?;
        let keys = (&mut freed, meta.deleted_until);
        newest::keep_newest(self.env, self.directory, store, (log, newer), keys).await?;
        for what in freed.into_values() {
            file.problem(None, what);
        }
        file.checked =
            format!("{} blocks, {} entries, {followed} pointers", scan.blocks, scan.entries);
        self.report.blocks += scan.blocks;
        self.report.entries += scan.entries;
        self.report.pointers += followed;
        Ok(())
    }

    /// Says what a file is that the manifest does not name.
    async fn other_file(&mut self, store: u128, reading: &Reading, entry: &DirectoryEntry) {
        let state = &reading.state;
        let name = entry.name.as_str();
        let is_table = |id| state.levels.iter().flatten().any(|meta| meta.id == id);
        let what = if reading.leftovers.iter().any(|leftover| leftover == name) {
            "left behind by an interrupted change; the next start removes it"
        } else if let Some(number) = segment::parse_file_name(name) {
            if state.segments.contains_key(&number) {
                return;
            }
            let path = self.directory.join(name);
            let holds = recovery::holds_frames(self.env, &path, store, number).await;
            if number >= state.segment_id_next && holds.unwrap_or(false) {
                let file = self.report.file(name);
                file.problem(
                    None,
                    "it holds changes, but the manifest does not know it: the \
                     manifest is older than the directory",
                );
                return;
            }
            "spare: its bytes are of no meaning"
        } else if let Some(id) = table::parse_file_name(name) {
            if is_table(id) {
                return;
            }
            "left behind by an interrupted merge; the next start removes it"
        } else if manifest::owns_file(name) {
            return;
        } else if name == LOCK_FILE {
            "the lock"
        } else {
            self.report.file(name).problem(None, "not a file of a shard: move it away");
            return;
        };
        what.clone_into(&mut self.report.file(name).checked);
    }
}

fn dangling(key: &[u8], at: crate::entry::Pointer, why: &str) -> String {
    format!(
        "the value of {} is lost: {why} ({} at byte {})",
        crate::key::display(key),
        segment::file_name(at.segment),
        at.offset
    )
}
