use std::collections::VecDeque;

use proptest::prelude::*;

use super::{IoFlow, IoQueue, IoQueueOptions, IoRequest};
use crate::device_model::{DeviceModel, IoDirection};
use crate::env::{IO_CLASSES, IoClass, TaskQueue};
use crate::urgency::{URGENCY_MAX, URGENCY_USUAL};

const CLASSES: [IoClass; IO_CLASSES] = IoClass::ALL;

fn read(class: IoClass, bytes: u64) -> IoRequest {
    IoRequest { class, direction: IoDirection::Read, bytes }
}

fn write(class: IoClass, bytes: u64) -> IoRequest {
    IoRequest { class, direction: IoDirection::Write, bytes }
}

/// A request as the tests push it: its class, its bytes and its number.
type Numbered = (usize, u64, usize);

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(4_096), 4_096u64..200_000, 1u64..40_000_000]
}

fn options() -> impl Strategy<Value = IoQueueOptions> {
    (proptest::array::uniform7(1u32..=1000), 1usize..10, 0u64..4_000_000).prop_map(
        |(shares, requests_in_flight_max, bytes_in_flight_max)| IoQueueOptions {
            shares,
            requests_in_flight_max,
            bytes_in_flight_max,
            ..IoQueueOptions::default()
        },
    )
}

/// A queue, and what a device would know of it.
struct Device {
    options: IoQueueOptions,
    queue: IoQueue<Numbered>,
    waiting: [VecDeque<Numbered>; IO_CLASSES],
    in_flight: Vec<Numbered>,
    /// By class: requests that went, and those of them that ended.
    counted: [(u64, u64); IO_CLASSES],
}

impl Device {
    fn new(options: IoQueueOptions) -> Self {
        Self {
            queue: IoQueue::new(options.clone()),
            options,
            waiting: Default::default(),
            in_flight: Vec::new(),
            counted: Default::default(),
        }
    }

    fn push(&mut self, request: Numbered) {
        let (class, bytes, _) = request;
        self.queue.push(read(CLASSES[class], bytes), request, 0);
        self.waiting[class].push_back(request);
    }

    /// Pops one request and compares it with what was expected; whether there was one.
    fn pop(&mut self) -> bool {
        let Some(request) = self.queue.pop(0) else { return false };
        let (class, _, _) = request;
        assert_eq!(self.waiting[class].pop_front(), Some(request), "first in, first out");
        self.in_flight.push(request);
        self.counted[class].0 += 1;
        true
    }

    fn complete(&mut self, pick: usize) {
        if !self.in_flight.is_empty() {
            let (class, bytes, _) = self.in_flight.swap_remove(pick % self.in_flight.len());
            self.queue.complete(read(CLASSES[class], bytes), bytes, 0, 0);
            self.counted[class].1 += 1;
        }
    }

    fn check(&self) {
        let bytes: u64 = self.in_flight.iter().map(|request| request.1).sum();
        assert_eq!(self.queue.in_flight(), self.in_flight.len());
        assert_eq!(self.queue.bytes_in_flight(), bytes);
        assert!(self.in_flight.len() <= self.options.requests_in_flight_max);
        assert!(bytes <= self.options.bytes_in_flight_max || self.in_flight.len() == 1);
        let queued: usize = self.waiting.iter().map(VecDeque::len).sum();
        assert_eq!(self.queue.queued(), queued);
        for (index, class) in CLASSES.into_iter().enumerate() {
            let (dispatched, completed) = self.counted[index];
            let statistics = self.queue.class_statistics(class, 0);
            assert_eq!(statistics.queued, self.waiting[index].len() as u64);
            assert_eq!(statistics.in_flight, dispatched - completed);
            assert_eq!((statistics.dispatched, statistics.completed), (dispatched, completed));
        }
    }
}

