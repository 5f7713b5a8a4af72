//! The tasks that write memtables out and merge tables.

use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::namespaces::{Namespaces, generation_of};
use super::{Frozen, Shard, State};
use crate::canary::{self, Defect};
use crate::compaction::picker::{self, Choice};
use crate::compaction::{MergeJob, Verdict, run_merge};
use crate::entry::Entry;
use crate::error::EngineError;
use crate::manifest::{Edit, NamespaceGeneration};
use crate::table::{self, Table, TableBuilder, TableError, TableIdentity, TableMeta};
use crate::value_log::record::RecordKind;

/// How long a task waits before it tries again what the disk had no room for, or what damage
/// stopped, in nanoseconds.
const RETRY_FULL_NANOSECONDS: u64 = 200_000_000;
const RETRY_DAMAGED_NANOSECONDS: u64 = 60_000_000_000;

/// Changes of the live bytes of segments.
#[derive(Default)]
struct LiveBytes(BTreeMap<u32, i64>);

impl LiveBytes {
    fn add(&mut self, entry: &Entry<'_>, sign: i64) {
        if let Some(pointer) = entry.pointer() {
            *self.0.entry(pointer.segment).or_default() += sign * i64::from(pointer.len);
        }
    }

    fn into_edit(self) -> Vec<(u32, i64)> {
        self.0.into_iter().filter(|(_, delta)| *delta != 0).collect()
    }
}

impl<E: Env> Shard<E> {
    /// Makes the memtable immutable and starts a new one, if the last one has been written out.
    pub(super) fn freeze(&self, state: &mut State<E>) {
        if state.frozen.is_some() {
            return;
        }
        let position = self.log.position();
        if let Some(at) = state.namespaces.scheduled_flush() {
            // The schedule lives in the log only, so it has to be in the part that stays.
            if self.try_log_namespace(state, RecordKind::ScheduleFlush, at).is_err() {
                return;
            }
        }
        let memtable = std::mem::take(&mut state.active);
        let namespaces = state.namespaces.clone();
        state.frozen = Some(Rc::new(Frozen { memtable, position, namespaces }));
        self.work.notify();
    }

    pub(super) async fn keep_flushing(self: Rc<Self>) {
        loop {
            let frozen = self
                .work
                .wait_for(|| {
                    let state = self.state.borrow();
                    if state.closing { Some(None) } else { state.frozen.clone().map(Some) }
                })
                .await;
            let Some(frozen) = frozen else { return };
            match self.flush_memtable(&frozen).await {
                Ok(()) => self.note_full(|full| full.flushes = false),
                Err(EngineError::Full) => {
                    self.note_full(|full| full.flushes = true);
                    self.env.sleep(RETRY_FULL_NANOSECONDS).await;
                }
                Err(error) => return self.log.stop(format!("flushing failed: {error}")),
            }
        }
    }

