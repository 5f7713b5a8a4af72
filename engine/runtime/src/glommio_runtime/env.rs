//! glommio's instance of the seam.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::timer::Timer;

use super::file::{self, GlommioFile, kernel_error};
use super::network::GlommioNetwork;
use super::shared::{Names, Shared};
use crate::buffer::{self, Buffer};
use crate::clock;
use crate::core_env::{CoreEnv, CoreFigures, CoreTime};
use crate::directories;
use crate::env::{DirectoryEntry, Env, IoClass, OpenMode, TaskQueue};
use crate::ring_file::describe;
use crate::wake::RemoteWaker;

/// A handle on one core, for the code that runs on it.
#[derive(Clone)]
pub struct GlommioEnv {
    shared: Rc<Shared>,
}

impl GlommioEnv {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared }
    }

    /// Operations of glommio's that have not ended.
    pub fn operations(&self) -> usize {
        self.shared.in_flight()
    }

    /// Works with names in its turn, and says what failed.
    fn with_names<W>(
        &self,
        operation: &'static str,
        path: &Path,
        work: W,
    ) -> impl Future<Output = io::Result<()>> + 'static
    where
        W: Future<Output = io::Result<()>> + 'static,
    {
        let (shared, path) = (Rc::clone(&self.shared), path.to_path_buf());
        self.shared.operation(async move {
            let names = Names::hold(shared).await;
            let result = work.await;
            drop(names);
            result.map_err(|error| describe(operation, &path, error))
        })
    }
}

impl std::fmt::Debug for GlommioEnv {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "GlommioEnv({} tasks)", self.shared.tasks.len())
    }
}

/// Sleeps by glommio's timer, which is made when the sleep is first polled: it needs the executor
/// to be running.
pub(super) fn sleep(nanoseconds: u64) -> impl Future<Output = ()> + 'static {
    let deadline = clock::monotonic_nanoseconds().saturating_add(nanoseconds);
    let mut timer: Option<Timer> = None;
    std::future::poll_fn(move |context| {
        loop {
            let left = deadline.saturating_sub(clock::monotonic_nanoseconds());
            if left == 0 {
                return Poll::Ready(());
            }
            let running = timer.get_or_insert_with(|| Timer::new(Duration::from_nanos(left)));
            if Pin::new(running).poll(context).is_pending() {
                return Poll::Pending;
            }
            timer = None;
        }
    })
}

impl Env for GlommioEnv {
    type File = GlommioFile;

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
        self.shared.tasks.spawn(&self.shared.clock, queue, future);
    }

    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        self.shared.set_urgency(claimant, queue, urgency);
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        sleep(nanoseconds)
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        let tasks = Rc::clone(&self.shared.tasks);
        async move {
            let is_over = tasks.preemption.attend(clock::monotonic_nanoseconds());
            if is_over || glommio::executor().need_preempt() {
                futures_lite::future::yield_now().await;
            }
        }
    }

    fn buffer(&self, len: usize) -> Buffer {
        self.shared.pool.buffer(len)
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<GlommioFile>> + 'static {
        file::open(Rc::clone(&self.shared), path.to_path_buf(), mode)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        directories::list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        directories::create(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let (old, new) = (from.to_path_buf(), to.to_path_buf());
        let work = async move { glommio::io::rename(&old, &new).await.map_err(kernel_error) };
        self.with_names("rename", from, work)
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let name = path.to_path_buf();
        let work = async move { glommio::io::remove(&name).await.map_err(kernel_error) };
        self.with_names("remove", path, work)
    }

    /// glommio's `Directory::sync` is an `fdatasync` (`io/directory.rs`), which need not bring the
    /// change of a name to the device; so this is an `fsync`, on glommio's thread for what blocks.
    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        let path = directory.to_path_buf();
        self.shared.operation(async move {
            let synced = path.clone();
            let result = glommio::executor().spawn_blocking(move || sync_blocking(&synced)).await;
            result.map_err(|error| describe("sync directory", &path, error))
        })
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        directories::free_space(directory)
    }
}

#[allow(clippy::disallowed_methods, reason = "it is how the runtime makes names durable")]
fn sync_blocking(directory: &Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

impl CoreEnv for GlommioEnv {
    type Network = GlommioNetwork;
    type Waker = RemoteWaker;

    #[inline]
    fn precise_now(&self) -> u64 {
        clock::monotonic_nanoseconds()
    }

    fn unix_microseconds(&self) -> u64 {
        clock::unix_microseconds()
    }

    fn figures(&self) -> CoreFigures {
        CoreFigures {
            disk: self.shared.disk_counters(),
            turns: self.shared.turns.get(),
            // glommio does not tell what its tasks take so that it could be added up.
            time: CoreTime { task_shares: self.shared.tasks.shares(), ..CoreTime::default() },
            receive_buffer_bytes: self.shared.receive_buffer_bytes,
            disk_buffer_bytes: buffer::thread_bytes() + self.shared.slab_bytes,
        }
    }
    fn set_io_class(
        &self,
        class: IoClass,
        shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
    ) -> Result<(), String> {
        self.shared.set_io_class(class, shares, bandwidth_max)
    }
}
