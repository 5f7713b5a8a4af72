//! From a hash to the places of entries: a hash table of a fixed size.
//!
//! A bucket is one cache line: twelve locations, a tag byte for each, and a count. A look-up costs
//! one cache miss here, and one more for each entry whose tag fits (a wrong one in about every
//! twenty look-ups). An entry that finds its bucket full goes to the next one with room, and each
//! full bucket that it passes counts it, so a look-up knows whether to go on; removing takes the
//! counts back. There are no tombstones and nothing is ever rebuilt.

use super::arena::Location;
use super::touched::Touched;
use larder_runtime::memory::{ZeroedSlice, prefetch};

/// Twelve locations, then their tags, four to a word, then the count of entries that passed.
type Bucket = [u32; 16];

const SLOTS: usize = 12;
const TAG_WORDS: usize = SLOTS / 4;
const PASSED: usize = SLOTS + TAG_WORDS;
const _: () = assert!(PASSED + 1 == size_of::<Bucket>() / size_of::<u32>());

/// Entries for a bucket on average when the index is full: so few that hardly an entry finds its
/// bucket full.
const ENTRIES_PER_BUCKET: usize = 9;

/// How many buckets an entry may pass. With good hashes none ever passes so many.
const PASSES_MAX: usize = 64;

pub(super) struct Index {
    buckets: ZeroedSlice<Bucket>,
    len: usize,
    touched: Touched,
}

/// A slot of the index.
#[derive(Clone, Copy)]
struct Place {
    bucket: usize,
    slot: usize,
}

impl Index {
    /// An index for at least `entries` entries.
    pub(super) fn new(entries: usize) -> Self {
        let buckets = ZeroedSlice::new(entries.div_ceil(ENTRIES_PER_BUCKET));
        Self { buckets, len: 0, touched: Touched::default() }
    }

    /// What an index for `entries` entries allocates.
    pub(super) fn bytes_for(entries: usize) -> usize {
        entries.div_ceil(ENTRIES_PER_BUCKET) * size_of::<Bucket>()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// How much of it is in memory, at most.
    pub(super) fn resident_bytes(&self) -> usize {
        self.touched.bytes_of(self.allocated_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn entries_max(&self) -> usize {
        self.buckets.len() * ENTRIES_PER_BUCKET
    }

    /// Whether an entry must go before another can come.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.entries_max()
    }

    /// Whether an entry with this hash finds a place. With good hashes it does while the index is
    /// not full.
    pub(super) fn has_room_for(&self, hash: u64) -> bool {
        self.path(hash).any(|bucket| free_slot(&self.buckets[bucket]).is_some())
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill([0; 16]);
        self.len = 0;
        self.touched.all();
    }

    /// Brings the bucket of `hash` near, for a look-up that follows soon.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if !self.buckets.is_empty() {
            prefetch(&self.buckets[self.home(hash)]);
        }
    }

    /// Where an entry with this hash would be, going by its bucket and tag alone.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<Location> {
        let bucket = self.buckets.get(self.home(hash))?;
        (0..TAG_WORDS).find_map(|word| {
            let fits = bytes_equal(bucket[SLOTS + word], tag_of(hash));
            let slot = word * 4 + fits.trailing_zeros() as usize / 8;
            (fits != 0).then(|| Location::from_raw(bucket[slot]))
        })
    }

    /// The entry with this hash that `is` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(Location) -> bool) -> Option<Location> {
        self.find_place(hash, |location| is(Location::from_raw(location)))
            .map(|place| Location::from_raw(self.buckets[place.bucket][place.slot]))
    }

    #[inline]
    fn find_place(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<Place> {
        let tag = tag_of(hash);
        for bucket in self.path(hash) {
            let lines = &self.buckets[bucket];
            for word in 0..TAG_WORDS {
                let mut fits = bytes_equal(lines[SLOTS + word], tag);
                while fits != 0 {
                    let slot = word * 4 + fits.trailing_zeros() as usize / 8;
                    if is(lines[slot]) {
                        return Some(Place { bucket, slot });
                    }
                    fits &= fits - 1;
                }
            }
            if lines[PASSED] == 0 {
                return None;
            }
        }
        None
    }

    /// Adds an entry that the index does not hold; there must be room for it.
    pub(super) fn insert(&mut self, hash: u64, location: Location) {
        assert!(self.has_room_for(hash), "the index has room for the entry");
        for bucket in self.path(hash) {
            let bucket = &mut self.buckets[bucket];
            if let Some(slot) = free_slot(bucket) {
                bucket[slot] = location.raw();
                set_tag(bucket, slot, tag_of(hash));
                self.len += 1;
                self.touched.one();
                return;
            }
            bucket[PASSED] += 1;
        }
    }

    /// How many buckets there are.
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The entries in a bucket.
    pub(super) fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = Location> + use<> {
        let bucket = self.buckets[bucket];
        let is_taken = move |slot: &usize| bucket[SLOTS + slot / 4] >> (slot % 4 * 8) & 0xFF != 0;
        (0..SLOTS).filter(is_taken).map(move |slot| Location::from_raw(bucket[slot]))
    }

    /// Notes that an entry has moved.
    pub(super) fn relocate(&mut self, hash: u64, from: Location, to: Location) {
        let place = self.find_place(hash, |location| location == from.raw());
        let place = place.expect("a live entry is in the index");
        self.buckets[place.bucket][place.slot] = to.raw();
    }

    pub(super) fn remove(&mut self, hash: u64, entry: Location) {
        let place = self.find_place(hash, |location| location == entry.raw());
        let place = place.expect("a live entry is in the index");
        for bucket in self.path(hash).take_while(|bucket| *bucket != place.bucket) {
            self.buckets[bucket][PASSED] -= 1;
        }
        set_tag(&mut self.buckets[place.bucket], place.slot, 0);
        self.len -= 1;
    }

    /// The buckets that may hold an entry with this hash, the likeliest first.
    #[inline]
    fn path(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let count = self.buckets.len();
        let mut next = if count == 0 { 0 } else { self.home(hash) };
        (0..count.min(PASSES_MAX)).map(move |_| {
            let bucket = next;
            next = if next + 1 == count { 0 } else { next + 1 };
            bucket
        })
    }

    /// The bucket where the search begins, going by bits that the tag does not use.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }
}

