//! Durability that single changes ask for, in the modes that do not wait for the device.

use larder_runtime::env::{Env, TaskQueue};

use super::{Durability, ValueLog};

/// When the answer to a request may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledgement {
    /// As the log's durability says.
    #[default]
    Configured,
    /// When what it shows, or has changed, is durable.
    Durable,
    /// As soon as it is carried out.
    Made,
}

/// What single changes have asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// The log is to become durable up to here.
    end: u64,
    /// A task sees to it.
    is_served: bool,
}

impl<E: Env> ValueLog<E> {
    /// Has everything below `sequence_end` made durable soon. What is asked for while a flush is
    /// under way shares the next one.
    pub fn demand_durable(&self, sequence_end: u64) {
        if self.shared.options.durability == Durability::Sync {
            // It is on its way.
            return;
        }
        let mut state = self.shared.state.borrow_mut();
        state.demand.end = state.demand.end.max(sequence_end);
        if state.demand.is_served || state.durable_end >= state.demand.end {
            return;
        }
        state.demand.is_served = true;
        drop(state);
        self.shared.env.spawn(TaskQueue::Foreground, self.clone().serve_demand());
    }

    async fn serve_demand(self) {
        while self.is_demanded() {
            // A flush that fails stops the log: nobody waits for it any more.
            if self.flush().await.is_err() {
                self.shared.state.borrow_mut().demand.is_served = false;
                return;
            }
        }
    }

    /// Whether there is more to serve; from no on the next demand begins anew.
    fn is_demanded(&self) -> bool {
        let mut state = self.shared.state.borrow_mut();
        state.demand.is_served = state.durable_end < state.demand.end;
        state.demand.is_served
    }

    /// The first sequence whose answer may not be given if it needs not be durable: while half of
    /// the bytes that may wait for the device do, it has to be written.
    pub fn made_end(&self) -> u64 {
        let state = self.shared.state.borrow();
        let is_behind = state.queued_bytes > self.shared.options.queued_bytes_max / 2;
        if is_behind { state.written_end } else { u64::MAX }
    }
}
