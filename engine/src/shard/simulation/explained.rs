//! What a running shard says that its bytes are for, held against its files and against what is
//! found out of the same directory from outside.

use std::cell::Cell;
use std::path::Path;

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::{SimDisk, Simulation};

use super::harness::{self, TestShard, tiny_options};
use super::items;
use super::smoke::{delete, run, set};
use crate::check;
use crate::shard::ShardOptions;
use crate::space::SpaceReport;

fn part(report: &SpaceReport, name: &str) -> u64 {
    let parts = report.parts();
    parts.iter().find(|part| part.name == name).expect(name).bytes
}

fn on_disk(disk: &SimDisk) -> u64 {
    disk.files().iter().map(|(_, len)| len).sum()
}

fn from_outside(disk: SimDisk) -> SpaceReport {
    let mut life = harness::life(9, disk);
    let env = life.env();
    let explaining =
        async move { check::space(&env, Path::new(harness::DIRECTORY), &mut |_| {}).await };
    life.block_on(explaining).expect("does not hang").expect("a sound store")
}

fn write(life: &mut Simulation, shard: &TestShard, seed: u64) {
    let (mut random, worker) = (Random::new(seed), shard.clone());
    let writing = async move {
        for number in 0..120u64 {
            let key = if number % 8 == 0 { 1000 + number } else { random.below(40) };
            let key = format!("key-{key}").into_bytes();
            let operation = match random.below(20) {
                0 => items::touched(2_000_000_000),
                1 => delete(),
                2 => set(&random.bytes(10)),
                _ => set(&random.bytes(2000)),
            };
            run(&worker, &key, operation).await;
        }
    };
    life.block_on(writing).expect("runs");
}

#[test]
fn every_byte_of_a_running_shard_is_in_one_part() {
    let live = Cell::new(0);
    harness::for_each_seed("every_byte_of_a_running_shard", 1, 40, |seed| {
        let mut random = Random::new(seed);
        let free_segments_max = random.pick(&[0, 2, 8]);
        let options =
            ShardOptions { free_segments_max, space_amplification_percent: 150, ..tiny_options() };
        let mut disk = harness::empty_disk(harness::CAPACITY);
        for _ in 0..2 {
            let mut life = harness::life(seed, disk);
            let (shard, _) = harness::open_in(&mut life, &options);
            write(&mut life, &shard, seed);
            // Merges, collections and removals come to their end.
            life.advance(2_000_000_000).expect("runs");
            let report = shard.space_report();
            assert_eq!(report.total(), on_disk(&life.snapshot()), "seed {seed}: {report:?}");
            assert!(report.is_running);
            live.set(live.get() + part(&report, "live"));
            assert_eq!(part(&report, "undurable"), 0, "all is acknowledged");
            let outside = from_outside(life.snapshot());
            for name in ["superblock", "manifest", "segment_headers", "free"] {
                assert_eq!(part(&report, name), part(&outside, name), "seed {seed}: {name}");
            }
            assert_eq!(report.tables, outside.tables);
            assert_eq!((report.entries, report.tombstones), (outside.entries, outside.tombstones));
            assert_eq!(report.unflushed_keys, outside.unflushed_keys);
            assert_eq!(report.segments.len(), outside.segments.len());
            for (inside, outside) in report.segments.iter().zip(&outside.segments) {
                let what = format!("seed {seed}: {inside:?}, from outside {outside:?}");
                let of_log = !inside.is_collected;
                assert_eq!(inside.number, outside.number, "{what}");
                assert!(!of_log || inside.unflushed == outside.unflushed, "{what}");
                assert!(!of_log || inside.unwritten == outside.unwritten, "{what}");
            }
            drop(shard);
            disk = life.crash();
        }
    });
    assert!(live.get() > 0, "nothing ever lives");
}

#[test]
fn a_freed_file_is_pinned_for_as_long_as_somebody_may_read_it() {
    let mut options = tiny_options();
    options.picker.level_zero_runs = 2;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    let worker = shard.clone();
    let pinning = async move {
        run(&worker, b"key", set(&[7; 500])).await;
        let segment = harness::pointer(&worker, b"key").expect("a long value").segment;
        let pin = worker.pins.segment(segment, worker.env.now());
        items::flush_memtable(&worker).await;
        run(&worker, b"key", set(b"short")).await;
        for round in 0..40u8 {
            run(&worker, &[round], set(&[round; 20])).await;
        }
        items::flush_memtable(&worker).await;
        env.sleep(3_000_000_000).await;
        pin
    };
    let pin = life.block_on(pinning).expect("runs");
    let report = shard.space_report();
    let pinned = report.pinned.clone();
    assert!(pinned.bytes > 0 && pinned.bytes.is_multiple_of(64 << 10), "{report:?}");
    assert_eq!(pinned.operations, 1);
    assert!((3_000_000_000..60_000_000_000).contains(&pinned.oldest_nanoseconds), "{pinned:?}");
    assert_eq!(report.total(), on_disk(&life.snapshot()));
    drop(pin);
    shard.release_files();
    life.advance(1_000_000_000).expect("runs");
    let report = shard.space_report();
    assert_eq!((report.pinned.bytes, report.pinned.operations), (0, 0));
    assert_eq!(report.total(), on_disk(&life.snapshot()));
}
