//! An open table: index and filter in memory, data blocks read when they are asked for.

use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use super::block::Block;
use super::block_index::BlockIndex;
use super::error::{Malformed, TableError};
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, FORMAT_VERSION, Footer, FooterKind};
use super::format::{Section, SectionHandle, TableIdentity, padded};
use super::{BlockCache, EntryBuf, Hiding, Pointed, TableMeta, file_name};
use crate::entry::Entry;

/// A table that is open for reading.
pub struct Table<E: Env> {
    env: E,
    path: PathBuf,
    file: E::File,
    identity: TableIdentity,
    meta: TableMeta,
    index: Rc<BlockIndex>,
    filter: Rc<Filter>,
    pointed: SectionHandle,
    hiding: Cell<Hiding>,
    /// Something in the file was found not to be what was written.
    is_damaged: Cell<bool>,
    /// Shared with all that read the same file: a table, and the stubs that it has become.
    of_file: Rc<()>,
}

/// An answer that needs no device, or the news that one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident<R> {
    /// The answer.
    Answer(R),
    /// Only [`Table::get`] can tell.
    NeedsDevice,
}

/// A data block, ahead of or behind others, in a buffer that was read from the file.
pub(super) struct ReadBlock<'a> {
    /// The block's number in the index.
    pub(super) number: usize,
    /// Bytes from the block's start on.
    pub(super) bytes: &'a [u8],
}

impl<E: Env> Table<E> {
    /// Opens the table that `meta` describes, with two reads charged to `class`, and verifies its
    /// footer, index and filter. Data blocks are verified as they are read.
    ///
    /// # Errors
    ///
    /// [`TableError::Damaged`] if anything is not what the builder wrote,
    /// [`TableError::WrongFormat`] if the file is a newer program's, [`TableError::Io`].
    ///
    /// # Panics
    ///
    /// If `identity` and `meta` name different tables.
    pub async fn open(
        env: E,
        directory: &Path,
        identity: TableIdentity,
        meta: &TableMeta,
        class: IoClass,
    ) -> Result<Self, TableError> {
        assert!(identity.table == meta.id, "table {} opened as {}", meta.id, identity.table);
        let path = directory.join(file_name(meta.id));
        let file = env.open(&path, OpenMode::Read).await;
        let file = file.map_err(TableError::io(&path, "open"))?;
        let source = Source { env: &env, path: &path, file: &file, class };
        let footer = read_footer(&source, identity, meta).await?;
        let index_offset = footer.index.offset;
        let buffer = source.read(index_offset, footer.pointed.offset - index_offset).await?;
        let (index_bytes, filter_bytes) =
            buffer.split_at((footer.filter.offset - index_offset) as usize);
        let index = Section::verify(identity, footer.index, index_bytes)
            .and_then(|section| BlockIndex::decode(section, index_offset))
            .map_err(TableError::damaged(&path, index_offset))?;
        let filter = Section::verify(identity, footer.filter, filter_bytes)
            .and_then(Filter::decode)
            .map_err(TableError::damaged(&path, footer.filter.offset))?;
        let in_order = meta.bad_blocks.windows(2).all(|pair| pair[0] < pair[1]);
        if !in_order || meta.bad_blocks.last().is_some_and(|&last| last as usize >= index.len()) {
            let what = Malformed("the manifest names blocks that are not there");
            return Err(TableError::damaged(&path, index_offset)(what));
        }
        let (index, filter, pointed) = (Rc::new(index), Rc::new(filter), footer.pointed);
        let (meta, hiding) = (meta.clone(), Cell::new(Hiding::default()));
        let (is_damaged, of_file) = (Cell::new(false), Rc::new(()));
        Ok(Self {
            env,
            path,
            file,
            identity,
            meta,
            index,
            filter,
            pointed,
            hiding,
            is_damaged,
            of_file,
        })
    }

    /// What its entries hide of older ones.
    pub fn hiding(&self) -> Hiding {
        self.hiding.get()
    }

    /// Says what [`Self::hiding`] is.
    pub fn set_hiding(&self, hiding: Hiding) {
        self.hiding.set(hiding);
    }

