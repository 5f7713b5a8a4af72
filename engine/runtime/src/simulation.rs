//! The seeded instance of the seam: a single-thread executor, a virtual clock, and a disk that
//! fails the way disks do.
//!
//! A [`Simulation`] is the life of one process on a [`SimDisk`]. It ends with [`Simulation::crash`]
//! (the power fails) or [`Simulation::kill`] (the process dies, the kernel does not); what is left
//! of the disk goes into the next life with [`Simulation::with_disk`].
//!
//! One seed decides everything: the order in which tasks run, how long requests take, where a
//! background loop yields, which faults happen, what survives a crash, and, for a [`SimCore`], how
//! clients' bytes are cut. The same options and the
//! same code replay the same run to the nanosecond, which [`Simulation::trace`] shows. Only a task
//! that another thread wakes would escape the seed.
//!
//! Time is virtual: a turn of a task takes a fraction of a microsecond, and when no task can run,
//! time jumps to the next event.
//!
//! ```
//! use std::path::Path;
//! use larder_runtime::env::{Env, File, IoClass, OpenMode};
//! use larder_runtime::simulation::{Simulation, SimulationOptions};
//!
//! let mut first_life = Simulation::new(SimulationOptions::new(7));
//! let env = first_life.env();
//! first_life
//!     .block_on(async move {
//!         let file = env.open(Path::new("/log"), OpenMode::CreateNew).await?;
//!         env.sync_directory(Path::new("/")).await?;
//!         let mut buffer = env.buffer(4096);
//!         buffer.fill(1);
//!         file.write_durably(IoClass::Commit, 0, buffer).await.0
//!     })
//!     .expect("nothing stops the run")
//!     .expect("nothing fails");
//! let disk = first_life.crash();
//! assert_eq!(disk.read_all("/log"), vec![1; 4096]);
//! let _second_life = Simulation::with_disk(SimulationOptions::new(8), disk);
//! ```

#![forbid(unsafe_code)]

mod clock;
mod content;
mod core;
mod crash;
mod damage;
mod disk;
mod env;
mod executor;
mod faults;
mod file;
mod network;
mod operation;
mod perform;
mod random;
mod seeds;
mod trace;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::env::Env;

pub use core::{SimCore, SimCoreEnv, SimWaker};
pub use disk::SimDisk;
pub use env::SimEnv;
pub use faults::{FailOperation, Failure, FaultPlan, OperationKind, OperationKinds};
pub use file::SimFile;
pub use network::{SimNetwork, SimNetworkOptions};
pub use seeds::for_each_seed;
pub use trace::{TraceEntry, TraceEvent};
pub use wire::SimClient;

use executor::{Executor, MAIN};
use random::Stream;
use world::World;

/// What decides a run.
#[derive(Clone, Debug)]
pub struct SimulationOptions {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// The size of a new disk in bytes; a disk that is passed in keeps its own.
    pub capacity_bytes: u64,
    /// The wall clock at the start, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// How often `yield_if_needed` yields, in millionths.
    pub yield_per_million: u32,
    /// After how many turns a run is given up as endless.
    pub turn_limit: u64,
    /// Whether to keep a record for [`Simulation::trace`].
    pub record_trace: bool,
}

impl SimulationOptions {
    /// No faults, a disk of 1 TiB, the year 2023, and one yield in four.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: FaultPlan::default(),
            capacity_bytes: 1 << 40,
            unix_seconds: 1_700_000_000,
            yield_per_million: 250_000,
            turn_limit: 100_000_000,
            record_trace: false,
        }
    }
}

/// Why a run stopped before its future resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The operation of [`FaultPlan::crash_at_operation`] was about to be performed.
    #[error("the run has reached its crash point")]
    Crashed,
    /// No task can run, and nothing will ever change that.
    #[error("no task can ever run again")]
    Deadlock,
    /// [`SimulationOptions::turn_limit`] was reached.
    #[error("the run has reached its limit of turns")]
    TurnLimit,
    /// The life has ended.
    #[error("the run has ended")]
    Ended,
}

/// One life of a process: executor, clock, and the disk while the life lasts.
pub struct Simulation {
    executor: Executor,
    world: Rc<World>,
    seed: u64,
    turns_left: u64,
}

enum Turn {
    Task(usize),
    /// No task can run; only disk operations or time can change that.
    Idle,
}

impl Simulation {
    /// A process on an empty disk.
    pub fn new(options: SimulationOptions) -> Self {
        let disk = SimDisk::new(options.capacity_bytes);
        Self::with_disk(options, disk)
    }

