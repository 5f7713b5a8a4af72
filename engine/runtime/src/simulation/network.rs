//! A core's connections in the simulation: bytes arrive in pieces, sends are taken in parts, slow
//! readers take nothing for a while, and clients end or reset when they like.
//!
//! What happens in a turn, and in which order among connections, is drawn from the seed. As on the
//! ring, a connection that was paused may get one more piece, output is sent when the turn ends,
//! and a connection that closes in good order lets its client read what was sent.

use std::collections::VecDeque;

use super::random::Random;
use super::wire::{SharedWire, SimClient};
use crate::connection::Closing;
use crate::network::{ConnectionId, Network, Service};
use crate::operations::{Key, Slots};
use crate::outgoing::Outgoing;
use crate::output_queue::OutputQueue;

/// How long a client may take to end its side after it was told that nothing follows.
const LINGER_NANOSECONDS: u64 = 1_000_000_000;

/// What bounds a simulated network.
#[derive(Clone, Copy, Debug)]
pub struct SimNetworkOptions {
    /// Unsent output of a connection above which [`Service::drained`] will be called, in bytes.
    pub output_high_water: usize,
    /// The largest piece that arrives at once, in bytes.
    pub receive_bytes_max: usize,
    /// The most that one send takes, in bytes.
    pub send_bytes_max: usize,
    /// Events that a turn handles at most.
    pub events_per_turn: usize,
}

struct SimConnection {
    wire: SharedWire,
    outgoing: Outgoing,
    closing: Closing,
    /// Until when the client may end its side, while the connection lingers.
    linger_until: u64,
    is_paused: bool,
    /// A piece may arrive.
    is_receiving: bool,
    has_client_ended: bool,
    is_dirty: bool,
    /// The memory of its output that the network has counted.
    counted: usize,
}

impl SimConnection {
    fn new(wire: SharedWire) -> Self {
        Self {
            wire,
            outgoing: Outgoing::default(),
            closing: Closing::No,
            linger_until: 0,
            is_paused: false,
            is_receiving: false,
            has_client_ended: false,
            is_dirty: true,
            counted: 0,
        }
    }

    fn output_memory(&self) -> usize {
        if self.closing == Closing::Now { 0 } else { self.outgoing.memory() }
    }

    fn wants_receive(&self) -> bool {
        match self.closing {
            Closing::No => !self.is_paused && !self.has_client_ended,
            Closing::AfterOutput | Closing::Lingering => !self.has_client_ended,
            Closing::Now => false,
        }
    }

    /// What may happen to it next.
    fn events(&self) -> Vec<Event> {
        let wire = self.wire.get();
        let mut events = Vec::new();
        if self.is_receiving && !wire.to_core.is_empty() {
            events.push(Event::Arrival);
        } else if self.is_receiving && wire.has_client_ended && !self.has_client_ended {
            events.push(Event::End);
        }
        if self.outgoing.is_sending() && !wire.is_reset && wire.room() > 0 {
            events.push(Event::Taken);
        }
        if wire.is_reset && self.closing != Closing::Now {
            events.push(Event::Reset);
        }
        events
    }
}

/// Something that can happen to a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Bytes arrive.
    Arrival,
    /// The client has ended its side.
    End,
    /// A part of what is being sent is taken.
    Taken,
    /// The connection is torn down.
    Reset,
}

/// The simulated instance of [`Network`].
pub struct SimNetwork {
    options: SimNetworkOptions,
    random: Random,
    connections: Slots<SimConnection>,
    /// Those who want to connect, with the listener's index.
    waiting: VecDeque<(usize, SharedWire)>,
    is_listening: bool,
    dirty: Vec<Key>,
    output_memory: usize,
}

impl SimNetwork {
    pub(super) fn new(options: SimNetworkOptions, random: Random) -> Self {
        Self {
            options,
            random,
            connections: Slots::new(),
            waiting: VecDeque::new(),
            is_listening: true,
            dirty: Vec::new(),
            output_memory: 0,
        }
    }

