//! Blocks one by one, for whoever goes on behind damage.
//!
//! A block is checked by itself: its place is part of its checksum. So the blocks of a table can be
//! found even where index and footer are lost.

use larder_runtime::env::Env;

use super::block::{Block, BlockCursor};
use super::error::Malformed;
use super::format::{SECTION_HEADER_BYTES, Section, SectionHandle, TableIdentity, padded, u32_at};
use super::reader::Table;
use crate::entry::Entry;

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
