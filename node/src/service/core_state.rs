//! What the connections of one core share: its shards, its lines to other cores, its limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use larder_engine::shard::{Answer, AnswerBuf};
use larder_runtime::core_env::{CoreEnv, CoreFigures};
use larder_runtime::env::IoClass;
use larder_runtime::file_cache::FileCache;
use larder_runtime::io_queue::check_io_class;

use super::gathers::Gather;
use super::heaviest::Heaviest;
use super::held_answers::Released;
use super::lanes::{Lanes, Room, charged};
use super::log_need::{log_need, shard_log_need};
use super::observer::{Observed, Observer};
use super::refused::Want;
use super::shard_tasks::Completion;
use super::shards::{Origin, Shards};
use super::shares::Shares;
use crate::config::IoChange;
use crate::connection::{After, Arrival, Load, Release};
use crate::control::Event;
use crate::counters::{CoreMemory, CoreReport, Counters, ShardSpace};
use crate::events::{EventKinds, NodeEvent, Numbering};
use crate::facts::Facts;
use crate::latency::{LatencyProbe, LatencySample};
use crate::ledger::Ledger;
use crate::limits::TASKS_MAX;
use crate::loads::fullest;
use crate::mesh::{Batch, Mesh, ParkedRequest, Place};
use crate::namespaces::NamespaceView;
use crate::namespaces::registrar::Registrar;
use crate::namespaces::registry::Registry;
use crate::request::{Answered, ItemRequest, NoAnswer, ShardRequest};

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

pub(super) struct CoreState<C: CoreEnv> {
    pub core: usize,
    pub env: C,
    pub(super) files: FileCache<C>,
    pub shared: Arc<Shared>,
    pub counters: Counters,
    pub(super) observer: Observer<C>,
    /// How long requests take.
    pub(super) latency: LatencyProbe,
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
    pub(super) adding: usize,
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
    pub(super) unknown_value_bytes: usize,
    /// Answers for connections that are to be told in this turn.
    pub arrived: Vec<(Place, Arrival)>,
    pub(super) gathers: HashMap<u64, Gather>,
    pub(super) gather_next: u64,
    /// What took most of what was done in this turn.
    pub(super) heaviest: Heaviest,
    /// Which namespaces there are.
    pub(super) namespaces: NamespaceView,
    /// Who changes them, on the core that does.
    pub(super) registrar: Option<Registrar<(usize, Place)>>,
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
            latency: LatencyProbe::default(),
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
            heaviest: Heaviest::default(),
            namespaces,
            registrar: registry.map(Registrar::new),
            refused_want: None,
        }
    }

    /// Reads the clock.
    pub(super) fn start_turn(&mut self) {
        self.now = u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX);
    }

    /// Says how long requests take, and how loaded the core's shards are, by what makes requests
    /// wait: tasks, what clients hold of the memory, and what the log has to take.
    pub(super) fn say_loads(&mut self) {
        self.latency.say(self.core, &self.shared.facts.latencies);
        let tasks = (self.tasks.waiting, TASKS_MAX);
        let memory = (self.ledger.total(), self.ledger.bound());
        self.shards.say_loads(fullest([tasks, memory]), &self.shared.facts.loads);
    }

    /// The answer to a request that is measured, if it is, may leave after that.
    #[inline]
    pub(super) fn measure(&mut self, sample: Option<LatencySample>, after: After) {
        if let Some(sample) = sample {
            let release = self.shards.release(after);
            self.latency.answered(sample, after, (self.env.now(), release));
        }
    }

    pub(super) fn start(
        &mut self,
        origin: Origin,
        shard: u16,
        request: &ItemRequest<'_>,
        expected_bytes: usize,
        noted: (Option<Box<Observed>>, Option<LatencySample>),
    ) {
        self.tasks = self.tasks + Load { waiting: 1, expected_bytes, bytes: 0 };
        self.adding += log_need(request).map_or(0, |need| need.adds);
        self.shards.start(origin, shard, request, expected_bytes, noted);
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
        let sample = completion.sample;
        let (answered, after) =
            completion.settle(&mut self.counters, &mut self.observer, &self.shards.failures);
        self.measure(sample, after);
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
            time: figures.time,
        }
    }

    /// Changes how classes of disk requests share the disk: all that is named, or nothing.
    ///
    /// # Errors
    /// What is wrong with which class.
    pub(super) fn change_io(&self, change: &IoChange) -> Result<(), String> {
        let cores = self.shared.facts.cores;
        let of_class = |class| {
            let cap = change.caps.of(class).map(|cap| cap.of_core(cores));
            (class, change.shares.of(class), cap)
        };
        let changes = IoClass::ALL.map(of_class);
        for (class, shares, cap) in changes {
            check_io_class(class, shares, cap.flatten())?;
        }
        for (class, shares, cap) in changes {
            self.env.set_io_class(class, shares, cap)?;
        }
        Ok(())
    }

    /// What the bytes of the core's shards are for.
    pub(super) fn space(&self) -> Vec<ShardSpace> {
        self.shards.space()
    }

    /// The number under which a connection of a core is told of.
    pub(super) fn number_of(&self, core: usize, connection: u64) -> u64 {
        self.numbering.connection(core, connection)
    }

    /// Tells the supervisor; one that is gone needs to know nothing.
    pub(super) fn tell(&self, event: Event) {
        if let Err(unheard) = self.events.send(event) {
            tracing::debug!("nobody hears {:?}", unheard.0);
        }
    }
}
