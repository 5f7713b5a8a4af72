//! Batches of many deletes on a full disk. Each is one frame of the log, which may be longer than
//! what the log has left, and than what is kept for deletes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::Simulation;

use super::fullness::try_run;
use super::harness::{self, TestShard};
use super::model::Reply;
use super::small_disk::{Node, key, options};
use super::smoke::{delete, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::Outcome;
use crate::shard::{BatchAnswer, BatchStep, ItemBatch, ShardOptions};

const DISK_BYTES: u64 = 64 << 20;

/// Of a batch.
const ITEMS: usize = 1000;

const RECORD: [u8; 300] = [b'r'; 300];

const SECOND: u64 = 1_000_000_000;

/// A batch that deletes the items with these numbers.
fn deletions(items: std::ops::Range<usize>) -> ItemBatch {
    let step = |number: usize| BatchStep {
        namespace: DEFAULT_NAMESPACE,
        record: RECORD.to_vec(),
        item: number.to_be_bytes().to_vec(),
        operation: delete(),
    };
    ItemBatch { value_bytes_max: 1 << 20, steps: items.map(step).collect(), once: None }
}

/// Stores what so many batches delete, and fills the disk with values of so many bytes.
async fn fill(shard: &TestShard, batches: usize, value_bytes: usize) {
    for number in 0..batches * ITEMS {
        let item = number.to_be_bytes();
        let key = Key { namespace: DEFAULT_NAMESPACE, record: &RECORD, item: &item };
        let stored = shard.run(&key, set(&[3; 500]), Reply::new).await;
        assert_eq!(stored.expect("there is room").outcome, Outcome::Stored);
    }
    for number in 0.. {
        match try_run(shard, &key(number), set(&vec![2; value_bytes])).await {
            Ok(stored) => assert_eq!(stored.outcome, Outcome::Stored),
            Err(EngineError::Full) => break,
            Err(error) => panic!("{error}"),
        }
    }
    shard.env.sleep(SECOND).await;
}

/// What becomes of so many batches that come at once, in at most so many nanoseconds: of each
/// whether it was done, or refused for want of space.
async fn delete_at_once(shard: &TestShard, batches: usize, nanoseconds: u64) -> Vec<bool> {
    let done = Rc::new(RefCell::new(Vec::new()));
    for batch in 0..batches {
        let (shard, done) = (shard.clone(), done.clone());
        shard.env.clone().spawn(TaskQueue::Foreground, async move {
            let batch = deletions(batch * ITEMS..(batch + 1) * ITEMS);
            let is_done = match shard.execute_batch(batch).await {
                Ok((BatchAnswer::Done(answers), _)) => answers.len() == ITEMS,
                Err(EngineError::Full) => false,
                other => panic!("{other:?}"),
            };
            done.borrow_mut().push(is_done);
        });
    }
    shard.env.sleep(nanoseconds).await;
    done.take()
}

fn start(segment_bytes: u32) -> (Simulation, Node) {
    let mut life = harness::life(1, harness::empty_disk(DISK_BYTES));
    let node = Node::start(&mut life, &ShardOptions { shards: 1, ..options(segment_bytes) });
    (life, node)
}

#[test]
fn long_batches_of_deletes_go_on_on_a_full_disk() {
    // With some of these lengths the log has more left than the eighth of a segment that is kept.
    for value_bytes in [20_000, 150_000, 175_000, 200_000, 210_000] {
        for batches in [1, 2, 3, 8] {
            let (mut life, node) = start(1 << 20);
            life.block_on(async move {
                fill(&node.shards[0], batches, value_bytes).await;
                let left = node.shards[0].log.space_left().0;
                let done = delete_at_once(&node.shards[0], batches, SECOND).await;
                let report = || format!("{value_bytes}: {left} left\n{}", node.describe());
                assert_eq!(done, vec![true; batches], "{}", report());
            })
            .expect("runs");
        }
    }
}

#[test]
fn a_batch_of_deletes_that_no_segment_holds_is_refused_on_a_full_disk() {
    let (mut life, node) = start(256 << 10);
    life.block_on(async move {
        fill(&node.shards[0], 1, 20_000).await;
        let done = delete_at_once(&node.shards[0], 1, SECOND).await;
        assert_eq!(done, [false], "{}", node.describe());
    })
    .expect("runs");
}

#[test]
fn no_delete_waits_for_ever_where_others_have_taken_all_of_the_disk() {
    for (value_bytes, batches) in [(20_000, 1), (150_000, 2), (210_000, 8)] {
        let (mut life, node) = start(1 << 20);
        life.block_on(async move {
            let (shard, env) = (&node.shards[0], &node.env);
            fill(shard, batches, value_bytes).await;
            env.set_capacity(env.snapshot().used_bytes());
            let ended = delete_at_once(shard, batches, 2 * SECOND).await;
            assert_eq!(ended.len(), batches, "{value_bytes}: {}", node.describe());
            let (refused, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let singles = 200;
            for number in 0..singles {
                let (shard, refused, ended) = (shard.clone(), refused.clone(), ended.clone());
                env.spawn(TaskQueue::Foreground, async move {
                    // Long keys, so that what the log has left is soon used up.
                    let item = [&[0; 1000][..], &u64::to_be_bytes(number)].concat();
                    let key = Key { namespace: DEFAULT_NAMESPACE, record: &RECORD, item: &item };
                    match shard.run(&key, delete(), Reply::new).await {
                        Ok(reply) => assert_eq!(reply.outcome, Outcome::NotFound),
                        Err(EngineError::Full) => refused.set(refused.get() + 1),
                        Err(error) => panic!("{error}"),
                    }
                    ended.set(ended.get() + 1);
                });
            }
            env.sleep(2 * SECOND).await;
            assert_eq!(ended.get(), singles, "{value_bytes}: {}", node.describe());
            env.set_capacity(2 * DISK_BYTES);
            node.wait_for_writes().await.expect("there is room");
            let done = delete_at_once(shard, batches, SECOND).await;
            assert_eq!(done, vec![true; batches], "{value_bytes}: {}", node.describe());
        })
        .expect("runs");
    }
}
