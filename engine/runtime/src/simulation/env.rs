//! The simulated world as one core sees it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::clock::{Event, EventId};
use super::disk::SimDisk;
use super::faults::{Failure, FaultPlan, OperationKind, OperationKinds};
use super::file::SimFile;
use super::operation::{Operation, Request};
use super::world::World;
use crate::buffer::Buffer;
use crate::env::{DirectoryEntry, Env, IoClass, OpenMode, TaskQueue};

/// What fresh buffers are filled with, so that a byte which nobody wrote is seen as such.
pub(super) const GARBAGE: u8 = 0xA5;

/// The simulated instance of [`Env`]. Clones share one run.
///
/// Disk requests are submitted when their future is first polled. Dropping a future takes its
/// request back or lets it go on, as the seed decides. When the run has stopped, requests never
/// resolve. Task queues have no weights here: any task that can run may be the next.
#[derive(Clone)]
pub struct SimEnv {
    pub(super) world: Rc<World>,
}

impl SimEnv {
    /// The disk as it is now, with requests in flight: a moment to be crashed in any number of
    /// ways with [`SimDisk::crash_with_seed`] while the run goes on.
    pub fn snapshot(&self) -> SimDisk {
        self.world.state().disk.clone()
    }

    /// How many disk operations have been issued in this run.
    pub fn operations(&self) -> u64 {
        self.world.operations()
    }

    /// How many disk operations of these kinds have been issued in this run.
    pub fn operations_of(&self, kinds: OperationKinds) -> u64 {
        self.world.state().counts.of(kinds)
    }

    /// How many reads of this class have been asked for in this run.
    pub fn reads_of(&self, class: IoClass) -> u64 {
        self.world.state().reads[class as usize]
    }

    /// How many files this process has open now, and how many it has had open at a time.
    pub fn open_handles(&self) -> (usize, usize) {
        self.world.state().disk.open_handles()
    }

    /// Sets the faults from here on. Operations are counted from the start of the run as before.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.world.state().faults = faults;
    }

    /// Sets the wall clock, forwards or backwards. [`Env::now`] is not touched.
    pub fn set_unix_seconds(&self, seconds: u64) {
        self.world.state().clock.set_unix_seconds(seconds);
    }

    /// Changes the size of the disk.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.world.state().disk.set_capacity(capacity_bytes);
    }

    /// How urgent a queue's work is, in thousandths of its usual shares, by what was said with
    /// [`Env::set_urgency`].
    pub fn urgency(&self, queue: TaskQueue) -> u32 {
        self.world.state().urgencies.of(queue)
    }

    /// Lets virtual time pass within a turn.
    pub(super) fn pass(&self, nanoseconds: u64) {
        self.world.state().clock.pass(nanoseconds);
    }

    fn perform(&self, request: Request) -> impl Future<Output = io::Result<()>> + 'static {
        let operation = Operation::new(&self.world, request);
        async move { operation.await.result }
    }
}

impl Env for SimEnv {
    type File = SimFile;

    fn now(&self) -> u64 {
        self.world.state().clock.now()
    }

    fn unix_seconds(&self) -> u64 {
        self.world.state().clock.unix_seconds()
    }

    fn random(&self) -> u64 {
        self.world.state().application_random.bits()
    }

    fn spawn(&self, _queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        self.world.spawn(Box::pin(future));
    }

    /// Task queues have no weights here, so it is only noted.
    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        self.world.state().urgencies.claim(claimant, queue, urgency);
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        let deadline = self.now().saturating_add(nanoseconds);
        Sleep { world: Rc::clone(&self.world), deadline, registered: None }
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        let world = Rc::clone(&self.world);
        async move {
            if world.should_yield() {
                futures_lite::future::yield_now().await;
            }
        }
    }

    fn buffer(&self, len: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(len);
        buffer.fill(GARBAGE);
        buffer
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<SimFile>> + 'static {
        let world = Rc::clone(&self.world);
        let operation = Operation::new(&world, Request::open(path.to_path_buf(), mode));
        async move {
            let outcome = operation.await;
            outcome.result?;
            let file = outcome.opened.expect("a successful open names the file");
            Ok(SimFile::new(world, file, mode != OpenMode::Read))
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.world.state().disk.list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.world.state();
        let failure = state.faults.failure(OperationKind::CreateDirectory, &state.counts);
        if !state.admit(OperationKind::CreateDirectory) {
            return Err(Failure::Io.error());
        }
        match failure {
            Some(failure) => Err(failure.error()),
            None => state.disk.make_directories(directory),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.perform(Request::Rename { from: from.to_path_buf(), to: to.to_path_buf() })
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.perform(Request::Remove { path: path.to_path_buf() })
    }

    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let covered = self.world.state().disk.sequence;
        self.perform(Request::SyncDirectory { path: directory.to_path_buf(), covered })
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        let state = self.world.state();
        state.disk.lookup_directory(directory)?;
        Ok(state.disk.free_bytes())
    }
}

struct Sleep {
    world: Rc<World>,
    deadline: u64,
    registered: Option<(EventId, Waker)>,
}

impl Sleep {
    fn unregister(&mut self) {
        let Some((id, _)) = self.registered.take() else { return };
        let event = self.world.state().clock.cancel(id);
        drop(event);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.state().clock.now() >= self.deadline {
            self.unregister();
            return Poll::Ready(());
        }
        let waker = context.waker();
        let is_known = self.registered.as_ref().is_some_and(|(_, known)| known.will_wake(waker));
        if !is_known {
            self.unregister();
            let event = Event::Wake(waker.clone());
            let id = self.world.state().clock.schedule(self.deadline, event);
            self.registered = Some((id, waker.clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.unregister();
    }
}
