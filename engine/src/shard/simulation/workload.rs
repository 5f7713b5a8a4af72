//! Clients: random operations on few keys and on many.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use futures_lite::future;
use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::SimEnv;

use super::harness::TestShard;
use super::history::{Name, NameRange};
use super::mix::{Mix, Phase, batch, operation};
use super::model::{Model, Observed, Reply};
use crate::error::EngineError;
use crate::operation::{Operation, Outcome};
use crate::scan::Scan;
use crate::shard::{Acknowledgement, Attempt, BatchAnswer, BatchStep, ItemBatch, OperationBuf};
use crate::value_log::Durability;

pub(super) type SharedModel = Rc<RefCell<Model>>;

/// The longest that an operation may take where nothing is faulty, in virtual nanoseconds.
const STALL_NANOSECONDS_MAX: u64 = 4_000_000_000;

/// The most tables of level 0 where nothing is faulty: four times as many as it is relieved at,
/// and those of one flush, which is cut where it would overlap too much of level 1.
const LEVEL_ZERO_TABLES_MAX: usize = 4 * 8 + 24;

fn now(env: &SimEnv) -> u32 {
    u32::try_from(env.unix_seconds()).expect("before 2106")
}

/// One operation by one client: at once or by way of the device, checked against the model and
/// then acknowledged.
pub(super) async fn perform(
    env: &SimEnv,
    shard: &TestShard,
    model: &SharedModel,
    name: &Name,
    operation: &OperationBuf,
) -> Result<Reply, EngineError> {
    let began = now(env);
    let (scheduled, steps_before) = {
        let model = model.borrow();
        (model.clear_at(), model.clock_steps().len())
    };
    let key = name.as_key();
    let borrowed = operation.as_operation();
    // As the node does with pipelined requests.
    let announced = began.is_multiple_of(2).then(|| shard.announce(&key));
    let (reply, needs) = match shard.try_execute(&key, announced, &borrowed, began, Reply::new) {
        Attempt::Done { value, needs } => (value, needs),
        Attempt::Failed(error) => return Err(error),
        Attempt::Later => {
            let (answer, needs) = shard.execute(&key, operation.clone()).await?;
            (Reply::new(&answer.as_answer()), needs)
        }
    };
    {
        let mut model = model.borrow_mut();
        let mut clock = vec![began, now(env)];
        clock.extend(&model.clock_steps()[steps_before..]);
        see_clears(shard, &mut model);
        let due = scheduled != 0 && clock.iter().all(|now| scheduled <= *now);
        assert!(!due || model.clear_at() != scheduled, "a flush is overdue since {scheduled}");
        let value_bytes_max = shard.options().value_bytes_max;
        model.observe(&Observed {
            name,
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

/// Tells the model of a clear that has been carried out.
pub(super) fn see_clears(shard: &TestShard, model: &mut Model) {
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
    // Some ask for durability by themselves.
    let is_demanded = needs > 0 && needs.is_multiple_of(16);
    let how = if is_demanded { Acknowledgement::Durable } else { Acknowledgement::Configured };
    if is_demanded || needs > shard.acknowledged_end() {
        shard.wait_told(needs, how).await?;
    }
    if is_demanded || shard.options().log.durability == Durability::Sync {
        model.borrow_mut().acknowledge(needs);
    }
    Ok(())
}

pub(super) async fn clear(
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
        see_clears(shard, &mut model);
        if let Some(at) = scheduled {
            model.schedule(at, needs - 1);
        }
    }
    acknowledge(shard, model, needs).await
}

/// Several operations that are done together, checked against the model and then acknowledged.
pub(super) async fn perform_batch(
    env: &SimEnv,
    shard: &TestShard,
    model: &SharedModel,
    steps: &[(Name, OperationBuf)],
) -> Result<(), EngineError> {
    let began = now(env);
    let steps_before = model.borrow().clock_steps().len();
    let batch = ItemBatch {
        once: None,
        value_bytes_max: usize::MAX,
        steps: steps
            .iter()
            .map(|(name, operation)| BatchStep {
                namespace: name.namespace,
                record: name.record.clone(),
                item: name.item.clone(),
                operation: operation.clone(),
            })
            .collect(),
    };
    let (answer, needs) = shard.execute_batch(batch).await?;
    {
        let mut model = model.borrow_mut();
        let mut clock = vec![began, now(env)];
        clock.extend(&model.clock_steps()[steps_before..]);
        see_clears(shard, &mut model);
        let observed = |at: usize, reply, needs| Observed {
            name: &steps[at].0,
            operation: steps[at].1.as_operation(),
            reply,
            needs,
            durable_end: shard.log.durable_end(),
            clock: &clock,
            value_bytes_max: shard.options().value_bytes_max,
        };
        match answer {
            BatchAnswer::Refused { at, answer } => {
                let reply = Reply::new(&answer.as_answer());
                model.observe(&observed(at, &reply, needs));
            }
            BatchAnswer::OtherRequest => panic!("these batches have no token"),
            BatchAnswer::Done(answers) => {
                let replies: Vec<_> =
                    answers.iter().map(|answer| Reply::new(&answer.as_answer())).collect();
                let changes =
                    |reply: &Reply| !matches!(reply.outcome, Outcome::Hit | Outcome::NotFound);
                // The changes take the last sequences below `needs`, one each.
                let count = replies.iter().filter(|reply| changes(reply)).count() as u64;
                let mut end = needs - count;
                let with_needs = replies.iter().enumerate().map(|(at, reply)| {
                    end += u64::from(changes(reply));
                    observed(at, reply, if changes(reply) { end } else { needs })
                });
                let all: Vec<_> = with_needs.collect();
                model.observe_batch(&all);
            }
        }
    }
    acknowledge(shard, model, needs).await
}

pub(super) async fn delete_range(
    shard: &TestShard,
    model: &SharedModel,
    range: &Scan,
) -> Result<(), EngineError> {
    let needs = shard.delete_range(range).await?;
    {
        let mut model = model.borrow_mut();
        see_clears(shard, &mut model);
        if needs > 0 {
            model.delete_range(NameRange::of(range), needs - 1);
        }
    }
    acknowledge(shard, model, needs).await
}

/// A client: what it does, and what it has seen.
pub(super) struct Client {
    pub(super) env: SimEnv,
    pub(super) shard: TestShard,
    pub(super) model: SharedModel,
    /// Those of all shards: they have one clock.
    pub(super) models: Rc<[SharedModel]>,
    pub(super) mix: Mix,
    pub(super) random: Random,
}

impl Client {
    /// Does `count` operations, one after the other.
    pub(super) async fn work(mut self, count: u64) {
        let mut versions = vec![1];
        let mut phase = Phase::Mixed;
        for _ in 0..count {
            if self.random.below(40) == 0 {
                phase = self.mix.phase(&mut self.random);
            }
            let began = self.env.now();
            let (result, may_be_refused) = self.step(phase, &mut versions).await;
            self.check_bounds(began);
            match result {
                Ok(()) => {}
                Err(error) if self.mix.faults => match error {
                    EngineError::Damaged { .. } | EngineError::Read(_) => {}
                    EngineError::NoNamespace(_)
                    | EngineError::OverQuota(_)
                    | EngineError::RecordFull(_)
                    | EngineError::RecordChanging(_) => {
                        panic!("no namespaces were said: {error}")
                    }
                    EngineError::LeaseEnded | EngineError::TooManyLeases => {
                        panic!("no lease was asked for: {error}")
                    }
                    EngineError::Stopped(_) | EngineError::Full | EngineError::Open(_) => return,
                },
                Err(EngineError::Full) if self.mix.is_crowded && may_be_refused => {}
                Err(EngineError::Stopped(_)) if self.mix.takes_reserve => return,
                Err(error) => panic!("an operation failed: {error}"),
            }
            if self.random.percent(20) {
                self.env.sleep(self.random.below(3_000_000)).await;
            }
        }
    }

    /// One operation, and whether a full disk is a reason to refuse it.
    async fn step(
        &mut self,
        phase: Phase,
        versions: &mut Vec<u64>,
    ) -> (Result<(), EngineError>, bool) {
        let (env, mix, random) = (&self.env, &self.mix, &mut self.random);
        if mix.clears && random.below(120) == 0 {
            let at = random.percent(50).then(|| now(env) + random.below(20) as u32);
            let done = clear(env, &self.shard, &self.model, at).await;
            return (done, mix.takes_reserve);
        }
        if mix.ranges && random.below(60) == 0 {
            let range = mix.range(random);
            let done = delete_range(&self.shard, &self.model, &range).await;
            return (done, mix.is_crowded);
        }
        if mix.batches && !mix.faults && random.below(12) == 0 {
            let steps = batch(&self.shard, mix, random, now(env), versions);
            let done = perform_batch(env, &self.shard, &self.model, &steps).await;
            return (done, true);
        }
        if mix.clock_steps && random.below(40) == 0 {
            step_clock(env, &self.models, mix, random);
            return (Ok(()), false);
        }
        if random.below(80) == 0 {
            let end = self.shard.log.sequence_next();
            let done = self.shard.sync().await;
            return (done.map(|()| self.model.borrow_mut().acknowledge(end)), false);
        }
        if random.below(80) == 0 {
            let from = random.pick(&[None, Some(40), Some(300)]);
            self.shard.set_compression(mix.name(random).namespace, from);
            return (Ok(()), false);
        }
        let name = mix.name(random);
        if self.model.borrow().is_unreadable(&name) {
            return (Ok(()), false);
        }
        let operation = operation(&self.shard, (mix, phase), random, now(env), versions);
        let may_be_refused = match operation.as_operation() {
            Operation::Delete(delete) if !delete.invalidate && !delete.clear_value => {
                mix.takes_reserve
            }
            // A clear that is due comes first, whatever is asked for.
            operation => operation.may_write() || (mix.clears && mix.takes_reserve),
        };
        let goes_away = random.below(60) == 0;
        let doing = perform(env, &self.shard, &self.model, &name, &operation);
        let done = if goes_away {
            // What was not applied at once never is.
            let Some(done) = future::poll_once(pin!(doing)).await else {
                return (Ok(()), false);
            };
            done
        } else {
            doing.await
        };
        let done = done.map(|reply| {
            versions.push(reply.metadata.version);
            if versions.len() > 8 {
                versions.remove(0);
            }
        });
        (done, may_be_refused)
    }

    fn check_bounds(&self, began: u64) {
        if self.mix.faults || self.mix.is_crowded {
            return;
        }
        let elapsed = self.env.now() - began;
        assert!(elapsed <= STALL_NANOSECONDS_MAX, "an operation took {elapsed} ns");
        let tables = self.shard.journal.state().levels.first().map_or(0, Vec::len);
        assert!(tables <= LEVEL_ZERO_TABLES_MAX, "level 0 has {tables} tables");
    }
}

fn step_clock(env: &SimEnv, models: &[SharedModel], mix: &Mix, random: &mut Random) {
    let time = env.unix_seconds();
    let (back, forward) = if mix.clock_leaps { (40_000_000, 20_000_000) } else { (30, 15) };
    let time = match random.below(4) {
        0 => time.saturating_sub(random.below(back)).max(1_000_000_000),
        _ => (time + random.below(forward)).min(4_000_000_000),
    };
    for model in models {
        let mut model = model.borrow_mut();
        // What has expired by the time that ends here may be gone: merges and collections saw it.
        model.step_clock(env.unix_seconds() as u32, time as u32);
    }
    env.set_unix_seconds(time);
}
