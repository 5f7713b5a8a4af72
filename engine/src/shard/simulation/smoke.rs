//! The plain way: everything works when nothing fails.

use super::harness::{self, TestShard, tiny_options};
use super::model::Reply;
use crate::key::Key;
use crate::operation::{Delete, Operation, Outcome, Read, Store, StoreMode};
use crate::shard::OperationBuf;

pub(super) fn set(value: &[u8]) -> OperationBuf {
    set_until(value, 0)
}

/// Stores a value with an expiry, 0 for none.
pub(super) fn set_until(value: &[u8], expiry: u32) -> OperationBuf {
    OperationBuf::new(&Operation::Store(Store {
        mode: StoreMode::Set,
        value,
        client_flags: 7,
        expiry,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }))
}

pub(super) fn get() -> OperationBuf {
    OperationBuf::new(&Operation::Read(Read { value: true, ..Read::default() }))
}

pub(super) fn delete() -> OperationBuf {
    OperationBuf::new(&Operation::Delete(Delete::default()))
}

pub(super) async fn run(shard: &TestShard, key: &[u8], operation: OperationBuf) -> Reply {
    let done = shard.run(&Key::memcached(key), operation, Reply::new).await;
    done.expect("nothing fails")
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

fn value(number: usize, round: usize) -> Vec<u8> {
    format!("{number}:{round}:").into_bytes().repeat(1 + number % 60)
}

const KEYS: usize = 300;

async fn write_rounds(shard: TestShard, rounds: usize) {
    for round in 0..rounds {
        for number in 0..KEYS {
            let reply = run(&shard, &key(number), set(&value(number, round))).await;
            assert_eq!(reply.outcome, Outcome::Stored);
            if number % 7 == round {
                let reply = run(&shard, &key(number), delete()).await;
                assert_eq!(reply.outcome, Outcome::Deleted);
            }
        }
    }
}

async fn check(shard: TestShard, last: usize) {
    for number in 0..KEYS {
        let reply = run(&shard, &key(number), get()).await;
        if number % 7 == last {
            assert_eq!(reply.outcome, Outcome::Miss, "key {number}");
        } else {
            assert_eq!(reply.outcome, Outcome::Hit, "key {number}");
            assert_eq!(reply.value, value(number, last), "key {number}");
            assert_eq!(reply.metadata.client_flags, 7);
        }
    }
}

#[test]
fn items_survive_flushes_compactions_and_restarts() {
    let options = tiny_options();
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, report) = harness::open_in(&mut first, &options);
    assert!(report.created && report.damage.is_empty());
    first.block_on(write_rounds(shard.clone(), 4)).expect("nothing stops the run");
    first.block_on(check(shard.clone(), 3)).expect("nothing stops the run");
    let statistics = shard.statistics();
    assert!(statistics.index.counters.flushes > 4, "{statistics:?}");
    assert!(statistics.index.counters.compactions > 1, "{statistics:?}");
    let closing = shard.clone();
    first.block_on(async move { closing.close().await }).expect("runs").expect("closes");
    drop(shard);

    let mut second = harness::life(2, first.kill());
    let (shard, report) = harness::open_in(&mut second, &options);
    assert!(!report.created && report.damage.is_empty() && !report.torn);
    second.block_on(check(shard, 3)).expect("nothing stops the run");
}
