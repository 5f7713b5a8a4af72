use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Admission, ClassCounters, IoQueue, IoQueueOptions, request_cost};
use crate::env::{IO_CLASSES, IoClass};

const CLASSES: [IoClass; IO_CLASSES] = [
    IoClass::Commit,
    IoClass::Read,
    IoClass::Scan,
    IoClass::Flush,
    IoClass::Compaction,
    IoClass::GarbageCollection,
    IoClass::Scrub,
];

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
        },
    )
}

/// A queue, and what a device would know of it.
struct Device {
    options: IoQueueOptions,
    queue: IoQueue<Numbered>,
    waiting: [VecDeque<Numbered>; IO_CLASSES],
    in_flight: Vec<Numbered>,
    dispatched: [ClassCounters; IO_CLASSES],
}

impl Device {
    fn new(options: IoQueueOptions) -> Self {
        Self {
            options,
            queue: IoQueue::new(options),
            waiting: Default::default(),
            in_flight: Vec::new(),
            dispatched: Default::default(),
        }
    }

    fn push(&mut self, request: Numbered) {
        let (class, bytes, _) = request;
        self.queue.push(CLASSES[class], bytes, request);
        self.waiting[class].push_back(request);
    }

    /// Pops one request and compares it with what was expected; whether there was one.
    fn pop(&mut self) -> bool {
        let Some(request) = self.queue.pop() else { return false };
        let (class, bytes, _) = request;
        assert_eq!(self.waiting[class].pop_front(), Some(request), "first in, first out");
        self.in_flight.push(request);
        self.dispatched[class].dispatched += 1;
        self.dispatched[class].bytes += bytes;
        true
    }

    fn complete(&mut self, pick: usize) {
        if !self.in_flight.is_empty() {
            let (class, bytes, _) = self.in_flight.swap_remove(pick % self.in_flight.len());
            self.queue.complete(CLASSES[class], bytes);
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
            let queued = self.waiting[index].len() as u64;
            let expected = ClassCounters { queued, ..self.dispatched[index] };
            assert_eq!(self.queue.class_counters(class), expected);
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
        for index in 0..IO_CLASSES {
            queue.push(CLASSES[index], sizes[index], index);
            queue.push(CLASSES[index], sizes[index], index);
        }
        for _ in 0..2_000 {
            let index = queue.pop().expect("the device is idle");
            queue.push(CLASSES[index], sizes[index], index);
            cost[index] += request_cost(sizes[index]);
            queue.complete(CLASSES[index], sizes[index]);
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
fn the_default_gives_reads_ten_times_what_a_scan_gets() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    for _ in 0..2_000 {
        queue.push(IoClass::Read, 4_096, IoClass::Read);
        queue.push(IoClass::Scan, 4_096, IoClass::Scan);
    }
    for _ in 0..1_100 {
        let class = queue.pop().unwrap();
        queue.complete(class, 4_096);
    }
    assert_eq!(queue.class_counters(IoClass::Read).dispatched, 1_000);
    assert_eq!(queue.class_counters(IoClass::Scan).dispatched, 100);
}

#[test]
fn a_request_over_the_limit_goes_alone() {
    let options = IoQueueOptions { bytes_in_flight_max: 1 << 20, ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
    queue.push(IoClass::Read, 4_096, "read");
    queue.push(IoClass::Compaction, 2 << 20, "large");
    assert_eq!(queue.pop(), Some("read"));
    assert_eq!(queue.pop(), None, "something is in flight");
    queue.push(IoClass::Read, 4_096, "later read");
    queue.complete(IoClass::Read, 4_096);
    let mut order = Vec::new();
    while let Some(request) = queue.pop() {
        assert_eq!(queue.in_flight(), 1);
        order.push(request);
        let (class, bytes) = match request {
            "large" => (IoClass::Compaction, 2 << 20),
            _ => (IoClass::Read, 4_096),
        };
        assert_eq!(queue.pop(), None, "nothing goes beside, or before, the large one");
        queue.complete(class, bytes);
    }
    order.sort_unstable();
    assert_eq!(order, ["large", "later read"]);
}

#[test]
fn changed_shares_take_effect() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.set_shares(IoClass::Compaction, 1000);
    for _ in 0..100 {
        queue.push(IoClass::Read, 4_096, IoClass::Read);
        queue.push(IoClass::Compaction, 4_096, IoClass::Compaction);
    }
    for _ in 0..100 {
        let class = queue.pop().unwrap();
        queue.complete(class, 4_096);
    }
    assert_eq!(queue.class_counters(IoClass::Read).dispatched, 50);
}

/// Admits a given number of requests in all, as a bucket does that is refilled by hand.
struct Tokens(usize);

impl Admission for Tokens {
    fn try_admit(&mut self, _bytes: u64) -> bool {
        let admitted = self.0 > 0;
        self.0 -= usize::from(admitted);
        admitted
    }

    fn release(&mut self, _bytes: u64) {}
}

#[test]
fn a_refused_request_stays_and_keeps_its_turn() {
    let shares = IoQueueOptions::default().shares;
    let mut queue = IoQueue::with_admission(&shares, Tokens(1));
    queue.push(IoClass::Read, 4_096, 1);
    queue.push(IoClass::Read, 4_096, 2);
    assert_eq!(queue.pop(), Some(1));
    assert_eq!(queue.pop(), None);
    assert_eq!((queue.queued(), queue.in_flight()), (1, 1));
    queue.admission.0 = 1;
    assert_eq!(queue.pop(), Some(2));
    queue.complete(IoClass::Read, 4_096);
    queue.complete(IoClass::Read, 4_096);
    assert_eq!((queue.queued(), queue.in_flight()), (0, 0));
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_more_requests_than_are_in_flight_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(IoClass::Read, 4_096, ());
    assert_eq!(queue.pop(), Some(()));
    queue.complete(IoClass::Read, 4_096);
    queue.complete(IoClass::Read, 4_096);
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_more_bytes_than_are_in_flight_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(IoClass::Read, 4_096, ());
    assert_eq!(queue.pop(), Some(()));
    queue.complete(IoClass::Read, 8_192);
}

#[test]
#[should_panic(expected = "not in flight")]
fn completing_for_another_class_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(IoClass::Read, 4_096, ());
    assert_eq!(queue.pop(), Some(()));
    queue.complete(IoClass::Scan, 4_096);
}

#[test]
#[should_panic(expected = "too few bytes")]
fn completing_too_few_bytes_panics() {
    let mut queue = IoQueue::new(IoQueueOptions::default());
    queue.push(IoClass::Read, 4_096, ());
    assert_eq!(queue.pop(), Some(()));
    queue.complete(IoClass::Read, 0);
}
