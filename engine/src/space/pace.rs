//! When writers have to wait for the collector. Pure: bytes and nanoseconds in, a decision out.
//!
//! While little headroom is left, every byte that is written has to be paid for by a byte that the
//! collector has passed over as dead. A writer that runs ahead is not refused: its answers are held
//! back, so that clients who wait for answers slow down by themselves, at no cost for the core. No
//! answer is held longer than [`HOLD_NANOSECONDS_MAX`]: where nothing comes of collecting, the
//! limits of space decide, not the pace.

/// The longest that answers are held back without any progress of the collector.
const HOLD_NANOSECONDS_MAX: u64 = 10_000_000;

/// Bytes by which writers may run ahead.
const AHEAD_BYTES: i64 = 2 << 20;

/// Who is ahead, writers or the collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Bytes written less bytes reclaimed, while the pace is kept.
    ahead: i64,
    is_kept: bool,
    /// Since when answers are held back.
    held_since: Option<u64>,
    /// How often answers were held back.
    holds: u64,
    held_nanoseconds: u64,
}

impl Pace {
    /// Begins or ends to keep the pace.
    pub fn keep(&mut self, is_kept: bool, now: u64) {
        if self.is_kept != is_kept {
            self.is_kept = is_kept;
            self.ahead = 0;
            self.release(now);
        }
    }

    /// Notes bytes that were written.
    pub fn wrote(&mut self, bytes: u64) {
        if self.is_kept {
            self.ahead = self.ahead.saturating_add_unsigned(bytes);
        }
    }

    /// Notes bytes that were found dead in a segment that is being collected.
    pub fn reclaimed(&mut self, bytes: u64) {
        self.ahead = self.ahead.saturating_sub_unsigned(bytes).max(-AHEAD_BYTES);
    }

    /// Whether answers to writers are held back at `now`, in nanoseconds.
    pub fn holds(&mut self, now: u64) -> bool {
        if !self.is_kept || self.ahead <= AHEAD_BYTES {
            self.release(now);
            return false;
        }
        let since = *self.held_since.get_or_insert_with(|| {
            self.holds += 1;
            now
        });
        if now.saturating_sub(since) >= HOLD_NANOSECONDS_MAX {
            self.ahead = 0;
            self.release(now);
            return false;
        }
        true
    }

    fn release(&mut self, now: u64) {
        if let Some(since) = self.held_since.take() {
            self.held_nanoseconds += now.saturating_sub(since);
        }
    }

    /// How often answers were held back, and for how many nanoseconds in all.
    pub fn totals(&self) -> (u64, u64) {
        (self.holds, self.held_nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_that_run_ahead_wait_until_the_collector_has_caught_up() {
        let mut pace = Pace::default();
        pace.wrote(100 << 20);
        assert!(!pace.holds(0), "there is headroom");
        pace.keep(true, 0);
        pace.wrote(2 << 20);
        assert!(!pace.holds(1));
        pace.wrote(1);
        assert!(pace.holds(2) && pace.holds(3));
        pace.reclaimed(1);
        assert!(!pace.holds(4));
        assert_eq!(pace.totals(), (1, 2));
    }

    #[test]
    fn nobody_waits_for_a_collector_that_makes_no_progress() {
        let mut pace = Pace::default();
        pace.keep(true, 0);
        pace.wrote(100 << 20);
        assert!(pace.holds(5));
        assert!(pace.holds(4 + HOLD_NANOSECONDS_MAX));
        assert!(!pace.holds(5 + HOLD_NANOSECONDS_MAX));
        assert!(!pace.holds(6 + HOLD_NANOSECONDS_MAX), "the next round begins anew");
    }

    #[test]
    fn what_was_reclaimed_in_advance_counts_a_little() {
        let mut pace = Pace::default();
        pace.keep(true, 0);
        pace.reclaimed(1 << 40);
        pace.wrote(4 << 20);
        assert!(!pace.holds(1));
        pace.wrote(1);
        assert!(pace.holds(2));
        pace.keep(false, 3);
        assert!(!pace.holds(4));
    }
}
