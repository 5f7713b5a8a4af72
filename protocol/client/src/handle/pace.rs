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
