//! Looking keys up: memtables, then the tables from newest to oldest.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::memtable::Found;
use super::recent::Moment;
use super::table::{BlockCache, EntryBuf, Resident, Table, TableError};
use super::tables::Visit;
use crate::entry::Entry;
use crate::error::EngineError;

impl<E: Env> Index<E> {
    /// Calls `look` with the newest entry of `key` if a memtable has it, or with a tombstone if it
    /// was deleted with a range that is newer.
    pub fn in_memtables<R>(
        &self,
        key: &[u8],
        hash: u64,
        look: impl FnOnce(Found<'_>) -> R,
    ) -> Option<R> {
        let contents = self.contents.borrow();
        let frozen = || contents.frozen.as_ref().and_then(|frozen| frozen.memtable.get(key, hash));
        let found = contents.active.get(key, hash).or_else(frozen);
        // What was deleted since the last flush is gone as if each key had its tombstone here.
        let hides = |at: &u64| match found {
            Some(found) => *at > found.sequence,
            None => *at >= self.flushed_until.get(),
        };
        match contents.ranges.newest(key).filter(hides) {
            Some(sequence) => Some(look(Found { entry: Entry::tombstone(sequence), sequence })),
            None => found.map(look),
        }
    }

    /// Calls `look` with what the tables have of a key that no memtable has, if that needs no read.
    pub fn in_resident_tables<R>(
        &self,
        key: &[u8],
        hash: u64,
        mut look: impl FnMut(Option<Entry<'_>>) -> R,
    ) -> Resident<R> {
        let contents = self.contents.borrow();
        let deleted_at = contents.ranges.newest(key);
        let moment = Moment { table_changes: self.table_changes(), deleted_at };
        if let Some(entry) = self.recent.borrow().get(key, hash, moment) {
            return Resident::Answer(look(Some(entry)));
        }
        let mut look_once = |entry: Entry<'_>| {
            self.recent.borrow_mut().note(key, hash, moment, &entry);
            look(Some(entry))
        };
        for visit in contents.tables.visits(key) {
            let table = match visit {
                // What is older in this range is hidden as well.
                Visit::Table(table) if is_hidden(table, deleted_at) => break,
                Visit::Table(table) => table,
                Visit::Stub(stub) if has_lost(stub, key, hash, deleted_at) => {
                    return Resident::NeedsDevice;
                }
                Visit::Stub(_) => continue,
            };
            match table.get_resident(key, hash, &self.blocks, |entry| entry.map(&mut look_once)) {
                Resident::Answer(Some(answer)) => return Resident::Answer(answer),
                Resident::Answer(None) => {}
                Resident::NeedsDevice => return Resident::NeedsDevice,
            }
        }
        Resident::Answer(look(None))
    }

    /// What the tables have of a key that no memtable has, reading what it takes, which is charged
    /// to `class`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Damaged`] if a block that may hold the key is not what was written, now or
    /// when it was merged; [`EngineError::Read`] if the device has refused to read it.
    pub fn in_tables(
        &self,
        key: &[u8],
        hash: u64,
        class: IoClass,
    ) -> impl Future<Output = Result<Option<EntryBuf>, EngineError>> {
        self.in_tables_by_way_of(key, hash, self.blocks.clone(), class)
    }

    /// As [`Index::in_tables`] for a client, but blocks that are read are not kept in the cache.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn in_tables_uncached(
        &self,
        key: &[u8],
        hash: u64,
    ) -> impl Future<Output = Result<Option<EntryBuf>, EngineError>> {
        self.in_tables_by_way_of(key, hash, self.blocks.without_keeping(), IoClass::Read)
    }

    fn in_tables_by_way_of(
        &self,
        key: &[u8],
        hash: u64,
        blocks: BlockCache,
        class: IoClass,
    ) -> impl Future<Output = Result<Option<EntryBuf>, EngineError>> {
        // The tables of this moment, not of the one at which the future is first polled.
        let (tables, deleted_at) = {
            let contents = self.contents.borrow();
            (Rc::clone(&contents.tables), contents.ranges.newest(key))
        };
        let moment = Moment { table_changes: self.table_changes(), deleted_at };
        let recent = self.recent.borrow().get(key, hash, moment);
        async move {
            if let Some(entry) = recent {
                return Ok(Some(EntryBuf::new(&entry)));
            }
            for visit in tables.visits(key) {
                let found = match visit {
                    Visit::Table(table) if is_hidden(table, deleted_at) => break,
                    Visit::Table(table) => table.get(key, hash, &blocks, class).await,
                    Visit::Stub(stub) if has_lost(stub, key, hash, deleted_at) => Err(stub.lost()),
                    Visit::Stub(_) => Ok(None),
                };
                if let Some(entry) = found.map_err(|error| not_read(key, &error))? {
                    return Ok(Some(entry));
                }
            }
            Ok(None)
        }
    }
}

/// Whether a table has nothing of a key that was deleted with a range at this log sequence.
fn is_hidden<E: Env>(table: &Table<E>, deleted_at: Option<u64>) -> bool {
    deleted_at.is_some_and(|at| at >= table.meta().deleted_until)
}

/// Whether a stub may have lost an entry of `key` that was not deleted with a range at this log
/// sequence. Of a key that it has not lost a stub says nothing, and nothing of what is older.
pub(super) fn has_lost<E: Env>(
    stub: &Table<E>,
    key: &[u8],
    hash: u64,
    deleted_at: Option<u64>,
) -> bool {
    !is_hidden(stub, deleted_at) && stub.may_be_lost(&stub.meta().bad_blocks, key, hash)
}

pub(super) fn not_read(key: &[u8], error: &TableError) -> EngineError {
    let (key, reason) = (crate::key::display(key), error.to_string());
    match error {
        TableError::Io { .. } => EngineError::Read(format!("{key}: {reason}")),
        TableError::Damaged { .. } | TableError::WrongFormat { .. } => {
            EngineError::Damaged { key, reason }
        }
    }
}
