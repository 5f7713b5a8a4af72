//! What the core's own task, its other tasks and its files share.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::tasks::Tasks;
use super::wakers::OnBell;
use crate::buffer_pool::BufferPool;
use crate::clock::{Clock, monotonic_nanoseconds};
use crate::core_env::LoopCounters;
use crate::disk::DiskCounters;
use crate::env::{IoClass, TaskQueue};
use crate::fair_queue::FairQueue;
use crate::io_queue::{IoQueueOptions, request_cost};
use crate::random::Random;

/// Everything of a core that stays on its thread.
pub(super) struct Shared {
    pub(super) clock: Rc<Clock>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) pool: BufferPool,
    pub(super) random: RefCell<Random>,
    pub(super) turns: Cell<LoopCounters>,
    pub(super) disk: Cell<DiskCounters>,
    pub(super) gate: RefCell<Gate>,
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
            gate: RefCell::new(Gate::new(io)),
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

/// Holds disk requests back, and lets them through by the shares of their classes: glommio has no
/// queue of its own for the disk, it hands everything to the kernel at once.
pub(super) struct Gate {
    queue: FairQueue<Rc<Place>>,
    requests_max: usize,
    bytes_max: u64,
    requests: usize,
    bytes: u64,
}

/// A request's place before the gate.
struct Place {
    bytes: u64,
    is_through: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Gate {
    fn new(options: &IoQueueOptions) -> Self {
        Self {
            queue: FairQueue::new(&options.shares, request_cost(0)),
            requests_max: options.requests_in_flight_max.max(1),
            bytes_max: options.bytes_in_flight_max,
            requests: 0,
            bytes: 0,
        }
    }

    /// Lets those through for whom there is room; a request with more bytes than the limit goes
    /// alone.
    fn open(&mut self) -> Vec<Rc<Place>> {
        let mut through = Vec::new();
        while let Some((_, _, place)) = self.queue.peek() {
            let fits = place.bytes.saturating_add(self.bytes) <= self.bytes_max;
            if self.requests > 0 && !(fits && self.requests < self.requests_max) {
                break;
            }
            let (_, _, place) = self.queue.pop().expect("it was just looked at");
            self.requests += 1;
            self.bytes += place.bytes;
            through.push(place);
        }
        through
    }
}

/// A request's pass through the gate; dropping it makes room for others.
pub(super) struct Pass {
    shared: Rc<Shared>,
    bytes: u64,
    /// When it was let through, in nanoseconds.
    since: u64,
    class: IoClass,
}

impl Pass {
    /// Waits until a request of `bytes` may go to the device.
    pub(super) async fn get(shared: Rc<Shared>, class: IoClass, bytes: usize) -> Self {
        let bytes = bytes as u64;
        let began = monotonic_nanoseconds();
        let place = Rc::new(Place {
            bytes,
            is_through: Cell::new(false),
            waker: RefCell::new(Waker::noop().clone()),
        });
        let cost = request_cost(bytes);
        shared.gate.borrow_mut().queue.push(class as usize, cost, Rc::clone(&place));
        let_through(&shared);
        std::future::poll_fn(|context| {
            if place.is_through.get() {
                return Poll::Ready(());
            }
            place.waker.borrow_mut().clone_from(context.waker());
            Poll::Pending
        })
        .await;
        let since = monotonic_nanoseconds();
        shared.count_disk(|disk| disk.class_queue_nanoseconds[class as usize] += since - began);
        Self { shared, bytes, since, class }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let took = monotonic_nanoseconds() - self.since;
        let class = self.class as usize;
        self.shared.count_disk(|disk| disk.class_device_nanoseconds[class] += took);
        let mut gate = self.shared.gate.borrow_mut();
        gate.requests -= 1;
        gate.bytes -= self.bytes;
        drop(gate);
        let_through(&self.shared);
    }
}

fn let_through(shared: &Shared) {
    let through = shared.gate.borrow_mut().open();
    for place in through {
        place.is_through.set(true);
        let waker = place.waker.replace(Waker::noop().clone());
        waker.wake();
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
