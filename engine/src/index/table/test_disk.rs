//! A simulated disk for tests of tables.

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};

use larder_runtime::env::Env;
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation,
    SimulationOptions,
};

/// Where the tables of tests are.
pub(crate) const DIRECTORY: &str = "/shard-000";

/// The life of a process on a disk. Tables of a life cannot be read in the next.
pub(crate) struct TestDisk {
    life: RefCell<Simulation>,
    /// The world of this life, for those who run in it.
    env: RefCell<SimEnv>,
}

impl TestDisk {
    /// A disk with an empty directory.
    pub(crate) fn new() -> Self {
        let mut disk = SimDisk::new(1 << 30);
        disk.create_directory(DIRECTORY);
        let life = start(disk);
        Self { env: RefCell::new(life.env()), life: RefCell::new(life) }
    }

    /// The world of this life.
    pub(crate) fn env(&self) -> SimEnv {
        self.env.borrow().clone()
    }

    /// Runs a future of this life.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.life.borrow_mut().block_on(future).expect("nothing stops the run")
    }

    /// Runs a future, and says how often another task ran meanwhile. Whenever a task offers the
    /// core back, the other one may take it.
    pub(crate) fn count_turns<T>(&self, future: impl Future<Output = T>) -> (T, u64) {
        let env = self.env();
        let turns = RefCell::new(0);
        let other = async {
            loop {
                *turns.borrow_mut() += 1;
                env.sleep(1).await;
            }
        };
        let done = self.block_on(futures_lite::future::or(future, other));
        (done, turns.into_inner())
    }

    /// Ends this life and changes its disk for the next.
    pub(crate) fn change(&self, change: impl FnOnce(&mut SimDisk)) {
        let fresh = Simulation::new(SimulationOptions::new(1));
        let mut disk = self.life.replace(fresh).kill();
        change(&mut disk);
        let next = start(disk);
        self.env.replace(next.env());
        self.life.replace(next);
    }

    /// Ends this life and replaces a file for the next.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) {
        self.change(|disk| {
            disk.truncate(path, 0);
            disk.write_raw(path, 0, bytes);
        });
    }

    /// The contents of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.env().snapshot().read_all(path)
    }

    /// The names of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.env().snapshot().files().into_iter().map(|(path, _)| path).collect()
    }

    /// The number of reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.env().operations_of(OperationKinds::of(&[OperationKind::Read]))
    }

    /// Lets `count` more writes and syncs succeed; all of them when it is `None`.
    pub(crate) fn fail_writes_after(&self, count: Option<u64>) {
        let among = OperationKinds::of(&[OperationKind::Write, OperationKind::Sync]);
        let before = self.env().operations_of(among);
        let fail_operation = count.map(|count| FailOperation {
            index: before + count,
            among,
            failure: Failure::Io,
            sticky: true,
        });
        self.env().set_faults(FaultPlan { fail_operation, ..FaultPlan::default() });
    }
}

fn start(disk: SimDisk) -> Simulation {
    let options = SimulationOptions { yield_per_million: 1_000_000, ..SimulationOptions::new(1) };
    Simulation::with_disk(options, disk)
}
