//! The core's tasks, in glommio's weighted task queues.
//!
//! glommio gives a task's memory back late or never (`DataDog/glommio` 448) and has panicked while
//! it dropped tasks (671 there), and a panic that leaves its executor takes the panicking queue out
//! of use. So glommio only ever sees a small future that does not panic and that ends: the task's
//! own future lies in a [`Slot`] of ours, panics are caught there, and at the end of the core the
//! futures are dropped first, after which glommio's tasks run to their ends.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::{Latency, Shares, SharesManager, TaskQueueHandle};
use slab::Slab;

use super::preemption::Preemption;
use super::wakers::{Remote, TaskWaker, is_running};
use crate::clock::Clock;
use crate::env::{TASK_QUEUES, TaskQueue};
use crate::task_shares::SHARES;
use crate::urgency::urgent_shares;

/// What a task panicked with.
pub(super) type Panic = Box<dyn Any + Send>;

/// A task's future while it is not being polled.
struct Slot {
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    task: Arc<TaskWaker>,
    waker: Waker,
}

/// All tasks of a core.
pub(super) struct Tasks {
    pub(super) core: u64,
    pub(super) remote: Arc<Remote>,
    /// Wakes the core's own task, which takes its turns.
    pub(super) main: Arc<TaskWaker>,
    pub(super) main_waker: Waker,
    queues: RefCell<Option<[TaskQueueHandle; TASK_QUEUES]>>,
    shares: [Rc<QueueShares>; TASK_QUEUES],
    slots: RefCell<Slab<Rc<Slot>>>,
    /// Started while the executor did not run.
    unborn: RefCell<Vec<(TaskQueue, usize)>>,
    pub(super) preemption: Preemption,
    panic: Cell<Option<Panic>>,
    is_closed: Cell<bool>,
}

impl Tasks {
    pub(super) fn new(core: u64, remote: Arc<Remote>) -> Self {
        let main = TaskWaker::new(core, Arc::clone(&remote));
        Self {
            core,
            remote,
            main_waker: Waker::from(Arc::clone(&main)),
            main,
            queues: RefCell::new(None),
            shares: SHARES.map(|shares| Rc::new(QueueShares(Cell::new(shares)))),
            slots: RefCell::default(),
            unborn: RefCell::default(),
            preemption: Preemption::new(),
            panic: Cell::new(None),
            is_closed: Cell::new(false),
        }
    }

    /// The queue's handle. What clients wait for shares the executor's first queue with the core's
    /// own task.
    pub(super) fn queue(&self, queue: TaskQueue) -> TaskQueueHandle {
        let mut queues = self.queues.borrow_mut();
        queues.get_or_insert_with(|| make_queues(&self.shares))[queue as usize]
    }

    /// A queue gets so many thousandths of its usual shares, within [`ADJUSTED_EVERY`].
    pub(super) fn set_urgency(&self, queue: TaskQueue, urgency: u32) {
        let shares = urgent_shares(SHARES[queue as usize], urgency).min(SHARES_MAX);
        self.shares[queue as usize].0.set(shares);
    }

    /// The shares of the queues now.
    pub(super) fn shares(&self) -> [u32; TASK_QUEUES] {
        std::array::from_fn(|queue| self.shares[queue].0.get())
    }

    /// Starts a task. After [`Tasks::close`] the future is dropped instead.
    pub(super) fn spawn(
        self: &Rc<Self>,
        clock: &Rc<Clock>,
        queue: TaskQueue,
        future: impl Future<Output = ()> + 'static,
    ) {
        if self.is_closed.get() {
            return;
        }
        let task = TaskWaker::new(self.core, Arc::clone(&self.remote));
        let slot = Rc::new(Slot {
            future: RefCell::new(Some(Box::pin(future))),
            waker: Waker::from(Arc::clone(&task)),
            task,
        });
        let key = self.slots.borrow_mut().insert(slot);
        if is_running(self.core) {
            self.begin(clock, queue, key);
        } else {
            self.unborn.borrow_mut().push((queue, key));
            self.main_waker.wake_by_ref();
        }
    }

