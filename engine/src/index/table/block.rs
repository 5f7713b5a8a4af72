//! Data blocks: entries in key order, each key without what it shares with the one before.
//!
//! Every so many entries a restart point holds its whole key. A lookup searches the restart points
//! by halves and then walks the entries of one interval.

use std::cmp::Ordering;
use std::ops::Range;

use super::error::Malformed;
use super::format::{
    SECTION_HEADER_BYTES, Section, SectionHandle, TableIdentity, common_prefix_len, seal, u32_at,
};
use crate::entry::{put_varint, take_varint};

const RESTART_BYTES: usize = 4;

/// Collects the entries of one block.
pub(super) struct BlockBuilder {
    section: Vec<u8>,
    restarts: Vec<u32>,
    last_key: Vec<u8>,
    entries: u32,
    restart_interval: u32,
}

impl BlockBuilder {
    /// An empty block.
    pub(super) fn new(restart_interval: u32) -> Self {
        assert!(restart_interval > 0, "a block needs restart points");
        Self {
            section: vec![0; SECTION_HEADER_BYTES],
            restarts: Vec::new(),
            last_key: Vec::new(),
            entries: 0,
            restart_interval,
        }
    }

    /// The number of entries.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Bytes of the section as it is now.
    pub(super) fn section_bytes(&self) -> usize {
        self.section.len() + RESTART_BYTES * self.restarts.len()
    }

    /// Adds an entry, unless the block would grow beyond `bytes_max` and is not empty; says whether
    /// it did. The key is greater than all before it.
    pub(super) fn try_add(&mut self, key: &[u8], value: &[u8], bytes_max: usize) -> bool {
        let is_restart = self.entries.is_multiple_of(self.restart_interval);
        let shared = if is_restart { 0 } else { common_prefix_len(&self.last_key, key) };
        let start = self.section.len();
        put_varint(&mut self.section, shared as u64);
        put_varint(&mut self.section, (key.len() - shared) as u64);
        put_varint(&mut self.section, value.len() as u64);
        let entry_bytes = key.len() - shared + value.len();
        let restarts = self.restarts.len() + usize::from(is_restart);
        let size = self.section.len() + entry_bytes + RESTART_BYTES * restarts;
        if size > bytes_max && self.entries > 0 {
            self.section.truncate(start);
            return false;
        }
        if is_restart {
            self.restarts.push(u32::try_from(start).expect("a block is shorter than 4 GiB"));
        }
        self.section.extend_from_slice(&key[shared..]);
        self.section.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.entries += 1;
        true
    }

    /// Makes the collected entries a section at `offset`, whose bytes [`Self::sealed`] lends until
    /// [`Self::clear`].
    pub(super) fn seal(&mut self, identity: TableIdentity, offset: u64) -> SectionHandle {
        assert!(self.entries > 0, "a block has entries");
        for restart in &self.restarts {
            self.section.extend_from_slice(&restart.to_le_bytes());
        }
        seal(identity, offset, &mut self.section, self.entries, self.restarts.len() as u32)
    }

    /// The bytes of the sealed section.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.section
    }

    /// Empties the block for the next one.
    pub(super) fn clear(&mut self) {
        self.section.truncate(SECTION_HEADER_BYTES);
        self.restarts.clear();
        self.last_key.clear();
        self.entries = 0;
    }
}

/// A block's bytes, ready to be searched.
pub(super) struct Block<'a> {
    /// Header and entries, so that restart points are offsets into it.
    entries: &'a [u8],
    restarts: &'a [u8],
}

struct RawEntry<'a> {
    shared: usize,
    suffix: &'a [u8],
    value: &'a [u8],
    /// Where the entry after this one starts.
    next: usize,
}

impl<'a> Block<'a> {
    /// Finds entries and restart points in a section.
    pub(super) fn parse(section: Section<'a>) -> Result<Self, Malformed> {
        let entries_end = (section.detail as usize)
            .checked_mul(RESTART_BYTES)
            .and_then(|bytes| section.bytes.len().checked_sub(bytes))
            .filter(|&end| end > SECTION_HEADER_BYTES && section.detail > 0)
            .ok_or(Malformed("the block has no room for its restart points"))?;
        let (entries, restarts) = section.bytes.split_at(entries_end);
        Ok(Self { entries, restarts })
    }

