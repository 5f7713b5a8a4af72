//! Which records the newest segments hold, so that the collector finds those that live without
//! reading the segment. Pure.
//!
//! Each record that an entry came to point to is listed, in the order in which they were written.
//! A segment's list is whole or there is none: who finds a list has all records of the segment that
//! an entry may point to. Lists are in memory only. Where the memory is used up, the list of the
//! oldest segment goes: the fewest of its records live, but the most of the memory is idle there.

use std::collections::BTreeMap;

use crate::canary::{self, Defect};
use crate::entry::Pointer;

/// So many records are allocated at a time.
const PART_RECORDS: usize = 4096;

/// A record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedRecord {
    /// Where it begins, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
    /// The hash of its key.
    pub hash: u64,
}

const PART_BYTES: usize = PART_RECORDS * size_of::<ListedRecord>();

/// The lists of some segments. Belongs to one shard.
pub struct ListedRecords {
    parts_max: usize,
    parts: usize,
    /// Segments from this number on are listed from their beginning.
    whole_from: u32,
    segments: BTreeMap<u32, Vec<Vec<ListedRecord>>>,
}

/// Some of a segment's records.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// The records that were asked for.
    pub records: Vec<ListedRecord>,
    /// Where in the list to go on.
    pub next: usize,
    /// Where the last record that was looked at ends in the segment, in bytes; `None` at the end of
    /// the list.
    pub end: Option<u32>,
}

impl ListedRecords {
    /// No lists yet; those that come are for segments from the number `first` on, and take at most
    /// `memory_bytes`.
    pub fn new(first: u32, memory_bytes: usize) -> Self {
        let parts_max = memory_bytes / PART_BYTES;
        Self { parts_max, parts: 0, whole_from: first, segments: BTreeMap::new() }
    }

    /// Lists the record at `pointer`, which the newest entry of a key with this hash points to.
    pub fn add(&mut self, pointer: Pointer, hash: u64) {
        if pointer.segment < self.whole_from
            || (canary::has(Defect::ListSomeRecords) && hash.is_multiple_of(8))
        {
            return;
        }
        let record = ListedRecord { offset: pointer.offset, len: pointer.len, hash };
        let parts = self.segments.entry(pointer.segment).or_default();
        match parts.last_mut() {
            Some(part) if part.len() < PART_RECORDS => part.push(record),
            _ => {
                let mut part = Vec::with_capacity(PART_RECORDS);
                part.push(record);
                parts.push(part);
                self.parts += 1;
                self.keep_bound();
            }
        }
    }

    /// Of the segment's records from the `from`-th of its list on, those that `is_wanted` says, at
    /// most `wanted_max` of them, after looking at no more than `seen_max`. `None` if there is no
    /// list.
    pub fn part(
        &self,
        segment: u32,
        from: usize,
        (wanted_max, seen_max): (usize, usize),
        is_wanted: impl Fn(&ListedRecord) -> bool,
    ) -> Option<ListedPart> {
        let parts = self.segments.get(&segment)?;
        let mut found = ListedPart { records: Vec::new(), next: from, end: None };
        let first = parts.get(from / PART_RECORDS).map_or(&[][..], Vec::as_slice);
        let rest = parts.iter().skip(from / PART_RECORDS + 1).flatten();
        let records = first.iter().skip(from % PART_RECORDS).chain(rest);
        for record in records {
            if found.records.len() == wanted_max || found.next - from == seen_max {
                return Some(found);
            }
            found.next += 1;
            found.end = Some(record.offset.saturating_add(record.len));
            if is_wanted(record) {
                found.records.push(*record);
            }
        }
        found.end = None;
        Some(found)
    }

    /// Forgets the list of a segment that is gone.
    pub fn forget(&mut self, segment: u32) {
        self.parts -= self.segments.remove(&segment).map_or(0, |parts| parts.len());
    }

    /// Bytes of memory that the lists take.
    pub fn memory_bytes(&self) -> usize {
        self.parts * PART_BYTES
    }

    fn keep_bound(&mut self) {
        while self.parts > self.parts_max
            && let Some((oldest, parts)) = self.segments.pop_first()
        {
            self.parts -= parts.len();
            // What is written to it later must not look like all that it holds.
            self.whole_from = self.whole_from.max(oldest + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(segment: u32, number: u32) -> Pointer {
        Pointer { segment, offset: 4096 + number * 100, len: 100 }
    }

    fn listed(records: &ListedRecords, segment: u32) -> Option<Vec<u64>> {
        let mut hashes = Vec::new();
        let mut from = 0;
        loop {
            let part = records.part(segment, from, (7, 100), |_| true)?;
            assert!(part.records.len() <= 7);
            hashes.extend(part.records.iter().map(|record| record.hash));
            from = part.next;
            if part.end.is_none() {
                return Some(hashes);
            }
        }
    }

    #[test]
    fn a_list_has_every_record_in_order() {
        let mut records = ListedRecords::new(5, 1 << 20);
        for number in 0..10_000 {
            records.add(pointer(5 + number % 2, number), u64::from(number));
            records.add(pointer(4, number), 0);
        }
        let of = |remainder: u64| (0..10_000).filter(|hash| hash % 2 == remainder).collect();
        assert_eq!(listed(&records, 5), Some(of(0)));
        assert_eq!(listed(&records, 6), Some(of(1)));
        assert_eq!(listed(&records, 4), None, "it may have had records before");
        assert_eq!(records.memory_bytes(), 4 * PART_BYTES);
        records.forget(5);
        records.forget(5);
        assert_eq!((listed(&records, 5), records.memory_bytes()), (None, 2 * PART_BYTES));
    }

    #[test]
    fn a_part_says_how_far_it_has_come() {
        let mut records = ListedRecords::new(0, 1 << 20);
        (0..10).for_each(|number| records.add(pointer(1, number), u64::from(number)));
        let third = |record: &ListedRecord| record.hash.is_multiple_of(3);
        let part = |from, most| {
            let part = records.part(1, from, most, third).expect("a list");
            (part.records.iter().map(|record| record.hash).collect::<Vec<_>>(), part.next, part.end)
        };
        assert_eq!(part(0, (2, 100)), (vec![0, 3], 4, Some(4096 + 400)));
        assert_eq!(part(4, (2, 2)), (vec![], 6, Some(4096 + 600)));
        assert_eq!(part(6, (100, 100)), (vec![6, 9], 10, None));
        assert_eq!(part(10, (100, 100)), (vec![], 10, None));
    }

    #[test]
    fn where_memory_ends_the_oldest_list_goes_for_good() {
        let mut records = ListedRecords::new(0, 3 * PART_BYTES + 100);
        for segment in [2, 7, 5] {
            records.add(pointer(segment, 0), 1);
        }
        records.add(pointer(9, 0), 1);
        assert_eq!((listed(&records, 2), records.memory_bytes()), (None, 3 * PART_BYTES));
        records.forget(7);
        records.add(pointer(2, 1), 1);
        assert_eq!(listed(&records, 2), None, "its first record is not listed");
        for number in 1..=3 * PART_RECORDS as u32 {
            records.add(pointer(9, number), 1);
        }
        assert_eq!([5, 9].map(|segment| listed(&records, segment)), [None, None]);
        assert_eq!(records.memory_bytes(), 0);
        let mut none = ListedRecords::new(0, PART_BYTES - 1);
        none.add(pointer(1, 1), 1);
        assert_eq!((listed(&none, 1), none.memory_bytes()), (None, 0));
    }
}
