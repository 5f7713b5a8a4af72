//! Clients: random operations on few keys and on many.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use futures_lite::future;
use larder_runtime::env::Env;
use larder_runtime::simulation::SimEnv;

use super::harness::{Random, TestShard};
use super::model::{Model, Observed, Reply};
use crate::error::EngineError;
use crate::key::Key;
use crate::operation::{Arithmetic, Delete, Operation, Read, Store, StoreMode};
use crate::shard::{Attempt, OperationBuf};
use crate::value_log::Durability;

pub(super) type SharedModel = Rc<RefCell<Model>>;

/// How the operations are mixed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    pub(super) hot_keys: u64,
    pub(super) wide_keys: u64,
    /// Of 100 operations, how many go to the hot keys.
    pub(super) hot_percent: u64,
    pub(super) write_percent: u64,
    /// Of 100 values, how many are longer than a segment's standard length.
    pub(super) oversize_percent: u64,
    /// Of 100 other values, how many are short enough for the index.
    pub(super) inline_percent: u64,
    pub(super) flushes: bool,
    pub(super) clock_steps: bool,
    /// Errors end a client instead of the test.
    pub(super) faults: bool,
}

impl Mix {
    pub(super) fn random(random: &mut Random) -> Self {
        Self {
            hot_keys: random.pick(&[1, 4, 8]),
            wide_keys: random.pick(&[20, 150]),
            hot_percent: random.pick(&[20, 50, 90]),
            write_percent: random.pick(&[30, 60, 90]),
            oversize_percent: random.pick(&[0, 0, 1, 3]),
            inline_percent: random.pick(&[30, 60, 95]),
            flushes: random.percent(40),
            clock_steps: random.percent(40),
            faults: false,
        }
    }

    fn key(&self, random: &mut Random) -> Vec<u8> {
        if random.percent(self.hot_percent) {
            format!("hot-{}", random.below(self.hot_keys)).into_bytes()
        } else {
            format!("wide-{:04}", random.below(self.wide_keys)).into_bytes()
        }
    }
}

fn now(env: &SimEnv) -> u32 {
    u32::try_from(env.unix_seconds()).expect("before 2106")
}

/// One operation by one client: at once or by way of the device, checked against the model and
/// then acknowledged.
pub(super) async fn perform(
    env: &SimEnv,
    shard: &TestShard,
    model: &SharedModel,
    key: &[u8],
    operation: &OperationBuf,
) -> Result<Reply, EngineError> {
    let began = now(env);
    let (scheduled, steps_before) = {
        let model = model.borrow();
        (model.flush_at(), model.clock_steps().len())
    };
    let routed = Key::memcached(key);
    let borrowed = operation.as_operation();
    let (reply, needs) = match shard.try_execute(&routed, &borrowed, began, Reply::new) {
        Attempt::Done { value, needs } => (value, needs),
        Attempt::Failed(error) => return Err(error),
        Attempt::Later => shard.execute(&routed, operation.clone(), Reply::new).await?,
    };
    {
        let mut model = model.borrow_mut();
        let mut clock = vec![began, now(env)];
        clock.extend(&model.clock_steps()[steps_before..]);
        clock.iter().for_each(|now| model.see_clock(*now));
        see_flushes(shard, &mut model);
        let due = scheduled != 0 && clock.iter().all(|now| scheduled <= *now);
        assert!(!due || model.flush_at() != scheduled, "a flush is overdue since {scheduled}");
        let value_bytes_max = shard.options().value_bytes_max;
        model.observe(&Observed {
            key,
            operation: borrowed,
            reply: &reply,
            needs,
            durable_end: shard.log.durable_end(),
            clock: &clock,
            value_bytes_max,
        });
    }
    acknowledge(shard, model, needs).await?;
    Ok(reply)
}

/// Tells the model of a flush that has been carried out.
pub(super) fn see_flushes(shard: &TestShard, model: &mut Model) {
    let state = shard.state.borrow();
    let (generation, end) = (state.namespaces.generation(0), state.namespaces.flushed_end());
    if end > 0 {
        model.see_generation(generation, end - 1);
    }
}

async fn acknowledge(
    shard: &TestShard,
    model: &SharedModel,
    needs: u64,
) -> Result<(), EngineError> {
    if needs > shard.acknowledged_end() {
        shard.wait_acknowledged(needs).await?;
    }
    if shard.options().log.durability == Durability::Sync {
        model.borrow_mut().acknowledge(needs);
    }
    Ok(())
}

pub(super) async fn flush_all(
    env: &SimEnv,
    shard: &TestShard,
    model: &SharedModel,
    at: Option<u32>,
) -> Result<(), EngineError> {
    let scheduled = at.filter(|at| *at > now(env));
    let needs = shard.flush_all(at).await?;
    {
        let mut model = model.borrow_mut();
        // Another client may have carried out a flush that was due and still wait for its own
        // operation: the model is told of changes in the order of the log.
        see_flushes(shard, &mut model);
        if let Some(at) = scheduled {
            model.schedule(at, needs - 1);
        }
    }
    acknowledge(shard, model, needs).await
}

