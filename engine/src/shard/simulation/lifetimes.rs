//! Items that never expire beside items that do, after different times: where the collector puts
//! them, and how much it copies.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{self, TestShard, tiny_options};
use super::items::flush_memtable;
use super::races::collect_segment;
use super::smoke::{get, run, set_until};
use crate::shard::ShardOptions;
use crate::space::Purpose;

/// With what belongs to it a record has a frame of one block.
const VALUE_BYTES: usize = 3800;

const CLIENTS: usize = 4;

/// Writes of all clients.
const WRITES_PER_SECOND: u64 = 160;

/// Of a hundred writes so many are of items that expire after so many seconds, under one of so many
/// keys. All others are of items that never do.
const EXPIRING: [(u64, u32, u64); 2] = [(25, 15, 2000), (25, 60, 6000)];

const ETERNAL_KEYS: u64 = 600;

/// Of which a third each never expire, expire in a minute, and in two hours.
const KEPT_APART: u32 = 600;

fn kept_apart(number: u32) -> Vec<u8> {
    format!("{number:04}").into_bytes()
}

/// Collects a segment in which all three kinds of items lie, and of whose neighbours many more
/// live. Where each item then lies that was in it: by what is left of its number when it is divided
/// by three.
async fn survivors_segments(shard: &TestShard) -> [BTreeSet<u32>; 3] {
    let now = shard.env.unix_seconds() as u32;
    let mut lay = Vec::new();
    for number in 0..KEPT_APART {
        let expiry = [0, now + 60, now + 7200][number as usize % 3];
        run(shard, &kept_apart(number), set_until(&[number as u8; VALUE_BYTES], expiry)).await;
        lay.push(harness::pointer(shard, &kept_apart(number)).expect("a long value").segment);
    }
    flush_memtable(shard).await;
    let victim = lay[KEPT_APART as usize / 2];
    // There is space for one segment besides.
    if let Some(limit) = shard.options.budget.limit() {
        let options = &shard.options;
        let left = Purpose::Collection.left(options.disk_reserve_bytes, options.segment_bytes, 1);
        let leaves = left + u64::from(options.segment_bytes);
        options.budget.adopt(limit - options.budget.taken() - leaves);
    }
    collect_segment(shard, victim).await;
    let mut segments = [const { BTreeSet::new() }; 3];
    for number in (0..KEPT_APART).filter(|number| lay[*number as usize] == victim) {
        let place = harness::pointer(shard, &kept_apart(number)).expect("it was moved");
        assert_ne!(place.segment, victim);
        segments[number as usize % 3].insert(place.segment);
        let value = run(shard, &kept_apart(number), get()).await.value;
        assert_eq!(value, [number as u8; VALUE_BYTES]);
    }
    segments
}

fn kept_apart_within(limit: Option<u64>) -> [BTreeSet<u32>; 3] {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 10_000;
    options.budget = DiskBudget::new(limit);
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    life.block_on(async move { survivors_segments(&shard).await }).expect("runs")
}

#[test]
fn survivors_lie_with_those_that_have_as_much_time_left() {
    let segments = kept_apart_within(None);
    assert!(segments.iter().all(|of_kind| of_kind.len() == 1), "{segments:?}");
    let all: BTreeSet<u32> = segments.iter().flatten().copied().collect();
    assert_eq!(all.len(), 3, "{segments:?}");
}

#[test]
fn survivors_lie_together_where_there_is_no_space_for_more_segments() {
    let segments = kept_apart_within(Some(16 << 20));
    let all: BTreeSet<u32> = segments.iter().flatten().copied().collect();
    assert_eq!(all.len(), 1, "{segments:?}");
}

fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.segment_bytes = 256 << 10;
    options.memtable_bytes = 32 << 10;
    options.recovery_log_bytes = 1 << 20;
    options.tables.table_bytes = 64 << 10;
    options.picker.level_one_bytes = 128 << 10;
    options.picker.merge_bytes = 128 << 10;
    options
}

/// A key by chance and its expiry, 0 for none.
fn pick(random: &mut Random, now: u32) -> (Vec<u8>, u32) {
    let mut percent = random.below(100);
    for (share, seconds, keys) in EXPIRING {
        if percent < share {
            // Items with different times lie among each other in the index.
            let key = random.below(keys).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
            return (format!("{key:010x}-{seconds}").into_bytes(), now + seconds);
        }
        percent -= share;
    }
    let key = random.below(ETERNAL_KEYS).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    (format!("{key:010x}").into_bytes(), 0)
}

/// What is written in so many seconds, after so many to begin with, and what is copied meanwhile,
/// in bytes.
fn written_and_copied(seed: u64, (begin, seconds): (u64, u64)) -> (u64, u64) {
    let mut life = harness::life(seed, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let env = life.env();
    env.set_faults(FaultPlan { latency_nanoseconds: 50_000..=500_000, ..FaultPlan::default() });
    let random = Rc::new(RefCell::new(Random::new(seed)));
    let is_over = Rc::new(Cell::new(false));
    for _ in 0..CLIENTS {
        let (shard, env, random) = (shard.clone(), env.clone(), random.clone());
        let is_over = is_over.clone();
        env.clone().spawn(TaskQueue::Foreground, async move {
            while !is_over.get() {
                let now = env.unix_seconds() as u32;
                let (key, expiry) = pick(&mut random.borrow_mut(), now);
                run(&shard, &key, set_until(&vec![7; VALUE_BYTES], expiry)).await;
                let pause = CLIENTS as u64 * 1_000_000_000 / WRITES_PER_SECOND;
                let pause = random.borrow_mut().below(2 * pause);
                env.sleep(pause).await;
            }
        });
    }
    let counted = || {
        let statistics = shard.statistics();
        (statistics.log.frame_bytes, statistics.operations.collected_bytes)
    };
    life.advance(begin * 1_000_000_000).expect("runs");
    let before = counted();
    life.advance(seconds * 1_000_000_000).expect("runs");
    let after = counted();
    is_over.set(true);
    let beyond = shard.usage().allocated.saturating_sub(shard.usage().cap(&shard.limits()));
    assert!(beyond <= u64::from(options().segment_bytes), "{beyond} bytes above the cap");
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn little_is_copied_of_what_will_have_expired() {
    let name = "little_is_copied_of_what_will_have_expired";
    let (all_written, all_copied) = (Cell::new(0), Cell::new(0));
    harness::for_each_seed(name, 1, 3, |seed| {
        let (written, copied) = written_and_copied(seed, (100, 60));
        eprintln!("seed {seed}: {copied} bytes copied for {written} written");
        all_written.set(all_written.get() + written);
        all_copied.set(all_copied.get() + copied);
    });
    // 96 where all that expire lie together and nothing is foreseen, 49 as it is.
    let percent = all_copied.get() * 100 / all_written.get();
    assert!(percent < 65, "{percent} bytes are copied for each 100 that are written");
}
