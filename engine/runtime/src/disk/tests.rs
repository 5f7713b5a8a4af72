use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::task::Poll;

use crate::buffer::Buffer;
use crate::core_thread::{Core, CoreOptions};
use crate::env::{Env, File, IoClass, OpenMode};
use crate::fake_ring::{FakeRing, Reply};
use crate::io_queue::IoQueueOptions;
use crate::ring::Operation;
use crate::ring_env::RingEnv;
use crate::ring_file::RingFile;

pub(super) struct Fixture {
    pub(super) core: Core<FakeRing>,
    pub(super) ring: FakeRing,
    pub(super) env: RingEnv,
    pub(super) file: RingFile,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    fixture_on(FakeRing::new())
}

fn fixture_on(ring: FakeRing) -> Fixture {
    fixture_with(ring, IoQueueOptions::default())
}

pub(super) fn fixture_with(ring: FakeRing, io: IoQueueOptions) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    let spin_max = std::time::Duration::ZERO;
    let options = CoreOptions { spin_max, io, ..CoreOptions::default() };
    let mut core = Core::with_ring(ring.clone(), options).unwrap();
    let env = core.env();
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    Fixture { core, ring, env, file, path, _directory: directory }
}

pub(super) fn patterned(env: &RingEnv, len: usize) -> Buffer {
    let mut buffer = env.buffer(len);
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index / 3 + index / 4096) as u8;
    }
    buffer
}

pub(super) fn turn() -> impl Future<Output = ()> {
    let mut polled = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

fn is_write(operation: &Operation) -> bool {
    matches!(operation, Operation::Write { .. })
}

pub(super) fn is_read(operation: &Operation) -> bool {
    matches!(operation, Operation::Read { .. })
}

pub(super) fn is_sync(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync { .. })
}

impl Fixture {
    pub(super) fn write(&mut self, len: usize) -> io::Result<()> {
        let buffer = patterned(&self.env, len);
        let (result, returned) = self.core.block_on(self.file.write(IoClass::Flush, 0, buffer));
        assert_eq!(returned.len(), len);
        result
    }

    pub(super) fn write_durably(&mut self, len: usize) -> io::Result<()> {
        let buffer = patterned(&self.env, len);
        self.core.block_on(self.file.write_durably(IoClass::Commit, 0, buffer)).0
    }

    /// Offset and length in bytes of every write that was started.
    pub(super) fn writes(&self) -> Vec<(u64, u32)> {
        let kernel = self.ring.kernel.borrow();
        let shape = |operation: &Operation| match *operation {
            Operation::Write { offset, len, .. } => Some((offset, len)),
            _ => None,
        };
        kernel.log.iter().filter_map(shape).collect()
    }

    pub(super) fn read(&mut self, len: usize) -> (io::Result<()>, Buffer) {
        let buffer = self.env.buffer(len);
        self.core.block_on(self.file.read(IoClass::Read, 0, buffer))
    }

    #[allow(clippy::disallowed_methods, reason = "the test looks at the file behind the ring")]
    pub(super) fn expect_content(&self, len: usize) {
        let content = std::fs::read(&self.path).unwrap();
        assert!(content == *patterned(&self.env, len), "the file holds other bytes");
    }
}

