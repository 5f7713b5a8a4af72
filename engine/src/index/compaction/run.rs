//! Carries a merge out: reads its inputs, writes its outputs.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::merge_iterator::{MergeIterator, Source, Verdict};
use crate::entry::Entry;
use crate::index::table::{SequenceOptions, Table, TableError, TableMeta, TableSequence};

/// What a merge has made.
pub struct Merged<E: Env> {
    /// The outputs, in key order.
    pub outputs: Vec<TableMeta>,
    /// Inputs with blocks that cannot be read, and these blocks: the keys that they may have held
    /// are in no output but for newer entries, and the inputs have to stay as stubs.
    pub damaged: Vec<(Rc<Table<E>>, Vec<u32>)>,
}

/// Merges `inputs`, newest first, into new tables, in key order and without overlap. The order of
/// inputs that do not overlap is of no importance.
///
/// `next_table_id` hands out ids that were never used; `filter` decides about each key's newest
/// entry, and is told where that is from; `on_dropped` is told of each readable input
/// entry that is in no output. The inputs stay.
///
/// When it resolves with `Ok` the bytes of all outputs are durable. The caller then syncs the
/// directory, and after that names outputs and removed inputs in one edit of the manifest.
///
/// # Errors
///
/// Those of reading and writing tables. The outputs are removed then, and what `on_dropped` was
/// told does not hold. If the future is dropped, files remain that no manifest names.
pub async fn run_merge<E: Env>(
    inputs: Vec<Rc<Table<E>>>,
    outputs: SequenceOptions<E>,
    next_table_id: impl FnMut() -> u64,
    filter: impl FnMut(&[u8], &Entry<'_>, Source) -> Verdict,
    on_dropped: impl FnMut(&Entry<'_>),
) -> Result<Merged<E>, TableError> {
    let mut merge = MergeIterator::new(inputs, outputs.class, filter, on_dropped);
    let mut outputs = TableSequence::new(outputs, next_table_id);
    loop {
        let copied = match merge.next().await {
            Ok(None) => {
                let outputs = outputs.finish().await?;
                return Ok(Merged { outputs, damaged: merge.damaged() });
            }
            Ok(Some((key, entry))) => outputs.add(key, &entry).await,
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            outputs.abandon().await;
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests;
