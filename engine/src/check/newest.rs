//! Which entries are the newest of their keys.
//!
//! Only those must lead to their records: a collected segment is freed when its living records have
//! moved, and entries of tables that newer ones hide go on pointing into it until they are merged.

use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::env::{Env, IoClass};

use super::CheckError;
use super::log::Log;
use crate::index::table::{BlockCache, Table, TableIdentity, TableMeta, key_hash};

/// Leaves those of `keys`, which are from a table to which deletions of ranges were applied up to
/// `deleted_until`, that neither the log nor one of the `newer` tables knows, and that were not
/// deleted with others. What a newer table may have lost counts as known: that is told of the
/// newer table.
pub(super) async fn keep_newest<E: Env, T>(
    env: &E,
    directory: &Path,
    store: u128,
    (log, newer): (&Log, &[&TableMeta]),
    (keys, deleted_until): (&mut BTreeMap<Vec<u8>, T>, u64),
) -> Result<(), CheckError> {
    keys.retain(|key, _| {
        log.changes.get(key, key_hash(key)).is_none() && !log.living.is_deleted(key, deleted_until)
    });
    let blocks = BlockCache::new(0);
    for meta in newer {
        let range = meta.smallest.clone()..=meta.largest.clone();
        let asked: Vec<Vec<u8>> = keys.range(range).map(|(key, _)| key.clone()).collect();
        if asked.is_empty() {
            continue;
        }
        let identity = TableIdentity { store, table: meta.id };
        let table = Table::open(env.clone(), directory, identity, meta, IoClass::Scrub).await;
        for key in asked {
            env.yield_if_needed().await;
            let hash = key_hash(&key);
            let is_known = match &table {
                Err(_) => true,
                Ok(table) if meta.is_stub() => table.may_be_lost(&meta.bad_blocks, &key, hash),
                Ok(table) => {
                    let found = table.get(&key, hash, &blocks, IoClass::Scrub).await;
                    found.is_err() || found.is_ok_and(|entry| entry.is_some())
                }
            };
            if is_known {
                keys.remove(&key);
            }
        }
    }
    Ok(())
}
