//! Which connection may append to the core's logs now, and how much.
//!
//! What is appended stands in one line before the device. So that the next change of a connection
//! that writes little does not find thousands of others' before it, as much may stand there as the
//! device takes in [`LOG_WAIT_NANOSECONDS`], and those who write share it. Whoever may not append
//! yet waits at its own connection: its requests are not carried out, and then not received.
//!
//! Time goes in rounds: one ends when a log has written something, or has nothing to write. What a
//! connection has appended counts for its round only, so nothing has to be given back, and a client
//! that does not read its replies takes no part of the budget with it. Invariants:
//! - While a quarter of the budget is free of others, anyone may append anything.
//! - Beyond it a connection has its share of the budget in a round, and the budget is not passed,
//!   but for the first change of a connection in a round: a large one may be the one that passes
//!   it, and a small one goes beyond, up to four times the budget.

use crate::limits::{LOG_BUDGET_MAX, LOG_BUDGET_MIN, LOG_SMALL_BYTES, LOG_WAIT_NANOSECONDS};

/// For so long is measured how much the device takes, in nanoseconds.
const WINDOW_NANOSECONDS: u64 = 5_000_000;

/// What one connection has appended in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    round: u64,
    bytes: usize,
}

/// What the core's logs have to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Bytes that wait for the device.
    pub waiting: usize,
    /// Bytes that it has taken since the start.
    pub written: u64,
}

/// The shares of all connections of a core. Pure: bytes and nanoseconds in, decisions out.
#[derive(Debug)]
pub(super) struct Shares {
    round: u64,
    /// How many connections have appended in this round, and in the one before.
    writers: usize,
    writers_before: usize,
    budget: usize,
    written: u64,
    /// When the window began in which the device's rate is measured, and what was written then;
    /// `None` while nothing waits.
    window: Option<(u64, u64)>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            // No connection has a part in it.
            round: 1,
            writers: 0,
            writers_before: 0,
            budget: LOG_BUDGET_MIN,
            written: 0,
            window: None,
        }
    }
}

impl Shares {
    /// Whether a connection with this part may append about `bytes`, while `waiting` bytes wait for
    /// the device.
    #[inline]
    pub(super) fn allows(&self, part: Part, waiting: usize, bytes: usize) -> bool {
        if waiting + bytes <= self.budget / 4 {
            return true;
        }
        if part.round != self.round {
            let most = if bytes <= LOG_SMALL_BYTES { 4 * self.budget } else { self.budget };
            return waiting < most;
        }
        part.bytes + bytes <= self.share() && waiting + bytes <= self.budget
    }

    /// What one connection may append in this round.
    fn share(&self) -> usize {
        self.budget / self.writers.max(self.writers_before).max(1)
    }

    /// Notes that a connection with this part has appended about `bytes`, if any.
    #[inline]
    pub(super) fn note(&mut self, part: &mut Part, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if part.round != self.round {
            *part = Part { round: self.round, bytes: 0 };
            self.writers += 1;
        }
        part.bytes += bytes;
    }

    /// Looks at the logs at `now`, in nanoseconds; returns whether a new round has begun.
    pub(super) fn see(&mut self, backlog: Backlog, now: u64) -> bool {
        self.measure(backlog, now);
        // What was refused when it was carried out is noted all the same, and never written: where
        // nothing waits, nothing of this round is left.
        let is_idle = backlog.waiting == 0 && self.writers > 0;
        if backlog.written == self.written && !is_idle {
            return false;
        }
        self.written = backlog.written;
        self.round += 1;
        self.writers_before = std::mem::take(&mut self.writers);
        true
    }

