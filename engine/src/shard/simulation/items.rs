//! Single properties of items, namespaces and waiting, each on a shard of its own.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::Simulation;

use super::harness::{self, TestShard, tiny_options};
use super::model::Reply;
use super::smoke::{delete, get, run, set};
use crate::error::EngineError;
use crate::key::Key;
use crate::operation::{Operation, Outcome, Read};
use crate::shard::{Attempt, OperationBuf, ShardOptions};

fn touch(expiry: u32) -> Operation<'static> {
    Operation::Read(Read { expiry: Some(expiry), ..Read::default() })
}

/// An operation that gives an item another expiry.
pub(super) fn touched(expiry: u32) -> OperationBuf {
    OperationBuf::new(&touch(expiry))
}

pub(super) fn start(seed: u64, options: &ShardOptions) -> (Simulation, TestShard) {
    let mut life = harness::life(seed, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, options);
    (life, shard)
}

pub(super) fn restart(
    life: Simulation,
    shard: TestShard,
    options: &ShardOptions,
) -> (Simulation, TestShard) {
    drop(shard);
    let mut life = harness::life(99, life.crash());
    let (shard, report) = harness::open_in(&mut life, options);
    assert_eq!(report.damage, []);
    (life, shard)
}

/// Writes the memtable out, whatever is in it.
pub(super) async fn flush_memtable(shard: &TestShard) {
    let before = shard.statistics().index.counters.flushes;
    shard.freeze(&mut shard.state.borrow_mut());
    while shard.statistics().index.counters.flushes == before {
        assert_eq!(shard.stopped(), None);
        shard.env.sleep(1_000_000).await;
    }
}

#[test]
fn one_long_value_may_be_touched_in_every_table() {
    let mut options = tiny_options();
    options.picker.level_zero_runs = 100;
    let (mut life, shard) = start(1, &options);
    let worker = shard.clone();
    life.block_on(async move {
        run(&worker, b"key", set(&[7; 40_000])).await;
        for round in 0..5 {
            let expiry = 2_000_000_000 + round;
            run(&worker, b"key", OperationBuf::new(&touch(expiry))).await;
            flush_memtable(&worker).await;
        }
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    let reply = life.block_on(async move { run(&shard, b"key", get()).await }).expect("runs");
    assert_eq!((reply.value, reply.metadata.expiry), (vec![7; 40_000], 2_000_000_004));
}

#[test]
fn what_is_stored_when_a_scheduled_flush_is_due_survives_it() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let env = life.env();
    let worker = shard.clone();
    life.block_on(async move {
        run(&worker, b"old", set(b"1")).await;
        let at = env.unix_seconds() as u32 + 5;
        let needs = worker.flush_all(Some(at)).await.expect("logs");
        worker.log.wait_durable(needs).await.expect("durable");
        run(&worker, b"old", set(b"2")).await;
        env.set_unix_seconds(env.unix_seconds() + 10);
        // Both lines up before the flush is carried out.
        let key = Key::memcached(b"new");
        let first = worker.run(&key, set(b"3"), Reply::new);
        let second = worker.run(&key, get(), Reply::new);
        let (first, second) = futures_lite::future::zip(first, second).await;
        assert_eq!(first.expect("stores").outcome, Outcome::Stored);
        assert_eq!(second.expect("reads").value, b"3");
        assert_eq!(run(&worker, b"old", get()).await.outcome, Outcome::Miss);
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        assert_eq!(run(&shard, b"new", get()).await.value, b"3");
        assert_eq!(run(&shard, b"old", get()).await.outcome, Outcome::Miss);
    })
    .expect("runs");
}

#[test]
fn a_flush_leaves_other_namespaces_alone() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let other = |namespace| Key { namespace, record: b"key", item: b"" };
    let worker = shard.clone();
    life.block_on(async move {
        for namespace in 0..4 {
            let done = worker.run(&other(namespace), set(b"value"), Reply::new).await;
            assert_eq!(done.expect("stores").outcome, Outcome::Stored);
        }
        for _ in 0..3 {
            let needs = worker.flush_all(None).await.expect("logs");
            worker.log.wait_durable(needs).await.expect("durable");
        }
        flush_memtable(&worker).await;
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        for namespace in 0..4 {
            let done = shard.run(&other(namespace), get(), Reply::new).await;
            let expected = if namespace == 0 { Outcome::Miss } else { Outcome::Hit };
            assert_eq!(done.expect("reads").outcome, expected, "namespace {namespace}");
        }
    })
    .expect("runs");
}

