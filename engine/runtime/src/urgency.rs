//! How urgent background work is, as those say who have it to do. Pure.
//!
//! A queue's work may belong to several shards of a core, which all run in the same queue. The
//! neediest decides: if it falls behind, clients wait.

use crate::env::{TASK_QUEUES, TaskQueue};
use crate::fair_queue::SHARES_MAX;

/// The urgency of work that has its usual shares, in thousandths of them.
pub const URGENCY_USUAL: u32 = 1000;

/// The highest urgency, in thousandths of the usual shares.
pub const URGENCY_MAX: u32 = 10_000;

/// The shares of what usually has `usual` of them, in the range that a fair queue takes.
pub(crate) fn urgent_shares(usual: u32, urgency: u32) -> u32 {
    let shares = u64::from(usual) * u64::from(urgency) / u64::from(URGENCY_USUAL);
    u32::try_from(shares).unwrap_or(SHARES_MAX).clamp(1, SHARES_MAX)
}

/// What each claimant says of each queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Urgencies {
    claims: Vec<(u16, [u32; TASK_QUEUES])>,
}

impl Urgencies {
    /// Notes that `claimant` finds its work of a queue so urgent, in thousandths. Returns how
    /// urgent the queue's is now, if that has changed.
    pub(crate) fn claim(&mut self, claimant: u16, queue: TaskQueue, urgency: u32) -> Option<u32> {
        let before = self.of(queue);
        let urgency = urgency.clamp(URGENCY_USUAL, URGENCY_MAX);
        match self.claims.iter_mut().find(|(number, _)| *number == claimant) {
            Some((_, claims)) => claims[queue as usize] = urgency,
            None => {
                let mut claims = [URGENCY_USUAL; TASK_QUEUES];
                claims[queue as usize] = urgency;
                self.claims.push((claimant, claims));
            }
        }
        let now = self.of(queue);
        (now != before).then_some(now)
    }

    /// How urgent the work of the most urgent queue is.
    pub(crate) fn highest(&self) -> u32 {
        let all = self.claims.iter().flat_map(|(_, claims)| claims).copied();
        all.max().unwrap_or(URGENCY_USUAL)
    }

    /// How urgent a queue's work is.
    pub(crate) fn of(&self, queue: TaskQueue) -> u32 {
        let claims = self.claims.iter().map(|(_, claims)| claims[queue as usize]);
        claims.max().unwrap_or(URGENCY_USUAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neediest_decides() {
        let mut urgencies = Urgencies::default();
        let mut claim =
            |claimant, urgency| urgencies.claim(claimant, TaskQueue::Compaction, urgency);
        assert_eq!(claim(0, URGENCY_USUAL), None, "nothing has changed");
        assert_eq!(claim(0, 2000), Some(2000));
        assert_eq!(claim(7, 3000), Some(3000));
        assert_eq!(claim(0, 2500), None);
        assert_eq!(claim(7, URGENCY_USUAL), Some(2500));
        assert_eq!(claim(0, 0), Some(URGENCY_USUAL), "nothing has less than its shares");
        assert_eq!(claim(0, u32::MAX), Some(URGENCY_MAX));
        assert_eq!(urgencies.of(TaskQueue::Flush), URGENCY_USUAL);
        assert_eq!(urgencies.highest(), URGENCY_MAX);
    }

    #[test]
    fn shares_stay_in_their_range() {
        assert_eq!([1000, 2500].map(|urgency| urgent_shares(200, urgency)), [200, 500]);
        assert_eq!([0, 1].map(|usual| urgent_shares(usual, URGENCY_USUAL)), [1, 1]);
        assert_eq!(urgent_shares(u32::MAX, URGENCY_MAX), SHARES_MAX);
    }
}
