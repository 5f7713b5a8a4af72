//! What a core does when its connections hold much of its memory: it stops reading from those who
//! would hold more, and then closes those who hold most.

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::{ConnectionId, Network};

use super::NodeService;
use super::drive::{account, queue};
use super::table::Entry;
use crate::events::Ending;
use crate::ledger::heaviest;
use crate::limits::{GRANT_SECONDS, INPUT_FREE_BYTES};

/// Connections that hold together less than one part in so many of the bound hold next to nothing.
const LITTLE_PART: usize = 8;

/// After so many seconds above the bound they are closed as well.
const EXCESS_TICKS_MAX: u64 = 2;

impl<C: CoreEnv> NodeService<C> {
    /// Brings the ledger up to date with what others count, and keeps its bound.
    pub(super) fn relieve(&mut self, network: &mut C::Network) {
        let state = &mut self.state;
        state.ledger.set_output(network.output_memory());
        state.count_between_cores();
        if state.ledger.is_pressed() {
            // They are nobody's, so they go before anything is taken from a client.
            state.mesh.release_kept();
            state.count_between_cores();
        }
        let excess = state.ledger.excess();
        if excess == 0 {
            self.excess_since = None;
            return;
        }
        // What was granted and has not come is held by nobody yet.
        let held = |entry: &mut Entry<C>| {
            let connection = &entry.connection;
            let input_and_waiting = connection.input_bytes() + connection.waiting_bytes();
            let held = input_and_waiting + network.output_memory_of(entry.id);
            (!entry.is_leaving).then_some((held, entry.id))
        };
        let holders: Vec<_> = self.table.iter_mut().filter_map(held).collect();
        // What other cores and logs keep goes by itself, and nobody is closed for it who holds next
        // to nothing. If it does not go, everybody's turn comes: nothing is answered meanwhile.
        let since = *self.excess_since.get_or_insert(self.ticks_seen);
        let is_lasting = self.ticks_seen - since >= EXCESS_TICKS_MAX;
        let little = if is_lasting { 0 } else { self.state.ledger.bound() / LITTLE_PART };
        let chosen = heaviest(holders, excess, little);
        for id in chosen {
            self.shed(network, id);
        }
    }

    /// Closes a connection because of what it holds, and tells the client if its output is empty.
    fn shed(&mut self, network: &mut C::Network, id: ConnectionId) {
        let pending = network.output_pending(id);
        let Some(entry) = self.table.get_mut(id) else { return };
        let can_be_told = pending == 0 && entry.connection.is_answered();
        entry.is_leaving = true;
        entry.ending = Ending::Shed;
        entry.connection.close();
        account(&mut self.state, entry);
        self.state.counters.shed_connections += 1;
        if self.warned_at != self.ticks_seen {
            self.warned_at = self.ticks_seen;
            let ledger = &self.state.ledger;
            tracing::warn!(
                core = self.state.core,
                bound = ledger.bound(),
                input = ledger.connections().input,
                waiting = ledger.connections().waiting,
                output = ledger.output(),
                mailboxes = ledger.mailboxes(),
                "connections hold too much memory; closing those that hold most"
            );
        }
        match (network.output(id), self.table.get_mut(id)) {
            (Some(out), Some(entry)) if can_be_told => {
                entry.connection.put_shed(out.bytes());
                network.close_after_output(id);
            }
            _ => network.close(id),
        }
    }

    /// Whether the rest of a large request of which a part is there may be received. If not, the
    /// connection is remembered and looked at again when memory is given back.
    pub(super) fn grant(&mut self, id: ConnectionId) -> bool {
        let tick = self.ticks_seen;
        let Some(entry) = self.table.get_mut(id) else { return false };
        let needed = entry.connection.input_needed();
        let more = needed.saturating_sub(entry.holding.input);
        if entry.granted_at.is_some() || more <= INPUT_FREE_BYTES {
            return true;
        }
        if self.state.ledger.grants(more) {
            entry.granted_at = Some(tick);
            account(&mut self.state, entry);
            return true;
        }
        if entry.wants_grant_since.is_none() {
            entry.wants_grant_since = Some(tick);
            self.want_grant.push_back(id);
        }
        false
    }

    /// Grants what now can be, in the order in which it was asked for.
    pub(super) fn grant_again(&mut self) {
        while let Some(id) = self.want_grant.front().copied() {
            let Some(entry) = self.table.get_mut(id).filter(|entry| !entry.is_leaving) else {
                self.want_grant.pop_front();
                continue;
            };
            let more = entry.connection.input_needed().saturating_sub(entry.holding.input);
            if !self.state.ledger.grants(more) {
                return;
            }
            entry.granted_at = Some(self.ticks_seen);
            entry.wants_grant_since = None;
            account(&mut self.state, entry);
            queue(&mut self.ready, entry);
            self.want_grant.pop_front();
        }
    }

    /// Once a second: while requests wait for a grant, those that have theirs for long are closed,
    /// and those that wait for long: nobody waits behind clients that never go on.
    pub(super) fn revoke_grants(&mut self, network: &mut C::Network) {
        if self.want_grant.is_empty() {
            return;
        }
        let now = self.ticks_seen;
        let is_late = |entry: &&mut Entry<C>| {
            let since = entry.granted_at.or(entry.wants_grant_since);
            since.is_some_and(|at| now - at >= GRANT_SECONDS)
        };
        let late: Vec<_> = self.table.iter_mut().filter(is_late).map(|entry| entry.id).collect();
        for id in late {
            self.shed(network, id);
        }
    }
}
