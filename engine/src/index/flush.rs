//! Writing a frozen memtable out as a table of level 0.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::live_bytes::LiveBytes;
use super::table::{TableBuilder, TableError, TableIdentity, TableMeta};
use super::{Frozen, Host, Index};
use crate::error::EngineError;
use crate::manifest::{Edit, NamespaceGeneration};

impl<E: Env> Index<E> {
    /// Makes the frozen memtable, if there is one, a table of level 0. Replay starts behind it then.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`]: nothing has changed, and it may be tried again later. All others are
    /// final.
    pub async fn flush(&self, host: &impl Host) -> Result<(), EngineError> {
        let Some(frozen) = self.contents.borrow().frozen.clone() else { return Ok(()) };
        // A pointer becomes durable only after its target.
        host.sync_log().await?;
        let _reserved = host.reserve(2 * frozen.memtable.bytes() as u64)?;
        let mut live = LiveBytes::default();
        let meta = self.write_memtable(&frozen, &mut live).await?;
        let table = match &meta {
            Some(meta) => Some(self.open_table(meta, IoClass::Flush).await?),
            None => None,
        };
        self.sync_directory().await?;
        let bytes = meta.as_ref().map_or(0, |meta| meta.file_bytes);
        let seals = host.take_seals();
        host.commit(|| Edit {
            tables_added: meta.into_iter().collect(),
            live_bytes: live.into_edit(),
            segments_sealed: seals,
            replay_from: Some(frozen.position),
            table_id_next: Some(self.table_id_next.get()),
            namespace_generations: new_generations(&frozen, host),
            ..Edit::default()
        })
        .await?;
        let mut contents = self.contents.borrow_mut();
        if let Some(table) = table {
            Self::change_tables(&mut contents, |tables| tables.add(0, Rc::new(table)));
        }
        contents.frozen = None;
        self.count(|counters| {
            counters.flushes += 1;
            counters.flush_bytes += bytes;
        });
        Ok(())
    }

    async fn write_memtable(
        &self,
        frozen: &Frozen,
        live: &mut LiveBytes,
    ) -> Result<Option<TableMeta>, TableError> {
        let mut builder = TableBuilder::new(
            self.env.clone(),
            &self.directory,
            TableIdentity { store: self.store, table: self.take_table_id() },
            0,
            IoClass::Flush,
            self.options.tables,
        );
        for (key, found) in frozen.memtable.iter() {
            if !frozen.generations.has_key(key) {
                continue;
            }
            if let Err(error) = builder.add(key, &found.entry).await {
                builder.abandon().await?;
                return Err(error);
            }
            live.add(&found.entry, 1);
            self.env.yield_if_needed().await;
        }
        builder.finish().await
    }
}

/// The generations of which the log before the memtable's end tells, and the manifest does not.
fn new_generations(frozen: &Frozen, host: &impl Host) -> Vec<NamespaceGeneration> {
    let durable = host.durable_generations();
    let new = frozen.generations.iter().filter(|&(namespace, generation)| {
        !durable.iter().any(|known| known == (namespace, generation))
    });
    new.map(|(namespace, generation)| NamespaceGeneration {
        namespace,
        generation: u64::from(generation),
    })
    .collect()
}
