//! A core's shards: commands in, replies out, whoever asked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use larder_engine::error::EngineError;
use larder_engine::key::Key;
use larder_engine::operation::{Delete, Need, Operation, Outcome};
use larder_engine::shard::{Announced, Attempt, OperationBuf, Shard};
use larder_protocol::memcached::{KeyScratch, WireKey, error, reply};
use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::file_cache::FileCache;
use larder_runtime::ring_env::RingEnv;

use super::shares::Backlog;
use crate::connection::{After, ByteQueue, Release};
use crate::counters::{Counters, ShardReport, ShardSpace};
use crate::limits::{LOG_RECORD_BYTES, TASK_BYTES};
use crate::memcached::answer::{self, Tally};
use crate::memcached::command::{Command, Kind};
use crate::memcached::travel::describe;
use crate::mesh::Place;

/// One shard's engine on the production runtime.
pub type Engine = Shard<FileCache<RingEnv>>;

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A connection of this core.
    Connection(Place),
    /// A connection of another core.
    Core { core: usize, place: Place },
    /// A core that asked all shards to be flushed; its number for that.
    Ask { core: usize, ask: u64 },
}

/// A command that had to wait, and its end.
pub(super) struct Completion {
    pub origin: Origin,
    pub shard: u16,
    pub result: Result<Finished, EngineError>,
    /// What it was expected to need, in bytes.
    pub expected_bytes: usize,
    /// What it was expected to add to the log, in bytes.
    pub adds: usize,
    kind: Kind,
    on_error: OnError,
}

pub(super) struct Finished {
    pub bytes: Vec<u8>,
    outcome: Option<Outcome>,
    pub needs: u64,
}

/// What a client gets when its command fails.
#[derive(Clone, Copy)]
enum OnError {
    /// Nothing.
    Silence,
    /// The error's own line.
    Line,
    /// This line.
    Reply(&'static str),
}

impl OnError {
    fn of(command: &Command<'_>) -> Self {
        match command {
            _ if command.is_noreply() => Self::Silence,
            Command::Drop { reply, .. } => Self::Reply(reply),
            Command::Keyed(_) => Self::Line,
        }
    }

    fn put(self, out: &mut Vec<u8>, failure: &EngineError) {
        match self {
            Self::Silence => {}
            Self::Line => answer::put_error(out, false, failure),
            Self::Reply(line) => reply::line(out, line),
        }
    }
}

/// A reply for another core that may not leave yet.
struct HeldReply {
    origin: Origin,
    needs: u64,
    len: usize,
    is_error: bool,
}

struct LocalShard {
    engine: Rc<Engine>,
    /// Replies in the order in which they came. Their positions need not be in order, but those
    /// that come later are rarely acknowledged earlier.
    held: VecDeque<HeldReply>,
    held_bytes: ByteQueue,
    acknowledged_seen: u64,
    stopped: Option<String>,
}

/// How an attempt to carry a command out at once ended.
pub(super) enum Tried {
    /// The reply is appended.
    Done { after: After, is_error: bool },
    /// Nothing was done: it has to wait.
    Later,
}

/// A reply that may leave for where it came from.
pub(super) struct Released<'a> {
    pub origin: Origin,
    pub bytes: &'a [u8],
    /// How long the reply was that was held, which is another if it must never leave.
    pub held_bytes: usize,
    pub is_error: bool,
}

/// The shards of one core.
pub(super) struct Shards {
    env: RingEnv,
    /// By number; `None` for those of other cores.
    local: Vec<Option<LocalShard>>,
    completions: Rc<RefCell<Vec<Completion>>>,
    key_scratch: KeyScratch,
    announced: Vec<(u16, Announced)>,
}

impl Shards {
    pub(super) fn new(env: RingEnv, total: u16, engines: Vec<(u16, Rc<Engine>)>) -> Self {
        let mut local: Vec<Option<LocalShard>> = (0..total).map(|_| None).collect();
        for (number, engine) in engines {
            local[usize::from(number)] = Some(LocalShard {
                engine,
                held: VecDeque::new(),
                held_bytes: ByteQueue::default(),
                acknowledged_seen: 0,
                stopped: None,
            });
        }
        let key_scratch = KeyScratch::default();
        Self { env, local, completions: Rc::default(), key_scratch, announced: Vec::new() }
    }

    /// The shard that owns a command's key.
    #[inline]
    pub(super) fn shard_of(&mut self, command: &Command<'_>) -> u16 {
        let shards = self.local.len() as u16;
        crate::routing::shard_of(command.key(&mut self.key_scratch), shards)
    }

    /// Starts bringing near what `command` will touch, if its shard is one of these.
    #[inline]
    pub(super) fn announce(&mut self, command: &Command<'_>) {
        let shard = self.shard_of(command);
        if let Some(local) = &self.local[usize::from(shard)] {
            let key = command.key(&mut self.key_scratch);
            self.announced.push((shard, local.engine.announce(&Key::memcached(key))));
        }
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
        self.local[usize::from(shard)].as_ref().expect("the command was routed to this core")
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, &LocalShard)> {
        let numbered = self.local.iter().enumerate();
        numbered.filter_map(|(number, local)| Some((number as u16, local.as_ref()?)))
    }

