//! Whether a core that has nothing to do should spin for a while before it sleeps.
//!
//! Spinning pays when work comes back sooner than a sleep and a wake-up take. The mean of the
//! recent idle gaps decides: `mean += (gap - mean) / 8`, spin while `mean <= spin_max`. A gap
//! counts for at most 64 times `spin_max`, so an idle core stops spinning after one long gap and
//! a busy one starts again after some forty short ones.
//!
//! While the write of a group commit is in the ring, a client waits for it and the device needs no
//! processor: the core spins, and saves a wake-up between the write and the flush that follows.
//! While a flush is in the ring it never spins, because a thread of the kernel's carries the flush
//! out and may need this very processor. Nor does it spin where others want its processor: whom it
//! waits for may be among them.

const GAP_MAX_FACTOR: u64 = 64;
const MEAN_WEIGHT: u64 = 8;

/// More than a second of spinning is a mistake.
const SPIN_MAX: u64 = 1_000_000_000;

/// A core spins up to this many times `spin_max` while the write of a group commit is in the ring.
const COMMIT_FACTOR: u64 = 4;

/// What a core without work may be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing in particular: requests, reads, timers.
    Anything,
    /// The write of a group commit.
    CommitWrite,
    /// A flush, perhaps among other things.
    Flush,
}

pub(crate) struct Idle {
    spin_max: u64,
    mean_gap: u64,
    is_shared: bool,
}

impl Idle {
    /// Spins for at most `spin_max` nanoseconds at a time; 0 never spins.
    pub(crate) fn new(spin_max: u64) -> Self {
        let spin_max = spin_max.min(SPIN_MAX);
        let mean_gap = spin_max.saturating_mul(GAP_MAX_FACTOR);
        Self { spin_max, mean_gap, is_shared: false }
    }

    /// For how many nanoseconds to spin now; 0 for not at all.
    pub(crate) fn spin_budget(&self, expected: Expected) -> u64 {
        match expected {
            _ if self.is_shared => 0,
            Expected::Flush => 0,
            Expected::CommitWrite => self.spin_max * COMMIT_FACTOR,
            Expected::Anything if self.mean_gap <= self.spin_max => self.spin_max,
            Expected::Anything => 0,
        }
    }

    /// Notes that work came `gap` nanoseconds after the core had none left. A wait for a flush says
    /// nothing of whether spinning pays, because the core never spins then.
    pub(crate) fn note_gap(&mut self, expected: Expected, gap: u64) {
        if expected == Expected::Flush {
            return;
        }
        let gap = gap.min(self.spin_max.saturating_mul(GAP_MAX_FACTOR));
        let weighted = self.mean_gap.saturating_mul(MEAN_WEIGHT - 1).saturating_add(gap);
        self.mean_gap = weighted / MEAN_WEIGHT;
    }

    /// Notes whether others want the core's processor.
    pub(crate) fn set_shared(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Notes that work came when it was due: spinning could not have found it earlier, however soon
    /// that was, so it counts as the longest gap.
    pub(crate) fn note_due(&mut self) {
        self.note_gap(Expected::Anything, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_spin_for_what_is_due_at_a_known_time() {
        let mut idle = Idle::new(50_000);
        (0..100).for_each(|_| idle.note_gap(Expected::Anything, 5_000));
        assert_eq!(idle.spin_budget(Expected::Anything), 50_000);
        idle.note_due();
        assert_eq!(idle.spin_budget(Expected::Anything), 0);
    }

    #[test]
    fn spins_only_while_work_comes_back_soon() {
        let mut idle = Idle::new(50_000);
        assert_eq!(idle.spin_budget(Expected::Anything), 0, "nothing is known at first");
        let short_gaps = (1..100).find(|_| {
            idle.note_gap(Expected::Anything, 5_000);
            idle.spin_budget(Expected::Anything) == 50_000
        });
        assert!(short_gaps.is_some_and(|count| count > 5), "{short_gaps:?}");
        idle.note_gap(Expected::Flush, 1_000_000_000);
        assert_eq!(idle.spin_budget(Expected::Anything), 50_000, "a flush says nothing");
        idle.note_gap(Expected::Anything, 1_000_000_000);
        assert_eq!(idle.spin_budget(Expected::Anything), 0, "one long gap is enough to stop");
        assert_eq!(idle.spin_budget(Expected::CommitWrite), 200_000, "but a commit is worth it");
        assert_eq!(idle.spin_budget(Expected::Flush), 0, "a flush needs a processor");
    }

    #[test]
    fn does_not_keep_its_processor_from_others() {
        let mut idle = Idle::new(50_000);
        (0..100).for_each(|_| idle.note_gap(Expected::Anything, 5_000));
        idle.set_shared(true);
        let kinds = [Expected::Anything, Expected::CommitWrite, Expected::Flush];
        assert_eq!(kinds.map(|expected| idle.spin_budget(expected)), [0; 3]);
        idle.set_shared(false);
        assert_eq!(idle.spin_budget(Expected::Anything), 50_000);
    }

    #[test]
    fn zero_never_spins() {
        let mut idle = Idle::new(0);
        idle.note_gap(Expected::Anything, 0);
        assert_eq!(
            (idle.spin_budget(Expected::Anything), idle.spin_budget(Expected::CommitWrite)),
            (0, 0)
        );
    }
}
