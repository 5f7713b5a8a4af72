//! What the connections of one core share: its shards, its lines to other cores, its limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;

use larder_protocol::memcached::reply;
use larder_protocol::memcached::{Limits, Request, ShutdownMode, error};
use larder_runtime::env::Env;
use larder_runtime::file_cache::FileCache;
use larder_runtime::ring_env::RingEnv;

use super::lanes::{Lanes, Room, charged};
use super::refused::Want;
use super::shards::{Completion, LogNeed, Origin, Shards, Tried, log_need};
use super::shares::{Part, Shares};
use crate::connection::{After, Asked, Handled, Handler, Load, Release};
use crate::control::Event;
use crate::counters::{CoreMemory, CoreReport, Counters, ShardSpace};
use crate::ledger::Ledger;
use crate::limits::{FORWARDED_MAX, FORWARDED_SHARE_SCARCE, REPLY_COVERED_BYTES};
use crate::memcached::command::{Command, flush_time};
use crate::memcached::statistics::{self, Facts, Section};
use crate::mesh::{Ask, Batch, Mesh, Note, ParkedRequest, Place};
use crate::routing::core_of;

/// A value whose length is not known before its index is read is expected to have this part of the
/// longest that there may be.
const UNKNOWN_VALUE_PART: usize = 4;

/// What all cores of a node are told alike.
#[derive(Debug)]
pub struct Shared {
    /// What `stats` shows.
    pub facts: Facts,
    /// The parser's limits.
    pub limits: Limits,
    /// Shards of the store.
    pub shards: u16,
    /// Connections of the whole node now.
    pub connections: AtomicUsize,
}

/// What an answer that is gathered from all cores is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Statistics(Section),
    Flush { noreply: bool },
}

struct Gather {
    place: Place,
    purpose: Purpose,
    remaining: usize,
    reports: Vec<CoreReport>,
    failure: Option<String>,
}

/// A reply for a connection of this core, from elsewhere.
pub(super) struct Arrived {
    pub place: Place,
    pub bytes: Vec<u8>,
    pub after: After,
    pub is_error: bool,
}

pub(super) struct CoreState {
    pub core: usize,
    pub env: RingEnv,
    files: FileCache<RingEnv>,
    pub shared: Arc<Shared>,
    pub counters: Counters,
    pub mesh: Mesh,
    pub shards: Shards,
    pub events: Sender<Event>,
    /// The time of this turn, in Unix seconds.
    pub now: u32,
    pub open_connections: usize,
    /// What the connections' requests wait for and hold.
    pub load: Load,
    /// What the connections hold of the core's memory.
    pub ledger: Ledger,
    /// Requests that tasks carry out, and what they are expected to need.
    pub(super) tasks: Load,
    /// What tasks are expected to add to the logs, in bytes.
    adding: usize,
    /// Who may append to the logs.
    pub(super) shares: Shares,
    /// What other cores' connections have under way here.
    pub lanes: Lanes<ParkedRequest>,
    /// By core, the batch whose requests are being carried out, and how many of them are.
    pub(super) inboxes: Vec<Option<(Box<Batch>, usize)>>,
    pub(super) room: Room,
    /// Empty buffers that are kept for input and for output, in bytes.
    pub spare_bytes: (usize, usize),
    pub buffer_shortages: u64,
    unknown_value_bytes: usize,
    /// Replies for connections that are to be told in this turn.
    pub arrived: Vec<Arrived>,
    gathers: HashMap<u64, Gather>,
    gather_next: u64,
    pub(super) scratch: Vec<u8>,
    /// What the request that was refused last waits for; nothing if its connection has others under
    /// way.
    pub(super) refused_want: Option<Want>,
}

