//! How much of what was written to a segment expires, and when. Pure.
//!
//! What will be dead soon is copied in vain, so the collector would rather come later. Nothing else
//! goes by this: it is what was known when records were written, in memory only, of the newest
//! segments only, and rounded to later moments.

use std::collections::BTreeMap;

/// Moments that are told apart in a segment.
const SUMS_MAX: usize = 8;

/// Segments of which this is known: with segments of 64 MiB, those of the last 64 GiB of writes.
const SEGMENTS_MAX: usize = 1024;

/// Bytes of records by the moment at which the last of them expires, in Unix seconds.
type Sums = Vec<(u32, u64)>;

/// What expires in some segments. Belongs to one shard.
#[derive(Default)]
pub struct Lifetimes {
    segments: BTreeMap<u32, Sums>,
}

impl Lifetimes {
    /// Notes that a record of `bytes` was written to `segment`, whose item expires at `expiry`, in
    /// Unix seconds; 0 for never.
    pub fn add(&mut self, segment: u32, expiry: u32, bytes: u32) {
        if expiry == 0 {
            return;
        }
        let sums = self.segments.entry(segment).or_default();
        match sums.binary_search_by_key(&expiry, |(until, _)| *until) {
            Ok(at) => sums[at].1 += u64::from(bytes),
            Err(at) => {
                sums.insert(at, (expiry, u64::from(bytes)));
                if sums.len() > SUMS_MAX {
                    join_nearest(sums);
                }
            }
        }
        if self.segments.len() > SEGMENTS_MAX {
            self.segments.pop_first();
        }
    }

    /// What of `segment` expires after `now`: when, in Unix seconds, and how many bytes.
    pub fn after(&self, segment: u32, now: u32) -> impl Iterator<Item = (u32, u64)> {
        let sums = self.segments.get(&segment).into_iter().flatten();
        sums.copied().filter(move |(expiry, _)| now < *expiry)
    }

    /// Forgets a segment that is gone.
    pub fn forget(&mut self, segment: u32) {
        self.segments.remove(&segment);
    }
}

/// Counts two moments as one, the later: those that are nearest to each other.
fn join_nearest(sums: &mut Sums) {
    let gap = |at: &usize| sums[at + 1].0 - sums[*at].0;
    let Some(at) = (0..sums.len().saturating_sub(1)).min_by_key(gap) else { return };
    let (_, bytes) = sums.remove(at);
    sums[at].1 += bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_is_known_by_segment_and_moment() {
        let mut lifetimes = Lifetimes::default();
        for (segment, expiry, bytes) in [(1, 100, 10), (1, 0, 1000), (1, 50, 5), (2, 100, 7)] {
            lifetimes.add(segment, expiry, bytes);
        }
        lifetimes.add(1, 100, 20);
        let after = |segment, now| lifetimes.after(segment, now).collect::<Vec<_>>();
        assert_eq!((after(1, 49), after(1, 50)), (vec![(50, 5), (100, 30)], vec![(100, 30)]));
        assert_eq!((after(2, 0), after(2, 100), after(3, 0)), (vec![(100, 7)], vec![], vec![]));
        lifetimes.forget(1);
        assert_eq!(lifetimes.after(1, 0).count(), 0);
    }

    #[test]
    fn near_moments_are_counted_as_the_later_one() {
        let mut lifetimes = Lifetimes::default();
        // Two lifetimes, while a segment is filled in 50 seconds.
        for second in 0..50 {
            lifetimes.add(1, 1000 + second, 1);
            lifetimes.add(1, 5000 + second, 100);
        }
        let sums: Vec<_> = lifetimes.after(1, 0).collect();
        assert_eq!(sums.len(), SUMS_MAX);
        let bytes_until = |until| {
            let some = sums.iter().filter(|(expiry, _)| *expiry <= until);
            some.map(|(_, bytes)| bytes).sum::<u64>()
        };
        assert_eq!(bytes_until(1100), 50, "the two lifetimes are never joined");
        assert_eq!(bytes_until(6000), 5050);
        assert!(bytes_until(1010) <= 11, "nothing counts as expiring before it does");
    }

    #[test]
    fn few_segments_are_remembered_and_the_newest_of_them() {
        let mut lifetimes = Lifetimes::default();
        for segment in 0..2 * SEGMENTS_MAX as u32 {
            lifetimes.add(segment, 100, 1);
        }
        assert_eq!(lifetimes.segments.len(), SEGMENTS_MAX);
        assert_eq!(lifetimes.after(0, 0).count(), 0);
        assert_eq!(lifetimes.after(2000, 0).collect::<Vec<_>>(), [(100, 1)]);
    }
}