    /// Brings the budget nearer to what the device takes in the time that it should be.
    fn measure(&mut self, backlog: Backlog, now: u64) {
        if backlog.waiting == 0 {
            self.window = None;
            return;
        }
        let (began, written) = *self.window.get_or_insert((now, backlog.written));
        let elapsed = now.saturating_sub(began);
        if elapsed < WINDOW_NANOSECONDS {
            return;
        }
        self.window = Some((now, backlog.written));
        let taken = u128::from(backlog.written - written) * u128::from(LOG_WAIT_NANOSECONDS)
            / u128::from(elapsed);
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(LOG_BUDGET_MAX);
        self.budget = ((3 * self.budget + taken) / 4).clamp(LOG_BUDGET_MIN, LOG_BUDGET_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 1000;

    /// Appends as long as it is allowed; returns how much that was.
    fn fill(shares: &mut Shares, part: &mut Part, waiting: &mut usize, bytes: usize) -> usize {
        let before = *waiting;
        while shares.allows(*part, *waiting, bytes) {
            shares.note(part, bytes);
            *waiting += bytes;
            assert!(*waiting < 4 * LOG_BUDGET_MAX, "there is no bound");
        }
        *waiting - before
    }

    fn next_round(shares: &mut Shares, waiting: usize) {
        let written = shares.written + 1;
        assert!(shares.see(Backlog { waiting, written }, 0));
    }

    #[test]
    fn one_who_writes_alone_has_the_whole_budget() {
        let (mut shares, mut part, mut waiting) = (Shares::default(), Part::default(), 0);
        let filled = fill(&mut shares, &mut part, &mut waiting, SMALL);
        assert!((LOG_BUDGET_MIN - SMALL..=LOG_BUDGET_MIN).contains(&filled), "{filled}");
    }

    #[test]
    fn the_next_change_of_a_polite_client_finds_one_budget_before_it() {
        let mut shares = Shares::default();
        let mut greedy = [Part::default(); 64];
        let mut waiting = 0;
        for _ in 0..20 {
            for part in &mut greedy {
                fill(&mut shares, part, &mut waiting, SMALL);
            }
            // Each of the 64 has at least its first change of a round, and that goes beyond.
            assert!(waiting <= LOG_BUDGET_MIN + 64 * SMALL, "{waiting}");
            assert!(shares.allows(Part::default(), waiting, SMALL), "a newcomer finds its place");
            waiting /= 2;
            next_round(&mut shares, waiting);
        }
    }

    #[test]
    fn shares_are_equal_once_it_is_known_how_many_write() {
        let mut shares = Shares::default();
        let mut parts = [Part::default(); 16];
        for _ in 0..2 {
            parts.iter_mut().for_each(|part| shares.note(part, SMALL));
            next_round(&mut shares, 0);
        }
        // What anyone may append is used up.
        let mut waiting = LOG_BUDGET_MIN / 4;
        let share = LOG_BUDGET_MIN / 16;
        for part in &mut parts[..12] {
            let filled = fill(&mut shares, part, &mut waiting, SMALL);
            assert!((share - SMALL..=share).contains(&filled), "{filled} of {share}");
        }
    }

    #[test]
    fn what_is_large_passes_the_budget_once_and_is_not_kept_out_by_the_small() {
        let shares = Shares::default();
        let large = 2 * LOG_BUDGET_MAX;
        assert!(shares.allows(Part::default(), LOG_BUDGET_MIN - 1, large));
        assert!(!shares.allows(Part::default(), LOG_BUDGET_MIN, large));
        assert!(shares.allows(Part::default(), 4 * LOG_BUDGET_MIN - 1, LOG_SMALL_BYTES));
        assert!(!shares.allows(Part::default(), 4 * LOG_BUDGET_MIN, 1));
    }

    #[test]
    fn a_share_that_is_used_up_comes_back_when_something_was_written() {
        let (mut shares, mut part, mut waiting) = (Shares::default(), Part::default(), 0);
        fill(&mut shares, &mut part, &mut waiting, SMALL);
        let backlog = Backlog { waiting, written: 0 };
        assert!(!shares.see(backlog, 0) && !shares.allows(part, waiting, SMALL));
        assert!(shares.see(Backlog { written: 1, ..backlog }, 0));
        assert!(shares.allows(part, waiting, SMALL));
    }

    #[test]
    fn who_appends_nothing_of_what_was_noted_is_not_kept_waiting() {
        let (mut shares, mut part) = (Shares::default(), Part::default());
        let large = 2 * LOG_BUDGET_MIN;
        for _ in 0..10 {
            assert!(shares.allows(part, 0, large));
            shares.note(&mut part, large);
            assert!(!shares.allows(part, 0, large), "once in a round");
            // It was refused: the log has nothing to write.
            assert!(shares.see(Backlog::default(), 0));
        }
        assert!(!shares.see(Backlog::default(), 0), "nobody has written");
    }

    #[test]
    fn the_budget_follows_what_the_device_takes() {
        let mut shares = Shares::default();
        let mut see = |bytes_per_second: u64, windows: u64| {
            let (start, mut now) = (shares.written, 0);
            shares.see(Backlog { waiting: 0, written: start }, 0);
            for _ in 0..=windows {
                let written = start + bytes_per_second * now / 1_000_000_000;
                shares.see(Backlog { waiting: 1, written }, now);
                now += WINDOW_NANOSECONDS;
            }
            shares.budget
        };
        let in_time = |rate: u64| (rate * LOG_WAIT_NANOSECONDS / 1_000_000_000) as usize;
        let rate = 300_000_000;
        assert!(in_time(rate).abs_diff(see(rate, 50)) < 10, "{} bytes", in_time(rate));
        assert!(LOG_BUDGET_MAX - see(1 << 34, 50) < 10);
        assert_eq!(see(1, 50), LOG_BUDGET_MIN);
    }
}