    /// Whether scrubbing has found something in the file that is not what was written.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.get()
    }

    /// Says that it is so.
    pub(super) fn note_damage(&self) {
        self.is_damaged.set(true);
    }

    /// The same table as a stub in `level` that says which keys these blocks have lost.
    pub fn as_stub(&self, level: u8, bad_blocks: &[u32]) -> Self {
        assert!(!bad_blocks.is_empty(), "a stub has lost something");
        Self {
            env: self.env.clone(),
            path: self.path.clone(),
            file: self.file.clone(),
            identity: self.identity,
            meta: TableMeta { level, bad_blocks: bad_blocks.to_vec(), ..self.meta.clone() },
            index: Rc::clone(&self.index),
            filter: Rc::clone(&self.filter),
            pointed: self.pointed,
            hiding: self.hiding.clone(),
            is_damaged: Cell::new(false),
            of_file: Rc::clone(&self.of_file),
        }
    }

    /// Whether one of `bad_blocks` may have held an entry of `key`.
    pub fn may_be_lost(&self, bad_blocks: &[u32], key: &[u8], hash: u64) -> bool {
        let number = self.locate(key, hash).and_then(|number| u32::try_from(number).ok());
        number.is_some_and(|number| bad_blocks.binary_search(&number).is_ok())
    }

    /// The error of a look-up of a key that a stub may have lost.
    pub fn lost(&self) -> TableError {
        let block = self.meta.bad_blocks.first().map_or(0, |&number| number as usize);
        self.damaged(self.index.block(block).offset)(Malformed(
            "the block that may hold the key was not readable when its table was merged",
        ))
    }

    /// The first and the last key that the table may tell something of: of a stub, bounds of the
    /// keys that it has lost.
    pub fn key_range(&self) -> (&[u8], &[u8]) {
        let (smallest, largest) = (&self.meta.smallest, &self.meta.largest);
        let (Some(&first), Some(&last)) =
            (self.meta.bad_blocks.first(), self.meta.bad_blocks.last())
        else {
            return (smallest, largest);
        };
        let end = last as usize + 1;
        let largest = if end < self.index.len() { self.index.fence(end) } else { largest };
        (smallest.as_slice().max(self.index.fence(first as usize)), largest)
    }

    /// The keys that these blocks may hold, of which there are some: from the first key on, and
    /// below the second.
    pub(super) fn keys_of_blocks(&self, blocks: Range<usize>) -> (Vec<u8>, Vec<u8>) {
        let (index, meta) = (&self.index, &self.meta);
        let first = index.fence(blocks.start).max(&meta.smallest).to_vec();
        let end = if blocks.end < index.len() {
            index.fence(blocks.end).to_vec()
        } else {
            [meta.largest.as_slice(), &[0]].concat()
        };
        (first, end)
    }

    /// The keys that a stub may have lost, in order and without overlap: each part from its first
    /// key on, and below the second.
    pub fn lost_keys(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.meta.bad_blocks.chunk_by(|left, right| left + 1 == *right);
        let blocks = |row: &[u32]| row[0] as usize..row[0] as usize + row.len();
        rows.map(|row| self.keys_of_blocks(blocks(row))).collect()
    }

    /// Whether nobody else holds the table's file: neither the table that a stub was, nor a stub of
    /// it.
    pub fn is_last_of_its_file(&self) -> bool {
        Rc::strong_count(&self.of_file) == 1
    }

    /// What the table was opened with. Its level is the one at that time.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The table's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of memory that the open table takes.
    pub fn memory_bytes(&self) -> usize {
        let keys = self.meta.smallest.len() + self.meta.largest.len();
        let path = self.path.as_os_str().len();
        size_of::<Self>() + keys + path + self.index.memory_bytes() + self.filter.memory_bytes()
    }

    /// What the table points at, with one read charged to `class`.
    ///
    /// # Errors
    ///
    /// [`TableError::Damaged`] if it is not what the builder wrote, [`TableError::Io`].
    pub async fn pointed(&self, class: IoClass) -> Result<Pointed, TableError> {
        let handle = self.pointed;
        let buffer = self.read(handle.offset, padded(u64::from(handle.length)), class).await?;
        let pointed = Section::verify(self.identity, handle, &buffer)
            .and_then(Pointed::decode)
            .map_err(self.damaged(handle.offset))?;
        if pointed.total() != self.meta.separate_bytes {
            let what = Malformed("the list of segments contradicts the manifest");
            return Err(self.damaged(handle.offset)(what));
        }
        Ok(pointed)
    }

    /// Whether the filter lets pass a key whose [`key_hash`](super::key_hash) is `hash`.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// The entry of `key`, whose [`key_hash`](super::key_hash) is `hash`; a tombstone is an entry.
    ///
    /// At most one read of the device, charged to `class`, and none if range, filter or block
    /// cache can answer.
    ///
    /// # Errors
    ///
    /// [`TableError::Damaged`] if the block is not what the builder wrote, [`TableError::Io`].
    pub async fn get(
        &self,
        key: &[u8],
        hash: u64,
        blocks: &BlockCache,
        class: IoClass,
    ) -> Result<Option<EntryBuf>, TableError> {
        let Some(number) = self.locate(key, hash) else { return Ok(None) };
        let handle = self.index.block(number);
        let find_copy = |bytes: &[u8]| {
            let entry = find_entry(bytes, key).map_err(self.damaged(handle.offset))?;
            Ok(entry.map(|entry| EntryBuf::new(&entry)))
        };
        if let Some(answer) = blocks.with_block(self.meta.id, number, find_copy) {
            return answer;
        }
        let buffer = self.read(handle.offset, padded(u64::from(handle.length)), class).await?;
        let section = self.verify_block(&ReadBlock { number, bytes: &buffer })?;
        blocks.insert(self.meta.id, number, section.bytes);
        find_copy(section.bytes)
    }

    /// Calls `answer` with the entry of `key`, or with `None` if the table has none, when that
    /// needs no read. `answer` must not use the block cache.
    pub fn get_resident<R>(
        &self,
        key: &[u8],
        hash: u64,
        blocks: &BlockCache,
        answer: impl FnOnce(Option<Entry<'_>>) -> R,
    ) -> Resident<R> {
        let Some(number) = self.locate(key, hash) else { return Resident::Answer(answer(None)) };
        let look = |bytes: &[u8]| match find_entry(bytes, key) {
            Ok(entry) => Resident::Answer(answer(entry)),
            // `get` finds the same block and has a way to say that it is damaged.
            Err(_malformed) => Resident::NeedsDevice,
        };
        blocks.with_block(self.meta.id, number, look).unwrap_or(Resident::NeedsDevice)
    }

    /// How many data blocks there are.
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Drops a block from the cache.
    pub fn forget_block(&self, block: usize, blocks: &BlockCache) {
        blocks.forget(self.meta.id, block);
    }

    /// The number of the block that may hold `key`; `None` if range or filter rule it out.
    fn locate(&self, key: &[u8], hash: u64) -> Option<usize> {
        let in_range = self.meta.smallest.as_slice() <= key && key <= self.meta.largest.as_slice();
        (in_range && self.filter.may_contain(hash)).then(|| self.index.find(key))
    }

    pub(super) fn identity(&self) -> TableIdentity {
        self.identity
    }

    pub(super) fn env(&self) -> &E {
        &self.env
    }

    pub(super) fn index(&self) -> &BlockIndex {
        &self.index
    }

    /// Checks a data block against the index.
    pub(super) fn verify_block<'a>(
        &self,
        block: &ReadBlock<'a>,
    ) -> Result<Section<'a>, TableError> {
        let handle = self.index.block(block.number);
        Section::verify(self.identity, handle, block.bytes).map_err(self.damaged(handle.offset))
    }

    /// Says that bytes at `offset` are malformed; to be used with `map_err`.
    pub(super) fn damaged(&self, offset: u64) -> impl FnOnce(Malformed) -> TableError {
        TableError::damaged(&self.path, offset)
    }

    /// Reads `bytes` at `offset`, both aligned.
    pub(super) async fn read(
        &self,
        offset: u64,
        bytes: u64,
        class: IoClass,
    ) -> Result<Buffer, TableError> {
        let source = Source { env: &self.env, path: &self.path, file: &self.file, class };
        source.read(offset, bytes).await
    }
}

