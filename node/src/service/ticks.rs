//! What a core does once a second, and when it is told to by the supervisor.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::core_env::CoreEnv;
use larder_runtime::network::Network;

use super::NodeService;
use super::drive::queue;
use super::table::Entry;
use crate::control::{Control, Event};
use crate::events::Ending;
use crate::limits::{
    OUTPUT_HIGH_WATER, OUTPUT_MARK_PRESSED, OUTPUT_STALL_SECONDS, OUTPUT_STALL_SECONDS_PRESSED,
};

const TICK_NANOSECONDS: u64 = 1_000_000_000;

impl<C: CoreEnv> NodeService<C> {
    pub(super) fn take_control(&mut self, network: &mut C::Network) -> bool {
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
                Control::ChangeIo(change, reply) => {
                    if reply.send(self.state.change_io(&change)).is_err() {
                        tracing::debug!("the admin port did not wait for this core's change");
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

    pub(super) fn drain(&mut self, network: &mut C::Network) {
        self.is_draining = true;
        network.stop_listening();
        for entry in self.table.iter_mut() {
            queue(&mut self.ready, entry);
        }
    }

    /// Once a second: says how loaded the core is, and closes connections that were silent for too
    /// long, or do not read.
    pub(super) fn tick(&mut self, network: &mut C::Network) {
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

    pub(super) fn note_drained(&mut self) {
        if self.is_draining && !self.is_drained && self.table.len() == 0 {
            self.is_drained = true;
            self.state.tell(Event::Drained(self.state.core));
        }
    }
}

/// Whether the front of a request has come that says how long it is, and more than a byte is
/// missing. memcached does not count such a client as silent.
fn awaits_block<C: CoreEnv>(entry: &Entry<C>) -> bool {
    entry.connection.input_needed() > entry.connection.input_len() + 1
}

pub(super) async fn count_seconds<C: CoreEnv>(env: C, ticks: Rc<Cell<u64>>) {
    loop {
        env.sleep(TICK_NANOSECONDS).await;
        ticks.set(ticks.get() + 1);
    }
}