#[test]
fn operations_that_wait_for_room_fail_when_the_shard_is_closed() {
    let options = ShardOptions { memtable_bytes: 1, ..tiny_options() };
    let (mut life, shard) = start(1, &options);
    let failed = Rc::new(Cell::new(0));
    for number in 0..30u32 {
        let (worker, failed) = (shard.clone(), failed.clone());
        life.env().spawn(TaskQueue::Foreground, async move {
            let key = number.to_be_bytes();
            let done = worker.run(&Key::memcached(&key), set(b"value"), Reply::new).await;
            if let Err(error) = done {
                assert!(matches!(error, EngineError::Stopped(_)), "{error}");
                failed.set(failed.get() + 1);
            }
        });
    }
    life.advance(1_000_000).expect("runs");
    let closing = shard.clone();
    life.block_on(async move { closing.close().await }).expect("runs").expect("closes");
    life.run_until_idle().expect("runs");
    assert!(failed.get() > 0, "some still waited");
    assert_eq!(shard.statistics().waiting_keys, 0);
    let worker = shard.clone();
    let late = life.block_on(async move {
        worker.run(&Key::memcached(b"late"), set(b"value"), Reply::new).await
    });
    assert!(late.expect("runs").is_err(), "a closed shard takes no writes");
    drop(shard);
    life.advance(10_000_000_000).expect("runs");
}

#[test]
fn a_store_does_not_overtake_those_that_wait_for_room() {
    let (mut life, shard) = start(1, &tiny_options());
    let now = shard.unix_now();
    let attempt = |operation: &OperationBuf| {
        let key = Key::memcached(b"small");
        shard.try_execute(&key, None, &operation.as_operation(), now, |answer| answer.outcome)
    };
    let is_done = |operation| matches!(attempt(&operation), Attempt::Done { .. });
    assert!(is_done(set(b"value")));
    // No segment is as long as that, so it waits for one.
    let large = shard.execute(&Key::memcached(b"large"), set(&[b'v'; 100 << 10]));
    let mut large = Box::pin(large);
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(large.as_mut()));
    assert!(polled.is_none(), "there is no room");
    assert!(matches!(attempt(&set(b"later")), Attempt::Later), "others wait");
    assert!(is_done(get()) && is_done(delete()), "these need none, or make some");
    let mut small = Box::pin(shard.execute(&Key::memcached(b"small"), set(b"later")));
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(small.as_mut()));
    assert!(polled.is_none(), "it waits behind the large one");
    let both = async move { (large.await, small.await) };
    let (large, small) = life.block_on(both).expect("runs");
    let ((_, large), (_, small)) = (large.expect("stored"), small.expect("stored"));
    assert!(large < small, "{large} and {small} are in the log's order");
}

#[test]
fn closing_twice_is_closing_once() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    life.block_on(async move {
        run(&shard, b"key", set(b"value")).await;
        shard.close().await.expect("closes");
        shard.close().await.expect("is closed");
    })
    .expect("runs");
}

/// Lets the compactor and the space keeper come to rest.
pub(super) async fn rest(shard: &TestShard) {
    shard.something_changed();
    shard.env.sleep(100_000_000).await;
}

