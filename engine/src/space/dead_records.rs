//! Records of the log that are known to be dead, which the collector passes without a look-up.
//! Pure.
//!
//! Who changes an item often knows where the replaced value was. That record is dead for good: once
//! a value was replaced, no entry points to its record again. Nothing follows for a record that is
//! not marked. Marks are in memory only, and for the newest segments only: what is old and not dead
//! yet is likely to stay.

use std::collections::BTreeMap;

use crate::entry::Pointer;
use crate::value_log::record;

/// Every record is at least so long, in bytes: no two begin in the same granule.
const GRANULE_BYTES: u32 = 32;

const _: () = assert!(GRANULE_BYTES as usize <= record::HEAD_BYTES);

const WORD_BITS: u32 = u64::BITS;

/// The marks of some segments. Belongs to one shard.
pub struct DeadRecords {
    segment_bytes: u32,
    segments_max: usize,
    segments: BTreeMap<u32, Marks>,
}

/// The marks of a segment.
struct Marks {
    /// A bit for each granule: whether a dead record begins there.
    granules: Box<[u64]>,
    /// Bytes of the records that are marked.
    bytes: u64,
}

impl Marks {
    fn new(segment_bytes: u32) -> Self {
        let granules = segment_bytes.div_ceil(GRANULE_BYTES);
        let words = granules.div_ceil(WORD_BITS) as usize;
        Self { granules: vec![0; words].into_boxed_slice(), bytes: 0 }
    }
}

/// The word and the bit of a record that begins at `offset`.
fn place_of(offset: u32) -> (usize, u64) {
    let granule = offset / GRANULE_BYTES;
    ((granule / WORD_BITS) as usize, 1 << (granule % WORD_BITS))
}

impl DeadRecords {
    /// No marks yet; those that come take at most `memory_bytes`. Of a segment that is longer than
    /// `segment_bytes`, the standard, the rest takes no marks.
    pub fn new(segment_bytes: u32, memory_bytes: usize) -> Self {
        let segments_max = memory_bytes / Self::bytes_of_marks(segment_bytes).max(1);
        Self { segment_bytes, segments_max, segments: BTreeMap::new() }
    }

    /// Marks the record at `pointer`, whose item has another value by now, or none.
    pub fn mark(&mut self, pointer: Pointer) {
        if pointer.offset >= self.segment_bytes || !self.has_room_for(pointer.segment) {
            return;
        }
        let segment_bytes = self.segment_bytes;
        let marks =
            self.segments.entry(pointer.segment).or_insert_with(|| Marks::new(segment_bytes));
        let (word, bit) = place_of(pointer.offset);
        if let Some(word) = marks.granules.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            marks.bytes += u64::from(pointer.len);
        }
    }

    /// Whether the record at `pointer` is marked.
    pub fn has(&self, pointer: Pointer) -> bool {
        let Some(marks) = self.segments.get(&pointer.segment) else { return false };
        let (word, bit) = place_of(pointer.offset);
        marks.granules.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Bytes of the records of a segment that are marked.
    pub fn bytes_in(&self, segment: u32) -> u64 {
        self.segments.get(&segment).map_or(0, |marks| marks.bytes)
    }

    /// Forgets the marks of a segment that is gone.
    pub fn forget(&mut self, segment: u32) {
        self.segments.remove(&segment);
    }

    /// Bytes of memory that the marks take.
    pub fn memory_bytes(&self) -> usize {
        self.segments.len() * Self::bytes_of_marks(self.segment_bytes)
    }

    fn bytes_of_marks(segment_bytes: u32) -> usize {
        (segment_bytes.div_ceil(GRANULE_BYTES).div_ceil(WORD_BITS) as usize) * size_of::<u64>()
    }

    /// Whether marks of `segment` are kept, those of the oldest making room for those of a newer.
    fn has_room_for(&mut self, segment: u32) -> bool {
        if self.segments.len() < self.segments_max || self.segments.contains_key(&segment) {
            return true;
        }
        match self.segments.first_key_value() {
            Some((&oldest, _)) if oldest < segment => self.segments.remove(&oldest).is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use larder_runtime::random::Random;

    use super::*;

    fn pointer(segment: u32, offset: u32) -> Pointer {
        Pointer { segment, offset, len: 100 }
    }

    #[test]
    fn what_is_marked_is_dead_and_nothing_else() {
        let mut random = Random::new(7);
        let mut dead = DeadRecords::new(64 << 10, 1 << 20);
        let mut marked = BTreeSet::new();
        // Records of the least length, back to back.
        let offset = |number: u64| 4096 + number as u32 * record::HEAD_BYTES as u32;
        for _ in 0..3000 {
            let (segment, at) = (random.below(5) as u32, random.below(1000));
            dead.mark(pointer(segment, offset(at)));
            marked.insert((segment, at));
        }
        for segment in 0..6 {
            for at in 0..1000 {
                let is_marked = marked.contains(&(segment, at));
                assert_eq!(dead.has(pointer(segment, offset(at))), is_marked, "{segment}, {at}");
            }
            let count = marked.iter().filter(|(of, _)| *of == segment).count();
            assert_eq!(dead.bytes_in(segment), count as u64 * 100, "each counts once");
        }
        dead.forget(3);
        assert!((0..1000).all(|at| !dead.has(pointer(3, offset(at)))));
        assert_eq!((dead.bytes_in(3), dead.memory_bytes()), (0, 4 * 256));
    }

    #[test]
    fn marks_are_for_the_newest_segments_that_fit_into_the_memory() {
        let mut dead = DeadRecords::new(64 << 10, 3 * 256 + 100);
        for segment in [5, 9, 7, 3, 8, 9] {
            dead.mark(pointer(segment, 4096));
            assert!(dead.memory_bytes() <= 3 * 256);
        }
        let kept = |segment: u32| dead.has(pointer(segment, 4096));
        assert_eq!([3, 5, 7, 8, 9].map(kept), [false, false, true, true, true]);
        let mut none = DeadRecords::new(64 << 10, 255);
        none.mark(pointer(1, 4096));
        assert_eq!((none.has(pointer(1, 4096)), none.memory_bytes()), (false, 0));
    }

    #[test]
    fn a_long_segment_takes_marks_in_its_first_part_only() {
        let mut dead = DeadRecords::new(64 << 10, 1 << 20);
        for offset in [(64 << 10) - 32, 64 << 10, u32::MAX] {
            dead.mark(pointer(1, offset));
        }
        assert_eq!(dead.bytes_in(1), 100);
        assert!(!dead.has(pointer(1, u32::MAX)));
    }
}
