//! Which segment to collect next. Pure.
//!
//! The choice is that of log-structured file systems (Rosenblum and Ousterhout, SOSP '91): the
//! segment with the best ratio of benefit to cost, `(1 - u) * age / (1 + u)`, where `u` is the part
//! of it that lives. Reading it costs 1, writing the survivors costs `u`, and what is dead in an
//! old segment stays so, while a young one is likely to have more of it soon.
//!
//! Of what expires it is known when it will be dead. To collect it earlier is of use until then, so
//! for these records their time left counts if it is shorter than the age. As long as there is
//! space, a segment is waited for of which a quarter or more of the copies would be dead before the
//! space is needed.

use larder_runtime::env::DISK_ALIGNMENT;

use super::Lifetimes;
use crate::manifest::SegmentState;
use crate::value_log::{frame, segment};

/// About what a move takes of the log's record of many: the end of a short key, and a place.
const MOVE_BYTES: u64 = 32;

/// A segment that may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VictimCandidate {
    /// Its number.
    pub number: u32,
    /// Bytes of its frames, padding included. What the file has behind them is not counted: a copy
    /// would leave as much.
    pub frame_bytes: u32,
    /// How often its records have been moved; 0 in the log.
    pub generation: u8,
    /// Bytes of its records that entries point to: at least those that live.
    pub live_bytes: u64,
    /// How many records these are, about.
    pub live_records: u64,
    /// For how long collecting it is of use, in segments that are made meanwhile: its age, or less
    /// where its records expire sooner.
    pub use_segments: u64,
    /// Of the live bytes, those that will have expired before their space is needed, about.
    pub waited_bytes: u64,
}

/// What is known of the time in which victims are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foresight {
    /// The present, in Unix seconds.
    pub now: u32,
    /// When space is needed, in Unix seconds; the present if it is needed now.
    pub need: u32,
    /// The highest number of any segment.
    pub newest: u32,
    /// How many seconds it takes until another 1,024 segments of the log are full.
    pub seconds_per_1024_segments: u32,
}

impl Foresight {
    /// How old a segment is, in segments.
    fn age(&self, number: u32) -> u64 {
        u64::from(self.newest.saturating_sub(number)) + 1
    }

    /// How many segments the log fills until `expiry`, and at least one.
    fn segments_until(&self, expiry: u32) -> u64 {
        let seconds = u64::from(expiry.saturating_sub(self.now));
        (seconds * 1024 / u64::from(self.seconds_per_1024_segments.max(1))).max(1)
    }
}

/// A segment is waited for if at least this part of what lives will have expired before its space
/// is needed.
const WAITED_DIVISOR: u64 = 4;

/// A segment is not collected for less than this part of it: the copies would cost more than they
/// bring, and where everything lives nothing would ever come to rest.
const GAIN_DIVISOR_LOG: u64 = 16;
const GAIN_DIVISOR_MOVED: u64 = 8;

impl VictimCandidate {
    /// What the manifest knows of a segment, `None` if that is not where it ends. Of its records
    /// `dead_bytes` are marked dead; `mean_record` is their mean length in bytes.
    pub fn of(
        number: u32,
        known: &SegmentState,
        dead_bytes: u64,
        mean_record: u64,
    ) -> Option<Self> {
        let frame_bytes = known.sealed?.end.saturating_sub(segment::HEADER_BYTES);
        let live_bytes = known.live_bytes.min(u64::from(frame_bytes).saturating_sub(dead_bytes));
        Some(Self {
            number,
            frame_bytes,
            generation: known.generation,
            live_bytes,
            live_records: live_bytes / mean_record.max(1),
            use_segments: 0,
            waited_bytes: 0,
        })
    }

    /// The same with what is known of the time: how old it is, and when its records expire. Of a
    /// segment in which all do the manifest knows that, of others `lifetimes`.
    pub fn foreseen(
        mut self,
        known: &SegmentState,
        lifetimes: &Lifetimes,
        foresight: &Foresight,
    ) -> Self {
        self.use_segments = foresight.age(self.number);
        match known.expires_at().filter(|at| *at > foresight.now) {
            Some(at) => {
                let all = (at, u64::from(self.frame_bytes));
                self.foresee(std::iter::once(all), foresight);
            }
            None => self.foresee(lifetimes.after(self.number, foresight.now), foresight),
        }
        self
    }

