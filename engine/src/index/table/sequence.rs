//! Writes entries in key order into as many tables as it takes.

use std::path::PathBuf;

use larder_runtime::env::{Env, IoClass};

use super::{
    BlockCache, TableBuilder, TableError, TableIdentity, TableMeta, TableOptions, file_name,
};
use crate::entry::Entry;
use crate::generations::generation_of;

/// Where and how a sequence of tables is written.
pub struct SequenceOptions<E: Env> {
    /// Where the tables are written.
    pub env: E,
    /// The directory of the tables.
    pub directory: PathBuf,
    /// The store's id.
    pub store: u128,
    /// The level of the tables.
    pub level: u8,
    /// What reads and writes are charged to.
    pub class: IoClass,
    /// How the tables are built; a new one begins at `table_bytes`.
    pub tables: TableOptions,
    /// Keys, in increasing order, before which a table ends.
    pub cuts: Vec<Vec<u8>>,
    /// Where blocks are kept as they are written, if anywhere.
    pub blocks: Option<BlockCache>,
    /// The log sequence below which all deletions of ranges were applied to what is written.
    pub deleted_until: u64,
}

/// Tables that are being written one after the other.
///
/// A table holds keys of one generation, so that it dies as a whole. After an error only
/// [`Self::abandon`] may follow. If a sequence is dropped instead, files remain that no manifest
/// names.
pub struct TableSequence<E: Env, I> {
    options: SequenceOptions<E>,
    next_table_id: I,
    builder: Option<(u32, TableBuilder<E>)>,
    /// How many of the cuts are at or before the last key.
    cuts_passed: usize,
    finished: Vec<TableMeta>,
}

impl<E: Env, I: FnMut() -> u64> TableSequence<E, I> {
    /// An empty sequence; `next_table_id` hands out ids that were never used.
    pub fn new(options: SequenceOptions<E>, next_table_id: I) -> Self {
        Self { options, next_table_id, builder: None, cuts_passed: 0, finished: Vec::new() }
    }

    /// Adds an entry, whose key is greater than the one before.
    pub async fn add(&mut self, key: &[u8], entry: &Entry<'_>) -> Result<(), TableError> {
        let generation = generation_of(key);
        let cuts = &self.options.cuts[self.cuts_passed..];
        let passed = cuts.iter().take_while(|cut| cut.as_slice() <= key).count();
        self.cuts_passed += passed;
        let is_full = |(of, builder): &mut (u32, TableBuilder<E>)| {
            *of != generation
                || passed > 0
                || builder.estimated_bytes() >= self.options.tables.table_bytes
        };
        if let Some((_, full)) = self.builder.take_if(is_full) {
            self.finished.extend(full.finish().await?);
        }
        if self.builder.is_none() {
            self.builder = Some((generation, self.new_builder()));
        }
        let (_, builder) = self.builder.as_mut().expect("just made");
        builder.add(key, entry).await
    }

    /// Ends the last table. When it resolves with `Ok` the bytes of all tables are durable; the
    /// caller then syncs the directory, and after that names them in the manifest.
    ///
    /// On an error no table is left.
    pub async fn finish(mut self) -> Result<Vec<TableMeta>, TableError> {
        if let Some((_, last)) = self.builder.take() {
            match last.finish().await {
                Ok(meta) => self.finished.extend(meta),
                Err(error) => {
                    self.abandon().await;
                    return Err(error);
                }
            }
        }
        Ok(self.finished)
    }

    /// Removes what was written. A file that cannot be removed is one that no manifest names: the
    /// next start removes it.
    pub async fn abandon(self) {
        if let Some((_, builder)) = self.builder {
            let _removed = builder.abandon().await;
        }
        for table in &self.finished {
            let path = self.options.directory.join(file_name(table.id));
            let _removed = self.options.env.remove(&path).await;
        }
    }

    fn new_builder(&mut self) -> TableBuilder<E> {
        let options = &self.options;
        let identity = TableIdentity { store: options.store, table: (self.next_table_id)() };
        TableBuilder::new(
            options.env.clone(),
            &options.directory,
            identity,
            options.level,
            options.class,
            options.tables,
        )
        .keeping(options.blocks.clone())
        .deleted_until(options.deleted_until)
    }
}
