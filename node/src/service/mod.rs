//! What one core does for its connections: the wiring between sockets, shards and other cores.
//!
//! Bytes go to the connection's state machine, which hands requests to [`core_state`]; answers come
//! back from there at once, or in a later turn. [`NodeService`] decides in which turn which
//! connection is looked at again, and when its socket is read from.

mod core_state;
mod lanes;
mod namespaces;
mod observer;
mod other_cores;
mod pressure;
mod refused;
mod shards;
mod shares;
#[cfg(test)]
mod simulation;
mod table;
mod turns;
mod watchers;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use larder_runtime::core_env::CoreEnv;
use larder_runtime::env::TaskQueue;
use larder_runtime::file_cache::FileCache;
use larder_runtime::network::{ConnectionId, Network, Service};

use crate::codec::Codec;
use crate::connection::{
    After, Arrival, ByFirstByte, Connection, Output, Release, SpareInputs, Stop,
};
use crate::control::{Control, Event};
use crate::events::{Ending, Happening};
use crate::ledger::Holding;
use crate::limits::{
    OUTPUT_HIGH_WATER, OUTPUT_MARK_PRESSED, OUTPUT_STALL_SECONDS, OUTPUT_STALL_SECONDS_PRESSED,
    TURN_MESSAGES_MAX, TURN_NANOSECONDS, WAITING_INPUT_BYTES,
};
use crate::mesh::{Batch, Mesh, Place};
use crate::namespaces::NamespaceView;
use crate::namespaces::registry::Registry;
use crate::request::Answered;

pub use core_state::Shared;
use core_state::{CoreState, Dispatch, Parts};
use refused::{Refused, Want};
use shards::{Completion, Shards};
use table::{Client, Entry, Table};
use turns::{Turns, Work};

pub use shards::Engine;

const TICK_NANOSECONDS: u64 = 1_000_000_000;

/// What begins to speak with a client: one for each listener.
pub struct Entrance<C: CoreEnv>(Rc<dyn Fn() -> Client<C>>);

impl<C: CoreEnv> Clone for Entrance<C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<C: CoreEnv> Entrance<C> {
    /// The entrance to a listener whose clients speak the protocols that `begin` returns.
    pub fn new<P: Codec + 'static>(begin: impl Fn() -> P + 'static) -> Self {
        Self(Rc::new(move || Box::new(Connection::new(begin()))))
    }

    /// The entrance to a listener whose clients speak the protocol that `usual` returns, or that
    /// of `other` if their first byte is `byte`.
    pub fn by_first_byte<P: Codec + 'static, Q: Codec + 'static>(
        usual: impl Fn() -> P + 'static,
        byte: u8,
        other: impl Fn() -> Q + 'static,
    ) -> Self {
        Self(Rc::new(move || Box::new(ByFirstByte::new(usual(), (byte, other())))))
    }
}

impl<C: CoreEnv> std::fmt::Debug for Entrance<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entrance")
    }
}

/// What a core is given to serve with.
pub struct Setup<C: CoreEnv> {
    /// The core's number.
    pub core: usize,
    /// The core's runtime.
    pub env: C,
    /// The files of its shards.
    pub files: FileCache<C>,
    /// What all cores are told.
    pub shared: Arc<Shared>,
    /// By listener, who speaks with its clients.
    pub entrances: Vec<Entrance<C>>,
    /// By listener, where it is; `None` for a path.
    pub addresses: Vec<Option<SocketAddr>>,
    /// The lines to the other cores.
    pub mesh: Mesh<C::Waker>,
    /// The core's shards, open.
    pub engines: Vec<(u16, Rc<Engine<C>>)>,
    /// Messages from the supervisor.
    pub control: Receiver<Control>,
    /// Messages to it.
    pub events: Sender<Event>,
    /// Which namespaces there are.
    pub namespaces: NamespaceView,
    /// What is remembered of them, for the core that changes them.
    pub registry: Option<Registry>,
}

/// The service of one core.
pub struct NodeService<C: CoreEnv> {
    state: CoreState<C>,
    entrances: Vec<Entrance<C>>,
    addresses: Vec<Option<SocketAddr>>,
    table: Table<C>,
    spares: SpareInputs,
    control: Receiver<Control>,
    /// Connections to look at: as many in a turn as it has time for.
    ready: Turns,
    /// Connections whose next reply waits for a log.
    awaiting_log: Vec<ConnectionId>,
    /// Connections that the core's limits have refused.
    refused: Refused,
    /// Connections with a part of a large request, whose rest was not granted yet, in order.
    want_grant: VecDeque<ConnectionId>,
    /// Scratch for the end of commands.
    completions: Vec<Completion>,
    /// Seconds since the start, counted by a task.
    ticks: Rc<Cell<u64>>,
    ticks_seen: u64,
    /// Since which tick connections hold more than they may.
    excess_since: Option<u64>,
    /// The tick of the last warning that connections hold too much.
    warned_at: u64,
    /// When the service's part of this turn began.
    turn_began: u64,
    is_turn: bool,
    /// Whether the clock was read in this turn.
    is_clock_read: bool,
    is_mesh_blocked: bool,
    is_draining: bool,
    is_drained: bool,
    is_finished: bool,
}

