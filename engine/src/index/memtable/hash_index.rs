//! Finds a key's slot by the key's hash.
//!
//! Slots are spread over small hash tables, the parts, by the first bits of their fingerprints; a
//! directory of all values of these bits names the parts (extendible hashing). A part that is full
//! is split in two, so that growing never touches more than one part.
//!
//! The hash is no secret: whoever writes keys can choose any number of them with one hash, or with
//! hashes that a table would try in the same places. What is not taken into account here is bounded
//! by two rules. A part takes at most [`PART_MAX`] slots and [`SAME_MAX`] with one fingerprint, so
//! that a look-up reads no more than that; and the directory grows with the number of slots only. A
//! slot that finds no place under these rules is left out, its part remembers that there are such,
//! and look-ups that end in that part without success ask the sorted order.

use hashbrown::HashTable;

/// Slots of a part: what a table of 1,024 buckets takes.
const PART_MAX: usize = 896;

/// Slots with one fingerprint. With hashes that nobody has chosen two are a rarity.
const SAME_MAX: usize = 8;

/// The directory may be so many times as long as parts that are all full would need. Parts whose
/// hashes nobody has chosen are half full at least.
const DIRECTORY_SLACK: usize = 8;

/// The most bits of a fingerprint that the directory looks at; the parts' tables use the 17 others.
const DEPTH_MAX: u32 = 15;

/// What a slot takes here: eight bytes and one of control, in tables that are between 7/16 and 7/8
/// full.
pub(super) const BYTES: usize = (size_of::<Candidate>() + 1) * 8 / 5;

/// A slot that may be the wanted one.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    fingerprint: u32,
    slot: u32,
}

/// The slots whose fingerprints begin with the same `depth` bits.
#[derive(Debug, Default)]
struct Part {
    depth: u32,
    /// Whether slots that belong here were left out.
    is_incomplete: bool,
    candidates: HashTable<Candidate>,
}

/// Slots by the hash of their keys.
#[derive(Debug, Default)]
pub(super) struct HashIndex {
    /// The number of the part for each value of the first `depth` bits of a fingerprint; empty as
    /// long as there is no part.
    directory: Vec<u32>,
    depth: u32,
    parts: Vec<Part>,
    len: usize,
}

impl HashIndex {
    /// The slot with this hash for which `is_it` holds. `in_order` looks for it among all slots: it
    /// is asked if the slot may have been left out.
    pub(super) fn find(
        &self,
        hash: u64,
        mut is_it: impl FnMut(u32) -> bool,
        in_order: impl FnOnce() -> Option<u32>,
    ) -> Option<u32> {
        let fingerprint = fingerprint(hash);
        let number = *self.directory.get(self.place(fingerprint))?;
        let part = &self.parts[number as usize];
        let is_wanted = |it: &Candidate| it.fingerprint == fingerprint && is_it(it.slot);
        match part.candidates.find(table_hash(fingerprint), is_wanted) {
            Some(candidate) => Some(candidate.slot),
            None if part.is_incomplete => in_order(),
            None => None,
        }
    }

    /// Adds a slot that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        self.len += 1;
        let fingerprint = fingerprint(hash);
        if self.directory.is_empty() {
            self.parts.push(Part::default());
            self.directory.push(0);
        }
        let mut number = self.directory[self.place(fingerprint)] as usize;
        if self.parts[number].candidates.len() == PART_MAX && self.split(number) {
            number = self.directory[self.place(fingerprint)] as usize;
        }
        self.parts[number].insert(Candidate { fingerprint, slot });
    }

    fn place(&self, fingerprint: u32) -> usize {
        first_bits(fingerprint, self.depth)
    }

    /// Moves the half of a part's slots to a new part by their next bit. False if that bit is
    /// beyond what the directory may look at.
    fn split(&mut self, number: usize) -> bool {
        let depth = self.parts[number].depth;
        if depth == self.depth && !self.lengthen_directory() {
            return false;
        }
        let old = std::mem::take(&mut self.parts[number]);
        let new_number = self.parts.len() as u32;
        let half = || Part {
            depth: depth + 1,
            is_incomplete: old.is_incomplete,
            candidates: HashTable::default(),
        };
        let mut halves = [half(), half()];
        let mut first = 0;
        for &candidate in &old.candidates {
            first = candidate.fingerprint;
            halves[first_bits(first, depth + 1) & 1].insert(candidate);
        }
        // The entries for one part lie side by side; the new one takes over their second half.
        let entries = 1 << (self.depth - depth);
        let begin = first_bits(first, depth) * entries;
        self.directory[begin + entries / 2..begin + entries].fill(new_number);
        let [lower, upper] = halves;
        self.parts[number] = lower;
        self.parts.push(upper);
        true
    }

    /// Makes the directory look at one more bit, if that is in proportion to the slots there are.
    fn lengthen_directory(&mut self) -> bool {
        let needed = self.len / PART_MAX;
        if self.depth == DEPTH_MAX || self.directory.len() > needed * DIRECTORY_SLACK {
            return false;
        }
        self.directory = self.directory.iter().flat_map(|&number| [number, number]).collect();
        self.depth += 1;
        true
    }

    /// Frees a part; false if there was none.
    pub(super) fn drop_some(&mut self) -> bool {
        self.parts.pop().is_some()
    }
}

