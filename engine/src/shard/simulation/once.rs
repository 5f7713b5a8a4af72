//! Batches with a token: done once, whatever crashes and however often they come.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{TestShard, for_each_seed, random_options, tiny_options};
use super::items::{flush_memtable, restart, start};
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::{Arithmetic, Operation, Outcome, Store, StoreMode};
use crate::shard::{BatchAnswer, BatchStep, ItemBatch, Once, OperationBuf};
use crate::value_log::Durability;

fn increment() -> OperationBuf {
    OperationBuf::new(&Operation::Arithmetic(Arithmetic {
        delta: 1,
        decrement: false,
        compare: None,
        vivify: Some((1, 0)),
        expiry: None,
        version: None,
    }))
}

/// Operations on items of one record, under a token.
fn batch(token: u64, expiry: u32, operations: &[(&[u8], OperationBuf)]) -> ItemBatch {
    let step = |(item, operation): &(&[u8], OperationBuf)| BatchStep {
        namespace: DEFAULT_NAMESPACE,
        record: b"r".to_vec(),
        item: item.to_vec(),
        operation: operation.clone(),
    };
    let once = Once { token: token.to_be_bytes().to_vec(), fingerprint: 7, expiry };
    ItemBatch {
        value_bytes_max: 1 << 20,
        steps: operations.iter().map(step).collect(),
        once: Some(once),
    }
}

async fn execute(shard: &TestShard, batch: ItemBatch) -> Result<BatchAnswer, EngineError> {
    let (answer, needs) = shard.execute_batch(batch).await?;
    shard.wait_acknowledged(needs).await?;
    Ok(answer)
}

async fn run(shard: &TestShard, item: &[u8], operation: OperationBuf) -> Reply {
    let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item };
    shard.run(&key, operation, Reply::new).await.expect("nothing fails")
}