impl<C: CoreEnv> NodeService<C> {
    /// A service that starts to count seconds at once.
    pub fn new(setup: Setup<C>) -> Self {
        let Setup { core, env, files, shared, entrances, addresses, mesh, .. } = setup;
        let Setup { engines, control, events, namespaces, registry, .. } = setup;
        let ticks = Rc::new(Cell::new(0));
        env.spawn(TaskQueue::Maintenance, count_seconds(env.clone(), Rc::clone(&ticks)));
        let shards = Shards::new(env.clone(), shared.shards, engines);
        let listeners = entrances.len();
        let mut state = CoreState::new(Parts {
            core,
            env,
            files,
            shared,
            mesh,
            shards,
            events,
            listeners,
            namespaces,
            registry,
        });
        state.start_turn();
        state.start_registrar();
        let refused = Refused::new(state.mesh.cores());
        Self {
            state,
            entrances,
            addresses,
            table: Table::default(),
            spares: SpareInputs::default(),
            control,
            ready: Turns::default(),
            awaiting_log: Vec::new(),
            refused,
            want_grant: VecDeque::new(),
            completions: Vec::new(),
            ticks,
            ticks_seen: 0,
            excess_since: None,
            warned_at: 0,
            turn_began: 0,
            is_turn: false,
            is_clock_read: false,
            is_mesh_blocked: false,
            is_draining: false,
            is_drained: false,
            is_finished: false,
        }
    }

    /// Whether the core was told to leave its loop.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Gives a connection the bytes it received, or `None` to go on with what it has.
    fn drive(&mut self, network: &mut C::Network, id: ConnectionId, bytes: Option<&[u8]>) {
        if !std::mem::replace(&mut self.is_clock_read, true) {
            self.state.start_turn();
        }
        let pending = network.output_pending(id);
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(out) = network.output(id) else { return };
        let written = out.len();
        let mut output = Output::new(out, pending, self.state.ledger.output_mark());
        let Entry { connection, part, active_at, .. } = &mut *entry;
        let requests = connection.requests();
        let input = connection.input_len() + bytes.map_or(0, <[u8]>::len);
        let mut dispatch = Dispatch { state: &mut self.state, connection: id.into(), part };
        let stop = match bytes {
            Some(bytes) => {
                *active_at = self.ticks_seen;
                connection.receive(bytes, &mut output, &mut dispatch, &mut self.spares)
            }
            None => connection.resume(&mut output, &mut dispatch, &mut self.spares),
        };
        let written = out.len() - written;
        let taken = input.saturating_sub(entry.connection.input_len());
        // A part of a request is work as well.
        let requests = (entry.connection.requests() - requests).max(1);
        self.ready.charge(&mut entry.mark, Work { requests, bytes: taken + written });
        self.state.counters.bytes_written += written as u64;
        self.state.ledger.add_output(written);
        account(&mut self.state, entry);
        self.settle(network, id, stop, pending + written);
    }