impl Part {
    fn insert(&mut self, candidate: Candidate) {
        let hash = table_hash(candidate.fingerprint);
        let same = self.candidates.iter_hash(hash);
        let same = same.filter(|other| other.fingerprint == candidate.fingerprint).count();
        if self.candidates.len() == PART_MAX || same == SAME_MAX {
            self.is_incomplete = true;
            return;
        }
        self.candidates.insert_unique(hash, candidate, |other| table_hash(other.fingerprint));
    }
}

/// What of a key's hash is kept.
fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn first_bits(fingerprint: u32, count: u32) -> usize {
    (u64::from(fingerprint) >> (u32::BITS - count)) as usize
}

/// What a part's table is told: it takes a bucket from the last ten bits, and what it compares
/// before it looks at a bucket from the first seven, which are here the seven before the last ten.
fn table_hash(fingerprint: u32) -> u64 {
    u64::from(fingerprint) | u64::from(fingerprint) << 47
}

#[cfg(test)]
mod tests {
    use super::*;

    impl HashIndex {
        /// How many slots have a place here.
        pub(in super::super) fn held(&self) -> usize {
            self.parts.iter().map(|part| part.candidates.len()).sum()
        }
    }

    /// Numbers whose bits are mixed; different for different numbers.
    fn mixed(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn chosen_hashes_cost_no_more_than_the_bounds() {
        let one = |_| 5;
        let one_fingerprint = |number| number;
        let one_beginning = |number| mixed(number) >> 24;
        let one_bucket = |number| mixed(number) & !(0x3FF << 32);
        let one_bucket_and_tag = |number| mixed(number) & !(0x1_FFFF << 32);
        let hashes: [fn(u64) -> u64; 5] =
            [one, one_fingerprint, one_beginning, one_bucket, one_bucket_and_tag];
        for (kind, hash_of) in hashes.into_iter().enumerate() {
            let mut index = HashIndex::default();
            for number in 0..60_000u32 {
                index.insert(hash_of(number.into()), number);
            }
            let longest = 2 * DIRECTORY_SLACK * (60_000 / PART_MAX);
            assert!(index.directory.len() <= longest, "{kind}: {}", index.directory.len());
            assert!(index.parts.iter().all(|part| part.candidates.len() <= PART_MAX), "{kind}");
            for number in (0..60_000u32).step_by(7) {
                let (mut looks, mut asked) = (0, false);
                let mut is_it = |slot| {
                    looks += 1;
                    slot == number
                };
                let in_order = || {
                    asked = true;
                    Some(number)
                };
                let found = index.find(hash_of(number.into()), &mut is_it, in_order);
                assert_eq!(found, Some(number), "{kind}: asked {asked}");
                assert!(looks <= SAME_MAX, "{kind}: {looks} slots were looked at");
            }
        }
    }

    #[test]
    fn the_directory_names_the_part_of_every_beginning() {
        let mut index = HashIndex::default();
        for number in 0..40_000u32 {
            // Two thirds begin alike, so that parts have different depths.
            let hash = mixed(number.into()) >> (if number % 3 == 0 { 0 } else { 3 });
            index.insert(hash, number);
        }
        assert_eq!(index.held(), 40_000);
        let depths = || index.parts.iter().map(|part| part.depth);
        assert!(depths().min() < depths().max(), "{:?}", depths().collect::<Vec<_>>());
        for (number, part) in index.parts.iter().enumerate() {
            let named = index.directory.iter().filter(|&&named| named as usize == number);
            assert_eq!(named.count(), 1 << (index.depth - part.depth));
            for candidate in &part.candidates {
                assert_eq!(index.directory[index.place(candidate.fingerprint)] as usize, number);
            }
        }
    }
}
