//! Which parts of the arena are in memory, in units that can be given back one by one.

use std::ops::Range;

use larder_runtime::memory::{HUGE_PAGE_BYTES, MAPPED_BYTES_MIN, PAGE_BYTES};

/// An arena has at least so many units, as far as pages allow: what is rounded to units is little
/// of it.
const UNITS_MIN: usize = 64;

/// A queue ends with a huge page where an arena has so many of them at least: little of it is lost
/// to that, and what is not in memory yet may come in huge pages. A shorter arena's ends with a
/// unit.
pub(super) const HUGE_PAGES_MIN: usize = 32;

/// The units of an arena. A unit is in memory from the first write to it until it is given back.
pub(super) struct Pages {
    len: usize,
    unit_bytes: usize,
    /// What the first write to a place brings into memory: at first a huge page.
    fault_bytes: usize,
    in_memory: Vec<bool>,
    resident_bytes: usize,
}

impl Pages {
    /// The units of an arena of `len` bytes, none of which is in memory.
    pub(super) fn new(len: usize) -> Self {
        let unit_bytes = if len < MAPPED_BYTES_MIN {
            // Nothing of it is ever given back.
            len.max(1)
        } else {
            unit_bytes_of(len)
        };
        let fault_bytes = if len < HUGE_PAGE_BYTES { unit_bytes } else { HUGE_PAGE_BYTES };
        let in_memory = vec![false; len.div_ceil(unit_bytes)];
        Self { len, unit_bytes, fault_bytes, in_memory, resident_bytes: 0 }
    }

    /// With what the queues of an arena of `len` bytes end when nothing is in memory yet, in bytes;
    /// `None` if nothing of it is ever given back.
    pub(super) fn whole_bytes(len: usize) -> Option<usize> {
        if len / HUGE_PAGE_BYTES >= HUGE_PAGES_MIN {
            return Some(HUGE_PAGE_BYTES);
        }
        (len >= MAPPED_BYTES_MIN).then(|| unit_bytes_of(len))
    }

    /// The length of a unit in bytes; the last may be shorter.
    pub(super) fn unit_bytes(&self) -> usize {
        self.unit_bytes
    }

    /// What the first write to a place brings into memory, in bytes: a unit, or a huge page.
    pub(super) fn fault_bytes(&self) -> usize {
        self.fault_bytes
    }

    /// How many bytes are in memory.
    pub(super) fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Notes that these bytes were written to.
    #[inline]
    pub(super) fn note_write(&mut self, bytes: Range<usize>) {
        if !self.are_in_memory(bytes.clone()) {
            self.bring(bytes);
        }
    }

    /// Whether all units that these bytes touch are in memory.
    #[inline]
    pub(super) fn are_in_memory(&self, bytes: Range<usize>) -> bool {
        let units = bytes.start / self.unit_bytes..bytes.end.div_ceil(self.unit_bytes);
        self.in_memory[units].iter().all(|is_in_memory| *is_in_memory)
    }

    #[cold]
    fn bring(&mut self, bytes: Range<usize>) {
        let start = bytes.start / self.fault_bytes * self.fault_bytes;
        let end = bytes.end.next_multiple_of(self.fault_bytes).min(self.len);
        for unit in start / self.unit_bytes..end.div_ceil(self.unit_bytes) {
            if !std::mem::replace(&mut self.in_memory[unit], true) {
                self.resident_bytes += self.bytes_of(unit).len();
            }
        }
    }

    /// The first unit that lies in `bytes` as a whole and is in memory.
    pub(super) fn first_within(&self, bytes: Range<usize>) -> Option<Range<usize>> {
        let first = bytes.start.div_ceil(self.unit_bytes);
        let end =
            if bytes.end == self.len { self.in_memory.len() } else { bytes.end / self.unit_bytes };
        let units = self.in_memory.get(first..end)?;
        let at = units.iter().position(|is_in_memory| *is_in_memory)?;
        Some(self.bytes_of(first + at))
    }

    /// Notes that this unit was given back.
    pub(super) fn note_release(&mut self, unit: &Range<usize>) {
        let was_in_memory =
            std::mem::replace(&mut self.in_memory[unit.start / self.unit_bytes], false);
        assert!(was_in_memory, "a unit is given back once");
        self.resident_bytes -= unit.len();
    }

    /// From now on a write brings no more than a unit. Says whether it brought more before.
    pub(super) fn end_huge_pages(&mut self) -> bool {
        std::mem::replace(&mut self.fault_bytes, self.unit_bytes) > self.unit_bytes
    }

    fn bytes_of(&self, unit: usize) -> Range<usize> {
        let start = unit * self.unit_bytes;
        start..(start + self.unit_bytes).min(self.len)
    }
}

/// The length of the units of an arena of `len` bytes that can be given back.
fn unit_bytes_of(len: usize) -> usize {
    let unit_bytes = 1 << (len / UNITS_MIN).max(1).ilog2();
    usize::clamp(unit_bytes, PAGE_BYTES, HUGE_PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_small_parts_of_the_arena_and_at_most_huge_pages() {
        for (len, unit_bytes) in [
            (0, 1),
            (1000, 1000),
            (MAPPED_BYTES_MIN, PAGE_BYTES),
            (1 << 20, 16 << 10),
            ((1 << 20) + 8, 16 << 10),
            (100 << 20, 1 << 20),
            (10 << 30, HUGE_PAGE_BYTES),
        ] {
            assert_eq!(Pages::new(len).unit_bytes(), unit_bytes, "{len}");
        }
    }

    #[test]
    fn the_first_write_brings_a_unit_and_giving_it_back_takes_it_away() {
        let mut pages = Pages::new((1 << 20) + 8);
        let unit = 16 << 10;
        pages.note_write(unit - 1..unit + 1);
        pages.note_write(5..unit);
        assert_eq!(pages.resident_bytes(), 2 * unit);
        pages.note_write(1 << 20..(1 << 20) + 8);
        assert_eq!(pages.resident_bytes(), 2 * unit + 8);
        assert_eq!(pages.first_within(1..2 * unit), Some(unit..2 * unit), "the other is not whole");
        assert_eq!(pages.first_within(1..2 * unit - 1), None);
        let last = pages.first_within(2 * unit..(1 << 20) + 8).expect("the last is shorter");
        assert_eq!(last, 1 << 20..(1 << 20) + 8);
        pages.note_release(&last);
        assert_eq!(pages.resident_bytes(), 2 * unit);
        assert_eq!(pages.first_within(2 * unit..(1 << 20) + 8), None);
        pages.note_write(last);
        assert_eq!(pages.resident_bytes(), 2 * unit + 8);
    }

    #[test]
    fn a_huge_page_comes_as_a_whole_until_it_may_not() {
        let len = 8 * HUGE_PAGE_BYTES;
        let mut pages = Pages::new(len);
        let unit = pages.unit_bytes();
        assert!(unit < HUGE_PAGE_BYTES);
        pages.note_write(HUGE_PAGE_BYTES..HUGE_PAGE_BYTES + 1);
        assert_eq!(pages.resident_bytes(), HUGE_PAGE_BYTES);
        let first = pages.first_within(0..len).expect("in memory");
        assert_eq!(first, HUGE_PAGE_BYTES..HUGE_PAGE_BYTES + unit);
        pages.note_release(&first);
        assert!(pages.end_huge_pages() && !pages.end_huge_pages());
        pages.note_write(3 * HUGE_PAGE_BYTES..3 * HUGE_PAGE_BYTES + 1);
        assert_eq!(pages.resident_bytes(), HUGE_PAGE_BYTES);
    }
}
