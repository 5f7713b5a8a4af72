//! Tasks and the order in which they run: any task that can run may be the next.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use super::random::Random;

pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The task number of the future that was given to `block_on`.
pub(super) const MAIN: usize = usize::MAX;

/// The tasks that can run. Shared with the wakers, which the standard library wants to be `Send`.
#[derive(Default)]
struct ReadyQueue {
    tasks: Mutex<Vec<usize>>,
}

impl ReadyQueue {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    task: usize,
    is_queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.task);
        }
    }
}

struct Alarm {
    shared: Arc<TaskWaker>,
    waker: Waker,
}

impl Alarm {
    fn new(task: usize, ready: &Arc<ReadyQueue>) -> Self {
        let is_queued = AtomicBool::new(false);
        let shared = Arc::new(TaskWaker { task, is_queued, ready: Arc::clone(ready) });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        self.shared.is_queued.store(false, Ordering::Relaxed);
        future.poll(&mut Context::from_waker(&self.waker))
    }
}

struct Task {
    future: TaskFuture,
    alarm: Alarm,
}

pub(super) struct Executor {
    tasks: Slab<Task>,
    ready: Arc<ReadyQueue>,
    main: Alarm,
    random: Random,
}

impl Executor {
    pub(super) fn new(random: Random) -> Self {
        let ready = Arc::<ReadyQueue>::default();
        Self { tasks: Slab::new(), main: Alarm::new(MAIN, &ready), ready, random }
    }

    pub(super) fn add(&mut self, future: TaskFuture) {
        let slot = self.tasks.vacant_entry();
        let alarm = Alarm::new(slot.key(), &self.ready);
        alarm.waker.wake_by_ref();
        slot.insert(Task { future, alarm });
    }

    pub(super) fn wake_main(&self) {
        self.main.waker.wake_by_ref();
    }

    /// Takes one of the tasks that can run.
    pub(super) fn pick(&mut self) -> Option<usize> {
        let mut ready = self.ready.lock();
        if ready.is_empty() {
            return None;
        }
        let chosen = self.random.index(ready.len());
        let task = ready.swap_remove(chosen);
        if task == MAIN {
            // Nobody may be there to poll it: its next wake must count all the same.
            self.main.shared.is_queued.store(false, Ordering::Relaxed);
        }
        Some(task)
    }

    /// How long the next turn takes.
    pub(super) fn turn_nanoseconds(&mut self) -> u64 {
        100 + self.random.below(900)
    }

    /// Runs a task for one turn. A task that has ended since it was woken is passed over.
    pub(super) fn poll(&mut self, task: usize) {
        let Some(Task { future, alarm }) = self.tasks.get_mut(task) else { return };
        if alarm.poll(future.as_mut()).is_ready() {
            drop(self.tasks.remove(task));
        }
    }

    pub(super) fn poll_main<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        self.main.poll(future)
    }

    pub(super) fn drop_tasks(&mut self) {
        self.tasks.clear();
    }
}
