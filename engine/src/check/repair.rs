//! Drops what is unreadable, and nothing else.
//!
//! - The superblock's bad copies are written anew.
//! - A table of which something is damaged is written anew from its readable blocks. An entry whose
//!   value is lost becomes a tombstone of the same version, so that no older one comes to light.
//! - Nobody knows which keys an unreadable block held. Entries of older tables between its readable
//!   neighbours may be what it had overwritten or deleted: they go too, but for those that the
//!   table's filter clears.
//! - Entries that lead into a freed segment are left alone where a newer one hides them, or where
//!   the manifest says that they had expired.
//! - A segment is replaced by a copy in which every frame is intact that no start replays.
//!
//! New files first, then one edit of the manifest, and only then what it has made superfluous goes:
//! a crash at any moment leaves the old state or the new one.
//!
//! Where the part of the log is damaged that a start replays, all of it that is readable is written
//! to tables first, and the repair begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use larder_runtime::env::{Env, IoClass};

use super::log::Log;
use super::patch::Patch;
use super::pointers::Pointers;
use super::reader::Reader;
use super::tables::{self, Gap};
use super::{CheckError, log, newest, segments, unflushed};
use crate::entry::{Entry, Metadata, Payload};
use crate::index::table::{
    self, BlockCache, EntryBuf, Table, TableBuilder, TableIdentity, TableMeta, TableOptions,
    key_hash,
};
use crate::manifest::{self, Edit, Manifest, ManifestError, State};
use crate::superblock::ShardIdentity;
use crate::value_log::recovery::{self, Damage};
use crate::value_log::segment::{self, StoreIdentity};

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// The files that were replaced or removed, and why, for people.
    pub done: Vec<String>,
    /// Keys that have lost their value, encoded.
    pub lost_keys: Vec<Vec<u8>>,
    /// Ranges in which any key may have lost its value: an encoded key before or at the first and
    /// one behind or at the last.
    pub lost_ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Changes of unknown keys that no table had yet.
    pub lost_changes: Vec<Damage>,
}

impl Repair {
    fn add(&mut self, later: Self) {
        self.done.extend(later.done);
        self.lost_keys.extend(later.lost_keys);
        self.lost_ranges.extend(later.lost_ranges);
        self.lost_changes.extend(later.lost_changes);
    }
}

/// Repairs the shard in `directory`, which nobody has open, as far as that is possible. A check
/// afterwards says what is left.
///
/// # Errors
///
/// Those of [`super::check`]; [`CheckError::Unrepairable`] if superblock or manifest are unreadable
/// or older than the files: then nothing tells what is in force.
pub async fn repair<E: Env>(env: &E, directory: &Path) -> Result<Repair, CheckError> {
    let mut round = one_round(env, directory).await?;
    if let Some(identity) = round.damaged_log {
        unflushed::write_out(env, directory, &identity).await?;
        let done = "the log since the last flush: what is readable of it written to tables";
        round.repair.done.push(done.to_owned());
        round.repair.add(one_round(env, directory).await?.repair);
    }
    Ok(round.repair)
}

/// What a repair of everything but the part of the log that is replayed has come to.
struct Round {
    repair: Repair,
    /// Whose log it is, if something of the part that is replayed is damaged.
    damaged_log: Option<ShardIdentity>,
}

