//! Disk requests on a core that knows its device: parts, tokens, caps.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use super::tests::{Fixture, fixture_with, is_read, is_sync, patterned, turn};
use crate::clock::monotonic_nanoseconds;
use crate::core_env::CoreEnv;
use crate::core_thread::{Core, CoreOptions};
use crate::device_group::{Claimant, DeviceGroup};
use crate::device_model::DeviceModel;
use crate::env::{Env, File, IoClass, OpenMode};
use crate::fake_ring::{FakeRing, Reply};
use crate::io_queue::IoQueueOptions;
use crate::ring::Operation;

/// The parts of reads and writes on the device below, in bytes.
const READ_PART: u32 = 128 << 10;
const WRITE_PART: u32 = 64 << 10;

fn slow_device() -> IoQueueOptions {
    let model = DeviceModel {
        read_bandwidth: 200_000_000,
        write_bandwidth: 100_000_000,
        ..DeviceModel::default()
    };
    IoQueueOptions { device: Some(DeviceGroup::new(model, 1)), ..IoQueueOptions::default() }
}

fn fixture() -> Fixture {
    fixture_with(FakeRing::new(), slow_device())
}

/// Offset and length in bytes of every read that was started.
fn reads(fixture: &Fixture) -> Vec<(u64, u32)> {
    let kernel = fixture.ring.kernel.borrow();
    let shape = |operation: &Operation| match *operation {
        Operation::Read { offset, len, .. } => Some((offset, len)),
        _ => None,
    };
    kernel.log.iter().filter_map(shape).collect()
}

/// Time for the bucket to have tokens for whatever waits, and for much of it to go.
fn let_pass(fixture: &mut Fixture) {
    let sleep = fixture.env.sleep(10_000_000);
    fixture.core.block_on(sleep);
}

fn parts(count: u64, part: u32) -> Vec<(u64, u32)> {
    (0..count).map(|index| (index * u64::from(part), part)).collect()
}

#[test]
fn long_requests_go_in_parts_and_come_back_whole() {
    let mut fixture = fixture();
    fixture.write(1 << 20).unwrap();
    assert_eq!(fixture.writes(), parts(16, WRITE_PART));
    fixture.expect_content(1 << 20);
    let (result, buffer) = fixture.read(1 << 20);
    result.unwrap();
    assert!(*buffer == *patterned(&fixture.env, 1 << 20));
    assert_eq!(reads(&fixture), parts(8, READ_PART));
    let counters = fixture.env.disk_counters();
    let read = counters.classes[IoClass::Read as usize];
    assert_eq!((read.split, read.completed, read.bytes), (7, 8, 1 << 20));
    let written = counters.classes[IoClass::Flush as usize];
    assert_eq!((written.split, written.completed, written.bytes), (15, 16, 1 << 20));
}

#[test]
fn a_durable_write_in_parts_is_flushed_once_at_its_end() {
    let mut fixture = fixture();
    fixture.write_durably(256 << 10).unwrap();
    assert_eq!((fixture.writes(), fixture.ring.count(is_sync)), (parts(4, WRITE_PART), 1));
    assert!(fixture.ring.kernel.borrow().log.last().is_some_and(is_sync));
    let commit = fixture.env.disk_counters().classes[IoClass::Commit as usize];
    assert_eq!((commit.split, commit.completed), (3, 5), "the flush is no part");
}

#[test]
fn a_short_part_is_completed_before_the_next_and_is_no_split() {
    let mut fixture = fixture();
    fixture.write(256 << 10).unwrap();
    fixture.ring.script([Reply::Short(4096), Reply::Full]);
    let (result, buffer) = fixture.read(256 << 10);
    result.unwrap();
    assert!(*buffer == *patterned(&fixture.env, 256 << 10));
    let expected = [(0, READ_PART), (4096, READ_PART), (4096 + (128 << 10), READ_PART - 4096)];
    assert_eq!(reads(&fixture), expected);
    let split = fixture.env.disk_counters().classes[IoClass::Read as usize].split;
    assert_eq!(split, 1);
}