    /// Carries `command` out if that needs no waiting, and appends the reply to `out`.
    #[inline]
    pub(super) fn try_execute(
        &mut self,
        shard: u16,
        command: &Command<'_>,
        now: u32,
        counters: &mut Counters,
        out: &mut Vec<u8>,
    ) -> Tried {
        let local = self.local[usize::from(shard)].as_ref();
        let local = local.expect("the command was routed to this core");
        let key = command.key(&mut self.key_scratch);
        let operation = command.operation(now);
        let attempt = local.engine.try_execute(&Key::memcached(key), &operation, now, |found| {
            answer::put(out, command, command.value_bytes(), found, now);
            found.outcome
        });
        match attempt {
            Attempt::Done { value: outcome, needs } => {
                count(counters, command.kind(), outcome);
                Tried::Done { after: After { shard, needs }, is_error: false }
            }
            Attempt::Later => Tried::Later,
            Attempt::Failed(EngineError::Full) if command.drops_old_item() => {
                counters.count_failure(command.kind(), &EngineError::Full);
                let key = key.to_vec();
                let drop = Command::Drop {
                    key: WireKey::plain(&key),
                    reply: error::OUT_OF_MEMORY_STORING,
                    is_suppressed: command.is_noreply(),
                };
                self.try_execute(shard, &drop, now, counters, out)
            }
            Attempt::Failed(failure) => {
                note_failure(shard, &failure);
                counters.count_failure(command.kind(), &failure);
                OnError::of(command).put(out, &failure);
                Tried::Done { after: After::NOTHING, is_error: true }
            }
        }
    }

    /// How many bytes `command` may be expected to need while a task carries it out: a value that
    /// is read from the device is there twice for a moment. `unknown` stands for a value whose
    /// length the index has to be read for.
    pub(super) fn expected_bytes(
        &mut self,
        shard: u16,
        command: &Command<'_>,
        now: u32,
        unknown: usize,
    ) -> usize {
        let operation = command.operation(now);
        let given = match &operation {
            Operation::Store(store) => store.value.len(),
            Operation::Read(_) | Operation::Delete(_) | Operation::Arithmetic(_) => 0,
        };
        let read = if operation.need() == Need::Value {
            let key = command.key(&mut self.key_scratch);
            let engine = &self.local[usize::from(shard)].as_ref().expect("it is local").engine;
            engine.value_bytes_known(&Key::memcached(key), now).unwrap_or(unknown)
        } else {
            0
        };
        TASK_BYTES + given + 2 * read
    }

