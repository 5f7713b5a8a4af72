//! Builds one table from entries in key order.

use std::path::Path;

use larder_runtime::env::{Env, IoClass};

use super::block::BlockBuilder;
use super::block_cache::BlockCache;
use super::block_index::BlockIndexBuilder;
use super::error::TableError;
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, Footer};
use super::format::{Section, SectionHandle, TableIdentity, padded, seal};
use super::writer::TableWriter;
use super::{ENTRY_BYTES_MAX, Pointed, TableMeta, TableOptions, file_name, key_hash};
use crate::entry::Entry;
use crate::key::ENCODED_BYTES_MAX;

/// How many keys go into a filter before the core is offered back.
const FILTER_STEP: usize = 2048;

/// A table that is being written.
///
/// After an error, or when a future of it was dropped unfinished, only [`Self::abandon`] may
/// follow. Dropping a builder instead leaves a file that no manifest names.
pub struct TableBuilder<E: Env> {
    writer: TableWriter<E>,
    identity: TableIdentity,
    options: TableOptions,
    block: BlockBuilder,
    index: BlockIndexBuilder,
    hashes: Vec<u64>,
    /// The key added last; empty at first.
    last_key: Vec<u8>,
    /// The encoded form of the entry being added.
    value: Vec<u8>,
    meta: TableMeta,
    pointed: Pointed,
    /// Whether some entry is an item that never expires.
    never_expires: bool,
    /// Where blocks are kept as they are written.
    blocks: Option<BlockCache>,
}

impl<E: Env> TableBuilder<E> {
    /// A builder of the table `identity.table` in `directory`. Writes are charged to `class`.
    ///
    /// # Panics
    ///
    /// If the options are out of the ranges that [`TableOptions`] names.
    pub fn new(
        env: E,
        directory: &Path,
        identity: TableIdentity,
        level: u8,
        class: IoClass,
        options: TableOptions,
    ) -> Self {
        assert!(options.block_bytes >= 64, "blocks of {} bytes", options.block_bytes);
        let bits = options.bloom_bits_per_key;
        assert!((1..=64).contains(&bits), "a filter of {bits} bits per key");
        let path = directory.join(file_name(identity.table));
        Self {
            writer: TableWriter::new(env, path, class),
            identity,
            options,
            block: BlockBuilder::new(options.restart_interval),
            index: BlockIndexBuilder::new(),
            hashes: Vec::new(),
            last_key: Vec::new(),
            value: Vec::new(),
            meta: TableMeta { id: identity.table, level, ..TableMeta::default() },
            pointed: Pointed::default(),
            never_expires: false,
            blocks: None,
        }
    }

    /// Has blocks kept in `blocks` as they are written, where there is room to spare.
    pub fn keeping(self, blocks: Option<BlockCache>) -> Self {
        Self { blocks, ..self }
    }

    /// Says up to which log sequence deletions of ranges were applied to the entries.
    pub fn deleted_until(mut self, sequence: u64) -> Self {
        self.meta.deleted_until = sequence;
        self
    }

    /// Adds an entry and writes out what fills a chunk.
    ///
    /// # Panics
    ///
    /// If the encoded key is empty, longer than [`ENCODED_BYTES_MAX`] or not greater than the one
    /// before, or the encoded entry longer than [`ENTRY_BYTES_MAX`].
    pub async fn add(&mut self, key: &[u8], entry: &Entry<'_>) -> Result<(), TableError> {
        assert!(key > self.last_key.as_slice(), "keys are added in increasing order");
        assert!(key.len() <= ENCODED_BYTES_MAX, "a key of {} bytes", key.len());
        self.value.clear();
        entry.encode_into(&mut self.value);
        assert!(self.value.len() <= ENTRY_BYTES_MAX, "an entry of {} bytes", self.value.len());
        if !self.block.try_add(key, &self.value, self.options.block_bytes) {
            self.finish_block().await?;
            let added = self.block.try_add(key, &self.value, self.options.block_bytes);
            assert!(added, "an empty block takes any entry");
        }
        if self.block.entries() == 1 {
            self.index.begin_block(&self.last_key, key);
        }
        if self.meta.entries == 0 {
            self.meta.smallest.extend_from_slice(key);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.hashes.push(key_hash(key));
        self.count(entry);
        Ok(())
    }

    fn count(&mut self, entry: &Entry<'_>) {
        let (meta, expiry) = (&mut self.meta, entry.metadata.expiry);
        meta.entries += 1;
        meta.tombstones += u64::from(entry.is_tombstone());
        meta.version_max = meta.version_max.max(entry.metadata.version);
        if let Some(pointer) = entry.pointer() {
            self.pointed.add(pointer.segment, pointer.len);
            meta.separate_bytes += u64::from(pointer.len);
            meta.expiring_bytes += if expiry == 0 { 0 } else { u64::from(pointer.len) };
        }
        // A table of nothing but tombstones holds no item from the first second on.
        meta.expiry_max = meta.expiry_max.max(expiry).max(1);
        meta.expiry_last = meta.expiry_last.max(expiry);
        self.never_expires |= expiry == 0 && !entry.is_tombstone();
    }

    /// About how many bytes the file would have if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        let filter_bits = self.hashes.len() as u64 * u64::from(self.options.bloom_bits_per_key);
        self.writer.position()
            + padded(self.block.section_bytes() as u64)
            + padded(self.index.section_bytes() as u64)
            + padded(filter_bits / 8)
            + padded(self.pointed.section_bytes() as u64)
            + FOOTER_BYTES as u64
    }

