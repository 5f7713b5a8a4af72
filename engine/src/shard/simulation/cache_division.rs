//! Memory goes to the cache that saves more reads of the device with it.

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::{FaultPlan, SimEnv, Simulation};

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, rest, start};
use super::smoke::{get, run, set};
use crate::key::Key;
use crate::shard::{Attempt, ShardOptions, Statistics};
use crate::value_log::Durability;

/// Keys, whose index takes nearly half of what the caches have.
const KEYS: usize = 12_000;

const VALUE: [u8; 1000] = [7; 1000];

const CACHES_BYTES: usize = 1 << 20;

fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.log.durability = Durability::None;
    options.segment_bytes = 1 << 20;
    options.memtable_bytes = 256 << 10;
    options.recovery_log_bytes = 64 << 20;
    options.log.frame_bytes_max = 64 << 10;
    options.log.queued_bytes_max = 256 << 10;
    options.tables.table_bytes = 256 << 10;
    options.picker.level_one_bytes = 8 << 20;
    options.picker.merge_bytes = 4 << 20;
    options.table_memory_bytes = 1 << 20;
    options.block_cache_bytes = CACHES_BYTES / 7 * 2;
    options.item_cache_bytes = CACHES_BYTES - options.block_cache_bytes;
    options
}

fn key(number: usize) -> Vec<u8> {
    // Neighbours in the order of keys are none in any other.
    let spread = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    format!("a key of some length {spread:010}-{number:06}").into_bytes()
}

/// A read as a connection makes it.
async fn read(shard: &TestShard, number: usize) {
    let (encoded, operation) = (key(number), get());
    let now = shard.env.unix_seconds() as u32;
    let name = Key::memcached(&encoded);
    let see = |answer: &crate::shard::Answer<'_>| assert_eq!(answer.value, VALUE);
    match shard.try_execute(&name, None, &operation.as_operation(), now, see) {
        Attempt::Done { .. } => {}
        Attempt::Later => assert_eq!(run(shard, &encoded, operation).await.value, VALUE),
        Attempt::Failed(error) => panic!("key {number}: {error}"),
    }
}

/// What some reads came to.
#[derive(Debug)]
struct Reads {
    reads: usize,
    from_memory: u64,
    of_values: u64,
    of_blocks: u64,
    values_capacity: usize,
    blocks_capacity: usize,
}

/// Reads that choose keys, at most so many a second.
async fn pass(shard: &TestShard, reads: usize, mut choose: impl FnMut() -> usize) -> Reads {
    let before = shard.statistics();
    for number in 0..reads {
        read(shard, choose()).await;
        if number % 100 == 99 {
            shard.env.sleep(20_000_000).await;
            assert_within(&shard.statistics());
        }
    }
    let now = shard.statistics();
    Reads {
        reads,
        from_memory: now.operations.cached - before.operations.cached,
        of_values: now.operations.value_reads - before.operations.value_reads,
        of_blocks: now.index.blocks.reads - before.index.blocks.reads,
        values_capacity: now.items.capacity,
        blocks_capacity: now.index.blocks.capacity,
    }
}

/// Both caches and the tables stay within what they have together.
fn assert_within(statistics: &Statistics) {
    let (items, blocks) = (&statistics.items, &statistics.index.blocks);
    assert!(items.capacity + blocks.capacity <= CACHES_BYTES, "{statistics:?}");
    assert!(items.resident_bytes + blocks.resident_bytes <= CACHES_BYTES, "{statistics:?}");
    assert_eq!(statistics.memory.excess, 0);
}

/// A shard with all keys in tables that have come to rest, on a disk on which a read takes a
/// millisecond or two.
fn filled(seed: u64) -> (Simulation, TestShard) {
    let (mut life, shard) = start(seed, &options());
    let (env, worker) = (life.env(), shard.clone());
    life.block_on(async move {
        for number in 0..KEYS {
            run(&worker, &key(number), set(&VALUE)).await;
        }
        flush_memtable(&worker).await;
        for _ in 0..50 {
            rest(&worker).await;
        }
        make_slow(&env);
    })
    .expect("runs");
    (life, shard)
}

fn make_slow(env: &SimEnv) {
    let latency_nanoseconds = 1_000_000..=2_000_000;
    env.set_faults(FaultPlan { latency_nanoseconds, ..FaultPlan::default() });
}

