//! The estimate of what lives, made steady. Pure: bytes and nanoseconds in, bytes out.
//!
//! The estimate falls a little with every memtable that is written out, and rises when a merge has
//! found what really was hidden. If the cap went along, writers would wait for whole segments of
//! garbage whenever it falls, and files would be given back that are made anew, and written full of
//! zeros, when it rises. So the estimate is followed upwards at once, and downwards in half a
//! minute, which is some merges long, but never stays behind by more than a small part.

/// Of the difference one part in e is left after so long, in nanoseconds.
const FOLLOW_NANOSECONDS: u64 = 30_000_000_000;

/// How often it is followed, in nanoseconds: what falls in between is a part large enough to count.
const STEP_NANOSECONDS: u64 = 10_000_000;

/// It stays behind by one part in so many at most.
const BEHIND_PART: u64 = 64;

/// What lived lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteadyLive {
    bytes: u64,
    /// When it was followed for the last time.
    at: u64,
}

impl SteadyLive {
    /// What to take for living at `now`, in nanoseconds, where `live` bytes are estimated to.
    pub fn see(&mut self, live: u64, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        if elapsed >= STEP_NANOSECONDS {
            self.at = now;
            let behind = u128::from(self.bytes.saturating_sub(live));
            let fall = behind * u128::from(elapsed) / u128::from(FOLLOW_NANOSECONDS);
            // After a longer time it may fall too far: the clamp below raises it again.
            self.bytes = self.bytes.saturating_sub(u64::try_from(fall).unwrap_or(u64::MAX));
        }
        self.bytes = self.bytes.clamp(live, live.saturating_add(live / BEHIND_PART));
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_rises_at_once_and_falls_in_half_a_minute() {
        let mut steady = SteadyLive::default();
        assert_eq!(steady.see(1 << 30, 0), 1 << 30);
        assert_eq!(steady.see(1010 << 20, 1), 1 << 30, "time has to pass");
        let mut now = 0;
        let mut falls = |until: u64| {
            let mut bytes = 0;
            while now < until {
                now += STEP_NANOSECONDS / 3;
                bytes = steady.see(1010 << 20, now);
            }
            bytes - (1010 << 20)
        };
        let (six, thirty, long) = (falls(6 * SECOND), falls(30 * SECOND), falls(180 * SECOND));
        assert!((11 << 20..12 << 20).contains(&six), "{six}");
        assert!((5 << 20..6 << 20).contains(&thirty), "{thirty}");
        assert!(long < 64 << 10, "{long}");
        assert_eq!(steady.see(1 << 30, now), 1 << 30);
    }

    #[test]
    fn it_is_never_far_behind() {
        let mut steady = SteadyLive::default();
        steady.see(1 << 30, 0);
        assert_eq!(steady.see(64 << 20, 1), 65 << 20, "most was deleted");
        assert_eq!(steady.see(64 << 20, u64::MAX), 64 << 20, "after a long sleep");
        assert_eq!(steady.see(0, 0), 0);
        assert_eq!(steady.see(u64::MAX, 1), u64::MAX);
    }
}
