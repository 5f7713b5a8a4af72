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

use super::shards::{Completion, Origin, Shards, Tried};
use crate::connection::{After, Handled, Handler, Load, Release};
use crate::control::Event;
use crate::counters::{CoreReport, Counters};
use crate::limits::{CORE_WAITING_BYTES_MAX, CORE_WAITING_REQUESTS_MAX, WAITING_BYTES_ESTIMATE};
use crate::memcached::command::{Command, Kind, flush_time};
use crate::memcached::statistics::{self, Facts, Section};
use crate::mesh::{Ask, Batch, Mesh, Note, Place};
use crate::routing::core_of;

/// The expectation of a waiting request's bytes never falls below this.
const ESTIMATE_MIN: usize = 256;
/// It falls by this part with every reply that is smaller.
const ESTIMATE_DECAY: usize = 64;

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
    /// Replies for connections that are to be told in this turn.
    pub arrived: Vec<Arrived>,
    estimate: usize,
    gathers: HashMap<u64, Gather>,
    gather_next: u64,
    scratch: Vec<u8>,
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
        Self {
            core,
            env,
            files,
            shared,
            counters: Counters::default(),
            mesh,
            shards,
            events,
            now: 0,
            open_connections: 0,
            load: Load::default(),
            arrived: Vec::new(),
            estimate: WAITING_BYTES_ESTIMATE,
            gathers: HashMap::new(),
            gather_next: 0,
            scratch: Vec::new(),
        }
    }

    /// Reads the clock.
    pub(super) fn start_turn(&mut self) {
        self.now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
    }

    /// Whether one more request may wait.
    pub(super) fn has_room(&self) -> bool {
        self.load.waiting < CORE_WAITING_REQUESTS_MAX
            && self.load.bytes + self.load.expected_bytes < CORE_WAITING_BYTES_MAX
    }

    /// Learns from a reply that had to wait.
    pub(super) fn note_reply_bytes(&mut self, bytes: usize) {
        let decayed = self.estimate - self.estimate / ESTIMATE_DECAY;
        self.estimate = bytes.max(decayed).max(ESTIMATE_MIN);
    }

    /// Carries out the commands of another core's batch, and takes its replies and notes in.
    pub(super) fn take_batch(&mut self, core: usize, batch: &mut Batch) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for request in &batch.requests {
            let (shard, command) = (request.shard, batch.command(request));
            let origin = Origin::Core { core, place: request.place };
            let counters = &mut self.counters;
            scratch.clear();
            match self.shards.try_execute(shard, &command, self.now, counters, &mut scratch) {
                Tried::Done { after, is_error } => {
                    self.deliver(origin, &scratch, after, is_error);
                }
                Tried::Later => self.shards.start(origin, shard, &command, self.now),
            }
        }
        self.scratch = scratch;
        if self.scratch.capacity() > crate::limits::BATCH_KEPT_BYTES_MAX {
            self.scratch = Vec::new();
        }
        for note in batch.notes.drain(..) {
            match note {
                Note::Ask(ask, what) => self.answer_ask(core, ask, what),
                Note::Report(ask, report) => self.gathered(ask, Ok(Some(*report))),
                Note::Flushed(ask, result) => self.gathered(ask, result.map(|()| None)),
            }
        }
    }

    /// Sends a reply to where its command came from, now or when it may leave.
    fn deliver(&mut self, origin: Origin, bytes: &[u8], after: After, is_error: bool) {
        match self.shards.release(after) {
            Release::Now => self.send(origin, bytes, is_error),
            Release::Never => {
                self.send(origin, super::shards::stopped_line(bytes.len()), true);
            }
            Release::Later => self.shards.hold(origin, bytes, after, is_error),
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
        if let (Origin::Ask { core, ask }, Err(failure)) = (origin, &completion.result) {
            return self.send_flushed(core, ask, Err(failure.to_string()));
        }
        let (bytes, after, is_error) = completion.settle(&mut self.counters);
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
        let (mesh, core) = (&mut self.mesh, self.core);
        let mut flushed = Vec::new();
        self.shards.release_held(|released| match released.origin {
            Origin::Core { core, place } => {
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

    /// The core in numbers.
    pub(super) fn report(&self) -> CoreReport {
        CoreReport {
            core: self.core,
            connections: self.open_connections,
            waiting: self.load.waiting,
            counters: self.counters,
            shards: self.shards.reports(),
            disk: self.env.disk_counters(),
            files: self.files.counters(),
            turns: self.env.loop_counters(),
        }
    }

    fn answer_ask(&mut self, core: usize, ask: u64, what: Ask) {
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
    fn gathered(&mut self, ask: u64, answer: Result<Option<CoreReport>, String>) {
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
    fn command(&mut self, command: &Command<'_>, sequence: u64, out: &mut Vec<u8>) -> Handled {
        let state = &mut *self.state;
        let shard = state.shards.shard_of(command);
        let place = Place { connection: self.connection, sequence };
        let core = core_of(shard, state.mesh.cores());
        if core == state.core {
            let counters = &mut state.counters;
            let tried = state.shards.try_execute(shard, command, state.now, counters, out);
            if let Tried::Done { after, is_error } = tried {
                return Handled::Done { after, is_error };
            }
        }
        if !state.has_room() {
            return Handled::Refused;
        }
        if core == state.core {
            state.shards.start(Origin::Connection(place), shard, command, state.now);
        } else {
            if !state.mesh.send_request(core, place, shard, command) {
                return Handled::Refused;
            }
            state.counters.forwarded += 1;
        }
        let is_read = matches!(command.kind(), Kind::Get { .. });
        let expected_bytes = if is_read { state.estimate } else { ESTIMATE_MIN };
        Handled::Waiting { expected_bytes }
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
            return Handled::Waiting { expected_bytes: ESTIMATE_MIN };
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
}
