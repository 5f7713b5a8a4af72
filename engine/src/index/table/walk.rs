//! Walks a part of a table's entries in either direction, for scans.
//!
//! A walk holds one block, taken apart, so that it goes back as easily as forth. Blocks come from
//! the block cache where they are there, and leave it as it is; the others are read ahead, more
//! with each read, so that a short scan reads little and a long one in large pieces.

use std::ops::Range;
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, IoClass};

use super::BlockCache;
use super::block::{Block, BlockCursor};
use super::error::{Malformed, TableError};
use super::format::Section;
use super::iterator::READ_AHEAD_BYTES;
use super::reader::{ReadBlock, Table};
use crate::entry::Entry;

/// One block's entries: keys and encoded entries, one after the other.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    /// Where each key begins, where its entry begins, and where that ends.
    ends: Vec<(usize, usize, usize)>,
}

impl Rows {
    fn take_apart(&mut self, section: Section<'_>) -> Result<(), Malformed> {
        self.bytes.clear();
        self.ends.clear();
        let bytes = section.bytes;
        let block = Block::parse(section)?;
        let mut cursor = BlockCursor::default();
        cursor.enter_block();
        while cursor.advance(&block)? {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(cursor.key());
            let middle = self.bytes.len();
            let value = &bytes[cursor.value()];
            if Entry::decode(value).is_none() {
                return Err(Malformed("an entry that cannot be decoded"));
            }
            self.bytes.extend_from_slice(value);
            self.ends.push((start, middle, self.bytes.len()));
        }
        Ok(())
    }

    fn key(&self, at: usize) -> &[u8] {
        let (start, middle, _) = self.ends[at];
        &self.bytes[start..middle]
    }

    fn entry(&self, at: usize) -> Entry<'_> {
        let (_, middle, end) = self.ends[at];
        Entry::decode(&self.bytes[middle..end]).expect("it was decoded when the block was read")
    }

    /// The first of the entries whose keys are at least `key`.
    fn from(&self, key: &[u8]) -> usize {
        self.ends.partition_point(|&(start, middle, _)| &self.bytes[start..middle] < key)
    }
}

/// Blocks that were read together.
struct Window {
    blocks: Range<usize>,
    offset: u64,
    buffer: Buffer,
}

/// A place among the entries of a table, and the way from there.
pub struct TableWalk<E: Env> {
    table: Rc<Table<E>>,
    is_reverse: bool,
    rows: Rows,
    /// The current entry, and those that are left of the block in the walk's direction.
    left: Range<usize>,
    /// The blocks that are left.
    blocks: Range<usize>,
    /// The block that was entered last.
    block: usize,
    window: Option<Window>,
    /// How much the next read may bring, in bytes.
    read_bytes: usize,
}

impl<E: Env> TableWalk<E> {
    /// A walk over the entries of `table` whose keys are at least `start` and below `end`, if there
    /// is one; from the last of them if `is_reverse`. [`Self::advance`] goes to the first.
    pub fn new(table: Rc<Table<E>>, start: &[u8], end: Option<&[u8]>, is_reverse: bool) -> Self {
        let index = table.index();
        let last = end.map_or(index.len(), |end| index.find(end) + 1);
        let blocks = index.find(start)..last;
        Self {
            table,
            is_reverse,
            rows: Rows::default(),
            left: 0..0,
            blocks,
            block: 0,
            window: None,
            read_bytes: 0,
        }
    }

    /// The same walk, whose first read brings as many blocks as fit into so many bytes, and one at
    /// least.
    pub fn reading(self, bytes: usize) -> Self {
        Self { read_bytes: bytes, ..self }
    }

    /// The table.
    pub fn table(&self) -> &Table<E> {
        &self.table
    }

    /// The key of the current entry.
    pub fn key(&self) -> &[u8] {
        self.rows.key(self.at())
    }

