//! The index: where each data block is, its checksum, and which keys it may hold.
//!
//! Block `i` holds the keys from its fence on, up to the fence of block `i + 1`. A fence is the
//! shortest prefix of the block's first key that is greater than the last key before it; the first
//! fence is empty. Invariants: fences increase strictly; blocks follow one another without gaps,
//! from the start of the file up to the index.

use std::cmp::Ordering;

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
    heads: FenceHeads,
}

/// What the fences begin with, side by side: a search goes by these, which lie in few cache lines,
/// and compares whole fences only where heads are equal.
struct FenceHeads {
    /// What all fences but the first, which is empty, have in common.
    common: Box<[u8]>,
    /// The eight bytes behind that, as numbers in the order of the fences; zeros where a fence is
    /// shorter, and for the first.
    heads: Box<[u64]>,
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
        let heads = FenceHeads { common: Box::default(), heads: Box::default() };
        let mut index = Self { blocks: blocks.into_boxed_slice(), fences: fences.into(), heads };
        index.check_places(data_end)?;
        index.check_fences()?;
        index.heads = index.fence_heads();
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

    /// The heads of fences that are in order.
    fn fence_heads(&self) -> FenceHeads {
        let count = self.len();
        // What the least and the greatest begin with, all between them do.
        let common_len =
            if count < 2 { 0 } else { common_prefix_len(self.fence(1), self.fence(count - 1)) };
        let common = if count < 2 { &[] } else { &self.fence(1)[..common_len] };
        let first = std::iter::once(0);
        let others = (1..count).map(|number| head_of(&self.fence(number)[common_len..]));
        FenceHeads { common: common.into(), heads: first.chain(others).collect() }
    }

    /// The number of the only block that may hold `key`: the last whose fence is at most `key`.
    pub(super) fn find(&self, key: &[u8]) -> usize {
        let FenceHeads { common, heads } = &self.heads;
        let begins = &key[..key.len().min(common.len())];
        match begins.cmp(common) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.len() - 1,
            Ordering::Equal => {}
        }
        let head = head_of(&key[common.len()..]);
        // The fences of lesser heads are less than the key, those of greater heads greater.
        let mut low = heads[1..].partition_point(|other| *other < head);
        let behind = &heads[low + 1..];
        let is_equal = |other: &u64| *other == head;
        let equal =
            if behind.first().is_some_and(is_equal) { behind.partition_point(is_equal) } else { 0 };
        let mut high = low + 1 + equal;
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
        let heads = size_of_val(&*self.heads.heads) + self.heads.common.len();
        size_of_val(&*self.blocks) + self.fences.len() + heads
    }

    /// The shortest prefix of the first key of block `number` that is greater than every key
    /// before.
    pub(super) fn fence(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.blocks[before].fence_end);
        &self.fences[start as usize..self.blocks[number].fence_end as usize]
    }
}

/// The first eight bytes as a number that is in order as they are.
fn head_of(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(head)
        }
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
    fn heads_lead_to_the_block_that_the_fences_name() {
        let mut random = larder_runtime::random::Random::new(0x1234_5678);
        let mut word = |letters: u64, longest: u64| {
            let length = random.below(longest + 1);
            (0..length).map(|_| random.below(letters) as u8 * 0x7f).collect::<Vec<u8>>()
        };
        for (common, letters, longest) in
            [(0, 2, 12), (3, 2, 12), (20, 3, 9), (1, 2, 3), (9, 2, 30)]
        {
            let mut keys: Vec<Vec<u8>> = (0..300).map(|_| word(letters, longest)).collect();
            for key in &mut keys {
                key.splice(..0, std::iter::repeat_n(b'k', common));
            }
            let probes: Vec<_> = keys.iter().cloned().chain((0..50).map(|_| word(3, 25))).collect();
            keys.retain(|key| !key.is_empty());
            keys.sort_unstable();
            keys.dedup();
            let mut builder = BlockIndexBuilder::new();
            let mut last = &[][..];
            for (number, key) in keys.iter().enumerate() {
                builder.begin_block(last, key);
                let offset = number as u64 * DISK_ALIGNMENT as u64;
                builder.end_block(SectionHandle { offset, length: 4096, checksum: 1 });
                last = key;
            }
            let (mut bytes, blocks) = (builder.encode(), builder.blocks());
            seal(TableIdentity { store: 1, table: 1 }, 0, &mut bytes, blocks, 0);
            let section = Section::trusted(&bytes).expect("a header");
            let end = u64::from(blocks) * DISK_ALIGNMENT as u64;
            let index = BlockIndex::decode(section, end).expect("decodes");
            for key in &probes {
                let expected = (0..index.len()).rfind(|&number| index.fence(number) <= &key[..]);
                assert_eq!(Some(index.find(key)), expected, "{key:?}");
            }
        }
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