    /// A client that connects to the listener of this index, and has room for `window` bytes that
    /// it has not read. Where nobody listens it is refused: its connection is reset.
    pub(super) fn connect(&mut self, listener: usize, window: usize) -> SimClient {
        let wire = SharedWire::new(window);
        if self.is_listening {
            self.waiting.push_back((listener, wire.clone()));
        } else {
            wire.get().is_reset = true;
        }
        SimClient::new(wire)
    }

    /// Connections that are not gone yet.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Whether a turn at `now` would find something.
    pub(super) fn has_events(&self, now: u64) -> bool {
        let has_event = |key| {
            let connection = self.connections.get(key).expect("it is one of the keys");
            let is_late =
                connection.closing == Closing::Lingering && connection.linger_until <= now;
            is_late || !connection.events().is_empty()
        };
        !self.waiting.is_empty()
            || !self.dirty.is_empty()
            || self.connections.keys().into_iter().any(has_event)
    }

    /// Lets some of what can happen do so.
    pub(super) fn happen<S: Service<Self>>(&mut self, service: &mut S) {
        let mut keys = self.connections.keys();
        self.random.shuffle(&mut keys);
        let mut left = self.options.events_per_turn;
        while left > 0 && !self.waiting.is_empty() && self.random.percent(70) {
            self.accept(service);
            left -= 1;
        }
        for key in keys {
            while left > 0 && self.random.percent(60) {
                let Some(connection) = self.connections.get(key) else { break };
                let events = connection.events();
                if events.is_empty() {
                    break;
                }
                let event = self.random.pick(&events);
                self.perform(key, event, service);
                left -= 1;
            }
        }
    }

    fn accept<S: Service<Self>>(&mut self, service: &mut S) {
        let Some((listener, wire)) = self.waiting.pop_front() else { return };
        let key = self.connections.insert(SimConnection::new(wire));
        self.dirty.push(key);
        if !service.connected(self, key.into(), listener, None) {
            self.close_after_output(key.into());
        }
    }

    fn perform<S: Service<Self>>(&mut self, key: Key, event: Event, service: &mut S) {
        self.change(key, |_| {});
        let connection = self.connections.get_mut(key).expect("it was just looked at");
        let is_open = connection.closing == Closing::No;
        match event {
            Event::Arrival => {
                let mut wire = connection.wire.get();
                let most = wire.to_core.len().min(self.options.receive_bytes_max);
                let len = self.random.count(1..=most);
                let bytes: Vec<u8> = wire.to_core.drain(..len).collect();
                drop(wire);
                if is_open {
                    service.received(self, key.into(), &bytes);
                }
            }
            Event::End => {
                connection.has_client_ended = true;
                connection.is_receiving = false;
                if connection.closing == Closing::Lingering {
                    connection.closing = Closing::Now;
                } else if is_open {
                    service.ended(self, key.into());
                }
            }
            Event::Taken => self.take(key, service),
            Event::Reset => self.close(key.into()),
        }
    }

    /// Takes a part of what a connection sends.
    fn take<S: Service<Self>>(&mut self, key: Key, service: &mut S) {
        let connection = self.connections.get_mut(key).expect("it was just looked at");
        let mut wire = connection.wire.get();
        let unsent: usize = connection.outgoing.unsent().map(<[u8]>::len).sum();
        let most = unsent.min(wire.room()).min(self.options.send_bytes_max);
        let len = self.random.count(1..=most);
        wire.to_client.extend(connection.outgoing.unsent().flatten().take(len));
        drop(wire);
        drop(connection.outgoing.note_sent(len));
        let has_drained = connection.outgoing.take_drained(self.options.output_high_water);
        let is_open = connection.closing == Closing::No;
        self.count_output(key);
        if has_drained && is_open {
            service.drained(self, key.into());
        }
    }

