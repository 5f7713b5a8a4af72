//! How long the next start would replay the log. Pure: bytes and nanoseconds in, an estimate out.

/// A replay of less than this is no measure: opening the files takes most of its time.
const MEASURE_BYTES_MIN: u64 = 64 << 20;

/// Bytes a second that a replay is taken to do where nothing was measured. A slow device reads
/// faster, and so does one core that takes records of some hundred bytes apart.
const BYTES_PER_SECOND_DEFAULT: u64 = 100 << 20;

const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// The replay of this start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplayRate {
    /// Bytes of log that were replayed.
    pub bytes: u64,
    /// How long that took, opening the segments included.
    pub nanoseconds: u64,
}

impl ReplayRate {
    /// How long replaying `bytes` would take at this rate, in nanoseconds.
    pub(super) fn nanoseconds_for(self, bytes: u64) -> u64 {
        let per_second = if self.bytes >= MEASURE_BYTES_MIN && self.nanoseconds > 0 {
            self.bytes as f64 / (self.nanoseconds as f64 / NANOSECONDS_PER_SECOND)
        } else {
            BYTES_PER_SECOND_DEFAULT as f64
        };
        (bytes as f64 / per_second * NANOSECONDS_PER_SECOND) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_replay_is_a_measure_and_a_short_one_is_not() {
        let second = 1_000_000_000;
        let measured = ReplayRate { bytes: 200 << 20, nanoseconds: second / 2 };
        assert_eq!(measured.nanoseconds_for(100 << 20), second / 4);
        for short in [
            ReplayRate::default(),
            ReplayRate { bytes: (64 << 20) - 1, nanoseconds: 1 },
            ReplayRate { bytes: u64::MAX, nanoseconds: 0 },
        ] {
            assert_eq!(short.nanoseconds_for(50 << 20), second / 2, "{short:?}");
        }
        assert_eq!(measured.nanoseconds_for(0), 0);
    }
}
