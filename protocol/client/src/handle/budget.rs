//! How often and when something is tried again: budgets, delays, and the chance in them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Hundredths of a token.
const TOKEN: i64 = 100;

/// A bucket of tokens that successes fill slowly and extra requests empty: in an outage it runs
/// dry, so that a client adds no more than a fixed share to the load of a node that is down
/// already.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    hundredths: AtomicI64,
    most: i64,
    credit: i64,
}

impl TokenBucket {
    /// A full bucket of `tokens`, into which each success puts `percent` of a token.
    pub(crate) fn new(tokens: u32, percent: u32) -> Self {
        let most = i64::from(tokens) * TOKEN;
        Self { hundredths: AtomicI64::new(most), most, credit: i64::from(percent.min(100)) }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        let taken = |level: i64| (level >= TOKEN).then(|| level - TOKEN);
        self.hundredths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Notes a success.
    pub(crate) fn credit(&self) {
        // A full bucket, which is the usual case, costs no write to a line that threads share.
        if self.hundredths.load(Ordering::Relaxed) < self.most {
            let filled = |level: i64| (level < self.most).then(|| level + self.credit);
            let _ = self.hundredths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
        }
    }
}

/// Numbers that nobody guesses and nothing depends on.
#[derive(Debug)]
pub(crate) struct Dice {
    state: AtomicU64,
}

impl Dice {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU64::new(RandomState::new().build_hasher().finish()) }
    }

    /// Any number.
    pub(crate) fn roll(&self) -> u64 {
        mix(self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }
}

/// SplitMix64's finalizer: every bit of the result depends on every bit of `number`.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// The bound of the first delay.
    pub first: Duration,
    /// The bound of all.
    pub most: Duration,
}

impl Backoff {
    /// A delay after `failures` in a row: anything up to a bound that doubles with each. So clients
    /// that have failed together do not come back together.
    pub(crate) fn delay(&self, failures: u32, dice: &Dice) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(20));
        let bound = doubled.min(self.most).as_micros() as u64;
        Duration::from_micros(dice.roll() % (bound + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_bucket_is_filled_by_successes_alone() {
        let bucket = TokenBucket::new(3, 10);
        assert_eq!((0..5).filter(|_| bucket.take()).count(), 3);
        (0..9).for_each(|_| bucket.credit());
        assert!(!bucket.take(), "nine tenths are no token");
        bucket.credit();
        assert!(bucket.take() && !bucket.take());
        (0..1000).for_each(|_| bucket.credit());
        assert_eq!((0..9).filter(|_| bucket.take()).count(), 3, "it never holds more");
    }

    #[test]
    fn delays_grow_to_their_bound_and_are_spread() {
        let backoff =
            Backoff { first: Duration::from_millis(10), most: Duration::from_millis(160) };
        let dice = Dice::new();
        for (failures, bound) in [(0, 10), (1, 20), (3, 80), (4, 160), (5, 160), (u32::MAX, 160)] {
            let delays = (0..1000).map(|_| backoff.delay(failures, &dice));
            let longest = delays.max().expect("some");
            let bound = Duration::from_millis(bound);
            assert!(longest <= bound && longest > bound / 2, "{failures}: {longest:?}");
        }
    }
}
