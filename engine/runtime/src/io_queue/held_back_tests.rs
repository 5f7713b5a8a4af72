//! A background that is held back because reads are late: what counts as its part, and when it may
//! go on.

use super::device_tests::{MILLISECOND, SECOND, model};
use super::{IoQueue, IoQueueOptions, IoRequest};
use crate::device_group::DeviceGroup;
use crate::device_model::IoDirection;
use crate::env::{IoClass, TaskQueue};
use crate::urgency::{URGENCY_MAX, URGENCY_USUAL};

fn request(class: IoClass, bytes: u64) -> IoRequest {
    IoRequest { class, direction: IoDirection::Read, bytes }
}

fn queue_of_one_core() -> IoQueue<u64> {
    let device = Some(DeviceGroup::new(model(), 1));
    IoQueue::new(IoQueueOptions { device, ..IoQueueOptions::default() })
}

/// Has reads be late until little is left to the background; returns the nanosecond at which that
/// is so.
fn after_late_reads(queue: &mut IoQueue<u64>) -> u64 {
    let read = request(IoClass::Read, 4_096);
    let mut now = 0;
    while queue.flow().allowed_thousandths > 50 {
        assert!(now < 60 * SECOND, "late reads change nothing");
        // A window in which nothing is late lets it have more again.
        for _ in 0..10 {
            queue.push(read, 0, now);
            assert_eq!(queue.pop(now), Some(0));
            queue.complete(read, read.bytes, SECOND, now);
        }
        now += 100 * model().latency_goal;
    }
    now
}

/// Reads that are late have the background held back. A request of it that nobody waits for any
/// more is no part of what it had, and what else keeps a class out still does.
#[test]
fn a_withdrawn_request_does_not_pause_the_background() {
    let mut options =
        IoQueueOptions { device: Some(DeviceGroup::new(model(), 1)), ..IoQueueOptions::default() };
    options.bandwidth_max[IoClass::Scan as usize] = Some(16 << 10);
    let mut queue = IoQueue::new(options);
    let (scan, merge) = (request(IoClass::Scan, 4_096), request(IoClass::Compaction, 256 << 10));
    let mut now = after_late_reads(&mut queue);
    for number in 1..=3 {
        queue.push(merge, number, now);
    }
    assert_eq!(queue.pop(now), Some(1));
    queue.withdraw(merge, now);
    assert_eq!(queue.pop(now), Some(2), "nothing of the background's part is used");
    queue.complete(merge, merge.bytes, 0, now);
    assert_eq!(queue.pop(now), None, "that one has used it up");
    assert!(queue.due().is_some_and(|due| due > now), "{:?}", queue.due());
    now += SECOND;
    assert_eq!(queue.pop(now), Some(3));
    queue.complete(merge, merge.bytes, 0, now);
    // A scan that has used its cap up stays out of what a merge gives back.
    now += SECOND;
    queue.push(scan, 4, now);
    queue.push(scan, 5, now);
    assert_eq!(queue.pop(now), Some(4));
    queue.complete(scan, scan.bytes, 0, now);
    now += 100 * MILLISECOND;
    queue.push(merge, 6, now);
    assert_eq!(queue.pop(now), Some(6));
    queue.withdraw(merge, now);
    assert_eq!(queue.pop(now), None, "the scan waits for its cap");
    let due = queue.due().expect("it is due");
    assert!((now + 100 * MILLISECOND..now + SECOND).contains(&due), "{due}");
    assert_eq!(queue.pop(due), Some(5));
}

/// While work is as urgent as it can be it is not held back, however late reads are. When it is
/// less urgent it is held back by its part, and not by what no part was ever set for.
#[test]
fn work_that_is_no_longer_urgent_goes_on_at_its_part() {
    let mut queue = queue_of_one_core();
    let scrub = request(IoClass::Scrub, 64 << 10);
    queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_MAX);
    let mut now = after_late_reads(&mut queue);
    assert_eq!(queue.pop(now), None, "the last window has ended");
    queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_USUAL);
    for number in 1..=2 {
        queue.push(scrub, number, now);
    }
    assert_eq!(queue.pop(now), Some(1));
    queue.complete(scrub, scrub.bytes, 0, now);
    assert_eq!(queue.pop(now), None, "it has had its part");
    now += 100 * MILLISECOND;
    assert_eq!(queue.pop(now), Some(2), "due {:?}", queue.due());
}

/// Work that is held back and becomes urgent goes on, and does not wait for the end of a pause that
/// was to be long.
#[test]
fn work_that_becomes_urgent_does_not_wait_for_the_end_of_its_pause() {
    let mut queue = queue_of_one_core();
    let scrub = request(IoClass::Scrub, 64 << 10);
    let now = after_late_reads(&mut queue);
    for number in 1..=3 {
        queue.push(scrub, number, now);
    }
    assert_eq!(queue.pop(now), Some(1));
    assert_eq!(queue.pop(now), None, "it has had its part");
    let due = queue.due().expect("it is due");
    assert!(due > now + MILLISECOND, "{}", due - now);
    queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_USUAL + 1);
    assert_eq!(queue.pop(now), None, "little more urgent is no reason");
    queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_MAX);
    assert_eq!(queue.pop(now), Some(2));
    // No longer urgent, it goes on where it was, and owes what it owed.
    queue.claim_urgency(0, TaskQueue::GarbageCollection, URGENCY_USUAL);
    assert_eq!(queue.pop(now), Some(3));
    assert_eq!(queue.pop(now), None);
    queue.push(scrub, 4, now);
    assert_eq!(queue.pop(now), None);
    assert!(queue.due().expect("it is due") >= due, "all of it is owed");
}
