//! A core's shards: requests in, answers out, whoever asked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::key::{DEFAULT_NAMESPACE, Key};
use larder_engine::operation::{Delete, EXPIRED, Need, Operation, Outcome};
use larder_engine::shard::{
    Acknowledgement, Announced, Answer, AnswerBuf, Attempt, BatchAnswer, OperationBuf, Shard,
};
use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::file_cache::FileCache;
use larder_runtime::ring_env::RingEnv;

use super::observer::{Observed, Observer};
use super::shares::Backlog;
use crate::connection::{After, ByteQueue, Release};
use crate::counters::{Counters, Kind, ShardReport, ShardSpace};
use crate::limits::{LOG_BUDGET_MAX, LOG_RECORD_BYTES, TASK_BYTES};
use crate::loads::{ShardLoads, fullest};
use crate::mesh::Place;
use crate::namespaces::NamespaceTable;
use crate::namespaces::registry::{REGISTRY_SHARD, RegistryEntry};
use crate::request::{
    Answered, ItemRequest, NoAnswer, ShardAnswer, ShardRequest, ShardWork, Target,
};

/// One shard's engine on the production runtime.
pub type Engine = Shard<FileCache<RingEnv>>;

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A connection of this core.
    Connection(Place),
    /// A connection of another core.
    Core { core: usize, place: Place },
}

/// A request that had to wait, and its end.
pub(super) struct Completion {
    pub origin: Origin,
    pub shard: u16,
    /// The answer, and how far the log has to be acknowledged before it may leave.
    pub result: Result<(Done, u64), EngineError>,
    how: Acknowledgement,
    /// What it was expected to need, in bytes.
    pub expected_bytes: usize,
    /// What it was expected to add to the log, in bytes.
    pub adds: usize,
    kind: Kind,
    /// What those who watch are told of it.
    observed: Option<Box<Observed>>,
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

/// An answer for another core that may not leave yet; its value stands in the shard's queue.
struct HeldAnswer {
    core: usize,
    place: Place,
    needs: u64,
    how: Acknowledgement,
    answer: Result<Answer<'static>, NoAnswer>,
    value_bytes: usize,
}

struct LocalShard {
    engine: Rc<Engine>,
    /// Answers in the order in which they came. Their positions need not be in order, but those
    /// that come later are rarely acknowledged earlier.
    held: VecDeque<HeldAnswer>,
    held_values: ByteQueue,
    log_ends_seen: [u64; 3],
    stopped: Option<String>,
    /// The Unix second in which all that is stored in the default namespace is gone at once,
    /// because a clear was asked for with a delay that ends in it; 0 for none. A start forgets it.
    dark_second: u32,
}

/// Where it is noted what was asked and answered.
pub(super) struct Notes<'a> {
    pub counters: &'a mut Counters,
    pub observer: &'a mut Observer,
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

/// An answer that may leave for the core that its request came from.
pub(super) struct Released<'a> {
    pub core: usize,
    pub place: Place,
    pub answer: Result<&'a Answer<'a>, NoAnswer>,
    /// How long the value was that was held; less is sent if it must never leave.
    pub held_bytes: usize,
}

/// The shards of one core.
pub(super) struct Shards {
    env: RingEnv,
    /// By number; `None` for those of other cores.
    local: Vec<Option<LocalShard>>,
    completions: Rc<RefCell<Vec<Completion>>>,
    clearings: Rc<RefCell<Vec<(u16, Clearing)>>>,
    registered: Rc<RefCell<Vec<Result<(), EngineError>>>>,
    announced: Vec<(u16, Announced)>,
}