    /// The value of `target`. No allocation.
    pub(super) fn find(&self, target: &[u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let (mut low, mut high) = (0, self.restarts.len() / RESTART_BYTES);
        // Keys of restart points before `low` are less than the target; from `high` on, greater.
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(self.restart(middle))?;
            if entry.shared != 0 {
                return Err(Malformed("a restart point without its whole key"));
            }
            match entry.suffix.cmp(target) {
                Ordering::Equal => return Ok(Some(entry.value)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        if low == 0 {
            return Ok(None);
        }
        let last = low == self.restarts.len() / RESTART_BYTES;
        let end = if last { self.entries.len() } else { self.restart(low) };
        self.find_between(self.restart(low - 1), end, target)
    }

    /// Walks the interval that starts at `at`, without putting keys together.
    ///
    /// `matched` is how much the previous key, which is less than the target, has in common with
    /// it. A key that shares more than that with the previous one is less for the same reason; one
    /// that shares less has passed the target.
    fn find_between(
        &self,
        mut at: usize,
        end: usize,
        target: &[u8],
    ) -> Result<Option<&'a [u8]>, Malformed> {
        let mut matched = 0;
        while at < end {
            let entry = self.entry(at)?;
            at = entry.next;
            match entry.shared.cmp(&matched) {
                Ordering::Greater => {}
                Ordering::Less => return Ok(None),
                Ordering::Equal => {
                    let wanted = &target[matched..];
                    match entry.suffix.cmp(wanted) {
                        Ordering::Equal => return Ok(Some(entry.value)),
                        Ordering::Greater => return Ok(None),
                        Ordering::Less => matched += common_prefix_len(entry.suffix, wanted),
                    }
                }
            }
        }
        Ok(None)
    }

    fn restart(&self, number: usize) -> usize {
        let offset = u32_at(self.restarts, number * RESTART_BYTES);
        offset.expect("the number is less than the count") as usize
    }

    fn entry(&self, at: usize) -> Result<RawEntry<'a>, Malformed> {
        read_entry(self.entries, at).ok_or(Malformed("an entry that overruns its block"))
    }
}

fn read_entry(entries: &[u8], at: usize) -> Option<RawEntry<'_>> {
    let mut rest = entries.get(at..)?;
    let shared = take_length(&mut rest)?;
    let suffix_len = take_length(&mut rest)?;
    let value_len = take_length(&mut rest)?;
    let (suffix, rest) = rest.split_at_checked(suffix_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some(RawEntry { shared, suffix, value, next: entries.len() - rest.len() })
}

#[inline]
fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_varint(bytes)?).ok()
}

/// A place among the entries of one block after another. The bytes stay with the caller.
#[derive(Default)]
pub(super) struct BlockCursor {
    key: Vec<u8>,
    value: Range<usize>,
    next: usize,
}

impl BlockCursor {
    /// Goes before the first entry of a block. The key stays, to check the order across blocks.
    pub(super) fn enter_block(&mut self) {
        self.next = SECTION_HEADER_BYTES;
        self.value = 0..0;
    }

    /// Goes to the next entry of `block`; false after the last.
    pub(super) fn advance(&mut self, block: &Block<'_>) -> Result<bool, Malformed> {
        if self.next >= block.entries.len() {
            return Ok(false);
        }
        let is_first = self.next == SECTION_HEADER_BYTES;
        let entry = block.entry(self.next)?;
        if entry.shared > self.key.len() || (is_first && entry.shared != 0) {
            return Err(Malformed("a key that shares more than there is"));
        }
        if entry.suffix <= &self.key[entry.shared..] {
            return Err(Malformed("keys out of order"));
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.value = entry.next - entry.value.len()..entry.next;
        self.next = entry.next;
        Ok(true)
    }

    /// The key of the current entry; empty before the first.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Where the current entry's value lies in the block's bytes.
    pub(super) fn value(&self) -> Range<usize> {
        self.value.clone()
    }
}

#[cfg(test)]
mod tests;
