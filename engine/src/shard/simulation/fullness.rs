//! A disk that fills up, and empties again.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::{SimEnv, Simulation};

use super::harness::{self, TestShard, tiny_options};
use super::items::flush_memtable;
use super::lives::Lives;
use super::model::Reply;
use super::smoke::{delete, get, run, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::manifest::Edit;
use crate::operation::Outcome;
use crate::scan::Scan;
use crate::shard::{BatchAnswer, BatchStep, ItemBatch, Once, ShardOptions};

const SMALL_DISK: u64 = 8 << 20;

fn key(number: usize) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

pub(super) async fn try_run(
    shard: &TestShard,
    record: &[u8],
    operation: crate::shard::OperationBuf,
) -> Result<Reply, EngineError> {
    shard.run(&Key::memcached(record), operation, Reply::new).await
}

/// Stores values until they are refused; returns how many were stored.
async fn fill(shard: &TestShard, value_bytes: usize) -> usize {
    for number in 0.. {
        match try_run(shard, &key(number), set(&vec![number as u8; value_bytes])).await {
            Ok(reply) => assert_eq!(reply.outcome, Outcome::Stored),
            Err(EngineError::Full) => return number,
            Err(error) => panic!("{error}"),
        }
        assert!(number < 100_000, "the disk never fills up");
    }
    unreachable!("the loop ends")
}

async fn check(shard: &TestShard, value_bytes: usize, range: std::ops::Range<usize>) {
    for number in range {
        let reply = run(shard, &key(number), get()).await;
        assert_eq!(reply.outcome, Outcome::Hit, "key {number}");
        assert_eq!(reply.value, vec![number as u8; value_bytes], "key {number}");
    }
}

fn start(options: &ShardOptions) -> (Simulation, TestShard) {
    let mut life = harness::life(1, harness::empty_disk(SMALL_DISK));
    let (shard, report) = harness::open_in(&mut life, options);
    assert!(report.created);
    (life, shard)
}

fn on_a_full_disk(value_bytes: usize) {
    let options = tiny_options();
    let (mut life, shard) = start(&options);
    let env = life.env();
    let worker = shard.clone();
    let stored = life
        .block_on(async move {
            let stored = fill(&worker, value_bytes).await;
            assert!(stored > 20, "only {stored} values fit");
            assert_eq!(worker.stopped(), None);
            let free = env.free_space(harness::DIRECTORY.as_ref()).expect("known");
            assert!(free > 0, "refused before space was exhausted");
            // Reads and deletes go on, writes are refused.
            check(&worker, value_bytes, 0..stored).await;
            for number in 0..10 {
                let reply = run(&worker, &key(number), delete()).await;
                assert_eq!(reply.outcome, Outcome::Deleted);
            }
            // Where all values are in the index, deletes soon make room in the log.
            if value_bytes > 32 {
                let refused = try_run(&worker, b"one more", set(&vec![1; value_bytes])).await;
                assert!(matches!(refused, Err(EngineError::Full)), "{refused:?}");
                assert!(worker.statistics().disk_full);
            }
            stored
        })
        .expect("runs");
    grows_back(life, shard, &options, (value_bytes, stored));
}

/// After a restart on the full disk everything is there; after space has returned writes go on.
fn grows_back(
    life: Simulation,
    shard: TestShard,
    options: &ShardOptions,
    (value_bytes, stored): (usize, usize),
) {
    drop(shard);
    let mut life = harness::life(2, life.crash());
    let (shard, report) = harness::open_in(&mut life, options);
    assert_eq!(report.damage, []);
    let env: SimEnv = life.env();
    life.block_on(async move {
        check(&shard, value_bytes, 10..stored).await;
        for number in 0..10 {
            assert_eq!(run(&shard, &key(number), get()).await.outcome, Outcome::Miss);
        }
        env.set_capacity(2 * SMALL_DISK);
        env.sleep(1_000_000_000).await;
        for number in 0..50 {
            let value = vec![number as u8; value_bytes];
            let reply = try_run(&shard, &key(number), set(&value)).await;
            assert_eq!(reply.expect("there is space again").outcome, Outcome::Stored);
        }
        assert!(!shard.statistics().disk_full);
        check(&shard, value_bytes, 0..stored).await;
    })
    .expect("runs");
}

#[test]
fn a_disk_full_of_long_values_refuses_writes_and_recovers() {
    on_a_full_disk(3000);
}

#[test]
fn a_disk_full_of_short_values_refuses_writes_and_recovers() {
    on_a_full_disk(20);
}

#[test]
fn a_value_too_long_for_the_space_left_does_not_hold_up_the_others() {
    let options = tiny_options();
    let (mut life, shard) = start(&options);
    let env = life.env();
    life.block_on(async move {
        run(&shard, b"short", set(b"1")).await;
        env.sleep(100_000_000).await;
        let used = env.snapshot().used_bytes();
        let reserve = options.disk_reserve_bytes + 3 * u64::from(options.segment_bytes);
        env.set_capacity(used + reserve + (400 << 10));
        let long = try_run(&shard, b"long", set(&vec![1; 250_000])).await;
        assert!(long.is_ok(), "{long:?}");
        let long = try_run(&shard, b"longer", set(&vec![1; 255_000])).await;
        assert!(matches!(long, Err(EngineError::Full)), "{long:?}");
        for number in 0..10 {
            let reply = try_run(&shard, &key(number), set(&[1; 100])).await;
            assert_eq!(reply.expect("short values fit").outcome, Outcome::Stored);
        }
        assert_eq!(run(&shard, b"long", get()).await.value, vec![1; 250_000]);
    })
    .expect("runs");
}

/// Deletes keys, all at once, so that they share frames.
async fn delete_together(env: &SimEnv, shard: &TestShard, range: std::ops::Range<usize>) {
    let left = Rc::new(Cell::new(range.len()));
    for number in range {
        let (shard, left) = (shard.clone(), Rc::clone(&left));
        env.spawn(TaskQueue::Foreground, async move {
            assert_eq!(run(&shard, &key(number), delete()).await.outcome, Outcome::Deleted);
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        env.sleep(1_000_000).await;
    }
}

#[test]
fn deletes_of_large_values_make_room_although_they_fill_little_of_the_log() {
    const VALUE_BYTES: usize = 10_000;
    let options = ShardOptions {
        segment_bytes: 4 << 20,
        memtable_bytes: 1 << 20,
        recovery_log_bytes: 16 << 20,
        ..tiny_options()
    };
    let mut life = harness::life(1, harness::empty_disk(8 * SMALL_DISK));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    life.block_on(async move {
        let stored = fill(&shard, VALUE_BYTES).await;
        env.sleep(1_000_000_000).await;
        flush_memtable(&shard).await;
        delete_together(&env, &shard, 0..stored / 2).await;
        let log = shard.log.bytes_since_mark();
        assert!(log < u64::from(options.segment_bytes) / 8, "{log} bytes of log");
        env.sleep(5_000_000_000).await;
        for number in 0..stored / 4 {
            let reply = try_run(&shard, &key(number), set(&[number as u8; VALUE_BYTES])).await;
            assert_eq!(reply.expect("there is space again").outcome, Outcome::Stored);
        }
        check(&shard, VALUE_BYTES, 0..stored / 4).await;
        check(&shard, VALUE_BYTES, stored / 2..stored).await;
    })
    .expect("runs");
}

#[test]
fn a_flush_of_everything_on_a_full_disk_answers() {
    let (mut life, shard) = start(&tiny_options());
    life.block_on(async move {
        fill(&shard, 3000).await;
        match shard.flush_all(None).await {
            Ok(needs) => shard.log.wait_durable(needs).await.expect("durable"),
            Err(error) => assert!(matches!(error, EngineError::Full), "{error}"),
        }
    })
    .expect("runs");
}

#[test]
fn writes_are_refused_when_memtables_cannot_be_written_out() {
    let options = ShardOptions { memtable_bytes: 1 << 10, ..tiny_options() };
    let (mut life, shard) = start(&options);
    let env = life.env();
    let clock = env.clone();
    let filling = async move {
        run(&shard, b"first", set(b"1")).await;
        env.sleep(100_000_000).await;
        let left = 64 << 10;
        env.set_capacity(env.snapshot().used_bytes() + left);
        fill(&shard, 20).await;
        // A table would fit, but then perhaps not the manifest.
        assert_eq!(env.free_space(harness::DIRECTORY.as_ref()).expect("known"), left);
        assert_eq!(shard.stopped(), None);
        assert_eq!(run(&shard, b"first", delete()).await.outcome, Outcome::Deleted);
        env.set_capacity(2 * SMALL_DISK);
        env.sleep(1_000_000_000).await;
        run(&shard, b"first", set(b"2")).await;
    };
    let hanging = async move {
        clock.sleep(60_000_000_000).await;
        panic!("a write hangs on the full disk");
    };
    life.block_on(futures_lite::future::or(filling, hanging)).expect("runs");
}

#[test]
fn a_manifest_without_room_refuses_writes_until_there_is_some() {
    let (mut life, shard) = start(&tiny_options());
    let env = life.env();
    let worker = shard.clone();
    life.block_on(async move {
        for number in 0..20 {
            run(&worker, &key(number), set(&[number as u8; 100])).await;
        }
        env.sleep(100_000_000).await;
        env.set_capacity(env.snapshot().used_bytes());
        // Edits that need nothing but the manifest, until it has no room for them.
        let committing = worker.clone();
        let commits = env.clone();
        let done = Rc::new(Cell::new(false));
        let is_done = done.clone();
        env.spawn(TaskQueue::Maintenance, async move {
            for _ in 0..100 {
                let edit = |state: &crate::manifest::State| {
                    let version_ceiling = Some(state.version_ceiling);
                    Some(Edit { version_ceiling, ..Edit::default() })
                };
                committing.commit_edit(edit).await.expect("goes on in the end");
                commits.sleep(1_000_000).await;
            }
            is_done.set(true);
        });
        env.sleep(2_000_000_000).await;
        assert!(!done.get() && worker.stopped().is_none());
        assert!(worker.statistics().disk_full);
        let refused = try_run(&worker, b"one more", set(&[1; 100])).await;
        assert!(matches!(refused, Err(EngineError::Full)), "{refused:?}");
        for number in 0..20 {
            assert_eq!(run(&worker, &key(number), get()).await.value, vec![number as u8; 100]);
        }
        assert_eq!(run(&worker, &key(0), delete()).await.outcome, Outcome::Deleted);
        env.set_capacity(2 * SMALL_DISK);
        env.sleep(2_000_000_000).await;
        assert!(done.get() && !worker.statistics().disk_full);
        run(&worker, &key(0), set(&[0; 100])).await;
    })
    .expect("runs");
    drop(shard);
    let mut life = harness::life(2, life.crash());
    let (shard, report) = harness::open_in(&mut life, &tiny_options());
    assert_eq!(report.damage, []);
    life.block_on(async move { check(&shard, 100, 0..20).await }).expect("runs");
}

#[test]
fn a_shard_that_has_no_room_for_its_manifest_can_be_closed() {
    let (mut life, shard) = start(&tiny_options());
    let env = life.env();
    life.block_on(async move {
        for number in 0..20 {
            run(&shard, &key(number), set(&[number as u8; 100])).await;
        }
        env.set_capacity(env.snapshot().used_bytes());
        let committing = shard.clone();
        env.spawn(TaskQueue::Maintenance, async move {
            for _ in 0..100 {
                let committed = committing.commit_edit(|_| Some(Edit::default())).await;
                if matches!(committed, Err(EngineError::Full)) {
                    break;
                }
            }
        });
        env.sleep(2_000_000_000).await;
        assert!(shard.statistics().disk_full);
        shard.close().await.expect("closes");
    })
    .expect("runs");
    let mut disk = life.crash();
    disk.set_capacity(2 * SMALL_DISK);
    let mut life = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut life, &tiny_options());
    assert_eq!(report.damage, []);
    life.block_on(async move { check(&shard, 100, 0..20).await }).expect("runs");
}

#[test]
fn shards_share_a_disk_that_fills_up_and_empties() {
    let name = "shards_share_a_disk_that_fills_up_and_empties";
    harness::for_each_seed(name, 40_001, 200, |seed| {
        let mut lives = Lives::of_shards(seed, 1 + (seed % 3) as u16);
        lives.mix.is_crowded = true;
        lives.mix.takes_reserve = seed % 4 < 2;
        for _ in 0..lives.random.count(1..=4) {
            lives.live();
        }
        lives.finish();
    });
}

#[test]
fn what_was_done_under_a_token_is_known_on_a_full_disk_and_deletes_are_done_once_there() {
    let options = tiny_options();
    let (mut life, worker) = start(&options);
    let test = async move {
        let expiry = worker.env.unix_seconds() as u32 + 1_000_000;
        let change = async |token: u64, record: &[u8], operation| {
            let once = Once { token: token.to_be_bytes().to_vec(), fingerprint: 1, expiry };
            let (namespace, record) = (DEFAULT_NAMESPACE, record.to_vec());
            let steps = vec![BatchStep { namespace, record, item: Vec::new(), operation }];
            let batch = ItemBatch { value_bytes_max: 1 << 20, steps, once: Some(once) };
            let (told, needs) = worker.execute_batch(batch).await?;
            worker.wait_acknowledged(needs).await?;
            Ok::<_, EngineError>(told)
        };
        let outcome = |told: BatchAnswer| match told {
            BatchAnswer::Done(answers) => {
                let answer = answers[0].as_answer();
                (answer.outcome, answer.metadata.version)
            }
            other => panic!("{other:?}"),
        };
        let first = change(1, b"named", set(b"first")).await.map(outcome).expect("there is room");
        let stored = fill(&worker, 3000).await;
        assert!(stored > 20, "only {stored} values fit");
        let again = change(1, b"named", set(b"first")).await.map(outcome);
        assert_eq!(again.expect("it is known"), first);
        let new = change(2, b"new", set(&[1; 3000])).await;
        assert!(matches!(new, Err(EngineError::Full)), "{new:?}");
        let deleted = change(3, b"named", delete()).await.map(outcome).expect("deletes go on");
        assert_eq!(deleted.0, Outcome::Deleted);
        let again = change(3, b"named", delete()).await.map(outcome).expect("it is known");
        assert_eq!(again, deleted, "it was there the first time");
        let again = change(1, b"named", set(b"first")).await.map(outcome);
        assert_eq!(again.expect("it is known"), first);
        assert_eq!(run(&worker, b"named", get()).await.outcome, Outcome::Miss, "it stays deleted");
        let once = Once { token: vec![9; 8], fingerprint: 1, expiry };
        let range = Scan::of_record(DEFAULT_NAMESPACE, &key(1));
        for _ in 0..2 {
            let (told, _) = worker.delete_range_once(&range, &once).await.expect("they go on");
            assert_eq!(told, BatchAnswer::Done(Vec::new()));
        }
        assert_eq!(run(&worker, &key(1), get()).await.outcome, Outcome::Miss);
        // What was refused for want of space is decided anew when there is some.
        for number in 2..stored {
            run(&worker, &key(number), delete()).await;
        }
        let mut rounds = 0;
        while let Err(error) = change(2, b"new", set(&[1; 3000])).await {
            assert!(matches!(error, EngineError::Full) && rounds < 1000, "{error}");
            rounds += 1;
            worker.env.sleep(10_000_000).await;
        }
        assert_eq!(run(&worker, b"new", get()).await.value, [1; 3000]);
    };
    life.block_on(test).expect("runs");
}
