//! What a cache would still hold if it had a little more memory.
//!
//! The hashes of the entries that main gave up last are remembered, each with how many bytes had
//! been given up before it. Main is a queue: with so many bytes more, what was given up within the
//! last so many bytes would still be there. A read of the device for one of those is a read that
//! the memory would have saved. Nothing is done for a hit.

use larder_runtime::memory::ZeroedSlice;

use super::ghost::{WAYS, bucket_of, fingerprint};
use super::touched::Touched;

/// Entries in a bucket: a fingerprint of each, and the moment of each, in half of a cache line.
const ENTRIES: usize = WAYS / 2;

/// The part of a cache that is remembered, one in this many, if it is not said otherwise.
pub(super) const MARGIN_PARTS: usize = 32;

/// How many entries a bucket has on average when all of them are remembered: few enough that
/// hardly one is forgotten early.
const ENTRIES_EXPECTED: usize = 3;

/// The unit of moments, in bytes: with 32 bits they come again after 256 GiB.
const MOMENT_BYTES: u64 = 64;

/// Memory starts as zero.
const VACANT: u32 = 0;

pub(super) struct Margin {
    /// Fingerprints from the newest to the oldest, then their moments in the same order.
    buckets: ZeroedSlice<[u32; WAYS]>,
    touched: Touched,
    /// The memory in question, in bytes.
    bytes: u64,
    /// Bytes that were given up so far.
    given_up: u64,
}

impl Margin {
    /// How many buckets a cache for so many entries needs.
    pub(super) fn buckets_for(entries: usize) -> usize {
        entries.div_ceil(MARGIN_PARTS * ENTRIES_EXPECTED)
    }

    pub(super) fn new(buckets: usize, bytes: usize) -> Self {
        let buckets = ZeroedSlice::new(buckets);
        Self { buckets, touched: Touched::default(), bytes: bytes as u64, given_up: 0 }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.buckets.len() * size_of::<[u32; WAYS]>()
    }

    /// How much of it is in memory, at most.
    pub(super) fn resident_bytes(&self) -> usize {
        self.touched.bytes_of(self.allocated_bytes())
    }

    /// The memory in question is so large from now on.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        self.bytes = bytes as u64;
    }

    /// Forgets everything: what was given up says nothing of the cache as it is now.
    pub(super) fn forget(&mut self) {
        self.given_up += self.bytes + MOMENT_BYTES;
    }

    /// An entry of so many bytes was given up.
    pub(super) fn push(&mut self, hash: u64, bytes: usize) {
        self.given_up += bytes as u64;
        let moment = self.moment();
        let (fingerprints, moments) = bucket_of(&mut self.buckets, hash).split_at_mut(ENTRIES);
        fingerprints.copy_within(..ENTRIES - 1, 1);
        moments.copy_within(..ENTRIES - 1, 1);
        (fingerprints[0], moments[0]) = (fingerprint(hash), moment);
        self.touched.one();
    }

    /// Whether the entry of this hash would still be there. It is forgotten.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let (now, age_max) = (self.moment(), self.bytes / MOMENT_BYTES);
        let (fingerprints, moments) = bucket_of(&mut self.buckets, hash).split_at_mut(ENTRIES);
        let wanted = fingerprint(hash);
        let Some(place) = fingerprints.iter().position(|&held| held == wanted) else {
            return false;
        };
        let age = now.wrapping_sub(moments[place]);
        fingerprints[place] = VACANT;
        u64::from(age) <= age_max
    }

    fn moment(&self) -> u32 {
        (self.given_up / MOMENT_BYTES) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::mix;

    #[test]
    fn what_a_little_more_memory_would_hold_is_found_once() {
        let mut margin = Margin::new(64, 10 << 10);
        for hash in 0..100 {
            margin.push(mix(hash), 1 << 10);
        }
        let found = |margin: &mut Margin| {
            let is_found = |hash: &u64| margin.take(mix(*hash));
            (0..100).filter(is_found).collect::<Vec<u64>>()
        };
        assert_eq!(found(&mut margin), (89..100).collect::<Vec<u64>>());
        assert_eq!(found(&mut margin), []);
    }

    #[test]
    fn more_memory_reaches_further_back_and_what_is_forgotten_is_gone() {
        let mut margin = Margin::new(64, 1 << 10);
        for hash in 0..30 {
            margin.push(mix(hash), 1 << 10);
        }
        margin.set_bytes(20 << 10);
        assert!(!margin.take(mix(5)) && margin.take(mix(15)));
        margin.forget();
        assert!(!margin.take(mix(29)));
        margin.push(mix(29), 1 << 10);
        assert!(margin.take(mix(29)));
    }

    #[test]
    fn a_margin_without_memory_knows_nothing() {
        assert!(!Margin::new(0, 1000).take(mix(1)));
        assert_eq!(Margin::buckets_for(0), 0);
    }

    #[test]
    fn moments_that_come_again_are_far_apart() {
        let mut margin = Margin::new(1, 1 << 20);
        margin.given_up = (MOMENT_BYTES << 32) - 100;
        margin.push(7, 1000);
        assert!(margin.take(7), "the count of moments has begun anew between the two");
        margin.push(7, 1000);
        margin.given_up += MOMENT_BYTES << 31;
        assert!(!margin.take(7));
    }
}