    /// Writes the rest of the file and syncs it; `None`, and no file, if nothing was added.
    ///
    /// When it resolves with `Ok` the file's bytes are durable. The caller then syncs the
    /// directory, and after that names the table in the manifest. On an error the file is removed.
    pub async fn finish(mut self) -> Result<Option<TableMeta>, TableError> {
        if self.meta.entries == 0 {
            return Ok(None);
        }
        match self.write_end().await {
            Ok(()) => Ok(Some(self.meta)),
            Err(error) => {
                // The first error says more than one of the removal would.
                let _removed = self.abandon().await;
                Err(error)
            }
        }
    }

    /// Gives the table up and removes its file, if there is one yet. Durable only after the
    /// directory was synced.
    pub async fn abandon(self) -> Result<(), TableError> {
        if let Some(blocks) = &self.blocks {
            (0..self.index.blocks() as usize)
                .for_each(|block| blocks.forget(self.identity.table, block));
        }
        self.writer.remove().await
    }

    async fn finish_block(&mut self) -> Result<(), TableError> {
        let handle = self.block.seal(self.identity, self.writer.position());
        self.writer.append_padded(self.block.sealed()).await?;
        if let Some(blocks) = &self.blocks {
            blocks.keep_written(self.identity.table, self.index.blocks(), self.block.sealed());
        }
        self.index.end_block(handle);
        self.block.clear();
        Ok(())
    }

    async fn write_end(&mut self) -> Result<(), TableError> {
        self.finish_block().await?;
        let index = self.write_index().await?;
        let filter = self.write_filter().await?;
        let pointed = self.write_pointed().await?;
        if self.never_expires {
            self.meta.expiry_max = 0;
        }
        let footer = Footer {
            identity: self.identity,
            file_bytes: self.writer.position() + FOOTER_BYTES as u64,
            entries: self.meta.entries,
            tombstones: self.meta.tombstones,
            version_max: self.meta.version_max,
            separate_bytes: self.meta.separate_bytes,
            expiring_bytes: self.meta.expiring_bytes,
            expiry_max: self.meta.expiry_max,
            expiry_last: self.meta.expiry_last,
            index,
            filter,
            pointed,
        };
        let (bytes, checksum) = footer.encode();
        self.writer.append_padded(&bytes).await?;
        self.writer.finish().await?;
        self.meta.file_bytes = footer.file_bytes;
        self.meta.footer_checksum = checksum;
        self.meta.largest = std::mem::take(&mut self.last_key);
        Ok(())
    }

    async fn write_index(&mut self) -> Result<SectionHandle, TableError> {
        let mut bytes = self.index.encode();
        let blocks = self.index.blocks();
        let handle = seal(self.identity, self.writer.position(), &mut bytes, blocks, 0);
        self.writer.append_padded(&bytes).await?;
        Ok(handle)
    }

    async fn write_pointed(&mut self) -> Result<SectionHandle, TableError> {
        let mut bytes = self.pointed.encode();
        let count = u32::try_from(self.pointed.len()).expect("segments have numbers of 32 bits");
        let handle = seal(self.identity, self.writer.position(), &mut bytes, count, 0);
        self.writer.append_padded(&bytes).await?;
        Ok(handle)
    }

    /// Reads the filter back from its encoded bytes before they are written: a bit that memory
    /// lost would otherwise hide a key for as long as the table lives.
    async fn write_filter(&mut self) -> Result<SectionHandle, TableError> {
        let mut filter = Filter::for_keys(self.hashes.len(), self.options.bloom_bits_per_key);
        for hashes in self.hashes.chunks(FILTER_STEP) {
            filter.insert_all(hashes);
            self.writer.env().yield_if_needed().await;
        }
        let (lines, probes) = filter.header();
        let mut bytes = filter.encode();
        let handle = seal(self.identity, self.writer.position(), &mut bytes, lines, probes);
        let filter = Section::verify(self.identity, handle, &bytes)
            .and_then(Filter::decode)
            .map_err(TableError::damaged(self.writer.path(), handle.offset))?;
        for hashes in self.hashes.chunks(FILTER_STEP) {
            if !hashes.iter().all(|&hash| filter.may_contain(hash)) {
                return Err(TableError::Damaged {
                    path: self.writer.path().to_owned(),
                    what: "the filter lost a key in memory",
                    offset: handle.offset,
                });
            }
            self.writer.env().yield_if_needed().await;
        }
        self.writer.append_padded(&bytes).await?;
        Ok(handle)
    }
}