    /// Goes by what expires when of the bytes that were written to it: what has died meanwhile was
    /// as likely to expire as what lives.
    fn foresee(&mut self, expiring: impl Iterator<Item = (u32, u64)>, foresight: &Foresight) {
        let (age, all) = (u128::from(self.use_segments), u128::from(self.frame_bytes.max(1)));
        let (mut expires, mut waited, mut used) = (0, 0, 0);
        for (expiry, bytes) in expiring {
            let bytes = u128::from(bytes).min(all - expires);
            expires += bytes;
            used += bytes * age.min(u128::from(foresight.segments_until(expiry)));
            waited += if expiry <= foresight.need { bytes } else { 0 };
        }
        used += (all - expires) * age;
        self.use_segments = u64::try_from(used / all).unwrap_or(u64::MAX);
        let live = u128::from(self.live_bytes);
        self.waited_bytes = u64::try_from(live * waited / all).unwrap_or(u64::MAX);
    }

    /// Whether so much of what lives expires before space is needed that it is waited for.
    fn is_waited_for(&self) -> bool {
        self.waited_bytes > 0 && self.waited_bytes >= self.live_bytes / WAITED_DIVISOR
    }

    /// Bytes that collecting it frees: what it takes, less what its copies take and the log's
    /// records of the moves, each in frames of their own.
    pub fn gain(&self) -> u64 {
        let frames = |bytes: u64| match bytes {
            0 => 0,
            bytes => bytes
                .saturating_add(frame::HEADER_BYTES as u64)
                .checked_next_multiple_of(DISK_ALIGNMENT as u64)
                .unwrap_or(u64::MAX),
        };
        let moves = self.live_records.saturating_mul(MOVE_BYTES);
        let taken = frames(self.live_bytes).saturating_add(frames(moves));
        u64::from(self.frame_bytes).saturating_sub(taken)
    }

    /// Whether collecting it is worth its cost.
    pub fn is_worth_it(&self) -> bool {
        let divisor = if self.generation == 0 { GAIN_DIVISOR_LOG } else { GAIN_DIVISOR_MOVED };
        self.gain() >= (u64::from(self.frame_bytes) / divisor).max(1)
    }

    /// Benefit over cost, scaled.
    fn score(&self) -> u128 {
        let file = u128::from(self.frame_bytes);
        let live = u128::from(self.live_bytes).min(file);
        (file - live) * u128::from(self.use_segments) * 1024 / (file + live).max(1)
    }
}

