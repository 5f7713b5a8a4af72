use super::*;
use crate::random::Random;
use crate::urgency::URGENCY_MAX;

const FOREGROUND: usize = TaskQueue::Foreground as usize;
const COMPACTION: usize = TaskQueue::Compaction as usize;
const QUANTUM: u64 = 200_000;

/// What a loop of turns gives to whom, by the queues' indexes; the service counts as foreground.
struct SharedCore {
    shares: TaskShares,
    random: Random,
    had: [u64; TASK_QUEUES],
}

impl SharedCore {
    fn new(seed: u64) -> Self {
        eprintln!("seed {seed}");
        Self { shares: TaskShares::default(), random: Random::new(seed), had: [0; TASK_QUEUES] }
    }

    /// The service works for up to `served` nanoseconds, then tasks of `ready` for a quantum; the
    /// service wants another turn if `is_waiting`.
    fn turn(&mut self, served: u64, ready: QueueSet, is_waiting: bool) {
        let served = self.random.within(&(served / 2..=served));
        self.shares.charge_service(served, &ready);
        self.had[FOREGROUND] += served;
        let mut candidates = ready;
        candidates[FOREGROUND] |= is_waiting;
        let mut left = QUANTUM;
        while let Some(queue) = self.shares.next(&candidates) {
            if !ready[queue as usize] {
                return;
            }
            let ran = self.random.within(&(1000..=40_000)).min(left);
            self.shares.charge(queue, ran);
            self.had[queue as usize] += ran;
            left -= ran;
            if left == 0 {
                return;
            }
        }
    }

    fn has_percent(&self, queue: usize) -> u64 {
        self.had[queue] * 100 / self.had.iter().sum::<u64>()
    }
}

fn only(queues: &[TaskQueue]) -> QueueSet {
    let mut set = [false; TASK_QUEUES];
    queues.iter().for_each(|queue| set[*queue as usize] = true);
    set
}

#[test]
fn a_service_that_always_has_more_to_do_leaves_others_their_shares() {
    for seed in 1..=20 {
        let mut core = SharedCore::new(seed);
        for _ in 0..10_000 {
            core.turn(400_000, only(&[TaskQueue::Compaction]), true);
        }
        // 200 of 1,200 shares.
        assert!((16..=17).contains(&core.has_percent(COMPACTION)), "{:?}", core.had);
    }
}

#[test]
fn all_background_work_together_has_its_shares_beside_a_busy_service() {
    let background = [
        TaskQueue::Flush,
        TaskQueue::Compaction,
        TaskQueue::GarbageCollection,
        TaskQueue::Scan,
        TaskQueue::Maintenance,
    ];
    for seed in 1..=20 {
        let mut core = SharedCore::new(seed);
        for _ in 0..20_000 {
            core.turn(100_000, only(&background), true);
        }
        let total: u64 = core.had.iter().sum();
        for (had, shares) in core.had.iter().zip(SHARES) {
            let (part, due) = (*had as f64 / total as f64, f64::from(shares) / 1850.0);
            assert!((part / due - 1.0).abs() < 0.05, "{:?}", core.had);
        }
    }
}

#[test]
fn what_the_service_leaves_goes_to_the_others() {
    let mut core = SharedCore::new(7);
    for _ in 0..10_000 {
        core.turn(50_000, only(&[TaskQueue::Compaction]), false);
    }
    let had = core.had[COMPACTION];
    assert_eq!(had, 10_000 * QUANTUM, "nobody else wanted the core");
}

#[test]
fn urgent_work_gets_more_and_gives_it_back() {
    let mut core = SharedCore::new(8);
    let mut percent = |urgency| {
        core.shares.set_urgency(TaskQueue::Compaction, urgency);
        core.had = [0; TASK_QUEUES];
        (0..10_000).for_each(|_| core.turn(100_000, only(&[TaskQueue::Compaction]), true));
        core.has_percent(COMPACTION)
    };
    let percents = [1000, 5000, 1000].map(&mut percent);
    assert!(matches!(percents, [16, 49..=50, 16]), "{percents:?}");
    core.shares.set_urgency(TaskQueue::GarbageCollection, URGENCY_MAX);
    assert_eq!(core.shares.shares(), [1000, 400, 200, 1000, 100, 50]);
}

#[test]
fn tasks_of_the_foreground_wait_for_a_bounded_time_for_those_that_are_behind() {
    for seed in 1..=20 {
        let mut core = SharedCore::new(seed);
        let compaction = only(&[TaskQueue::Compaction]);
        // The service takes more than a turn may have, again and again, and nothing else runs.
        for _ in 0..1000 {
            core.shares.charge_service(50_000_000, &compaction);
        }
        let both = only(&[TaskQueue::Foreground, TaskQueue::Compaction]);
        core.shares.wake(TaskQueue::Foreground);
        let mut ran = 0;
        while core.shares.next(&both) == Some(TaskQueue::Compaction) {
            let slice = core.random.within(&(1000..=40_000));
            core.shares.charge(TaskQueue::Compaction, slice);
            ran += slice;
        }
        assert!((1..=AHEAD_MAX / 5 + 40_000).contains(&ran), "{ran} ns");
    }
}

#[test]
fn a_queue_that_slept_beside_a_service_earns_no_credit() {
    let mut core = SharedCore::new(9);
    (0..1000).for_each(|_| core.turn(100_000, only(&[]), true));
    core.had = [0; TASK_QUEUES];
    core.shares.wake(TaskQueue::Compaction);
    (0..10).for_each(|_| core.turn(100_000, only(&[TaskQueue::Compaction]), true));
    assert!(core.has_percent(COMPACTION) < 30, "{:?}", core.had);
}

#[test]
fn absurd_times_do_no_harm() {
    let mut shares = TaskShares::default();
    let ready = only(&[TaskQueue::Flush]);
    for _ in 0..3 {
        shares.charge_service(u64::MAX, &ready);
        shares.charge(TaskQueue::Flush, u64::MAX);
        assert!(shares.next(&ready).is_some());
    }
}
