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
use crate::operation::{Arithmetic, Operation, Outcome, Read, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{Answer, BatchAnswer, BatchStep, ItemBatch, Once, OperationBuf};
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

fn touch(expiry: u32, value: bool) -> OperationBuf {
    OperationBuf::new(&Operation::Read(Read { value, expiry: Some(expiry), ..Read::default() }))
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

/// Deletes the record under a token.
async fn delete_all(shard: &TestShard, token: u64, fingerprint: u32) -> BatchAnswer {
    let expiry = (shard.env.unix_seconds() + 1_000_000) as u32;
    let once = Once { token: token.to_be_bytes().to_vec(), fingerprint, expiry };
    let range = Scan::of_record(DEFAULT_NAMESPACE, b"r");
    let (told, needs) = shard.delete_range_once(&range, &once).await.expect("nothing fails");
    shard.wait_acknowledged(needs).await.expect("nothing fails");
    told
}

#[test]
fn a_touch_with_a_token_is_made_once_and_shows_the_item_as_it_is() {
    let (mut life, shard) = start(3, &tiny_options());
    let test = async move {
        let now = shard.env.unix_seconds() as u32;
        let shown = |answer: BatchAnswer| match answer {
            BatchAnswer::Done(answers) => {
                let answer = answers[0].as_answer();
                let Answer { outcome, metadata, value_len, .. } = answer;
                (outcome, metadata.expiry, value_len, answer.value.to_vec())
            }
            other => panic!("{other:?}"),
        };
        let under = |token, operation| batch(token, now + 9000, &[(&b"a"[..], operation)]);
        let missing = execute(&shard, under(1, touch(now + 100, false))).await.expect("told");
        let BatchAnswer::Refused { at: 0, answer } = missing else { panic!("{missing:?}") };
        assert_eq!(answer.as_answer().outcome, Outcome::Miss);
        // A value in the index, and one that lies in the log alone.
        for (token, value) in [(10, vec![b'v'; 5]), (20, vec![b'w'; 5000])] {
            run(&shard, b"a", set(&value)).await;
            flush_memtable(&shard).await;
            let first = execute(&shard, under(token, touch(now + 100, false))).await;
            let expected = (Outcome::Hit, now + 100, value.len(), Vec::new());
            assert_eq!(shown(first.expect("done")), expected);
            let read = execute(&shard, under(token + 1, touch(now + 200, true))).await;
            let expected = (Outcome::Hit, now + 200, value.len(), value.clone());
            assert_eq!(shown(read.expect("done")), expected);
            flush_memtable(&shard).await;
            // The later touch stands, and the value is what it was.
            let again = execute(&shard, under(token, touch(now + 100, false))).await;
            let expected = (Outcome::Hit, now + 200, value.len(), Vec::new());
            assert_eq!(shown(again.expect("told")), expected);
            assert_eq!(run(&shard, b"a", get()).await.value, value);
            run(&shard, b"a", set(b"new")).await;
            let again = execute(&shard, under(token + 1, touch(now + 200, true))).await;
            assert_eq!(shown(again.expect("told")), (Outcome::Hit, 0, 3, b"new".to_vec()));
        }
        run(&shard, b"a", delete()).await;
        let again = execute(&shard, under(10, touch(now + 100, false))).await.expect("told");
        assert!(matches!(again, BatchAnswer::Refused { at: 0, .. }), "{again:?}");
    };
    life.block_on(test).expect("runs");
}

#[test]
fn a_range_is_deleted_once_under_a_token_over_restarts() {
    let options = tiny_options();
    let (mut life, shard) = start(4, &options);
    let worker = shard.clone();
    let first = async move {
        run(&worker, b"a", set(b"1")).await;
        assert_eq!(delete_all(&worker, 1, 7).await, BatchAnswer::Done(Vec::new()));
        assert_eq!(run(&worker, b"a", get()).await.outcome, Outcome::Miss);
        run(&worker, b"a", set(b"2")).await;
        assert_eq!(delete_all(&worker, 1, 7).await, BatchAnswer::Done(Vec::new()));
        assert_eq!(run(&worker, b"a", get()).await.value, b"2", "it was not deleted again");
        assert_eq!(delete_all(&worker, 1, 8).await, BatchAnswer::OtherRequest);
        // A batch of one change with the same checksum is another request all the same.
        let expiry = (worker.env.unix_seconds() + 1_000_000) as u32;
        let other = batch(1, expiry, &[(&b"a"[..], set(b"3"))]);
        assert_eq!(execute(&worker, other).await.expect("told"), BatchAnswer::OtherRequest);
        flush_memtable(&worker).await;
    };
    life.block_on(first).expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    let second = async move {
        assert_eq!(delete_all(&shard, 1, 7).await, BatchAnswer::Done(Vec::new()));
        assert_eq!(run(&shard, b"a", get()).await.value, b"2", "it was not deleted again");
        assert_eq!(delete_all(&shard, 2, 7).await, BatchAnswer::Done(Vec::new()));
        assert_eq!(run(&shard, b"a", get()).await.outcome, Outcome::Miss);
    };
    life.block_on(second).expect("runs");
}

/// Deletes a record under tokens, each time behind one item that is stored, and stores another one
/// before it comes again, until something fails.
async fn delete_and_store(shard: TestShard, mut random: Random, answered: Rc<Cell<u64>>) {
    let expiry = (shard.env.unix_seconds() + 1_000_000) as u32;
    let key = |item: &'static [u8]| Key { namespace: DEFAULT_NAMESPACE, record: b"r", item };
    while answered.get() < 200 {
        let token = answered.get() + 1;
        let once = Once { token: token.to_be_bytes().to_vec(), fingerprint: 7, expiry };
        let range = Scan::of_record(DEFAULT_NAMESPACE, b"r");
        let stored = shard.run(&key(b"old"), set(b"o"), Reply::new).await;
        let deleted = async {
            let (told, needs) = shard.delete_range_once(&range, &once).await?;
            shard.wait_acknowledged(needs).await?;
            Ok::<_, EngineError>(told)
        };
        let (Ok(_), Ok(told)) = (stored, deleted.await) else { return };
        assert_eq!(told, BatchAnswer::Done(Vec::new()));
        let Ok(_) = shard.run(&key(b"new"), set(&token.to_be_bytes()), Reply::new).await else {
            return;
        };
        answered.set(token);
        if random.percent(20) {
            shard.freeze(&mut shard.state.borrow_mut());
        }
        let Ok((told, _)) = shard.delete_range_once(&range, &once).await else { return };
        assert_eq!(told, BatchAnswer::Done(Vec::new()));
        let Ok(kept) = shard.run(&key(b"new"), get(), Reply::new).await else { return };
        assert_eq!(kept.value, token.to_be_bytes(), "what came behind it stays");
    }
}

#[test]
fn a_range_with_a_token_goes_once_whatever_crashes() {
    for_each_seed("a_range_with_a_token_goes_once_whatever_crashes", 1, 20, |seed| {
        let mut random = Random::new(seed);
        let mut options = random_options(&mut random);
        options.log.durability = Durability::Sync;
        let (mut life, mut shard) = start(seed, &options);
        let answered = Rc::new(Cell::new(0));
        for round in 0..6 {
            let env = life.env();
            let crash_at_operation = Some(env.operations() + 1 + random.below(120));
            env.set_faults(FaultPlan { crash_at_operation, ..FaultPlan::default() });
            let chance = Random::new(seed ^ (round << 32));
            let tokens = Rc::clone(&answered);
            // It ends with the crash, or because the shard has stopped, or with enough.
            let _ended = life.block_on(delete_and_store(shard.clone(), chance, tokens));
            (life, shard) = restart(life, shard, &options);
            let (worker, told) = (shard.clone(), answered.get());
            let check = async move {
                if told == 0 {
                    return;
                }
                delete_all(&worker, told, 7).await;
                let kept = run(&worker, b"new", get()).await;
                // The next one may have been done, whose answer the crash has taken.
                if kept.outcome == Outcome::Miss {
                    run(&worker, b"new", set(b"behind it")).await;
                    delete_all(&worker, told + 1, 7).await;
                    let kept = run(&worker, b"new", get()).await;
                    assert_eq!(kept.value, b"behind it", "its token came with it");
                } else {
                    assert!(kept.value >= told.to_be_bytes().to_vec(), "{told}: {kept:?}");
                }
            };
            life.block_on(check).expect("runs");
        }
    });
}
