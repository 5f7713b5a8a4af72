//! A core's shards: requests in, answers out, whoever asked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use larder_engine::error::EngineError;
use larder_engine::key::{DEFAULT_NAMESPACE, Key};
use larder_engine::operation::{Delete, EXPIRED, Need, Operation, Outcome};
use larder_engine::shard::{Acknowledgement, Announced, Answer, Attempt, Shard};
use larder_runtime::core_env::CoreEnv;
use larder_runtime::file_cache::FileCache;

use super::failures::FailureLog;
use super::held_answers::HeldAnswer;
use super::observer::{Observed, Observer};
use super::shard_tasks::{Clearing, Completion};
use super::shares::Backlog;
use crate::connection::{After, ByteQueue, Release};
use crate::counters::{Counters, ShardReport, ShardSpace};
use crate::limits::{LOG_BUDGET_MAX, TASK_BYTES};
use crate::loads::{ShardLoads, fullest};
use crate::mesh::Place;
use crate::namespaces::NamespaceTable;
use crate::request::{ItemRequest, NoAnswer, Target};

/// One shard's engine, whose files are bounded in number.
pub type Engine<C> = Shard<FileCache<C>>;

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A connection of this core.
    Connection(Place),
    /// A connection of another core.
    Core { core: usize, place: Place },
}

pub(super) struct LocalShard<C: CoreEnv> {
    pub(super) engine: Rc<Engine<C>>,
    /// Answers in the order in which they came. Their positions need not be in order, but those
    /// that come later are rarely acknowledged earlier.
    pub(super) held: VecDeque<HeldAnswer>,
    pub(super) held_values: ByteQueue,
    pub(super) log_ends_seen: [u64; 3],
    pub(super) stopped: Option<String>,
    /// The Unix second in which all that is stored in the default namespace is gone at once,
    /// because a clear was asked for with a delay that ends in it; 0 for none. A start forgets it.
    pub(super) dark_second: u32,
}

/// Where it is noted what was asked and answered.
pub(super) struct Notes<'a, C> {
    pub counters: &'a mut Counters,
    pub observer: &'a mut Observer<C>,
    /// What of the request is to be noted when it has ended.
    pub observed: &'a mut Option<Box<Observed>>,
}

/// How an attempt to carry a request out at once ended.
pub(super) enum Tried {
    /// The answer was given.
    Done { after: After, is_error: bool },
    /// Nothing was done: it has to wait.
    Later,
}

/// The shards of one core.
pub(super) struct Shards<C: CoreEnv> {
    pub(super) env: C,
    /// By number; `None` for those of other cores.
    pub(super) local: Vec<Option<LocalShard<C>>>,
    pub(super) completions: Rc<RefCell<Vec<Completion>>>,
    pub(super) clearings: Rc<RefCell<Vec<(u16, Clearing)>>>,
    pub(super) registered: Rc<RefCell<Vec<Result<(), EngineError>>>>,
    pub(super) announced: Vec<(u16, Announced)>,
    pub(super) failures: Rc<FailureLog<C>>,
}

impl<C: CoreEnv> Shards<C> {
    pub(super) fn new(env: C, total: u16, engines: Vec<(u16, Rc<Engine<C>>)>) -> Self {
        let mut local: Vec<Option<LocalShard<C>>> = (0..total).map(|_| None).collect();
        for (number, engine) in engines {
            local[usize::from(number)] = Some(LocalShard {
                engine,
                held: VecDeque::new(),
                held_values: ByteQueue::default(),
                log_ends_seen: [0; 3],
                stopped: None,
                dark_second: 0,
            });
        }
        Self {
            failures: Rc::new(FailureLog::new(env.clone())),
            env,
            local,
            completions: Rc::default(),
            clearings: Rc::default(),
            registered: Rc::default(),
            announced: Vec::new(),
        }
    }

    /// Where requests on `key` go.
    #[inline]
    pub(super) fn target(&self, key: &Key<'_>) -> Target {
        let shard = crate::routing::shard_of(key.record, self.local.len() as u16);
        Target { shard, announced: None }
    }

    /// Starts bringing near what requests on `key` will touch, if `shard` is one of these.
    #[inline]
    pub(super) fn announce(&mut self, shard: u16, key: &Key<'_>) -> Option<Announced> {
        let announced = self.local[usize::from(shard)].as_ref()?.engine.announce(key);
        self.announced.push((shard, announced));
        Some(announced)
    }

    /// Goes on with what was announced.
    #[inline]
    pub(super) fn announced(&mut self) {
        for (shard, announced) in self.announced.drain(..) {
            if let Some(local) = &self.local[usize::from(shard)] {
                local.engine.bring_item(announced);
            }
        }
    }

