//! What one core does for its connections: the wiring between sockets, shards and other cores.
//!
//! Bytes go to the connection's state machine, which hands requests to [`core_state`]; answers come
//! back from there at once, or in a later turn. [`NodeService`] decides in which turn which
//! connection is looked at again, and when its socket is read from.

mod admission;
mod arrivals;
mod core_state;
mod dispatch;
mod drive;
mod failures;
mod gathers;
mod heaviest;
mod held_answers;
mod lanes;
mod log_need;
mod namespaces;
mod observer;
mod other_cores;
mod pressure;
mod refused;
mod shard_tasks;
mod shards;
mod shares;
#[cfg(test)]
mod simulation;
mod table;
mod ticks;
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
use crate::connection::{ByFirstByte, Connection, SpareInputs};
use crate::control::{Control, Event};
use crate::events::{Ending, Happening};
use crate::ledger::Holding;
use crate::limits::WAITING_INPUT_BYTES;
use crate::mesh::Mesh;
use crate::namespaces::NamespaceView;
use crate::namespaces::registry::Registry;

pub use core_state::Shared;
use core_state::{CoreState, Parts};
use drive::{account, queue};
use refused::Refused;
use shard_tasks::Completion;
use shards::Shards;
use table::{Client, Table};
use ticks::count_seconds;
use turns::Turns;

pub use shards::Engine;

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
}

impl<C: CoreEnv> Service<C::Network> for NodeService<C> {
    fn begin_turn(&mut self) {
        self.ready.begin();
        self.state.heaviest.begin();
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
        has_worked |= self.state.tell_events();
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

    fn heaviest(&self) -> String {
        self.state.heaviest.to_string()
    }
}
