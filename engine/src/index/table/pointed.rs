//! What a table points at: for each segment of the value log the bytes of the log records that its
//! entries point to.
//!
//! With this a table can be removed, and its share of the segments' live bytes taken back, without
//! reading its entries.

use std::collections::BTreeMap;

use super::error::Malformed;
use super::format::{SECTION_HEADER_BYTES, Section};

/// A pair's bytes: segment, bytes.
const PAIR_BYTES: usize = 12;

/// Bytes of log records by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointed(BTreeMap<u32, u64>);

impl Pointed {
    /// Counts a log record of `bytes` bytes.
    pub fn add(&mut self, segment: u32, bytes: u32) {
        *self.0.entry(segment).or_default() += u64::from(bytes);
    }

    /// Takes a log record of `bytes` bytes back; false if that many were not counted.
    pub fn take(&mut self, segment: u32, bytes: u32) -> bool {
        let Some(left) = self.0.get_mut(&segment) else { return false };
        match left.checked_sub(u64::from(bytes)) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }

    /// The segments and their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().map(|(&segment, &bytes)| (segment, bytes))
    }

    /// The bytes in all segments.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of the section as it is now.
    pub(super) fn section_bytes(&self) -> usize {
        SECTION_HEADER_BYTES + PAIR_BYTES * self.0.len()
    }

    /// The pairs as a section's bytes, with room for the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut section = vec![0; SECTION_HEADER_BYTES];
        for (segment, bytes) in &self.0 {
            section.extend_from_slice(&segment.to_le_bytes());
            section.extend_from_slice(&bytes.to_le_bytes());
        }
        section
    }

    /// The pairs in a verified section.
    pub(super) fn decode(section: Section<'_>) -> Result<Self, Malformed> {
        let (pairs, rest) = section.body().as_chunks::<PAIR_BYTES>();
        if pairs.len() != section.count as usize || !rest.is_empty() {
            return Err(Malformed("the list of segments has a wrong length"));
        }
        let mut pointed = BTreeMap::new();
        for pair in pairs {
            let (segment, bytes) = pair.split_at(4);
            let segment = u32::from_le_bytes(segment.try_into().expect("four bytes"));
            let bytes = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            if pointed.last_key_value().is_some_and(|(&last, _)| last >= segment) {
                return Err(Malformed("the list of segments is out of order"));
            }
            pointed.insert(segment, bytes);
        }
        Ok(Self(pointed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::table::format::{TableIdentity, seal};

    #[test]
    fn shares_round_trip_and_wrong_lists_are_refused() {
        let mut pointed = Pointed::default();
        for (segment, bytes) in [(7, 100), (3, u32::MAX), (7, 50), (9, 1)] {
            pointed.add(segment, bytes);
        }
        let mut bytes = pointed.encode();
        assert_eq!(bytes.len(), pointed.section_bytes());
        seal(TableIdentity { store: 1, table: 2 }, 0, &mut bytes, pointed.len() as u32, 0);
        let section = Section::trusted(&bytes).expect("a header");
        assert_eq!(Pointed::decode(section), Ok(pointed.clone()));
        assert_eq!(pointed.total(), 151 + u64::from(u32::MAX));
        for count in [0, 2, 4, u32::MAX] {
            assert!(Pointed::decode(Section { count, ..section }).is_err());
        }
        bytes.copy_within(SECTION_HEADER_BYTES + PAIR_BYTES.., SECTION_HEADER_BYTES);
        assert!(Pointed::decode(Section::trusted(&bytes).expect("a header")).is_err());
        assert!(pointed.take(7, 150) && !pointed.take(7, 1) && !pointed.take(8, 1));
    }
}
