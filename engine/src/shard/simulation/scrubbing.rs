//! Scrubbing finds damage that nobody has read, once, and nothing where there is none.

use std::path::{Path, PathBuf};

use larder_runtime::simulation::SimDisk;

use super::harness::{self, TestShard, tiny_options};
use super::lives::Lives;
use super::model::Reply;
use super::smoke::{get, run, set};
use crate::error::EngineError;
use crate::index::compaction::picker::Choice;
use crate::index::table;
use crate::key::Key;
use crate::scrub::{ScrubCounters, ScrubOptions};
use crate::shard::ShardOptions;
use crate::value_log::segment;

fn options() -> ShardOptions {
    ShardOptions {
        scrub: ScrubOptions { bytes_per_second: Some(1 << 20), rest_nanoseconds: 100_000_000 },
        // Nothing is collected or merged: what is damaged stays where it is.
        space_amplification_percent: 10_000,
        ..tiny_options()
    }
}

const KEYS: u16 = 200;

/// A store with a table and full segments, and the paths of one of each.
fn store() -> (SimDisk, PathBuf, PathBuf) {
    store_in_level(0)
}

/// The same with the table in this level.
fn store_in_level(level: usize) -> (SimDisk, PathBuf, PathBuf) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) =
        harness::open_in(&mut life, &ShardOptions { scrub: ScrubOptions::default(), ..options() });
    let worker = shard.clone();
    let writing = async move {
        for number in 0..KEYS {
            run(&worker, &number.to_be_bytes(), set(&[7; 2000])).await;
        }
        super::items::flush_memtable(&worker).await;
        if level > 0 {
            let table = worker.index.table_after(None).expect("a table");
            let choice = Choice::Move { table, to: level as u8 };
            worker.index.compact(choice, &*worker).await.expect("moves");
        }
    };
    life.block_on(writing).expect("runs");
    assert_eq!(shard.statistics().scrub, ScrubCounters::default(), "it is turned off");
    let (table, segment) = {
        let journal = shard.journal.state();
        let table = journal.levels[level].first().expect("a table").id;
        let mut segments = journal.segments.range(..journal.replay_from.segment);
        let segment = segments.find(|(_, it)| it.sealed.is_some()).expect("a full segment");
        (table::file_name(table), segment::file_name(*segment.0))
    };
    drop(shard);
    let path = |name: String| Path::new(harness::DIRECTORY).join(name);
    (life.crash(), path(table), path(segment))
}

/// What two passes over the store come to.
fn scrubbed(disk: SimDisk) -> ScrubCounters {
    let mut life = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    let passes = |shard: &TestShard| shard.statistics().scrub.passes;
    for _ in 0..100 {
        life.advance(100_000_000).expect("runs");
        if passes(&shard) >= 2 {
            break;
        }
    }
    assert!(passes(&shard) >= 2, "{:?}", shard.statistics().scrub);
    assert_eq!(shard.stopped(), None);
    shard.statistics().scrub
}

#[test]
fn a_sound_store_is_read_whole_and_nothing_is_found() {
    let (disk, ..) = store();
    let found = scrubbed(disk);
    assert_eq!(found.damages, 0);
    assert!(found.bytes > 2 * 200 * 2000, "{found:?}");
    assert!(found.pass_ended_at > 0);
}

#[test]
fn a_flipped_byte_of_a_table_or_a_full_segment_is_found_once() {
    let (disk, table, segment) = store();
    let table_bytes = disk.read_all(&table).len() as u64;
    for (path, offset) in [
        // A block, the footer; a frame's header, a record's head, its value, the last frame.
        (&table, 100),
        (&table, table_bytes - 4096 + 8),
        (&segment, 4096 + 8),
        (&segment, 4096 + 64 + 8),
        (&segment, 4096 + 64 + 300),
        (&segment, 14 * 4096 + 64 + 300),
    ] {
        let mut damaged = disk.clone();
        damaged.flip_bit(path, offset, 3);
        let mut life = harness::life(4, damaged.clone());
        let opening = harness::open(life.env(), options());
        if life.block_on(opening).expect("runs").is_err() {
            // What a table needs to be opened is found by the start itself.
            assert!(path == &table && offset > 4096, "{} at {offset}", path.display());
            continue;
        }
        drop(life);
        let found = scrubbed(damaged);
        assert_eq!(found.damages, 1, "{} at {offset}: {found:?}", path.display());
    }
}