    /// Decides what happens to a connection until it is looked at again.
    fn settle(&mut self, network: &mut C::Network, id: ConnectionId, stop: Stop, pending: usize) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let is_last =
            stop == Stop::Closing || (stop == Stop::Input && (entry.has_ended || self.is_draining));
        if is_last && entry.connection.is_answered() {
            network.close_after_output(id);
            return;
        }
        let is_large = stop == Stop::Input && entry.connection.has_input();
        let is_paused = stop != Stop::Input || (is_large && !self.grant(id));
        let Some(entry) = self.table.get_mut(id) else { return };
        if is_paused != entry.is_paused {
            entry.is_paused = is_paused;
            self.state.counters.conn_yields += u64::from(is_paused);
            if is_paused { network.pause(id) } else { network.resume(id) }
        }
        if entry.connection.waits_for_log() && !std::mem::replace(&mut entry.awaits_log, true) {
            self.awaiting_log.push(id);
        }
        // A reply that may leave and has not is kept back by the output, whatever stopped parsing.
        let may_leave = |after| self.state.shards.release(after) != Release::Later;
        let is_held_back = stop == Stop::Output
            || (stop != Stop::Core && entry.connection.has_parted())
            || entry.connection.next_after().is_some_and(may_leave);
        // No send will end that could say when to go on.
        let waits_for_ledger = is_held_back && pending <= OUTPUT_MARK_PRESSED;
        let want = match stop {
            Stop::Core if !waits_for_ledger => self.state.refused_want.take(),
            _ => waits_for_ledger.then_some(Want::Reply(0)),
        };
        if let Some(want) = want
            && !std::mem::replace(&mut entry.is_refused, true)
        {
            self.refused.push(id, entry.mark, want);
        }
        if is_held_back && pending <= OUTPUT_HIGH_WATER {
            network.expect_drained(id);
        }
        // The network says when the output is down again only if it was above the mark at the end
        // of the turn; sends that end before then are not noticed otherwise.
        if pending > OUTPUT_HIGH_WATER && !self.is_turn {
            queue(&mut self.ready, entry);
        }
    }

    fn take_control(&mut self, network: &mut C::Network) -> bool {
        let mut has_any = false;
        while let Ok(message) = self.control.try_recv() {
            has_any = true;
            match message {
                Control::Drain => self.drain(network),
                Control::Finish => self.is_finished = true,
                Control::Report(reply) => {
                    if reply.send(self.state.report()).is_err() {
                        tracing::debug!("the admin port did not wait for this core's figures");
                    }
                }
                Control::Space(reply) => {
                    if reply.send(self.state.space()).is_err() {
                        tracing::debug!("the admin port did not wait for this core's space");
                    }
                }
            }
        }
        has_any
    }

    fn drain(&mut self, network: &mut C::Network) {
        self.is_draining = true;
        network.stop_listening();
        for entry in self.table.iter_mut() {
            queue(&mut self.ready, entry);
        }
    }

    fn receive_batches(&mut self, network: &mut C::Network) -> bool {
        let mut has_any = false;
        let mut taken = 0;
        for core in self.state.mesh.next_order() {
            while taken < TURN_MESSAGES_MAX && !self.state.has_batch(core) {
                let Some(mut batch) = self.state.mesh.receive(core) else { break };
                taken += 1 + batch.requests.len() + batch.answers.len();
                self.receive_answers(network, core, &mut batch);
                self.receive_shard_answers(core, &mut batch);
                self.state.take_batch(core, batch);
                self.state.work_on_batch(core);
                has_any = true;
            }
            if self.state.has_batch(core) && !has_any {
                self.state.work_on_batch(core);
                has_any = true;
            }
        }
        has_any | self.state.work_on_parked()
    }

    fn receive_answers(&mut self, network: &mut C::Network, core: usize, batch: &mut Batch) {
        let now = self.state.now;
        for index in 0..batch.answers.len() {
            let Place { connection, sequence } = batch.answers[index].place;
            let id = ConnectionId::from(connection);
            let pending = network.output_pending(id);
            let mark = self.state.ledger.output_mark();
            let Some(entry) = self.table.get_mut(id) else { continue };
            let Some(out) = network.output(id) else { continue };
            queue(&mut self.ready, entry);
            let before = out.len();
            let mut output = Output::new(out, pending, mark);
            let answer = batch.take_answer(index);
            let value_bytes = answer.as_ref().map_or(0, |answer| answer.value.len());
            if entry.connection.complete_now(sequence, answer, core, now, &mut output) {
                self.state.passed(core, connection, value_bytes);
            }
            let written = out.len() - before;
            self.ready.charge(&mut entry.mark, Work { requests: 0, bytes: written });
            self.state.counters.bytes_written += written as u64;
            self.state.ledger.add_output(written);
            account(&mut self.state, entry);
        }
    }

    /// Hands over answers that are not about one item: they leave when the connections are driven.
    fn receive_shard_answers(&mut self, core: usize, batch: &mut Batch) {
        for (place, answer) in batch.shard_answers.drain(..) {
            let (answered, after) = (Answered::Shard(answer), After::NOTHING);
            self.state.arrived.push((place, Arrival { answered, after, core: Some(core) }));
        }
    }

    /// Takes the requests that have ended in tasks.
    fn receive_completions(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.state.shards.take_completions(&mut completions);
        let has_any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.state.completed(completion);
        }
        self.completions = completions;
        has_any | self.state.take_clearings() | self.state.take_registered()
    }

    /// Hands answers that came from elsewhere to their connections.
    fn receive_arrived(&mut self) -> bool {
        let arrived = std::mem::take(&mut self.state.arrived);
        let has_any = !arrived.is_empty();
        for (place, arrival) in arrived {
            let id = ConnectionId::from(place.connection);
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.connection.complete(place.sequence, arrival);
            account(&mut self.state, entry);
            queue(&mut self.ready, entry);
        }
        has_any
    }

    /// Looks at the logs, and at those who wait for them if one has moved.
    fn observe_logs(&mut self) -> bool {
        let mut stopped = Vec::new();
        let backlog = self.state.shards.backlog();
        self.state.shares.see(backlog, self.state.env.now());
        let has_moved = self.state.shards.observe(&mut stopped);
        for (shard, reason) in stopped {
            tracing::error!(shard, "the shard takes no more writes: {reason}");
            self.state.tell(Event::ShardStopped { shard, reason });
        }
        if has_moved {
            self.state.release_held();
            let Self { table, awaiting_log, ready, .. } = self;
            for id in awaiting_log.drain(..) {
                if let Some(entry) = table.get_mut(id) {
                    entry.awaits_log = false;
                    queue(ready, entry);
                }
            }
        }
        has_moved
    }

    /// Goes on with the connections that something has happened to, for as long as a turn has.
    fn drive_ready(&mut self, network: &mut C::Network) -> bool {
        let mut has_any = self.drive_refused(network);
        self.grant_again();
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop() else { break };
            has_any = true;
            if let Some(entry) = self.table.get_mut(id) {
                entry.is_queued = false;
                self.drive(network, id, None);
            }
            if self.is_turn_long() {
                break;
            }
        }
        has_any
    }

    /// Whether the turn has taken the time that connections have in one.
    fn is_turn_long(&self) -> bool {
        self.state.env.precise_now() - self.turn_began >= TURN_NANOSECONDS
    }

    /// Once a second: says how loaded the core is, and closes connections that were silent for too
    /// long, or do not read.
    fn tick(&mut self, network: &mut C::Network) {
        let now = self.ticks.get();
        self.ticks_seen = now;
        self.state.spare_bytes = (self.spares.memory(), network.spare_memory());
        self.state.say_loads();
        self.revoke_grants(network);
        self.retry_refused();
        self.state.retry_registering();
        let (mark, patience) = if self.state.ledger.is_pressed() {
            (OUTPUT_MARK_PRESSED, OUTPUT_STALL_SECONDS_PRESSED)
        } else {
            (OUTPUT_HIGH_WATER, OUTPUT_STALL_SECONDS)
        };
        let idle_timeout = self.state.shared.facts.idle_timeout;
        for entry in self.table.iter_mut() {
            let pending = network.output_pending(entry.id);
            let is_idle = idle_timeout > 0
                && now - entry.active_at >= idle_timeout
                && entry.connection.is_answered()
                && !entry.connection.is_watching()
                && !awaits_block(entry);
            entry.stalled = match entry.stalled {
                _ if pending <= mark => None,
                Some((since, before)) if before == pending => Some((since, before)),
                _ => Some((now, pending)),
            };
            let stalled_at = entry.stalled.map_or(now, |(since, _)| since);
            let is_stalled = now - stalled_at >= patience;
            if is_idle || is_stalled {
                self.state.counters.idle_kicks += u64::from(is_idle);
                self.state.counters.stalled_readers += u64::from(is_stalled);
                entry.ending = if is_idle { Ending::Idle } else { Ending::Shed };
                network.close(entry.id);
            }
        }
    }

    fn note_drained(&mut self) {
        if self.is_draining && !self.is_drained && self.table.len() == 0 {
            self.is_drained = true;
            self.state.tell(Event::Drained(self.state.core));
        }
    }
}

