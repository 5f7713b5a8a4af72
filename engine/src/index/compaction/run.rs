//! Carries a merge out: reads its inputs, writes its outputs.

use std::path::PathBuf;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::merge_iterator::{MergeIterator, Verdict};
use crate::entry::Entry;
use crate::index::table::{
    Table, TableBuilder, TableError, TableIdentity, TableMeta, TableOptions, file_name,
};

/// What to merge and where to.
pub struct MergeJob<E: Env> {
    /// Where the outputs are written.
    pub env: E,
    /// The directory of the outputs.
    pub directory: PathBuf,
    /// The store's id.
    pub store: u128,
    /// The inputs, newest first. The order of tables that do not overlap is of no importance.
    pub inputs: Vec<Rc<Table<E>>>,
    /// The level of the outputs.
    pub output_level: u8,
    /// How the outputs are built; a new one begins at `table_bytes`.
    pub options: TableOptions,
}

/// Merges the inputs of `job` into new tables, in key order and without overlap.
///
/// `next_table_id` hands out ids that were never used; `filter` decides about each key's newest
/// entry; `on_dropped` is told of each input entry that is in no output. The inputs stay.
///
/// When it resolves with `Ok` the bytes of all outputs are durable. The caller then syncs the
/// directory, and after that names outputs and removed inputs in one edit of the manifest.
///
/// # Errors
///
/// Those of reading and writing tables. The outputs are removed then, and what `on_dropped` was
/// told does not hold. If the future is dropped, files remain that no manifest names.
pub async fn run_merge<E: Env>(
    job: MergeJob<E>,
    mut next_table_id: impl FnMut() -> u64,
    filter: impl FnMut(&[u8], &Entry<'_>) -> Verdict,
    on_dropped: impl FnMut(&Entry<'_>),
) -> Result<Vec<TableMeta>, TableError> {
    let MergeJob { env, directory, store, inputs, output_level, options } = job;
    let merge = MergeIterator::new(inputs, &[], IoClass::Compaction, filter, on_dropped);
    let new_builder = || {
        let identity = TableIdentity { store, table: next_table_id() };
        let class = IoClass::Compaction;
        TableBuilder::new(env.clone(), &directory, identity, output_level, class, options)
    };
    let mut outputs = Vec::new();
    let written = write_outputs(merge, new_builder, options.table_bytes, &mut outputs).await;
    if let Err(error) = written {
        for output in &outputs {
            // The first error says more; a file that stays is one that no manifest names.
            let _removed = env.remove(&directory.join(file_name(output.id))).await;
        }
        return Err(error);
    }
    Ok(outputs)
}

/// Writes all of `merge` into tables of about `table_bytes`. On an error `outputs` holds the
/// finished ones, and the unfinished one is removed.
async fn write_outputs<E, F, D>(
    mut merge: MergeIterator<E, F, D>,
    mut new_builder: impl FnMut() -> TableBuilder<E>,
    table_bytes: u64,
    outputs: &mut Vec<TableMeta>,
) -> Result<(), TableError>
where
    E: Env,
    F: FnMut(&[u8], &Entry<'_>) -> Verdict,
    D: FnMut(&Entry<'_>),
{
    let mut builder = None;
    loop {
        let copied = copy_next(&mut merge, &mut builder, &mut new_builder).await;
        let is_last = match copied {
            Ok(copied) => !copied,
            Err(error) => {
                if let Some(builder) = builder {
                    let _removed = builder.abandon().await;
                }
                return Err(error);
            }
        };
        let is_full = |builder: &mut TableBuilder<E>| builder.estimated_bytes() >= table_bytes;
        if let Some(full) = builder.take_if(|builder| is_last || is_full(builder)) {
            outputs.extend(full.finish().await?);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Adds the next entry of `merge` to `builder`, which is made when there is one; false at the end.
async fn copy_next<E, F, D>(
    merge: &mut MergeIterator<E, F, D>,
    builder: &mut Option<TableBuilder<E>>,
    new_builder: &mut impl FnMut() -> TableBuilder<E>,
) -> Result<bool, TableError>
where
    E: Env,
    F: FnMut(&[u8], &Entry<'_>) -> Verdict,
    D: FnMut(&Entry<'_>),
{
    let Some((key, entry)) = merge.next().await? else { return Ok(false) };
    builder.get_or_insert_with(new_builder).add(key, &entry).await?;
    Ok(true)
}

#[cfg(test)]
mod tests;