#[test]
fn an_error_of_a_part_is_the_requests() {
    let mut fixture = fixture();
    fixture.write(1 << 20).unwrap();
    fixture.ring.script([Reply::Full, Reply::Full, Reply::Error(libc::EIO)]);
    let (result, buffer) = fixture.read(1 << 20);
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("read /") && message.contains("os error 5"), "{message}");
    assert_eq!(buffer.len(), 1 << 20, "the buffer comes back");
    assert_eq!(reads(&fixture), parts(3, READ_PART), "no part follows");
    assert_eq!(fixture.env.disk_requests(), 0);
}

#[test]
fn a_file_that_ends_within_a_part_ends_the_request() {
    let mut fixture = fixture();
    fixture.write(192 << 10).unwrap();
    let (result, _) = fixture.read(512 << 10);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let asked: Vec<u64> = reads(&fixture).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(asked, [0, 128 << 10, 192 << 10]);
}

#[test]
fn a_request_dropped_between_its_parts_keeps_its_buffer_as_long_as_the_kernel_does() {
    let mut fixture = fixture();
    let free = fixture.core.pool().free_bytes();
    fixture.write(512 << 10).unwrap();
    fixture.ring.script([Reply::Full, Reply::HoldFirmly]);
    let read = fixture.file.read(IoClass::Read, 0, fixture.env.buffer(512 << 10));
    while !fixture.ring.kernel.borrow().is_waiting(is_read) {
        fixture.core.block_on(turn());
    }
    drop(read);
    (0..3).for_each(|_| fixture.core.block_on(turn()));
    assert_eq!(fixture.env.disk_requests(), 1);
    assert!(fixture.core.pool().free_bytes() < free, "the kernel may still write to it");
    fixture.ring.kernel.borrow_mut().complete(is_read, READ_PART as i32, false);
    fixture.core.block_on(turn());
    assert_eq!((fixture.env.disk_requests(), fixture.core.pool().free_bytes()), (0, free));
    assert_eq!(reads(&fixture).len(), 2, "nobody waits for the others");
}

#[test]
fn a_request_dropped_in_the_queue_gives_its_buffer_back_at_once() {
    let mut options = slow_device();
    options.bandwidth_max[IoClass::Scan as usize] = Some(16 << 10);
    let mut fixture = fixture_with(FakeRing::new(), options);
    fixture.write(64 << 10).unwrap();
    let free = fixture.core.pool().free_bytes();
    let (file, env) = (fixture.file.clone(), fixture.env.clone());
    let first = file.read(IoClass::Scan, 0, env.buffer(64 << 10));
    fixture.core.block_on(first).0.unwrap();
    // Its class has had its part for the next seconds.
    let second = file.read(IoClass::Scan, 0, env.buffer(64 << 10));
    fixture.core.block_on(turn());
    drop(second);
    assert_eq!(fixture.core.pool().free_bytes(), free);
    let_pass(&mut fixture);
    assert_eq!((reads(&fixture).len(), fixture.env.disk_requests()), (1, 1), "the place is kept");
    fixture.env.set_io_class(IoClass::Scan, None, Some(None)).unwrap();
    let_pass(&mut fixture);
    assert_eq!((reads(&fixture).len(), fixture.env.disk_requests()), (1, 0));
    let scan = fixture.env.disk_counters().classes[IoClass::Scan as usize];
    assert_eq!((scan.dispatched, scan.completed, scan.queued, scan.in_flight), (1, 1, 0, 0));
}

#[test]
fn shares_and_caps_change_while_requests_wait() {
    let mut options = slow_device();
    options.bandwidth_max[IoClass::Scan as usize] = Some(16 << 10);
    let mut fixture = fixture_with(FakeRing::new(), options);
    fixture.write(64 << 10).unwrap();
    let (file, env) = (fixture.file.clone(), fixture.env.clone());
    let first = file.read(IoClass::Scan, 0, env.buffer(64 << 10));
    fixture.core.block_on(first).0.unwrap();
    let mut second = Box::pin(file.read(IoClass::Scan, 0, env.buffer(64 << 10)));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let_pass(&mut fixture);
    assert!(second.as_mut().poll(context).is_pending(), "for four seconds");
    let error = env.set_io_class(IoClass::Scan, Some(0), Some(None)).unwrap_err();
    assert!(error.contains("Scan: 0 shares"), "{error}");
    let_pass(&mut fixture);
    assert!(second.as_mut().poll(context).is_pending(), "nothing has changed");
    env.set_io_class(IoClass::Scan, Some(7), Some(Some(1 << 30))).unwrap();
    let_pass(&mut fixture);
    let Poll::Ready((result, _)) = second.as_mut().poll(context) else { panic!("it is over") };
    result.unwrap();
    let scan = env.disk_counters().classes[IoClass::Scan as usize];
    assert_eq!((scan.shares, scan.bandwidth_max), (7, Some(1 << 30)));
    assert!(scan.starved_nanoseconds > 0 && scan.queue_nanoseconds > 0);
}

