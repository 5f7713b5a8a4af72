//! Deletions of ranges: what becomes of them, of the space and of the memory that they take.

use larder_runtime::env::Env;
use larder_runtime::random::Random;

use super::harness::{TestShard, tiny_options};
use super::items::{flush_memtable, restart, start};
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::index::Host;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::Outcome;
use crate::scan::Scan;
use crate::shard::{Attempt, OperationBuf, ShardOptions};

fn item(number: u32) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

async fn run(shard: &TestShard, record: &[u8], item: &[u8], operation: OperationBuf) -> Reply {
    let key = Key { namespace: DEFAULT_NAMESPACE, record, item };
    shard.run(&key, operation, Reply::new).await.expect("nothing fails")
}

async fn delete_range(shard: &TestShard, range: &Scan) {
    let needs = shard.delete_range(range).await.expect("there is room");
    shard.wait_acknowledged(needs).await.expect("nothing fails");
}

/// Waits until no deletion has to be remembered.
async fn carried_out(shard: &TestShard) {
    for _ in 0..20_000 {
        if shard.index.ranges().is_empty() && shard.durable().ranges.is_empty() {
            return;
        }
        shard.env.sleep(1_000_000).await;
    }
    panic!("{} deletions are left", shard.index.ranges().len());
}

#[test]
fn a_deleted_record_gives_its_space_back() {
    let options = ShardOptions { item_cache_bytes: 256 << 10, ..tiny_options() };
    let (mut life, shard) = start(1, &options);
    let worker = shard.clone();
    life.block_on(async move {
        for number in 0..2000 {
            run(&worker, b"large", &item(number), set(&[1; 300])).await;
            if number % 10 == 0 {
                run(&worker, b"other", &item(number), set(b"stays")).await;
            }
        }
        flush_memtable(&worker).await;
        let live = |shard: &TestShard| -> u64 {
            shard.journal.state().segments.values().map(|segment| segment.live_bytes).sum()
        };
        assert!(live(&worker) > 300_000);
        let before = worker.log.counters().records;
        delete_range(&worker, &Scan::of_record(DEFAULT_NAMESPACE, b"large")).await;
        assert_eq!(worker.log.counters().records, before + 1, "it takes one log record");
        for number in [0, 1, 999, 1999] {
            let seen = run(&worker, b"large", &item(number), get()).await;
            assert_eq!(seen.outcome, Outcome::Miss, "{number}");
        }
        carried_out(&worker).await;
        let statistics = worker.statistics().index;
        assert!(statistics.counters.removals > 0, "tables went unread: {statistics:?}");
        for _ in 0..100 {
            flush_memtable(&worker).await;
            if live(&worker) == 0 {
                break;
            }
            worker.env.sleep(20_000_000).await;
        }
        assert_eq!(live(&worker), 0, "what is left has its values in tables");
        assert!(worker.statistics().index.table_entries < 500);
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        for number in 0..2000 {
            let seen = run(&shard, b"large", &item(number), get()).await;
            assert_eq!(seen.outcome, Outcome::Miss, "{number}");
            let expected: &[u8] = if number % 10 == 0 { b"stays" } else { b"" };
            assert_eq!(run(&shard, b"other", &item(number), get()).await.value, expected);
        }
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn deletions_without_an_end_take_a_bounded_part_of_the_memory() {
    let options = ShardOptions { item_cache_bytes: 64 << 10, ..tiny_options() };
    let (mut life, worker) = start(2, &options);
    life.block_on(async move {
        let mut random = Random::new(7);
        let record = |number: u64| format!("record-{number:04}").into_bytes();
        for _ in 0..3000 {
            let name = record(random.below(400));
            match random.below(3) {
                0 => delete_range(&worker, &Scan::of_record(DEFAULT_NAMESPACE, &name)).await,
                _ => {
                    let number = item(random.below(5) as u32);
                    run(&worker, &name, &number, set(&[2; 100])).await;
                }
            }
            let bytes = worker.index.ranges().bytes();
            assert!(bytes <= options.ranges.bytes_max + 500, "{bytes} bytes of deletions");
        }
        carried_out(&worker).await;
        let deleted = Scan::of_namespace(DEFAULT_NAMESPACE);
        delete_range(&worker, &deleted).await;
        carried_out(&worker).await;
        assert_eq!(worker.scan(deleted).await.expect("readable").items, []);
        worker.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn an_item_that_is_stored_again_is_there_and_cached_while_its_range_is_remembered() {
    let mut options = ShardOptions { item_cache_bytes: 64 << 10, ..tiny_options() };
    // Nothing is carried out.
    options.ranges.round_nanoseconds = u64::MAX / 4;
    let (mut life, worker) = start(3, &options);
    let test = async move {
        // The first round ends at once.
        delete_range(&worker, &Scan::of_record(DEFAULT_NAMESPACE, b"none")).await;
        flush_memtable(&worker).await;
        worker.env.sleep(50_000_000).await;
        for value in [b"one", b"two"] {
            run(&worker, b"r", b"i", set(value)).await;
            run(&worker, b"r", b"j", set(value)).await;
            delete_range(&worker, &Scan::of_record(DEFAULT_NAMESPACE, b"r")).await;
            assert_eq!(run(&worker, b"r", b"j", get()).await.outcome, Outcome::Miss);
        }
        run(&worker, b"r", b"i", set(&[3; 300])).await;
        flush_memtable(&worker).await;
        assert!(!worker.durable().ranges.is_empty());
        // Out of the cache, and back into it.
        worker.state.borrow_mut().items.clear();
        for _ in 0..3 {
            assert_eq!(run(&worker, b"r", b"i", get()).await.value, [3; 300]);
            assert_eq!(run(&worker, b"r", b"j", get()).await.outcome, Outcome::Miss);
        }
        let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item: b"i" };
        let cached = || worker.state.borrow().operations.cached;
        let (before, now) = (cached(), worker.unix_now());
        let read = get();
        let seen = worker.try_execute(&key, None, &read.as_operation(), now, Reply::new);
        assert!(matches!(seen, Attempt::Done { value, .. } if value.value == [3; 300]));
        assert_eq!(cached(), before + 1, "it was answered from the cache");
        assert_eq!(run(&worker, b"r", b"i", delete()).await.outcome, Outcome::Deleted);
        assert_eq!(run(&worker, b"r", b"i", get()).await.outcome, Outcome::Miss);
    };
    life.block_on(test).expect("runs");
}