fn number(answer: BatchAnswer) -> u64 {
    match answer {
        BatchAnswer::Done(answers) => match answers[0].as_answer().outcome {
            Outcome::Number(number) => number,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Counts under tokens until something fails. `answered` is the last token with an answer; the next
/// one may have been done before.
async fn count(shard: TestShard, mut random: Random, answered: Rc<Cell<u64>>) {
    while answered.get() < 400 {
        let token = answered.get() + 1;
        let expiry = (shard.env.unix_seconds() + 1_000_000) as u32;
        let same = || batch(token, expiry, &[(b"counter", increment())]);
        let other = random.percent(30).then(|| execute(&shard, same()));
        let other = async {
            match other {
                Some(other) => Some(other.await),
                None => None,
            }
        };
        let (one, other) = futures_lite::future::zip(execute(&shard, same()), other).await;
        for told in [Some(one), other].into_iter().flatten() {
            let Ok(told) = told else { return };
            assert_eq!(number(told), token, "each is counted once, and answered so");
        }
        answered.set(token);
        let old = token - random.below(token.min(3));
        let again = batch(old, expiry, &[(b"counter", increment())]);
        match execute(&shard, again).await {
            Ok(told) => assert_eq!(number(told), old),
            Err(_) => return,
        }
        if random.percent(10) {
            shard.freeze(&mut shard.state.borrow_mut());
        }
    }
}

#[test]
fn a_batch_with_a_token_is_done_once_whatever_crashes() {
    for_each_seed("a_batch_with_a_token_is_done_once_whatever_crashes", 1, 40, |seed| {
        let mut random = Random::new(seed);
        let mut options = random_options(&mut random);
        options.log.durability = Durability::Sync;
        let (mut life, mut shard) = start(seed, &options);
        let answered = Rc::new(Cell::new(0));
        for round in 0..8 {
            let env = life.env();
            let crash_at_operation = Some(env.operations() + 1 + random.below(150));
            env.set_faults(FaultPlan { crash_at_operation, ..FaultPlan::default() });
            let chance = Random::new(seed ^ (round << 32));
            // It ends with the crash, or because the shard has stopped, or with enough.
            let _ended = life.block_on(count(shard.clone(), chance, Rc::clone(&answered)));
            (life, shard) = restart(life, shard, &options);
        }
        let next = answered.get() + 1;
        let expiry = (shard.env.unix_seconds() + 1_000_000) as u32;
        let last = batch(next, expiry, &[(b"counter", increment())]);
        let told = life.block_on(async move { execute(&shard, last).await }).expect("runs");
        assert_eq!(number(told.expect("nothing fails")), next);
    });
}

#[test]
fn a_token_says_what_was_answered_and_is_good_for_one_request_until_it_expires() {
    let (mut life, shard) = start(1, &tiny_options());
    let env = life.env();
    let test = async move {
        let expiry = (shard.env.unix_seconds() + 100) as u32;
        let store = [(&b"a"[..], set(b"1")), (&b"b"[..], delete()), (&b"n"[..], increment())];
        let first = execute(&shard, batch(1, expiry, &store)).await.expect("done");
        let BatchAnswer::Done(answers) = &first else { panic!("{first:?}") };
        let outcome = |at: usize| answers[at].as_answer().outcome;
        assert_eq!((outcome(0), outcome(1)), (Outcome::Stored, Outcome::NotFound));
        run(&shard, b"a", set(b"2")).await;
        flush_memtable(&shard).await;
        let told = |answer: &BatchAnswer| match answer {
            BatchAnswer::Done(answers) => {
                let told = answers.iter().map(|answer| answer.as_answer());
                told.map(|answer| (answer.outcome, answer.metadata.version)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let again = execute(&shard, batch(1, expiry, &store)).await.expect("told");
        assert_eq!(told(&again), told(&first));
        assert_eq!(run(&shard, b"a", get()).await.value, b"2", "nothing was done again");
        let mut other = batch(1, expiry, &store);
        other.once.as_mut().expect("it has one").fingerprint = 8;
        let refused = execute(&shard, other).await.expect("told");
        assert_eq!(refused, BatchAnswer::OtherRequest);
        // What was refused is decided anew.
        let add = || {
            OperationBuf::new(&Operation::Store(Store {
                mode: StoreMode::Add,
                value: b"3",
                client_flags: 0,
                expiry: 0,
                compare: None,
                invalidate: false,
                is_large: false,
                vivify: None,
                version: None,
            }))
        };
        let refused = execute(&shard, batch(2, expiry, &[(b"a", add())])).await.expect("told");
        assert!(matches!(refused, BatchAnswer::Refused { at: 0, .. }), "{refused:?}");
        run(&shard, b"a", delete()).await;
        let done = execute(&shard, batch(2, expiry, &[(b"a", add())])).await.expect("done");
        assert!(matches!(done, BatchAnswer::Done(_)));
        // A batch that changes nothing is done once as well.
        let nothing = [(&b"z"[..], delete())];
        let first_nothing = execute(&shard, batch(3, expiry, &nothing)).await.expect("done");
        run(&shard, b"z", set(b"new")).await;
        let again = execute(&shard, batch(3, expiry, &nothing)).await.expect("told");
        assert_eq!(told(&again), told(&first_nothing));
        assert_eq!(run(&shard, b"z", get()).await.value, b"new", "it was not deleted");
        env.set_unix_seconds(u64::from(expiry) + 1);
        let late = execute(&shard, batch(1, expiry, &store)).await.expect("told");
        assert_eq!(late, BatchAnswer::OtherRequest, "it may have been done");
        run(&shard, b"a", set(b"9")).await;
        let anew = execute(&shard, batch(1, expiry + 200, &store)).await.expect("done");
        assert_eq!(run(&shard, b"a", get()).await.value, b"1", "nobody knows it any more");
        assert_ne!(told(&anew), told(&first));
    };
    life.block_on(test).expect("runs");
}
