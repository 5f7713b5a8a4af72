//! Starting again: what is found, what is kept, and what is cleared away.

use std::path::{Path, PathBuf};

use larder_runtime::env::{Env, File, IoClass, OpenMode};
use larder_runtime::simulation::{SimDisk, SimEnv};

use super::harness::{self, TestShard, tiny_options};
use super::history::Name;
use super::smoke::{get, run, set};
use crate::operation::Outcome;
use crate::shard::ShardOptions;
use crate::value_log::segment;

/// Options with which nothing is ever flushed to a table by itself.
fn log_only() -> ShardOptions {
    ShardOptions { memtable_bytes: 1 << 20, recovery_log_bytes: 1 << 30, ..tiny_options() }
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

async fn fill(shard: TestShard, range: std::ops::Range<usize>) {
    for number in range {
        let reply = run(&shard, &key(number), set(&[number as u8; 3000])).await;
        assert_eq!(reply.outcome, Outcome::Stored);
    }
}

async fn check(shard: TestShard, range: std::ops::Range<usize>) {
    for number in range {
        let reply = run(&shard, &key(number), get()).await;
        assert_eq!(reply.outcome, Outcome::Hit, "key {number}");
        assert_eq!(reply.value, vec![number as u8; 3000], "key {number}");
    }
}

fn count_segments(disk: &SimDisk) -> usize {
    let is_segment = |path: &Path| {
        let name = path.file_name().expect("files have names").to_string_lossy().into_owned();
        segment::parse_file_name(&name).is_some()
    };
    disk.files().iter().filter(|(path, _)| is_segment(path)).count()
}

#[test]
fn every_segment_that_no_seal_ended_is_replayed_by_every_later_start() {
    let options = log_only();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    // Frames of 4 KiB in segments of 64: several segments, none of them in the manifest as full.
    first.block_on(fill(shard, 0..50)).expect("runs");
    let mut disk = first.kill();
    for seed in 2..5 {
        // Killed before what was replayed is written to a table.
        let mut life = harness::life(seed, disk);
        let (_, report) = harness::open_in(&mut life, &options);
        assert_eq!((report.records, report.damage), (50, vec![]));
        disk = life.kill();
    }
    let mut last = harness::life(5, disk);
    let (shard, _) = harness::open_in(&mut last, &options);
    last.block_on(check(shard, 0..50)).expect("runs");
}

#[test]
fn starts_that_are_followed_by_crashes_do_not_pile_segments_up() {
    let options = log_only();
    let mut disk = harness::empty_disk(harness::CAPACITY);
    for seed in 0..20 {
        let mut life = harness::life(seed, disk);
        let (shard, _) = harness::open_in(&mut life, &options);
        life.block_on(fill(shard.clone(), 0..2)).expect("runs");
        life.run_until_idle().expect("runs");
        life.block_on(check(shard, 0..2)).expect("runs");
        disk = life.kill();
    }
    let segments = count_segments(&disk);
    assert!(segments <= 10, "{segments} segments after 20 starts");
}

async fn write_file(env: SimEnv, name: String, len: usize) {
    let path = Path::new(harness::DIRECTORY).join(name);
    let file = env.open(&path, OpenMode::CreateNew).await.expect("creates");
    let mut buffer = env.buffer(len);
    buffer.fill(0);
    file.write_durably(IoClass::Scrub, 0, buffer).await.0.expect("writes");
    env.sync_directory(Path::new(harness::DIRECTORY)).await.expect("syncs");
}

#[test]
fn a_segment_that_was_half_prepared_is_not_used() {
    let options = tiny_options();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    first.block_on(fill(shard, 0..2)).expect("runs");
    let names = [0x50, 0x51, 0x52].map(segment::file_name);
    for (name, len) in names.iter().zip([4096, 2 * 65536, 65536]) {
        first.block_on(write_file(first.env(), name.clone(), len)).expect("runs");
    }
    let mut second = harness::life(2, first.kill());
    let (shard, _) = harness::open_in(&mut second, &options);
    second.block_on(fill(shard, 2..60)).expect("runs");
    let disk = second.kill();
    for name in &names[..2] {
        let path: PathBuf = Path::new(harness::DIRECTORY).join(name);
        assert!(!disk.exists(&path), "{name} has the wrong length and is gone");
    }
    let mut third = harness::life(3, disk);
    let (shard, report) = harness::open_in(&mut third, &options);
    assert_eq!(report.damage, []);
    third.block_on(check(shard, 0..60)).expect("runs");
}

#[test]
fn a_clean_end_tells_damage_to_the_last_frame_from_a_torn_one() {
    let options = log_only();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    first.block_on(fill(shard.clone(), 0..3)).expect("runs");
    let closing = shard.clone();
    first.block_on(async move { closing.close().await }).expect("runs").expect("closes");
    let pointer = harness::pointer(&shard, &key(2)).expect("a separate value");
    drop(shard);
    let mut disk = first.kill();
    let path = Path::new(harness::DIRECTORY).join(segment::file_name(pointer.segment));
    disk.flip_bit(&path, u64::from(pointer.offset + pointer.len - 1), 0);

    let mut second = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut second, &options);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].what.contains("key-2"), "{:?}", report.damage);
    second.block_on(check(shard.clone(), 0..2)).expect("runs");
    let stored =
        second.block_on(async move { harness::stored(&shard, &Name::memcached(&key(2))).await });
    let error = stored.expect("runs").expect_err("the value is damaged");
    assert!(error.to_string().contains("key-2"), "{error}");
}