impl CoreState {
    pub(super) fn new(
        core: usize,
        env: RingEnv,
        files: FileCache<RingEnv>,
        shared: Arc<Shared>,
        mesh: Mesh,
        shards: Shards,
        events: Sender<Event>,
    ) -> Self {
        let cores = mesh.cores();
        let share = shared.facts.memory_plan.cores.1;
        let ledger = Ledger::new(share.connections);
        let item_bytes = usize::try_from(shared.facts.item_bytes_max).unwrap_or(usize::MAX);
        Self {
            core,
            env,
            files,
            ledger,
            tasks: Load::default(),
            adding: 0,
            shares: Shares::default(),
            lanes: Lanes::new(cores),
            inboxes: (0..cores).map(|_| None).collect(),
            spare_bytes: (0, 0),
            buffer_shortages: 0,
            room: Room { expected_max: share.tasks, held_max: ledger.bound() / 2 },
            unknown_value_bytes: item_bytes / UNKNOWN_VALUE_PART,
            shared,
            counters: Counters::default(),
            mesh,
            shards,
            events,
            now: 0,
            open_connections: 0,
            load: Load::default(),
            arrived: Vec::new(),
            gathers: HashMap::new(),
            gather_next: 0,
            scratch: Vec::new(),
            refused_want: None,
        }
    }

    /// Reads the clock.
    pub(super) fn start_turn(&mut self) {
        self.now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
    }

    /// What tasks on this core need and what waits here for a client that reads.
    pub(super) fn under_way(&self) -> Load {
        let bytes = self.load.bytes + self.lanes.load().bytes;
        Load { bytes, ..self.tasks }
    }

    /// What a task for `command` is expected to need if it may start now, where requests of its own
    /// connection hold `own`.
    pub(super) fn admit(
        &mut self,
        shard: u16,
        command: &Command<'_>,
        own: Load,
    ) -> Result<usize, usize> {
        let unknown = self.unknown_value_bytes;
        let bytes = self.shards.expected_bytes(shard, command, self.now, unknown);
        let is_admitted = self.room.admits(self.under_way(), own, bytes);
        if is_admitted { Ok(bytes) } else { Err(bytes) }
    }

    /// Whether a connection with this part of the logs may append `need` to them now.
    pub(super) fn may_append(&self, part: Part, need: LogNeed) -> bool {
        let before_it = if need.adds > 0 { self.adding } else { 0 };
        self.shares.allows(part, self.shards.backlog().waiting + before_it, need.bytes)
    }

