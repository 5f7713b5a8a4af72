//! Changes that ask for more durability than the shard has, or for less.

use larder_runtime::env::Env;

use super::harness::{self, TestShard, for_each_seed, tiny_options};
use super::items::start;
use super::model::Reply;
use super::smoke::{get, run, set};
use crate::key::Key;
use crate::operation::Outcome;
use crate::shard::Acknowledgement::{self, Configured, Durable, Made};
use crate::value_log::Durability;

const LAZY: [Durability; 2] = [Durability::Interval(60_000_000_000), Durability::None];

async fn put(shard: &TestShard, key: &[u8], how: Acknowledgement) {
    let (_, needs) = shard.execute(&Key::memcached(key), set(key)).await.expect("stored");
    shard.wait_told(needs, how).await.expect("told");
}

#[test]
fn what_was_asked_to_be_durable_survives_a_crash_in_every_mode() {
    for_each_seed("what_was_asked_to_be_durable_survives", 1, 30, |seed| {
        for durability in LAZY {
            let mut options = tiny_options();
            options.log.durability = durability;
            let (mut life, shard) = start(seed, &options);
            let worker = shard.clone();
            let count = 3 + seed % 20;
            life.block_on(async move {
                for number in 0..count {
                    put(&worker, format!("before{number}").as_bytes(), Configured).await;
                }
                put(&worker, b"durable", Durable).await;
                assert!(worker.log.durable_end() > count, "{durability:?}");
                put(&worker, b"behind", Configured).await;
            })
            .expect("runs");
            drop(shard);
            let mut life = harness::life(seed, life.crash());
            let (shard, _) = harness::open_in(&mut life, &options);
            life.block_on(async move {
                for number in 0..count {
                    let reply = run(&shard, format!("before{number}").as_bytes(), get()).await;
                    assert_eq!(reply.outcome, Outcome::Hit, "it lies before what is durable");
                }
                assert_eq!(run(&shard, b"durable", get()).await.value, b"durable");
            })
            .expect("runs");
        }
    });
}

#[test]
fn demands_that_come_together_share_a_flush() {
    let mut options = tiny_options();
    options.log.durability = Durability::None;
    let (mut life, shard) = start(1, &options);
    let env = life.env();
    life.block_on(async move {
        let mut needs_all = Vec::new();
        for number in 0..50_u8 {
            let done = shard.execute(&Key::memcached(&[b'k', number]), set(b"value")).await;
            let (_, needs) = done.expect("stored");
            shard.demand(needs, Durable);
            needs_all.push(needs);
        }
        let before = shard.statistics().log.frames;
        for needs in needs_all {
            shard.wait_told(needs, Durable).await.expect("durable");
        }
        let frames = shard.statistics().log.frames - before;
        assert!(frames <= 3, "{frames} frames for 50 demands");
        // A demand that is met asks for nothing.
        shard.demand(1, Durable);
        env.sleep(1_000_000).await;
        assert_eq!(shard.statistics().log.frames - before, frames);
    })
    .expect("runs");
}

#[test]
fn what_need_not_be_durable_is_told_at_once_and_to_nobody_else() {
    let (mut life, shard) = start(1, &tiny_options());
    life.block_on(async move {
        let done = shard.execute(&Key::memcached(b"key"), set(b"value")).await;
        let (_, needs) = done.expect("stored");
        assert!(shard.may_tell(needs, Made), "it need not be durable");
        assert!(!shard.may_tell(needs, Configured) && !shard.may_tell(needs, Durable));
        let read = shard.execute(&Key::memcached(b"key"), get()).await;
        let (answer, needs_read) = read.expect("read");
        assert_eq!(Reply::new(&answer.as_answer()).value, b"value");
        assert_eq!(needs_read, needs, "who reads it waits for it");
        shard.wait_acknowledged(needs).await.expect("durable");
        assert!([Configured, Durable, Made].iter().all(|how| shard.may_tell(needs, *how)));
    })
    .expect("runs");
}