proptest! {
    #[test]
    fn limits_hold_and_every_request_is_dispatched(
        options in options(),
        steps in proptest::collection::vec((0u8..4, 0..IO_CLASSES, bytes()), 0..200),
    ) {
        let mut device = Device::new(options);
        for (number, (action, class, bytes)) in steps.into_iter().enumerate() {
            match action {
                0 | 1 => device.push((class, bytes, number)),
                2 => while device.pop() { device.check() },
                _ => device.complete(number),
            }
            device.check();
        }
        // Draining: as long as anything waits, it goes as soon as the device is idle.
        while device.queue.queued() > 0 {
            if !device.pop() {
                prop_assert!(!device.in_flight.is_empty(), "a request is stuck");
                device.complete(0);
            }
            device.check();
        }
    }

    #[test]
    fn classes_share_a_saturated_device_in_proportion(
        shares in proptest::array::uniform7(20u32..=1000),
        sizes in proptest::array::uniform7(4_096u64..300_000),
    ) {
        let options = IoQueueOptions { shares, ..IoQueueOptions::default() };
        let mut queue = IoQueue::new(options);
        let mut cost = [0u64; IO_CLASSES];
        let costs = DeviceModel::default().costs();
        let request_cost = |bytes| costs.of(IoDirection::Read, bytes);
        for index in 0..IO_CLASSES {
            queue.push(read(CLASSES[index], sizes[index]), index, 0);
            queue.push(read(CLASSES[index], sizes[index]), index, 0);
        }
        for _ in 0..2_000 {
            let index = queue.pop(0).expect("the device is idle");
            queue.push(read(CLASSES[index], sizes[index]), index, 0);
            cost[index] += request_cost(sizes[index]);
            queue.complete(read(CLASSES[index], sizes[index]), sizes[index], 0, 0);
        }
        let per_share = |index: usize| cost[index] as f64 / f64::from(shares[index]);
        for one in 0..IO_CLASSES {
            for other in 0..IO_CLASSES {
                let one_request = |index: usize| {
                    request_cost(sizes[index]) as f64 / f64::from(shares[index])
                };
                let bound = (one_request(one) + one_request(other)) * 1.001;
                prop_assert!(per_share(one) - per_share(other) <= bound);
            }
        }
    }
}

#[test]
fn the_default_gives_reads_twenty_times_what_a_scan_gets() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    for _ in 0..2_000 {
        queue.push(read(IoClass::Read, 4_096), IoClass::Read, 0);
        queue.push(read(IoClass::Scan, 4_096), IoClass::Scan, 0);
    }
    for _ in 0..1_050 {
        let class = queue.pop(0).unwrap();
        queue.complete(read(class, 4_096), 4_096, 0, 0);
    }
    assert_eq!(queue.class_statistics(IoClass::Read, 0).dispatched, 1_000);
    assert_eq!(queue.class_statistics(IoClass::Scan, 0).dispatched, 50);
}

#[test]
fn a_request_over_the_limit_goes_alone() {
    let options = IoQueueOptions { bytes_in_flight_max: 1 << 20, ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    let small = read(IoClass::Read, 4_096);
    let large = read(IoClass::Compaction, 2 << 20);
    queue.push(small, small, 0);
    queue.push(large, large, 0);
    assert_eq!(queue.pop(0), Some(small));
    assert_eq!(queue.pop(0), None, "something is in flight");
    queue.push(small, small, 0);
    queue.complete(small, 4_096, 0, 0);
    let mut order = Vec::new();
    while let Some(request) = queue.pop(0) {
        assert_eq!(queue.in_flight(), 1);
        order.push(request.class);
        assert_eq!(queue.pop(0), None, "nothing goes beside, or before, the large one");
        queue.complete(request, request.bytes, 0, 0);
    }
    assert!(order.contains(&IoClass::Compaction) && order.contains(&IoClass::Read), "{order:?}");
}

#[test]
fn changed_shares_take_effect() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.set_class(IoClass::Compaction, Some(2000), None, 0).unwrap();
    for _ in 0..100 {
        queue.push(read(IoClass::Read, 4_096), IoClass::Read, 0);
        queue.push(read(IoClass::Compaction, 4_096), IoClass::Compaction, 0);
    }
    for _ in 0..100 {
        let class = queue.pop(0).unwrap();
        queue.complete(read(class, 4_096), 4_096, 0, 0);
    }
    let statistics = queue.class_statistics(IoClass::Read, 0);
    assert_eq!((statistics.dispatched, statistics.bytes), (50, 50 * 4_096));
}

#[test]
fn shares_and_caps_out_of_range_change_nothing() {
    let mut queue = IoQueue::<()>::new(IoQueueOptions::default());
    let before = queue.class_statistics(IoClass::Scan, 0);
    for (shares, cap, named) in [
        (Some(0), None, "Scan: 0 shares: not from 1 to 65536"),
        (Some(65_537), None, "65537 shares"),
        (Some(7), Some(Some(16_383)), "16383 bytes a second: not from 16384"),
        (Some(7), Some(Some(u64::MAX)), "bytes a second"),
    ] {
        let error = queue.set_class(IoClass::Scan, shares, cap, 0).unwrap_err();
        assert!(error.contains(named), "{error}");
        assert_eq!(queue.class_statistics(IoClass::Scan, 0), before);
    }
    queue.set_class(IoClass::Scan, Some(7), Some(Some(1 << 20)), 0).unwrap();
    let after = queue.class_statistics(IoClass::Scan, 0);
    assert_eq!((after.shares, after.bandwidth_max), (7, Some(1 << 20)));
    queue.set_class(IoClass::Scan, None, Some(None), 0).unwrap();
    let after = queue.class_statistics(IoClass::Scan, 0);
    assert_eq!((after.shares, after.bandwidth_max), (7, None));
}