    /// How long the reply to `command` of this core's shard would be, if it is so long that it may
    /// not be made now. Without pressure any may, and nothing is looked up.
    #[inline]
    fn reply_to_refuse(&mut self, shard: u16, command: &Command<'_>) -> Option<usize> {
        if !self.ledger.is_pressed() {
            return None;
        }
        let bytes = self.shards.reply_bytes_known(shard, command, self.now)?;
        (!self.ledger.allows_reply(bytes)).then_some(bytes)
    }

    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        command: &Command<'_>,
        expected_bytes: usize,
    ) {
        self.tasks = self.tasks + Load { waiting: 1, expected_bytes, bytes: 0 };
        self.adding += log_need(command, self.now).map_or(0, |need| need.adds);
        self.shards.start(origin, shard, command, self.now, expected_bytes);
    }

    /// Whether a connection with nothing under way may have what it was refused.
    pub(super) fn can_give(&self, want: Want) -> bool {
        match want {
            Want::Task(bytes) => self.room.admits(self.under_way(), Load::default(), bytes),
            Want::Line(core) => self.mesh.has_room(core),
            Want::Log(part, need) => self.may_append(part, need),
            Want::Reply(bytes) => self.ledger.allows_reply(bytes),
        }
    }

    /// Refuses a request of a connection whose others hold `own`, for want of `want`.
    fn refuse(&mut self, own: Load, want: Want) -> Handled {
        self.counters.refused += 1;
        self.refused_want = (own == Load::default()).then_some(want);
        Handled::Refused
    }

    /// Whether a request with a value of so many bytes may be sent to another core.
    fn may_forward(&self, own: Load, bytes: usize) -> bool {
        if own == Load::default() {
            return true;
        }
        let is_scarce = self.load.waiting > FORWARDED_MAX / 2;
        let share = if is_scarce { FORWARDED_SHARE_SCARCE } else { FORWARDED_MAX };
        let fits = self.ledger.total() + bytes <= self.ledger.bound() / 2;
        self.load.waiting < FORWARDED_MAX && own.waiting < share && fits
    }

    /// Learns that a connection has got a reply of another core.
    #[inline]
    pub(super) fn passed(&mut self, core: usize, connection: u64, reply_bytes: usize) {
        let bytes = charged(reply_bytes);
        if bytes > 0 {
            self.mesh.send_credit(core, connection, bytes);
        }
    }

    /// Sends a reply to where its command came from, now or when it may leave.
    pub(super) fn deliver(&mut self, origin: Origin, bytes: &[u8], after: After, is_error: bool) {
        match self.shards.release(after) {
            Release::Now => self.send(origin, bytes, is_error),
            Release::Never => {
                let line = super::shards::stopped_line(bytes.len());
                self.credit_difference(origin, bytes.len(), line.len());
                self.send(origin, line, true);
            }
            Release::Later => self.shards.hold(origin, bytes, after, is_error),
        }
    }

    /// Takes back what was charged for a reply that another one replaces.
    fn credit_difference(&mut self, origin: Origin, before: usize, now: usize) {
        let bytes = charged(before).saturating_sub(charged(now));
        if let Origin::Core { core, place } = origin
            && bytes > 0
        {
            self.lanes.credit(core, place.connection, bytes);
        }
    }

    fn send(&mut self, origin: Origin, bytes: &[u8], is_error: bool) {
        match origin {
            Origin::Core { core, place } => self.mesh.send_reply(core, place, bytes, is_error),
            Origin::Ask { core, ask } => {
                let failure = || String::from_utf8_lossy(bytes).trim_end().to_owned();
                self.send_flushed(core, ask, if is_error { Err(failure()) } else { Ok(()) });
            }
            Origin::Connection(place) => {
                let bytes = bytes.to_vec();
                self.arrived.push(Arrived { place, bytes, after: After::NOTHING, is_error });
            }
        }
    }

    /// Takes the end of a command that had to wait.
    pub(super) fn completed(&mut self, completion: Completion) {
        let origin = completion.origin;
        let expected_bytes = completion.expected_bytes;
        let task = Load { waiting: 1, expected_bytes, bytes: 0 };
        if !matches!(origin, Origin::Ask { .. }) {
            self.tasks = self.tasks - task;
            self.adding -= completion.adds;
        }
        if let (Origin::Ask { core, ask }, Err(failure)) = (origin, &completion.result) {
            return self.send_flushed(core, ask, Err(failure.to_string()));
        }
        let (bytes, after, is_error) = completion.settle(&mut self.counters);
        if let Origin::Core { core, place } = origin {
            if !self.lanes.is_open(core, place.connection) {
                return;
            }
            self.lanes.change(core, place.connection, |load| load - task);
            self.lanes.charge(core, place.connection, bytes.len());
        }
        match origin {
            Origin::Connection(place) => {
                self.arrived.push(Arrived { place, bytes, after, is_error });
            }
            Origin::Core { core, place } if self.shards.release(after) == Release::Now => {
                self.mesh.send_own_reply(core, place, bytes, is_error);
            }
            _ => self.deliver(origin, &bytes, after, is_error),
        }
    }

    /// Sends the held replies that may leave now.
    pub(super) fn release_held(&mut self) {
        let (mesh, lanes, core) = (&mut self.mesh, &mut self.lanes, self.core);
        let mut flushed = Vec::new();
        self.shards.release_held(|released| match released.origin {
            Origin::Core { core, place } => {
                let bytes = charged(released.held_bytes) - charged(released.bytes.len());
                if bytes > 0 {
                    lanes.credit(core, place.connection, bytes);
                }
                mesh.send_reply(core, place, released.bytes, released.is_error);
            }
            Origin::Ask { core, ask } => flushed.push((core, ask, released.is_error)),
            Origin::Connection(place) => {
                panic!("core {core} holds a reply for its own connection {place:?}")
            }
        });
        for (core, ask, is_error) in flushed {
            let stopped = || Err(crate::memcached::answer::STOPPED.to_owned());
            self.send_flushed(core, ask, if is_error { stopped() } else { Ok(()) });
        }
    }

    fn send_flushed(&mut self, core: usize, ask: u64, result: Result<(), String>) {
        if core == self.core {
            self.gathered(ask, result.map(|()| None));
        } else {
            self.mesh.send_note(core, Note::Flushed(ask, result));
        }
    }

    fn memory(&self) -> CoreMemory {
        let connections = self.ledger.connections();
        CoreMemory {
            bound: self.ledger.bound(),
            input: connections.input + self.spare_bytes.0,
            output: self.ledger.output() + self.spare_bytes.1,
            waiting: connections.waiting,
            mailboxes: self.ledger.mailboxes(),
            receive_buffers: self.env.receive_buffer_bytes(),
            disk_buffers: self.env.disk_buffer_bytes(),
        }
    }

    /// The core in numbers.
    pub(super) fn report(&self) -> CoreReport {
        CoreReport {
            core: self.core,
            connections: self.open_connections,
            waiting: self.load.waiting,
            memory: self.memory(),
            buffer_shortages: self.buffer_shortages,
            counters: self.counters,
            shards: self.shards.reports(),
            disk: self.env.disk_counters(),
            files: self.files.counters(),
            turns: self.env.loop_counters(),
        }
    }

    /// What the bytes of the core's shards are for.
    pub(super) fn space(&self) -> Vec<ShardSpace> {
        self.shards.space()
    }

    pub(super) fn answer_ask(&mut self, core: usize, ask: u64, what: Ask) {
        if let Ask::Flush(at) = what {
            return self.shards.start_flush(core, ask, at);
        }
        if what == Ask::Reset {
            self.counters = Counters::default();
        }
        let report = self.report();
        if core == self.core {
            self.gathered(ask, Ok(Some(report)));
        } else {
            self.mesh.send_note(core, Note::Report(ask, Box::new(report)));
        }
    }

    fn start_gather(&mut self, place: Place, purpose: Purpose, what: Ask) {
        let ask = self.gather_next;
        self.gather_next += 1;
        let remaining = match what {
            Ask::Flush(_) => usize::from(self.shared.shards),
            Ask::Report | Ask::Reset => self.mesh.cores(),
        };
        let gather = Gather { place, purpose, remaining, reports: Vec::new(), failure: None };
        self.gathers.insert(ask, gather);
        for peer in self.mesh.peers().collect::<Vec<_>>() {
            self.mesh.send_note(peer, Note::Ask(ask, what));
        }
        self.answer_ask(self.core, ask, what);
    }

    /// Takes one of the answers that a gather waits for.
    pub(super) fn gathered(&mut self, ask: u64, answer: Result<Option<CoreReport>, String>) {
        let gather = self.gathers.get_mut(&ask).expect("a gather stays until its last answer");
        match answer {
            Ok(report) => gather.reports.extend(report),
            Err(failure) => gather.failure = Some(failure),
        }
        gather.remaining -= 1;
        if gather.remaining > 0 {
            return;
        }
        let mut gather = self.gathers.remove(&ask).expect("it was just looked at");
        gather.reports.sort_by_key(|report| report.core);
        let mut bytes = Vec::new();
        let is_error = gather.failure.is_some();
        match gather.purpose {
            Purpose::Statistics(section) => {
                let now = u64::from(self.now);
                statistics::put(&mut bytes, section, &self.shared.facts, &gather.reports, now);
            }
            Purpose::Flush { noreply: true } => {}
            Purpose::Flush { noreply: false } if is_error => {
                reply::line(&mut bytes, crate::memcached::answer::STOPPED);
            }
            Purpose::Flush { noreply: false } => bytes.extend_from_slice(reply::OK),
        }
        if let Some(failure) = &gather.failure {
            tracing::error!("flush_all failed: {failure}");
        }
        let (place, after) = (gather.place, After::NOTHING);
        self.arrived.push(Arrived { place, bytes, after, is_error });
    }

    fn flush_all(
        &mut self,
        delay: Option<i32>,
        noreply: bool,
        place: Place,
    ) -> Option<&'static str> {
        if !self.shared.facts.flush_enabled {
            return Some(if noreply { "" } else { error::FLUSH_NOT_ALLOWED });
        }
        self.counters.cmd_flush += 1;
        let at = flush_time(delay, self.now);
        self.start_gather(place, Purpose::Flush { noreply }, Ask::Flush(at));
        None
    }

    fn shutdown(&mut self, mode: ShutdownMode) -> &'static str {
        if !self.shared.facts.shutdown_enabled {
            return error::SHUTDOWN_NOT_ENABLED;
        }
        if mode == ShutdownMode::Unknown {
            return error::BAD_SHUTDOWN_MODE;
        }
        self.tell(Event::StopRequested("a client's shutdown command"));
        ""
    }

    /// Tells the supervisor; one that is gone needs to know nothing.
    pub(super) fn tell(&self, event: Event) {
        if let Err(unheard) = self.events.send(event) {
            tracing::debug!("nobody hears {:?}", unheard.0);
        }
    }
}

