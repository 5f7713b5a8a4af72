//! Which entries of tables a deletion of a range still hides.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::look_up::{has_lost, not_read};
use super::table::{Table, TableWalk};
use super::tables::Visit;
use crate::error::EngineError;
use crate::range_tombstones::RangeTombstone;

/// Entries of tables that a deletion hides.
pub struct HiddenEntries<E: Env> {
    range: RangeTombstone,
    tables: Vec<Rc<Table<E>>>,
    walk: Option<TableWalk<E>>,
}

/// Something newer of a key than a deletion of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// The log alone has it: damage to the log could take it back.
    Unflushed,
    /// Tables or the manifest have it.
    Flushed,
}

impl<E: Env> Index<E> {
    /// The entries that `range` may hide in tables; `None` while there are tables of which it hides
    /// everything, which are removed unread, or some that have lost keys.
    pub fn hidden_by(&self, range: &RangeTombstone) -> Option<HiddenEntries<E>> {
        let contents = self.contents.borrow();
        let of_range = |table: &&Rc<Table<E>>| {
            let (first, last) = table.key_range();
            table.meta().deleted_until <= range.sequence
                && last >= range.start.as_slice()
                && first < range.end.as_slice()
        };
        let tables: Vec<_> = contents.tables.all().filter(of_range).cloned().collect();
        let goes_unread = |table: &Rc<Table<E>>| {
            let (first, last) = table.key_range();
            let from = table.meta().deleted_until;
            table.meta().is_stub() || contents.ranges.cover(first, last, from)
        };
        let range = range.clone();
        (!tables.iter().any(goes_unread)).then_some(HiddenEntries { range, tables, walk: None })
    }

    /// The key of the next of these entries, and how it stands; `None` after the last. A key may
    /// come several times.
    ///
    /// # Errors
    ///
    /// As for [`Index::in_tables`].
    pub async fn next_hidden(
        &self,
        hidden: &mut HiddenEntries<E>,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let HiddenEntries { range, tables, walk } = hidden;
        let (start, end) = (range.start.as_slice(), Some(range.end.as_slice()));
        loop {
            if let Some(walk) = walk {
                let moved = walk.advance(start, end, &self.blocks, IoClass::Compaction).await;
                if moved.map_err(|error| not_read(start, &error))? {
                    // What a tombstone hides comes by itself.
                    if walk.entry().is_tombstone() {
                        continue;
                    }
                    return Ok(Some(walk.key().to_vec()));
                }
            }
            let Some(table) = tables.pop() else { return Ok(None) };
            *walk = Some(TableWalk::new(table, start, end, false));
        }
    }

    /// What is newer of `key` than the deletion of a range at `sequence`, as far as tables need not
    /// be asked.
    pub fn newer_in_memory(&self, key: &[u8], hash: u64, sequence: u64) -> Option<Newer> {
        let contents = self.contents.borrow();
        let in_frozen = || {
            let frozen = contents.frozen.as_ref();
            frozen.is_some_and(|frozen| frozen.memtable.get(key, hash).is_some())
        };
        if contents.active.get(key, hash).is_some() || in_frozen() {
            return Some(Newer::Unflushed);
        }
        let range = contents.ranges.newest(key).filter(|at| *at > sequence)?;
        let is_flushed = range < self.flushed_until.get();
        Some(if is_flushed { Newer::Flushed } else { Newer::Unflushed })
    }

    /// Whether a table has an entry of `key` that no deletion of a range up to `sequence` hides, or
    /// may have lost one.
    ///
    /// # Errors
    ///
    /// As for [`Index::in_tables`].
    pub async fn is_newer_in_tables(
        &self,
        key: &[u8],
        hash: u64,
        sequence: u64,
    ) -> Result<bool, EngineError> {
        let tables = Rc::clone(&self.contents.borrow().tables);
        for visit in tables.visits(key) {
            let is_newer = match visit {
                Visit::Table(table) if table.meta().deleted_until > sequence => {
                    let found = table.get(key, hash, &self.blocks, IoClass::Compaction).await;
                    found.map_err(|error| not_read(key, &error))?.is_some()
                }
                Visit::Table(_) => false,
                Visit::Stub(stub) => has_lost(stub, key, hash, Some(sequence)),
            };
            if is_newer {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
