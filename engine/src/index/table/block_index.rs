//! The index: where each data block is, its checksum, and which keys it may hold.
//!
//! Block `i` holds the keys from its fence on, up to the fence of block `i + 1`. A fence is the
//! shortest prefix of the block's first key that is greater than the last key before it; the first
//! fence is empty. Invariants: fences increase strictly; blocks follow one another without gaps,
//! from the start of the file up to the index.

use larder_runtime::env::DISK_ALIGNMENT;

use super::error::Malformed;
use super::format::{SECTION_HEADER_BYTES, Section, SectionHandle, common_prefix_len, u32_at};

/// The bytes of a block's record: page, length, checksum, length of its fence.
const RECORD_BYTES: usize = 16;

/// Collects the index while a table is built.
pub(super) struct BlockIndexBuilder {
    records: Vec<u8>,
    fences: Vec<u8>,
    fence_len: u32,
    blocks: u32,
}

impl BlockIndexBuilder {
    /// An index without blocks.
    pub(super) fn new() -> Self {
        Self { records: vec![0; SECTION_HEADER_BYTES], fences: Vec::new(), fence_len: 0, blocks: 0 }
    }

    /// Notes the fence of the block that begins with `first_key`; `last_key` is the greatest key
    /// before it, empty if there is none.
    pub(super) fn begin_block(&mut self, last_key: &[u8], first_key: &[u8]) {
        let fence_len = if last_key.is_empty() {
            0
        } else {
            (common_prefix_len(last_key, first_key) + 1).min(first_key.len())
        };
        self.fences.extend_from_slice(&first_key[..fence_len]);
        self.fence_len = fence_len as u32;
    }

    /// Notes where the block went that was begun last.
    pub(super) fn end_block(&mut self, block: SectionHandle) {
        let page = u32::try_from(block.offset / DISK_ALIGNMENT as u64)
            .expect("a table is smaller than 16 TiB");
        for field in [page, block.length, block.checksum, self.fence_len] {
            self.records.extend_from_slice(&field.to_le_bytes());
        }
        self.blocks += 1;
    }

    /// The number of blocks that were ended.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of the section as it is now.
    pub(super) fn section_bytes(&self) -> usize {
        self.records.len() + self.fences.len()
    }

    /// The index as a section's bytes, with room for the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.records.as_slice(), self.fences.as_slice()].concat()
    }
}

#[derive(Clone, Copy)]
struct BlockRecord {
    page: u32,
    length: u32,
    checksum: u32,
    /// Where the block's fence ends in `fences`; it begins where the previous block's ends.
    fence_end: u32,
}

/// An index in memory.
pub(super) struct BlockIndex {
    blocks: Box<[BlockRecord]>,
    fences: Box<[u8]>,
}

impl BlockIndex {
    /// The index in a verified section, whose blocks fill the file up to `data_end`.
    pub(super) fn decode(section: Section<'_>, data_end: u64) -> Result<Self, Malformed> {
        let records_bytes = (section.count as usize).checked_mul(RECORD_BYTES);
        let (records, fences) = records_bytes
            .and_then(|bytes| section.body().split_at_checked(bytes))
            .ok_or(Malformed("the index is shorter than its blocks"))?;
        let mut blocks = Vec::with_capacity(section.count as usize);
        let mut fence_end = 0u32;
        for record in records.chunks_exact(RECORD_BYTES) {
            let field = |number: usize| u32_at(record, 4 * number).unwrap_or_default();
            fence_end = fence_end
                .checked_add(field(3))
                .filter(|&end| end as usize <= fences.len())
                .ok_or(Malformed("the index is shorter than its fences"))?;
            let [page, length, checksum] = [field(0), field(1), field(2)];
            blocks.push(BlockRecord { page, length, checksum, fence_end });
        }
        let index = Self { blocks: blocks.into_boxed_slice(), fences: fences.into() };
        index.check_places(data_end)?;
        index.check_fences()?;
        Ok(index)
    }

    fn check_places(&self, data_end: u64) -> Result<(), Malformed> {
        let mut offset = 0;
        for number in 0..self.blocks.len() {
            let block = self.block(number);
            if block.offset != offset || (block.length as usize) < SECTION_HEADER_BYTES {
                return Err(Malformed("the index has a gap between blocks"));
            }
            offset = block.end();
        }
        if self.blocks.is_empty() || offset != data_end {
            return Err(Malformed("the blocks of the index do not fill the file"));
        }
        Ok(())
    }

    fn check_fences(&self) -> Result<(), Malformed> {
        let last = self.blocks.last().map_or(0, |block| block.fence_end as usize);
        let increasing =
            (1..self.blocks.len()).all(|number| self.fence(number - 1) < self.fence(number));
        if last != self.fences.len() || !self.fence(0).is_empty() || !increasing {
            return Err(Malformed("the fences of the index are out of order"));
        }
        Ok(())
    }

    /// The number of blocks; at least 1.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where block `number` is.
    pub(super) fn block(&self, number: usize) -> SectionHandle {
        let block = self.blocks[number];
        SectionHandle {
            offset: u64::from(block.page) * DISK_ALIGNMENT as u64,
            length: block.length,
            checksum: block.checksum,
        }
    }

    /// The number of the only block that may hold `key`.
    pub(super) fn find(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.blocks.len());
        // The fence of `low` is at most `key`; those from `high` on are greater.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.fence(middle) <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks) + self.fences.len()
    }

    /// The shortest prefix of the first key of block `number` that is greater than every key before.
    pub(super) fn fence(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.blocks[before].fence_end);
        &self.fences[start as usize..self.blocks[number].fence_end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::table::format::{TableIdentity, seal};

    fn section() -> Vec<u8> {
        let mut builder = BlockIndexBuilder::new();
        let blocks = [("", "apple", 100), ("banana", "bandit", 5000), ("bandits", "cherry", 4096)];
        let mut offset = 0;
        for (last_key, first_key, length) in blocks {
            builder.begin_block(last_key.as_bytes(), first_key.as_bytes());
            let handle = SectionHandle { offset, length, checksum: length };
            builder.end_block(handle);
            offset = handle.end();
        }
        let mut bytes = builder.encode();
        assert_eq!(bytes.len(), builder.section_bytes());
        seal(TableIdentity { store: 1, table: 1 }, 0, &mut bytes, builder.blocks(), 0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<BlockIndex, Malformed> {
        BlockIndex::decode(Section::trusted(bytes).expect("a header"), 4 * 4096)
    }

    #[test]
    fn keys_are_found_between_their_fences() {
        let bytes = section();
        let index = decode(&bytes).expect("decodes");
        assert_eq!((index.fence(1), index.fence(2)), (&b"band"[..], &b"c"[..]));
        let keys = [("", 0), ("banana", 0), ("band", 1), ("bandits", 1), ("c", 2), ("zebra", 2)];
        for (key, block) in keys {
            assert_eq!(index.find(key.as_bytes()), block, "{key}");
        }
        assert_eq!(index.block(2).offset, 3 * 4096);
    }

    #[test]
    fn an_index_changed_anywhere_is_refused_or_still_safe_to_ask() {
        let bytes = section();
        for at in 8..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(index) = decode(&changed) {
                    assert!(index.find(b"bandit") < index.len());
                }
            }
        }
        for length in SECTION_HEADER_BYTES..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
    }
}
