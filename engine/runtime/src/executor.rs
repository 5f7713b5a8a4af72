//! The core's tasks, in weighted queues.
//!
//! Virtual time: running for `t` nanoseconds advances a queue by `t * 1000 / shares`, and the queue
//! that is furthest behind runs next. A queue that had nothing to run comes back no earlier than
//! the others' present, so idling earns no credit. One activation ends after [`QUANTUM`], so that
//! the loop looks at the ring.
//!
//! Tasks belong to the thread that made the executor. Only their wakers may leave it: a wake-up
//! from another thread goes through a locked list and wakes the core.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use async_task::Runnable;
use slab::Slab;

use crate::clock::monotonic_nanoseconds;
use crate::core_env::CoreWaker;
use crate::env::{TASK_QUEUES, TaskQueue};
use crate::wake::RemoteWaker;

/// How long tasks may run before the loop looks at the ring again, in nanoseconds.
pub(crate) const QUANTUM: u64 = 200_000;

/// The queues' shares, in the order of [`TaskQueue`].
pub(crate) const SHARES: [u64; TASK_QUEUES] = [1000, 400, 200, 100, 100, 50];
const VIRTUAL_SCALE: u64 = 1000;

/// The tasks of one core. Shared with the tasks' wakers, which may be on any thread.
pub(crate) struct Executor {
    core: usize,
    owner: u64,
    local: UnsafeCell<Local>,
    quantum_end: Cell<u64>,
    /// Tasks woken by other threads; `None` once the core is gone.
    remote: Mutex<Option<Vec<Scheduled>>>,
    has_remote: AtomicBool,
    waker: RemoteWaker,
}

// SAFETY: `local` and `quantum_end` are touched only by methods that first check that they run on
// the owner's thread (`with_local`); everything else is `Sync` itself.
unsafe impl Sync for Executor {}
// SAFETY: as above. The last handle may be dropped by another thread's waker, but by then the core
// has closed the executor, which emptied `local` of everything that is tied to the thread.
unsafe impl Send for Executor {}

type Scheduled = (TaskQueue, Runnable);

struct Local {
    queues: [Queue; TASK_QUEUES],
    /// A waker for every task that has not ended, to find them at shutdown.
    tasks: Slab<Waker>,
    /// The virtual time of the queue that ran last.
    present: u64,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Runnable>,
    virtual_time: u64,
}

impl Executor {
    /// An executor whose tasks run on the calling thread.
    pub(crate) fn new(core: usize, waker: RemoteWaker) -> Arc<Self> {
        let local =
            Local { queues: Default::default(), tasks: Slab::new(), present: 0, is_closed: false };
        Arc::new(Self {
            core,
            owner: thread_number(),
            local: UnsafeCell::new(local),
            quantum_end: Cell::new(0),
            remote: Mutex::new(Some(Vec::new())),
            has_remote: AtomicBool::new(false),
            waker,
        })
    }

