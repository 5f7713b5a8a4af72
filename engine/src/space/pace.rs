//! When writers have to wait for the collector. Pure: bytes and nanoseconds in, a decision out.
//!
//! While little headroom is left, writers may append what is left to them at the rate at which the
//! collector goes on, so that the log may grow again when it is full ([`Runway`]). A writer that
//! runs ahead is not refused: its answers are held back, so that clients who wait for answers slow
//! down by themselves, at no cost for the core. Answers are held for [`HOLD_NANOSECONDS_MAX`] at a
//! time; then what was written beyond is forgiven, and writers get a small part of what is left.

/// The longest that answers are held back at a time.
const HOLD_NANOSECONDS_MAX: u64 = 20_000_000;

/// Bytes by which writers may run ahead.
const AHEAD_BYTES: i64 = 1 << 20;

/// What part of the slack writers get for waiting in vain.
const PART_PER_HOLD: u64 = 1024;

/// How far writers and the collector have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runway {
    /// Bytes that writers may still append before they have to wait for a free segment.
    pub slack: u64,
    /// Bytes that the collector has to go through until the log may take another segment.
    pub work: u64,
}

impl Runway {
    /// The bytes that writers may append while the collector goes through `passed`, so that both
    /// get to the end at the same time.
    fn share(self, passed: u64) -> u64 {
        let share = u128::from(passed) * u128::from(self.slack) / u128::from(self.work.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// How much of what the collector goes through it frees, of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gain {
    passed: u64,
    dead: u64,
}

impl Gain {
    /// Notes `bytes` that were gone through, `dead` of which are freed; after about `memory` bytes
    /// more this counts half.
    pub fn see(&mut self, bytes: u64, dead: u64, memory: u64) {
        self.passed = self.passed.saturating_add(bytes);
        self.dead = self.dead.saturating_add(dead.min(bytes));
        if self.passed > memory.saturating_mul(2) {
            self.passed /= 2;
            self.dead /= 2;
        }
    }

    /// How many of so many bytes are likely to live.
    fn live_in(self, bytes: u64) -> u64 {
        let live = u128::from(self.passed - self.dead) * u128::from(bytes);
        u64::try_from(live / u128::from(self.passed.max(1))).unwrap_or(u64::MAX)
    }
}

/// Where the collector is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collecting {
    /// Bytes of its segment that it has not gone through.
    pub left: u64,
    /// What it can copy before it needs another segment, in bytes.
    pub room: u64,
    /// What it frees.
    pub gain: Gain,
}

/// So many segments are looked ahead at most.
const SEGMENTS_AHEAD_MAX: u64 = 64;

impl Collecting {
    /// Bytes to go through until `missing` more are free. Space comes and goes in whole segments of
    /// `segment` bytes: one is freed when all of it was gone through, and another taken whenever
    /// the copies have filled the last.
    pub(super) fn work_for(self, missing: u64, segment: u64) -> u64 {
        let (mut work, mut room) = (self.left, self.room);
        let (mut freed, mut taken) = (0u64, 0u64);
        let mut copied = self.gain.live_in(self.left);
        for _ in 0..SEGMENTS_AHEAD_MAX {
            let beyond = copied.saturating_sub(room).div_ceil(segment.max(1));
            taken = taken.saturating_add(beyond.saturating_mul(segment));
            room = room.saturating_add(beyond.saturating_mul(segment)).saturating_sub(copied);
            freed = freed.saturating_add(segment);
            if freed >= missing.saturating_add(taken) {
                break;
            }
            work = work.saturating_add(segment);
            copied = self.gain.live_in(segment);
        }
        work
    }
}

/// Who is ahead, writers or the collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Bytes written less those that writers were allowed, while the pace is kept.
    ahead: i64,
    is_kept: bool,
    runway: Runway,
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

    /// Notes how far it is for both.
    pub fn see(&mut self, runway: Runway) {
        self.runway = runway;
    }

    /// Notes bytes that were written.
    pub fn wrote(&mut self, bytes: u64) {
        if self.is_kept {
            self.ahead = self.ahead.saturating_add_unsigned(bytes);
        }
    }

    /// Notes bytes of a segment that the collector has gone through.
    pub fn passed(&mut self, bytes: u64) {
        self.allow(self.runway.share(bytes));
    }

