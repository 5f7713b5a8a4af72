//! What the connections of one core share: its shards, its lines to other cores, its limits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use larder_engine::key::Key;
use larder_engine::shard::{Answer, AnswerBuf};
use larder_runtime::core_env::{CoreEnv, CoreFigures};
use larder_runtime::file_cache::FileCache;

use super::lanes::{Lanes, Room, charged};
use super::observer::{Observed, Observer};
use super::refused::Want;
use super::shards::{
    Clearing, Completion, LogNeed, Notes, Origin, Released, Shards, Tried, log_need, shard_log_need,
};
use super::shares::{Part, Shares};
use crate::connection::{After, Arrival, Asked, Handled, Handler, Load, Release};
use crate::control::Event;
use crate::counters::{ConnectionState, CoreMemory, CoreReport, Counters, ShardSpace};
use crate::events::{EventKinds, NodeEvent, Numbering};
use crate::facts::Facts;
use crate::ledger::Ledger;
use crate::limits::{
    FORWARDED_MAX, FORWARDED_SHARE_SCARCE, REPLY_COVERED_BYTES, TASK_BYTES, TASKS_MAX,
};
use crate::loads::fullest;
use crate::mesh::{Ask, Batch, Mesh, Note, ParkedRequest, Place, Told};
use crate::namespaces::NamespaceView;
use crate::namespaces::registrar::Registrar;
use crate::namespaces::registry::Registry;
use crate::prefixes::PrefixCounts;
use crate::request::{
    Answered, ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardRequest, Target,
};
use crate::routing::core_of;

/// A value whose length is not known before its index is read is expected to have this part of the
/// longest that there may be.
const UNKNOWN_VALUE_PART: usize = 4;

/// What all cores of a node are told alike.
#[derive(Debug)]
pub struct Shared {
    /// What the node was told.
    pub facts: Arc<Facts>,
    /// Shards of the store.
    pub shards: u16,
    /// Connections of the whole node now.
    pub connections: AtomicUsize,
    /// Events that somebody has watched.
    pub events: AtomicU64,
}

impl Shared {
    /// The number of the next event.
    pub(super) fn next_event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A connection that watches what happens.
#[derive(Debug)]
pub(super) struct Watcher {
    pub connection: u64,
    pub kinds: EventKinds,
    /// Events that it was not told of since the last one that it was.
    pub skipped: u64,
}

/// Who waits for what all cores say.
#[derive(Clone, Copy, Debug)]
pub(super) enum GatherFor {
    /// A connection of this core.
    Connection(Place),
    /// The registrar of namespaces.
    Registrar,
}

/// An answer that is gathered from all cores.
struct Gather {
    whose: GatherFor,
    what: Ask,
    remaining: usize,
    told: Vec<Told>,
    failure: Option<String>,
}

pub(super) struct CoreState<C: CoreEnv> {
    pub core: usize,
    pub env: C,
    files: FileCache<C>,
    pub shared: Arc<Shared>,
    pub counters: Counters,
    pub(super) observer: Observer<C>,
    /// Connections of this core that watch what happens.
    pub(super) watchers: Vec<Watcher>,
    /// What they are to be told in this turn, and how much more there was.
    pub(super) heard: (Vec<NodeEvent>, u64),
    pub(super) numbering: Numbering,
    /// Cores that have asked for the connections, and the numbers of their questions.
    pub(super) listings: Vec<(usize, u64)>,
    pub mesh: Mesh<C::Waker>,
    pub shards: Shards<C>,
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
    /// Answers for connections that are to be told in this turn.
    pub arrived: Vec<(Place, Arrival)>,
    gathers: HashMap<u64, Gather>,
    gather_next: u64,
    /// Which namespaces there are.
    pub(super) namespaces: NamespaceView,
    /// Who changes them, on the core that does.
    pub(super) registrar: Option<Registrar<(usize, Place)>>,
    pub(super) scratch: Vec<u8>,
    /// What the request that was refused last waits for; nothing if its connection has others under
    /// way.
    pub(super) refused_want: Option<Want>,
}

/// What a core's state is made of.
pub(super) struct Parts<C: CoreEnv> {
    pub core: usize,
    pub env: C,
    pub files: FileCache<C>,
    pub shared: Arc<Shared>,
    pub mesh: Mesh<C::Waker>,
    pub shards: Shards<C>,
    pub events: Sender<Event>,
    /// How many listeners a core has.
    pub listeners: usize,
    pub namespaces: NamespaceView,
    pub registry: Option<Registry>,
}

impl<C: CoreEnv> CoreState<C> {
    pub(super) fn new(parts: Parts<C>) -> Self {
        let Parts { core, env, files, shared, mesh, shards, events, listeners, .. } = parts;
        let Parts { namespaces, registry, .. } = parts;
        let cores = mesh.cores();
        let observer = Observer::new(env.clone(), Arc::clone(&shared), cores);
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
            observer,
            watchers: Vec::new(),
            heard: (Vec::new(), 0),
            numbering: Numbering { cores, listeners },
            listings: Vec::new(),
            mesh,
            shards,
            events,
            now: 0,
            open_connections: 0,
            load: Load::default(),
            arrived: Vec::new(),
            gathers: HashMap::new(),
            gather_next: 0,
            namespaces,
            registrar: registry.map(Registrar::new),
            scratch: Vec::new(),
            refused_want: None,
        }
    }

