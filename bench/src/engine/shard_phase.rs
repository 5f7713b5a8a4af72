//! One phase of the load on one shard: which operation comes next, whether it may begin, and what
//! all of them came to.

use std::time::Instant;

use super::EngineSettings;
use super::beside::BesideStream;
use super::script::{Action, Pace, Phase, Script};
use super::stall::{Stall, StallClock};
use crate::host;

/// A phase under way on a shard. Times are nanoseconds since its start.
pub(super) struct ShardPhase {
    pub(super) phase: Phase,
    pub(super) script: Script,
    pub(super) pace: Pace,
    pub(super) start: Instant,
    /// No operation begins from here on, in nanoseconds since the start.
    pub(super) end: u64,
    pub(super) in_flight: usize,
    /// Operations that the engine could not carry out at once.
    pub(super) waited: u64,
    pub(super) stall: StallClock,
    /// What goes on beside the workload until that ends.
    pub(super) beside: Vec<BesideStream>,
}

/// What a phase came to on a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardEnd {
    /// The longest time without a completion.
    pub(super) stall: Stall,
    /// Operations that the engine could not carry out at once.
    pub(super) waited: u64,
    /// Operations that were due and were not begun.
    pub(super) not_begun: u64,
}

impl ShardPhase {
    /// A phase of shard number `place.0` of `place.1`, which has `keys` keys.
    pub(super) fn new(
        settings: &EngineSettings,
        phase: Phase,
        place: (u16, u16),
        keys: u32,
        start: Instant,
    ) -> Self {
        let duration = settings.duration.filter(|_| phase.is_workload());
        let rate = settings.rate.filter(|_| phase.is_workload());
        let is_beside = |_: &_| phase.has_beside();
        let beside = settings.beside.iter().copied().filter(is_beside);
        let beside = beside.map(|load| BesideStream::new(settings, load, place, keys)).collect();
        Self {
            phase,
            script: Script::new(settings, phase, place, keys),
            pace: Pace::new(rate, place.1),
            start,
            end: phase
                .own_time()
                .or(duration.map(|duration| duration.as_nanos() as u64))
                .unwrap_or(u64::MAX),
            in_flight: 0,
            waited: 0,
            stall: StallClock::default(),
            beside,
        }
    }

    /// Whether nothing more begins and all that began has ended.
    pub(super) fn is_over(&self) -> bool {
        let is_idle = self.in_flight == 0 && self.beside.iter().all(|it| it.in_flight == 0);
        is_idle && self.is_ending(self.now())
    }

    /// Whether nothing more begins.
    fn is_ending(&self, now: u64) -> bool {
        self.script.is_over() || now >= self.end
    }

    /// The next operation beside the workload, if one may begin at `now`, and of which stream.
    pub(super) fn next_beside(&mut self, now: u64) -> Option<(usize, Action)> {
        if self.is_ending(now) {
            return None;
        }
        let mut streams = self.beside.iter_mut().enumerate();
        streams.find_map(|(stream, load)| Some((stream, load.next(now)?)))
    }

    /// When the next operation beside the workload is due, where that is known.
    pub(super) fn beside_due(&self, now: u64) -> Option<u64> {
        let due = self.beside.iter().filter_map(BesideStream::due).min();
        due.filter(|_| !self.is_ending(now))
    }

    /// The script of the workload, or of a stream beside it.
    pub(super) fn script_of(&mut self, beside: Option<usize>) -> &mut Script {
        match beside {
            Some(stream) => &mut self.beside[stream].script,
            None => &mut self.script,
        }
    }

    /// What the phase came to.
    pub(super) fn sum_up(&self) -> ShardEnd {
        let due = self.pace.due_before(self.end);
        let is_cut_short = !self.script.is_over();
        let not_begun = if is_cut_short { due.saturating_sub(self.script.taken()) } else { 0 };
        ShardEnd { stall: self.stall.longest(), waited: self.waited, not_begun }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(host::now().saturating_duration_since(self.start).as_nanos())
            .unwrap_or(u64::MAX)
    }

    /// Whether the closed loop has another operation to give as soon as there is room: from then on
    /// the engine keeps it waiting, even if its thread has not come to begin it.
    pub(super) fn wants_another(&self, now: u64) -> bool {
        matches!(self.pace, Pace::Closed) && !self.script.is_over() && now < self.end
    }

    /// From when the next operation's latency counts, if it may begin at `now`.
    pub(super) fn may_begin(&self, now: u64, concurrency: usize) -> Option<u64> {
        let has_room = self.in_flight < concurrency && !self.script.is_over() && now < self.end;
        if has_room { self.pace.begin(self.script.taken(), now) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Workload;
    use super::*;

    fn phase(rate: Option<f64>) -> ShardPhase {
        let settings = EngineSettings {
            rate,
            operations: Some(2),
            duration: Some(Duration::from_nanos(1_000)),
            ..EngineSettings::for_workload(Workload::Overwrite)
        };
        ShardPhase::new(&settings, Phase::Measured, (0, 1), 10, host::now())
    }

    #[test]
    fn a_closed_loop_always_has_another_operation_until_its_end() {
        let mut closed = phase(None);
        assert_eq!((closed.may_begin(7, 1), closed.may_begin(1_000, 1)), (Some(7), None));
        assert!(closed.wants_another(999) && !closed.wants_another(1_000));
        closed.in_flight = 1;
        assert_eq!(closed.may_begin(7, 1), None, "there is no room");
        closed.script.next();
        closed.script.next();
        assert!(!closed.wants_another(7));
        assert!(!phase(Some(1e9)).wants_another(7), "an open loop waits for the next due time");
    }

    #[test]
    fn what_was_due_and_not_begun_is_counted() {
        // One every 100 ns for 1,000 ns; the script has two.
        let mut open = phase(Some(1e7));
        assert_eq!((open.may_begin(0, 9), open.sum_up().not_begun), (Some(0), 10));
        open.script.next();
        assert_eq!((open.may_begin(99, 9), open.may_begin(150, 9)), (None, Some(100)));
        assert_eq!(open.sum_up().not_begun, 9);
        open.script.next();
        assert_eq!(open.sum_up().not_begun, 0, "the operations that were asked for are made");
    }
}