    /// Starts a task. After [`Executor::close`] the future is dropped instead.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        queue: TaskQueue,
        future: impl Future<Output = ()> + 'static,
    ) {
        if self.with_local(|local| local.is_closed) {
            return;
        }
        let index = self.with_local(|local| local.tasks.insert(Waker::noop().clone()));
        let registration = Registration { executor: Arc::clone(self), index };
        let future = async move {
            let _registration = registration;
            future.await;
        };
        let executor = Arc::clone(self);
        let schedule = move |runnable| executor.schedule(queue, runnable);
        // SAFETY: the future and `schedule` are 'static. `schedule` is Send and Sync. A runnable is
        // only run or dropped by the owner's thread: `schedule` puts it into `local` there, and
        // elsewhere into `remote`, which the owner alone empties.
        let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
        let waker = runnable.waker();
        self.with_local(|local| local.tasks[index] = waker);
        task.detach();
        runnable.schedule();
    }

    fn schedule(&self, queue: TaskQueue, runnable: Runnable) {
        if self.is_owner() {
            self.with_local(|local| local.push(queue, runnable));
            return;
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = remote.as_mut() else {
            // The core is gone, and this thread must not drop its futures.
            std::mem::forget(runnable);
            return;
        };
        list.push((queue, runnable));
        self.has_remote.store(true, Ordering::Release);
        drop(remote);
        self.waker.wake();
    }

    /// Whether a task is ready to run.
    pub(crate) fn has_ready(&self) -> bool {
        self.has_remote.load(Ordering::Acquire)
            || self.with_local(|local| local.queues.iter().any(|queue| !queue.ready.is_empty()))
    }

    /// When the running activation has to give the core back, in nanoseconds.
    pub(crate) fn quantum_end(&self) -> u64 {
        assert!(self.is_owner(), "tasks run on their core's thread");
        self.quantum_end.get()
    }

    /// Starts an activation now.
    pub(crate) fn start_quantum(&self, now: u64) {
        assert!(self.is_owner(), "tasks run on their core's thread");
        self.quantum_end.set(now + QUANTUM);
    }

    /// Runs ready tasks until there are none or the quantum is over. A task's panic is reported
    /// and goes on to the caller.
    pub(crate) fn run(&self) {
        self.take_remote();
        if !self.has_ready() {
            return;
        }
        let mut started = monotonic_nanoseconds();
        self.start_quantum(started);
        while let Some((queue, runnable)) = self.with_local(Local::pop) {
            let outcome = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            if let Err(panic) = outcome {
                let core = self.core;
                tracing::error!(core, ?queue, "a task panicked; its core stops");
                resume_unwind(panic);
            }
            let ended = monotonic_nanoseconds();
            self.with_local(|local| local.charge(queue, ended - started));
            if ended >= self.quantum_end.get() {
                return;
            }
            started = ended;
        }
    }

    fn take_remote(&self) {
        if !self.has_remote.swap(false, Ordering::Acquire) {
            return;
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = remote.as_mut().map(std::mem::take).unwrap_or_default();
        drop(remote);
        for (queue, runnable) in woken {
            self.with_local(|local| local.push(queue, runnable));
        }
    }

    /// Drops every task; later ones are dropped as they come.
    pub(crate) fn close(&self) {
        let tasks = self.with_local(|local| {
            local.is_closed = true;
            std::mem::take(&mut local.tasks)
        });
        for (_, waker) in tasks {
            waker.wake();
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = remote.take();
        drop(remote);
        drop(woken);
        // Dropping a future may wake another task, which then is ready too.
        while let Some((_, runnable)) = self.with_local(Local::pop) {
            drop(runnable);
        }
    }

    fn is_owner(&self) -> bool {
        thread_number() == self.owner
    }

    /// The only access to `local`. `action` must not run code of tasks or wakers, which could come
    /// back here.
    fn with_local<T>(&self, action: impl FnOnce(&mut Local) -> T) -> T {
        assert!(self.is_owner(), "tasks run on their core's thread");
        // SAFETY: this is the owner's thread, and `action` does not reenter.
        action(unsafe { &mut *self.local.get() })
    }

    #[cfg(test)]
    fn tasks(&self) -> usize {
        self.with_local(|local| local.tasks.len())
    }
}

impl Local {
    fn push(&mut self, queue: TaskQueue, runnable: Runnable) {
        let present = self.present;
        let queue = &mut self.queues[queue as usize];
        if queue.ready.is_empty() {
            queue.virtual_time = queue.virtual_time.max(present);
        }
        queue.ready.push_back(runnable);
    }

    /// The next task of the queue that is furthest behind; of equals, the more urgent one.
    fn pop(&mut self) -> Option<Scheduled> {
        const ORDER: [TaskQueue; TASK_QUEUES] = [
            TaskQueue::Foreground,
            TaskQueue::Flush,
            TaskQueue::Compaction,
            TaskQueue::GarbageCollection,
            TaskQueue::Scan,
            TaskQueue::Maintenance,
        ];
        let ready =
            ORDER.into_iter().filter(|&queue| !self.queues[queue as usize].ready.is_empty());
        let queue = ready.min_by_key(|&queue| self.queues[queue as usize].virtual_time)?;
        let chosen = &mut self.queues[queue as usize];
        self.present = self.present.max(chosen.virtual_time);
        chosen.ready.pop_front().map(|runnable| (queue, runnable))
    }

    fn charge(&mut self, queue: TaskQueue, nanoseconds: u64) {
        let charge = nanoseconds * VIRTUAL_SCALE / SHARES[queue as usize];
        self.queues[queue as usize].virtual_time += charge;
    }
}

/// Takes the task off the list of tasks when its future is dropped.
struct Registration {
    executor: Arc<Executor>,
    index: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let waker = self.executor.with_local(|local| local.tasks.try_remove(self.index));
        drop(waker);
    }
}

/// A number that no other thread of the process has or will have.
pub(crate) fn thread_number() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests;