/// A client that does `count` operations, one after the other.
pub(super) async fn client(
    env: SimEnv,
    shard: TestShard,
    model: SharedModel,
    mix: Mix,
    mut random: Random,
    count: u64,
) {
    let mut versions = vec![1];
    for _ in 0..count {
        let result = if mix.flushes && random.below(120) == 0 {
            let at = random.percent(50).then(|| now(&env) + random.below(20) as u32);
            flush_all(&env, &shard, &model, at).await
        } else if mix.clock_steps && random.below(40) == 0 {
            step_clock(&env, &model, &mut random);
            Ok(())
        } else if random.below(80) == 0 {
            let end = shard.log.sequence_next();
            shard.sync().await.map(|()| model.borrow_mut().acknowledge(end))
        } else {
            let key = mix.key(&mut random);
            if model.borrow().is_lost(&key) {
                continue;
            }
            let operation = operation(&shard, &mix, &mut random, now(&env), &versions);
            let done = if random.below(60) == 0 {
                // The client goes away: what was not applied at once never is.
                let doing = pin!(perform(&env, &shard, &model, &key, &operation));
                let Some(done) = future::poll_once(doing).await else { continue };
                done
            } else {
                perform(&env, &shard, &model, &key, &operation).await
            };
            done.map(|reply| {
                versions.push(reply.metadata.version);
                if versions.len() > 8 {
                    versions.remove(0);
                }
            })
        };
        match result {
            Ok(()) => {}
            Err(error) if mix.faults => match error {
                EngineError::Damaged { .. } | EngineError::Read(_) => {}
                EngineError::Stopped(_) | EngineError::Full | EngineError::Open(_) => return,
            },
            Err(error) => panic!("an operation failed: {error}"),
        }
        if random.percent(20) {
            env.sleep(random.below(3_000_000)).await;
        }
    }
}

fn step_clock(env: &SimEnv, model: &SharedModel, random: &mut Random) {
    let time = env.unix_seconds();
    let time = match random.below(4) {
        0 => time - random.below(30),
        _ => time + random.below(15),
    };
    env.set_unix_seconds(time);
    model.borrow_mut().step_clock(time as u32);
}

fn expiry(random: &mut Random, now: u32) -> u32 {
    match random.below(10) {
        0..7 => 0,
        7 => crate::operation::EXPIRED,
        _ => now + random.below(25) as u32,
    }
}

fn value(shard: &TestShard, mix: &Mix, random: &mut Random) -> Vec<u8> {
    if random.percent(mix.oversize_percent) {
        let segment = shard.options().segment_bytes as usize;
        let longest = shard.options().value_bytes_max;
        return random_value(random, segment.min(longest - 100), longest);
    }
    if random.percent(mix.inline_percent) {
        return match random.below(5) {
            0 => Vec::new(),
            1..4 => random.below(1000).to_string().into_bytes(),
            _ => random_value(random, 1, 32),
        };
    }
    match random.below(10) {
        0..8 => random_value(random, 30, 700),
        _ => random_value(random, 3000, 9000),
    }
}

fn random_value(random: &mut Random, low: usize, high: usize) -> Vec<u8> {
    let len = random.within(low, high);
    random.value(len)
}

/// A random operation. `versions` are some that the client has seen.
fn operation(
    shard: &TestShard,
    mix: &Mix,
    random: &mut Random,
    now: u32,
    versions: &[u64],
) -> OperationBuf {
    if !random.percent(mix.write_percent) {
        return OperationBuf::new(&Operation::Read(read(random, now)));
    }
    let compare = random.percent(20).then(|| random.pick(versions));
    let bytes = value(shard, mix, random);
    let operation = match random.below(10) {
        0..6 => Operation::Store(Store {
            mode: random.pick(&[
                StoreMode::Set,
                StoreMode::Set,
                StoreMode::Set,
                StoreMode::Add,
                StoreMode::Replace,
                StoreMode::Append,
                StoreMode::Prepend,
            ]),
            value: &bytes,
            client_flags: random.below(3) as u32,
            expiry: expiry(random, now),
            compare,
            invalidate: random.percent(20),
            vivify: random.percent(30).then(|| expiry(random, now)),
            version: None,
        }),
        6..8 => Operation::Delete(Delete {
            compare,
            invalidate: random.percent(25),
            clear_value: random.percent(10),
            expiry: random.percent(30).then(|| expiry(random, now)),
            version: None,
        }),
        _ => Operation::Arithmetic(Arithmetic {
            delta: random.below(100),
            decrement: random.percent(40),
            compare,
            vivify: random.percent(50).then(|| (random.below(10), expiry(random, now))),
            expiry: random.percent(20).then(|| expiry(random, now)),
            version: None,
        }),
    };
    OperationBuf::new(&operation)
}

fn read(random: &mut Random, now: u32) -> Read {
    if random.percent(60) {
        return Read { value: random.percent(80), quiet: random.percent(20), ..Read::default() };
    }
    Read {
        value: random.percent(70),
        expiry: random.percent(50).then(|| expiry(random, now)),
        vivify: random.percent(30).then(|| expiry(random, now)),
        recache_before: random.percent(30).then(|| now + random.below(30) as u32),
        leases: random.percent(70),
        quiet: random.percent(20),
        version: None,
    }
}
