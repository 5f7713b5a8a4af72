//! Namespaces: which there are, what they may take, what caches keep of them, and their end.

use std::collections::BTreeMap;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{TestShard, for_each_seed, tiny_options};
use super::items::{flush_memtable, restart, start};
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key, RESERVED_NAMESPACES};
use crate::operation::{Operation, Outcome, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{
    BatchAnswer, BatchStep, CachePolicy, ItemBatch, NamespaceOptions, OperationBuf, ShardOptions,
};
use crate::value_log::record;

async fn run(
    shard: &TestShard,
    namespace: u32,
    number: u32,
    operation: OperationBuf,
) -> Result<Reply, EngineError> {
    let item = number.to_be_bytes();
    let key = Key { namespace, record: b"r", item: &item };
    shard.run(&key, operation, Reply::new).await
}

fn known(namespaces: &[(u32, NamespaceOptions)]) -> BTreeMap<u32, NamespaceOptions> {
    namespaces.iter().copied().collect()
}

fn live_bytes(shard: &TestShard) -> u64 {
    shard.journal.state().segments.values().map(|segment| segment.live_bytes).sum()
}

#[test]
fn a_dropped_namespace_takes_no_changes_and_gives_its_space_back() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let worker = shard.clone();
    life.block_on(async move {
        let usual = NamespaceOptions::default();
        worker.set_namespaces(known(&[(5, usual), (6, usual)]));
        for number in 0..1000 {
            run(&worker, 5, number, set(&[5; 300])).await.expect("there is room");
            if number % 10 == 0 {
                run(&worker, 6, number, set(b"stays")).await.expect("there is room");
            }
        }
        flush_memtable(&worker).await;
        assert!(live_bytes(&worker) > 250_000);
        let refused = run(&worker, 7, 1, set(b"v")).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(7))), "{refused:?}");
        worker.set_namespaces(known(&[(6, usual)]));
        let refused = run(&worker, 5, 1, set(b"v")).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(5))), "{refused:?}");
        let (record, item) = (b"r".to_vec(), b"i".to_vec());
        let steps = vec![BatchStep { namespace: 5, record, item, operation: set(b"v") }];
        let batch = ItemBatch { value_bytes_max: 1000, steps, once: None };
        let refused = worker.execute_batch(batch).await;
        assert!(matches!(refused, Err(EngineError::NoNamespace(5))), "{refused:?}");
        let before = worker.log.counters().records;
        worker.drop_namespace(5).await.expect("there is room");
        assert_eq!(worker.log.counters().records, before + 1, "it takes one log record");
        for namespace in [DEFAULT_NAMESPACE, 6, *RESERVED_NAMESPACES.end()] {
            run(&worker, namespace, 7, set(b"new")).await.expect("it is there");
        }
        for _ in 0..200 {
            if live_bytes(&worker) == 0 && worker.index.ranges().is_empty() {
                break;
            }
            worker.env.sleep(20_000_000).await;
            flush_memtable(&worker).await;
        }
        assert_eq!(live_bytes(&worker), 0, "what is left has its values in tables");
        assert!(worker.index.ranges().is_empty(), "nothing has to be remembered");
        assert_eq!(worker.index.bytes_of(5), 0);
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        for number in [0, 1, 500, 999] {
            let seen = run(&shard, 5, number, get()).await.expect("readable");
            assert_eq!(seen.outcome, Outcome::Miss);
        }
        assert_eq!(run(&shard, 6, 10, get()).await.expect("readable").value, b"stays");
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_namespace_takes_no_more_of_the_disk_than_its_quota() {
    let options = tiny_options();
    let (mut life, worker) = start(2, &options);
    life.block_on(async move {
        let quota = 512 << 10;
        let limited = NamespaceOptions { bytes_max: Some(quota), ..NamespaceOptions::default() };
        worker.set_namespaces(known(&[(5, limited), (6, NamespaceOptions::default())]));
        // Overwriting is not what the quota is about.
        for round in 0..2000 {
            let stored = run(&worker, 5, round % 4, set(&[1; 300])).await;
            stored.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        let (mut stored, mut has_rested) = (0, false);
        let refused = loop {
            match run(&worker, 5, 1000 + stored, set(&[2; 300])).await {
                Ok(_) => (stored, has_rested) = (stored + 1, false),
                // What was overwritten counts until merges have met it.
                Err(_) if !has_rested => {
                    worker.env.sleep(2_000_000_000).await;
                    has_rested = true;
                }
                Err(error) => break error,
            }
            assert!(u64::from(stored) * 300 < quota, "it has {stored} items");
        };
        assert!(matches!(refused, EngineError::OverQuota(5)), "{refused}");
        // Tables hide a quarter at most when merges have come to rest, and have a part themselves.
        let record = record::encoded_len(
            Key { namespace: 5, record: b"r", item: &[0; 4] }.encode().len(),
            300,
        );
        assert!(u64::from(stored) * record as u64 > quota / 2, "only {stored} items fit");
        run(&worker, 6, 1, set(&[3; 3000])).await.expect("another namespace has room");
        run(&worker, DEFAULT_NAMESPACE, 1, set(&[3; 3000])).await.expect("so has the default");
        assert_eq!(run(&worker, 5, 1000, get()).await.expect("readable").value, [2; 300]);
        for number in 0..stored {
            run(&worker, 5, 1000 + number, delete()).await.expect("deletes go on");
        }
        for round in 0.. {
            match run(&worker, 5, 5000, set(&[4; 300])).await {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, EngineError::OverQuota(5)), "{error}"),
            }
            assert!(round < 500, "what was deleted counts for ever");
            worker.env.sleep(20_000_000).await;
        }
        let raised = NamespaceOptions { bytes_max: Some(64 << 20), ..limited };
        worker.set_namespaces(known(&[(5, raised)]));
        for number in 0..400 {
            run(&worker, 5, 9000 + number, set(&[4; 300])).await.expect("it was raised");
        }
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn caches_keep_of_a_namespace_what_its_policy_says() {
    let options = ShardOptions {
        item_cache_bytes: 256 << 10,
        block_cache_bytes: 256 << 10,
        ..tiny_options()
    };
    let (mut life, worker) = start(3, &options);
    life.block_on(async move {
        let policy =
            |cache| known(&[(5, NamespaceOptions { cache, ..NamespaceOptions::default() })]);
        worker.set_namespaces(policy(CachePolicy::Values));
        for number in 0..50 {
            run(&worker, 5, number, set(&[1; 300])).await.expect("there is room");
        }
        flush_memtable(&worker).await;
        let entries = || worker.state.borrow().items.counters().entries;
        assert_eq!(entries(), 50);
        for cache in [CachePolicy::KeysOnly, CachePolicy::Bypass] {
            worker.set_namespaces(policy(cache));
            worker.state.borrow_mut().items.clear();
            for number in 0..50 {
                let seen = run(&worker, 5, number, get()).await.expect("readable");
                assert_eq!(seen.value, [1; 300]);
            }
            assert_eq!(entries(), 0, "{cache:?}");
            run(&worker, 5, 1, set(&[1; 300])).await.expect("there is room");
            assert_eq!(entries(), 0, "{cache:?}");
            flush_memtable(&worker).await;
        }
        // What was cached before and is stored anew is never answered as it was.
        worker.set_namespaces(policy(CachePolicy::Values));
        run(&worker, 5, 2, get()).await.expect("readable");
        assert_eq!(entries(), 1);
        worker.set_namespaces(policy(CachePolicy::KeysOnly));
        run(&worker, 5, 2, set(b"another")).await.expect("there is room");
        assert_eq!(run(&worker, 5, 2, get()).await.expect("readable").value, b"another");
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn no_value_becomes_longer_than_its_namespace_allows() {
    let (mut life, worker) = start(4, &tiny_options());
    life.block_on(async move {
        let short = NamespaceOptions { value_bytes_max: Some(4), ..NamespaceOptions::default() };
        worker.set_namespaces(known(&[(5, short), (6, NamespaceOptions::default())]));
        let append = OperationBuf::new(&Operation::Store(Store {
            mode: StoreMode::Append,
            value: b"5",
            client_flags: 0,
            expiry: 0,
            compare: None,
            invalidate: false,
            is_large: false,
            vivify: None,
            version: None,
        }));
        for (namespace, expected) in [(5, Outcome::TooLarge), (6, Outcome::Stored)] {
            let outcome = async |operation| {
                run(&worker, namespace, 1, operation).await.expect("readable").outcome
            };
            assert_eq!(outcome(set(b"12345")).await, expected);
            assert_eq!(outcome(set(b"1234")).await, Outcome::Stored);
            assert_eq!(outcome(append.clone()).await, expected);
            let (record, item) = (b"r".to_vec(), 1u32.to_be_bytes().to_vec());
            let steps = vec![BatchStep { namespace, record, item, operation: append.clone() }];
            let batch = ItemBatch { value_bytes_max: 1000, steps, once: None };
            let (answer, _) = worker.execute_batch(batch).await.expect("readable");
            let is_done = matches!(answer, BatchAnswer::Done(_));
            assert_eq!(is_done, namespace == 6, "{answer:?}");
        }
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn the_default_namespace_is_kept_as_it_is_said_also_when_it_was_flushed() {
    let options = ShardOptions { item_cache_bytes: 256 << 10, ..tiny_options() };
    let (mut life, worker) = start(7, &options);
    life.block_on(async move {
        let stored = async |number: u32, len: usize| {
            run(&worker, DEFAULT_NAMESPACE, number, set(&vec![1; len])).await
        };
        for round in 0..3 {
            let short =
                NamespaceOptions { value_bytes_max: Some(300), ..NamespaceOptions::default() };
            worker.set_namespaces(known(&[(DEFAULT_NAMESPACE, short)]));
            assert_eq!(stored(1, 301).await.expect("told").outcome, Outcome::TooLarge);
            assert!(!worker.takes_value(DEFAULT_NAMESPACE, 301));
            assert!(worker.takes_value(DEFAULT_NAMESPACE, 300));
            let quota = NamespaceOptions { bytes_max: Some(64 << 10), ..short };
            worker.set_namespaces(known(&[(DEFAULT_NAMESPACE, quota)]));
            let mut number = 0;
            let refused = loop {
                match stored(1000 + number, 300).await {
                    Ok(_) => number += 1,
                    Err(error) => break error,
                }
                assert!(number < 300, "it has {number} items");
            };
            assert!(matches!(refused, EngineError::OverQuota(DEFAULT_NAMESPACE)), "{refused}");
            // Tables of few items take whole blocks, and count until they are merged.
            assert!(number > 30, "round {round}: only {number} items fit");
            let limit = NamespaceOptions { record_bytes_max: Some(1), ..Default::default() };
            worker.set_namespaces(known(&[(DEFAULT_NAMESPACE, limit)]));
            let refused = stored(2, 10).await.expect_err("the record is full");
            assert!(matches!(refused, EngineError::RecordFull(DEFAULT_NAMESPACE)), "{refused}");
            let bypass = NamespaceOptions { cache: CachePolicy::Bypass, ..Default::default() };
            worker.set_namespaces(known(&[(DEFAULT_NAMESPACE, bypass)]));
            worker.state.borrow_mut().items.clear();
            stored(2, 10).await.expect("there is room");
            assert_eq!(worker.state.borrow().items.counters().entries, 0);
            worker.set_namespaces(known(&[]));
            stored(2, 1000).await.expect("it is as usual");
            assert_eq!(worker.state.borrow().items.counters().entries, 1);
            worker.flush_all(None).await.expect("flushed");
        }
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

/// What each item of a record has, in bytes, as its pages show them.
async fn items_in(shard: &TestShard, record: &[u8]) -> BTreeMap<Vec<u8>, u64> {
    let mut scan = Scan::of_record(5, record);
    let mut items = BTreeMap::new();
    loop {
        let page = shard.scan(scan.clone()).await.expect("readable");
        for item in page.items {
            let bytes = (item.item.len() + item.value_len) as u64;
            items.insert(item.item, bytes);
        }
        match page.next {
            Some(place) => scan = scan.after(&place),
            None => return items,
        }
    }
}

#[test]
fn a_record_has_no_more_than_its_namespace_lets_it_have() {
    for_each_seed("a_record_has_no_more_than_its_namespace_lets_it_have", 1, 4, |seed| {
        let options = tiny_options();
        let (mut life, worker) = start(seed, &options);
        life.block_on(limit_records(worker, seed)).expect("runs");
    });
}

/// The most that a record may have in [`limit_records`], in bytes.
const RECORD_MAX: u64 = 10_000;

/// Changes records of a namespace that limits them, at random, and looks at them after each change.
async fn limit_records(worker: TestShard, seed: u64) {
    let limit = Some(RECORD_MAX);
    let limited = NamespaceOptions { record_bytes_max: limit, ..NamespaceOptions::default() };
    worker.set_namespaces(known(&[(5, limited), (6, NamespaceOptions::default())]));
    let mut random = Random::new(seed);
    let (mut refused, mut stored) = (0, 0);
    for round in 0..2000 {
        let record = [b'r', random.below(3) as u8];
        let before = items_in(&worker, &record).await;
        let (kind, item) = (random.below(60), random.below(60) as u8);
        let value = vec![1; random.below(900) as usize];
        let puts = match kind {
            0..7 => vec![],
            7..20 => vec![item, item + 60],
            _ => vec![item],
        };
        let mut expected = before.clone();
        let put = |item: &u8| (vec![*item], 1 + value.len() as u64);
        expected.extend(puts.iter().map(put));
        let fits = expected.values().sum::<u64>() <= RECORD_MAX;
        let done = change_record(&worker, (kind, item), &record, &value).await;
        match done {
            Ok(()) => stored += 1,
            Err(EngineError::RecordFull(5)) => refused += 1,
            Err(ref error) => panic!("round {round}: {error}"),
        }
        assert_eq!(done.is_ok(), fits || puts.is_empty(), "round {round}: {before:?}, {puts:?}");
        let after = items_in(&worker, &record).await;
        if done.is_err() {
            assert_eq!(after, before, "round {round}: a part was done");
        } else if !puts.is_empty() {
            assert_eq!(after, expected, "round {round}");
        }
    }
    assert!(refused > 50 && stored > 500, "{refused} refused, {stored} stored");
    let key = Key { namespace: 6, record: b"r", item: b"i" };
    worker.run(&key, set(&[1; 20_000]), |_| ()).await.expect("that one has no limit");
    worker.close().await.expect("closes");
}

async fn change_record(
    shard: &TestShard,
    (kind, item): (u64, u8),
    record: &[u8],
    value: &[u8],
) -> Result<(), EngineError> {
    let key = Key { namespace: 5, record, item: &[item] };
    match kind {
        0 => shard.delete_range(&Scan::of_items(5, record, b"")).await.map(|_| ()),
        1..7 => shard.run(&key, delete(), |_| ()).await,
        7..20 => {
            let step = |item: u8| {
                let operation = set(value);
                BatchStep { namespace: 5, record: record.to_vec(), item: vec![item], operation }
            };
            let steps = vec![step(item), step(item + 60)];
            let batch = ItemBatch { value_bytes_max: 1 << 20, steps, once: None };
            shard.execute_batch(batch).await.map(|_| ())
        }
        _ => shard.run(&key, set(value), |_| ()).await,
    }
}

/// Stores an item of so many bytes in the record whose namespace limits it.
async fn put_in_record(worker: &TestShard, item: u8, len: usize) -> Result<(), EngineError> {
    let key = Key { namespace: 5, record: b"r", item: &[item] };
    worker.run(&key, set(&vec![item; len]), |_| ()).await
}

/// Limits the records of a namespace, and fills one of them with ten items.
async fn fill_record(worker: &TestShard) {
    let limit = Some(RECORD_MAX);
    let limited = NamespaceOptions { record_bytes_max: limit, ..NamespaceOptions::default() };
    worker.set_namespaces(known(&[(5, limited)]));
    for item in 0..10 {
        put_in_record(worker, item, 999).await.expect("there is room");
    }
}

#[test]
fn a_change_that_a_full_record_refuses_counts_nothing() {
    let (mut life, worker) = start(6, &tiny_options());
    life.block_on(async move {
        let put = async |item, len| put_in_record(&worker, item, len).await;
        fill_record(&worker).await;
        let full = put(10, 1).await;
        assert!(matches!(full, Err(EngineError::RecordFull(5))), "{full:?}");
        let counts = worker.record_counts();
        for _ in 0..20 {
            let full = put(10, 1).await;
            assert!(matches!(full, Err(EngineError::RecordFull(5))), "{full:?}");
            let longer = put(3, 1000).await;
            assert!(matches!(longer, Err(EngineError::RecordFull(5))), "{longer:?}");
            put(3, 999).await.expect("it takes the place of as much");
        }
        put(3, 500).await.expect("it is shorter");
        assert_eq!(worker.record_counts(), counts, "all of that was known");
        put(10, 498).await.expect("that has made room");
        let full = put(11, 0).await;
        assert!(matches!(full, Err(EngineError::RecordFull(5))), "{full:?}");
        assert_eq!(worker.record_counts(), counts + 1, "a put that has room is not looked up");
        let sum: u64 = items_in(&worker, b"r").await.values().sum();
        assert_eq!(sum, RECORD_MAX);
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

/// What a slow device makes wait is not counted again for having waited: otherwise a large record
/// is counted instead of changed, until its change is refused.
#[test]
fn a_change_that_has_waited_for_room_does_not_count_its_record_again() {
    const SECONDS: u64 = 1_000_000_000;
    let (mut life, worker) = start(8, &tiny_options());
    let env = life.env();
    life.block_on(async move {
        let put = async |item, len| put_in_record(&worker, item, len).await;
        fill_record(&worker).await;
        put(10, 1).await.expect_err("the record is full");
        put(3, 500).await.expect("it is shorter");
        put(4, 500).await.expect("it is shorter");
        let counts = worker.record_counts();
        let latency_nanoseconds = 3 * SECONDS..=3 * SECONDS;
        env.set_faults(FaultPlan { latency_nanoseconds, ..FaultPlan::default() });
        for number in 0..12 {
            let writer = worker.clone();
            env.spawn(TaskQueue::Foreground, async move {
                let stored = run(&writer, DEFAULT_NAMESPACE, number, set(&[1; 15_000])).await;
                stored.expect("there is room in the end");
            });
        }
        env.sleep(SECONDS / 1000).await;
        let began = env.now();
        put(3, 999).await.expect("it takes the place of as much");
        let (record, item) = (b"r".to_vec(), vec![4]);
        let steps = vec![BatchStep { namespace: 5, record, item, operation: set(&[4; 999]) }];
        let batch = ItemBatch { value_bytes_max: 1000, steps, once: None };
        let (answer, _) = worker.execute_batch(batch).await.expect("so does that");
        assert!(matches!(answer, BatchAnswer::Done(_)), "{answer:?}");
        assert!(env.now() - began > 2 * SECONDS, "nothing had to wait");
        assert_eq!(worker.record_counts(), counts, "what it has was known");
        env.set_faults(FaultPlan::default());
        let sum: u64 = items_in(&worker, b"r").await.values().sum();
        assert_eq!(sum, RECORD_MAX);
        worker.close().await.expect("closes");
    })
    .expect("runs");
}