/// Puts a connection on the list of those to look at.
fn queue<C: CoreEnv>(ready: &mut Turns, entry: &mut Entry<C>) {
    if !std::mem::replace(&mut entry.is_queued, true) {
        ready.push(entry.mark, entry.id);
    }
}

/// Whether the front of a request has come that says how long it is, and more than a byte is
/// missing. memcached does not count such a client as silent.
fn awaits_block<C: CoreEnv>(entry: &Entry<C>) -> bool {
    entry.connection.input_needed() > entry.connection.input_len() + 1
}

/// Brings the core's load and its ledger up to date with a connection's.
#[inline]
fn account<C: CoreEnv>(state: &mut CoreState<C>, entry: &mut Entry<C>) {
    let load = entry.connection.load();
    state.load = state.load + load - entry.counted;
    entry.counted = load;
    let needed = entry.connection.input_needed();
    if needed == 0 {
        entry.granted_at = None;
    }
    let granted = if entry.granted_at.is_some() { needed } else { 0 };
    let mut now = Holding {
        input: entry.connection.input_bytes().max(granted),
        granted,
        waiting: entry.connection.waiting_bytes(),
    };
    if entry.is_leaving {
        now = Holding::default();
    }
    state.ledger.change(&mut entry.holding, now);
}

async fn count_seconds<C: CoreEnv>(env: C, ticks: Rc<Cell<u64>>) {
    loop {
        env.sleep(TICK_NANOSECONDS).await;
        ticks.set(ticks.get() + 1);
    }
}

