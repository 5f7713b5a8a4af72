//! Blocks one by one, for whoever goes on behind damage.
//!
//! A block is checked by itself: its place is part of its checksum. So the blocks of a table can be
//! found even where index and footer are lost.

use larder_runtime::env::{Env, IoClass};

use super::TableError;
use super::block::{Block, BlockCursor};
use super::error::Malformed;
use super::format::{SECTION_HEADER_BYTES, Section, SectionHandle, TableIdentity, padded, u32_at};
use super::reader::Table;
use crate::entry::Entry;
use crate::scrub::ScrubStep;

/// Where a data block is said to lie, by the index or by the block itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    handle: SectionHandle,
}

impl BlockPlace {
    /// What the header at the front of `bytes`, which lies at `offset` of the file, says of itself;
    /// `None` if no block can say so.
    pub fn of_header(offset: u64, bytes: &[u8]) -> Option<Self> {
        let (checksum, length) = (u32_at(bytes, 0)?, u32_at(bytes, size_of::<u32>())?);
        let handle = SectionHandle { offset, length, checksum };
        (length as usize > SECTION_HEADER_BYTES).then_some(Self { handle })
    }

    /// Bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.handle.offset
    }

    /// Bytes that the block takes in the file, padding included.
    pub fn bytes(&self) -> u64 {
        padded(u64::from(self.handle.length))
    }
}

impl<E: Env> Table<E> {
    /// Where the blocks lie, in order.
    pub fn block_places(&self) -> impl Iterator<Item = BlockPlace> {
        (0..self.index().len()).map(|number| BlockPlace { handle: self.index().block(number) })
    }
}

impl<E: Env> Table<E> {
    /// Reads and checks blocks from number `from` on, about `bytes_max` of them; behind the last
    /// one, footer, index, filter and segment list as they are on the device now. A table in which
    /// something is damaged is to be written anew.
    pub(crate) async fn scrub(&self, from: u64, bytes_max: u64, class: IoClass) -> ScrubStep {
        let step = self.scrub_step(from, bytes_max, class).await;
        if !step.damage.is_empty() {
            self.note_damage();
        }
        step
    }

    async fn scrub_step(&self, from: u64, bytes_max: u64, class: IoClass) -> ScrubStep {
        let mut step = ScrubStep::default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut places = self.block_places().skip(from).peekable();
        if places.peek().is_none() {
            step.bytes = self.memory_bytes() as u64;
            if let Err(error) = self.check_ends(class).await {
                step.damage.push(describe(error));
            }
            return step;
        }
        let mut number = from;
        while step.bytes < bytes_max
            && let Some(place) = places.next()
        {
            number += 1;
            step.bytes += place.bytes();
            let mut found = self.check_block(place, class).await;
            if found.is_err() {
                // A transfer that went wrong must not look like damage.
                found = self.check_block(place, class).await;
            }
            if let Err(what) = found {
                step.damage.push((place.offset(), what));
            }
            self.env().yield_if_needed().await;
        }
        step.next = Some(number as u64);
        step
    }

    async fn check_block(&self, place: BlockPlace, class: IoClass) -> Result<(), String> {
        let read = self.read(place.offset(), place.bytes(), class).await;
        let bytes = read.map_err(|error| describe(error).1)?;
        visit_block(self.identity(), place, &bytes, b"", |_, _| {})
            .map(|_| ())
            .map_err(str::to_owned)
    }

    async fn check_ends(&self, class: IoClass) -> Result<(), TableError> {
        let directory = self.path().parent().expect("a table is in a directory");
        let identity = self.identity();
        let again = Self::open(self.env().clone(), directory, identity, self.meta(), class).await?;
        again.pointed(class).await.map(|_| ())
    }
}

/// Where something is wrong, and what.
fn describe(error: TableError) -> (u64, String) {
    match error {
        TableError::Damaged { what, offset, .. } => (offset, what.to_owned()),
        error => (0, error.to_string()),
    }
}

/// Checks the block at `place`, whose bytes `bytes` begins with, and then shows its entries to
/// `visit`. Returns the number of entries and the last key.
///
/// # Errors
///
/// What is wrong with it: its checksum does not hold, keys do not increase from `last_key` on, or
/// an entry cannot be decoded. Nothing was shown then.
pub fn visit_block(
    identity: TableIdentity,
    place: BlockPlace,
    bytes: &[u8],
    last_key: &[u8],
    mut visit: impl FnMut(&[u8], Entry<'_>),
) -> Result<(u64, Vec<u8>), &'static str> {
    let section = Section::verify(identity, place.handle, bytes).map_err(|error| error.0)?;
    let walk = |show: &mut dyn FnMut(&[u8], Entry<'_>)| {
        let block = Block::parse(section)?;
        let mut cursor = BlockCursor::default();
        cursor.enter_block();
        let mut entries = 0u64;
        while cursor.advance(&block)? {
            if entries == 0 && cursor.key() <= last_key {
                return Err(Malformed("keys out of order"));
            }
            let entry = section.bytes.get(cursor.value()).and_then(Entry::decode);
            show(cursor.key(), entry.ok_or(Malformed("an entry that cannot be decoded"))?);
            entries += 1;
        }
        if entries != u64::from(section.count) {
            return Err(Malformed("entries are missing or too many"));
        }
        Ok((entries, cursor.key().to_vec()))
    };
    walk(&mut |_, _| {}).map_err(|error| error.0)?;
    walk(&mut visit).map_err(|error| error.0)
}
