//! Carrying out what the compaction picker has chosen.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::compaction::picker::{self, Choice};
use super::compaction::{Verdict, run_merge};
use super::live_bytes::LiveBytes;
use super::table::{self, Table, TableError, TableMeta};
use super::{Host, Index};
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::manifest::Edit;
use crate::space::Purpose;

impl<E: Env> Index<E> {
    /// The compaction that is due.
    pub fn next_compaction(&self) -> Choice {
        picker::pick(&self.contents.borrow().tables.candidates(), &self.options.picker)
    }

    /// Carries out one choice of [`Self::next_compaction`]; there is one compaction at a time.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] and [`EngineError::Read`]: nothing has changed, and it may be tried
    /// again later. All others are final.
    pub async fn compact(&self, choice: Choice, host: &impl Host) -> Result<(), EngineError> {
        match choice {
            Choice::Nothing => Ok(()),
            Choice::Move { table, to } => self.move_table(table, to, host).await,
            Choice::Merge { inputs, to_level, is_bottom, .. } => {
                self.merge_tables(inputs, to_level, is_bottom, host).await
            }
        }
    }

    async fn move_table(&self, id: u64, to: u8, host: &impl Host) -> Result<(), EngineError> {
        host.commit(|| Edit { tables_moved: vec![(id, to)], ..Edit::default() }).await?;
        Self::change_tables(&mut self.contents.borrow_mut(), |tables| {
            let table = tables.remove(id).expect("only the compactor takes tables out");
            tables.add(to, table);
        });
        Ok(())
    }

    async fn merge_tables(
        &self,
        inputs: Vec<u64>,
        to_level: u8,
        is_bottom: bool,
        host: &impl Host,
    ) -> Result<(), EngineError> {
        let tables = Rc::clone(&self.contents.borrow().tables);
        let find = |id: &u64| tables.find(*id).cloned();
        let sources: Option<Vec<Rc<Table<E>>>> = inputs.iter().map(find).collect();
        let sources = sources.expect("the inputs of a merge stay until it has replaced them");
        // The inputs go away only when the outputs are there.
        let input_bytes = sources.iter().map(|table| table.meta().file_bytes).sum();
        let _reserved = host.reserve(input_bytes, Purpose::Merge)?;
        let mut live = LiveBytes::default();
        let outputs = self.write_merge(sources, to_level, is_bottom, &mut live, host).await?;
        let opened = self.open_outputs(&outputs, IoClass::Compaction).await?;
        self.sync_directory().await?;
        let bytes: u64 = outputs.iter().map(|meta| meta.file_bytes).sum();
        host.commit(|| Edit {
            tables_added: outputs,
            tables_removed: inputs.clone(),
            live_bytes: live.into_edit().0,
            table_id_next: Some(self.table_id_next.get()),
            ..Edit::default()
        })
        .await?;
        Self::change_tables(&mut self.contents.borrow_mut(), |tables| {
            for id in &inputs {
                tables.remove(*id);
            }
            for table in opened {
                tables.add(to_level, table);
            }
        });
        self.count(|counters| {
            counters.compactions += 1;
            counters.compaction_bytes += bytes;
        });
        for id in &inputs {
            let path = self.directory.join(table::file_name(*id));
            let removed = self.env.remove(&path).await;
            removed.map_err(|source| EngineError::io(&path, "removing", &source))?;
        }
        Ok(())
    }

    /// Writes the merged tables, and counts what of the inputs is in none of them.
    async fn write_merge(
        &self,
        inputs: Vec<Rc<Table<E>>>,
        to_level: u8,
        is_bottom: bool,
        live: &mut LiveBytes,
        host: &impl Host,
    ) -> Result<Vec<TableMeta>, TableError> {
        let generations = host.durable_generations();
        let now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
        run_merge(
            inputs,
            self.sequence_options(to_level, IoClass::Compaction),
            || self.take_table_id(),
            |key, entry| {
                // An older version may lie below: only the last one may go without a tombstone.
                let gone = entry.is_tombstone() || entry.metadata.is_expired(now);
                let is_last = is_bottom || canary::has(Defect::DropTombstoneEarly);
                let dead = !generations.has_key(key) || (is_last && gone);
                if dead { Verdict::Drop } else { Verdict::Keep }
            },
            |entry| live.add(entry, -1),
        )
        .await
    }
}
