//! Ranges of keys that were deleted, each by one log record.
//!
//! A range tombstone hides every entry in its range that is older. How old an entry is says its log
//! sequence while it is in a memtable. A table says up to which sequence tombstones were applied
//! to it ([`TableMeta::deleted_until`]): it has no entry that one of those hides, and all that a
//! later one covers is hidden.
//!
//! [`TableMeta::deleted_until`]: crate::index::table::TableMeta::deleted_until

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::ENCODED_BYTES_MAX;

/// What a tombstone takes in memory besides its keys, roughly, in bytes.
const OVERHEAD_BYTES: usize = 96;

/// Bytes at the end of a log record's key that say where the first of its two keys ends.
const LENGTH_BYTES: usize = 2;

/// The longest key of a log record that deletes a range, in bytes.
pub const RANGE_KEY_BYTES_MAX: usize = 2 * ENCODED_BYTES_MAX + LENGTH_BYTES;

/// A deleted range of encoded keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeTombstone {
    /// The first key that is deleted.
    pub start: Vec<u8>,
    /// The key that all deleted ones are below.
    pub end: Vec<u8>,
    /// The deletion's place in the log's order.
    pub sequence: u64,
}

impl RangeTombstone {
    /// The range as the key of a log record. Both bounds stand there, because the head's checksum
    /// covers the key: half a range would be of no use.
    pub fn encode_key(start: &[u8], end: &[u8]) -> Vec<u8> {
        let len = u16::try_from(start.len()).expect("encoded keys are short");
        [start, end, &len.to_le_bytes()].concat()
    }

    /// The bounds that a log record's key holds; `None` if they are none.
    pub fn decode_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
        let (bounds, len) = key.split_last_chunk::<LENGTH_BYTES>()?;
        let (start, end) = bounds.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let is_key = |bound: &[u8]| (4..=ENCODED_BYTES_MAX).contains(&bound.len());
        (is_key(start) && is_key(end) && start < end).then_some((start, end))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    end: Vec<u8>,
    sequence: u64,
}

/// Deleted ranges. Where several cover a key, the newest is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeTombstones {
    /// By their starts, without overlap.
    fragments: BTreeMap<Vec<u8>, Fragment>,
    bytes: usize,
}

impl RangeTombstones {
    /// Adds a range, which is newer than what it overlaps.
    pub fn add(&mut self, RangeTombstone { start, end, sequence }: RangeTombstone) {
        assert!(start < end, "a range that ends before it starts");
        self.take_out(&start, &end);
        self.insert(start, Fragment { end, sequence });
    }

    /// The sequence of the newest range that has `key` in it.
    #[inline]
    pub fn newest(&self, key: &[u8]) -> Option<u64> {
        if self.fragments.is_empty() {
            return None;
        }
        let (_, fragment) = self.holding(key)?;
        Some(fragment.sequence)
    }

    /// Whether all keys from `first` to `last` are deleted by ranges with sequences of `from` and
    /// more.
    pub fn cover(&self, first: &[u8], last: &[u8], from: u64) -> bool {
        let mut at = first;
        loop {
            match self.holding(at) {
                Some((_, fragment)) if fragment.sequence >= from => {
                    if fragment.end.as_slice() > last {
                        return true;
                    }
                    at = &fragment.end;
                }
                _ => return false,
            }
        }
    }

