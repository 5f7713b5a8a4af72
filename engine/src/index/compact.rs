//! Carrying out what the compaction picker has chosen.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::compaction::picker::{self, Choice, Garbage};
use super::compaction::{Merged, Verdict, run_merge};
use super::hiding::Older;
use super::live_bytes::LiveBytes;
use super::table::{Table, TableError, TableMeta, key_hash};
use super::tables::Tables;
use super::{Host, Index, Living};
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::manifest::Edit;
use crate::space::Purpose;

/// A merge that was chosen.
struct Job<E: Env> {
    inputs: Vec<Rc<Table<E>>>,
    /// What may hide below the outputs.
    older: Vec<Rc<Table<E>>>,
    to: u8,
}

impl<E: Env> Index<E> {
    /// The compaction that is due. `living` is what the manifest has.
    pub fn next_compaction(&self, living: &Living, garbage: Garbage) -> Choice {
        let (contents, now) = (self.contents.borrow(), self.unix_now());
        picker::pick(&contents.tables.view(living), &self.options.picker, garbage, now)
    }

    /// The next moment, in Unix seconds, at which entries of a table will have expired.
    pub fn next_expiry(&self) -> Option<u32> {
        let contents = self.contents.borrow();
        picker::next_expiry(&contents.tables.view(&Living::default()), self.unix_now())
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
            Choice::Remove { tables } => self.remove_tables(&tables, host).await,
            Choice::Move { table, to } => self.move_table(table, to, host).await,
            Choice::Merge { inputs, to } => self.merge_tables(inputs, to, host).await,
        }
    }

    async fn move_table(&self, id: u64, to: u8, host: &impl Host) -> Result<(), EngineError> {
        host.commit(|| Edit { tables_moved: vec![(id, to)], ..Edit::default() }).await?;
        self.change_tables(&mut self.contents.borrow_mut(), |tables| {
            let table = tables.remove(id).expect("only the compactor takes tables out");
            tables.add(to, table);
        });
        Ok(())
    }

    async fn merge_tables(
        &self,
        ids: Vec<u64>,
        to: u8,
        host: &impl Host,
    ) -> Result<(), EngineError> {
        let tables = Rc::clone(&self.contents.borrow().tables);
        let inputs = find_all(&tables, &ids);
        let skipped = u8::from(canary::has(Defect::BottomSkipsALevel));
        let job = Job { older: tables.older_than_merge(to + skipped, &ids), inputs, to };
        drop(tables);
        // The inputs go away only when the outputs are there.
        let merged = || job.inputs.iter().filter(|table| !table.meta().is_stub());
        let _reserved =
            host.reserve(merged().map(|table| table.meta().file_bytes).sum(), Purpose::Merge)?;
        let mut live = LiveBytes::default();
        let Merged { outputs, damaged } = self.write_merge(&job, &mut live, host).await?;
        let mut added = self.open_outputs(&outputs, IoClass::Compaction).await?;
        for table in &added {
            self.estimate_hiding(table, Older::Below(to), IoClass::Compaction).await;
        }
        self.sync_directory().await?;
        let bytes: u64 = outputs.iter().map(|meta| meta.file_bytes).sum();
        added.extend(stubs_of(&job, &damaged));
        let metas: Vec<TableMeta> = added.iter().map(|table| table.meta().clone()).collect();
        let removed = ids.clone();
        host.commit(|| Edit {
            tables_added: metas,
            tables_removed: removed,
            live_bytes: live.into_edit().0,
            table_id_next: Some(self.table_id_next.get()),
            ..Edit::default()
        })
        .await?;
        let stays = |id: u64| added.iter().any(|table| table.meta().id == id);
        let mut gone: Vec<u64> = ids.clone();
        gone.retain(|&id| !stays(id));
        self.change_tables(&mut self.contents.borrow_mut(), |tables| {
            for id in &ids {
                tables.remove(*id);
            }
            for table in added {
                tables.add(to, table);
            }
        });
        self.retire(job.inputs.into_iter().filter(|table| gone.contains(&table.meta().id)));
        self.count(|counters| {
            counters.compactions += 1;
            counters.compaction_bytes += bytes;
        });
        Ok(())
    }

    /// Writes the merged tables, and counts what of the inputs is in none of them.
    async fn write_merge(
        &self,
        job: &Job<E>,
        live: &mut LiveBytes,
        host: &impl Host,
    ) -> Result<Merged<E>, TableError> {
        let mut living = host.durable();
        if canary::has(Defect::MergeUnflushedRanges) {
            living.ranges = self.ranges();
        }
        let now = self.unix_now();
        run_merge(
            job.inputs.clone(),
            self.sequence_options(job.to, IoClass::Compaction, deleted_until(job, &living)),
            || self.take_table_id(),
            |key, entry, source| {
                // Without a tombstone, an older version that lies below would come to light.
                let gone = entry.is_tombstone() || entry.metadata.is_expired(now);
                let may_go = || canary::has(Defect::DropTombstoneEarly) || !hides(&job.older, key);
                let dead = living.is_deleted(key, source.deleted_until)
                    || (gone && !source.hides_lost && may_go());
                if dead { Verdict::Drop } else { Verdict::Keep }
            },
            |entry| live.add(entry, -1),
        )
        .await
    }
}

/// Up to where deletions of ranges have been applied to the outputs: those of `living` are now, and
/// an input that is newer has nothing that an older deletion hides.
fn deleted_until<E: Env>(job: &Job<E>, living: &Living) -> u64 {
    let inputs = job.inputs.iter().filter(|table| !table.meta().is_stub());
    let applied = inputs.map(|table| table.meta().deleted_until).max().unwrap_or(0);
    applied.max(living.ranges.sequence_end())
}

/// The tables with these ids, which stay until a compaction has replaced them.
pub(super) fn find_all<E: Env>(tables: &Tables<E>, ids: &[u64]) -> Vec<Rc<Table<E>>> {
    let find = |id: &u64| tables.find(*id).cloned();
    let found: Option<Vec<_>> = ids.iter().map(find).collect();
    found.expect("only the compactor takes tables out, after it has compacted them")
}

/// Whether an entry of `key` may be in one of `older`, or be lost there.
fn hides<E: Env>(older: &[Rc<Table<E>>], key: &[u8]) -> bool {
    let in_range = |table: &&Rc<Table<E>>| {
        let meta = table.meta();
        meta.smallest.as_slice() <= key && key <= meta.largest.as_slice()
    };
    let mut in_range = older.iter().filter(in_range).peekable();
    if in_range.peek().is_none() {
        return false;
    }
    let hash = key_hash(key);
    in_range.any(|table| match table.meta().is_stub() {
        true => table.may_be_lost(&table.meta().bad_blocks, key, hash),
        false => table.may_contain(hash),
    })
}

/// The stubs that a merge leaves: those among its inputs, and inputs with blocks that were found
/// unreadable.
fn stubs_of<E: Env>(
    job: &Job<E>,
    damaged: &[(Rc<Table<E>>, Vec<u32>)],
) -> impl Iterator<Item = Rc<Table<E>>> {
    let old = job.inputs.iter().filter(|table| table.meta().is_stub());
    let old = old.map(|stub| stub.as_stub(job.to, &stub.meta().bad_blocks));
    let new = damaged.iter().map(|(table, blocks)| table.as_stub(job.to, blocks));
    old.chain(new).map(Rc::new)
}
