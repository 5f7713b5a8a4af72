//! Lines of the log that are written seldom, however often there is a reason to. Pure.

/// How often a line may be written, and how many were not.
#[derive(Clone, Copy, Debug)]
pub struct LineLimit {
    quiet_nanoseconds: u64,
    written_at: Option<u64>,
    unwritten: u64,
}

impl LineLimit {
    /// From one line to the next it takes at least `quiet_nanoseconds`.
    pub const fn new(quiet_nanoseconds: u64) -> Self {
        Self { quiet_nanoseconds, written_at: None, unwritten: 0 }
    }

    /// There is something to write at `now`, in nanoseconds of a monotonic clock. Returns how many
    /// lines were left out since the last one that was written if this one may be; it is counted
    /// among them if not.
    pub fn admit(&mut self, now: u64) -> Option<u64> {
        let is_early =
            self.written_at.is_some_and(|at| now.saturating_sub(at) < self.quiet_nanoseconds);
        if is_early {
            self.unwritten += 1;
            return None;
        }
        self.written_at = Some(now);
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn lines_come_seldom_and_say_how_many_were_left_out() {
        let mut limit = LineLimit::new(10 * SECOND);
        let lines: Vec<u64> =
            (0..=3000).filter_map(|step| limit.admit(step * SECOND / 100)).collect();
        assert_eq!(lines, [0, 999, 999, 999]);
        assert_eq!(limit.admit(1000 * SECOND), Some(0));
        assert_eq!(limit.admit(1009 * SECOND), None);
        assert_eq!(limit.admit(5 * SECOND), None, "a clock that goes back opens no gate");
        assert_eq!(limit.admit(1010 * SECOND), Some(2));
    }
}
