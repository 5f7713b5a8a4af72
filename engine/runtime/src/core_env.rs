//! A core, as the service that answers its connections sees it: the seam of the engine and more.
//!
//! The service is generic over [`CoreEnv`], so the same code runs on the ring and in the
//! simulation, and each pays for its own instance alone: all calls are static.

use crate::cpu_time::CpuTimes;
use crate::disk::DiskCounters;
use crate::env::{Env, IoClass, TASK_QUEUES};
use crate::network::Network;
use crate::stalls::StallFigures;

/// What a core's loop has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Times that the thread went to sleep.
    pub parks: u64,
    /// Wake-ups from other threads that came through the eventfd.
    pub wakes: u64,
}

/// What has become of a core's time so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// What it was spent on.
    pub cpu: CpuTimes,
    /// How often something had it for too long.
    pub stalls: StallFigures,
    /// The shares of the task queues now, by [`TaskQueue`](crate::env::TaskQueue).
    pub task_shares: [u32; TASK_QUEUES],
}

/// A core in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreFigures {
    /// What it has asked of its disk so far.
    pub disk: DiskCounters,
    /// What its loop has done so far.
    pub turns: LoopCounters,
    /// What has become of its time so far.
    pub time: CoreTime,
    /// The memory of its receive buffers, in bytes.
    pub receive_buffer_bytes: usize,
    /// The memory of its other buffers, in bytes: of the pool, and those that do not fit it.
    pub disk_buffer_bytes: usize,
}

/// One core: its disk, clock, tasks and connections.
pub trait CoreEnv: Env {
    /// Its connections.
    type Network: Network;
    /// What wakes it.
    type Waker: CoreWaker;

    /// The monotonic clock as it is now; [`Env::now`] is the time at which the turn began.
    fn precise_now(&self) -> u64;

    /// Microseconds since the Unix epoch, read from the clock itself.
    fn unix_microseconds(&self) -> u64;

    /// The core in numbers. To be asked on the core's thread.
    fn figures(&self) -> CoreFigures;

    /// Changes how a class of disk requests shares the device with the core's others: its shares,
    /// and its cap in bytes a second. None leaves either as it is; a cap of `Some(None)` takes the
    /// cap away. To be called on the core's thread.
    ///
    /// # Errors
    /// What is out of range, and the range; nothing has changed then.
    fn set_io_class(
        &self,
        class: IoClass,
        shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
    ) -> Result<(), String>;
}

/// Wakes a core from another one; cheap while that core is awake.
pub trait CoreWaker: Clone + 'static {
    /// Makes the core look at its mailboxes and tasks again: at once if it sleeps, before it next
    /// goes to sleep otherwise.
    fn wake(&self);
}