/// What keeps a request from the ring until the end of the turn is the core, and not the device.
#[test]
fn what_a_request_waits_for_its_core_is_not_taken_for_the_devices_time() {
    const HELD: u64 = 20_000_000;
    let mut fixture = fixture();
    fixture.write(4096).unwrap();
    let (file, env) = (fixture.file.clone(), fixture.env.clone());
    let read = async move {
        let read = file.read(IoClass::Read, 0, env.buffer(4096));
        let start = env.precise_now();
        while env.precise_now() - start < HELD {
            std::hint::spin_loop();
        }
        read.await.0
    };
    fixture.core.block_on(read).unwrap();
    let read = fixture.env.disk_counters().classes[IoClass::Read as usize];
    assert!(read.queue_nanoseconds >= HELD, "{read:?}");
    assert_eq!(read.completed, 1);
}

/// With a real ring: the core sleeps until tokens are due, and is woken for them.
#[test]
fn a_core_sleeps_until_its_tokens_are_due() {
    let model = DeviceModel { read_iops: 10_000, ..DeviceModel::default() };
    let group = DeviceGroup::new(model, 1);
    let io = IoQueueOptions { device: Some(Arc::clone(&group)), ..IoQueueOptions::default() };
    let directory = tempfile::tempdir().unwrap();
    let mut core = Core::new(CoreOptions { io, ..CoreOptions::default() }).unwrap();
    let env = core.env();
    let path = directory.path().join("file");
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    core.block_on(file.write(IoClass::Flush, 0, env.buffer(4096))).0.unwrap();
    let (before, started) = (env.loop_counters(), monotonic_nanoseconds());
    let reads: Vec<_> = (0..200).map(|_| file.read(IoClass::Read, 0, env.buffer(4096))).collect();
    core.block_on(async {
        for read in reads {
            read.await.0.unwrap();
        }
    });
    let elapsed = monotonic_nanoseconds() - started;
    // 200 reads of 100 us, less those for which the bucket had tokens.
    assert!(elapsed >= 19_000_000, "{elapsed} ns: more than the device's tokens");
    let after = env.loop_counters();
    let turns = after.turns - before.turns;
    assert!(after.parks - before.parks >= 10, "it sleeps");
    assert!(turns <= elapsed / 20_000 + 400, "{turns} turns in {elapsed} ns: it spins");
    let read = env.disk_counters().classes[IoClass::Read as usize];
    assert_eq!((read.completed, read.queued, read.in_flight), (200, 0, 0));
    assert!(read.queue_nanoseconds > elapsed, "most of them waited");
    drop(file);
    core.shutdown();
    assert_eq!(group.tokens(Claimant::Awaited).owed, 0, "what it had claimed is given back");
}

#[test]
fn a_core_that_ends_while_requests_wait_for_tokens_ends_them() {
    let model = DeviceModel { read_iops: 10, ..DeviceModel::default() };
    let io =
        IoQueueOptions { device: Some(DeviceGroup::new(model, 1)), ..IoQueueOptions::default() };
    let mut fixture = fixture_with(FakeRing::new(), io);
    fixture.write(4096).unwrap();
    let read = |_| Box::pin(fixture.file.read(IoClass::Read, 0, fixture.env.buffer(4096)));
    let mut reads: Vec<_> = (0..10).map(read).collect();
    fixture.core.block_on(turn());
    fixture.core.shutdown();
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let mut refused = 0;
    for read in &mut reads {
        let Poll::Ready((result, _)) = read.as_mut().poll(context) else { panic!("it is over") };
        refused += usize::from(result.is_err());
    }
    assert!(refused >= 8, "{refused}");
    drop(reads);
    assert_eq!(fixture.env.disk_requests(), 0);
}
