//! A background that is held back because reads are late: what counts as its part, and when it may
//! go on.

use super::device_tests::{
    Load, MILLISECOND, Machine, SECOND, all_that_nobody_waits_for, charged, model, reads, times,
};
use super::{IoQueue, IoQueueOptions, IoRequest};
use crate::device_group::DeviceGroup;
use crate::device_model::{IoDirection, tokens_of};
use crate::env::{IoClass, TaskQueue};
use crate::urgency::{URGENCY_MAX, URGENCY_USUAL};

fn request(class: IoClass, bytes: u64) -> IoRequest {
    IoRequest { class, direction: IoDirection::Read, bytes }
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
    let (scan, merge) = (request(IoClass::Scan, 4_096), request(IoClass::Compaction, 128 << 10));
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
    let options =
        IoQueueOptions { device: Some(DeviceGroup::new(model(), 1)), ..IoQueueOptions::default() };
    let mut queue = IoQueue::new(options);
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

/// Reads that come at random, at half of what the figures say, beside work that takes all the rest:
/// their 99th percentile is at most twice what it is alone, unless the device can do no more than
/// its figures say and always has something left to do.
#[test]
fn reads_at_half_of_the_device_hardly_notice_the_background() {
    let slower = times(model(), 1, 2);
    for (real, file, tenths) in [
        (times(model(), 11, 10), model(), 20),
        (times(slower, 11, 10), slower, 20),
        (model(), slower, 20),
        (model(), times(model(), 1, 10), 12),
        (model(), model(), 25),
        (slower, slower, 25),
    ] {
        let half = 4 * SECOND / file.read_iops;
        let run = |others: fn() -> Vec<Load>| {
            let core = |seed| {
                let reads = reads(IoClass::Read, 4_096, 0).at_random(half, seed);
                std::iter::once(reads).chain(others()).collect()
            };
            let machine = Machine::new(real, file, vec![core(1), core(2)]);
            let mut machine = machine.with_channels(8);
            machine.run(SECOND);
            machine.forget();
            let before = charged(&machine, |_| true);
            machine.run(4 * SECOND);
            let p99 = (0..2).map(|core| machine.load(core, 0).p99()).max().expect("two cores");
            (p99, charged(&machine, |_| true) - before)
        };
        let (alone, of_reads) = run(Vec::new);
        let (beside, of_all) = run(all_that_nobody_waits_for);
        assert!(beside * 10 <= alone * tenths, "{file:?}: {beside} ns beside, {alone} alone");
        let (left, others) = (tokens_of(4 * SECOND) - of_reads, of_all - of_reads);
        assert!(others >= left * 9 / 10, "{file:?}: {others} of {left}");
    }
}

/// A core whose clients take all of the device does not stop the work of another core, nor its own.
#[test]
fn reads_that_take_the_whole_device_leave_the_background_a_part() {
    let clients = || reads(IoClass::Read, 4_096, 256);
    let merge = || reads(IoClass::Compaction, 128 << 10, 4);
    for others in [vec![merge()], vec![clients(), merge()]] {
        let is_alone = others.len() == 1;
        let mut machine = Machine::new(model(), model(), vec![vec![clients()], others]);
        machine.run(SECOND);
        let merges = charged(&machine, |class| class == IoClass::Compaction);
        let all = charged(&machine, |_| true);
        let least = if is_alone { all / 5 } else { all / 30 };
        assert!(merges >= least, "{merges} of {all}, alone on its core: {is_alone}");
    }
}