impl<C: CoreEnv> Service<C::Network> for NodeService<C> {
    fn begin_turn(&mut self) {
        self.ready.begin();
        self.is_clock_read = false;
    }

    fn connected(
        &mut self,
        network: &mut C::Network,
        connection: ConnectionId,
        listener: usize,
        peer: Option<SocketAddr>,
    ) -> bool {
        let client = ((self.entrances[listener].0)(), listener, peer);
        self.table.insert(connection, client, self.ticks_seen, self.ready.newcomer());
        self.state.connection_happened(connection.into(), Happening::Began(peer));
        self.state.open_connections = self.table.len();
        self.state.counters.total_connections += 1;
        let open = self.state.shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if open <= self.state.shared.facts.connections_max {
            return !self.is_draining;
        }
        self.state.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.state.counters.rejected_connections += 1;
        tracing::debug!(?peer, open, "too many connections; raise --max-connections");
        if let Some(entry) = self.table.get_mut(connection) {
            entry.is_admitted = false;
            if let Some(out) = network.output(connection) {
                entry.connection.put_turned_away(out.bytes());
            }
        }
        false
    }

    fn received(&mut self, network: &mut C::Network, connection: ConnectionId, bytes: &[u8]) {
        self.state.counters.bytes_read += bytes.len() as u64;
        let Some(entry) = self.table.get_mut(connection) else { return };
        if !entry.is_queued && self.ready.may_go(entry.mark) {
            return self.drive(network, connection, Some(bytes));
        }
        entry.active_at = self.ticks_seen;
        entry.connection.store(bytes, self.state.env.now(), &mut self.spares);
        account(&mut self.state, entry);
        queue(&mut self.ready, entry);
        let most = if self.state.ledger.is_pressed() { 0 } else { WAITING_INPUT_BYTES };
        if !entry.is_paused && entry.connection.input_len() > most {
            entry.is_paused = true;
            network.pause(connection);
        }
    }

    fn ended(&mut self, network: &mut C::Network, connection: ConnectionId) {
        if let Some(entry) = self.table.get_mut(connection) {
            entry.has_ended = true;
            self.drive(network, connection, None);
        }
    }

    fn drained(&mut self, _network: &mut C::Network, connection: ConnectionId) {
        // What follows may be as large as what was sent: it takes its turn with others.
        if let Some(entry) = self.table.get_mut(connection) {
            queue(&mut self.ready, entry);
        }
    }

    fn closed(&mut self, connection: ConnectionId) {
        let Some(entry) = self.table.remove(connection) else { return };
        let ending = if self.is_draining { Ending::Shutdown } else { entry.ending };
        self.state.stop_watching(connection.into());
        self.state.connection_happened(connection.into(), Happening::Ended(entry.peer, ending));
        self.state.load = self.state.load - entry.counted;
        let mut holding = entry.holding;
        self.state.ledger.change(&mut holding, Holding::default());
        self.state.mesh.send_closed(connection.into());
        self.state.open_connections = self.table.len();
        if entry.is_admitted {
            self.state.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn turn(&mut self, network: &mut C::Network) -> bool {
        self.is_turn = true;
        self.turn_began = self.state.env.precise_now();
        if !std::mem::replace(&mut self.is_clock_read, true) {
            self.state.start_turn();
        }
        let mut has_worked = self.take_control(network);
        has_worked |= self.receive_batches(network);
        has_worked |= self.receive_completions();
        has_worked |= self.observe_logs();
        has_worked |= self.receive_arrived();
        has_worked |= self.drive_ready(network);
        has_worked |= self.list_connections(network);
        self.state.tell_events();
        self.tell_watchers(network);
        if self.ticks.get() != self.ticks_seen {
            self.tick(network);
        }
        self.state.buffer_shortages = network.buffer_shortages();
        self.relieve(network);
        self.note_drained();
        self.is_turn = false;
        has_worked || self.is_mesh_blocked
    }

    fn publish(&mut self) {
        self.is_mesh_blocked = self.state.mesh.publish();
    }
}
