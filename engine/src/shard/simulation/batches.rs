//! Batches: what they may need, and whom they wait for.

use super::harness::{TestShard, tiny_options};
use super::items::start;
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::{Operation, Outcome, Store, StoreMode};
use crate::shard::{BatchAnswer, BatchStep, ItemBatch, OperationBuf};

fn append(value: &[u8]) -> OperationBuf {
    OperationBuf::new(&Operation::Store(Store {
        mode: StoreMode::Append,
        value,
        client_flags: 0,
        expiry: 0,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }))
}

fn batch(numbers: std::ops::Range<u8>, operation: &OperationBuf) -> ItemBatch {
    let step = |number: u8| BatchStep {
        namespace: DEFAULT_NAMESPACE,
        record: b"r".to_vec(),
        item: vec![number],
        operation: operation.clone(),
    };
    let value_bytes_max = 1 << 20;
    ItemBatch { value_bytes_max, steps: numbers.map(step).collect(), once: None }
}

async fn run(shard: &TestShard, number: u8, operation: OperationBuf) -> Reply {
    let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item: &[number] };
    shard.run(&key, operation, Reply::new).await.expect("nothing fails")
}

#[test]
fn a_batch_that_would_read_more_than_its_bound_is_refused_and_nothing_is_done() {
    let options = tiny_options();
    let long = 200 << 10;
    for cached in [0, 8 << 20] {
        let mut options = options.clone();
        options.item_cache_bytes = cached;
        let (mut life, shard) = start(1, &options);
        let test = async move {
            for number in 0..10 {
                run(&shard, number, set(&vec![number; long])).await;
            }
            let (answer, _) = shard.execute_batch(batch(0..10, &append(b"+"))).await.expect("told");
            let BatchAnswer::Refused { at, answer } = answer else { panic!("{answer:?}") };
            assert_eq!(answer.as_answer().outcome, Outcome::TooLarge);
            assert_eq!(at, 5, "those before it fit");
            for number in 0..10 {
                assert_eq!(run(&shard, number, get()).await.value.len(), long);
            }
            let (answer, needs) =
                shard.execute_batch(batch(0..4, &append(b"+"))).await.expect("done");
            assert!(matches!(answer, BatchAnswer::Done(answers) if answers.len() == 4));
            shard.wait_acknowledged(needs).await.expect("durable");
            for number in 0..10 {
                let expected = long + usize::from(number < 4);
                assert_eq!(run(&shard, number, get()).await.value.len(), expected);
            }
            shard.close().await.expect("closes");
        };
        life.block_on(test).expect("runs");
    }
}

#[test]
fn a_batch_that_only_deletes_does_not_wait_behind_those_that_store() {
    let (mut life, shard) = start(1, &tiny_options());
    let worker = shard.clone();
    life.block_on(async move { run(&worker, 1, set(b"value")).await }).expect("runs");
    // No segment is as long as that, so it waits for one.
    let large = shard.execute(&Key::memcached(b"large"), set(&[b'v'; 100 << 10]));
    let mut large = Box::pin(large);
    let once = |future| futures_lite::future::block_on(futures_lite::future::poll_once(future));
    assert!(once(large.as_mut()).is_none(), "there is no room");
    let mut stores = Box::pin(shard.execute_batch(batch(2..4, &set(b"value"))));
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(stores.as_mut()));
    assert!(polled.is_none(), "it waits its turn");
    let mut deletes = Box::pin(shard.execute_batch(batch(0..2, &delete())));
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(deletes.as_mut()));
    let (answer, _) = polled.expect("it need not wait").expect("done");
    assert!(matches!(answer, BatchAnswer::Done(_)), "{answer:?}");
    let all = async move { (large.await, stores.await) };
    let (large, stores) = life.block_on(all).expect("runs");
    assert!(large.is_ok() && matches!(stores, Ok((BatchAnswer::Done(_), _))));
}