    async fn flush_memtable(&self, frozen: &Frozen) -> Result<(), EngineError> {
        // A pointer becomes durable only after its target.
        self.log.flush().await?;
        let memtable_bytes = frozen.memtable.bytes() as u64;
        self.check_free_space(2 * memtable_bytes + self.options.disk_reserve_bytes / 4)?;
        let mut live = LiveBytes::default();
        let meta = self.write_memtable(frozen, &mut live).await?;
        let table = match &meta {
            Some(meta) => Some(self.open_table(meta).await?),
            None => None,
        };
        self.sync_directory().await?;
        let bytes = meta.as_ref().map_or(0, |meta| meta.file_bytes);
        let seals = self.log.take_seals();
        let replays_later = canary::has(Defect::ReplayFromLater);
        let replay_from = if replays_later { self.log.position() } else { frozen.position };
        self.journal
            .commit(|state| {
                let known = |namespace: u32, generation: u64| {
                    state.namespace_generations.get(&namespace) == Some(&generation)
                };
                let generations = frozen.namespaces.generations().iter();
                Some(Edit {
                    tables_added: meta.into_iter().collect(),
                    live_bytes: live.into_edit(),
                    segments_sealed: seals,
                    replay_from: Some(replay_from),
                    table_id_next: Some(self.next_table.get()),
                    namespace_generations: generations
                        .map(|(&namespace, &generation)| (namespace, u64::from(generation)))
                        .filter(|(namespace, generation)| !known(*namespace, *generation))
                        .map(|(namespace, generation)| NamespaceGeneration {
                            namespace,
                            generation,
                        })
                        .collect(),
                    ..Edit::default()
                })
            })
            .await?;
        {
            let mut state = self.state.borrow_mut();
            if let Some(table) = table {
                let mut tables = (*state.tables).clone();
                tables.add(0, Rc::new(table));
                state.tables = Rc::new(tables);
            }
            state.frozen = None;
            state.operations.flushes += 1;
            state.operations.flush_bytes += bytes;
        }
        self.something_changed();
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
            TableIdentity { store: self.identity.store, table: self.take_table_id() },
            0,
            IoClass::Flush,
            self.options.tables,
        );
        for (key, found) in frozen.memtable.iter() {
            if !is_alive(&frozen.namespaces, key) {
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

    async fn open_table(&self, meta: &TableMeta) -> Result<Table<E>, TableError> {
        let identity = TableIdentity { store: self.identity.store, table: meta.id };
        Table::open(self.env.clone(), &self.directory, identity, meta, IoClass::Flush).await
    }

    fn take_table_id(&self) -> u64 {
        let id = self.next_table.get();
        self.next_table.set(id + 1);
        id
    }

    async fn sync_directory(&self) -> Result<(), EngineError> {
        if canary::has(Defect::SkipTableDirectorySync) {
            return Ok(());
        }
        let directory = &self.directory;
        let result = self.env.sync_directory(directory).await;
        result.map_err(|source| EngineError::io(directory, "syncing the directory", &source))
    }

    /// Lets everyone who waits for tables, space or memtables look again.
    pub(super) fn something_changed(&self) {
        self.work.notify();
        self.log.needs().notify();
        self.log.changed().notify();
    }

    pub(super) async fn keep_compacting(self: Rc<Self>) {
        loop {
            let choice = self
                .work
                .wait_for(|| {
                    let state = self.state.borrow();
                    if state.closing {
                        return Some(Choice::Nothing);
                    }
                    let choice = picker::pick(&state.tables.candidates(), &self.options.picker);
                    (choice != Choice::Nothing).then_some(choice)
                })
                .await;
            let result = match choice {
                Choice::Nothing => return,
                Choice::Move { table, to } => self.move_table(table, to).await,
                Choice::Merge { inputs, to_level, is_bottom, .. } => {
                    self.merge_tables(&inputs, to_level, is_bottom).await
                }
            };
            match result {
                Ok(()) => {}
                Err(EngineError::Full) => self.env.sleep(RETRY_FULL_NANOSECONDS).await,
                // Nothing is lost by not merging.
                Err(EngineError::Read(reason)) => {
                    tracing::error!("merging tables failed, and is put off: {reason}");
                    self.env.sleep(RETRY_DAMAGED_NANOSECONDS).await;
                }
                Err(error) => return self.log.stop(format!("merging tables failed: {error}")),
            }
        }
    }

    async fn move_table(&self, id: u64, to: u8) -> Result<(), EngineError> {
        let edit = Edit { tables_moved: vec![(id, to)], ..Edit::default() };
        self.journal.commit(|_| Some(edit)).await?;
        {
            let mut state = self.state.borrow_mut();
            let mut tables = (*state.tables).clone();
            let table = tables.remove(id).expect("only the compactor takes tables out");
            tables.add(to, table);
            state.tables = Rc::new(tables);
        }
        self.something_changed();
        Ok(())
    }

    async fn merge_tables(
        &self,
        inputs: &[u64],
        to_level: u8,
        is_bottom: bool,
    ) -> Result<(), EngineError> {
        let tables = Rc::clone(&self.state.borrow().tables);
        let sources: Vec<Rc<Table<E>>> =
            inputs.iter().filter_map(|id| tables.find(*id).cloned()).collect();
        // The inputs go away only when the outputs are there.
        let input_bytes: u64 = sources.iter().map(|table| table.meta().file_bytes).sum();
        self.check_free_space(input_bytes + self.options.disk_reserve_bytes / 4)?;
        let mut live = LiveBytes::default();
        let outputs = self.write_merge(sources, to_level, is_bottom, &mut live).await?;
        let mut opened = Vec::new();
        for meta in &outputs {
            opened.push(Rc::new(self.open_table(meta).await?));
        }
        self.sync_directory().await?;
        let bytes: u64 = outputs.iter().map(|meta| meta.file_bytes).sum();
        self.journal
            .commit(|_| {
                Some(Edit {
                    tables_added: outputs,
                    tables_removed: inputs.to_vec(),
                    live_bytes: live.into_edit(),
                    table_id_next: Some(self.next_table.get()),
                    ..Edit::default()
                })
            })
            .await?;
        {
            let mut state = self.state.borrow_mut();
            let mut tables = (*state.tables).clone();
            for id in inputs {
                tables.remove(*id);
            }
            for table in opened {
                tables.add(to_level, table);
            }
            state.tables = Rc::new(tables);
            state.operations.compactions += 1;
            state.operations.compaction_bytes += bytes;
        }
        self.something_changed();
        for id in inputs {
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
    ) -> Result<Vec<TableMeta>, TableError> {
        let namespaces = Namespaces::from_manifest(&self.journal.state().namespace_generations);
        let now = self.unix_now();
        let job = MergeJob {
            env: self.env.clone(),
            directory: self.directory.clone(),
            store: self.identity.store,
            inputs,
            output_level: to_level,
            options: self.options.tables,
        };
        run_merge(
            job,
            || self.take_table_id(),
            |key, entry| {
                // An older version may lie below: only the last one may go without a tombstone.
                let gone = entry.is_tombstone() || entry.metadata.is_expired(now);
                let is_last = is_bottom || canary::has(Defect::DropTombstoneEarly);
                let dead = !is_alive(&namespaces, key) || (is_last && gone);
                if dead { Verdict::Drop } else { Verdict::Keep }
            },
            |entry| live.add(entry, -1),
        )
        .await
    }
}

/// Whether an encoded key belongs to a living generation.
fn is_alive(namespaces: &Namespaces, key: &[u8]) -> bool {
    namespaces.is_alive(generation_of(key))
}