    /// How long the value is that the reply to `command` brings, if it brings one and that is known
    /// without reading the index from the device.
    pub(super) fn reply_bytes_known(
        &mut self,
        shard: u16,
        command: &Command<'_>,
        now: u32,
    ) -> Option<usize> {
        let operation = command.operation(now);
        let is_read = matches!(operation, Operation::Read(_)) && operation.need() == Need::Value;
        let key = command.key(&mut self.key_scratch);
        let engine = &self.local[usize::from(shard)].as_ref().expect("it is local").engine;
        is_read.then(|| engine.value_bytes_known(&Key::memcached(key), now)).flatten()
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

    /// Carries `command` out in a task; [`Shards::take_completions`] brings its end.
    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        command: &Command<'_>,
        now: u32,
        expected_bytes: usize,
    ) {
        let engine = Rc::clone(&self.local(shard).engine);
        let completions = Rc::clone(&self.completions);
        let key = command.key(&mut self.key_scratch);
        let (kind, on_error) = (command.kind(), OnError::of(command));
        let stale_key = command.drops_old_item().then(|| key.to_vec());
        let mut bytes = Vec::new();
        let description = describe(command, false, &mut bytes);
        let value_bytes = command.value_bytes();
        let respond = move |found: &larder_engine::shard::Answer<'_>| {
            let mut out = Vec::new();
            let command = description.command(&bytes);
            answer::put(&mut out, &command, value_bytes, found, now);
            (out, found.outcome)
        };
        let adds = log_need(command, now).map_or(0, |need| need.adds);
        let operation = OperationBuf::new(&command.operation(now));
        let execution = engine.execute(&Key::memcached(key), operation, respond);
        self.env.spawn(TaskQueue::Foreground, async move {
            let result = execution.await;
            if let (Err(EngineError::Full), Some(key)) = (&result, stale_key) {
                let delete = OperationBuf::new(&Operation::Delete(Delete::default()));
                let deleted = engine.execute(&Key::memcached(&key), delete, |_| ()).await;
                if let Err(failure) = deleted {
                    note_failure(shard, &failure);
                }
            }
            let result = result.map(|((bytes, outcome), needs)| Finished {
                bytes,
                outcome: Some(outcome),
                needs,
            });
            let completion =
                Completion { origin, shard, result, expected_bytes, adds, kind, on_error };
            completions.borrow_mut().push(completion);
        });
    }

    /// Flushes every shard for a core that asked.
    pub(super) fn start_flush(&self, core: usize, ask: u64, at: Option<u32>) {
        for (shard, local) in self.numbered() {
            let engine = Rc::clone(&local.engine);
            let completions = Rc::clone(&self.completions);
            self.env.spawn(TaskQueue::Foreground, async move {
                let result = engine.flush_all(at).await;
                let result =
                    result.map(|needs| Finished { bytes: Vec::new(), outcome: None, needs });
                completions.borrow_mut().push(Completion {
                    origin: Origin::Ask { core, ask },
                    shard,
                    result,
                    expected_bytes: 0,
                    adds: 0,
                    kind: Kind::Other,
                    on_error: OnError::Silence,
                });
            });
        }
    }

    /// Moves the commands that ended since the last call to `into`.
    pub(super) fn take_completions(&self, into: &mut Vec<Completion>) {
        into.append(&mut self.completions.borrow_mut());
    }

    /// Whether a reply may leave.
    #[inline]
    pub(super) fn release(&self, after: After) -> Release {
        if after.needs == 0 {
            return Release::Now;
        }
        let local = self.local(after.shard);
        if after.needs <= local.engine.acknowledged_end() {
            return Release::Now;
        }
        if local.stopped.is_some() { Release::Never } else { Release::Later }
    }

    /// Holds a reply for elsewhere until it may leave.
    pub(super) fn hold(&mut self, origin: Origin, bytes: &[u8], after: After, is_error: bool) {
        let local = self.local[usize::from(after.shard)].as_mut();
        let local = local.expect("replies are held where they come from");
        local.held_bytes.tail().extend_from_slice(bytes);
        let len = bytes.len();
        local.held.push_back(HeldReply { origin, needs: after.needs, len, is_error });
    }

    /// Hands out the held replies that may leave.
    pub(super) fn release_held(&mut self, mut deliver: impl FnMut(Released<'_>)) {
        for local in self.local.iter_mut().flatten() {
            if local.held.is_empty() {
                continue;
            }
            let acknowledged = local.engine.acknowledged_end();
            let is_stopped = local.stopped.is_some();
            while let Some(reply) = local.held.front() {
                let is_acknowledged = reply.needs <= acknowledged;
                if !is_acknowledged && !is_stopped {
                    break;
                }
                let HeldReply { origin, len, is_error, .. } = *reply;
                let bytes = local.held_bytes.front(len);
                if is_acknowledged {
                    deliver(Released { origin, bytes, held_bytes: len, is_error });
                } else {
                    let bytes = stopped_line(len);
                    deliver(Released { origin, bytes, held_bytes: len, is_error: true });
                }
                local.held_bytes.consume(len);
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
            let acknowledged = local.engine.acknowledged_end();
            has_moved |= acknowledged != local.acknowledged_seen;
            local.acknowledged_seen = acknowledged;
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

    /// Bytes of replies for other cores that may not leave yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.local.iter().flatten().map(|local| local.held_bytes.len()).sum()
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

/// What a client gets in the place of a reply of `len` bytes that must not leave.
pub(super) fn stopped_line(len: usize) -> &'static [u8] {
    const LINE: &[u8] = b"SERVER_ERROR the shard has stopped taking writes\r\n";
    if len == 0 { b"" } else { LINE }
}

impl Completion {
    /// The reply, when it may leave, and whether it is an error.
    pub(super) fn settle(self, counters: &mut Counters) -> (Vec<u8>, After, bool) {
        match self.result {
            Ok(finished) => {
                if let Some(outcome) = finished.outcome {
                    count(counters, self.kind, outcome);
                }
                (finished.bytes, After { shard: self.shard, needs: finished.needs }, false)
            }
            Err(failure) => {
                note_failure(self.shard, &failure);
                counters.count_failure(self.kind, &failure);
                let mut bytes = Vec::new();
                self.on_error.put(&mut bytes, &failure);
                (bytes, After::NOTHING, true)
            }
        }
    }
}

/// What a command may append to its shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogNeed {
    /// How much, in bytes, roughly.
    pub bytes: usize,
    /// How much of it adds to what the shard holds. What adds nothing, or makes room, does not wait
    /// for what does.
    pub adds: usize,
}

/// What `command` may append to the log; `None` if it only reads.
#[inline]
pub(super) fn log_need(command: &Command<'_>, now: u32) -> Option<LogNeed> {
    let operation = command.operation(now);
    let bytes = LOG_RECORD_BYTES + command.value_bytes();
    match operation {
        Operation::Store(_) | Operation::Arithmetic(_) => Some(LogNeed { bytes, adds: bytes }),
        Operation::Read(_) | Operation::Delete(_) => {
            operation.may_write().then_some(LogNeed { bytes, adds: 0 })
        }
    }
}

#[inline]
fn count(counters: &mut Counters, kind: Kind, outcome: Outcome) {
    counters.count(kind, Tally::from(outcome));
    counters.store_too_large += u64::from(outcome == Outcome::TooLarge);
}

fn note_failure(shard: u16, failure: &EngineError) {
    match failure {
        EngineError::Full => tracing::debug!(shard, "a write was refused: {failure}"),
        _ => tracing::error!(shard, "a command failed: {failure}"),
    }
}