#[test]
fn an_item_that_a_merge_dropped_as_expired_can_be_touched_when_the_clock_goes_back() {
    let mut options = tiny_options();
    options.item_cache_bytes = 256 << 10;
    options.picker.level_zero_runs = 2;
    let (mut life, shard) = start(1, &options);
    let env = life.env();
    let worker = shard.clone();
    life.block_on(async move {
        run(&worker, b"key", set(&[7; 500])).await;
        let early = env.unix_seconds();
        let expiry = early as u32 + 10;
        run(&worker, b"key", OperationBuf::new(&touch(expiry))).await;
        let segment = harness::pointer(&worker, b"key").expect("a long value").segment;
        flush_memtable(&worker).await;
        env.set_unix_seconds(early + 20);
        // A second table, and with it a merge; then segments that replay does not need.
        for round in 90..130u8 {
            run(&worker, &[round], set(&[round; 20])).await;
        }
        flush_memtable(&worker).await;
        rest(&worker).await;
        assert!(worker.is_leaving(segment), "nothing points into the segment any more");
        env.set_unix_seconds(early);
        // The value cache still has the item.
        let touched = OperationBuf::new(&touch(expiry + 1000));
        assert_eq!(run(&worker, b"key", touched).await.outcome, Outcome::Hit);
        flush_memtable(&worker).await;
        assert_eq!(worker.stopped(), None);
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.env().set_unix_seconds(1_700_000_000);
    let reply = life.block_on(async move { run(&shard, b"key", get()).await }).expect("runs");
    assert_eq!(reply.value, vec![7; 500]);
}

#[test]
pub(super) fn a_freed_segment_is_readable_while_somebody_may_read_it() {
    let mut options = tiny_options();
    options.picker.level_zero_runs = 2;
    let (mut life, shard) = start(1, &options);
    life.block_on(async move {
        run(&shard, b"key", set(&[7; 500])).await;
        let pointer = harness::pointer(&shard, b"key").expect("a long value");
        flush_memtable(&shard).await;
        let pin = shard.pins.segment(pointer.segment, shard.env.now());
        run(&shard, b"key", set(b"short")).await;
        for round in 0..40u8 {
            run(&shard, &[round], set(&[round; 20])).await;
        }
        flush_memtable(&shard).await;
        rest(&shard).await;
        assert!(shard.is_leaving(pointer.segment), "nothing points into the segment any more");
        let key = Key::memcached(b"key").encode();
        let class = larder_runtime::env::IoClass::Read;
        let read = shard.log.read((pointer, 500), &key, class).await;
        assert_eq!(read.expect("whoever came before may still read"), [7; 500]);
        drop(pin);
        rest(&shard).await;
        let read = shard.log.read((pointer, 500), &key, class).await;
        assert!(read.is_err(), "the file is used again");
    })
    .expect("runs");
}

#[test]
fn closing_amid_writes_keeps_what_was_acknowledged() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let stored = Rc::new(Cell::new([0u32; 4]));
    for client in 0..4usize {
        let (worker, stored) = (shard.clone(), stored.clone());
        life.env().spawn(TaskQueue::Foreground, async move {
            for number in 0u32.. {
                let key = [client as u8, number as u8, (number >> 8) as u8];
                let done = worker.run(&Key::memcached(&key), set(&key), Reply::new).await;
                let Ok(_) = done else { return };
                let mut counts = stored.get();
                counts[client] = number + 1;
                stored.set(counts);
            }
        });
    }
    life.advance(20_000_000).expect("runs");
    let closing = shard.clone();
    life.block_on(async move { closing.close().await }).expect("runs").expect("closes");
    life.run_until_idle().expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        for (client, count) in stored.get().into_iter().enumerate() {
            assert!(count > 5, "client {client} has hardly written");
            for number in 0..count {
                let key = [client as u8, number as u8, (number >> 8) as u8];
                assert_eq!(run(&shard, &key, get()).await.value, key);
            }
        }
    })
    .expect("runs");
}
