//! The production instance of the seam: one core's disk, clock and tasks on its ring.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::buffer::{self, Buffer};
use crate::buffer_pool::BufferPool;
use crate::clock::{self, Clock};
use crate::core_env::{CoreEnv, CoreFigures, LoopCounters};
use crate::directories;
use crate::disk::{Disk, DiskCounters};
use crate::disk_request::{Request, Work};
use crate::env::{DirectoryEntry, Env, IoClass, OpenMode, TaskQueue};
use crate::executor::Executor;
use crate::random::Random;
use crate::ring_file::{self, RequestFuture, RingFile, describe};
use crate::ring_network::RingNetwork;
use crate::timers::{TimerKey, Timers};
use crate::wake::RemoteWaker;

/// What the core's loop, its tasks and its files share. Everything but the executor stays on one
/// thread.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) disk: RefCell<Disk>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) pool: BufferPool,
    pub(crate) random: RefCell<Random>,
    pub(crate) counters: Cell<LoopCounters>,
    pub(crate) receive_buffer_bytes: usize,
}

/// A handle on one core, for the code that runs on it.
#[derive(Clone)]
pub struct RingEnv {
    shared: Rc<Shared>,
}

impl RingEnv {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }

    /// What the core has asked of its disk so far.
    pub fn disk_counters(&self) -> DiskCounters {
        self.shared.disk.borrow().counters(self.shared.clock.now())
    }

    /// What the core's loop has done so far.
    pub fn loop_counters(&self) -> LoopCounters {
        self.shared.counters.get()
    }

    /// Disk requests that have not ended, or whose result has not been taken.
    pub fn disk_requests(&self) -> usize {
        self.shared.disk.borrow().requests()
    }

    /// A request on one or two names, given as the kernel takes them.
    fn name_request(
        &self,
        operation: &'static str,
        path: &Path,
        work: io::Result<Work>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let request = work.map(|work| RequestFuture::start(&self.shared, Request::of_names(work)));
        let path = path.to_path_buf();
        async move {
            let request = request.map_err(|error| describe(operation, &path, error))?;
            request.success(operation, &path).await.map(drop)
        }
    }
}

impl std::fmt::Debug for RingEnv {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RingEnv({:?})", self.loop_counters())
    }
}

impl Env for RingEnv {
    type File = RingFile;

    #[inline]
    fn now(&self) -> u64 {
        self.shared.clock.now()
    }

    fn unix_seconds(&self) -> u64 {
        clock::unix_seconds()
    }

    fn random(&self) -> u64 {
        self.shared.random.borrow_mut().bits()
    }

    fn spawn(&self, queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        self.shared.executor.spawn(queue, future);
    }

    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        let changed = self.shared.disk.borrow_mut().claim_urgency(claimant, queue, urgency);
        for (queue, urgency) in TaskQueue::ALL.into_iter().zip(changed.into_iter().flatten()) {
            self.shared.executor.set_urgency(queue, urgency);
        }
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        let deadline = clock::monotonic_nanoseconds().saturating_add(nanoseconds);
        Sleep { shared: Rc::clone(&self.shared), deadline, timer: None }
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        let shared = Rc::clone(&self.shared);
        let mut has_yielded = false;
        std::future::poll_fn(move |context| {
            let is_due = || clock::monotonic_nanoseconds() >= shared.executor.quantum_end();
            if has_yielded || !is_due() {
                return Poll::Ready(());
            }
            has_yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn buffer(&self, len: usize) -> Buffer {
        self.shared.pool.buffer(len)
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<RingFile>> + 'static {
        ring_file::open(Rc::clone(&self.shared), path.to_path_buf(), mode)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        directories::list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        directories::create(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let names = ring_file::kernel_path(from)
            .and_then(|from| Ok(Work::Rename { from, to: ring_file::kernel_path(to)? }));
        self.name_request("rename", from, names)
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let names = ring_file::kernel_path(path).map(|path| Work::Remove { path });
        self.name_request("remove", path, names)
    }

    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        ring_file::sync_directory(Rc::clone(&self.shared), directory.to_path_buf())
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        directories::free_space(directory)
    }
}

impl CoreEnv for RingEnv {
    type Network = RingNetwork;
    type Waker = RemoteWaker;

    #[inline]
    fn precise_now(&self) -> u64 {
        clock::monotonic_nanoseconds()
    }

    fn unix_microseconds(&self) -> u64 {
        clock::unix_microseconds()
    }

    fn figures(&self) -> CoreFigures {
        let receive_buffer_bytes = self.shared.receive_buffer_bytes;
        CoreFigures {
            disk: self.disk_counters(),
            turns: self.loop_counters(),
            time: self.shared.executor.figures(),
            receive_buffer_bytes,
            disk_buffer_bytes: buffer::thread_bytes().saturating_sub(receive_buffer_bytes),
        }
    }

    fn set_io_class(
        &self,
        class: IoClass,
        shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
    ) -> Result<(), String> {
        let now = self.shared.clock.now();
        self.shared.disk.borrow_mut().set_class(class, shares, bandwidth_max, now)
    }
}

/// A task's sleep.
struct Sleep {
    shared: Rc<Shared>,
    deadline: u64,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.clock.now() >= self.deadline {
            return Poll::Ready(());
        }
        let shared = Rc::clone(&self.shared);
        let mut timers = shared.timers.borrow_mut();
        match self.timer {
            Some(timer) => timers.rearm(timer, context.waker()),
            None => self.timer = Some(timers.start(self.deadline, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.timer.and_then(|timer| self.shared.timers.borrow_mut().stop(timer));
        drop(waker);
    }
}