    /// Reads the clock.
    pub(super) fn start_turn(&mut self) {
        self.now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
    }

    /// Says how loaded the core's shards are, by what makes requests wait: tasks, what clients hold
    /// of the memory, and what the log has to take.
    pub(super) fn say_loads(&self) {
        let tasks = (self.tasks.waiting, TASKS_MAX);
        let memory = (self.ledger.total(), self.ledger.bound());
        self.shards.say_loads(fullest([tasks, memory]), &self.shared.facts.loads);
    }

    /// What tasks on this core need and what waits here for a client that reads.
    pub(super) fn under_way(&self) -> Load {
        let bytes = self.load.bytes + self.lanes.load().bytes;
        Load { bytes, ..self.tasks }
    }

    /// What a task for `request` is expected to need if it may start now, where requests of its own
    /// connection hold `own`.
    pub(super) fn admit(
        &mut self,
        shard: u16,
        request: &ItemRequest<'_>,
        own: Load,
    ) -> Result<usize, usize> {
        let unknown = self.unknown_value_bytes;
        let bytes = self.shards.expected_bytes(shard, request, self.now, unknown);
        let is_admitted = self.room.admits(self.under_way(), own, bytes);
        if is_admitted { Ok(bytes) } else { Err(bytes) }
    }

    /// As [`CoreState::admit`], for a request that is not about one item: its answer is there twice
    /// while it is encoded.
    pub(super) fn admit_shard(
        &mut self,
        request: &ShardRequest,
        own: Load,
    ) -> Result<usize, usize> {
        let bytes = TASK_BYTES + 2 * request.reply_bytes(self.unknown_value_bytes);
        let is_admitted = self.room.admits(self.under_way(), own, bytes);
        if is_admitted { Ok(bytes) } else { Err(bytes) }
    }

    /// Whether nobody waits any more for the answer to a request with this deadline; then it is not
    /// begun.
    #[inline]
    pub(super) fn is_too_late(&mut self, deadline: Option<u64>) -> bool {
        let is_late = deadline.is_some_and(|deadline| self.env.now() > deadline);
        self.counters.too_late += u64::from(is_late);
        is_late
    }

    /// Whether a connection with this part of the logs may append `need` to them now.
    pub(super) fn may_append(&self, part: Part, need: LogNeed) -> bool {
        let before_it = if need.adds > 0 { self.adding } else { 0 };
        self.shares.allows(part, self.shards.backlog().waiting + before_it, need.bytes)
    }