    /// The current entry.
    pub fn entry(&self) -> Entry<'_> {
        self.rows.entry(self.at())
    }

    /// The keys that the block that was entered last may hold: from the first one on, and below the
    /// second.
    pub fn block_keys(&self) -> (Vec<u8>, Vec<u8>) {
        self.table.keys_of_blocks(self.block..self.block + 1)
    }

    fn at(&self) -> usize {
        assert!(!self.left.is_empty(), "the walk is on no entry");
        if self.is_reverse { self.left.end - 1 } else { self.left.start }
    }

    /// Goes to the next entry between `start` and `end`, which are those of the walk; false after
    /// the last.
    ///
    /// # Errors
    ///
    /// [`TableError`] if a block cannot be read or is not what was written. It is passed over then:
    /// the walk may go on behind it.
    pub async fn advance(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        blocks: &BlockCache,
        class: IoClass,
    ) -> Result<bool, TableError> {
        if !self.left.is_empty() {
            if self.is_reverse {
                self.left.end -= 1;
            } else {
                self.left.start += 1;
            }
        }
        while self.left.is_empty() {
            let next = if self.is_reverse { self.blocks.next_back() } else { self.blocks.next() };
            let Some(number) = next else { return Ok(false) };
            self.block = number;
            self.enter(number, blocks, class).await?;
            let to = end.map_or(self.rows.ends.len(), |end| self.rows.from(end));
            self.left = self.rows.from(start)..to;
        }
        Ok(true)
    }

    async fn enter(
        &mut self,
        number: usize,
        blocks: &BlockCache,
        class: IoClass,
    ) -> Result<(), TableError> {
        let offset = self.table.index().block(number).offset;
        let rows = &mut self.rows;
        let cached = blocks.with_block(self.table.meta().id, number, |bytes| {
            Section::trusted(bytes).and_then(|section| rows.take_apart(section))
        });
        if let Some(taken) = cached {
            return taken.map_err(self.table.damaged(offset));
        }
        self.table.env().yield_if_needed().await;
        if self.window.as_ref().is_none_or(|window| !window.blocks.contains(&number)) {
            self.read(number, class).await?;
        }
        let window = self.window.as_ref().expect("it was read just now");
        let bytes = &window.buffer[(offset - window.offset) as usize..];
        let section = self.table.verify_block(&ReadBlock { number, bytes })?;
        self.rows.take_apart(section).map_err(self.table.damaged(offset))
    }

    /// Reads block `number` and some that follow in the walk's direction.
    async fn read(&mut self, number: usize, class: IoClass) -> Result<(), TableError> {
        let index = self.table.index();
        let mut blocks = number..number + 1;
        let bytes = |blocks: &Range<usize>| {
            index.block(blocks.end - 1).end() - index.block(blocks.start).offset
        };
        loop {
            let more = if self.is_reverse {
                blocks.start.checked_sub(1).map(|start| start..blocks.end)
            } else {
                Some(blocks.start..blocks.end + 1)
            };
            let is_left = |more: &Range<usize>| {
                more.start >= self.blocks.start.min(number)
                    && more.end <= self.blocks.end.max(number + 1)
            };
            match more.filter(is_left) {
                Some(more) if bytes(&more) <= self.read_bytes as u64 => blocks = more,
                _ => break,
            }
        }
        // Given back before the next one is asked for, so that it can be recycled.
        self.window = None;
        let (offset, length) = (index.block(blocks.start).offset, bytes(&blocks));
        let (mut offset, mut length) = (offset, length);
        let mut read = self.table.read(offset, length, class).await;
        if read.is_err() && blocks.len() > 1 {
            // It is not known which of them cannot be read: the others are not lost with it.
            blocks = number..number + 1;
            (offset, length) = (index.block(number).offset, bytes(&blocks));
            read = self.table.read(offset, length, class).await;
            self.read_bytes = 0;
        }
        let buffer = read?;
        self.read_bytes = (2 * length as usize).clamp(self.read_bytes, READ_AHEAD_BYTES);
        self.window = Some(Window { blocks, offset, buffer });
        Ok(())
    }
}
