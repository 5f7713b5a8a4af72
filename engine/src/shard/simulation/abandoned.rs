//! Segments that the collector was filling when a crash came: the next start gives them their ends
//! where it can prove them, and leaves them open where not.

use larder_runtime::env::IoClass;
use larder_runtime::simulation::{SimDisk, Simulation};

use super::harness::{self, TestShard};
use super::items::{flush_memtable, rest};
use super::races::{options, write_garbage};
use super::smoke::{get, run, set};
use crate::entry::Pointer;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::operation::Outcome;
use crate::value_log::segment;

const KEYS: [&[u8]; 2] = [b"first", b"second"];

async fn pointer(shard: &TestShard, record: &[u8]) -> Pointer {
    let key = Key::memcached(record).encode();
    let look = |found: crate::index::memtable::Found<'_>| found.entry.pointer();
    let in_memtables = shard.index.in_memtables(&key, key_hash(&key), look).flatten();
    let in_tables =
        shard.index.in_tables(&key, key_hash(&key), IoClass::Read).await.expect("readable");
    let in_tables = in_tables.and_then(|found| found.as_entry().pointer());
    in_memtables.or(in_tables).expect("the key has a long value")
}

/// Whether the segment has an end, or had one: it may have been collected at once.
fn is_sealed(shard: &TestShard, number: u32) -> bool {
    let state = shard.journal.state();
    state.segments.get(&number).is_none_or(|segment| segment.sealed.is_some())
}

/// A disk after a crash that has left a segment of collected records open, and where the two keys'
/// records lie in it, in a frame each, behind a long record. With `in_tables`, tables point there.
fn crashed(in_tables: bool) -> (SimDisk, [Pointer; 2]) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let pointers = life.block_on(async move {
        run(&shard, b"long", set(&[1; 30_000])).await;
        write_garbage(&shard, 60).await;
        flush_memtable(&shard).await;
        rest(&shard).await;
        for key in KEYS {
            run(&shard, key, set(&[7; 500])).await;
            write_garbage(&shard, 2).await;
        }
        write_garbage(&shard, 60).await;
        flush_memtable(&shard).await;
        rest(&shard).await;
        if in_tables {
            flush_memtable(&shard).await;
        }
        let pointers = [pointer(&shard, KEYS[0]).await, pointer(&shard, KEYS[1]).await];
        let number = pointers[0].segment;
        assert_eq!(number, pointers[1].segment);
        let long = pointer(&shard, b"long").await;
        assert!(number == long.segment && long.offset < pointers[0].offset.min(pointers[1].offset));
        assert_ne!(pointers[0].offset / 4096, pointers[1].offset / 4096, "{pointers:?}");
        assert!(shard.collector.writes_to(number) && !is_sealed(&shard, number));
        pointers
    });
    (life.crash(), pointers.expect("runs"))
}

/// The next life: whether the segment was sealed, and that both keys are found in any case.
fn is_sealed_after(disk: SimDisk, number: u32) -> bool {
    let mut life = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    let sealed = life.block_on(async move {
        rest(&shard).await;
        for key in KEYS {
            let reply = run(&shard, key, get()).await;
            assert_eq!((reply.outcome, reply.value), (Outcome::Hit, vec![7; 500]));
        }
        is_sealed(&shard, number)
    });
    sealed.expect("runs")
}

/// Where the frame starts that a record is the first of.
fn frame_of(pointer: Pointer) -> u64 {
    u64::from(pointer.offset) / 4096 * 4096
}

fn path_of(number: u32) -> std::path::PathBuf {
    std::path::Path::new(harness::DIRECTORY).join(segment::file_name(number))
}

#[test]
fn what_a_crash_has_left_open_is_sealed_by_the_next_start() {
    for in_tables in [true, false] {
        let (disk, [first, second]) = crashed(in_tables);
        assert!(is_sealed_after(disk.clone(), first.segment), "in tables: {in_tables}");
        // Damage in front of the last frame hides nothing.
        let mut damaged = disk.clone();
        let offset = frame_of(first).min(frame_of(second));
        damaged.flip_bit(path_of(first.segment), offset + 9, 0);
        assert!(is_sealed_after(damaged, first.segment), "in tables: {in_tables}");
        // Without the last frame's header nobody knows that there is one, but for the pointers.
        let mut damaged = disk;
        let offset = frame_of(first).max(frame_of(second));
        damaged.flip_bit(path_of(first.segment), offset + 9, 0);
        assert!(!is_sealed_after(damaged, first.segment), "in tables: {in_tables}");
    }
}

/// A start on damage in the segment, and collections after it: no key may be lost.
pub(super) fn a_damaged_segment_that_was_left_open_loses_nothing() {
    let (mut disk, [first, second]) = crashed(true);
    disk.flip_bit(path_of(first.segment), frame_of(first).min(frame_of(second)) + 9, 0);
    let mut life: Simulation = harness::life(3, disk);
    let (shard, _) = harness::open_in(&mut life, &options());
    life.block_on(async move {
        rest(&shard).await;
        run(&shard, b"long", set(b"short")).await;
        write_garbage(&shard, 60).await;
        for _ in 0..3 {
            flush_memtable(&shard).await;
            rest(&shard).await;
        }
        for key in KEYS {
            let reply = run(&shard, key, get()).await;
            assert_eq!((reply.outcome, reply.value), (Outcome::Hit, vec![7; 500]));
        }
    })
    .expect("runs");
}

#[test]
fn a_segment_left_open_that_is_damaged_is_not_taken_for_empty() {
    a_damaged_segment_that_was_left_open_loses_nothing();
}
