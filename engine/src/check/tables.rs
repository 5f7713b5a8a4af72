//! A table, block by block, whatever of it is damaged.

use std::io;
use std::path::Path;

use larder_runtime::env::{Env, IoClass};

use super::CheckError;
use super::reader::Reader;
use crate::entry::Entry;
use crate::index::table::{
    self, BlockPlace, Table, TableError, TableIdentity, TableMeta, key_hash, visit_block,
};

/// Bytes read at once.
const AHEAD_BYTES: usize = 256 << 10;

/// Bytes of a block's header that say how long it is.
const HEADER_BYTES: usize = 16;

/// Keys that an unreadable part of a table may have held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// The last readable key before it; empty if there is none.
    pub(super) after: Vec<u8>,
    /// The first readable key behind it.
    pub(super) before: Option<Vec<u8>>,
}

/// What was found of a table.
pub(super) struct TableScan<E: Env> {
    /// The table, if footer, index and filter are sound.
    pub(super) table: Option<Table<E>>,
    pub(super) blocks: u64,
    pub(super) entries: u64,
    /// What is wrong, and where.
    pub(super) damage: Vec<(Option<u64>, String)>,
    pub(super) gaps: Vec<Gap>,
}

/// Walks a table's file.
struct Walk<'a, V> {
    identity: TableIdentity,
    visit: V,
    scan: Found,
    last_key: Vec<u8>,
    /// Where the keys of the gap begin that the next readable block ends.
    gap: Option<Vec<u8>>,
    meta: &'a TableMeta,
}

#[derive(Default)]
struct Found {
    blocks: u64,
    entries: u64,
    damage: Vec<(Option<u64>, String)>,
    gaps: Vec<Gap>,
}

/// Reads all of the table that `meta` describes, and shows every readable entry to `visit`, in key
/// order.
pub(super) async fn scan<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    meta: &TableMeta,
    visit: impl FnMut(&[u8], &Entry<'_>),
) -> Result<TableScan<E>, CheckError> {
    let identity = TableIdentity { store, table: meta.id };
    let path = directory.join(table::file_name(meta.id));
    let mut walk =
        Walk { identity, visit, scan: Found::default(), last_key: Vec::new(), gap: None, meta };
    let opened = Table::open(env.clone(), directory, identity, meta, IoClass::Scrub).await;
    let table = match opened {
        Ok(table) => Some(table),
        Err(error @ TableError::WrongFormat { .. }) => {
            return Err(CheckError::Newer(error.to_string()));
        }
        Err(error) => {
            walk.scan.damage.push(describe(error));
            None
        }
    };
    match Reader::open(env, &path, AHEAD_BYTES).await {
        Ok(mut reader) => match &table {
            Some(table) => walk.along_index(env, &mut reader, table).await,
            None => walk.without_index(env, &mut reader).await,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk.gap = Some(Vec::new()),
        Err(error) => return Err(CheckError::io(&path, "open")(error)),
    }
    walk.finish();
    let Found { blocks, entries, damage, gaps } = walk.scan;
    Ok(TableScan { table, blocks, entries, damage, gaps })
}

fn describe(error: TableError) -> (Option<u64>, String) {
    match error {
        TableError::Damaged { what, offset, .. } => (Some(offset), what.to_owned()),
        TableError::Io { operation, source, .. } => (None, format!("cannot {operation}: {source}")),
        error @ TableError::WrongFormat { .. } => (None, error.to_string()),
    }
}

impl<V: FnMut(&[u8], &Entry<'_>)> Walk<'_, V> {
    async fn along_index<E: Env>(&mut self, env: &E, reader: &mut Reader<'_, E>, table: &Table<E>) {
        let mut is_filtered = true;
        for place in table.block_places() {
            env.yield_if_needed().await;
            let read = reader.bytes(place.offset(), place.bytes() as usize).await;
            let seen = self.block(place, read.bytes, |key| {
                is_filtered &= table.may_contain(key_hash(key));
            });
            if let Err(what) = seen {
                self.damaged(Some(place.offset()), what.to_owned());
            }
        }
        if !is_filtered {
            self.scan.damage.push((None, "the filter rules out a key that is there".to_owned()));
        }
    }

    async fn without_index<E: Env>(&mut self, env: &E, reader: &mut Reader<'_, E>) {
        let step = larder_runtime::env::DISK_ALIGNMENT as u64;
        let mut offset = 0;
        while offset + step <= reader.len() && !self.is_complete() {
            env.yield_if_needed().await;
            let header = reader.bytes(offset, HEADER_BYTES).await.bytes;
            let place = BlockPlace::of_header(offset, header)
                .filter(|place| offset + place.bytes() <= reader.len());
            let Some(place) = place else {
                self.damaged(Some(offset), "no block starts here".to_owned());
                offset += step;
                continue;
            };
            let read = reader.bytes(offset, place.bytes() as usize).await;
            match self.block(place, read.bytes, |_| {}) {
                Ok(()) => offset += place.bytes(),
                Err(_) => {
                    self.damaged(Some(offset), "no block starts here".to_owned());
                    offset += step;
                }
            }
        }
    }

    fn block(
        &mut self,
        place: BlockPlace,
        bytes: &[u8],
        mut also: impl FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        let Self { identity, visit, scan, last_key, gap, meta } = self;
        let mut is_first = true;
        let (entries, last) = visit_block(*identity, place, bytes, last_key, |key, entry| {
            if std::mem::take(&mut is_first)
                && let Some(after) = gap.take()
            {
                scan.gaps.push(Gap { after, before: Some(key.to_vec()) });
            }
            also(key);
            visit(key, &entry);
        })?;
        if scan.entries == 0 && scan.gaps.is_empty() && last < meta.smallest {
            return Err("keys below the first one that the manifest holds");
        }
        scan.blocks += 1;
        scan.entries += entries;
        *last_key = last;
        Ok(())
    }

    /// Notes damage. Of several blocks in a row the first one is named.
    fn damaged(&mut self, offset: Option<u64>, what: String) {
        if self.gap.is_none() {
            self.gap = Some(self.last_key.clone());
            self.scan.damage.push((offset, what));
        }
    }

    fn is_complete(&self) -> bool {
        self.scan.entries == self.meta.entries && self.last_key == self.meta.largest
    }

    fn finish(&mut self) {
        if self.is_complete() {
            // What did not read as a block was index, filter or footer.
            self.gap = None;
            return;
        }
        if self.gap.is_none() && self.scan.gaps.is_empty() {
            let what = "entries are missing or too many".to_owned();
            self.scan.damage.push((None, what));
            self.scan.gaps = vec![Gap { after: Vec::new(), before: None }];
        }
        if let Some(after) = self.gap.take() {
            self.scan.gaps.push(Gap { after, before: None });
        }
    }
}