/// The entry of `key` in a data block's bytes.
fn find_entry<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Option<Entry<'a>>, Malformed> {
    let Some(value) = Block::parse(Section::trusted(bytes)?)?.find(key)? else { return Ok(None) };
    Entry::decode(value).map(Some).ok_or(Malformed("an entry that cannot be decoded"))
}

struct Source<'a, E: Env> {
    env: &'a E,
    path: &'a Path,
    file: &'a E::File,
    class: IoClass,
}

impl<E: Env> Source<'_, E> {
    /// The length was checked against the file's before.
    async fn read(&self, offset: u64, bytes: u64) -> Result<Buffer, TableError> {
        let length = usize::try_from(bytes).expect("a part of a table fits into memory");
        let buffer = self.env.buffer(length);
        let (result, buffer) = self.file.read(self.class, offset, buffer).await;
        result.map_err(TableError::io(self.path, "read"))?;
        Ok(buffer)
    }
}

async fn read_footer<E: Env>(
    source: &Source<'_, E>,
    identity: TableIdentity,
    meta: &TableMeta,
) -> Result<Footer, TableError> {
    let damaged = |what| TableError::damaged(source.path, 0)(Malformed(what));
    let file_bytes = meta.file_bytes;
    if source.file.len() != file_bytes {
        return Err(damaged("the file's length is not the one that the manifest holds"));
    }
    let is_aligned = file_bytes.is_multiple_of(DISK_ALIGNMENT as u64);
    if file_bytes < FOOTER_BYTES as u64 || !is_aligned {
        return Err(damaged("no table has this length"));
    }
    let offset = file_bytes - FOOTER_BYTES as u64;
    let bytes = source.read(offset, FOOTER_BYTES as u64).await?;
    let kind = Footer::decode(identity, file_bytes, meta.footer_checksum, &bytes)
        .map_err(TableError::damaged(source.path, offset))?;
    let footer = match kind {
        FooterKind::Known(footer) => footer,
        FooterKind::Other(found) => {
            let path = source.path.to_owned();
            return Err(TableError::WrongFormat { path, found, supported: FORMAT_VERSION });
        }
    };
    let counts = [
        (footer.entries, meta.entries),
        (footer.tombstones, meta.tombstones),
        (footer.version_max, meta.version_max),
        (footer.separate_bytes, meta.separate_bytes),
        (footer.expiring_bytes, meta.expiring_bytes),
        (u64::from(footer.expiry_max), u64::from(meta.expiry_max)),
        (u64::from(footer.expiry_last), u64::from(meta.expiry_last)),
    ];
    if counts.iter().any(|(found, expected)| found != expected) {
        return Err(damaged("the footer's counts are not those that the manifest holds"));
    }
    Ok(footer)
}
