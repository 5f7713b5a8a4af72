//! Taking out tables that nobody needs, and files that nobody reads any more.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::compact::find_all;
use super::live_bytes::LiveBytes;
use super::table::{self, Pointed, READ_AHEAD_BYTES, Table, TableError, TableIterator};
use super::{Host, Index};
use crate::error::EngineError;
use crate::manifest::Edit;

impl<E: Env> Index<E> {
    /// Takes tables out without reading their entries.
    pub(super) async fn remove_tables(
        &self,
        ids: &[u64],
        host: &impl Host,
    ) -> Result<(), EngineError> {
        let removed = find_all(&self.contents.borrow().tables, ids);
        let mut live = LiveBytes::default();
        for table in &removed {
            match share_of(table).await {
                Ok(share) => live.take(&share),
                // Too much counts as live then, which costs space and no data.
                Err(error) => tracing::error!("what a table points at is not known: {error}"),
            }
        }
        host.commit(|| Edit {
            tables_removed: ids.to_vec(),
            live_bytes: live.into_edit().0,
            ..Edit::default()
        })
        .await?;
        self.change_tables(&mut self.contents.borrow_mut(), |tables| {
            for id in ids {
                tables.remove(*id);
            }
        });
        self.retire(removed);
        self.count(|counters| counters.removals += ids.len() as u64);
        Ok(())
    }

    /// Notes tables that the manifest no longer names.
    pub(super) fn retire(&self, tables: impl IntoIterator<Item = Rc<Table<E>>>) {
        self.retired.borrow_mut().extend(tables);
    }

    /// Whether files wait for look-ups that may still read them.
    pub fn has_retired(&self) -> bool {
        !self.retired.borrow().is_empty()
    }

    /// Whether there are files that the manifest no longer names and nobody reads any more.
    pub fn has_unread_files(&self) -> bool {
        self.retired.borrow().iter().any(is_unread)
    }

    /// Whether there are files of tables that will be gone soon: nobody reads them any more but who
    /// will have done so soon. `is_kept` says of a table whether somebody keeps it for longer.
    pub fn is_removing(&self, is_kept: impl Fn(u64) -> bool) -> bool {
        let retired = self.retired.borrow();
        self.removing_bytes.get() > 0 || retired.iter().any(|table| !is_kept(table.meta().id))
    }

    /// Removes the files that the manifest no longer names and nobody reads any more.
    ///
    /// # Errors
    ///
    /// Final.
    pub async fn remove_unread_files(&self) -> Result<(), EngineError> {
        loop {
            let unread = self.retired.borrow_mut().extract_if(.., |table| is_unread(table)).next();
            let Some(table) = unread else { return Ok(()) };
            self.removing_bytes.set(table.meta().file_bytes);
            let path = self.directory.join(table::file_name(table.meta().id));
            self.forget_blocks(&table).await;
            drop(table);
            let removed = self.env.remove(&path).await;
            self.removing_bytes.set(0);
            removed.map_err(|source| EngineError::io(&path, "removing", &source))?;
        }
    }

    /// Drops the cached blocks of a table that nobody reads any more: nobody can ask for them.
    async fn forget_blocks(&self, table: &Table<E>) {
        for block in 0..table.blocks() {
            table.forget_block(block, &self.blocks);
            self.env.yield_if_needed().await;
        }
    }

    /// Bytes of such files that somebody still reads.
    pub fn retired_in_use_bytes(&self) -> u64 {
        let retired = self.retired.borrow();
        let in_use = retired.iter().filter(|table| !is_unread(table));
        in_use.map(|table| table.meta().file_bytes).sum()
    }

    /// Bytes of files of tables that the manifest does not name any more.
    pub fn doomed_bytes(&self) -> u64 {
        let retired = self.retired.borrow();
        let waiting: u64 = retired.iter().map(|table| table.meta().file_bytes).sum();
        waiting + self.removing_bytes.get()
    }
}

/// Whether nobody reads the file of a table that is noted as gone.
fn is_unread<E: Env>(table: &Rc<Table<E>>) -> bool {
    Rc::strong_count(table) == 1 && table.is_last_of_its_file()
}

/// What a table adds to the live bytes of segments: all that it points at, or, of a stub, what its
/// lost entries point at.
async fn share_of<E: Env>(table: &Rc<Table<E>>) -> Result<Pointed, TableError> {
    let mut share = table.pointed(IoClass::Compaction).await?;
    if !table.meta().is_stub() {
        return Ok(share);
    }
    // The entries that were readable when the table became a stub are counted elsewhere.
    let class = IoClass::Compaction;
    let mut entries = TableIterator::new(Rc::clone(table), &[], class, READ_AHEAD_BYTES);
    while let Some((_, entry)) = entries.next().await? {
        if let Some(pointer) = entry.pointer() {
            share.take(pointer.segment, pointer.len);
        }
    }
    Ok(share)
}
