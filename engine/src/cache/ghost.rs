//! The hashes of entries that left the small queue unused: a bounded FIFO in fixed memory.
//!
//! It is a table of buckets, a cache line each, and every bucket is a FIFO of its own, newest
//! first. Hashes spread evenly, so the buckets age alike, and the first `n` places of all buckets
//! are the newest `n * buckets` hashes, nearly: the memory's length is chosen at each look-up.

use larder_runtime::memory::ZeroedSlice;

use super::touched::Touched;

/// Places in a bucket.
pub(super) const WAYS: usize = 16;

/// Bytes of a bucket.
pub(super) const BUCKET_BYTES: usize = WAYS * size_of::<u32>();

/// Memory starts as zero.
const VACANT: u32 = 0;

pub(super) struct Ghost {
    buckets: ZeroedSlice<[u32; WAYS]>,
    touched: Touched,
}

impl Ghost {
    pub(super) fn new(buckets: usize) -> Self {
        Self { buckets: ZeroedSlice::new(buckets), touched: Touched::default() }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.buckets.len() * BUCKET_BYTES
    }

    /// How much of it is in memory, at most.
    pub(super) fn resident_bytes(&self) -> usize {
        self.touched.bytes_of(self.allocated_bytes())
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill([VACANT; WAYS]);
        self.touched.all();
    }

    /// Remembers `hash` as the newest, and forgets an oldest one if there is no room.
    pub(super) fn push(&mut self, hash: u64) {
        let bucket = bucket_of(&mut self.buckets, hash);
        bucket.copy_within(..WAYS - 1, 1);
        bucket[0] = fingerprint(hash);
        self.touched.one();
    }

    /// Whether `hash` is among the newest `remembered`; it is forgotten if so.
    pub(super) fn take(&mut self, hash: u64, remembered: usize) -> bool {
        let ways = remembered.div_ceil(self.buckets.len()).min(WAYS);
        let bucket = bucket_of(&mut self.buckets, hash);
        let wanted = fingerprint(hash);
        let Some(place) = bucket[..ways].iter().position(|&held| held == wanted) else {
            return false;
        };
        bucket.copy_within(place + 1.., place);
        bucket[WAYS - 1] = VACANT;
        true
    }
}

/// The high half of the hash picks the bucket, the low half is the fingerprint.
pub(super) fn bucket_of(buckets: &mut [[u32; WAYS]], hash: u64) -> &mut [u32; WAYS] {
    let scaled = u128::from(hash >> 32) * buckets.len() as u128;
    &mut buckets[(scaled >> 32) as usize]
}

pub(super) fn fingerprint(hash: u64) -> u32 {
    (hash as u32).max(VACANT + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::mix;

    #[test]
    fn a_hash_is_found_once() {
        let mut ghost = Ghost::new(4);
        for hash in 0..8 {
            ghost.push(mix(hash));
        }
        assert!(!ghost.take(mix(100), usize::MAX));
        assert!(ghost.take(mix(3), usize::MAX));
        assert!(!ghost.take(mix(3), usize::MAX));
        assert!(ghost.take(mix(7), usize::MAX) && ghost.take(mix(0), usize::MAX));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut ghost = Ghost::new(1);
        for hash in 0..20 {
            ghost.push(hash);
        }
        let remembered: Vec<u64> = (0..20).filter(|&hash| ghost.take(hash, WAYS)).collect();
        assert_eq!(remembered, (4..20).collect::<Vec<u64>>());
    }

    #[test]
    fn the_caller_decides_how_far_back_it_looks() {
        let mut ghost = Ghost::new(1);
        for hash in 1..=10 {
            ghost.push(hash);
        }
        assert!(!ghost.take(10, 0));
        assert!(!ghost.take(5, 5));
        assert!(ghost.take(6, 5));
        assert!(ghost.take(5, 5), "the younger one was taken out before it");
    }

    #[test]
    fn clearing_forgets() {
        let mut ghost = Ghost::new(2);
        ghost.push(0);
        ghost.clear();
        assert!(!ghost.take(0, usize::MAX));
    }
}
