//! How fast the log grows. Pure: bytes and nanoseconds in, seconds out.

/// After so long what was seen before counts one part in e, in nanoseconds.
const FOLLOW_NANOSECONDS: u64 = 10_000_000_000;

/// What is shorter is no measure, in nanoseconds.
const STEP_NANOSECONDS: u64 = 100_000_000;

/// How fast the log grew of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRate {
    /// The log's bytes when it was looked at for the last time, and when that was.
    seen: Option<(u64, u64)>,
    bytes_per_second: u64,
}

impl LogRate {
    /// Notes that the log has had `bytes` in all at `now`, in nanoseconds.
    pub fn see(&mut self, bytes: u64, now: u64) {
        let Some((before, at)) = self.seen else {
            self.seen = Some((bytes, now));
            return;
        };
        let elapsed = now.saturating_sub(at);
        if elapsed < STEP_NANOSECONDS {
            return;
        }
        self.seen = Some((bytes, now));
        let weight = u128::from(elapsed.min(FOLLOW_NANOSECONDS));
        let all = u128::from(FOLLOW_NANOSECONDS);
        let grown = u128::from(bytes.saturating_sub(before)) * 1_000_000_000 / u128::from(elapsed);
        let followed = u128::from(self.bytes_per_second) * (all - weight) + grown * weight;
        self.bytes_per_second = u64::try_from(followed / all).unwrap_or(u64::MAX);
    }

    /// How long the log takes to grow by `bytes`, in seconds; [`u32::MAX`] if it does not grow.
    pub fn seconds_for(&self, bytes: u64) -> u32 {
        let seconds = bytes.checked_div(self.bytes_per_second);
        seconds.map_or(u32::MAX, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_rate_is_that_of_late() {
        let mut rate = LogRate::default();
        assert_eq!(rate.seconds_for(1), u32::MAX, "nothing was seen");
        rate.see(1 << 30, 5 * SECOND);
        assert_eq!(rate.seconds_for(1), u32::MAX, "nor how fast it grew");
        let mut bytes = 1 << 30;
        for second in 6..60 {
            bytes += 1000;
            rate.see(bytes, second * SECOND);
            rate.see(bytes, second * SECOND + STEP_NANOSECONDS / 2);
        }
        assert!((100..=101).contains(&rate.seconds_for(100_000)), "{rate:?}");
        rate.see(bytes, 62 * SECOND);
        assert!(rate.seconds_for(100_000) > 110, "{rate:?}");
        rate.see(bytes, 1000 * SECOND);
        assert_eq!(rate.seconds_for(0), u32::MAX, "it has stopped");
        rate.see(u64::MAX, 2000 * SECOND);
        assert_eq!(rate.seconds_for(0), 0);
    }
}