    /// Whether there is anything to begin.
    pub(super) fn is_changed(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Begins what the turn's changes call for.
    pub(super) fn flush<S: Service<Self>>(&mut self, service: &mut S, now: u64) {
        for key in self.connections.keys() {
            let connection = self.connections.get(key).expect("it is one of the keys");
            if connection.closing == Closing::Lingering && connection.linger_until <= now {
                self.close(key.into());
            }
        }
        // A service that is told of a closed connection may append to others.
        while let Some(key) = self.dirty.pop() {
            self.flush_connection(key, service, now);
        }
    }

    fn flush_connection<S: Service<Self>>(&mut self, key: Key, service: &mut S, now: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_dirty = false;
        if connection.closing == Closing::AfterOutput && connection.outgoing.pending() == 0 {
            connection.wire.get().has_core_ended = true;
            connection.linger_until = now + LINGER_NANOSECONDS;
            let is_over = connection.has_client_ended;
            connection.closing = if is_over { Closing::Now } else { Closing::Lingering };
        }
        if connection.closing == Closing::Now {
            self.end(key);
            service.closed(key.into());
            return;
        }
        connection.outgoing.note_high_water(self.options.output_high_water);
        connection.outgoing.start_send();
        if connection.outgoing.output.is_empty() {
            connection.outgoing.output = OutputQueue::default();
        }
        // What the pause comes too late for still arrives.
        let is_late = connection.is_receiving && self.random.percent(50);
        connection.is_receiving = connection.wants_receive() || is_late;
        self.count_output(key);
    }

    /// Takes a connection off the table. What its client has sent in vain resets it, and the client
    /// may lose what it has not read.
    fn end(&mut self, key: Key) {
        self.count_output(key);
        let connection = self.connections.remove(key).expect("the caller has just seen it");
        let mut wire = connection.wire.get();
        let is_whole = wire.has_core_ended && wire.to_core.is_empty();
        wire.has_core_ended = true;
        if !is_whole && !wire.is_reset {
            wire.is_reset = true;
            let kept = self.random.count(0..=wire.to_client.len());
            wire.to_client.truncate(kept);
        }
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut SimConnection)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        change(connection);
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(key);
        }
    }

    fn count_output(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now = connection.output_memory();
        self.output_memory = self.output_memory - connection.counted + now;
        connection.counted = now;
    }
}

impl Network for SimNetwork {
    fn output(&mut self, connection: ConnectionId) -> Option<&mut OutputQueue> {
        let key = Key::from(connection);
        let is_open = self.connections.get(key)?.closing == Closing::No;
        if !is_open {
            return None;
        }
        self.change(key, |_| {});
        self.connections.get_mut(key).map(|connection| &mut connection.outgoing.output)
    }

    fn output_pending(&self, connection: ConnectionId) -> usize {
        let connection = self.connections.get(connection.into());
        connection.map_or(0, |connection| connection.outgoing.pending())
    }

    fn output_memory_of(&self, connection: ConnectionId) -> usize {
        let connection = self.connections.get(connection.into());
        connection.map_or(0, SimConnection::output_memory)
    }

    fn output_memory(&self) -> usize {
        let changed = self.dirty.iter().filter_map(|key| self.connections.get(*key));
        changed.fold(self.output_memory, |sum, connection| {
            sum - connection.counted + connection.output_memory()
        })
    }

    fn spare_memory(&self) -> usize {
        0
    }

    fn buffer_shortages(&self) -> u64 {
        0
    }

    fn expect_drained(&mut self, connection: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(connection.into()) {
            connection.outgoing.expect_drained();
        }
    }

    fn pause(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| connection.is_paused = true);
    }

    fn resume(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| connection.is_paused = false);
    }

    fn close(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| connection.closing = Closing::Now);
        self.count_output(connection.into());
    }

    fn close_after_output(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| {
            if connection.closing == Closing::No {
                connection.closing = Closing::AfterOutput;
            }
        });
    }

    fn stop_listening(&mut self) {
        self.is_listening = false;
        for (_, wire) in self.waiting.drain(..) {
            wire.get().is_reset = true;
        }
    }
}