#[test]
fn urgent_work_has_so_many_times_its_usual_shares_and_the_usual_ones_are_kept() {
    let mut queue = IoQueue::<()>::new(IoQueueOptions::default());
    let shares = |queue: &IoQueue<()>| {
        let statistics = queue.class_statistics(IoClass::Compaction, 0);
        (statistics.usual_shares, statistics.shares)
    };
    assert_eq!(shares(&queue), (200, 200));
    let claim = |queue: &mut IoQueue<()>, claimant, urgency| {
        let changed = queue.claim_urgency(claimant, TaskQueue::Compaction, urgency);
        changed.map(|all| all[TaskQueue::Compaction as usize])
    };
    assert_eq!(claim(&mut queue, 0, 2_500), Some(2_500));
    assert_eq!(claim(&mut queue, 1, 2_000), None, "the neediest decides");
    assert_eq!(shares(&queue), (200, 500));
    queue.set_class(IoClass::Compaction, Some(40), None, 0).unwrap();
    assert_eq!(shares(&queue), (40, 100));
    queue.set_class(IoClass::Compaction, None, Some(Some(1 << 20)), 0).unwrap();
    assert_eq!(shares(&queue), (40, 100), "a cap changes no shares");
    assert_eq!(claim(&mut queue, 0, URGENCY_USUAL), Some(2_000));
    assert_eq!(claim(&mut queue, 1, URGENCY_USUAL), Some(URGENCY_USUAL));
    assert_eq!(shares(&queue), (40, 40));
    assert!(queue.claim_urgency(0, TaskQueue::Compaction, URGENCY_MAX).is_some());
    let alone = shares(&queue).1;
    assert!(queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_MAX).is_some());
    assert!(shares(&queue).1 < alone, "it shares what is left with what is urgent too");
}