#[test]
fn the_end_of_a_table_that_is_damaged_while_it_is_open_is_found() {
    let (disk, path, _) = store();
    let mut life = harness::life(2, disk);
    let (shard, _) = harness::open_in(&mut life, &options());
    let name = path.file_name().and_then(|name| name.to_str());
    let id = name.and_then(table::parse_file_name).expect("a table");
    let len = shard.index.table(id).expect("there").meta().file_bytes;
    let env = life.env();
    let writing = async move {
        use larder_runtime::env::{Env, File, IoClass, OpenMode};
        let file = env.open(&path, OpenMode::ReadWrite).await.expect("opens");
        let mut zeros = env.buffer(4096);
        zeros.fill(0);
        file.write(IoClass::Scrub, len - 4096, zeros).await.0.expect("written");
    };
    life.block_on(writing).expect("runs");
    life.advance(5_000_000_000).expect("runs");
    let found = shard.statistics().scrub;
    assert_eq!(found.damages, 1, "{found:?}");
    // It was written anew from its blocks, so that the next start needs nothing of the old file.
    assert!(shard.index.table(id).is_none() && shard.statistics().index.stubs == 0);
    drop(shard);
    let mut life = harness::life(3, life.crash());
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    assert_eq!(life.block_on(lost_keys(shard)).expect("runs"), []);
}

/// The keys of the store that answer with an error. All others have their values.
async fn lost_keys(shard: TestShard) -> Vec<u16> {
    let mut lost = Vec::new();
    for number in 0..KEYS {
        let key = number.to_be_bytes();
        match shard.run(&Key::memcached(&key), get(), Reply::new).await {
            Ok(reply) => assert_eq!(reply.value, [7; 2000], "key {number}"),
            Err(EngineError::Damaged { .. }) => lost.push(number),
            Err(error) => panic!("key {number}: {error}"),
        }
    }
    lost
}

#[test]
fn a_damaged_block_that_nobody_has_read_is_set_aside_and_merges_go_on() {
    for level in [0, 1] {
        let (mut disk, table, _) = store_in_level(level);
        disk.flip_bit(&table, 100, 3);
        let mut life = harness::life(2, disk);
        let (shard, _) = harness::open_in(&mut life, &options());
        life.advance(5_000_000_000).expect("runs");
        let statistics = shard.statistics();
        assert_eq!((statistics.scrub.damages, statistics.index.stubs), (1, 1), "{statistics:?}");
        assert!(shard.index.table_after(None).is_some(), "what was readable is in a new table");
        let lost = life.block_on(lost_keys(shard.clone())).expect("runs");
        assert!((1..KEYS as usize / 2).contains(&lost.len()), "{lost:?}");
        // One of them is written again, and merges go over the stub.
        let (worker, first) = (shard.clone(), lost[0]);
        life.block_on(async move {
            for number in [0, first, KEYS - 1] {
                run(&worker, &number.to_be_bytes(), set(&[7; 2000])).await;
                super::items::flush_memtable(&worker).await;
                super::items::rest(&worker).await;
            }
        })
        .expect("runs");
        assert_eq!(shard.stopped(), None);
        drop(shard);
        let mut life = harness::life(3, life.crash());
        let (shard, report) = harness::open_in(&mut life, &options());
        assert_eq!(report.damage, []);
        let still = life.block_on(lost_keys(shard)).expect("runs");
        let but_one: Vec<u16> =
            lost.into_iter().filter(|number| ![0, first, KEYS - 1].contains(number)).collect();
        assert_eq!(still, but_one);
    }
}

#[test]
fn files_that_go_while_they_are_scrubbed_are_not_taken_for_damaged() {
    harness::for_each_seed("files_that_go_while_they_are_scrubbed", 1, 150, |seed| {
        let mut lives = Lives::new(seed);
        for _ in 0..lives.random.count(1..=3) {
            lives.live();
        }
    });
}