    /// A process on a disk that has been used before. A disk that was not crashed is treated as if
    /// the process that used it had been killed.
    #[allow(clippy::needless_pass_by_value, reason = "options are built for one life")]
    pub fn with_disk(options: SimulationOptions, disk: SimDisk) -> Self {
        Self {
            executor: Executor::new(Stream::Schedule.of(options.seed)),
            world: World::new(&options, disk.kill_with_seed(options.seed)),
            seed: options.seed,
            turns_left: options.turn_limit,
        }
    }

    /// The world as this process sees it.
    pub fn env(&self) -> SimEnv {
        SimEnv { world: Rc::clone(&self.world) }
    }

    /// Runs tasks in seeded order until `future` resolves. Other tasks stay where they are and go
    /// on with the next call.
    ///
    /// # Errors
    /// [`Stopped::Crashed`] at the crash point, even if `future` resolved in that very turn;
    /// [`Stopped::Deadlock`] when nothing can ever run again; [`Stopped::TurnLimit`].
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stopped> {
        let mut future = pin!(future);
        self.executor.wake_main();
        loop {
            let polled = match self.next_turn()? {
                Turn::Task(MAIN) => self.executor.poll_main(future.as_mut()),
                Turn::Task(task) => {
                    self.executor.poll(task);
                    Poll::Pending
                }
                Turn::Idle if self.world.jump() => Poll::Pending,
                Turn::Idle => return Err(Stopped::Deadlock),
            };
            self.check_stopped()?;
            if let Poll::Ready(value) = polled {
                return Ok(value);
            }
        }
    }

    /// Runs tasks until none can run and no disk operation is under way. Sleepers are not waited
    /// for.
    ///
    /// # Errors
    /// As [`Simulation::block_on`], but for the deadlock.
    pub fn run_until_idle(&mut self) -> Result<(), Stopped> {
        loop {
            match self.next_turn()? {
                Turn::Task(MAIN) => {}
                Turn::Task(task) => self.executor.poll(task),
                Turn::Idle if self.world.has_operations_under_way() => {
                    self.world.jump();
                }
                Turn::Idle => return Ok(()),
            }
            self.check_stopped()?;
        }
    }

    /// Runs tasks for at least this much virtual time.
    ///
    /// # Errors
    /// As [`Simulation::block_on`], but for the deadlock.
    pub fn advance(&mut self, nanoseconds: u64) -> Result<(), Stopped> {
        let sleep = self.env().sleep(nanoseconds);
        self.block_on(sleep)
    }

    fn next_turn(&mut self) -> Result<Turn, Stopped> {
        self.check_stopped()?;
        self.world.fire_due();
        for future in self.world.take_spawned() {
            self.executor.add(future);
        }
        let Some(task) = self.executor.pick() else { return Ok(Turn::Idle) };
        self.turns_left = self.turns_left.checked_sub(1).ok_or(Stopped::TurnLimit)?;
        let duration = self.executor.turn_nanoseconds();
        self.world.begin_turn(task, duration);
        Ok(Turn::Task(task))
    }

    fn check_stopped(&self) -> Result<(), Stopped> {
        self.world.stopped().map_or(Ok(()), Err)
    }

    /// Ends the process because the power fails: every task is dropped, and the disk keeps what was
    /// durable and an arbitrary part of the rest ([`SimDisk::crash_with_seed`]).
    pub fn crash(self) -> SimDisk {
        self.world.end().crash_with_seed(self.seed)
    }

    /// Ends the process alone: every task is dropped, everything written stays, and requests in
    /// flight take effect or not ([`SimDisk::kill_with_seed`]). What was not durable still is not.
    pub fn kill(self) -> SimDisk {
        self.world.end().kill_with_seed(self.seed)
    }

    /// The disk as it is now, with requests in flight.
    pub fn snapshot(&self) -> SimDisk {
        self.env().snapshot()
    }

    /// How many disk operations have been issued: one more than the number of the last.
    pub fn operations(&self) -> u64 {
        self.world.operations()
    }

    /// How many disk operations of these kinds have been issued.
    pub fn operations_of(&self, kinds: OperationKinds) -> u64 {
        self.env().operations_of(kinds)
    }

    /// Sets the wall clock, forwards or backwards. The monotonic clock is not touched.
    pub fn set_unix_seconds(&self, seconds: u64) {
        self.env().set_unix_seconds(seconds);
    }

    /// What has happened so far; empty unless [`SimulationOptions::record_trace`].
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.world.trace()
    }
}

impl Drop for Simulation {
    /// Drops the tasks, which hold the world that would otherwise hold them.
    fn drop(&mut self) {
        drop(self.world.end());
        self.executor.drop_tasks();
    }
}
