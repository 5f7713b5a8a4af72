//! The core's tasks, in weighted queues, and the account of the core's time.
//!
//! Which queue runs next is for [`TaskShares`] to say. One activation ends after [`QUANTUM`], so
//! that the loop looks at the ring, and earlier where the service has more to do and it is its
//! turn. The clock is read once for each task that runs; the time between activations is the
//! service's, and its ends are moments that the loop has read anyway.
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

use async_task::Builder;
use slab::Slab;

use crate::clock::monotonic_nanoseconds;
use crate::core_env::{CoreTime, CoreWaker};
use crate::cpu_time::{CpuLedger, Spent};
use crate::env::{TASK_QUEUES, TaskQueue};
use crate::stalls::{Stalls, task_name};
use crate::task_shares::{QueueSet, TaskShares};
use crate::wake::RemoteWaker;

/// How long tasks may run before the loop looks at the ring again, in nanoseconds.
pub(crate) const QUANTUM: u64 = 200_000;

/// The tasks of one core. Shared with the tasks' wakers, which may be on any thread.
pub(crate) struct Executor {
    core: usize,
    owner: u64,
    local: UnsafeCell<Local>,
    quantum_end: Cell<u64>,
    /// Tasks woken by other threads; `None` once the core is gone.
    remote: Mutex<Option<Vec<Runnable>>>,
    has_remote: AtomicBool,
    waker: RemoteWaker,
}

// SAFETY: `local` and `quantum_end` are touched only by methods that first check that they run on
// the owner's thread (`with_local`); everything else is `Sync` itself.
unsafe impl Sync for Executor {}
// SAFETY: as above. The last handle may be dropped by another thread's waker, but by then the core
// has closed the executor, which emptied `local` of everything that is tied to the thread.
unsafe impl Send for Executor {}

type Runnable = async_task::Runnable<TaskKind>;

/// What is known of a task besides its future.
#[derive(Clone, Copy, Debug)]
struct TaskKind {
    queue: TaskQueue,
    /// The type of its future, which names the function that it is made of.
    type_name: &'static str,
}

struct Local {
    ready: [VecDeque<Runnable>; TASK_QUEUES],
    shares: TaskShares,
    cpu: CpuLedger,
    stalls: Stalls,
    /// A waker for every task that has not ended, to find them at shutdown.
    tasks: Slab<Waker>,
    is_closed: bool,
}

impl Executor {
    /// An executor whose tasks run on the calling thread. Whatever holds the core for longer than
    /// `stall_bound` nanoseconds is told of; 0 tells of nothing.
    pub(crate) fn new(core: usize, waker: RemoteWaker, stall_bound: u64) -> Arc<Self> {
        let local = Local {
            ready: Default::default(),
            shares: TaskShares::default(),
            cpu: CpuLedger::new(monotonic_nanoseconds()),
            stalls: Stalls::new(stall_bound),
            tasks: Slab::new(),
            is_closed: false,
        };
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
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Arc<Self>,
        queue: TaskQueue,
        future: F,
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
        let schedule = move |runnable| executor.schedule(runnable);
        let kind = TaskKind { queue, type_name: std::any::type_name::<F>() };
        let builder = Builder::new().metadata(kind);
        // SAFETY: the future and `schedule` are 'static. `schedule` is Send and Sync. A runnable is
        // only run or dropped by the owner's thread: `schedule` puts it into `local` there, and
        // elsewhere into `remote`, which the owner alone empties.
        let (runnable, task) = unsafe { builder.spawn_unchecked(|_| future, schedule) };
        let waker = runnable.waker();
        self.with_local(|local| local.tasks[index] = waker);
        task.detach();
        runnable.schedule();
    }