#[test]
fn short_reads_are_continued_from_an_aligned_offset() {
    let mut fixture = fixture();
    fixture.write(16384).unwrap();
    fixture.ring.script([Reply::Short(4096), Reply::Short(5000), Reply::Full]);
    let (result, buffer) = fixture.read(16384);
    result.unwrap();
    assert!(*buffer == *patterned(&fixture.env, 16384));
    let offsets: Vec<u64> = fixture
        .ring
        .kernel
        .borrow()
        .log
        .iter()
        .filter_map(|operation| {
            if let Operation::Read { offset, .. } = operation { Some(*offset) } else { None }
        })
        .collect();
    assert_eq!(offsets, [0, 4096, 8192]);
    let counters = fixture.env.disk_counters();
    assert_eq!((counters.reads, counters.classes[IoClass::Read as usize].completed), (3, 3));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test makes a file of odd length")]
fn reading_past_the_end_says_so() {
    let mut fixture = fixture();
    std::fs::write(&fixture.path, vec![1; 5000]).unwrap();
    let (result, buffer) = fixture.read(8192);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let message = error.to_string();
    assert!(message.starts_with("read /") && message.contains("segment"), "{message}");
    assert_eq!(buffer.len(), 8192, "the buffer comes back");
    assert_eq!(fixture.env.disk_requests(), 0);
}

#[test]
fn a_short_durable_write_is_completed_and_then_flushed() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Short(4096), Reply::Short(5000)]);
    fixture.write_durably(16384).unwrap();
    fixture.expect_content(16384);
    assert_eq!(fixture.writes(), [(0, 16384), (4096, 12288), (8192, 8192)]);
    let log = fixture.ring.kernel.borrow().log.clone();
    assert!(log.last().is_some_and(is_sync), "the flush comes last");
    assert_eq!(fixture.ring.count(is_sync), 1);
    let counters = fixture.env.disk_counters();
    assert_eq!((counters.writes, counters.write_bytes, counters.syncs), (3, 4096 + 5000 + 8192, 1));
    assert_eq!(counters.classes[IoClass::Commit as usize].completed, 4);
}

#[test]
fn a_long_durable_write_goes_in_legs_with_one_flush() {
    let mut fixture = fixture();
    fixture.write_durably((5 << 20) / 2).unwrap();
    fixture.expect_content((5 << 20) / 2);
    let leg = 1 << 20;
    assert_eq!(fixture.writes(), [(0, leg), (1 << 20, leg), (2 << 20, leg / 2)]);
    assert_eq!((fixture.ring.count(is_sync), fixture.file.len()), (1, (5 << 20) / 2));
}

#[test]
fn a_durable_write_resolves_only_after_its_flush() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Hold, Reply::Hold]);
    let buffer = patterned(&fixture.env, 4096);
    let mut write = Box::pin(fixture.file.write_durably(IoClass::Commit, 0, buffer));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    for (held, is_held, syncs) in
        [(4096, is_write as fn(&Operation) -> bool, 0), (0, is_sync as fn(&Operation) -> bool, 1)]
    {
        for _ in 0..3 {
            fixture.core.block_on(turn());
            assert!(write.as_mut().poll(context).is_pending());
        }
        assert_eq!(fixture.ring.count(is_sync), syncs, "the flush waits for the write");
        fixture.ring.kernel.borrow_mut().complete(is_held, held, false);
    }
    let (result, returned) = fixture.core.block_on(write);
    result.unwrap();
    assert_eq!(returned.len(), 4096);
}

#[test]
fn a_durable_write_dropped_before_its_flush_is_over() {
    let mut fixture = fixture();
    let free = fixture.core.pool().free_bytes();
    fixture.ring.script([Reply::HoldFirmly]);
    let write = fixture.file.write_durably(IoClass::Commit, 0, fixture.env.buffer(4096));
    fixture.core.block_on(turn());
    drop(write);
    fixture.ring.kernel.borrow_mut().complete(is_write, 4096, false);
    fixture.core.block_on(turn());
    assert_eq!((fixture.env.disk_requests(), fixture.core.pool().free_bytes()), (0, free));
    assert_eq!(fixture.ring.count(is_sync), 0, "nobody waits for it");
}

#[test]
fn interrupted_operations_are_tried_again() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Error(libc::EINTR), Reply::Error(libc::EAGAIN), Reply::Full]);
    fixture.write(4096).unwrap();
    fixture.ring.script([Reply::Error(libc::EAGAIN)]);
    fixture.write_durably(4096).unwrap();
    fixture.expect_content(4096);
    assert_eq!((fixture.ring.count(is_write), fixture.ring.count(is_sync)), (5, 1));
    fixture.ring.script([Reply::Error(libc::EINTR)]);
    fixture.read(4096).0.unwrap();
}