async fn one_round<E: Env>(env: &E, directory: &Path) -> Result<Round, CheckError> {
    let reading = manifest::read(env, directory).await.map_err(|error| match error {
        error @ (ManifestError::Damaged { .. } | ManifestError::Io { operation: "read", .. }) => {
            CheckError::Unrepairable(error.to_string())
        }
        error => CheckError::of_manifest(error),
    })?;
    let identity = StoreIdentity {
        store: reading.superblock.identity.store_id,
        shard: reading.superblock.identity.shard_index,
    };
    let state = reading.state;
    if is_older_than_files(env, directory, identity.store, &state).await? {
        return Err(CheckError::Unrepairable(format!(
            "the manifest of {} is older than its files",
            directory.display()
        )));
    }
    if let Some(stub) = state.levels.iter().flatten().find(|meta| meta.is_stub()) {
        return Err(CheckError::SetAside(table::file_name(stub.id)));
    }
    let completed = unflushed::complete_files(env, directory, &state).await?;
    let log = log::replay(env, directory, identity.store, &state).await?;
    let is_damaged = unflushed::is_damaged(env, directory, identity.store, &state, &log).await?;
    let lost = log.outcome.damage.iter().filter(|damage| !damage.lost.is_empty());
    let repair = Repair { lost_changes: lost.cloned().collect(), ..Repair::default() };
    let mut repairer = Repairer {
        env,
        directory,
        identity,
        table_id_next: next_table_id(env, directory, &state)?,
        state,
        log,
        edit: Edit::default(),
        suspects: BTreeMap::new(),
        looked_at: Vec::new(),
        gaps: Vec::new(),
        live: BTreeMap::new(),
        repair,
    };
    for copy in &reading.bad_copies {
        repairer.repair.done.push(format!("SUPERBLOCK: copy {copy} written anew"));
    }
    repairer.tables().await?;
    repairer.free_missing_segments()?;
    if !repairer.repair.done.is_empty() {
        repairer.commit().await?;
    }
    repairer.repair.done.extend(completed);
    repairer.patch_segments().await?;
    repairer.list_lost_keys().await?;
    let damaged_log = is_damaged.then_some(reading.superblock.identity);
    Ok(Round { repair: repairer.repair, damaged_log })
}

