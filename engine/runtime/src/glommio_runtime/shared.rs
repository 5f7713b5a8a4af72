//! What the core's own task, its other tasks and its files share.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::env::sleep;
use super::tasks::Tasks;
use super::wakers::OnBell;
use crate::buffer_pool::BufferPool;
use crate::clock::{Clock, monotonic_nanoseconds};
use crate::core_env::LoopCounters;
use crate::disk::DiskCounters;
use crate::env::{IoClass, TaskQueue};
use crate::io_queue::{IoQueue, IoQueueOptions, IoRequest};
use crate::random::Random;

/// Everything of a core that stays on its thread.
pub(super) struct Shared {
    pub(super) clock: Rc<Clock>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) pool: BufferPool,
    pub(super) random: RefCell<Random>,
    pub(super) turns: Cell<LoopCounters>,
    pub(super) disk: Cell<DiskCounters>,
    gate: RefCell<Gate>,
    pub(super) names: Names,
    /// The devices on which glommio has been kept from polling.
    pub(super) unpolled: RefCell<HashSet<u64>>,
    pub(super) receive_buffer_bytes: usize,
    /// The memory that glommio keeps for disk requests, in bytes.
    pub(super) slab_bytes: usize,
    in_flight: Cell<usize>,
    abandoned: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Shared {
    pub(super) fn new(
        tasks: Rc<Tasks>,
        io: &IoQueueOptions,
        random: Random,
        (pool_bytes, slab_bytes, receive_buffer_bytes): (usize, usize, usize),
    ) -> Self {
        Self {
            clock: Rc::new(Clock::new()),
            tasks,
            pool: BufferPool::new(pool_bytes),
            random: RefCell::new(random),
            turns: Cell::default(),
            disk: Cell::default(),
            gate: RefCell::new(Gate::new(io.clone())),
            names: Names::default(),
            unpolled: RefCell::default(),
            receive_buffer_bytes,
            slab_bytes,
            in_flight: Cell::new(0),
            abandoned: RefCell::default(),
        }
    }

    /// Operations of glommio that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(super) fn count_disk(&self, count: impl FnOnce(&mut DiskCounters)) {
        let mut counters = self.disk.get();
        count(&mut counters);
        self.disk.set(counters);
    }

    /// What the core has asked of its disk so far.
    pub(super) fn disk_counters(&self) -> DiskCounters {
        let mut counters = self.disk.get();
        let (gate, now) = (self.gate.borrow(), self.clock.now());
        counters.classes = IoClass::ALL.map(|class| gate.queue.class_statistics(class, now));
        counters.flow = gate.queue.flow();
        counters
    }

    /// A claimant finds its work of a queue so urgent; see [`crate::env::Env::set_urgency`].
    pub(super) fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        let changed = self.gate.borrow_mut().queue.claim_urgency(claimant, queue, urgency);
        for (queue, urgency) in TaskQueue::ALL.into_iter().zip(changed.into_iter().flatten()) {
            self.tasks.set_urgency(queue, urgency);
        }
    }

    /// Changes a class of disk requests; see [`crate::core_env::CoreEnv::set_io_class`].
    pub(super) fn set_io_class(
        &self,
        class: IoClass,
        shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
    ) -> Result<(), String> {
        let now = monotonic_nanoseconds();
        self.gate.borrow_mut().queue.set_class(class, shares, bandwidth_max, now)
    }

    pub(super) fn count_turn(&self, count: impl FnOnce(&mut LoopCounters)) {
        let mut counters = self.turns.get();
        count(&mut counters);
        self.turns.set(counters);
    }

    /// Has glommio carry abandoned operations to their ends. To be called while it runs.
    pub(super) fn carry_on(&self) {
        let abandoned = std::mem::take(&mut *self.abandoned.borrow_mut());
        for operation in abandoned {
            let queue = self.tasks.queue(TaskQueue::Maintenance);
            glommio::spawn_local_into(operation, queue)
                .expect("the queue is never removed")
                .detach();
        }
    }

    /// An operation on glommio's files or sockets, from its first poll to its end.
    pub(super) fn operation<T: 'static>(
        self: &Rc<Self>,
        operation: impl Future<Output = T> + 'static,
    ) -> InFlight<T> {
        let shared = Rc::clone(self);
        let counted = async move {
            let result = operation.await;
            shared.in_flight.set(shared.in_flight.get() - 1);
            shared.tasks.main_waker.wake_by_ref();
            result
        };
        InFlight { state: State::New(Box::pin(counted)), shared: Rc::clone(self) }
    }
}

/// An operation of glommio. It begins when it is first polled. Dropped after that it is carried to
/// its end: glommio frees its memory, at its own end, without waiting for what the kernel still
/// does there (`impl Drop for Reactor` in `sys/uring.rs` is empty), so the core has to know when
/// nothing is under way any more.
pub(super) struct InFlight<T: 'static> {
    shared: Rc<Shared>,
    state: State<T>,
}