/// One connection's way to the core.
pub(super) struct Dispatch<'a> {
    pub state: &'a mut CoreState,
    pub connection: u64,
    /// What the connection has appended to the core's logs.
    pub part: &'a mut Part,
}

impl Handler for Dispatch<'_> {
    fn limits(&self) -> &Limits {
        &self.state.shared.limits
    }

    #[inline]
    fn announce(&mut self, command: &Command<'_>) {
        self.state.shards.announce(command);
    }

    #[inline]
    fn announced(&mut self) {
        self.state.shards.announced();
    }

    #[inline]
    fn command(&mut self, command: &Command<'_>, asked: Asked, out: &mut Vec<u8>) -> Handled {
        let state = &mut *self.state;
        let shard = state.shards.shard_of(command);
        let place = Place { connection: self.connection, sequence: asked.sequence };
        let core = core_of(shard, state.mesh.cores());
        let own = asked.load;
        if core == state.core {
            if let Some(bytes) = state.reply_to_refuse(shard, command) {
                return state.refuse(own, Want::Reply(bytes));
            }
            let need = log_need(command, state.now);
            if let Some(need) = need.filter(|need| !state.may_append(*self.part, *need)) {
                return state.refuse(own, Want::Log(*self.part, need));
            }
            let counters = &mut state.counters;
            let tried = state.shards.try_execute(shard, command, state.now, counters, out);
            let bytes = need.map_or(0, |need| need.bytes);
            if let Tried::Done { after, is_error } = tried {
                state.shares.note(self.part, bytes);
                return Handled::Done { after, is_error };
            }
            let expected_bytes = match state.admit(shard, command, own) {
                Ok(expected_bytes) => expected_bytes,
                Err(bytes) => return state.refuse(own, Want::Task(bytes)),
            };
            state.shares.note(self.part, bytes);
            state.start(Origin::Connection(place), shard, command, expected_bytes);
            return Handled::Waiting { expected_bytes };
        }
        let bytes = command.value_bytes();
        if !state.may_forward(own, bytes) || !state.mesh.send_request(core, place, shard, command) {
            return state.refuse(own, Want::Line(core));
        }
        state.counters.forwarded += 1;
        Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES + bytes }
    }

    fn node_request(&mut self, request: &Request<'_>, sequence: u64, out: &mut Vec<u8>) -> Handled {
        let place = Place { connection: self.connection, sequence };
        let state = &mut *self.state;
        let line = match request {
            Request::FlushAll { delay, noreply } => state.flush_all(*delay, *noreply, place),
            Request::Shutdown(mode) => Some(state.shutdown(*mode)),
            Request::Stats { arguments } => {
                let section = Section::from_arguments(arguments);
                let what = if section == Section::Reset { Ask::Reset } else { Ask::Report };
                state.start_gather(place, Purpose::Statistics(section), what);
                None
            }
            other => panic!("{other:?} is not for the whole node"),
        };
        let Some(line) = line else {
            return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
        };
        if !line.is_empty() {
            reply::line(out, line);
        }
        Handled::Done { after: After::NOTHING, is_error: false }
    }

    #[inline]
    fn release(&self, after: After) -> Release {
        self.state.shards.release(after)
    }

    fn passed(&mut self, core: usize, bytes: usize) {
        self.state.passed(core, self.connection, bytes);
    }
}
