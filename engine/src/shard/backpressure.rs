//! How much writers are slowed while merges are behind.
//!
//! From [`DEBT_SLOW`] on, answers to writers go in rounds. The closer the debt is to [`DEBT_MAX`],
//! where memtables are no longer written out, the longer the rounds are, and the smaller a part of
//! those who wait goes in each. So the rate of clients who wait for answers falls smoothly to what
//! merges can keep up with, and there is no moment at which nobody is answered. That end stays as
//! the last resort for clients who do not wait.

use larder_runtime::env::Env;

use super::Shard;
use crate::index::compaction::picker::DEBT_MAX;

/// The debt up to which nobody is slowed.
const DEBT_SLOW: u32 = DEBT_MAX / 2;

/// The length of a round where the debt is as large as it may be, in nanoseconds: in each tenth of
/// a second something is answered.
const ROUND_NANOSECONDS_MAX: u64 = 80_000_000;

/// At least one in so many of those who wait is let go in a round.
const WAITING_ROUNDS_MAX: u64 = 16;

/// How far a debt is from where writers are slowed to the largest, and how far that is.
fn over(debt: u32) -> (u64, u64) {
    let over = debt.clamp(DEBT_SLOW, DEBT_MAX) - DEBT_SLOW;
    (u64::from(over), u64::from(DEBT_MAX - DEBT_SLOW))
}

/// How long a round is with this debt, in nanoseconds.
fn round_nanoseconds(debt: u32) -> u64 {
    let (over, whole) = over(debt);
    ROUND_NANOSECONDS_MAX * over * over / (whole * whole)
}

/// How many of so many who wait are let go in a round.
fn let_go(debt: u32, waiting: u64) -> u64 {
    let (over, whole) = over(debt);
    let part = u128::from(waiting) * u128::from(whole - over) / u128::from(whole);
    let part = u64::try_from(part).expect("a part is less than the whole");
    part.max(waiting.div_ceil(WAITING_ROUNDS_MAX))
}

/// Up to where answers are held back because of the debt of compaction. Pure: log sequences and
/// nanoseconds in, a log sequence out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backpressure {
    debt: u32,
    /// Answers that need the log beyond this are held back, while writers are slowed.
    held_end: Option<u64>,
    round_began: u64,
    held_since: Option<u64>,
    holds: u64,
    held_nanoseconds: u64,
}

impl Backpressure {
    /// Notes the debt at `now`, in nanoseconds.
    pub(super) fn see(&mut self, debt: u32, now: u64) {
        self.debt = debt;
        if !self.is_kept() {
            self.held_end = None;
            self.release(now);
        }
    }

    /// Whether writers are slowed at all.
    pub(super) fn is_kept(&self) -> bool {
        round_nanoseconds(self.debt) > 0
    }

    /// The log position up to which answers may be sent at `now`, in nanoseconds, if without
    /// backpressure it were `end`.
    pub(super) fn acknowledged_end(&mut self, end: u64, now: u64) -> u64 {
        if !self.is_kept() {
            return end;
        }
        // What was written before goes as it would have.
        let mut held_end = self.held_end.unwrap_or(end);
        if now.saturating_sub(self.round_began) >= round_nanoseconds(self.debt) {
            self.round_began = now;
            held_end += let_go(self.debt, end.saturating_sub(held_end));
        }
        self.held_end = Some(held_end);
        if held_end >= end {
            self.release(now);
        } else if self.held_since.is_none() {
            self.held_since = Some(now);
            self.holds += 1;
        }
        held_end.min(end)
    }

    fn release(&mut self, now: u64) {
        if let Some(since) = self.held_since.take() {
            self.held_nanoseconds += now.saturating_sub(since);
        }
    }

    /// How often answers were held back, and for how many nanoseconds in all.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.holds, self.held_nanoseconds)
    }
}

impl<E: Env> Shard<E> {
    /// Notes whether writers go at the collector's pace, and how far merges are behind; where
    /// merges cannot go on, nobody waits for them.
    pub(super) fn note_pace(&self, is_space_scarce: bool) {
        let has_stuck = self.state.borrow().full.merges;
        let mut backpressure = self.pacing.backpressure.get();
        backpressure.see(if has_stuck { 0 } else { self.index.debt() }, self.env.now());
        self.pacing.backpressure.set(backpressure);
        let is_kept = is_space_scarce || backpressure.is_kept();
        if self.pacing.is_kept.replace(is_kept) != is_kept {
            self.work.notify();
            self.log.changed().notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_grow_smoothly_up_to_the_largest_debt() {
        assert_eq!(round_nanoseconds(0), 0);
        assert_eq!(round_nanoseconds(DEBT_SLOW), 0);
        assert_eq!(round_nanoseconds(DEBT_MAX * 3 / 4), ROUND_NANOSECONDS_MAX / 4);
        assert_eq!(round_nanoseconds(DEBT_MAX), ROUND_NANOSECONDS_MAX);
        assert_eq!(round_nanoseconds(u32::MAX), ROUND_NANOSECONDS_MAX);
        let rounds: Vec<u64> = (DEBT_SLOW..=DEBT_MAX).map(round_nanoseconds).collect();
        let steps = rounds.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(rounds.is_sorted() && steps.max() < Some(ROUND_NANOSECONDS_MAX / 100));
    }

    #[test]
    fn the_larger_the_debt_the_fewer_go_but_one_always_does() {
        let gone = [DEBT_SLOW, DEBT_MAX * 3 / 4, DEBT_MAX].map(|debt| let_go(debt, 1600));
        assert_eq!(gone, [1600, 800, 100]);
        assert_eq!([0, 1, 17].map(|waiting| let_go(DEBT_MAX, waiting)), [0, 1, 2]);
        assert_eq!(let_go(DEBT_SLOW, u64::MAX), u64::MAX);
    }

    /// How many answers so many clients get in a second, each of which writes again when it has
    /// got one; none in a tenth of a second is a failure.
    fn answers(debt: u32, clients: u64) -> u64 {
        let mut backpressure = Backpressure::default();
        backpressure.see(debt, 0);
        let mut answered = 0;
        let mut last = 0;
        for now in (0..1_000_000_000).step_by(100_000) {
            let before = answered;
            answered = backpressure.acknowledged_end(answered + clients, now);
            last = if answered > before { now } else { last };
            assert!(now - last < 100_000_000, "nobody was answered since {last}");
        }
        answered
    }

    #[test]
    fn writers_slow_down_smoothly_and_never_stop() {
        let debts = (DEBT_SLOW..=DEBT_MAX).step_by(50);
        let answers: Vec<u64> = debts.map(|debt| answers(debt, 64)).collect();
        assert!(answers.is_sorted_by(|less, more| less > more), "{answers:?}");
        assert!(answers[0] >= 600_000 && answers[10] < 150, "{answers:?}");
    }

    #[test]
    fn what_was_held_back_goes_when_merges_have_caught_up() {
        let mut backpressure = Backpressure::default();
        assert_eq!(backpressure.acknowledged_end(7, 0), 7);
        backpressure.see(DEBT_MAX, 1);
        assert_eq!(backpressure.acknowledged_end(7, 1), 7, "it was written before");
        assert_eq!(backpressure.acknowledged_end(100, 2), 7);
        assert_eq!(backpressure.acknowledged_end(5, 3), 5, "never more than there is");
        backpressure.see(DEBT_SLOW, 12);
        assert!(!backpressure.is_kept());
        assert_eq!(backpressure.acknowledged_end(100, 13), 100);
        assert_eq!(backpressure.totals(), (1, 1));
    }
}