enum State<T> {
    New(Pin<Box<dyn Future<Output = T>>>),
    Begun(OnBell<dyn Future<Output = T>>),
    Over,
}

impl<T: 'static> Future for InFlight<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        this.state = match std::mem::replace(&mut this.state, State::Over) {
            State::New(operation) => {
                this.shared.in_flight.set(this.shared.in_flight.get() + 1);
                State::Begun(OnBell::new(operation))
            }
            begun => begun,
        };
        let State::Begun(operation) = &mut this.state else {
            panic!("an operation is not polled after its end");
        };
        let polled = Pin::new(operation).poll(context);
        if polled.is_ready() {
            this.state = State::Over;
        }
        polled
    }
}

impl<T: 'static> Drop for InFlight<T> {
    fn drop(&mut self) {
        if let State::Begun(operation) = std::mem::replace(&mut self.state, State::Over) {
            let rest = async move {
                drop(operation.await);
            };
            self.shared.abandoned.borrow_mut().push(Box::pin(rest));
            self.shared.tasks.main_waker.wake_by_ref();
        }
    }
}

/// Holds disk requests back, and lets them through by the I/O queue: glommio has none of its own
/// for the disk, it hands everything to the kernel at once.
pub(super) struct Gate {
    queue: IoQueue<Rc<Place>>,
    /// The earliest time for which a timer was started, in nanoseconds.
    timer: Option<u64>,
}

/// A request's place before the gate.
struct Place {
    is_through: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Gate {
    fn new(options: IoQueueOptions) -> Self {
        Self { queue: IoQueue::new(options), timer: None }
    }

    /// Lets those through who may go, and says when to ask again if nothing else will make that
    /// known and no timer has been started for it.
    fn open(&mut self, now: u64) -> (Vec<Rc<Place>>, Option<u64>) {
        self.timer = self.timer.filter(|timer| *timer > now);
        let through = std::iter::from_fn(|| self.queue.pop(now)).collect();
        let due = self.queue.due().filter(|due| self.timer.is_none_or(|timer| *due < timer));
        self.timer = due.or(self.timer);
        (through, due)
    }
}

/// A request's pass through the gate; dropping it makes room for others.
pub(super) struct Pass {
    shared: Rc<Shared>,
    request: IoRequest,
    /// When it was let through, in nanoseconds.
    since: u64,
}

impl Pass {
    /// Waits until a request may go to the device.
    pub(super) async fn get(shared: Rc<Shared>, request: IoRequest) -> Self {
        let place = Rc::new(Place {
            is_through: Cell::new(false),
            waker: RefCell::new(Waker::noop().clone()),
        });
        let now = monotonic_nanoseconds();
        shared.gate.borrow_mut().queue.push(request, Rc::clone(&place), now);
        let_through(&shared, now);
        std::future::poll_fn(|context| {
            if place.is_through.get() {
                return Poll::Ready(());
            }
            place.waker.borrow_mut().clone_from(context.waker());
            Poll::Pending
        })
        .await;
        Self { shared, request, since: monotonic_nanoseconds() }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let now = monotonic_nanoseconds();
        let took = now.saturating_sub(self.since);
        let mut gate = self.shared.gate.borrow_mut();
        gate.queue.complete(self.request, self.request.bytes, took, now);
        drop(gate);
        let_through(&self.shared, now);
    }
}

/// Lets requests through at `now` nanoseconds, and again when others are due.
fn let_through(shared: &Rc<Shared>, now: u64) {
    let (through, due) = shared.gate.borrow_mut().open(now);
    for place in through {
        place.is_through.set(true);
        let waker = place.waker.replace(Waker::noop().clone());
        waker.wake();
    }
    if let Some(due) = due {
        let again = Rc::clone(shared);
        let wait = sleep(due.saturating_sub(now));
        shared.tasks.spawn(&shared.clock, TaskQueue::Foreground, async move {
            wait.await;
            let_through(&again, monotonic_nanoseconds());
        });
    }
}

/// Who may change or look up names now: one at a time. glommio asks for the file system of a path
/// that it has just opened, and panics if the name is gone (`statfs(path).unwrap()` in
/// `io/dma_file.rs`).
#[derive(Default)]
pub(super) struct Names {
    is_held: Cell<bool>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Names {
    /// Waits for its turn. It is over when what this returns is dropped.
    pub(super) async fn hold(shared: Rc<Shared>) -> HeldNames {
        std::future::poll_fn(|context| {
            let names = &shared.names;
            if !names.is_held.replace(true) {
                return Poll::Ready(());
            }
            names.waiting.borrow_mut().push_back(context.waker().clone());
            Poll::Pending
        })
        .await;
        HeldNames(shared)
    }
}

/// The turn of one who works with names.
pub(super) struct HeldNames(Rc<Shared>);

impl Drop for HeldNames {
    fn drop(&mut self) {
        let names = &self.0.names;
        names.is_held.set(false);
        // All of them try again: one whose future was dropped would not.
        let waiting = std::mem::take(&mut *names.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}