/// What a slot shows of its entry's hash; 0 is a free slot.
#[inline]
fn tag_of(hash: u64) -> u8 {
    (hash as u8).max(1)
}

fn set_tag(bucket: &mut Bucket, slot: usize, tag: u8) {
    let shift = slot % 4 * 8;
    let word = &mut bucket[SLOTS + slot / 4];
    *word = (*word & !(0xFF << shift)) | u32::from(tag) << shift;
}

fn free_slot(bucket: &Bucket) -> Option<usize> {
    (0..TAG_WORDS).find_map(|word| {
        let free = bytes_equal(bucket[SLOTS + word], 0);
        (free != 0).then(|| word * 4 + free.trailing_zeros() as usize / 8)
    })
}

/// The high bit of each byte of `word` that equals `byte`.
///
/// Adding 0x7F to the low seven bits of a byte carries into its high bit unless they are all zero,
/// and never beyond it, so that no byte disturbs another.
#[inline]
fn bytes_equal(word: u32, byte: u8) -> u32 {
    const LOW: u32 = 0x7F7F_7F7F;
    let different = word ^ (u32::from(byte) * 0x0101_0101);
    !(((different & LOW) + LOW) | different | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn hash_of(location: Location) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&location.offset().to_le_bytes())
    }

    #[test]
    fn bytes_are_compared_one_by_one() {
        for (word, byte, expected) in [
            (0x0102_0304, 3, 0x0000_8000),
            (0x0000_0001, 0, 0x8080_8000),
            (0x0100_0100, 1, 0x8000_8000),
            (0x8080_8080, 0x80, 0x8080_8080),
            (0xFFFF_FFFF, 0x7F, 0),
        ] {
            assert_eq!(bytes_equal(word, byte), expected, "{word:#x} {byte}");
        }
    }

    #[test]
    fn an_index_has_the_size_that_was_foretold() {
        for entries in (0..5000).chain([1 << 18]) {
            let index = Index::new(entries);
            assert!(index.entries_max() >= entries, "{entries} entries");
            assert_eq!(index.allocated_bytes(), Index::bytes_for(entries));
        }
        assert_eq!(Index::bytes_for(0), 0);
        assert!(Index::bytes_for(1 << 20) < (1 << 20) * 8);
        assert_eq!(Index::new(0).find(7, |_| true), None);
    }

    #[test]
    fn churn_at_the_limit_loses_nothing_and_leaves_nothing() {
        for entries in [1, 11, 500, 10_000] {
            let mut index = Index::new(entries);
            let mut held = VecDeque::new();
            for number in 0..200_000 {
                let location = Location::at(number * 8);
                if index.is_full() || !index.has_room_for(hash_of(location)) {
                    let oldest = held.pop_front().expect("a full index holds entries");
                    index.remove(hash_of(oldest), oldest);
                }
                index.insert(hash_of(location), location);
                held.push_back(location);
            }
            assert_eq!((index.len(), held.len()), (index.entries_max(), index.entries_max()));
            for &location in &held {
                let found = index.find(hash_of(location), |other| other == location);
                assert_eq!(found, Some(location));
            }
            for location in held {
                index.remove(hash_of(location), location);
            }
            assert!(index.buckets.iter().all(|bucket| bucket[SLOTS..] == [0; 4]));
        }
    }

    #[test]
    fn equal_hashes_fill_their_path_and_no_more() {
        let mut index = Index::new(10_000);
        let mut entries = 0;
        while index.has_room_for(7) {
            index.insert(7, Location::at(entries * 8));
            entries += 1;
        }
        assert_eq!(entries, PASSES_MAX * SLOTS);
        assert!(index.has_room_for(u64::MAX / 2));
        for entry in 0..entries {
            index.relocate(7, Location::at(entry * 8), Location::at((entry + entries) * 8));
        }
        for entry in entries..2 * entries {
            index.remove(7, Location::at(entry * 8));
        }
        assert_eq!(index.len(), 0);
        index.insert(7, Location::at(0));
        assert_eq!(index.find(7, |_| true), Some(Location::at(0)));
        index.clear();
        assert_eq!((index.find(7, |_| true), index.len()), (None, 0));
    }
}