    /// Gives glommio the tasks that were started while its executor did not run.
    pub(super) fn begin_unborn(self: &Rc<Self>, clock: &Rc<Clock>) {
        for (queue, key) in std::mem::take(&mut *self.unborn.borrow_mut()) {
            self.begin(clock, queue, key);
        }
    }

    fn begin(self: &Rc<Self>, clock: &Rc<Clock>, queue: TaskQueue, key: usize) {
        let (tasks, clock) = (Rc::clone(self), Rc::clone(clock));
        let slot = Rc::clone(&self.slots.borrow()[key]);
        let runner = async move {
            std::future::poll_fn(|context| tasks.poll(&clock, queue, &slot, context)).await;
            slot.task.end();
            let ended = tasks.slots.borrow_mut().remove(key);
            drop(ended);
            tasks.main_waker.wake_by_ref();
        };
        let handle = self.queue(queue);
        glommio::spawn_local_into(runner, handle).expect("the queue is never removed").detach();
    }

    fn poll(
        &self,
        clock: &Clock,
        queue: TaskQueue,
        slot: &Slot,
        context: &Context<'_>,
    ) -> Poll<()> {
        slot.task.run_by(context.waker());
        let Some(mut future) = slot.future.take() else { return Poll::Ready(()) };
        self.preemption.attend(clock.start_turn());
        // What it leaves for the service is looked at by the core's own task.
        self.main_waker.wake_by_ref();
        let mut context = Context::from_waker(&slot.waker);
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context))) {
            Ok(Poll::Pending) if !self.is_closed.get() => {
                slot.future.replace(Some(future));
                Poll::Pending
            }
            Ok(_) => Poll::Ready(()),
            Err(panic) => {
                tracing::error!(?queue, "a task panicked; its core stops");
                self.panic.set(Some(panic));
                Poll::Ready(())
            }
        }
    }

    /// What a task panicked with, once.
    pub(super) fn take_panic(&self) -> Option<Panic> {
        self.panic.take()
    }

    /// Drops every task's future; later ones are dropped as they come. glommio's tasks are woken
    /// to end. To be called while the executor runs.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        for (_, key) in std::mem::take(&mut *self.unborn.borrow_mut()) {
            let slot = self.slots.borrow_mut().remove(key);
            drop(slot);
        }
        let slots: Vec<Rc<Slot>> =
            self.slots.borrow().iter().map(|(_, slot)| Rc::clone(slot)).collect();
        for slot in slots {
            let future = slot.future.take();
            drop(future);
            slot.waker.wake_by_ref();
        }
    }

    /// Tasks that have not ended.
    pub(super) fn len(&self) -> usize {
        self.slots.borrow().len()
    }
}

/// The most shares that glommio gives a queue.
const SHARES_MAX: u32 = 1000;

/// How often glommio asks a queue for its shares.
const ADJUSTED_EVERY: Duration = Duration::from_millis(20);

/// The shares of a queue, which glommio asks for.
struct QueueShares(Cell<u32>);

impl SharesManager for QueueShares {
    fn shares(&self) -> usize {
        self.0.get() as usize
    }

    fn adjustment_period(&self) -> Duration {
        ADJUSTED_EVERY
    }
}

/// The queues, with the shares that they have on the ring.
fn make_queues(shares: &[Rc<QueueShares>; TASK_QUEUES]) -> [TaskQueueHandle; TASK_QUEUES] {
    std::array::from_fn(|index| {
        if index == TaskQueue::Foreground as usize {
            return TaskQueueHandle::default();
        }
        let shares = Shares::Dynamic(Rc::clone(&shares[index]) as Rc<dyn SharesManager>);
        let name = format!("queue {index}");
        glommio::executor().create_task_queue(shares, Latency::NotImportant, &name)
    })
}