/// The candidate to collect next, if one is worth it and is not waited for.
pub fn choose(candidates: impl Iterator<Item = VictimCandidate>) -> Option<VictimCandidate> {
    candidates
        .filter(|candidate| candidate.is_worth_it() && !candidate.is_waited_for())
        .max_by_key(|candidate| (candidate.score(), std::cmp::Reverse(candidate.number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{NEVER_EXPIRES, SegmentSeal};

    const KIB: u64 = 1024;

    /// A candidate of 1000 KiB, of which so many live, in records of 1 KiB.
    fn candidate(number: u32, live: u64) -> VictimCandidate {
        VictimCandidate {
            number,
            frame_bytes: 1000 * KIB as u32,
            generation: 0,
            live_bytes: live * KIB,
            live_records: live,
            use_segments: u64::from(100 - number) + 1,
            waited_bytes: 0,
        }
    }

    fn chosen(candidates: &[VictimCandidate]) -> Option<u32> {
        choose(candidates.iter().copied()).map(|candidate| candidate.number)
    }

    #[test]
    fn the_deadest_of_equal_age_goes_first() {
        assert_eq!(chosen(&[candidate(5, 700), candidate(5, 100), candidate(5, 400)]), Some(5));
        assert_eq!(chosen(&[candidate(5, 800), candidate(6, 100)]), Some(6));
    }

    #[test]
    fn the_older_of_equals_goes_first() {
        assert_eq!(chosen(&[candidate(90, 500), candidate(10, 500), candidate(50, 500)]), Some(10));
        // A young one must be much deader than an old one.
        assert_eq!(chosen(&[candidate(99, 300), candidate(10, 500)]), Some(10));
    }

    #[test]
    fn what_lives_is_left_alone() {
        assert_eq!(chosen(&[candidate(1, 1000), candidate(2, 920), candidate(3, 5000)]), None);
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[candidate(1, 900)]), Some(1));
        assert_eq!(chosen(&[VictimCandidate { generation: 1, ..candidate(1, 850) }]), None);
        assert_eq!(chosen(&[VictimCandidate { frame_bytes: 0, ..candidate(1, 0) }]), None);
    }

    #[test]
    fn what_is_marked_dead_does_not_live_although_tables_point_to_it() {
        let end = segment::HEADER_BYTES + 1000;
        let known = SegmentState {
            file_bytes: 1 << 20,
            sealed: Some(SegmentSeal { segment: 3, end, sequence_last: 0 }),
            live_bytes: 900,
            generation: 0,
            expiry_max: 0,
            pointers_end_max: 0,
        };
        let live = |dead_bytes| {
            let candidate = VictimCandidate::of(3, &known, dead_bytes, 90).expect("it has an end");
            (candidate.live_bytes, candidate.live_records)
        };
        assert_eq!([0, 50, 400, 2000].map(live), [(900, 10), (900, 10), (600, 6), (0, 0)]);
    }

    #[test]
    fn what_is_dead_soon_is_copied_late() {
        let of_use = |number, live, use_segments| VictimCandidate {
            use_segments,
            ..candidate(number, live)
        };
        assert_eq!(chosen(&[of_use(40, 400, 60), candidate(41, 600)]), Some(40));
        assert_eq!(chosen(&[of_use(40, 400, 20), candidate(41, 600)]), Some(41));
        assert_eq!(chosen(&[of_use(40, 100, 20), candidate(41, 600)]), Some(40), "few copies");
        assert_eq!(chosen(&[of_use(40, 400, 1)]), Some(40), "there is no other");
        let waited = |number, live, waited: u64| VictimCandidate {
            waited_bytes: waited * KIB,
            ..candidate(number, live)
        };
        assert_eq!(chosen(&[waited(40, 400, 400), waited(41, 400, 100)]), None);
        assert_eq!(chosen(&[waited(40, 400, 400), waited(41, 400, 99)]), Some(41));
        assert_eq!(chosen(&[waited(40, 0, 0)]), Some(40));
    }

    #[test]
    fn when_records_expire_is_told_by_the_manifest_or_by_what_was_written() {
        let end = segment::HEADER_BYTES + 1000;
        let known = |expiry_max| SegmentState {
            file_bytes: 1 << 20,
            sealed: Some(SegmentSeal { segment: 3, end, sequence_last: 0 }),
            live_bytes: 800,
            generation: 0,
            expiry_max,
            pointers_end_max: 0,
        };
        let mut lifetimes = Lifetimes::default();
        lifetimes.add(3, 150, 250);
        lifetimes.add(3, 200, 500);
        // The segment is 80 segments old, and the log fills one in two seconds.
        let foreseen = |expiry_max, now, need| {
            let foresight = Foresight { now, need, newest: 82, seconds_per_1024_segments: 2048 };
            let known = known(expiry_max);
            let candidate = VictimCandidate::of(3, &known, 0, 100).expect("sealed");
            let candidate = candidate.foreseen(&known, &lifetimes, &foresight);
            (candidate.use_segments, candidate.waited_bytes)
        };
        // 25 segments for a quarter, 50 for half of it, 80 for what never expires.
        assert_eq!(foreseen(NEVER_EXPIRES, 100, 100), ((25 + 2 * 50 + 80) / 4, 0));
        assert_eq!(foreseen(0, 100, 149), (51, 0), "nothing was written out");
        assert_eq!(foreseen(NEVER_EXPIRES, 100, 150), (51, 200));
        assert_eq!(foreseen(NEVER_EXPIRES, 100, u32::MAX), (51, 600));
        assert_eq!(foreseen(NEVER_EXPIRES, 150, 160), ((2 * 25 + 2 * 80) / 4, 0), "one is over");
        assert_eq!((foreseen(180, 100, 179), foreseen(180, 100, 180)), ((40, 0), (40, 800)));
        assert_eq!(foreseen(900, 100, 100), (80, 0), "it lives longer than it is old");
        assert_eq!(foreseen(180, 180, 200), (45, 400), "what tables had of it has expired");
    }

    #[test]
    fn what_a_move_costs_counts() {
        assert_eq!(candidate(1, 0).gain(), 1000 * KIB);
        // A record of one page takes another page, and its move one more.
        let page = DISK_ALIGNMENT as u32;
        let small = |pages: u32| VictimCandidate {
            frame_bytes: pages * page,
            live_bytes: 100,
            live_records: 1,
            ..candidate(1, 0)
        };
        assert_eq!([1, 2, 3].map(|pages| small(pages).is_worth_it()), [false, false, true]);
        // Where records are short, the log's records of their moves are as long.
        let short = VictimCandidate { live_records: 500 * KIB / 32, ..candidate(1, 500) };
        assert!(!short.is_worth_it());
    }
}