    pub(super) fn local(&self, shard: u16) -> &LocalShard<C> {
        self.local[usize::from(shard)].as_ref().expect("the request was routed to this core")
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (u16, &LocalShard<C>)> {
        let numbered = self.local.iter().enumerate();
        numbered.filter_map(|(number, local)| Some((number as u16, local.as_ref()?)))
    }

    /// Carries `request` out if that needs no waiting; `put` gets the answer.
    #[inline]
    pub(super) fn try_execute(
        &mut self,
        target: Target,
        request: &ItemRequest<'_>,
        now: u32,
        notes: Notes<'_, C>,
        put: impl FnOnce(Result<&Answer<'_>, NoAnswer>),
    ) -> Tried {
        let Target { shard, announced } = target;
        let Notes { counters, observer, observed } = notes;
        let darkened;
        let request = if self.is_dark(shard, request, now) {
            darkened = darken(request);
            &darkened
        } else {
            request
        };
        let engine = &self.local(shard).engine;
        let mut put = Some(put);
        let mut put = |answer: Result<&Answer<'_>, NoAnswer>| {
            put.take().expect("there is one answer")(answer);
        };
        let ItemRequest { key, operation, kind, acknowledgement: how, .. } = request;
        let too_long = is_too_long(engine, request);
        let operation = if too_long { &STALE } else { operation };
        let attempt = engine.try_execute(key, announced, operation, now, |answer| {
            if too_long {
                put(Ok(&Answer::nothing(Outcome::TooLarge, now)));
                return (Outcome::TooLarge, 0);
            }
            put(Ok(answer));
            (answer.outcome, answer.value_len)
        });
        match attempt {
            Attempt::Done { value: (outcome, value_bytes), needs } => {
                counters.count(*kind, outcome);
                let after = demand(engine, (shard, needs), *how);
                if let Some(observed) = observed.take() {
                    observer.ended(*observed, Ok((outcome, value_bytes)), counters);
                }
                let is_error = outcome == Outcome::Large;
                Tried::Done { after, is_error }
            }
            Attempt::Later => Tried::Later,
            Attempt::Failed(failure) => {
                let mut after = After::NOTHING;
                if request.replaces && leaves_stale(&failure) {
                    match engine.try_execute(key, announced, &STALE, now, |_| ()) {
                        Attempt::Done { needs, .. } => {
                            after = demand(engine, (shard, needs), *how);
                        }
                        Attempt::Later => return Tried::Later,
                        Attempt::Failed(failure) => self.failures.note(shard, &failure),
                    }
                }
                self.failures.note(shard, &failure);
                counters.count_failure(*kind, &failure);
                if let Some(observed) = observed.take() {
                    observer.ended(*observed, Err(&failure), counters);
                }
                put(Err(NoAnswer::from(&failure)));
                Tried::Done { after, is_error: true }
            }
        }
    }

    /// Whether what `request` stores at Unix second `now` is gone at once: it is the second in
    /// which a delayed clear takes effect.
    #[inline]
    pub(super) fn is_dark(&self, shard: u16, request: &ItemRequest<'_>, now: u32) -> bool {
        self.local(shard).dark_second == now && request.key.namespace == DEFAULT_NAMESPACE
    }

    /// How many bytes `request` may be expected to need while a task carries it out: a value that
    /// is read from the device is there twice for a moment. `unknown` stands for a value whose
    /// length the index has to be read for.
    pub(super) fn expected_bytes(
        &self,
        shard: u16,
        request: &ItemRequest<'_>,
        now: u32,
        unknown: usize,
    ) -> usize {
        let ItemRequest { key, operation, .. } = request;
        let read = if operation.need() == Need::Value {
            self.local(shard).engine.value_bytes_known(key, now).unwrap_or(unknown)
        } else {
            0
        };
        TASK_BYTES + operation.value_len() + 2 * read
    }

    /// How long the value is that the answer to `request` brings, if it brings one and that is
    /// known without reading the index from the device.
    pub(super) fn reply_bytes_known(
        &self,
        shard: u16,
        request: &ItemRequest<'_>,
        now: u32,
    ) -> Option<usize> {
        let ItemRequest { key, operation, .. } = request;
        let is_read = matches!(operation, Operation::Read(_)) && operation.need() == Need::Value;
        let known = || self.local(shard).engine.value_bytes_known(key, now);
        is_read.then(known).flatten()
    }

    /// What the core's logs have to take.
    #[inline]
    pub(super) fn backlog(&self) -> Backlog {
        let mut sum = Backlog::default();
        for local in self.local.iter().flatten() {
            let (waiting, written) = local.engine.log_backlog();
            sum.waiting += waiting;
            sum.written += written;
        }
        sum
    }

    /// Says how loaded the shards are, where their core is loaded so much.
    pub(super) fn say_loads(&self, core_percent: u8, loads: &ShardLoads) {
        for (shard, local) in self.numbered() {
            let (waiting, _) = local.engine.log_backlog();
            loads.set(shard, core_percent.max(fullest([(waiting, LOG_BUDGET_MAX)])));
        }
    }

    /// Tells every shard which namespaces there are.
    pub(super) fn set_namespaces(&self, namespaces: &NamespaceTable) {
        for (_, local) in self.numbered() {
            local.engine.set_namespaces(namespaces.options(self.local.len() as u16));
        }
    }

    /// The value caches of all shards of the node have at most so many bytes together.
    pub(super) fn limit_values(&self, bytes: u64) {
        let share = bytes / self.local.len() as u64;
        for (_, local) in self.numbered() {
            local.engine.limit_value_cache(usize::try_from(share).unwrap_or(usize::MAX));
        }
    }

    /// Whether a shard takes no more writes.
    pub(super) fn has_stopped(&self, shard: u16) -> bool {
        self.local(shard).engine.stopped().is_some()
    }

    /// Whether a reply may leave.
    #[inline]
    pub(super) fn release(&self, after: After) -> Release {
        if after.needs == 0 {
            return Release::Now;
        }
        let local = self.local(after.shard);
        if local.engine.may_tell(after.needs, after.how) {
            return Release::Now;
        }
        if local.stopped.is_some() { Release::Never } else { Release::Later }
    }

    /// Looks at the logs: whether any has been acknowledged further or has stopped since the last
    /// call, and the shards that have stopped since.
    pub(super) fn observe(&mut self, stopped: &mut Vec<(u16, String)>) -> bool {
        let mut has_moved = false;
        for (number, local) in self.local.iter_mut().enumerate() {
            let Some(local) = local else { continue };
            let log_ends = local.engine.log_ends();
            has_moved |= log_ends != local.log_ends_seen;
            local.log_ends_seen = log_ends;
            if local.stopped.is_none()
                && let Some(reason) = local.engine.stopped()
            {
                has_moved = true;
                stopped.push((number as u16, reason.clone()));
                local.stopped = Some(reason);
            }
        }
        has_moved
    }

    pub(super) fn space(&self) -> Vec<ShardSpace> {
        let space = |(_, local): (u16, &LocalShard<C>)| ShardSpace {
            directory: local.engine.directory().to_path_buf(),
            report: local.engine.space_report(),
        };
        self.numbered().map(space).collect()
    }

    pub(super) fn reports(&self) -> Vec<ShardReport> {
        let report = |(shard, local): (u16, &LocalShard<C>)| ShardReport {
            shard,
            statistics: local.engine.statistics(),
            stopped: local.engine.stopped(),
        };
        self.numbered().map(report).collect()
    }
}

/// What is done where a value was to be replaced, and could not be: the old one is stale.
pub(super) const STALE: Operation<'static> = Operation::Delete(Delete {
    compare: None,
    invalidate: false,
    clear_value: false,
    expiry: None,
    version: None,
});