impl Shards {
    pub(super) fn new(env: RingEnv, total: u16, engines: Vec<(u16, Rc<Engine>)>) -> Self {
        let mut local: Vec<Option<LocalShard>> = (0..total).map(|_| None).collect();
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

    fn local(&self, shard: u16) -> &LocalShard {
        self.local[usize::from(shard)].as_ref().expect("the request was routed to this core")
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, &LocalShard)> {
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
        notes: Notes<'_>,
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
        let attempt = engine.try_execute(key, announced, operation, now, |answer| {
            put(Ok(answer));
            (answer.outcome, answer.value_len)
        });
        match attempt {
            Attempt::Done { value: (outcome, value_bytes), needs } => {
                counters.count(*kind, outcome);
                engine.demand(needs, *how);
                if let Some(observed) = observed.take() {
                    observer.ended(*observed, Ok((outcome, value_bytes)), counters);
                }
                let is_error = outcome == Outcome::Large;
                Tried::Done { after: After { shard, needs, how: *how }, is_error }
            }
            Attempt::Later => Tried::Later,
            Attempt::Failed(failure) => {
                let mut after = After::NOTHING;
                if matches!(failure, EngineError::Full) && request.replaces {
                    let delete = Operation::Delete(Delete::default());
                    match engine.try_execute(key, announced, &delete, now, |_| ()) {
                        Attempt::Done { needs, .. } => after = After { shard, needs, how: *how },
                        Attempt::Later => return Tried::Later,
                        Attempt::Failed(failure) => note_failure(shard, &failure),
                    }
                }
                note_failure(shard, &failure);
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
    fn is_dark(&self, shard: u16, request: &ItemRequest<'_>, now: u32) -> bool {
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

    /// Carries `request` out in a task; [`Shards::take_completions`] brings its end.
    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        request: &ItemRequest<'_>,
        expected_bytes: usize,
        observed: Option<Box<Observed>>,
    ) {
        let now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
        let darkened = self.is_dark(shard, request, now).then(|| darken(request));
        let request = darkened.as_ref().unwrap_or(request);
        let engine = Rc::clone(&self.local(shard).engine);
        let completions = Rc::clone(&self.completions);
        let ItemRequest { key, operation, kind, acknowledgement: how, replaces, .. } = *request;
        let stale = replaces.then(|| (key.namespace, key.record.to_vec(), key.item.to_vec()));
        let adds = log_need(request).map_or(0, |need| need.adds);
        let execution = engine.execute(&key, OperationBuf::new(&operation));
        self.env.spawn(TaskQueue::Foreground, async move {
            let result = execution.await;
            if let (Err(EngineError::Full), Some((namespace, record, item))) = (&result, stale) {
                let key = Key { namespace, record: &record, item: &item };
                let delete = OperationBuf::new(&Operation::Delete(Delete::default()));
                if let Err(failure) = engine.execute(&key, delete).await {
                    note_failure(shard, &failure);
                }
            }
            let result = result.map(|(answer, needs)| (Done::Item(answer), needs));
            if let Ok((_, needs)) = &result {
                engine.demand(*needs, how);
            }
            let completion =
                Completion { origin, shard, result, how, expected_bytes, adds, kind, observed };
            completions.borrow_mut().push(completion);
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
            let (kind, how, observed) = (Kind::Other, Acknowledgement::Configured, None);
            let completion =
                Completion { origin, shard, result, how, expected_bytes, adds, kind, observed };
            completions.borrow_mut().push(completion);
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

    /// Tells every shard which namespaces there are.
    pub(super) fn set_namespaces(&self, namespaces: &NamespaceTable) {
        for (_, local) in self.numbered() {
            local.engine.set_namespaces(namespaces.options(self.local.len() as u16));
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
                note_failure(shard, failure);
            }
            clearing
        };
        clearings.into_iter().map(noted).collect()
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

    /// Holds an answer for another core until it may leave.
    pub(super) fn hold(
        &mut self,
        (core, place): (usize, Place),
        answer: Result<&Answer<'_>, NoAnswer>,
        after: After,
    ) {
        let local = self.local[usize::from(after.shard)].as_mut();
        let local = local.expect("answers are held where they come from");
        let value = answer.map_or(&[][..], |answer| answer.value);
        local.held_values.tail().extend_from_slice(value);
        local.held.push_back(HeldAnswer {
            core,
            place,
            needs: after.needs,
            how: after.how,
            answer: answer.map(Answer::without_value),
            value_bytes: value.len(),
        });
    }

    /// Hands out the held answers that may leave.
    pub(super) fn release_held(&mut self, mut deliver: impl FnMut(Released<'_>)) {
        for local in self.local.iter_mut().flatten() {
            if local.held.is_empty() {
                continue;
            }
            let is_stopped = local.stopped.is_some();
            while let Some(held) = local.held.front() {
                let is_acknowledged = local.engine.may_tell(held.needs, held.how);
                if !is_acknowledged && !is_stopped {
                    break;
                }
                let HeldAnswer { core, place, answer, value_bytes: held_bytes, .. } = *held;
                let value = local.held_values.front(held_bytes);
                let answer = answer.map(|answer| answer.with_value(value));
                let answer = if is_acknowledged { answer } else { Err(NoAnswer::Stopped) };
                let answer = answer.as_ref().map_err(|failure| *failure);
                deliver(Released { core, place, answer, held_bytes });
                local.held_values.consume(held_bytes);
                local.held.pop_front();
            }
        }
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

    /// Bytes of answers for other cores that may not leave yet.
    pub(super) fn held_bytes(&self) -> usize {
        let of_shard = |local: &LocalShard| {
            local.held_values.len() + local.held.len() * size_of::<HeldAnswer>()
        };
        self.local.iter().flatten().map(of_shard).sum()
    }

    pub(super) fn space(&self) -> Vec<ShardSpace> {
        let space = |(_, local): (u16, &LocalShard)| ShardSpace {
            directory: local.engine.directory().to_path_buf(),
            report: local.engine.space_report(),
        };
        self.numbered().map(space).collect()
    }

    pub(super) fn reports(&self) -> Vec<ShardReport> {
        let report = |(shard, local): (u16, &LocalShard)| ShardReport {
            shard,
            statistics: local.engine.statistics(),
            stopped: local.engine.stopped(),
        };
        self.numbered().map(report).collect()
    }
}

impl Completion {
    /// The end of the request, and when it may be told.
    pub(super) fn settle(
        self,
        counters: &mut Counters,
        observer: &mut Observer,
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
                note_failure(self.shard, &failure);
                counters.count_failure(self.kind, &failure);
                (Answered::Failed(NoAnswer::from(&failure)), After::NOTHING)
            }
        }
    }
}

/// The same request, which stores nothing but what has expired.
#[cold]
fn darken<'a>(request: &ItemRequest<'a>) -> ItemRequest<'a> {
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

/// Carries out what is not about one item, begun at `now`, and waits until it may be told.
async fn carry_out(
    engine: &Rc<Engine>,
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
        ShardWork::DeleteRange(range) => (ShardAnswer::Deleted, engine.delete_range(range).await?),
        ShardWork::Large(step) => {
            let (answer, needs) = engine.large(step).await?;
            (ShardAnswer::Large(answer), needs)
        }
    };
    engine.wait_told(needs, request.acknowledgement).await?;
    Ok(answer)
}

/// What a request may append to its shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogNeed {
    /// How much, in bytes, roughly.
    pub bytes: usize,
    /// How much of it adds to what the shard holds. What adds nothing, or makes room, does not wait
    /// for what does.
    pub adds: usize,
}

/// What `request` may append to the log; `None` if it only reads.
#[inline]
pub(super) fn log_need(request: &ItemRequest<'_>) -> Option<LogNeed> {
    let operation = &request.operation;
    let bytes = LOG_RECORD_BYTES + operation.value_len();
    let adds = if operation.adds() { bytes } else { 0 };
    operation.may_write().then_some(LogNeed { bytes, adds })
}

/// The same for a request that is not about one item.
pub(super) fn shard_log_need(request: &ShardRequest) -> Option<LogNeed> {
    let bytes = request.log_bytes()?;
    let adds = match &request.work {
        ShardWork::Batch(batch) if batch.adds() => bytes,
        ShardWork::Large(step) if step.adds() => bytes,
        ShardWork::Batch(_)
        | ShardWork::Large(_)
        | ShardWork::DeleteRange(_)
        | ShardWork::Page(_)
        | ShardWork::Keyed(_) => 0,
    };
    Some(LogNeed { bytes, adds })
}

fn note_failure(shard: u16, failure: &EngineError) {
    match failure {
        EngineError::Full => tracing::debug!(shard, "a write was refused: {failure}"),
        _ => tracing::error!(shard, "a request failed: {failure}"),
    }
}
