//! The longest time in which no operation was completed although some were due.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A time without a completed operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stall {
    /// How long it was, in nanoseconds.
    pub(super) length: u64,
    /// When it ended, in nanoseconds since the start.
    pub(super) end: u64,
}

/// A stall as it is reported.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StallSummary {
    /// How long it was, in milliseconds.
    pub milliseconds: f64,
    /// When it began, in seconds since the workload's start.
    pub at_seconds: f64,
}

impl From<Stall> for StallSummary {
    fn from(stall: Stall) -> Self {
        Self {
            milliseconds: stall.length as f64 / 1e6,
            at_seconds: stall.end.saturating_sub(stall.length) as f64 / 1e9,
        }
    }
}

/// Watches one shard. Times are nanoseconds since the start.
#[derive(Debug, Default)]
pub(super) struct StallClock {
    /// Since when something was due and nothing was completed; `None` while nothing is due.
    waiting_since: Option<u64>,
    last: u64,
    longest: Stall,
}

impl StallClock {
    /// An operation is due since `since`. If none was due before it counts from then, but not from
    /// before the last completion, after which it may have been late already.
    pub(super) fn due(&mut self, since: u64) {
        self.waiting_since.get_or_insert(since.max(self.last));
    }

    /// Operations were completed at `now`; `is_waiting` says whether others are due still: those in
    /// flight, and in a closed loop the next one. Returns since when something was due.
    pub(super) fn completed(&mut self, now: u64, is_waiting: bool) -> u64 {
        let since = self.waiting_since.unwrap_or(now);
        let stall = Stall { length: now.saturating_sub(since), end: now };
        self.longest = self.longest.max(stall);
        self.waiting_since = is_waiting.then_some(now);
        self.last = now;
        since
    }

    pub(super) fn longest(&self) -> Stall {
        self.longest
    }
}

/// When any shard completed an operation last, shared by all threads.
#[derive(Debug, Default)]
pub(super) struct LastCompletion(AtomicU64);

impl LastCompletion {
    /// A new phase starts, whose times begin at zero.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// An operation was completed at `now` on a shard where some were due since `since`. Returns the
    /// time before it in which no shard completed any.
    pub(super) fn completed(&self, now: u64, since: u64) -> Stall {
        let before = self.0.fetch_max(now, Ordering::Relaxed);
        Stall { length: now.saturating_sub(before.max(since)), end: now }
    }

    pub(super) fn at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_without_a_completion_counts_while_operations_are_due() {
        let mut clock = StallClock::default();
        clock.due(100);
        clock.due(150);
        clock.completed(160, true);
        clock.completed(400, true);
        clock.completed(450, false);
        assert_eq!(clock.longest(), Stall { length: 240, end: 400 });
        clock.due(9_000);
        assert_eq!(clock.completed(9_100, false), 9_000);
        assert_eq!(clock.longest().length, 240, "from 450 to 9,000 nothing was due");
        clock.due(10_000);
        clock.completed(10_500, false);
        assert_eq!(clock.longest(), Stall { length: 500, end: 10_500 });
        clock.due(2_000);
        clock.completed(10_510, false);
        assert_eq!(clock.longest().length, 500, "late, but one was completed 10 before");
    }

    #[test]
    fn a_shard_that_goes_on_hides_the_others_stall() {
        let last = LastCompletion::default();
        assert_eq!(last.completed(100, 0).length, 100);
        for now in [200, 300, 400] {
            assert_eq!(last.completed(now, now - 100).length, 100);
        }
        assert_eq!(last.completed(410, 100), Stall { length: 10, end: 410 });
        assert_eq!(last.completed(405, 404).length, 0, "seen late by another thread");
        assert_eq!(last.completed(2_000, 1_500).length, 500, "nothing was due before");
        last.reset();
        assert_eq!(last.at(), 0);
    }

    #[test]
    fn a_summary_tells_when_a_stall_began() {
        let summary = StallSummary::from(Stall { length: 50_000_000, end: 2_050_000_000 });
        assert!((summary.milliseconds - 50.0).abs() < 1e-9);
        assert!((summary.at_seconds - 2.0).abs() < 1e-9);
    }
}
