//! Which segment to collect next. Pure.
//!
//! The choice is that of log-structured file systems (Rosenblum and Ousterhout, SOSP '91): the
//! segment with the best ratio of benefit to cost, `(1 - u) * age / (1 + u)`, where `u` is the part
//! of it that lives. Reading it costs 1, writing the survivors costs `u`, and what is dead in an
//! old segment stays so, while a young one is likely to have more of it soon.

use larder_runtime::env::DISK_ALIGNMENT;

use crate::manifest::SegmentState;
use crate::value_log::{frame, segment};

/// About what the log's record of a move takes: its head, a short key, an entry.
const MOVE_BYTES: u64 = 88;

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
}

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
        let live_records = live_bytes / mean_record.max(1);
        Some(Self { number, frame_bytes, generation: known.generation, live_bytes, live_records })
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

    /// Benefit over cost, scaled; `newest` is the highest number of any segment.
    fn score(&self, newest: u32) -> u128 {
        let file = u128::from(self.frame_bytes);
        let live = u128::from(self.live_bytes).min(file);
        let age = u128::from(newest.saturating_sub(self.number)) + 1;
        (file - live) * age * 1024 / (file + live).max(1)
    }
}

/// The candidate to collect next, if one is worth it; `newest` is the highest number of any
/// segment.
pub fn choose(
    candidates: impl Iterator<Item = VictimCandidate>,
    newest: u32,
) -> Option<VictimCandidate> {
    candidates
        .filter(VictimCandidate::is_worth_it)
        .max_by_key(|candidate| (candidate.score(newest), std::cmp::Reverse(candidate.number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SegmentSeal;

    const KIB: u64 = 1024;

    /// A candidate of 1000 KiB, of which so many live, in records of 1 KiB.
    fn candidate(number: u32, live: u64) -> VictimCandidate {
        let (frame_bytes, live_bytes) = (1000 * KIB as u32, live * KIB);
        VictimCandidate { number, frame_bytes, generation: 0, live_bytes, live_records: live }
    }

    fn chosen(candidates: &[VictimCandidate]) -> Option<u32> {
        choose(candidates.iter().copied(), 100).map(|candidate| candidate.number)
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
        assert_eq!(chosen(&[candidate(1, 1000), candidate(2, 880), candidate(3, 5000)]), None);
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[candidate(1, 850)]), Some(1));
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
        let short = VictimCandidate { live_records: 500 * KIB / 88, ..candidate(1, 500) };
        assert!(!short.is_worth_it());
    }
}
