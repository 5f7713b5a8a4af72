//! Requests that a shard carries out in tasks, and their ends.

use std::rc::Rc;
use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::operation::Outcome;
use larder_engine::shard::{Acknowledgement, Answer, AnswerBuf, BatchAnswer, OperationBuf};
use larder_runtime::core_env::CoreEnv;
use larder_runtime::env::TaskQueue;

use super::failures::FailureLog;
use super::log_need::{log_need, shard_log_need};
use super::observer::{Observed, Observer};
use super::shards::{Engine, Origin, STALE, Shards, darken, is_too_long, leaves_stale};
use crate::connection::After;
use crate::counters::{Counters, Kind};
use crate::latency::LatencySample;
use crate::namespaces::registry::{REGISTRY_SHARD, RegistryEntry};
use crate::request::{Answered, ItemRequest, NoAnswer, ShardAnswer, ShardRequest, ShardWork};

/// A request that had to wait, and its end.
pub(super) struct Completion {
    pub origin: Origin,
    pub shard: u16,
    /// The answer, and how far the log has to be acknowledged before it may leave.
    pub result: Result<(Done, u64), EngineError>,
    pub(super) how: Acknowledgement,
    /// What it was expected to need, in bytes.
    pub expected_bytes: usize,
    /// What it was expected to add to the log, in bytes.
    pub adds: usize,
    pub(super) kind: Kind,
    /// What those who watch are told of it.
    pub(super) observed: Option<Box<Observed>>,
    /// Whether it is measured how long it takes.
    pub(super) sample: Option<LatencySample>,
    /// How far the log has to be acknowledged before a failure may be told.
    pub(super) refused_needs: u64,
}

/// What came of a request that had to wait.
pub(super) enum Done {
    Item(AnswerBuf),
    Shard(ShardAnswer),
}

/// The end of clearing one shard for a core that asked.
pub(super) struct Clearing {
    pub core: usize,
    pub ask: u64,
    pub result: Result<(), EngineError>,
}

impl<C: CoreEnv> Shards<C> {
    /// Carries `request` out in a task; [`Shards::take_completions`] brings its end.
    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        request: &ItemRequest<'_>,
        expected_bytes: usize,
        (observed, sample): (Option<Box<Observed>>, Option<LatencySample>),
    ) {
        let now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
        let darkened = self.is_dark(shard, request, now).then(|| darken(request));
        let request = darkened.as_ref().unwrap_or(request);
        let engine = Rc::clone(&self.local(shard).engine);
        let completions = Rc::clone(&self.completions);
        let failures = Rc::clone(&self.failures);
        let ItemRequest { key, operation, kind, acknowledgement: how, replaces, .. } = *request;
        let adds = log_need(request).map_or(0, |need| need.adds);
        let too_long = is_too_long(&engine, request);
        let operation = if too_long { STALE } else { operation };
        let execution = engine.execute(&key, OperationBuf::new(&operation));
        // Its place is directly behind: who comes later is not deleted by it.
        let stale = replaces.then(|| engine.execute(&key, OperationBuf::new(&STALE)));
        self.env.spawn(TaskQueue::Foreground, async move {
            let mut result = execution.await;
            let mut refused_needs = 0;
            if let Some(stale) = stale
                && result.as_ref().is_err_and(leaves_stale)
            {
                match stale.await {
                    Ok((_, needs)) => {
                        engine.demand(needs, how);
                        refused_needs = needs;
                    }
                    Err(failure) => failures.note(shard, &failure),
                }
            }
            if let (true, Ok((answer, _))) = (too_long, &mut result) {
                let refused = Answer::nothing(Outcome::TooLarge, now);
                *answer = AnswerBuf::with_value(&refused, Vec::new());
            }
            let result = result.map(|(answer, needs)| (Done::Item(answer), needs));
            if let Ok((_, needs)) = &result {
                engine.demand(*needs, how);
            }
            completions.borrow_mut().push(Completion {
                origin,
                shard,
                result,
                how,
                expected_bytes,
                adds,
                kind,
                observed,
                sample,
                refused_needs,
            });
        });
    }

    /// As [`Shards::start`], for a request that is not about one item. Its answer may leave at once
    /// when it comes.
    pub(super) fn start_shard(
        &mut self,
        origin: Origin,
        request: Arc<ShardRequest>,
        expected_bytes: usize,
    ) {
        let shard = request.shard;
        let engine = Rc::clone(&self.local(shard).engine);
        let completions = Rc::clone(&self.completions);
        let now = self.env.now();
        let (queue, adds) = match shard_log_need(&request) {
            Some(need) => (TaskQueue::Foreground, need.adds),
            None => (TaskQueue::Scan, 0),
        };
        self.env.spawn(queue, async move {
            let answer = carry_out(&engine, &request, now).await;
            let result = answer.map(|answer| (Done::Shard(answer), 0));
            completions.borrow_mut().push(Completion {
                origin,
                shard,
                result,
                how: Acknowledgement::Configured,
                expected_bytes,
                adds,
                kind: Kind::Other,
                observed: None,
                sample: None,
                refused_needs: 0,
            });
        });
    }

    /// Clears every shard for a core that asked.
    pub(super) fn start_clearing(&mut self, core: usize, ask: u64, at: Option<u32>) {
        for local in self.local.iter_mut().flatten() {
            local.dark_second = at.unwrap_or(0);
        }
        for (shard, local) in self.numbered() {
            let engine = Rc::clone(&local.engine);
            let clearings = Rc::clone(&self.clearings);
            self.env.spawn(TaskQueue::Foreground, async move {
                let result = match engine.flush_all(at).await {
                    Ok(needs) => engine.wait_acknowledged(needs).await,
                    Err(error) => Err(error),
                };
                clearings.borrow_mut().push((shard, Clearing { core, ask, result }));
            });
        }
    }

    /// Deletes on every shard what a namespace has that nobody knows any more, for a core that
    /// asked. Shards know of the namespaces what [`Shards::set_namespaces`] has said.
    pub(super) fn start_dropping(&self, core: usize, ask: u64, namespace: u32) {
        for (shard, local) in self.numbered() {
            let engine = Rc::clone(&local.engine);
            let clearings = Rc::clone(&self.clearings);
            self.env.spawn(TaskQueue::Foreground, async move {
                let result = engine.drop_namespace(namespace).await;
                clearings.borrow_mut().push((shard, Clearing { core, ask, result }));
            });
        }
    }

    /// Writes down what has to outlast a stop, on the shard that keeps it. The end comes with
    /// [`Shards::take_registered`] when it is durable, whatever the durability mode.
    pub(super) fn start_registering(&self, entry: &RegistryEntry) {
        let engine = Rc::clone(&self.local(REGISTRY_SHARD).engine);
        let (batch, registered) = (entry.batch(), Rc::clone(&self.registered));
        self.env.spawn(TaskQueue::Foreground, async move {
            let result = match engine.execute_batch(batch).await {
                Ok((BatchAnswer::Done(_), _)) => engine.sync().await,
                Ok((refused, _)) => panic!("nothing is demanded of the registry: {refused:?}"),
                Err(error) => Err(error),
            };
            registered.borrow_mut().push(result);
        });
    }

    /// The ends of what was written down since the last call.
    pub(super) fn take_registered(&self) -> Vec<Result<(), EngineError>> {
        std::mem::take(&mut *self.registered.borrow_mut())
    }

    /// Moves the requests that ended since the last call to `into`.
    pub(super) fn take_completions(&self, into: &mut Vec<Completion>) {
        into.append(&mut self.completions.borrow_mut());
    }

    /// The shards that were cleared since the last call.
    pub(super) fn take_clearings(&self) -> Vec<Clearing> {
        let clearings = std::mem::take(&mut *self.clearings.borrow_mut());
        let noted = |(shard, clearing): (u16, Clearing)| {
            if let Err(failure) = &clearing.result {
                self.failures.note(shard, failure);
            }
            clearing
        };
        clearings.into_iter().map(noted).collect()
    }
}

