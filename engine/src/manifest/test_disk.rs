//! A life on a simulated disk, with what the manifest's tests want to know and to do.

use std::path::{Path, PathBuf};

use larder_runtime::env::{Env, OpenMode};
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation,
    SimulationOptions, Stopped,
};

/// What changes a disk or makes changes durable.
pub(super) const CHANGES: OperationKinds = OperationKinds::of(&[
    OperationKind::Open,
    OperationKind::Write,
    OperationKind::Sync,
    OperationKind::Allocate,
    OperationKind::Rename,
    OperationKind::Remove,
    OperationKind::SyncDirectory,
    OperationKind::CreateDirectory,
]);

pub(super) struct TestDisk {
    life: Simulation,
}

impl TestDisk {
    /// An empty disk with the directory that shards' directories are in.
    pub(super) fn new() -> Self {
        let mut disk = SimDisk::new(1 << 40);
        disk.create_directory("/store");
        Self::with(disk)
    }

    fn with(disk: SimDisk) -> Self {
        Self { life: Simulation::with_disk(SimulationOptions::new(1), disk) }
    }

    pub(super) fn env(&self) -> SimEnv {
        self.life.env()
    }

    /// Runs what nothing stops.
    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.life.block_on(future).expect("nothing stops the run")
    }

    /// Runs what the crash point may stop.
    pub(super) fn run_to_crash<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        match self.life.block_on(future) {
            Ok(value) => Some(value),
            Err(stopped) => {
                assert_eq!(stopped, Stopped::Crashed);
                None
            }
        }
    }

    /// How many operations that change the disk there have been in this life.
    pub(super) fn changes(&self) -> u64 {
        self.life.operations_of(CHANGES)
    }

    /// Lets the power fail when this many changes have been made.
    pub(super) fn crash_at(&self, changes: u64) {
        self.env().set_faults(FaultPlan {
            crash_at_operation: Some(changes),
            crash_among: CHANGES,
            ..FaultPlan::default()
        });
    }

    /// Lets the change that this many precede fail.
    pub(super) fn fail_at(&self, changes: u64) {
        let fail = FailOperation::once(changes, Failure::Io).among(CHANGES);
        self.env().set_faults(FaultPlan { fail_operation: Some(fail), ..FaultPlan::default() });
    }

    /// Leaves so much free space.
    pub(super) fn set_free(&self, bytes: u64) {
        self.env().set_capacity(self.life.snapshot().used_bytes() + bytes);
    }

    /// Lets nothing get space any more, for want of quota.
    pub(super) fn use_quota_up(&self) {
        let allocations = OperationKinds::of(&[OperationKind::Allocate]);
        let fail = FailOperation::sticky(0, Failure::QuotaExceeded).among(allocations);
        self.env().set_faults(FaultPlan { fail_operation: Some(fail), ..FaultPlan::default() });
    }

    /// Ends all faults.
    pub(super) fn set_honest(&self) {
        self.env().set_faults(FaultPlan::default());
    }

    /// The disk as it may be found after a power failure now.
    pub(super) fn crash(&self, seed: u64) -> Self {
        Self::with(self.life.snapshot().crash_with_seed(seed))
    }

    /// A copy of the disk, as another process sees it.
    pub(super) fn duplicate(&self) -> Self {
        Self::with(self.life.snapshot())
    }

    /// The file names, without their directories.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.life.snapshot().files().into_iter().map(|(path, _)| name(path)).collect()
    }

    /// The contents of a file.
    pub(super) fn contents(&self, path: &Path) -> Vec<u8> {
        self.life.snapshot().read_all(path)
    }

    /// This disk with a file replaced behind the program's back, durably.
    pub(super) fn plant(mut self, path: &Path, bytes: &[u8]) -> Self {
        let (env, directory) = (self.env(), path.parent().expect("files are in directories"));
        if !self.life.snapshot().exists(path) {
            env.create_directory(directory).expect("creates");
            self.run(async {
                drop(env.open(path, OpenMode::CreateNew).await.expect("creates"));
                env.sync_directory(directory).await.expect("syncs");
            });
        }
        let mut disk = self.life.kill();
        disk.truncate(path, 0);
        disk.write_raw(path, 0, bytes);
        Self::with(disk)
    }

    /// This disk without a file.
    pub(super) fn without(mut self, path: &Path) -> Self {
        let env = self.env();
        self.run(env.remove(path)).expect("removes");
        Self::with(self.life.kill())
    }
}