    fn allow(&mut self, bytes: u64) {
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
            // Whatever holds the collector up: writers slow down the more, the less is left, and
            // never stop before the end.
            let left = self.ahead.unsigned_abs().saturating_sub(AHEAD_BYTES.unsigned_abs());
            self.allow(left.saturating_add(self.runway.slack / PART_PER_HOLD));
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

    const EVEN: Runway = Runway { slack: 64 << 20, work: 64 << 20 };

    #[test]
    fn writers_that_run_ahead_wait_until_the_collector_has_caught_up() {
        let mut pace = Pace::default();
        pace.see(EVEN);
        pace.wrote(100 << 20);
        assert!(!pace.holds(0), "there is headroom");
        pace.keep(true, 0);
        pace.wrote(1 << 20);
        assert!(!pace.holds(1));
        pace.wrote(1);
        assert!(pace.holds(2) && pace.holds(3));
        pace.passed(1);
        assert!(!pace.holds(4));
        assert_eq!(pace.totals(), (1, 2));
    }

    #[test]
    fn writers_get_to_the_end_together_with_the_collector() {
        for (slack, work) in [(64, 16), (8, 64), (1, 1), (0, 5)] {
            let mut pace = Pace::default();
            pace.see(Runway { slack: slack << 20, work: work << 20 });
            pace.keep(true, 0);
            let mut written = 0;
            for now in 0..work * 4 {
                while !pace.holds(now) {
                    pace.wrote(4096);
                    written += 4096;
                }
                pace.passed(256 << 10);
            }
            let allowed = (slack << 20) + 2 * AHEAD_BYTES.unsigned_abs();
            assert!((slack << 20..=allowed).contains(&written), "{slack}: {written}");
        }
    }

    #[test]
    fn nobody_waits_for_ever_for_a_collector_that_makes_no_progress() {
        let mut pace = Pace::default();
        pace.see(EVEN);
        pace.keep(true, 0);
        pace.wrote(100 << 20);
        assert!(pace.holds(5));
        assert!(pace.holds(4 + HOLD_NANOSECONDS_MAX));
        assert!(!pace.holds(5 + HOLD_NANOSECONDS_MAX));
        pace.wrote(EVEN.slack / PART_PER_HOLD);
        assert!(!pace.holds(6 + HOLD_NANOSECONDS_MAX), "a part of the slack is free");
        pace.wrote(1);
        assert!(pace.holds(7 + HOLD_NANOSECONDS_MAX), "and no more than that");
        pace.keep(false, 8 + HOLD_NANOSECONDS_MAX);
        assert!(!pace.holds(9 + HOLD_NANOSECONDS_MAX));
    }

    #[test]
    fn the_gain_is_that_of_late() {
        let mut gain = Gain::default();
        assert_eq!(gain.live_in(100), 0, "nothing is known yet");
        gain.see(1000, 250, 1000);
        assert_eq!(gain.live_in(100), 75);
        for _ in 0..20 {
            gain.see(1000, 500, 1000);
        }
        assert!((50..53).contains(&gain.live_in(100)), "{gain:?}");
        gain.see(u64::MAX, 0, u64::MAX);
        assert_eq!(gain.live_in(100), 99);
    }

    #[test]
    fn space_comes_and_goes_in_whole_segments() {
        let mut gain = Gain::default();
        gain.see(1000, 500, 1 << 20);
        let work = |left, room, missing| Collecting { left, room, gain }.work_for(missing, 1000);
        assert_eq!(work(300, 1000, 1), 300, "its own segment is enough");
        assert_eq!(work(300, 1000, 1000), 300);
        assert_eq!(work(300, 1000, 1001), 1300);
        assert_eq!(work(1000, 499, 1), 2000, "the copies take as much as is freed");
        assert_eq!(work(1000, 500, 1), 1000);
        // 500 are copied each time: room for the first two, then one in two goes for copies.
        assert_eq!(work(1000, 1000, 2000), 2000);
        assert_eq!(work(1000, 1000, 3000), 4000);
        let nothing = Collecting { left: 1000, ..Collecting::default() };
        assert_eq!(nothing.work_for(3000, 1000), 3000);
        let mut all_lives = Gain::default();
        all_lives.see(1000, 0, 1 << 20);
        let never = Collecting { left: 1, room: 0, gain: all_lives };
        assert_eq!(never.work_for(1, 1000), 1 + SEGMENTS_AHEAD_MAX * 1000);
    }

    #[test]
    fn what_was_allowed_in_advance_counts_a_little() {
        let mut pace = Pace::default();
        pace.see(Runway { slack: u64::MAX, work: 0 });
        pace.keep(true, 0);
        pace.passed(u64::MAX);
        pace.wrote(2 << 20);
        assert!(!pace.holds(1));
        pace.wrote(1);
        assert!(pace.holds(2));
    }
}