/// Whether `request` replaces an item by a value that is longer than its namespace allows.
#[inline]
pub(super) fn is_too_long<C: CoreEnv>(engine: &Engine<C>, request: &ItemRequest<'_>) -> bool {
    let len = request.operation.value_len();
    request.replaces && !engine.takes_value(request.key.namespace, len)
}

/// Whether it failed for want of room, so that what was to be replaced is stale.
pub(super) fn leaves_stale(failure: &EngineError) -> bool {
    matches!(
        failure,
        EngineError::Full
            | EngineError::OverQuota(_)
            | EngineError::RecordFull(_)
            | EngineError::RecordChanging(_)
    )
}

/// Asks the shard's log for what an answer needs that may leave as `how` says; returns when it may.
#[inline]
fn demand<C: CoreEnv>(
    engine: &Engine<C>,
    (shard, needs): (u16, u64),
    how: Acknowledgement,
) -> After {
    engine.demand(needs, how);
    After { shard, needs, how }
}

/// The same request, which stores nothing but what has expired.
#[cold]
pub(super) fn darken<'a>(request: &ItemRequest<'a>) -> ItemRequest<'a> {
    let mut request = *request;
    match &mut request.operation {
        Operation::Store(store) => {
            store.expiry = EXPIRED;
            store.vivify = store.vivify.map(|_| EXPIRED);
        }
        Operation::Read(read) => read.vivify = read.vivify.map(|_| EXPIRED),
        Operation::Arithmetic(arithmetic) => {
            arithmetic.vivify = arithmetic.vivify.map(|(initial, _)| (initial, EXPIRED));
        }
        // They make no item where there is none.
        Operation::Delete(_) | Operation::Exchange(_) => {}
    }
    request
}