    fn schedule(&self, runnable: Runnable) {
        if self.is_owner() {
            self.with_local(|local| local.push(runnable));
            return;
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = remote.as_mut() else {
            // The core is gone, and this thread must not drop its futures.
            std::mem::forget(runnable);
            return;
        };
        list.push(runnable);
        self.has_remote.store(true, Ordering::Release);
        drop(remote);
        self.waker.wake();
    }

    /// Whether a task is ready to run.
    pub(crate) fn has_ready(&self) -> bool {
        self.has_remote.load(Ordering::Acquire)
            || self.with_local(|local| local.ready.iter().any(|ready| !ready.is_empty()))
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

    /// Runs ready tasks until there are none or the quantum is over, which begins at `now`; or
    /// until `has_enough` of what they have done, or until it is the turn of the service, if that
    /// has more to do. A task's panic is reported and goes on to the caller.
    pub(crate) fn run(&self, now: u64, is_service_waiting: bool, has_enough: impl Fn() -> bool) {
        self.take_remote();
        self.start_quantum(now);
        while let Some(runnable) = self.with_local(|local| local.pop(is_service_waiting)) {
            let kind = *runnable.metadata();
            let outcome = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            if let Err(panic) = outcome {
                let core = self.core;
                tracing::error!(core, queue = ?kind.queue, "a task panicked; its core stops");
                resume_unwind(panic);
            }
            let ended = monotonic_nanoseconds();
            if let Some(nanoseconds) = self.with_local(|local| local.ran(kind.queue, ended)) {
                self.tell_of_task(kind, nanoseconds, ended);
            }
            if ended >= self.quantum_end.get() || has_enough() {
                return;
            }
        }
    }

    #[cold]
    fn tell_of_task(&self, kind: TaskKind, nanoseconds: u64, now: u64) {
        let what = || format!("a task, {}", task_name(kind.type_name));
        self.tell_of_stall(kind.queue, nanoseconds, now, what);
    }

    /// Notes what held the core for too long, and tells the log of it if that is not too often.
    #[cold]
    pub(crate) fn tell_of_stall(
        &self,
        queue: TaskQueue,
        nanoseconds: u64,
        now: u64,
        what: impl FnOnce() -> String,
    ) {
        let Some(untold) = self.with_local(|local| local.stalls.note(queue, nanoseconds, now))
        else {
            return;
        };
        let (core, milliseconds, what) = (self.core, nanoseconds / 1_000_000, what());
        tracing::warn!(
            core,
            milliseconds,
            class = queue.name(),
            untold,
            "the core was held for longer than --stall-bound by {what}; its clients waited \
             meanwhile, unless the core's thread itself had to wait for a processor"
        );
    }

    /// All time since the last moment that was noted was the service's, and the loop's around it.
    /// Returns for how long it held the core if that was too long.
    pub(crate) fn served_until(&self, now: u64) -> Option<u64> {
        self.with_local(|local| local.served(now))
    }

    /// All time since the last moment that was noted went by while the core looked out for work.
    pub(crate) fn spun_until(&self, now: u64) {
        self.with_local(|local| local.cpu.spend(Spent::Spinning, now));
    }

    /// The same while it slept, or did something else than to drive its loop.
    pub(crate) fn rested_until(&self, now: u64) {
        self.with_local(|local| local.cpu.spend(Spent::Idle, now));
    }

    /// A queue gets so many thousandths of its usual shares from now on.
    pub(crate) fn set_urgency(&self, queue: TaskQueue, urgency: u32) {
        self.with_local(|local| local.shares.set_urgency(queue, urgency));
    }

    /// What the core's time was spent on.
    pub(crate) fn figures(&self) -> CoreTime {
        self.with_local(|local| CoreTime {
            cpu: local.cpu.times(),
            stalls: local.stalls.figures(),
            task_shares: local.shares.shares(),
        })
    }

    fn take_remote(&self) {
        if !self.has_remote.swap(false, Ordering::Acquire) {
            return;
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = remote.as_mut().map(std::mem::take).unwrap_or_default();
        drop(remote);
        for runnable in woken {
            self.with_local(|local| local.push(runnable));
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
        while let Some(runnable) = self.with_local(|local| local.pop(false)) {
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
    fn push(&mut self, runnable: Runnable) {
        let queue = runnable.metadata().queue;
        let ready = &mut self.ready[queue as usize];
        if ready.is_empty() {
            self.shares.wake(queue);
        }
        ready.push_back(runnable);
    }

    fn ready(&self) -> QueueSet {
        self.ready.each_ref().map(|ready| !ready.is_empty())
    }

    /// The next task; `None` as well if it is the turn of the service, which waits for it.
    fn pop(&mut self, is_service_waiting: bool) -> Option<Runnable> {
        let mut ready = self.ready();
        ready[TaskQueue::Foreground as usize] |= is_service_waiting;
        let queue = self.shares.next(&ready)?;
        self.ready[queue as usize].pop_front()
    }

    /// A task has run up to now; returns for how long if that was too long.
    fn ran(&mut self, queue: TaskQueue, now: u64) -> Option<u64> {
        let nanoseconds = self.cpu.spend(Spent::Queue(queue), now);
        self.shares.charge(queue, nanoseconds);
        self.stalls.is_stall(nanoseconds).then_some(nanoseconds)
    }

    fn served(&mut self, now: u64) -> Option<u64> {
        let nanoseconds = self.cpu.spend(Spent::Queue(TaskQueue::Foreground), now);
        let ready = self.ready();
        self.shares.charge_service(nanoseconds, &ready);
        self.stalls.is_stall(nanoseconds).then_some(nanoseconds)
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
