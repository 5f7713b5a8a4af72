//! Which segment to collect next. Pure.
//!
//! The choice is that of log-structured file systems (Rosenblum and Ousterhout, SOSP '91): the
//! segment with the best ratio of benefit to cost, `(1 - u) * age / (1 + u)`, where `u` is the part
//! of it that lives. Reading it costs 1, writing the survivors costs `u`, and what is dead in an
//! old segment stays so, while a young one is likely to have more of it soon.

/// A segment that may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub number: u32,
    /// Bytes of its frames, padding included. What the file has behind them is not counted: a copy
    /// would leave as much.
    pub frame_bytes: u32,
    /// How often its records have been moved; 0 in the log.
    pub generation: u8,
    /// Bytes of its records that entries point to: at least those that live.
    pub live_bytes: u64,
}

/// A segment is not collected for less than this part of it: the copies would cost more than they
/// bring, and where everything lives nothing would ever come to rest. Records that were moved are
/// packed as densely as they can be, but for the padding of a frame for each segment they came from.
const GAIN_DIVISOR_LOG: u64 = 16;
const GAIN_DIVISOR_MOVED: u64 = 8;

impl Candidate {
    /// Bytes that collecting it frees, at least.
    pub fn gain(&self) -> u64 {
        u64::from(self.frame_bytes).saturating_sub(self.live_bytes)
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

/// The candidate to collect next, if one is worth it; `newest` is the highest number of any segment.
pub fn choose(candidates: impl Iterator<Item = Candidate>, newest: u32) -> Option<Candidate> {
    candidates
        .filter(Candidate::is_worth_it)
        .max_by_key(|candidate| (candidate.score(newest), std::cmp::Reverse(candidate.number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u32, live_bytes: u64) -> Candidate {
        Candidate { number, frame_bytes: 1000, generation: 0, live_bytes }
    }

    fn chosen(candidates: &[Candidate]) -> Option<u32> {
        choose(candidates.iter().copied(), 100).map(|candidate| candidate.number)
    }

    #[test]
    fn the_deadest_of_equal_age_goes_first() {
        assert_eq!(chosen(&[candidate(5, 700), candidate(5, 100), candidate(5, 400)]), Some(5));
        assert_eq!(chosen(&[candidate(5, 900), candidate(6, 100)]), Some(6));
    }

    #[test]
    fn the_older_of_equals_goes_first() {
        assert_eq!(chosen(&[candidate(90, 500), candidate(10, 500), candidate(50, 500)]), Some(10));
        // A young one must be much deader than an old one.
        assert_eq!(chosen(&[candidate(99, 300), candidate(10, 500)]), Some(10));
    }

    #[test]
    fn what_lives_is_left_alone() {
        assert_eq!(chosen(&[candidate(1, 1000), candidate(2, 940), candidate(3, 5000)]), None);
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[candidate(1, 937)]), Some(1));
        assert_eq!(chosen(&[Candidate { generation: 1, ..candidate(1, 900) }]), None);
        assert_eq!(chosen(&[Candidate { frame_bytes: 0, ..candidate(1, 0) }]), None);
    }
}
