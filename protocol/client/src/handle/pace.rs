//! How chunks of one value follow each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the chunks of one value on one node have in common. Several are under way at a time, and
/// over a slow link those behind wait for those before them: so the time of each begins with the
/// last answer to any of them, and ends where nothing has come for as long as a call may take.
#[derive(Debug)]
pub(crate) struct ChunkPace {
    origin: Instant,
    timeout: Duration,
    /// How many may be under way at a time.
    under_way_max: u32,
    /// When the last answer came, in microseconds since the origin.
    answered: AtomicU64,
}

impl ChunkPace {
    /// For chunks that each may take so long, and of which so many may be under way.
    pub(crate) fn new(timeout: Duration, under_way_max: usize, at: Instant) -> Self {
        let under_way_max = u32::try_from(under_way_max).unwrap_or(u32::MAX);
        Self { origin: at, timeout, under_way_max, answered: AtomicU64::new(0) }
    }

    /// One of them was answered.
    pub(crate) fn note_answer(&self, at: Instant) {
        let since = at.saturating_duration_since(self.origin).as_micros();
        self.answered.fetch_max(u64::try_from(since).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// When nobody waits any more for one that was begun at this time, as far as is known.
    pub(crate) fn deadline(&self, started: Instant) -> Instant {
        let answered = Duration::from_micros(self.answered.load(Ordering::Acquire));
        started.max(self.origin + answered) + self.timeout
    }

    /// Until when one that was begun at this time may be waited for, if each of those under way
    /// with it takes as long as it may.
    pub(crate) fn latest(&self, started: Instant) -> Instant {
        started + self.timeout * self.under_way_max
    }

    /// How long it may take from one answer to the next.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn the_time_of_a_chunk_begins_with_the_last_answer_to_any_of_them() {
        let (origin, second) = (now(), Duration::from_secs(1));
        let pace = ChunkPace::new(10 * second, 4, origin);
        assert_eq!(pace.deadline(origin), origin + 10 * second);
        pace.note_answer(origin + 7 * second);
        assert_eq!(pace.deadline(origin), origin + 17 * second);
        assert_eq!(pace.deadline(origin + 8 * second), origin + 18 * second);
        // Answers are noted by several threads, in any order.
        pace.note_answer(origin + 3 * second);
        assert_eq!(pace.deadline(origin), origin + 17 * second);
        assert_eq!(pace.timeout(), 10 * second);
    }

    #[test]
    fn who_waits_last_waits_no_longer_than_all_may_take() {
        let (origin, second) = (now(), Duration::from_secs(1));
        let pace = ChunkPace::new(10 * second, 4, origin);
        for answered in 0..4 {
            pace.note_answer(origin + 10 * answered * second);
            assert!(pace.deadline(origin) <= pace.latest(origin));
        }
        assert_eq!(pace.latest(origin + second), origin + 41 * second);
    }
}
