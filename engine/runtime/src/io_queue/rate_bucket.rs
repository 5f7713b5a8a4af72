//! A rate that is kept on average: what goes beyond it is paid for by waiting afterwards.
//!
//! Something may go as long as nothing is owed, whatever its size; it is then owed until time has
//! paid it off. So any amount gets through, and none has to wait for having been saved up for.

const NANOSECONDS_PER_SECOND: i128 = 1_000_000_000;

/// One rate, in units a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateBucket {
    rate: u64,
    /// How long what is not used is kept, in nanoseconds.
    burst: u64,
    /// What may go, or, below zero, what is owed; in billionths of a unit.
    balance: i128,
    /// The time whose part is in the balance, in nanoseconds.
    paid_until: u64,
}

impl RateBucket {
    /// `rate` units a second, at least one. What was not used in the last `burst` nanoseconds may
    /// go at once.
    pub(super) fn new(rate: u64, burst: u64, now: u64) -> Self {
        let rate = rate.max(1);
        let balance = i128::from(rate) * i128::from(burst);
        Self { rate, burst, balance, paid_until: now }
    }

    /// Changes the rate from now on; what is owed stays owed.
    pub(super) fn set_rate(&mut self, rate: u64, now: u64) {
        self.pay(now);
        self.rate = rate.max(1);
        self.balance = self.balance.min(self.balance_max());
    }

    /// So many units go. Returns for how many nanoseconds nothing more may go, if so.
    pub(super) fn charge(&mut self, units: u64, now: u64) -> Option<u64> {
        self.pay(now);
        self.balance -= i128::from(units) * NANOSECONDS_PER_SECOND;
        if self.balance >= 0 {
            return None;
        }
        let owed = self.balance.unsigned_abs();
        Some(u64::try_from(owed.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }

    /// So many units, charged just now, did not go. Returns whether nothing is owed without them.
    pub(super) fn undo(&mut self, units: u64) -> bool {
        let balance = self.balance + i128::from(units) * NANOSECONDS_PER_SECOND;
        self.balance = balance.min(self.balance_max());
        self.balance >= 0
    }

    fn pay(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.paid_until);
        self.paid_until = now;
        let earned = i128::from(elapsed) * i128::from(self.rate);
        self.balance = self.balance.saturating_add(earned).min(self.balance_max());
    }

    fn balance_max(&self) -> i128 {
        i128::from(self.rate) * i128::from(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_large_amount_goes_and_is_paid_for_afterwards() {
        let mut bucket = RateBucket::new(1_000, 0, 0);
        assert_eq!(bucket.charge(500, 0), Some(SECOND / 2));
        assert_eq!(bucket.charge(500, SECOND / 4), Some(3 * SECOND / 4));
        assert_eq!(bucket.charge(0, SECOND), None);
        bucket.charge(100, SECOND);
        bucket.charge(50, SECOND);
        assert!(!bucket.undo(50), "100 are owed");
        assert!(bucket.undo(100));
        assert_eq!(bucket.charge(0, SECOND), None);
    }

    #[test]
    fn the_slowest_rate_is_paid_in_the_smallest_steps() {
        let mut bucket = RateBucket::new(1, 0, 0);
        bucket.charge(1, 0);
        let due = (1..=SECOND).step_by(1_000_000).find(|now| bucket.charge(0, *now).is_none());
        assert_eq!(due, None, "a step short of a second");
        assert_eq!(bucket.charge(0, SECOND), None);
    }

    #[test]
    fn a_clock_that_is_set_back_costs_what_it_is_set_back_by_and_no_more() {
        let mut bucket = RateBucket::new(1_000, 0, 100 * SECOND);
        assert_eq!(bucket.charge(1_000, 100 * SECOND), Some(SECOND));
        assert_eq!(bucket.charge(0, SECOND), Some(SECOND));
        assert_eq!(bucket.charge(0, 2 * SECOND), None);
    }

    proptest! {
        #[test]
        fn the_rate_is_kept_over_any_time(
            rate in 1u64..1 << 40, burst in 0..SECOND,
            amounts in proptest::collection::vec((0u64..1 << 22, 0..SECOND), 1..100),
        ) {
            let mut bucket = RateBucket::new(rate, burst, 0);
            let (mut now, mut sum) = (0, 0u64);
            for (units, pause) in amounts {
                let wait = bucket.charge(units, now).unwrap_or(0);
                let before = u128::from(sum) * u128::from(SECOND);
                prop_assert!(before <= u128::from(rate) * u128::from(now + burst));
                sum += units;
                now += wait.saturating_add(pause);
                prop_assume!(now < 1 << 50);
            }
        }
    }
}
