//! Wakers of our own around everything that glommio polls.
//!
//! A task of glommio counts its wakers in 16 bits and panics beyond 32,767 of them
//! (`task/header.rs`), and its operations keep one more waker with each time that they are polled
//! (`Source::add_waiter_many` in `sys/source.rs`). So a task's own waker is kept once, behind
//! [`TaskWaker`], which is counted in a machine word; and an operation is polled only when it has
//! called, through [`OnBell`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::core_env::CoreWaker;
use crate::wake::RemoteWaker;

thread_local! {
    /// The number of the core whose executor runs on this thread now; 0 for none.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
}

/// A number that no other core of the process has or will have; not 0.
pub(super) fn core_number() -> u64 {
    static CORES: AtomicU64 = AtomicU64::new(1);
    CORES.fetch_add(1, Ordering::Relaxed)
}

/// Says that a core's executor runs on this thread, until it is dropped.
pub(super) struct Running(());

impl Running {
    pub(super) fn start(core: u64) -> Self {
        let before = RUNNING.replace(core);
        assert_eq!(before, 0, "one executor runs on a thread at a time");
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(0);
    }
}

/// Whether the executor of this core runs on the calling thread.
pub(super) fn is_running(core: u64) -> bool {
    RUNNING.get() == core
}

/// Tasks that were woken by other threads, or while their executor did not run. glommio's own way
/// for this is not used: it has been seen to lose wake-ups
/// (`DataDog/glommio` 582).
pub(super) struct Remote {
    woken: Mutex<Vec<Arc<TaskWaker>>>,
    has_woken: AtomicBool,
    waker: RemoteWaker,
}

impl Remote {
    pub(super) fn new(waker: RemoteWaker) -> Self {
        Self { woken: Mutex::default(), has_woken: AtomicBool::new(false), waker }
    }

    fn push(&self, task: Arc<TaskWaker>) {
        lock(&self.woken).push(task);
        self.has_woken.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether there is something in the list.
    pub(super) fn has_woken(&self) -> bool {
        self.has_woken.load(Ordering::Acquire)
    }

    /// Wakes what is in the list. To be called while the executor runs.
    pub(super) fn take(&self) {
        if !self.has_woken.swap(false, Ordering::Acquire) {
            return;
        }
        let woken = std::mem::take(&mut *lock(&self.woken));
        woken.iter().for_each(|task| task.ring());
    }
}

/// A task's waker: the only one that holds glommio's.
pub(super) struct TaskWaker {
    core: u64,
    remote: Arc<Remote>,
    /// glommio's waker, while the task is there.
    runner: Mutex<Option<Waker>>,
}

impl TaskWaker {
    pub(super) fn new(core: u64, remote: Arc<Remote>) -> Arc<Self> {
        Arc::new(Self { core, remote, runner: Mutex::new(None) })
    }

    /// Notes which waker runs the task.
    pub(super) fn run_by(&self, waker: &Waker) {
        let mut runner = lock(&self.runner);
        if !runner.as_ref().is_some_and(|runner| runner.will_wake(waker)) {
            *runner = Some(waker.clone());
        }
    }

    /// The task has ended: wake-ups go nowhere, and glommio's waker is given back on its thread.
    pub(super) fn end(&self) {
        let runner = lock(&self.runner).take();
        drop(runner);
    }

    fn ring(&self) {
        if let Some(runner) = &*lock(&self.runner) {
            runner.wake_by_ref();
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if is_running(self.core) {
            self.ring();
        } else {
            self.remote.push(Arc::clone(self));
        }
    }
}

/// Rings when what it was given to has something to say, and wakes whoever waits for that.
struct Bell {
    is_rung: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::Release);
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A future that is polled only when it has asked for it.
pub(super) struct OnBell<F: ?Sized> {
    bell: Arc<Bell>,
    waker: Waker,
    future: Pin<Box<F>>,
}

impl<F: Future + ?Sized> OnBell<F> {
    pub(super) fn new(future: Pin<Box<F>>) -> Self {
        let bell = Arc::new(Bell { is_rung: AtomicBool::new(true), waiter: Mutex::new(None) });
        Self { waker: Waker::from(Arc::clone(&bell)), bell, future }
    }
}

impl<F: Future + ?Sized> Future for OnBell<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Registered first, so that a ring between the two is not missed.
        lock(&this.bell.waiter).replace(context.waker().clone());
        if !this.bell.is_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

/// What a lock guards stays whole when its holder panics: nothing between two changes can.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