    /// Takes out the parts between `start` and `end` whose sequences are at most `sequence`: they
    /// hide nothing any more.
    pub fn forget(&mut self, RangeTombstone { start, end, sequence }: &RangeTombstone) {
        // What is newer stays as it is: cut into parts, it would never become one again.
        let first = self.holding(start).map(|(first, _)| first.clone());
        let from = first.unwrap_or_else(|| start.clone());
        let within = self
            .fragments
            .range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Excluded(end.as_slice())));
        let is_old = |(_, fragment): &(&Vec<u8>, &Fragment)| fragment.sequence <= *sequence;
        let old: Vec<Vec<u8>> = within.filter(is_old).map(|(start, _)| start.clone()).collect();
        for at in old {
            let Fragment { end: behind, sequence } = self.remove(&at);
            if at < *start {
                self.insert(at, Fragment { end: start.clone(), sequence });
            }
            if behind > *end {
                self.insert(end.clone(), Fragment { end: behind, sequence });
            }
        }
    }

    /// The ranges in order. None overlaps another.
    pub fn iter(&self) -> impl Iterator<Item = RangeTombstone> {
        self.fragments.iter().map(|(start, Fragment { end, sequence })| RangeTombstone {
            start: start.clone(),
            end: end.clone(),
            sequence: *sequence,
        })
    }

    /// One above the newest sequence; 0 if there is no range.
    pub fn sequence_end(&self) -> u64 {
        self.fragments.values().map(|fragment| fragment.sequence + 1).max().unwrap_or(0)
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// How many there are, where none overlaps another.
    pub fn len(&self) -> usize {
        self.fragments.len()
    }

    /// What they take in memory, roughly, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn holding(&self, key: &[u8]) -> Option<(&Vec<u8>, &Fragment)> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let before = self.fragments.range::<[u8], _>(up_to).next_back();
        before.filter(|(_, fragment)| fragment.end.as_slice() > key)
    }

    fn insert(&mut self, start: Vec<u8>, fragment: Fragment) {
        self.bytes += cost(&start, &fragment);
        self.fragments.insert(start, fragment);
    }

    fn remove(&mut self, start: &[u8]) -> Fragment {
        let fragment = self.fragments.remove(start).expect("it was seen just now");
        self.bytes -= cost(start, &fragment);
        fragment
    }

    /// Takes the parts between `start` and `end` out.
    fn take_out(&mut self, start: &[u8], end: &[u8]) {
        self.cut_at(start);
        self.cut_at(end);
        let within =
            self.fragments.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
        let starts: Vec<Vec<u8>> = within.map(|(start, _)| start.clone()).collect();
        for start in starts {
            self.remove(&start);
        }
    }

    /// Makes a range that has `key` inside two that meet there.
    fn cut_at(&mut self, key: &[u8]) {
        let Some((start, _)) = self.holding(key) else { return };
        if start == key {
            return;
        }
        let start = start.clone();
        let whole = self.remove(&start);
        let sequence = whole.sequence;
        self.insert(start, Fragment { end: key.to_vec(), sequence });
        self.insert(key.to_vec(), whole);
    }
}

fn cost(start: &[u8], fragment: &Fragment) -> usize {
    OVERHEAD_BYTES + start.len() + fragment.end.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u8, end: u8, sequence: u64) -> RangeTombstone {
        RangeTombstone { start: vec![start], end: vec![end], sequence }
    }

    fn step() -> impl Strategy<Value = (bool, u8, u8, u64)> {
        (any::<bool>(), 0u8..30, 1u8..30, 0u64..40)
            .prop_map(|(adds, start, len, back)| (adds, start, start + len, back))
    }

    #[test]
    fn a_newer_range_stays_whole_while_those_below_it_are_forgotten() {
        let mut ranges = RangeTombstones::default();
        (0..100).for_each(|at| ranges.add(range(at, at + 1, u64::from(at))));
        let older: Vec<_> = ranges.iter().collect();
        ranges.add(range(0, 200, 500));
        older.iter().for_each(|range| ranges.forget(range));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [range(0, 200, 500)]);
    }

    proptest! {
        #[test]
        fn every_key_knows_its_newest_range(steps in proptest::collection::vec(step(), 0..40)) {
            let mut ranges = RangeTombstones::default();
            let mut model = [None; 70];
            for (at, (adds, start, end, back)) in steps.into_iter().enumerate() {
                let sequence = at as u64;
                let keys = usize::from(start)..usize::from(end);
                if adds {
                    ranges.add(range(start, end, sequence));
                    model[keys].fill(Some(sequence));
                } else {
                    let sequence = sequence.saturating_sub(back);
                    ranges.forget(&range(start, end, sequence));
                    for known in &mut model[keys] {
                        *known = known.filter(|known| *known > sequence);
                    }
                }
                for (key, known) in model.iter().enumerate() {
                    prop_assert_eq!(ranges.newest(&[key as u8]), *known);
                }
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
                prop_assert_eq!(all.len(), ranges.len());
                let costs = all.iter().map(|one| OVERHEAD_BYTES + one.start.len() + one.end.len());
                prop_assert_eq!(costs.sum::<usize>(), ranges.bytes());
                let end = model.iter().flatten().max().map_or(0, |newest| newest + 1);
                prop_assert_eq!(ranges.sequence_end(), end);
                for (first, last, from) in [(0, 5, 0), (3, 20, 2), (10, 12, 5)] {
                    let covered = model[first..=last].iter().all(|known| known >= &Some(from));
                    let answer = ranges.cover(&[first as u8], &[last as u8], from);
                    prop_assert_eq!(answer, covered);
                }
            }
        }

        #[test]
        fn bounds_round_trip_in_a_key_and_other_bytes_are_refused(
            start in proptest::collection::vec(any::<u8>(), 4..20),
            end in proptest::collection::vec(any::<u8>(), 4..20),
            noise in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let key = RangeTombstone::encode_key(&start, &end);
            prop_assert!(key.len() <= RANGE_KEY_BYTES_MAX);
            let decoded = RangeTombstone::decode_key(&key);
            let expected = (start < end).then_some((start.as_slice(), end.as_slice()));
            prop_assert_eq!(decoded, expected);
            if let Some((start, end)) = RangeTombstone::decode_key(&noise) {
                prop_assert!(start < end);
            }
        }
    }
}
