//! What a core's time was spent on. Pure: moments in, sums out.

use crate::env::{TASK_QUEUES, TaskQueue};

/// What a core's time was spent on so far, in nanoseconds. All parts together are the time since
/// the core was made, up to its latest look at the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// By task queue. What is done for connections without a task is in that of
    /// [`TaskQueue::Foreground`], and so is what the loop does around it.
    pub queues: [u64; TASK_QUEUES],
    /// Looking out for work, which takes the processor.
    pub spinning: u64,
    /// Asleep, or about to be. The kernel may have been at work for the core meanwhile: the call
    /// that waits also begins what was asked for.
    pub idle: u64,
}

impl CpuTimes {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.queues.iter().sum::<u64>() + self.spinning + self.idle
    }
}

/// What a stretch of time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    Queue(TaskQueue),
    Spinning,
    Idle,
}

/// Divides time among those who had it, without a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuLedger {
    mark: u64,
    times: CpuTimes,
}

impl CpuLedger {
    /// Time begins at `now`, in nanoseconds.
    pub(crate) fn new(now: u64) -> Self {
        Self { mark: now, times: CpuTimes::default() }
    }

    /// All time since the last call was spent so; returns how much that is. A moment before the
    /// last one counts as the last one.
    pub(crate) fn spend(&mut self, spent: Spent, now: u64) -> u64 {
        let nanoseconds = now.saturating_sub(self.mark);
        self.mark = self.mark.max(now);
        let sum = match spent {
            Spent::Queue(queue) => &mut self.times.queues[queue as usize],
            Spent::Spinning => &mut self.times.spinning,
            Spent::Idle => &mut self.times.idle,
        };
        *sum += nanoseconds;
        nanoseconds
    }

    pub(crate) fn times(&self) -> CpuTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn no_time_is_lost_or_counted_twice() {
        for seed in 1..=50 {
            eprintln!("seed {seed}");
            let mut random = Random::new(seed);
            let began = random.below(1 << 40);
            let (mut ledger, mut now) = (CpuLedger::new(began), began);
            let mut spent_idle = 0;
            for _ in 0..10_000 {
                // A clock that stands still or goes back is no reason to lose count.
                let look = match random.index(20) {
                    0 => now.saturating_sub(random.below(1000)),
                    1 => now,
                    _ => now + random.below(1_000_000),
                };
                let spent = match random.index(4) {
                    0 => Spent::Idle,
                    1 => Spent::Spinning,
                    2 => Spent::Queue(TaskQueue::Foreground),
                    _ => Spent::Queue(TaskQueue::Compaction),
                };
                let passed = ledger.spend(spent, look);
                assert_eq!(passed, look.saturating_sub(now));
                spent_idle += if spent == Spent::Idle { passed } else { 0 };
                now = now.max(look);
            }
            assert_eq!((ledger.times().total(), ledger.times().idle), (now - began, spent_idle));
        }
    }
}