impl Completion {
    /// The end of the request, and when it may be told.
    pub(super) fn settle<C: CoreEnv>(
        self,
        counters: &mut Counters,
        observer: &mut Observer<C>,
        failures: &FailureLog<C>,
    ) -> (Answered, After) {
        if let Some(observed) = self.observed {
            let result = self.result.as_ref().map(|(done, _)| match done {
                Done::Item(answer) => (answer.as_answer().outcome, answer.as_answer().value_len),
                Done::Shard(answer) => unreachable!("nothing is noted of {answer:?}"),
            });
            observer.ended(*observed, result, counters);
        }
        match self.result {
            Ok((Done::Item(answer), needs)) => {
                counters.count(self.kind, answer.as_answer().outcome);
                (Answered::Item(answer), After { shard: self.shard, needs, how: self.how })
            }
            Ok((Done::Shard(answer), needs)) => {
                (Answered::Shard(answer), After { shard: self.shard, needs, how: self.how })
            }
            Err(failure) => {
                failures.note(self.shard, &failure);
                counters.count_failure(self.kind, &failure);
                let after = After { shard: self.shard, needs: self.refused_needs, how: self.how };
                (Answered::Failed(NoAnswer::from(&failure)), after)
            }
        }
    }
}

/// Carries out what is not about one item, begun at `now`, and waits until it may be told.
async fn carry_out<C: CoreEnv>(
    engine: &Rc<Engine<C>>,
    request: &ShardRequest,
    now: u64,
) -> Result<ShardAnswer, EngineError> {
    // Half of the time is for the values and the way back.
    let ends = request.deadline.map(|deadline| now + deadline.saturating_sub(now) / 2);
    let (answer, needs) = match &request.work {
        ShardWork::Page(scan) => {
            let mut scan = scan.clone();
            scan.deadline = ends;
            let page = engine.scan(scan).await?;
            let needs = page.needs;
            (ShardAnswer::page(page), needs)
        }
        ShardWork::Keyed(keyed) => {
            let mut keyed = keyed.clone();
            keyed.limits.deadline = ends;
            let page = engine.keyed_items(keyed).await?;
            let needs = page.needs;
            (ShardAnswer::keyed(page), needs)
        }
        ShardWork::Batch(batch) => {
            let (answer, needs) = engine.execute_batch(batch.clone()).await?;
            (ShardAnswer::Batch(answer), needs)
        }
        ShardWork::DeleteRange(range, None) => {
            (ShardAnswer::Deleted, engine.delete_range(range).await?)
        }
        ShardWork::DeleteRange(range, Some(once)) => {
            let (answer, needs) = engine.delete_range_once(range, once).await?;
            (ShardAnswer::Batch(answer), needs)
        }
        ShardWork::Large(step) => {
            let (answer, needs) = engine.large(step).await?;
            (ShardAnswer::Large(answer), needs)
        }
        ShardWork::BeginLease(nanoseconds) => {
            let given = engine.lease(*nanoseconds, request.deadline).await?;
            (ShardAnswer::Leased(given), given.needs)
        }
        ShardWork::EndLease(lease) if engine.end_lease(*lease) => (ShardAnswer::LeaseEnded, 0),
        ShardWork::EndLease(_) => return Err(EngineError::LeaseEnded),
    };
    engine.wait_told(needs, request.acknowledgement).await?;
    Ok(answer)
}
