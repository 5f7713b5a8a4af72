//! What the log is told of requests that have failed.

use std::cell::Cell;

use larder_engine::error::EngineError;
use larder_runtime::env::Env;
use larder_runtime::line_limit::LineLimit;

/// From one line of a core to the next it takes so many nanoseconds at least: who reads a damaged
/// key again and again does not fill the log. How many there were is counted in the metrics.
const QUIET_NANOSECONDS: u64 = 10_000_000_000;

/// Writes failures of requests to the log.
pub(super) struct FailureLog<E> {
    env: E,
    lines: Cell<LineLimit>,
}

impl<E: Env> FailureLog<E> {
    pub(super) fn new(env: E) -> Self {
        Self { env, lines: Cell::new(LineLimit::new(QUIET_NANOSECONDS)) }
    }

    /// Notes a failure on a shard. What is the client's matter, or was said elsewhere, is for those
    /// who look for faults alone.
    pub(super) fn note(&self, shard: u16, failure: &EngineError) {
        match failure {
            EngineError::Full
            | EngineError::NoNamespace(_)
            | EngineError::OverQuota(_)
            | EngineError::RecordFull(_)
            | EngineError::RecordChanging(_)
            // That it has stopped was said once.
            | EngineError::Stopped(_) => tracing::debug!(shard, "a write was refused: {failure}"),
            EngineError::LeaseEnded | EngineError::TooManyLeases => {
                tracing::debug!(shard, "a lease was refused: {failure}");
            }
            _ => self.tell(shard, failure),
        }
    }

    fn tell(&self, shard: u16, failure: &EngineError) {
        match self.admit() {
            Some(untold) => tracing::error!(shard, untold, "a request failed: {failure}"),
            None => tracing::debug!(shard, "a request failed: {failure}"),
        }
    }

    /// How many failures were not told of since the last that was, if this one is to be.
    fn admit(&self) -> Option<u64> {
        let mut lines = self.lines.get();
        let untold = lines.admit(self.env.now());
        self.lines.set(lines);
        untold
    }
}

#[cfg(test)]
mod tests {
    use larder_runtime::simulation::{Simulation, SimulationOptions};

    use super::*;

    #[test]
    fn failures_are_told_of_seldom_and_none_is_forgotten() {
        let mut simulation = Simulation::new(SimulationOptions::new(1));
        let log = FailureLog::new(simulation.env());
        let mut told = Vec::new();
        for _ in 0..100 {
            told.extend((0..10).filter_map(|_| log.admit()));
            simulation.advance(1_000_000_000).expect("nothing stops the run");
        }
        // 100 seconds, ten a second.
        assert_eq!(told.len(), 10, "{told:?}");
        assert_eq!(told[0], 0);
        assert!(told[1..].iter().all(|untold| (99..=109).contains(untold)), "{told:?}");
    }
}