    /// How long the reply to `request` of this core's shard would be, if it is so long that it may
    /// not be made now. Without pressure any may, and nothing is looked up.
    #[inline]
    fn reply_to_refuse(&self, shard: u16, request: &ItemRequest<'_>) -> Option<usize> {
        if !self.ledger.is_pressed() {
            return None;
        }
        let bytes = self.shards.reply_bytes_known(shard, request, self.now)?;
        (!self.ledger.allows_reply(bytes)).then_some(bytes)
    }

    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        request: &ItemRequest<'_>,
        expected_bytes: usize,
        observed: Option<Box<Observed>>,
    ) {
        self.tasks = self.tasks + Load { waiting: 1, expected_bytes, bytes: 0 };
        self.adding += log_need(request).map_or(0, |need| need.adds);
        self.shards.start(origin, shard, request, expected_bytes, observed);
    }

    pub(super) fn start_shard(
        &mut self,
        origin: Origin,
        request: Arc<ShardRequest>,
        expected_bytes: usize,
    ) {
        self.tasks = self.tasks + Load { waiting: 1, expected_bytes, bytes: 0 };
        self.adding += shard_log_need(&request).map_or(0, |need| need.adds);
        self.shards.start_shard(origin, request, expected_bytes);
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
    pub(super) fn passed(&mut self, core: usize, connection: u64, value_bytes: usize) {
        let bytes = charged(value_bytes);
        if bytes > 0 {
            self.mesh.send_credit(core, connection, bytes);
        }
    }

    /// Sends an answer to the core that its request came from, now or when it may leave.
    pub(super) fn deliver(
        &mut self,
        (core, place): (usize, Place),
        answer: Result<&Answer<'_>, NoAnswer>,
        after: After,
    ) {
        match self.shards.release(after) {
            Release::Now => self.mesh.send_answer(core, place, answer),
            Release::Never => {
                let charged = charged(answer.map_or(0, |answer| answer.value.len()));
                if charged > 0 {
                    self.lanes.credit(core, place.connection, charged);
                }
                self.mesh.send_answer(core, place, Err(NoAnswer::Stopped));
            }
            Release::Later => self.shards.hold((core, place), answer, after),
        }
    }

    /// The same for an answer whose value needs not be copied.
    pub(super) fn deliver_own(
        &mut self,
        (core, place): (usize, Place),
        answer: AnswerBuf,
        after: After,
    ) {
        if self.shards.release(after) == Release::Now {
            return self.mesh.send_own_answer(core, place, answer);
        }
        self.deliver((core, place), Ok(&answer.as_answer()), after);
    }

    /// Takes the end of a request that had to wait.
    pub(super) fn completed(&mut self, completion: Completion) {
        let origin = completion.origin;
        let expected_bytes = completion.expected_bytes;
        let task = Load { waiting: 1, expected_bytes, bytes: 0 };
        self.tasks = self.tasks - task;
        self.adding -= completion.adds;
        let (answered, after) = completion.settle(&mut self.counters, &mut self.observer);
        let (core, place) = match origin {
            Origin::Connection(place) => {
                return self.arrived.push((place, Arrival { answered, after, core: None }));
            }
            Origin::Core { core, place } => (core, place),
        };
        if !self.lanes.is_open(core, place.connection) {
            return;
        }
        self.lanes.change(core, place.connection, |load| load - task);
        self.lanes.charge(core, place.connection, answered.value_bytes());
        match answered {
            Answered::Item(answer) => self.deliver_own((core, place), answer, after),
            Answered::Shard(answer) => self.mesh.send_shard_answer(core, place, answer),
            Answered::Failed(failure) => self.deliver((core, place), Err(failure), after),
            Answered::Node(answer) => panic!("a shard answers for the whole node: {answer:?}"),
        }
    }

    /// Sends the held answers that may leave now.
    pub(super) fn release_held(&mut self) {
        let (mesh, lanes) = (&mut self.mesh, &mut self.lanes);
        self.shards.release_held(|Released { core, place, answer, held_bytes }| {
            let sent = answer.map_or(0, |answer| answer.value.len());
            let bytes = charged(held_bytes) - charged(sent);
            if bytes > 0 {
                lanes.credit(core, place.connection, bytes);
            }
            mesh.send_answer(core, place, answer);
        });
    }

    /// Tells the cores that asked of the shards that were cleared; returns whether there were any.
    pub(super) fn take_clearings(&mut self) -> bool {
        let clearings = self.shards.take_clearings();
        let has_any = !clearings.is_empty();
        for Clearing { core, ask, result } in clearings {
            let told = result.map(|()| Told::Done).map_err(|failure| failure.to_string());
            self.answer(core, ask, told);
        }
        has_any
    }

    /// Answers a core's question.
    pub(super) fn answer(&mut self, core: usize, ask: u64, told: Result<Told, String>) {
        if core == self.core {
            self.gathered(ask, told);
        } else {
            self.mesh.send_note(core, Note::Told(ask, told));
        }
    }

    fn memory(&self, figures: &CoreFigures) -> CoreMemory {
        let connections = self.ledger.connections();
        CoreMemory {
            bound: self.ledger.bound(),
            input: connections.input + self.spare_bytes.0,
            output: self.ledger.output() + self.spare_bytes.1,
            waiting: connections.waiting,
            mailboxes: self.ledger.mailboxes(),
            receive_buffers: figures.receive_buffer_bytes,
            disk_buffers: figures.disk_buffer_bytes,
        }
    }

    /// The core in numbers.
    pub(super) fn report(&self) -> CoreReport {
        let figures = self.env.figures();
        CoreReport {
            core: self.core,
            connections: self.open_connections,
            watchers: self.watchers.len(),
            counts_prefixes: self.observer.prefixes.is_on(),
            waiting: self.load.waiting,
            memory: self.memory(&figures),
            buffer_shortages: self.buffer_shortages,
            counters: self.counters,
            shards: self.shards.reports(),
            disk: figures.disk,
            files: self.files.counters(),
            turns: figures.turns,
        }
    }

    /// What the bytes of the core's shards are for.
    pub(super) fn space(&self) -> Vec<ShardSpace> {
        self.shards.space()
    }

    pub(super) fn answer_ask(&mut self, core: usize, ask: u64, what: Ask) {
        let told = match what {
            Ask::Clear(at) => return self.shards.start_clearing(core, ask, at),
            Ask::DropNamespace(number) => return self.shards.start_dropping(core, ask, number),
            Ask::Connections => return self.listings.push((core, ask)),
            Ask::Reset => {
                self.counters = Counters::default();
                self.observer.prefixes.reset();
                Told::Report(Box::new(self.report()))
            }
            Ask::Report => Told::Report(Box::new(self.report())),
            Ask::Namespaces(table) => {
                self.shards.set_namespaces(&table);
                self.namespaces.set(table);
                Told::Done
            }
            Ask::CountPrefixes(is_on) => {
                self.observer.count_prefixes(is_on);
                Told::Done
            }
            Ask::Prefixes => Told::Prefixes(self.observer.prefixes.counted()),
            Ask::Watch(kinds) => {
                self.observer.watch(core, kinds);
                Told::Done
            }
        };
        self.answer(core, ask, Ok(told));
    }

    /// The number under which a connection of a core is told of.
    pub(super) fn number_of(&self, core: usize, connection: u64) -> u64 {
        self.numbering.connection(core, connection)
    }

    pub(super) fn start_gather(&mut self, whose: GatherFor, what: Ask) {
        let ask = self.gather_next;
        self.gather_next += 1;
        let remaining = match what {
            Ask::Clear(_) | Ask::DropNamespace(_) => usize::from(self.shared.shards),
            _ => self.mesh.cores(),
        };
        let asked = what.clone();
        let gather = Gather { whose, what: asked, remaining, told: Vec::new(), failure: None };
        self.gathers.insert(ask, gather);
        for peer in self.mesh.peers().collect::<Vec<_>>() {
            self.mesh.send_note(peer, Note::Ask(ask, what.clone()));
        }
        self.answer_ask(self.core, ask, what);
    }

    /// Takes one of the answers that a gather waits for.
    pub(super) fn gathered(&mut self, ask: u64, answer: Result<Told, String>) {
        let gather = self.gathers.get_mut(&ask).expect("a gather stays until its last answer");
        match answer {
            Ok(told) => gather.told.push(told),
            Err(failure) => gather.failure = Some(failure),
        }
        gather.remaining -= 1;
        if gather.remaining > 0 {
            return;
        }
        let gather = self.gathers.remove(&ask).expect("it was just looked at");
        if let Some(failure) = &gather.failure {
            tracing::error!("what all shards were to do has failed: {failure}");
        }
        let place = match gather.whose {
            GatherFor::Connection(place) => place,
            GatherFor::Registrar => return self.registrar_step_done(gather.failure.is_none()),
        };
        let answered = match gather.failure {
            Some(_) => Answered::Failed(NoAnswer::Stopped),
            None => Answered::Node(self.sum(place, &gather.what, gather.told)),
        };
        let arrival = Arrival { answered, after: After::NOTHING, core: None };
        self.arrived.push((place, arrival));
    }

    /// What all cores have told to the question of a connection.
    fn sum(&self, place: Place, what: &Ask, told: Vec<Told>) -> NodeAnswer {
        let asking = self.number_of(self.core, place.connection);
        let (mut reports, mut connections) = (Vec::new(), Vec::new());
        let mut prefixes: BTreeMap<Box<[u8]>, PrefixCounts> = BTreeMap::new();
        for told in told {
            match told {
                Told::Report(report) => reports.push(*report),
                Told::Connections(more) => connections.extend(more),
                Told::Prefixes(counted) => {
                    for (prefix, counts) in counted {
                        prefixes.entry(prefix).or_default().add(&counts);
                    }
                }
                Told::Done => {}
            }
        }
        match what {
            Ask::Clear(_) => NodeAnswer::Cleared,
            Ask::Report | Ask::Reset => {
                reports.sort_by_key(|report: &CoreReport| report.core);
                NodeAnswer::Reports(reports, self.now)
            }
            Ask::Connections => {
                connections.sort_by_key(|connection| connection.number);
                let own = connections.iter_mut().find(|connection| connection.number == asking);
                if let Some(own) = own {
                    own.state = ConnectionState::Asking;
                }
                NodeAnswer::Connections(connections)
            }
            Ask::Prefixes => NodeAnswer::Prefixes(prefixes.into_iter().collect()),
            Ask::CountPrefixes(_) | Ask::Watch(_) | Ask::Namespaces(_) | Ask::DropNamespace(_) => {
                NodeAnswer::Done
            }
        }
    }

    /// Tells the supervisor; one that is gone needs to know nothing.
    pub(super) fn tell(&self, event: Event) {
        if let Err(unheard) = self.events.send(event) {
            tracing::debug!("nobody hears {:?}", unheard.0);
        }
    }
}

