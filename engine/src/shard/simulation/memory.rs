//! Caches and tables share their part of the memory, however much the tables need.

use larder_runtime::env::Env;

use super::harness::{TestShard, tiny_options};
use super::items::{flush_memtable, rest, restart, start};
use super::smoke::{get, run, set};
use crate::shard::{ShardOptions, Statistics};
use crate::value_log::Durability;

/// Keys of one round of writes.
const ROUND_KEYS: u32 = 1000;

/// Filters are so large that some thousand keys outgrow their part.
fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.log.durability = Durability::None;
    options.memtable_bytes = 256 << 10;
    options.item_cache_bytes = 512 << 10;
    options.block_cache_bytes = 256 << 10;
    options.table_memory_bytes = 32 << 10;
    options.tables.bloom_bits_per_key = 64;
    options.tables.table_bytes = 256 << 10;
    options.picker.level_one_bytes = 4 << 20;
    options
}

fn key(number: u32) -> Vec<u8> {
    format!("key-{number:08}").into_bytes()
}

/// What caches and tables take stays within what they have together.
fn assert_within(statistics: &Statistics) {
    let (memory, items) = (statistics.memory, &statistics.items);
    let (tables, blocks) = (statistics.index.table_memory_bytes, &statistics.index.blocks);
    let capacities = tables + (items.capacity + blocks.capacity) as u64;
    let resident = tables + (items.resident_bytes + blocks.resident_bytes) as u64;
    let bound = memory.tables_and_caches_max + memory.excess;
    assert!(capacities <= bound, "{capacities} of {bound}: {statistics:?}");
    assert!(resident <= bound, "{resident} of {bound}: {statistics:?}");
}

/// Writes and reads new keys, and gives the tables time to come to rest.
async fn write_round(shard: &TestShard, round: u32) {
    for number in round * ROUND_KEYS..(round + 1) * ROUND_KEYS {
        run(shard, &key(number), set(b"a value in the index")).await;
        run(shard, &key(number / 2), get()).await;
    }
    flush_memtable(shard).await;
    rest(shard).await;
}

/// Whether a cache that was divided has so many bytes: it ends with a whole part of its memory.
fn is_about(capacity: usize, bytes: usize) -> bool {
    capacity <= bytes && capacity > bytes / 16 * 15
}

async fn write_until(shard: &TestShard, is_enough: impl Fn(&Statistics) -> bool) -> u32 {
    for round in 0..200 {
        write_round(shard, round).await;
        let statistics = shard.statistics();
        assert_within(&statistics);
        if is_enough(&statistics) {
            return (round + 1) * ROUND_KEYS;
        }
    }
    panic!("tables never take so much: {:?}", shard.statistics());
}

#[test]
fn caches_give_room_to_tables_and_get_it_back() {
    let options = options();
    let (mut life, shard) = start(1, &options);
    let worker = shard.clone();
    let written = life
        .block_on(async move {
            let before = worker.statistics();
            assert!(is_about(before.items.capacity, 512 << 10), "{before:?}");
            assert!(is_about(before.index.blocks.capacity, 256 << 10), "{before:?}");
            let values_only = write_until(&worker, |now| now.items.capacity < 400 << 10).await;
            let half = worker.statistics();
            let blocks = (half.index.blocks.capacity, before.index.blocks.capacity);
            assert!(blocks.0 >= blocks.1, "the value cache goes first: {blocks:?}");
            assert!(half.items.evictions > 0 && half.items.entries > 0, "{half:?}");
            assert_eq!(run(&worker, &key(3), get()).await.value, b"a value in the index");
            let worker = &worker;
            let all = write_until(worker, |now| now.index.blocks.capacity < 200 << 10).await;
            assert_eq!(worker.statistics().memory.excess, 0);
            worker.sync().await.expect("the log is written");
            values_only.max(all)
        })
        .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        let found = shard.statistics();
        assert!(found.items.capacity < 400 << 10, "known before anything is cached: {found:?}");
        for number in 0..written {
            let reply = run(&shard, &key(number), get()).await;
            assert_eq!(reply.value, b"a value in the index", "key {number}");
        }
        assert_within(&shard.statistics());
        shard.flush_all(None).await.expect("it is logged");
        for _ in 0..100 {
            rest(&shard).await;
        }
        let after = shard.statistics();
        assert_eq!(after.index.table_entries, 0, "{after:?}");
        let all = after.items.capacity + after.index.blocks.capacity;
        assert!(is_about(all, 768 << 10), "{after:?}");
        shard.close().await.expect("it closes");
        shard.env.sleep(1_000_000).await;
    })
    .expect("runs");
}

#[test]
fn tables_beyond_all_that_caches_can_give_are_told() {
    let mut options = options();
    (options.item_cache_bytes, options.block_cache_bytes) = (160 << 10, 0);
    let (mut life, shard) = start(2, &options);
    life.block_on(async move {
        // What the caches give up follows what tables take a moment later.
        let is_told = |now: &Statistics| {
            let least = now.items.capacity as u64;
            let needed = now.index.table_memory_bytes + least;
            let is_beyond = needed > now.memory.tables_and_caches_max;
            now.memory.excess > 0 && least < 160 << 10 && is_beyond
        };
        write_until(&shard, is_told).await;
    })
    .expect("runs");
}

#[test]
fn the_value_cache_is_as_small_as_it_is_told_to_be_and_grows_again() {
    let mut options = options();
    (options.item_cache_bytes, options.table_memory_bytes) = (4 << 20, 8 << 20);
    let (mut life, shard) = start(3, &options);
    life.block_on(async move {
        let largest = shard.statistics().items.capacity;
        for number in 0..4000 {
            run(&shard, &key(number), set(&[7; 1000])).await;
        }
        let full = shard.statistics().items;
        assert!(full.entries > 2000, "{full:?}");
        let settled = async |bytes: usize| {
            shard.limit_value_cache(bytes);
            for _ in 0..100 {
                rest(&shard).await;
            }
            assert_within(&shard.statistics());
            shard.statistics().items
        };
        let half = settled(largest / 2).await;
        assert!(half.capacity <= largest / 2 && half.capacity > largest / 3, "{half:?}");
        assert!(half.entries < full.entries && half.entries > 500, "{half:?}");
        let least = settled(1).await;
        assert!(least.capacity < half.capacity && least.capacity >= largest / 4, "{least:?}");
        assert_eq!(run(&shard, &key(5), get()).await.value, [7; 1000]);
        assert_eq!(settled(usize::MAX).await.capacity, largest);
        shard.close().await.expect("it closes");
    })
    .expect("runs");
}
