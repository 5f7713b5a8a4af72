//! Races by name: one side is held at the device while the other goes on. What was deleted,
//! overwritten or dropped never returns, and what lives is never missing.

use std::future::Future;
use std::pin::Pin;

use futures_lite::future;
use larder_runtime::env::{Env, IoClass};
use larder_runtime::simulation::{FaultPlan, SimEnv, Simulation};

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, rest};
use super::model::Reply;
use super::smoke::{get, run, set, set_until};
use crate::collector::{CollectorHost, Fate, Newest, RecordMove, Victim};
use crate::entry::{Metadata, Pointer};
use crate::index::memtable::Found;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::operation::Outcome;
use crate::shard::ShardOptions;

/// How long an operation of the device is held, in virtual nanoseconds.
const HELD_NANOSECONDS: u64 = 20_000_000_000;

/// Begins `future`; the operation of the device that it asks for first is held.
pub(super) async fn held<F: Future>(env: &SimEnv, future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    let latency_nanoseconds = HELD_NANOSECONDS..=HELD_NANOSECONDS;
    env.set_faults(FaultPlan { latency_nanoseconds, ..FaultPlan::default() });
    let done = future::poll_once(&mut future).await;
    env.set_faults(FaultPlan::default());
    assert!(done.is_none(), "it asks for the device");
    future
}

/// Memtables are written out and tables merged when the test says so.
pub(super) fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 110;
    options.picker.level_zero_runs = 2;
    options
}

fn start(options: &ShardOptions) -> (Simulation, TestShard) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, options);
    (life, shard)
}

/// Fills this many segments of the log with what is overwritten at once.
pub(super) async fn write_garbage(shard: &TestShard, segments: u32) {
    let first = shard.log.position().segment;
    while shard.log.position().segment < first + segments {
        run(shard, b"garbage", set(&[1; 4000])).await;
    }
    run(shard, b"garbage", set(b"short")).await;
}

/// Lets the clock see `expiry` while a segment goes that held nothing else, and sets it back.
pub(super) async fn drop_expired(shard: &TestShard, env: &SimEnv) -> u32 {
    let now = env.unix_seconds();
    let expiry = now as u32 + 100;
    run(shard, b"expires", set_until(&[2; 500], expiry)).await;
    let segment = harness::pointer(shard, b"expires").expect("a long value").segment;
    // Not a victim: it would be moved before it expires.
    shard.garbage.unreadable.borrow_mut().insert(segment);
    write_garbage(shard, 2).await;
    flush_memtable(shard).await;
    env.set_unix_seconds(now + 200);
    env.sleep(2_000_000_000).await;
    assert!(shard.is_gone(segment), "it has expired as a whole");
    assert_eq!(run(shard, b"expires", get()).await.outcome, Outcome::Miss);
    env.set_unix_seconds(now);
    assert_eq!(run(shard, b"expires", get()).await.outcome, Outcome::Miss);
    expiry
}

/// Collects a segment that the log has left.
pub(super) async fn collect_segment(shard: &TestShard, number: u32) {
    let known = shard.journal.state().segments[&number];
    let end = known.sealed.expect("the log has gone on").end;
    let victim = Victim { number, generation: known.generation, end };
    shard.collect(victim).await.expect("nothing fails");
}

/// Lets `key`, which has a long value, be moved while a read of it is held. Returns where it was,
/// and the read.
async fn moved_while_read<'a>(
    shard: &'a TestShard,
    env: &SimEnv,
) -> (Pointer, Pin<Box<impl Future<Output = Reply> + use<'a>>>) {
    let from = harness::pointer(shard, b"key").expect("a long value");
    // Not a victim before the look-up has begun.
    shard.garbage.unreadable.borrow_mut().insert(from.segment);
    for other in 0..100u8 {
        // A small cache has no room for all, so that reading the key asks the device.
        run(shard, &[other], set(&[other; 500])).await;
    }
    write_garbage(shard, 60).await;
    flush_memtable(shard).await;
    // Where there is a cache of blocks, it is the value that the device is asked for.
    let key = Key::memcached(b"key").encode();
    shard.index.in_tables(&key, key_hash(&key), IoClass::Read).await.expect("readable");
    let reading = held(env, run(shard, b"key", get())).await;
    shard.garbage.unreadable.borrow_mut().clear();
    collect_segment(shard, from.segment).await;
    rest(shard).await;
    flush_memtable(shard).await;
    (from, reading)
}

