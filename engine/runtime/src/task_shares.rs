//! Which task queue has the core next: weighted fair queueing of time. Pure: nanoseconds in, a
//! choice out.
//!
//! Virtual time: running for `t` nanoseconds advances a queue by `t * 1000 / shares`, and the queue
//! that is furthest behind runs next. A queue that had nothing to run comes back no earlier than
//! the others' present, so idling earns no credit.
//!
//! What the service does for connections without a task counts for the foreground queue, and a
//! service with more to do stands in that queue's line like a task. Nothing decides beforehand how
//! long it works, only how long it has, so it may come to be ahead: by at most [`AHEAD_MAX`] of the
//! queue that is furthest behind, which is as long as tasks of the foreground then wait for others
//! to catch up.

use crate::env::{TASK_QUEUES, TaskQueue};
use crate::urgency::urgent_shares;

/// The queues' shares while none is urgent, in the order of [`TaskQueue`].
pub(crate) const SHARES: [u32; TASK_QUEUES] = [1000, 400, 200, 100, 100, 50];

const VIRTUAL_SCALE: u64 = 1000;

/// How far what is done without tasks may put the foreground ahead of a queue that waits, in
/// virtual time: what a turn of the loop does at most.
pub(crate) const AHEAD_MAX: u64 = 400_000 * VIRTUAL_SCALE / SHARES[0] as u64;

/// Queues by their index.
pub(crate) type QueueSet = [bool; TASK_QUEUES];

/// What each queue has had of the core.
#[derive(Clone, Debug)]
pub(crate) struct TaskShares {
    virtual_times: [u64; TASK_QUEUES],
    shares: [u32; TASK_QUEUES],
    /// The virtual time of who had the core last, when it began.
    present: u64,
}

impl Default for TaskShares {
    fn default() -> Self {
        Self { virtual_times: [0; TASK_QUEUES], shares: SHARES, present: 0 }
    }
}

impl TaskShares {
    /// A queue that had nothing to run has something.
    pub(crate) fn wake(&mut self, queue: TaskQueue) {
        let virtual_time = &mut self.virtual_times[queue as usize];
        *virtual_time = self.present.max(*virtual_time);
    }

    /// The queue that is furthest behind of those that are ready; of equals, the more urgent one.
    pub(crate) fn next(&mut self, ready: &QueueSet) -> Option<TaskQueue> {
        let ready = TaskQueue::ALL.into_iter().filter(|&queue| ready[queue as usize]);
        let queue = ready.min_by_key(|&queue| self.virtual_times[queue as usize])?;
        self.present = self.present.max(self.virtual_times[queue as usize]);
        Some(queue)
    }

    /// A task of this queue has run for so long.
    pub(crate) fn charge(&mut self, queue: TaskQueue, nanoseconds: u64) {
        let queue = queue as usize;
        let charge = nanoseconds.saturating_mul(VIRTUAL_SCALE) / u64::from(self.shares[queue]);
        self.virtual_times[queue] = self.virtual_times[queue].saturating_add(charge);
    }

    /// The service has worked for so long, while the queues of `ready` had tasks.
    pub(crate) fn charge_service(&mut self, nanoseconds: u64, ready: &QueueSet) {
        self.wake(TaskQueue::Foreground);
        self.present = self.virtual_times[TaskQueue::Foreground as usize];
        self.charge(TaskQueue::Foreground, nanoseconds);
        let (foreground, others) = self.virtual_times.split_at_mut(1);
        let waiting = others.iter().zip(&ready[1..]).filter(|(_, is_ready)| **is_ready);
        let last = waiting.map(|(virtual_time, _)| *virtual_time).min().unwrap_or(self.present);
        foreground[0] = foreground[0].min(last.saturating_add(AHEAD_MAX));
    }

    /// A queue gets so many thousandths of its usual shares from now on.
    pub(crate) fn set_urgency(&mut self, queue: TaskQueue, urgency: u32) {
        self.shares[queue as usize] = urgent_shares(SHARES[queue as usize], urgency);
    }

    /// The shares of each queue now.
    pub(crate) fn shares(&self) -> [u32; TASK_QUEUES] {
        self.shares
    }
}

#[cfg(test)]
mod tests;
