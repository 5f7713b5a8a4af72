//! What the log says of refused writes. Pure.
//!
//! A shard at its limit takes a segment's worth of writes whenever one was freed. The log says what
//! has become of it at most once in [`QUIET_NANOSECONDS`], with how often it was so meanwhile.

/// From one line to the next it takes so many nanoseconds at least.
const QUIET_NANOSECONDS: u64 = 5_000_000_000;

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Whether writes are refused now.
    pub(super) is_refusing: bool,
    /// How often they began to be refused since the last line.
    pub(super) times: u64,
}

/// Whether writes are refused, and what the log was told of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    is_refusing: bool,
    said: Option<(Line, u64)>,
    times: u64,
}

impl Refusals {
    /// Notes at `now`, in nanoseconds, whether writes are refused; returns what there is to say.
    pub(super) fn see(&mut self, is_refusing: bool, now: u64) -> Option<Line> {
        if is_refusing && !self.is_refusing {
            self.times += 1;
        }
        self.is_refusing = is_refusing;
        let said_refusing = self.said.is_some_and(|(line, _)| line.is_refusing);
        let is_new = self.times > 0 || is_refusing != said_refusing;
        let is_early = self.said.is_some_and(|(_, at)| now.saturating_sub(at) < QUIET_NANOSECONDS);
        if !is_new || is_early {
            return None;
        }
        let line = Line { is_refusing, times: std::mem::take(&mut self.times) };
        self.said = Some((line, now));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_changes_often_is_said_seldom_and_counted() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.see(false, 0), None);
        let mut lines = Vec::new();
        // A hundred times a second for a minute.
        for step in 1..=6000 {
            lines.extend(refusals.see(step % 2 == 1, step * SECOND / 100));
        }
        assert_eq!(lines[0], Line { is_refusing: true, times: 1 });
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert!(lines[1..].iter().all(|line| line.times == 250), "{lines:?}");
    }

    #[test]
    fn the_last_word_is_true() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.see(true, 0), Some(Line { is_refusing: true, times: 1 }));
        assert_eq!(refusals.see(false, 1), None);
        assert_eq!(refusals.see(false, 4 * SECOND), None);
        let line = Line { is_refusing: false, times: 0 };
        assert_eq!(refusals.see(false, 5 * SECOND), Some(line));
        assert_eq!(refusals.see(false, 60 * SECOND), None);
        assert_eq!(refusals.see(true, 61 * SECOND), Some(Line { is_refusing: true, times: 1 }));
    }

    #[test]
    fn what_came_and_went_between_two_looks_is_counted() {
        let mut refusals = Refusals::default();
        assert!(refusals.see(true, 0).is_some());
        for now in 1..=4 {
            assert_eq!(refusals.see(false, now), None);
            assert_eq!(refusals.see(true, now), None);
        }
        let line = Line { is_refusing: true, times: 4 };
        assert_eq!(refusals.see(true, 5 * SECOND), Some(line));
    }
}