/// One connection's way to the core.
pub(super) struct Dispatch<'a, C: CoreEnv> {
    pub state: &'a mut CoreState<C>,
    pub connection: u64,
    /// What the connection has appended to the core's logs.
    pub part: &'a mut Part,
}

impl<C: CoreEnv> Handler for Dispatch<'_, C> {
    #[inline]
    fn now(&self) -> Moment {
        Moment { second: self.state.now, nanoseconds: self.state.env.now() }
    }

    #[inline]
    fn target(&self, key: &Key<'_>) -> Target {
        self.state.shards.target(key)
    }

    #[inline]
    fn announce(&mut self, key: &Key<'_>) -> Target {
        let Target { shard, .. } = self.state.shards.target(key);
        Target { shard, announced: self.state.shards.announce(shard, key) }
    }

    #[inline]
    fn announced(&mut self) {
        self.state.shards.announced();
    }

    #[inline]
    fn request(
        &mut self,
        request: &ItemRequest<'_>,
        target: Target,
        asked: Asked,
        put: impl FnOnce(Result<&Answer<'_>, NoAnswer>),
    ) -> Handled {
        let state = &mut *self.state;
        let shard = target.shard;
        let place = Place { connection: self.connection, sequence: asked.sequence };
        let core = core_of(shard, state.mesh.cores());
        let own = asked.load;
        if state.is_too_late(request.deadline) {
            put(Err(NoAnswer::TooLate));
            return Handled::Done { after: After::NOTHING, is_error: true };
        }
        if core == state.core {
            if let Some(bytes) = state.reply_to_refuse(shard, request) {
                return state.refuse(own, Want::Reply(bytes));
            }
            let need = log_need(request);
            if let Some(need) = need.filter(|need| !state.may_append(*self.part, *need)) {
                return state.refuse(own, Want::Log(*self.part, need));
            }
            let number = || state.numbering.connection(core, self.connection);
            let mut observed = state.observer.observe(request, number);
            let notes = Notes {
                counters: &mut state.counters,
                observer: &mut state.observer,
                observed: &mut observed,
            };
            let tried = state.shards.try_execute(target, request, state.now, notes, put);
            let bytes = need.map_or(0, |need| need.bytes);
            if let Tried::Done { after, is_error } = tried {
                state.shares.note(self.part, bytes);
                return Handled::Done { after, is_error };
            }
            let expected_bytes = match state.admit(shard, request, own) {
                Ok(expected_bytes) => expected_bytes,
                Err(bytes) => return state.refuse(own, Want::Task(bytes)),
            };
            state.shares.note(self.part, bytes);
            state.start(Origin::Connection(place), shard, request, expected_bytes, observed);
            return Handled::Waiting { expected_bytes };
        }
        let bytes = request.operation.value_len();
        if !state.may_forward(own, bytes) || !state.mesh.send_request(core, place, shard, request) {
            return state.refuse(own, Want::Line(core));
        }
        state.counters.forwarded += 1;
        Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES + bytes }
    }

    fn shard_request(
        &mut self,
        request: Arc<ShardRequest>,
        asked: Asked,
        put: impl FnOnce(NoAnswer),
    ) -> Handled {
        let state = &mut *self.state;
        let place = Place { connection: self.connection, sequence: asked.sequence };
        let core = core_of(request.shard, state.mesh.cores());
        let own = asked.load;
        if state.is_too_late(request.deadline) {
            put(NoAnswer::TooLate);
            return Handled::Done { after: After::NOTHING, is_error: true };
        }
        if core != state.core {
            let bytes = request.memory();
            if !state.may_forward(own, bytes)
                || !state.mesh.send_shard_request(core, place, request)
            {
                return state.refuse(own, Want::Line(core));
            }
            state.counters.forwarded += 1;
            return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES + bytes };
        }
        let bytes = request.reply_bytes(state.unknown_value_bytes);
        if state.ledger.is_pressed() && !state.ledger.allows_reply(bytes) {
            return state.refuse(own, Want::Reply(bytes));
        }
        let need = shard_log_need(&request);
        if let Some(need) = need.filter(|need| !state.may_append(*self.part, *need)) {
            return state.refuse(own, Want::Log(*self.part, need));
        }
        match state.admit_shard(&request, own) {
            Ok(expected_bytes) => {
                state.shares.note(self.part, need.map_or(0, |need| need.bytes));
                state.start_shard(Origin::Connection(place), request, expected_bytes);
                Handled::Waiting { expected_bytes }
            }
            Err(bytes) => state.refuse(own, Want::Task(bytes)),
        }
    }

    fn node_request(&mut self, request: NodeRequest, sequence: u64) -> Handled {
        let place = Place { connection: self.connection, sequence };
        let state = &mut *self.state;
        let ask = match request {
            NodeRequest::Clear(at) => {
                state.counters.cmd_flush += 1;
                Ask::Clear(at)
            }
            NodeRequest::Reports { reset: true } => Ask::Reset,
            NodeRequest::Reports { reset: false } => Ask::Report,
            NodeRequest::Namespace(request) => {
                state.change_namespace(place, request);
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::Connections => Ask::Connections,
            NodeRequest::CountPrefixes(is_on) => Ask::CountPrefixes(is_on),
            NodeRequest::Prefixes => Ask::Prefixes,
            NodeRequest::Watch(kinds) => {
                state.start_watching(place, kinds);
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::LogLevel(level) => {
                state.tell(Event::LogLevel(level));
                let answered = Answered::Node(NodeAnswer::Done);
                let arrival = Arrival { answered, after: After::NOTHING, core: None };
                state.arrived.push((place, arrival));
                return Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES };
            }
            NodeRequest::Stop => {
                state.tell(Event::StopRequested("a client's shutdown command"));
                return Handled::Done { after: After::NOTHING, is_error: false };
            }
        };
        state.start_gather(GatherFor::Connection(place), ask);
        Handled::Waiting { expected_bytes: REPLY_COVERED_BYTES }
    }

    #[inline]
    fn release(&self, after: After) -> Release {
        self.state.shards.release(after)
    }

    fn passed(&mut self, core: usize, value_bytes: usize) {
        self.state.passed(core, self.connection, value_bytes);
    }
}
