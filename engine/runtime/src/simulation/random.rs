//! What the simulation draws random numbers for. Each use has a stream of its own, so that one more
//! draw for a fault does not change the order in which tasks run.

pub(super) use crate::random::Random;

#[derive(Clone, Copy)]
pub(super) enum Stream {
    Schedule = 1,
    Yield = 2,
    Latency = 3,
    Fault = 4,
    Application = 5,
    Crash = 6,
    Disk = 7,
    Core = 8,
    Network = 9,
}

impl Stream {
    /// This stream of a run's seed.
    pub(super) const fn of(self, seed: u64) -> Random {
        Random::stream(seed, self as u64)
    }
}
