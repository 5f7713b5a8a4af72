//! Reads a table's entries in order, many blocks at a time.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, IoClass};

use super::block::{Block, BlockCursor};
use super::error::{Malformed, TableError};
use super::format::Section;
use super::reader::{ReadBlock, Table};
use crate::entry::Entry;

/// Bytes that an iterator usually reads at once.
pub const READ_AHEAD_BYTES: usize = 128 << 10;

/// How long to wait before a request that the device has refused is made again, in nanoseconds.
const RETRY_NANOSECONDS: u64 = 500_000_000;

/// How often that is waited for in all: a device that has lost many blocks must not hold up those
/// who wait for a merge for as many waits.
const WAITS_MAX: u32 = 4;

/// How often a device that refuses a block is still waited for; shared by the iterators of a merge.
#[derive(Clone)]
pub struct Patience(Rc<Cell<u32>>);

impl Default for Patience {
    fn default() -> Self {
        Self(Rc::new(Cell::new(WAITS_MAX)))
    }
}

impl Patience {
    /// Takes one of the waits; false if none is left.
    fn take(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

/// The entries of a table from some key on.
///
/// It bypasses the block cache, gives the core back between blocks when its quantum is used up,
/// and checks what a lookup does not: that keys increase, and, after a walk over the whole table,
/// that no entry is missing. After an error it must not be used further.
///
/// A block that cannot be read, or is not what the builder wrote, is passed over:
/// [`Self::bad_blocks`] names it before any key behind it is returned.
pub struct TableIterator<E: Env> {
    table: Rc<Table<E>>,
    class: IoClass,
    read_ahead_bytes: usize,
    /// Whole blocks, the last of which is `window_end - 1`.
    window: Option<Buffer>,
    window_offset: u64,
    window_end: usize,
    /// The current block's bytes in the window; empty before the first.
    block: Range<usize>,
    block_offset: u64,
    next_block: usize,
    cursor: BlockCursor,
    place: Place,
    start: Vec<u8>,
    /// Whether the walk is over the whole table.
    is_whole: bool,
    entries_seen: u64,
    bad_blocks: Vec<u32>,
    patience: Patience,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    BeforeFirst,
    OnEntry,
    AfterLast,
}

impl<E: Env> TableIterator<E> {
    /// An iterator over the keys of `table` that are at least `start`; an empty start means all.
    /// It reads about `read_ahead_bytes` at once, at least a block, charged to `class`.
    pub fn new(table: Rc<Table<E>>, start: &[u8], class: IoClass, read_ahead_bytes: usize) -> Self {
        let first_block = table.index().find(start);
        let is_whole = start <= table.meta().smallest.as_slice();
        Self {
            class,
            read_ahead_bytes,
            window: None,
            window_offset: 0,
            window_end: first_block,
            block: 0..0,
            block_offset: 0,
            next_block: first_block,
            cursor: BlockCursor::default(),
            place: Place::BeforeFirst,
            start: start.to_vec(),
            is_whole,
            entries_seen: 0,
            bad_blocks: Vec::new(),
            patience: Patience::default(),
            table,
        }
    }

    /// The same with a patience that others share.
    pub fn with_patience(self, patience: &Patience) -> Self {
        Self { patience: patience.clone(), ..self }
    }

    /// The table that is read.
    pub fn table(&self) -> &Rc<Table<E>> {
        &self.table
    }

    /// Goes to the next entry, at first to the first one, and returns it; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`TableError::Damaged`] if entries are missing although every block is intact.
    pub async fn next(&mut self) -> Result<Option<(&[u8], Entry<'_>)>, TableError> {
        self.advance().await?;
        Ok(self.current())
    }

    /// The entry that [`Self::next`] went to last; `None` before the first and after the last.
    pub fn current(&self) -> Option<(&[u8], Entry<'_>)> {
        (self.place == Place::OnEntry).then(|| {
            let entry = self.decode_value().expect("the entry was decoded when it was reached");
            (self.cursor.key(), entry)
        })
    }

    /// The blocks so far that were passed over, in increasing order.
    pub fn bad_blocks(&self) -> &[u32] {
        &self.bad_blocks
    }

    /// The key of [`Self::current`], which must be there.
    pub(crate) fn key(&self) -> &[u8] {
        assert!(self.place == Place::OnEntry, "the iterator is on no entry");
        self.cursor.key()
    }

    /// Goes to the next entry; false after the last.
    pub(crate) async fn advance(&mut self) -> Result<bool, TableError> {
        if self.place == Place::AfterLast {
            return Ok(false);
        }
        loop {
            match self.advance_in_block() {
                Ok(true) if self.cursor.key() < self.start.as_slice() => continue,
                Ok(true) => {
                    self.place = Place::OnEntry;
                    return Ok(true);
                }
                Ok(false) => {}
                Err(error) => self.pass_over(self.next_block - 1, &error),
            }
            if self.next_block == self.table.index().len() {
                self.place = Place::AfterLast;
                self.check_count()?;
                return Ok(false);
            }
            if let Err(error) = self.enter_next_block().await {
                self.pass_over(self.next_block, &error);
                self.next_block += 1;
            }
        }
    }

    /// Goes on behind block `number`, which is bad.
    fn pass_over(&mut self, number: usize, error: &TableError) {
        tracing::error!("a block of a table cannot be read, its keys are lost: {error}");
        self.bad_blocks.push(u32::try_from(number).expect("an index has 32-bit numbers"));
        self.is_whole = false;
        self.block = 0..0;
        self.window = None;
        self.window_end = number + 1;
    }

    fn advance_in_block(&mut self) -> Result<bool, TableError> {
        if self.block.is_empty() {
            return Ok(false);
        }
        // Not `block_bytes`, which would borrow the cursor too.
        let Some(window) = &self.window else { return Ok(false) };
        let block = Section::trusted(&window[self.block.clone()]).and_then(Block::parse);
        let moved = block.and_then(|block| self.cursor.advance(&block));
        let moved = moved.map_err(self.table.damaged(self.block_offset));
        if !moved? {
            return Ok(false);
        }
        if self.decode_value().is_none() {
            return Err(self.malformed("an entry that cannot be decoded"));
        }
        if self.is_whole
            && self.entries_seen == 0
            && self.cursor.key() != self.table.meta().smallest
        {
            return Err(self.malformed("the first key is not the one that the manifest holds"));
        }
        self.entries_seen += 1;
        Ok(true)
    }

    async fn enter_next_block(&mut self) -> Result<(), TableError> {
        self.table.env().yield_if_needed().await;
        if self.try_enter_next_block(self.read_ahead_bytes as u64).await.is_ok() {
            return Ok(());
        }
        // Alone: it may have been a neighbour, or the way here.
        match self.enter_next_block_alone().await {
            Ok(()) => return Ok(()),
            Err(TableError::Io { .. }) if self.patience.take() => {
                self.table.env().sleep(RETRY_NANOSECONDS).await;
            }
            Err(_) => {}
        }
        self.enter_next_block_alone().await
    }

    async fn enter_next_block_alone(&mut self) -> Result<(), TableError> {
        self.window_end = self.next_block;
        self.try_enter_next_block(0).await
    }

    async fn try_enter_next_block(&mut self, read_ahead_bytes: u64) -> Result<(), TableError> {
        if self.next_block == self.window_end {
            self.read_window(read_ahead_bytes).await?;
        }
        let handle = self.table.index().block(self.next_block);
        let start = (handle.offset - self.window_offset) as usize;
        let window = self.window.as_ref().expect("the window holds the next block");
        let read = ReadBlock { number: self.next_block, bytes: &window[start..] };
        let length = self.table.verify_block(&read)?.bytes.len();
        self.block = start..start + length;
        self.block_offset = handle.offset;
        self.next_block += 1;
        self.cursor.enter_block();
        Ok(())
    }

    async fn read_window(&mut self, read_ahead_bytes: u64) -> Result<(), TableError> {
        let index = self.table.index();
        let first = index.block(self.next_block);
        let mut end = self.next_block + 1;
        let mut end_offset = first.end();
        while end < index.len() {
            let block = index.block(end);
            if block.end() - first.offset > read_ahead_bytes {
                break;
            }
            end_offset = block.end();
            end += 1;
        }
        // Given back before the next one is asked for, so that it can be recycled.
        self.window = None;
        self.block = 0..0;
        let bytes = end_offset - first.offset;
        self.window = Some(self.table.read(first.offset, bytes, self.class).await?);
        self.window_offset = first.offset;
        self.window_end = end;
        Ok(())
    }

    fn check_count(&self) -> Result<(), TableError> {
        let meta = self.table.meta();
        let is_complete = !self.is_whole || self.entries_seen == meta.entries;
        if !self.bad_blocks.is_empty() || (is_complete && self.cursor.key() == meta.largest) {
            return Ok(());
        }
        Err(self.malformed("entries are missing or too many"))
    }

    fn malformed(&self, what: &'static str) -> TableError {
        self.table.damaged(self.block_offset)(Malformed(what))
    }

    fn block_bytes(&self) -> &[u8] {
        self.window.as_ref().map_or(&[], |window| &window[self.block.clone()])
    }

    fn decode_value(&self) -> Option<Entry<'_>> {
        Entry::decode(self.block_bytes().get(self.cursor.value())?)
    }
}
