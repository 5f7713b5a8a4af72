//! How urgent background work is, as those say who have it to do. Pure.
//!
//! A queue's work may belong to several shards of a core, which all run in the same queue. The
//! neediest decides: if it falls behind, clients wait.
//!
//! However much of it is urgent, work that nobody waits for has together at most the shares of what
//! clients wait for ([`RISE_MAX`]). Without that bound flushes, merges and collection that are all
//! behind would leave reads a quarter of the disk, although reads make none of that work: it is for
//! the slowing of writers to see to what is missing.

use crate::env::{TASK_QUEUES, TaskQueue};
use crate::fair_queue::SHARES_MAX;
use crate::task_shares::SHARES;

/// The urgency of work that has its usual shares, in thousandths of them.
pub const URGENCY_USUAL: u32 = 1000;

/// The highest urgency, in thousandths of the usual shares.
pub const URGENCY_MAX: u32 = 10_000;

/// How many shares flushes, merges and collection may have together beyond their usual ones, which
/// they keep: with those they come to what the foreground has.
const RISE_MAX: u32 = SHARES[TaskQueue::Foreground as usize]
    - SHARES[TaskQueue::Flush as usize]
    - SHARES[TaskQueue::Compaction as usize]
    - SHARES[TaskQueue::GarbageCollection as usize];

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
    /// Notes that `claimant` finds its work of a queue so urgent, in thousandths. Returns whether
    /// that has changed what any queue is to have.
    pub(crate) fn claim(&mut self, claimant: u16, queue: TaskQueue, urgency: u32) -> bool {
        let before = self.claimed(queue);
        let urgency = urgency.clamp(URGENCY_USUAL, URGENCY_MAX);
        match self.claims.iter_mut().find(|(number, _)| *number == claimant) {
            Some((_, claims)) => claims[queue as usize] = urgency,
            None => {
                let mut claims = [URGENCY_USUAL; TASK_QUEUES];
                claims[queue as usize] = urgency;
                self.claims.push((claimant, claims));
            }
        }
        self.claimed(queue) != before
    }

    /// How urgent the work of the most urgent queue is.
    pub(crate) fn highest(&self) -> u32 {
        let all = self.claims.iter().flat_map(|(_, claims)| claims).copied();
        all.max().unwrap_or(URGENCY_USUAL)
    }

    /// How urgent a queue's work is to be taken, in thousandths: as its claimants say, or by so
    /// much less that all queues together stay within their bound.
    pub(crate) fn of(&self, queue: TaskQueue) -> u32 {
        let rise = |queue: TaskQueue| self.claimed(queue) - URGENCY_USUAL;
        let shares = |queue| u64::from(rise(queue)) * u64::from(SHARES[queue as usize]);
        let wanted: u64 = TaskQueue::ALL.into_iter().map(shares).sum();
        let most = u64::from(RISE_MAX) * u64::from(URGENCY_USUAL);
        let rise = u64::from(rise(queue)) * most.min(wanted) / wanted.max(1);
        URGENCY_USUAL + u32::try_from(rise).expect("a part is not more than the whole")
    }

    /// What the neediest claimant says of a queue.
    fn claimed(&self, queue: TaskQueue) -> u32 {
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
        let mut claim = |claimant, urgency| {
            let has_changed = urgencies.claim(claimant, TaskQueue::Compaction, urgency);
            (has_changed, urgencies.of(TaskQueue::Compaction))
        };
        assert_eq!(claim(0, URGENCY_USUAL), (false, URGENCY_USUAL), "nothing has changed");
        assert_eq!(claim(0, 2000), (true, 2000));
        assert_eq!(claim(7, 2400), (true, 2400));
        assert_eq!(claim(0, 2200), (false, 2400));
        assert_eq!(claim(7, URGENCY_USUAL), (true, 2200));
        assert_eq!(claim(0, 0), (true, URGENCY_USUAL), "nothing has less than its shares");
        assert_eq!(claim(0, u32::MAX), (true, 2500), "the half of what they and clients have");
        assert_eq!(urgencies.of(TaskQueue::Flush), URGENCY_USUAL);
        assert_eq!(urgencies.highest(), URGENCY_MAX);
    }

    #[test]
    fn all_that_is_urgent_has_no_more_than_what_clients_wait_for() {
        let urgent = [TaskQueue::Flush, TaskQueue::Compaction, TaskQueue::GarbageCollection];
        for claimed in [1000, 1001, 1200, 2500, 5000, URGENCY_MAX] {
            let mut urgencies = Urgencies::default();
            for queue in urgent {
                urgencies.claim(0, queue, claimed);
            }
            let shares = urgent.map(|it| urgent_shares(SHARES[it as usize], urgencies.of(it)));
            let usual = urgent.map(|it| SHARES[it as usize]);
            assert!(shares.iter().zip(&usual).all(|(shares, usual)| shares >= usual));
            assert!(shares.iter().sum::<u32>() <= SHARES[0], "{claimed}: {shares:?}");
            assert!(claimed < 2500 || shares.iter().sum::<u32>() > SHARES[0] - 5, "{shares:?}");
        }
    }

    #[test]
    fn shares_stay_in_their_range() {
        assert_eq!([1000, 2500].map(|urgency| urgent_shares(200, urgency)), [200, 500]);
        assert_eq!([0, 1].map(|usual| urgent_shares(usual, URGENCY_USUAL)), [1, 1]);
        assert_eq!(urgent_shares(u32::MAX, URGENCY_MAX), SHARES_MAX);
    }
}