#[test]
fn a_class_over_its_cap_waits_until_it_is_due_and_holds_up_nobody() {
    let mut options = IoQueueOptions::default();
    options.bandwidth_max[IoClass::Compaction as usize] = Some(1 << 20);
    let mut queue = IoQueue::new(options);
    let (large, small) = (write(IoClass::Compaction, 512 << 10), read(IoClass::Read, 4_096));
    for _ in 0..2 {
        queue.push(large, large, 0);
        queue.push(small, small, 0);
    }
    let mut went = Vec::new();
    while let Some(request) = queue.pop(0) {
        queue.complete(request, request.bytes, 0, 0);
        went.push(request.class);
    }
    went.sort_unstable();
    assert_eq!(went, [IoClass::Read, IoClass::Read, IoClass::Compaction]);
    // It owes what it has moved, less what 10 ms of the cap had saved up.
    let due = queue.due().unwrap();
    assert!((480_000_000..=490_000_001).contains(&due), "{due}");
    assert_eq!(queue.pop(due - 1), None);
    assert_eq!(queue.due(), Some(due));
    assert_eq!(queue.pop(due), Some(large));
    queue.complete(large, large.bytes, 0, due);
    // Without a cap it goes at once.
    queue.push(large, large, due);
    assert_eq!(queue.pop(due), None);
    queue.set_class(IoClass::Compaction, None, Some(None), due).unwrap();
    assert_eq!(queue.pop(due), Some(large));
    assert_eq!(queue.pop(due), None);
    assert_eq!(queue.due(), None, "nothing waits");
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_a_capped_class_out() {
    let mut options = IoQueueOptions::default();
    options.bandwidth_max[IoClass::Scan as usize] = Some(1 << 20);
    let mut queue = IoQueue::new(options);
    let request = read(IoClass::Scan, 1 << 20);
    let hour = 3_600_000_000_000;
    for _ in 0..2 {
        queue.push(request, (), hour);
    }
    assert_eq!(queue.pop(hour), Some(()));
    queue.complete(request, request.bytes, 0, hour);
    assert_eq!(queue.pop(5), None);
    let due = queue.due().unwrap();
    assert!(due <= 2_000_000_000, "{due}");
    assert_eq!(queue.pop(due), Some(()));
}

#[test]
fn waiting_in_the_queue_in_the_ring_and_starving_are_counted() {
    let options = IoQueueOptions { requests_in_flight_max: 1, ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    let (ahead, behind) = (read(IoClass::Read, 4_096), write(IoClass::Flush, 8_192));
    queue.push(ahead, 1, 100);
    assert_eq!(queue.pop(100), Some(1));
    queue.push(behind, 2, 150);
    assert_eq!(queue.pop(160), None);
    assert_eq!(queue.class_statistics(IoClass::Flush, 170).starved_nanoseconds, 20, "so far");
    queue.complete(ahead, 4_096, 90, 190);
    assert_eq!(queue.pop(200), Some(2));
    queue.complete(behind, 8_192, 70, 270);
    queue.note_taken(IoClass::Flush, 11);
    queue.note_split(IoClass::Flush);
    let flush = queue.class_statistics(IoClass::Flush, 300);
    assert_eq!((flush.queued, flush.in_flight, flush.dispatched, flush.completed), (0, 0, 1, 1));
    assert_eq!((flush.queue_nanoseconds, flush.ring_nanoseconds), (50, 70));
    assert_eq!((flush.after_nanoseconds, flush.starved_nanoseconds, flush.split), (11, 50, 1));
    assert_eq!((flush.reads, flush.bytes), (0, 8_192));
    let ahead = queue.class_statistics(IoClass::Read, 300);
    assert_eq!((ahead.reads, ahead.starved_nanoseconds, ahead.ring_nanoseconds), (1, 0, 90));
    assert_eq!(queue.flow(), IoFlow::default());
}

#[test]
fn a_withdrawn_request_leaves_no_trace() {
    let options = IoQueueOptions { requests_in_flight_max: 1, ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    let request = read(IoClass::Read, 4_096);
    queue.push(request, 1, 0);
    queue.push(request, 2, 0);
    assert_eq!(queue.pop(0), Some(1));
    queue.withdraw(request, 0);
    assert_eq!(queue.class_statistics(IoClass::Read, 0).dispatched, 0);
    assert_eq!((queue.in_flight(), queue.bytes_in_flight()), (0, 0));
    assert_eq!(queue.pop(0), Some(2));
}

/// What scans asked for and nobody waits for any more is no part of what they have had.
#[test]
fn withdrawn_requests_cost_their_class_no_shares() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    let (scan, merge) = (read(IoClass::Scan, 1 << 20), read(IoClass::Compaction, 1 << 20));
    for number in 0..100 {
        queue.push(scan, (scan, number), 0);
        queue.push(merge, (merge, number), 0);
    }
    let mut went = [0; 2];
    while let Some((request, number)) = queue.pop(0) {
        if request == scan && number < 90 {
            queue.withdraw(scan, 0);
            continue;
        }
        queue.complete(request, request.bytes, 0, 0);
        went[usize::from(request == merge)] += 1;
        if went[0] == 1 {
            break;
        }
    }
    assert!(went[1] <= 3, "{} merges went before the first scan that is wanted", went[1]);
}

/// Those who asked are gone: what is left of it does not wait for one cap after the other.
#[test]
fn withdrawn_requests_use_up_no_cap() {
    let mut options = IoQueueOptions::default();
    options.bandwidth_max[IoClass::Scan as usize] = Some(16 << 10);
    let mut queue = IoQueue::new(options);
    let request = read(IoClass::Scan, 1 << 20);
    for number in 0..100 {
        queue.push(request, number, 0);
    }
    for number in 0..99 {
        assert_eq!(queue.pop(0), Some(number));
        queue.withdraw(request, 0);
    }
    assert_eq!(queue.pop(0), Some(99));
    queue.push(request, 100, 0);
    assert_eq!(queue.pop(0), None, "this one has used it up");
    assert!(queue.due().unwrap() > 60_000_000_000);
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_more_requests_than_are_in_flight_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(read(IoClass::Read, 4_096), (), 0);
    assert_eq!(queue.pop(0), Some(()));
    queue.complete(read(IoClass::Read, 4_096), 4_096, 0, 0);
    queue.complete(read(IoClass::Read, 4_096), 4_096, 0, 0);
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_more_bytes_than_are_in_flight_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(read(IoClass::Read, 4_096), (), 0);
    assert_eq!(queue.pop(0), Some(()));
    queue.complete(read(IoClass::Read, 8_192), 8_192, 0, 0);
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_for_another_class_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(read(IoClass::Read, 4_096), (), 0);
    assert_eq!(queue.pop(0), Some(()));
    queue.complete(read(IoClass::Scan, 4_096), 4_096, 0, 0);
}

#[test]
#[should_panic(expected = "too few bytes")]
fn completing_too_few_bytes_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(read(IoClass::Read, 4_096), (), 0);
    assert_eq!(queue.pop(0), Some(()));
    queue.complete(read(IoClass::Read, 0), 0, 0, 0);
}