#[test]
fn a_file_that_is_not_the_shards_is_named() {
    let options = tiny_options();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    drop(harness::open_in(&mut first, &options));
    first.block_on(write_file(first.env(), "photo.jpg".to_owned(), 4096)).expect("runs");
    let mut second = harness::life(2, first.kill());
    let opened = second.block_on(harness::open(second.env(), options)).expect("runs");
    let error = opened.err().expect("refused");
    assert!(error.to_string().contains("photo.jpg"), "{error}");
}

#[test]
fn another_number_of_shards_is_refused() {
    let options = tiny_options();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    drop(harness::open_in(&mut first, &options));
    let mut second = harness::life(2, first.kill());
    let other = ShardOptions { shards: 2, ..options };
    let opened = second.block_on(harness::open(second.env(), other)).expect("runs");
    let error = opened.err().expect("refused");
    assert!(error.to_string().contains("--shards 1"), "{error}");
}

#[test]
fn a_flush_whose_record_is_lost_still_counts() {
    let options = log_only();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    let worker = shard.clone();
    let before = first.block_on(async move {
        run(&worker, b"old", set(&[1; 100])).await;
        let pointer = harness::pointer(&worker, b"old").expect("a separate value");
        let needs = worker.flush_all(None).await.expect("logs");
        worker.log.wait_durable(needs).await.expect("durable");
        run(&worker, b"new", set(&[2; 100])).await;
        worker.close().await.expect("closes");
        pointer
    });
    let before = before.expect("runs");
    drop(shard);
    let mut disk = first.kill();
    // The next frame is the flush's.
    let path = Path::new(harness::DIRECTORY).join(segment::file_name(before.segment));
    let frame = u64::from(before.offset + before.len).next_multiple_of(4096);
    disk.zero_sector(&path, frame);

    let mut second = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut second, &options);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    second
        .block_on(async move {
            assert_eq!(run(&shard, b"old", get()).await.outcome, Outcome::Miss);
            assert_eq!(run(&shard, b"new", get()).await.value, [2; 100]);
            let needs = shard.flush_all(None).await.expect("logs");
            shard.log.wait_durable(needs).await.expect("durable");
            assert_eq!(run(&shard, b"new", get()).await.outcome, Outcome::Miss);
        })
        .expect("runs");
}

#[test]
fn a_segment_that_a_clean_end_has_sealed_is_read_by_every_later_start() {
    let options = log_only();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    let worker = shard.clone();
    let count = first
        .block_on(async move {
            let mut count = 0;
            while worker.log.position().segment == 0 {
                fill(worker.clone(), count..count + 1).await;
                count += 1;
            }
            // A flush that the end has cut short has taken the first segment's seal with it, and
            // the segment after the current one is not in the manifest yet.
            assert_eq!(worker.log.take_seals().len(), 1);
            assert_eq!(worker.journal.state().segments.len(), 2);
            worker.close().await.expect("closes");
            count
        })
        .expect("runs");
    drop(shard);
    let mut disk = first.kill();
    for seed in 2..5 {
        let mut life = harness::life(seed, disk);
        let (_, report) = harness::open_in(&mut life, &options);
        assert_eq!(report.damage, [], "start {seed}");
        disk = life.kill();
    }
    let mut last = harness::life(5, disk);
    let (shard, _) = harness::open_in(&mut last, &options);
    last.block_on(check(shard, 0..count)).expect("runs");
}
