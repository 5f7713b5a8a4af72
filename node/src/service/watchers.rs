//! Clients that watch what happens on the node, and the list of all clients.

use std::sync::Arc;

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::{ConnectionId, Network};

use super::NodeService;
use super::core_state::{CoreState, Watcher};
use super::gathers::GatherFor;
use crate::connection::{After, Arrival};
use crate::counters::{ConnectionReport, ConnectionState};
use crate::events::{EventKinds, Happening, NodeEvent};
use crate::limits::{CONNECTIONS_LISTED_MAX, WATCHER_OUTPUT_BYTES, WATCHERS_MAX};
use crate::mesh::{Ask, Note, Place, Told};
use crate::request::{Answered, NodeAnswer};

impl<C: CoreEnv> CoreState<C> {
    /// All that the connections of this core watch.
    fn watched_here(&self) -> EventKinds {
        self.watchers.iter().fold(EventKinds::NONE, |all, watcher| all.and(watcher.kinds))
    }

    /// A connection wants to watch.
    pub(super) fn start_watching(&mut self, place: Place, kinds: EventKinds) {
        if self.watchers.len() >= WATCHERS_MAX {
            let answered = Answered::Node(NodeAnswer::TooManyWatchers);
            let arrival = Arrival { answered, after: After::NOTHING, core: None };
            return self.arrived.push((place, arrival));
        }
        self.watchers.push(Watcher { connection: place.connection, kinds, skipped: 0 });
        let kinds = self.watched_here();
        self.start_gather(GatherFor::Connection(place), Ask::Watch(kinds));
    }

    /// A connection is gone: what only it has watched is of no interest any more.
    pub(super) fn stop_watching(&mut self, connection: u64) {
        let before = self.watchers.len();
        self.watchers.retain(|watcher| watcher.connection != connection);
        if self.watchers.len() == before {
            return;
        }
        let kinds = self.watched_here();
        self.observer.watch(self.core, kinds);
        for peer in self.mesh.peers().collect::<Vec<_>>() {
            self.mesh.send_note(peer, Note::Watching(kinds));
        }
    }

    /// Hands what has happened to the cores where it is watched. What one of them cannot take now
    /// is lost to it. Returns whether anything has: what was handed over is on its way only when
    /// it is published.
    pub(super) fn tell_events(&mut self) -> bool {
        if !self.observer.has_any() {
            return false;
        }
        let (events, lost) = self.observer.take();
        for peer in self.mesh.peers().collect::<Vec<_>>() {
            let kinds = self.observer.watched(peer);
            if kinds == EventKinds::NONE {
                continue;
            }
            if !self.mesh.has_room(peer) {
                self.counters.log_worker_dropped += events.len() as u64;
                continue;
            }
            let watched = events.iter().filter(|event| kinds.has_any(event.kind()));
            let watched: Vec<NodeEvent> = watched.cloned().collect();
            if !watched.is_empty() || lost > 0 {
                self.mesh.send_note(peer, Note::Events(watched, lost));
            }
        }
        if !self.watchers.is_empty() {
            self.hear(events, lost);
        }
        true
    }

    /// Takes what has happened, for the watchers of this core.
    pub(super) fn hear(&mut self, events: Vec<NodeEvent>, lost: u64) {
        self.heard.0.extend(events);
        self.heard.1 += lost;
    }

    /// Tells of what has happened to a connection of this core.
    pub(super) fn connection_happened(&mut self, connection: u64, what: Happening) {
        let number = self.numbering.connection(self.core, connection);
        self.observer.happened(number, what, &mut self.counters);
    }
}

impl<C: CoreEnv> NodeService<C> {
    /// Tells the watchers of this core what has happened. Nothing is kept for one that does not
    /// read: it learns how much it has missed.
    pub(super) fn tell_watchers(&mut self, network: &mut C::Network) {
        if self.state.heard.0.is_empty() && self.state.heard.1 == 0 {
            return;
        }
        let (events, lost) = std::mem::take(&mut self.state.heard);
        let mut watchers = std::mem::take(&mut self.state.watchers);
        for watcher in &mut watchers {
            let id = ConnectionId::from(watcher.connection);
            let pending = network.output_pending(id);
            let Some(entry) = self.table.get_mut(id) else { continue };
            // Until it was told that it watches nothing else is sent.
            let Some(out) = network.output(id).filter(|_| entry.connection.is_watching()) else {
                continue;
            };
            let out = out.bytes();
            let before = out.len();
            watcher.skipped += lost;
            for event in events.iter().filter(|event| watcher.kinds.has_any(event.kind())) {
                if pending + out.len() - before > WATCHER_OUTPUT_BYTES {
                    watcher.skipped += 1;
                    self.state.counters.log_watcher_skipped += 1;
                    continue;
                }
                if watcher.skipped > 0 {
                    entry.connection.put_skipped(std::mem::take(&mut watcher.skipped), out);
                }
                entry.connection.put_event(event, out);
                self.state.counters.log_watcher_sent += 1;
            }
            let written = out.len() - before;
            self.state.counters.bytes_written += written as u64;
            self.state.ledger.add_output(written);
        }
        self.state.watchers = watchers;
    }

    /// Answers the cores that have asked for the connections of this one; returns whether there
    /// were any. All that have asked in one turn get the same list.
    pub(super) fn list_connections(&mut self, network: &mut C::Network) -> bool {
        let listings = std::mem::take(&mut self.state.listings);
        if listings.is_empty() {
            return false;
        }
        let reports: Arc<[ConnectionReport]> = self.connection_reports(network).into();
        for (core, ask) in listings {
            self.state.answer(core, ask, Ok(Told::Connections(Arc::clone(&reports))));
        }
        true
    }

    fn connection_reports(&mut self, network: &mut C::Network) -> Vec<ConnectionReport> {
        let (core, numbering) = (self.state.core, self.state.numbering);
        let listeners =
            self.addresses.iter().enumerate().map(|(index, address)| ConnectionReport {
                number: numbering.listener(core, index),
                peer: None,
                listener: *address,
                state: ConnectionState::Listening,
                silent_seconds: self.ticks_seen,
            });
        let mut reports: Vec<ConnectionReport> = listeners.collect();
        for entry in self.table.iter_mut().take(CONNECTIONS_LISTED_MAX) {
            let state = if entry.connection.is_watching() {
                ConnectionState::Watching
            } else if !entry.connection.is_answered() {
                ConnectionState::Working
            } else if network.output_pending(entry.id) > 0 {
                ConnectionState::Writing
            } else {
                ConnectionState::Reading
            };
            reports.push(ConnectionReport {
                number: numbering.connection(core, entry.id.into()),
                peer: entry.peer,
                listener: self.addresses[entry.listener],
                state,
                silent_seconds: self.ticks_seen - entry.active_at,
            });
        }
        reports
    }
}