#[test]
fn an_item_that_is_moved_while_it_is_looked_up_is_found() {
    let (mut life, shard) = start(&options());
    let env = life.env();
    life.block_on(async move {
        let expiry = drop_expired(&shard, &env).await;
        run(&shard, b"key", set_until(&[7; 500], expiry)).await;
        let (from, reading) = moved_while_read(&shard, &env).await;
        rest(&shard).await;
        assert!(shard.is_gone(from.segment), "the item was moved");
        let reply = reading.await;
        assert_eq!((reply.outcome, reply.value), (Outcome::Hit, vec![7; 500]));
    })
    .expect("runs");
}

/// It does not make the new place dead.
#[test]
pub(super) fn a_reader_that_caches_the_old_place() {
    let caches =
        ShardOptions { item_cache_bytes: 16 << 10, block_cache_bytes: 1 << 20, ..options() };
    let (mut life, shard) = start(&caches);
    let env = life.env();
    life.block_on(async move {
        run(&shard, b"key", set(&[7; 500])).await;
        let (from, reading) = moved_while_read(&shard, &env).await;
        assert_eq!(reading.await.value, vec![7; 500]);
        let key = Key::memcached(b"key").encode();
        let cached = shard.state.borrow().items.place_of(key_hash(&key), &key);
        assert_eq!(cached, Some(from), "the reader has cached the old place");
        let look = |found: Found<'_>| found.entry.pointer();
        let in_memtables = shard.index.in_memtables(&key, key_hash(&key), look);
        let in_tables =
            shard.index.in_tables(&key, key_hash(&key), IoClass::Read).await.expect("readable");
        let to = in_memtables.unwrap_or_else(|| in_tables.and_then(|it| it.as_entry().pointer()));
        let to = to.expect("it lives");
        assert_ne!(to.segment, from.segment, "the item was moved");
        assert!(matches!(shard.fate(&key, to), Fate::Lives(_) | Fate::Unknown));
        assert!(shard.newest_at(&key, to).await.expect("readable").is_some());
    })
    .expect("runs");
}

/// Nobody waits for a collection, so the device must not take its reads for those of clients.
#[test]
fn a_collection_reads_nothing_in_the_class_of_clients() {
    let (mut life, shard) = start(&options());
    let env = life.env();
    life.block_on(async move {
        run(&shard, b"key", set(&[7; 500])).await;
        let from = harness::pointer(&shard, b"key").expect("a long value");
        shard.garbage.unreadable.borrow_mut().insert(from.segment);
        write_garbage(&shard, 2).await;
        flush_memtable(&shard).await;
        rest(&shard).await;
        shard.garbage.unreadable.borrow_mut().clear();
        let reads = || [IoClass::Read, IoClass::GarbageCollection].map(|it| env.reads_of(it));
        let before = reads();
        collect_segment(&shard, from.segment).await;
        let after = reads();
        assert_eq!(after[0], before[0], "reads of clients");
        assert!(after[1] > before[1], "without a cache of blocks a table is read");
        let moved = harness::pointer(&shard, b"key").expect("a long value");
        assert_ne!(moved.segment, from.segment);
    })
    .expect("runs");
}

#[test]
fn what_a_merge_drops_as_expired_is_not_moved_any_more() {
    let (mut life, shard) = start(&options());
    let env = life.env();
    life.block_on(async move {
        let now = env.unix_seconds();
        run(&shard, b"key", set_until(&[7; 500], now as u32 + 100)).await;
        let from = harness::pointer(&shard, b"key").expect("a long value");
        flush_memtable(&shard).await;
        let key = Key::memcached(b"key").encode();
        let to = Pointer { segment: from.segment + 1, ..from };
        // The tables have changed since it was looked up, so it is again.
        let newest = Newest { metadata: Metadata::default(), value_len: 500, table_changes: 9999 };
        let moves = vec![RecordMove { key, newest, from, to }];
        let moving = held(&env, shard.move_records(moves)).await;
        env.set_unix_seconds(now + 200);
        // The table goes without a flush: all of it has expired.
        rest(&shard).await;
        env.sleep(HELD_NANOSECONDS / 2).await;
        assert_eq!(shard.statistics().index.tables, 0);
        env.set_unix_seconds(now);
        assert_eq!(run(&shard, b"key", get()).await.outcome, Outcome::Miss);
        let records = shard.log.counters().records;
        moving.await.expect("nothing fails");
        assert_eq!(shard.log.counters().records, records, "it would be there again");
        assert_eq!(run(&shard, b"key", get()).await.outcome, Outcome::Miss);
    })
    .expect("runs");
}