#[test]
fn trying_again_has_an_end() {
    let mut fixture = fixture();
    fixture.ring.script((0..100).map(|_| Reply::Error(libc::EAGAIN)));
    let error = fixture.write(4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(fixture.ring.count(is_write), 33);
}

#[test]
fn a_failed_flush_is_final() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Error(libc::EINTR)]);
    let message = fixture.core.block_on(fixture.file.sync(IoClass::Commit)).unwrap_err();
    assert!(message.to_string().starts_with("sync /"), "{message}");
    assert_eq!(fixture.ring.count(is_sync), 1, "it is not tried again");
}

#[test]
fn a_failed_durable_write_is_final() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Error(libc::EIO)]);
    let message = fixture.write_durably(4096).unwrap_err().to_string();
    assert!(message.starts_with("durable write /") && message.contains("os error 5"), "{message}");
    assert_eq!((fixture.ring.count(is_write), fixture.ring.count(is_sync)), (1, 0));
    for errno in [libc::EIO, libc::EINTR, libc::ECANCELED] {
        let before = (fixture.ring.count(is_write), fixture.ring.count(is_sync));
        fixture.ring.script([Reply::Full, Reply::Error(errno)]);
        fixture.write_durably(4096).unwrap_err();
        let after = (fixture.ring.count(is_write), fixture.ring.count(is_sync));
        assert_eq!(after, (before.0 + 1, before.1 + 1), "nothing is tried again");
    }
}

#[test]
fn a_full_disk_is_reported_with_operation_and_path() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Error(libc::ENOSPC)]);
    let error = fixture.write_durably(4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains(fixture.path.to_str().unwrap()), "{error}");
    fixture.ring.script([Reply::Short(0)]);
    let error = fixture.write(4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn completions_that_were_set_aside_arrive() {
    let mut fixture = fixture();
    fixture.write(4096 * 10).unwrap();
    fixture.ring.kernel.borrow_mut().completions_max = 2;
    let reads: Vec<_> = (0..10)
        .map(|block| fixture.file.read(IoClass::Scan, block * 4096, fixture.env.buffer(4096)))
        .collect();
    fixture.core.block_on(async {
        for read in reads {
            read.await.0.unwrap();
        }
    });
    assert!(fixture.ring.kernel.borrow().overflows >= 7);
    assert_eq!(fixture.env.disk_requests(), 0);
}

#[test]
fn a_dropped_read_is_cancelled_and_gives_its_buffer_back() {
    let mut fixture = fixture();
    let free = fixture.core.pool().free_bytes();
    fixture.ring.script([Reply::Hold]);
    let read = fixture.file.read(IoClass::Read, 0, fixture.env.buffer(8192));
    fixture.core.block_on(turn());
    assert!(fixture.ring.kernel.borrow().is_waiting(is_read));
    drop(read);
    assert_eq!(fixture.env.disk_requests(), 1, "the slot waits for the completion");
    fixture.core.block_on(async {
        turn().await;
        turn().await;
    });
    assert_eq!(fixture.env.disk_requests(), 0);
    assert_eq!(fixture.core.pool().free_bytes(), free);
}

#[test]
fn a_slot_waits_for_an_operation_that_cannot_be_cancelled() {
    let mut fixture = fixture();
    let free = fixture.core.pool().free_bytes();
    fixture.ring.script([Reply::HoldFirmly]);
    let write = fixture.file.write_durably(IoClass::Commit, 0, fixture.env.buffer(4096));
    fixture.core.block_on(turn());
    drop(write);
    for _ in 0..5 {
        fixture.core.block_on(turn());
    }
    assert_eq!(fixture.env.disk_requests(), 1);
    assert!(fixture.core.pool().free_bytes() < free, "the kernel may still read the buffer");
    fixture.ring.kernel.borrow_mut().complete(is_write, 4096, false);
    fixture.core.block_on(turn());
    assert_eq!((fixture.env.disk_requests(), fixture.core.pool().free_bytes()), (0, free));
}

#[test]
fn a_request_dropped_before_it_was_submitted_never_is() {
    let mut fixture = fixture();
    let before = fixture.ring.count(is_read);
    drop(fixture.file.read(IoClass::Read, 0, fixture.env.buffer(4096)));
    fixture.core.block_on(turn());
    assert_eq!((fixture.ring.count(is_read), fixture.env.disk_requests()), (before, 0));
}

#[test]
fn shutdown_cancels_what_is_in_flight_and_later_requests_fail() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Hold, Reply::Hold]);
    let file = fixture.file.clone();
    let buffer = fixture.env.buffer(4096);
    fixture.env.spawn(crate::env::TaskQueue::Scan, async move {
        file.read(IoClass::Scan, 0, buffer).await.0.unwrap();
    });
    let mut kept = Box::pin(fixture.file.read(IoClass::Read, 0, fixture.env.buffer(4096)));
    fixture.core.block_on(turn());
    fixture.core.shutdown();
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let Poll::Ready((result, _)) = kept.as_mut().poll(context) else { panic!("it is over") };
    assert!(result.unwrap_err().to_string().contains("os error 125"));
    let mut later = Box::pin(fixture.file.sync(IoClass::Commit));
    assert!(matches!(later.as_mut().poll(context), Poll::Ready(Err(_))));
    drop((kept, later));
    assert_eq!(fixture.env.disk_requests(), 0);
}