/// Whether the manifest seems to have lost its last edits: files that it names are gone while files
/// are there that it does not know, or the log has gone on. What looks lost may be there under
/// names that only those edits tell.
async fn is_older_than_files<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    state: &State,
) -> Result<bool, CheckError> {
    let files = super::survey::list(env, directory)?;
    let is_there = |name: String| files.iter().any(|file| file.name == name);
    let tables: BTreeSet<u64> = state.levels.iter().flatten().map(|meta| meta.id).collect();
    let is_missing = tables.iter().any(|id| !is_there(table::file_name(*id)))
        || state.segments.keys().any(|number| !is_there(segment::file_name(*number)));
    for file in &files {
        let is_later_table =
            table::parse_file_name(&file.name).is_some_and(|id| !tables.contains(&id));
        let number = segment::parse_file_name(&file.name);
        let later_segment = number.filter(|number| *number >= state.segment_id_next);
        if is_missing && (is_later_table || later_segment.is_some()) {
            return Ok(true);
        }
        if let Some(number) = later_segment {
            let path = directory.join(&file.name);
            if recovery::holds_frames(env, &path, store, number).await.unwrap_or(false) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// An id that neither the manifest nor any file has.
fn next_table_id(env: &impl Env, directory: &Path, state: &State) -> Result<u64, CheckError> {
    let files = super::survey::list(env, directory)?;
    let ids = files.iter().filter_map(|file| table::parse_file_name(&file.name));
    Ok(ids.map(|id| id + 1).fold(state.table_id_next, u64::max))
}

/// A table's readable entries, and what is to be made of them.
struct Content {
    entries: Vec<(Vec<u8>, EntryBuf)>,
    /// Whether the table must be written anew.
    is_changed: bool,
}

/// Keys that a newer table may have held.
struct NewerGap<E: Env> {
    gap: Gap,
    smallest: Vec<u8>,
    largest: Vec<u8>,
    /// Rules out keys that the table never held, if its filter is sound.
    table: Option<std::rc::Rc<Table<E>>>,
}

impl<E: Env> NewerGap<E> {
    fn may_hold(&self, key: &[u8]) -> bool {
        let is_inside = key > self.gap.after.as_slice()
            && self.gap.before.as_ref().is_none_or(|before| key < before.as_slice())
            && (self.smallest.as_slice()..=self.largest.as_slice()).contains(&key);
        is_inside && self.table.as_ref().is_none_or(|table| table.may_contain(key_hash(key)))
    }
}

struct Repairer<'a, E: Env> {
    env: &'a E,
    directory: &'a Path,
    identity: StoreIdentity,
    state: State,
    /// What a start replays.
    log: Log,
    table_id_next: u64,
    edit: Edit,
    /// Keys of which an entry was dropped, with the number of tables that are newer than the
    /// newest such entry's.
    suspects: BTreeMap<Vec<u8>, usize>,
    /// The tables that were looked at, from the newest to the oldest, as they will be.
    looked_at: Vec<Option<TableMeta>>,
    /// Unreadable parts of the tables looked at so far: those are newer than the ones to come.
    gaps: Vec<NewerGap<E>>,
    /// Bytes of records that the tables refer to.
    live: BTreeMap<u32, u64>,
    repair: Repair,
}

impl<E: Env> Repairer<'_, E> {
    /// Writes damaged tables anew, from the newest to the oldest.
    async fn tables(&mut self) -> Result<(), CheckError> {
        let levels = self.state.levels.clone();
        let mut contents = Vec::new();
        for meta in &levels[0] {
            contents.push(self.read(meta).await?);
        }
        // What is added to level 0 is newer than what stays: all above a new table are new as well.
        let last = contents.iter().rposition(|content| content.is_changed);
        let again = last.map_or(0, |last| last + 1);
        for (meta, content) in levels[0].iter().zip(contents).take(again).rev() {
            self.replace(meta, content).await?;
        }
        for meta in levels[1..].iter().flatten() {
            let content = self.read(meta).await?;
            if content.is_changed {
                self.replace(meta, content).await?;
            }
        }
        Ok(())
    }

    /// Reads a table and takes out what cannot stay.
    async fn read(&mut self, meta: &TableMeta) -> Result<Content, CheckError> {
        let store = self.identity.store;
        let mut entries = Vec::new();
        let mut pointers = Pointers::default();
        let scan = tables::scan(self.env, self.directory, store, meta, |key, entry| {
            pointers.push(key, entry);
            entries.push((key.to_vec(), EntryBuf::new(entry)));
        });
        let scan = scan.await?;
        let name = table::file_name(meta.id);
        let mut is_changed = !scan.damage.is_empty();
        if is_changed {
            self.repair.done.push(format!("{name}: its {} readable entries kept", scan.entries));
        }
        let newer = self.looked_at.len();
        self.looked_at.push(Some(meta.clone()));
        let mut lost = BTreeSet::new();
        let mut freed = BTreeMap::new();
        let follow = pointers.follow(self.env, self.directory, store, &self.state, |found| {
            if !found.is_freed {
                lost.insert(found.key.to_vec());
            } else if !found.had_expired {
                freed.insert(found.key.to_vec(), ());
            }
        });
        follow.await?;
        let tables: Vec<&TableMeta> = self.state.levels.iter().flatten().take(newer).collect();
        let above = (&self.log, tables.as_slice());
        let keys = (&mut freed, meta.deleted_until);
        newest::keep_newest(self.env, self.directory, store, above, keys).await?;
        lost.extend(freed.into_keys());
        for (key, entry) in entries.iter_mut().filter(|(key, _)| lost.contains(key)) {
            let version = entry.as_entry().metadata.version;
            let metadata = Metadata { version, ..Metadata::default() };
            *entry = EntryBuf::new(&Entry { metadata, payload: Payload::Tombstone });
            self.suspects.entry(key.clone()).or_insert(newer);
        }
        let before = entries.len();
        let (gaps, suspects) = (&self.gaps, &mut self.suspects);
        entries.retain(|(key, _)| {
            let is_hidden = gaps.iter().any(|gap| gap.may_hold(key));
            if is_hidden {
                suspects.entry(key.clone()).or_insert(newer);
            }
            !is_hidden
        });
        let hidden = before - entries.len();
        if hidden > 0 || !lost.is_empty() {
            is_changed = true;
            let lost = lost.len();
            self.repair.done.push(format!(
                "{name}: {lost} entries without a value and {hidden} that may be outdated dropped"
            ));
        }
        self.note_gaps(meta, scan.gaps, scan.table);
        for (_, entry) in &entries {
            if let Some(pointer) = entry.as_entry().pointer() {
                *self.live.entry(pointer.segment).or_default() += u64::from(pointer.len);
            }
        }
        Ok(Content { entries, is_changed })
    }

    fn note_gaps(&mut self, meta: &TableMeta, gaps: Vec<Gap>, table: Option<Table<E>>) {
        let table = table.map(std::rc::Rc::new);
        for gap in gaps {
            let first = gap.after.clone().max(meta.smallest.clone());
            let last = gap.before.clone().unwrap_or_else(|| meta.largest.clone());
            self.repair.lost_ranges.push((first, last));
            self.gaps.push(NewerGap {
                gap,
                smallest: meta.smallest.clone(),
                largest: meta.largest.clone(),
                table: table.clone(),
            });
        }
    }

    /// Writes a table with these entries in the place of `old`.
    async fn replace(&mut self, old: &TableMeta, content: Content) -> Result<(), CheckError> {
        let identity = TableIdentity { store: self.identity.store, table: self.table_id_next };
        self.table_id_next += 1;
        let mut builder = TableBuilder::new(
            self.env.clone(),
            self.directory,
            identity,
            old.level,
            IoClass::Scrub,
            TableOptions::default(),
        )
        .deleted_until(old.deleted_until);
        let failed = |error: table::TableError| CheckError::Damaged(error.to_string());
        for (key, entry) in &content.entries {
            builder.add(key, &entry.as_entry()).await.map_err(failed)?;
        }
        let new = builder.finish().await.map_err(failed)?;
        let is_old =
            |meta: &&mut Option<TableMeta>| meta.as_ref().is_some_and(|it| it.id == old.id);
        let place = self.looked_at.iter_mut().find(is_old);
        *place.expect("a table is replaced after it was read") = new.clone();
        self.edit.tables_added.extend(new);
        self.edit.tables_removed.push(old.id);
        Ok(())
    }

    /// Makes the new tables those in force.
    async fn commit(&mut self) -> Result<(), CheckError> {
        let synced = self.env.sync_directory(self.directory).await;
        synced.map_err(CheckError::io(self.directory, "sync"))?;
        let known = self.state.segments.iter().map(|(number, known)| (*number, known.live_bytes));
        let expired = self.state.segments_expired.values();
        for (number, known) in known.chain(expired.map(|gone| (gone.segment, gone.live_bytes))) {
            let live = self.live.get(&number).copied().unwrap_or(0);
            let difference = i128::from(live) - i128::from(known);
            if let Ok(difference) = i64::try_from(difference)
                && difference != 0
            {
                self.edit.live_bytes.push((number, difference));
            }
        }
        self.edit.table_id_next = Some(self.table_id_next);
        // Opening it also mends the superblock.
        let opened = Manifest::open(self.env.clone(), self.directory).await;
        let (mut manifest, mut state, _) = opened.map_err(CheckError::of_manifest)?;
        let invalid = |error: manifest::EditError| CheckError::Manifest(error.into());
        state.apply(&self.edit).map_err(invalid)?;
        manifest.append(&self.edit, &state).await.map_err(CheckError::Manifest)?;
        self.state = state;
        for id in &self.edit.tables_removed {
            let path = self.directory.join(table::file_name(*id));
            match self.env.remove(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CheckError::io(&path, "remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes segments out of the manifest whose file is gone: nothing points to them any more.
    fn free_missing_segments(&mut self) -> Result<(), CheckError> {
        let files = super::survey::list(self.env, self.directory)?;
        let is_there = |name: &str| files.iter().any(|file| file.name == name);
        for &number in self.state.segments.keys() {
            let name = segment::file_name(number);
            if !log::is_replayed(&self.state, number) && !is_there(&name) {
                self.repair.done.push(format!("{name}: forgotten, its file is gone"));
                self.edit.segments_freed.push(number);
            }
        }
        Ok(())
    }

    async fn patch_segments(&mut self) -> Result<(), CheckError> {
        let store = self.identity.store;
        let ends = segments::ends(self.env, self.directory, store, &self.state).await?;
        for (&number, known) in &self.state.segments {
            let path = self.directory.join(segment::file_name(number));
            let mut reader = match Reader::open(self.env, &path, 1 << 20).await {
                Ok(reader) => reader,
                // Only a segment that is replayed can be gone here.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(CheckError::io(&path, "open")(error)),
            };
            let header = reader.bytes(0, segment::HEADER_BYTES as usize).await;
            let end = ends[&number];
            let is_open = known.sealed.is_none() && !known.is_log();
            let is_sound = segment::header_matches(header.bytes, self.identity, number)
                && reader.len() >= u64::from(known.file_bytes);
            let stretch =
                segments::scan(self.env, &mut reader, store, number, end, is_open).await?;
            if is_sound && stretch.damage.is_empty() {
                continue;
            }
            let patch = Patch {
                directory: self.directory,
                identity: self.identity,
                number,
                file_bytes: known.file_bytes,
                end,
                is_replayed: log::is_replayed(&self.state, number),
                spare_number: spare_number(self.env, self.directory, &self.state)?,
            };
            if !patch.apply(self.env).await? {
                continue;
            }
            self.repair.done.push(format!(
                "{}: copied, without {} unreadable places",
                segment::file_name(number),
                stretch.damage.len()
            ));
        }
        Ok(())
    }

    /// Of the keys that have lost an entry, those of which nothing newer is there.
    async fn list_lost_keys(&mut self) -> Result<(), CheckError> {
        if self.suspects.is_empty() {
            return Ok(());
        }
        let store = self.identity.store;
        let log = &self.log;
        let looked_at = &self.looked_at;
        self.suspects.retain(|key, number| {
            let table = looked_at.get(*number).and_then(Option::as_ref);
            // Of a table that is gone altogether nothing is known: the key counts as lost.
            let deleted_until = table.map_or(u64::MAX, |meta| meta.deleted_until);
            log.changes.get(key, key_hash(key)).is_none()
                && !log.living.is_deleted(key, deleted_until)
        });
        let blocks = BlockCache::new(0);
        for (number, meta) in self.looked_at.iter().enumerate() {
            let Some(meta) = meta else { continue };
            let range = meta.smallest.clone()..=meta.largest.clone();
            let asked = self.suspects.range(range).filter(|(_, newer)| number < **newer);
            let asked: Vec<Vec<u8>> = asked.map(|(key, _)| key.clone()).collect();
            if asked.is_empty() {
                continue;
            }
            let identity = TableIdentity { store, table: meta.id };
            let (env, directory) = (self.env.clone(), self.directory);
            let table = Table::open(env, directory, identity, meta, IoClass::Scrub).await;
            let table = table.map_err(|error| CheckError::Damaged(error.to_string()))?;
            for key in asked {
                let found = table.get(&key, key_hash(&key), &blocks, IoClass::Scrub).await;
                if found.map_err(|error| CheckError::Damaged(error.to_string()))?.is_some() {
                    self.suspects.remove(&key);
                }
            }
        }
        self.repair.lost_keys = self.suspects.keys().cloned().collect();
        Ok(())
    }
}

/// The number of no segment, in the manifest or as a file.
fn spare_number(env: &impl Env, directory: &Path, state: &State) -> Result<u32, CheckError> {
    let files = super::survey::list(env, directory)?;
    let numbers = files.iter().filter_map(|file| segment::parse_file_name(&file.name));
    Ok(numbers.map(|number| number + 1).fold(state.segment_id_next, u32::max))
}
