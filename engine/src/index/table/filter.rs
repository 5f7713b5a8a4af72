//! The Bloom filter: says of most absent keys that they are absent, without a read.
//!
//! All bits of a key lie in one line of 64 bytes, so that a probe costs one cache miss. The upper
//! half of the key's hash chooses the line; the lower half is multiplied by an odd constant before
//! each further probe, and its top nine bits choose the bit.

use super::error::Malformed;
use super::format::{SECTION_HEADER_BYTES, Section};

const LINE_BYTES: usize = 64;
const LINE_BITS: u64 = 8 * LINE_BYTES as u64;
/// Shifting a 32-bit number by this leaves the number of a bit in a line.
const BIT_SHIFT: u32 = u32::BITS - LINE_BITS.ilog2();
/// 2^32 divided by the golden ratio, made odd.
const SPREAD: u32 = 0x9E37_79B9;
const PROBES_MAX: u32 = 16;
/// ln 2 in thousandths: this many probes per bit and key make the fewest false positives.
const PROBES_PER_THOUSAND_BITS: u32 = 693;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; LINE_BYTES]);

/// A filter in memory.
pub(super) struct Filter {
    lines: Box<[Line]>,
    probes: u32,
}

impl Filter {
    /// An empty filter with room for `keys` keys.
    pub(super) fn for_keys(keys: usize, bits_per_key: u32) -> Self {
        let bits = keys as u64 * u64::from(bits_per_key);
        let lines = bits.div_ceil(LINE_BITS).max(1);
        let lines = u32::try_from(lines).expect("a table has fewer than 2^32 filter lines");
        let probes = (bits_per_key * PROBES_PER_THOUSAND_BITS / 1000).clamp(1, PROBES_MAX);
        Self { lines: vec![Line([0; LINE_BYTES]); lines as usize].into_boxed_slice(), probes }
    }

    /// Makes the filter contain keys with these hashes.
    pub(super) fn insert_all(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            self.insert(hash);
        }
    }

    /// The filter as a section's bytes, with room for the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut section = vec![0; SECTION_HEADER_BYTES];
        section.reserve(self.lines.len() * LINE_BYTES);
        for line in &self.lines {
            section.extend_from_slice(&line.0);
        }
        section
    }

    /// The two numbers of the filter's section header: lines and probes.
    pub(super) fn header(&self) -> (u32, u32) {
        (self.lines.len() as u32, self.probes)
    }

    /// The filter in a verified section.
    pub(super) fn decode(section: Section<'_>) -> Result<Self, Malformed> {
        let body = section.body();
        let lines = section.count as usize;
        if lines == 0 || lines.checked_mul(LINE_BYTES) != Some(body.len()) {
            return Err(Malformed("the filter's length is wrong"));
        }
        if !(1..=PROBES_MAX).contains(&section.detail) {
            return Err(Malformed("the filter's number of probes is wrong"));
        }
        let (lines, _none) = body.as_chunks::<LINE_BYTES>();
        Ok(Self { lines: lines.iter().map(|&line| Line(line)).collect(), probes: section.detail })
    }

    /// Whether the key with this hash may be in the table; never false for one that is.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[self.line_of(hash)].0;
        bits_of(hash, self.probes).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn insert(&mut self, hash: u64) {
        let line = &mut self.lines[self.line_of(hash)].0;
        for bit in bits_of(hash, self.probes) {
            line[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Maps the hash's upper half evenly onto the lines.
    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }
}

/// The bits of a key within its line.
#[inline]
fn bits_of(hash: u64, probes: u32) -> impl Iterator<Item = usize> {
    let mut state = hash as u32;
    (0..probes).map(move |_| {
        let bit = state >> BIT_SHIFT;
        state = state.wrapping_mul(SPREAD);
        bit as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::table::format::{TableIdentity, seal};
    use crate::index::table::key_hash;

    #[test]
    fn false_positives_stay_below_one_percent() {
        for keys in [1000u32, 20_000, 200_000] {
            let hash = |number: u32| key_hash(format!("user:{number:010}").as_bytes());
            let hashes: Vec<u64> = (0..keys).map(hash).collect();
            let mut filter = Filter::for_keys(hashes.len(), 12);
            filter.insert_all(&hashes);
            assert!(hashes.iter().all(|&hash| filter.may_contain(hash)));
            let false_positives =
                (keys..keys + 100_000).filter(|&key| filter.may_contain(hash(key))).count();
            assert!(false_positives < 1000, "{false_positives} in 100,000 with {keys} keys");
            assert!(false_positives > 0, "the filter says no to everything");
        }
    }

    #[test]
    fn filters_round_trip_and_wrong_lengths_are_refused() {
        let hashes = [1 << 63, u64::MAX, 0x1234_5678_9ABC_DEF0];
        let mut filter = Filter::for_keys(hashes.len(), 300 / 3);
        filter.insert_all(&hashes);
        let (lines, probes) = filter.header();
        let identity = TableIdentity { store: 1, table: 2 };
        let mut bytes = filter.encode();
        seal(identity, 0, &mut bytes, lines, probes);
        let section = Section::trusted(&bytes).expect("a header");
        let again = Filter::decode(section).expect("decodes");
        assert!(hashes.iter().all(|&hash| again.may_contain(hash)));
        assert!(!again.may_contain(0x5555_5555_5555_5555));
        for (count, detail) in [(0, 8), (lines + 1, 8), (u32::MAX, 8), (lines, 0), (lines, 17)] {
            assert!(Filter::decode(Section { count, detail, ..section }).is_err());
        }
    }
}
