//! Letting a connection go on, and what becomes of it until it is looked at again.

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::{ConnectionId, Network};

use super::NodeService;
use super::core_state::CoreState;
use super::dispatch::Dispatch;
use super::refused::Want;
use super::table::Entry;
use super::turns::{Turns, Work};
use crate::connection::{Output, Release, Stop};
use crate::ledger::Holding;
use crate::limits::{OUTPUT_HIGH_WATER, OUTPUT_MARK_PRESSED, TURN_NANOSECONDS};

impl<C: CoreEnv> NodeService<C> {
    /// Gives a connection the bytes it received, or `None` to go on with what it has.
    pub(super) fn drive(
        &mut self,
        network: &mut C::Network,
        id: ConnectionId,
        bytes: Option<&[u8]>,
    ) {
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
        let (core, numbering) = (self.state.core, self.state.numbering);
        let number = || numbering.connection(core, id.into());
        self.state.heaviest.served(requests, taken + written, number);
        self.state.counters.bytes_written += written as u64;
        self.state.ledger.add_output(written);
        account(&mut self.state, entry);
        self.settle(network, id, stop, pending + written);
    }

    /// Decides what happens to a connection until it is looked at again.
    pub(super) fn settle(
        &mut self,
        network: &mut C::Network,
        id: ConnectionId,
        stop: Stop,
        pending: usize,
    ) {
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

    /// Goes on with the connections that something has happened to, for as long as a turn has.
    pub(super) fn drive_ready(&mut self, network: &mut C::Network) -> bool {
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
    pub(super) fn is_turn_long(&self) -> bool {
        self.state.env.precise_now() - self.turn_began >= TURN_NANOSECONDS
    }
}

/// Puts a connection on the list of those to look at.
pub(super) fn queue<C: CoreEnv>(ready: &mut Turns, entry: &mut Entry<C>) {
    if !std::mem::replace(&mut entry.is_queued, true) {
        ready.push(entry.mark, entry.id);
    }
}

/// Brings the core's load and its ledger up to date with a connection's.
#[inline]
pub(super) fn account<C: CoreEnv>(state: &mut CoreState<C>, entry: &mut Entry<C>) {
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