#[test]
fn a_file_system_without_direct_io_is_opened_buffered() {
    let mut fixture = fixture();
    let path = fixture.path.with_extension("new");
    fixture.ring.script([Reply::Error(libc::EINVAL)]);
    fixture.core.block_on(fixture.env.open(&path, OpenMode::CreateNew)).unwrap();
    let flags: Vec<i32> =
        fixture
            .ring
            .kernel
            .borrow()
            .log
            .iter()
            .filter_map(|operation| {
                if let Operation::Open { flags, .. } = operation { Some(*flags) } else { None }
            })
            .collect();
    assert_eq!(flags[1] & libc::O_DIRECT, libc::O_DIRECT);
    assert_eq!(flags[2] & (libc::O_DIRECT | libc::O_EXCL), 0);
    assert_eq!(flags[2] & libc::O_CLOEXEC, libc::O_CLOEXEC);
    let error = fixture.core.block_on(fixture.env.open(&path, OpenMode::CreateNew)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn registered_memory_is_named_only_when_it_is_registered() {
    let registered = |ring: &FakeRing| {
        ring.count(|operation| matches!(operation, Operation::Write { registered: true, .. }))
    };
    let mut fixture = fixture();
    fixture.write(4096).unwrap();
    assert_eq!(registered(&fixture.ring), 1);
    let foreign = Buffer::zeroed(4096);
    fixture.core.block_on(fixture.file.write(IoClass::Flush, 0, foreign)).0.unwrap();
    assert_eq!(registered(&fixture.ring), 1);
    let ring = FakeRing::new();
    ring.kernel.borrow_mut().refuses_memory = true;
    let mut refused = fixture_on(ring);
    refused.write(4096).unwrap();
    assert_eq!(registered(&refused.ring), 0);
}

#[test]
fn empty_transfers_end_at_once() {
    let mut fixture = fixture();
    fixture.read(0).0.unwrap();
    fixture.write(0).unwrap();
    fixture.write_durably(0).unwrap();
    let data = |operation: &Operation| is_read(operation) || is_write(operation);
    assert_eq!((fixture.ring.count(data), fixture.ring.count(is_sync)), (0, 1));
}

#[test]
fn an_open_waits_while_there_are_no_descriptors() {
    let mut fixture = fixture();
    fixture.ring.script([Reply::Error(libc::EMFILE), Reply::Error(libc::ENFILE)]);
    let opened = fixture.core.block_on(fixture.env.open(&fixture.path, OpenMode::Read));
    opened.expect("the third attempt");
    let opens = |operation: &Operation| matches!(operation, Operation::Open { .. });
    assert_eq!(fixture.ring.count(opens), 4, "with the fixture's own");
}