#[test]
fn an_index_that_would_fit_gets_the_memory_of_values_that_never_will() {
    harness::for_each_seed("an_index_that_would_fit", 1, 3, |seed| {
        let (mut life, shard) = filled(seed);
        let mut random = Random::new(seed);
        life.block_on(async move {
            let mut even = || random.index(KEYS);
            // The caches fill.
            pass(&shard, 1000, &mut even).await;
            let first = pass(&shard, 2000, &mut even).await;
            assert!(first.of_blocks > first.reads as u64 / 20, "seed {seed}: {first:?}");
            pass(&shard, 20_000, &mut even).await;
            let last = pass(&shard, 4000, &mut even).await;
            assert!(last.of_blocks < last.reads as u64 / 200, "seed {seed}: {last:?}");
            assert!(last.blocks_capacity > first.blocks_capacity, "seed {seed}: {last:?}");
            // Of four thousand even reads what is left of the value cache answers its part.
            let part = |it: &Reads| it.from_memory as f64 / it.reads as f64;
            let left = last.values_capacity as f64 / first.values_capacity as f64;
            assert!(part(&last) > part(&first) * left * 0.8, "seed {seed}: {first:?}, {last:?}");
            let after = pass(&shard, 20_000, &mut even).await;
            let moved = after.blocks_capacity.abs_diff(last.blocks_capacity);
            assert!(moved <= CACHES_BYTES / 16, "seed {seed}: {last:?}, {after:?}");
        })
        .expect("runs");
    });
}

#[test]
fn hot_items_that_would_fit_get_the_memory_of_blocks() {
    harness::for_each_seed("hot_items_that_would_fit", 1, 3, |seed| {
        let (mut life, shard) = filled(seed);
        let mut random = Random::new(seed);
        let begin = shard.statistics().items.capacity;
        // More than the value cache begins with has room for.
        let hot_keys = begin / 1100;
        life.block_on(async move {
            let mut hot = || random.index(hot_keys);
            let first = pass(&shard, 4000, &mut hot).await;
            assert!(first.of_values > first.reads as u64 / 10, "seed {seed}: {first:?}");
            pass(&shard, 40_000, &mut hot).await;
            let last = pass(&shard, 4000, &mut hot).await;
            assert!(last.of_values + last.of_blocks < 40, "seed {seed}: {last:?}");
            assert!(last.values_capacity > begin, "seed {seed}: {last:?}");
        })
        .expect("runs");
    });
}

/// Chooses keys by popularity: the nth is asked for one nth as often as the first.
fn by_popularity(seed: u64) -> impl FnMut() -> usize {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for number in 1..=KEYS {
        sum += 1.0 / number as f64;
        sums.push(sum);
    }
    let mut random = Random::new(seed);
    move || {
        let chosen = random.below(1 << 40) as f64 / (1u64 << 40) as f64 * sum;
        sums.partition_point(|sum| *sum < chosen).min(KEYS - 1)
    }
}

#[test]
fn popular_items_stay_and_fewer_reads_go_to_the_device() {
    harness::for_each_seed("popular_items_stay", 1, 3, |seed| {
        let (mut life, shard) = filled(seed);
        life.block_on(async move {
            let mut popular = by_popularity(seed);
            pass(&shard, 1000, &mut popular).await;
            let first = pass(&shard, 4000, &mut popular).await;
            pass(&shard, 30_000, &mut popular).await;
            let last = pass(&shard, 4000, &mut popular).await;
            let of_device = |it: &Reads| it.of_values + it.of_blocks;
            assert!(of_device(&last) < of_device(&first), "seed {seed}: {first:?}, {last:?}");
            let stay = last.from_memory * 10 > first.from_memory * 9;
            assert!(stay, "seed {seed}: {first:?}, {last:?}");
            let after = pass(&shard, 20_000, &mut popular).await;
            let moved = after.blocks_capacity.abs_diff(last.blocks_capacity);
            assert!(moved <= CACHES_BYTES / 16, "seed {seed}: {last:?}, {after:?}");
        })
        .expect("runs");
    });
}

#[test]
fn what_lies_in_memory_moves_nothing() {
    let (mut life, shard) = filled(1);
    let mut random = Random::new(1);
    life.block_on(async move {
        let mut few = || random.index(200);
        let first = pass(&shard, 2000, &mut few).await;
        let last = pass(&shard, 10_000, &mut few).await;
        let sizes = |it: &Reads| (it.values_capacity, it.blocks_capacity);
        assert_eq!(sizes(&first), sizes(&last));
        assert_eq!((last.of_values, last.of_blocks), (0, 0));
    })
    .expect("runs");
}
