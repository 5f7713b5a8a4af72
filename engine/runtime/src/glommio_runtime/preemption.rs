//! Taking the core from busy tasks, so that glommio looks at its rings.
//!
//! glommio has a timer for that, which may cost the core its wake-ups. `LocalExecutor::run` (in
//! `executor/mod.rs`) looks at the rings, starts the timer and runs tasks. Where the timer is over
//! before the first of them, because others have had the thread's CPU in between,
//! `run_task_queues` runs none and returns false. `run` takes that for "no task can run" and
//! parks, and nothing keeps `Reactor::wait` (in `sys/uring.rs`) from sleeping: no task waits for
//! the end of that timer, so it does not count as something that has happened. Tasks that can run
//! then stand still until something else wakes the core; if one of them was to ask for the next
//! such event, for good. The code behind 0.9.0 tells the two cases apart (`glommio/glommio` 53).
//!
//! So glommio's timer never ends here. What ends a quantum is a byte that the core sends itself
//! through a pair of sockets, and for which a task waits: `need_preempt` looks for events in the
//! latency ring, where glommio receives datagrams, and an event that wakes a task keeps `run` from
//! parking.
//!
//! There are two such listeners because what a task asks of a ring gets there with the next look
//! at it. One has heard the byte that ended the quantum before and asks again; the other one's
//! request is there to end this quantum. No byte is sent before the last one was heard, so one of
//! the two is always there. A queue that is over its time while the listener has yet to run makes
//! room for other queues.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use glommio::net::UnixDatagram;

use super::env::sleep;
use super::file::kernel_error;
use super::shared::Shared;
use crate::env::TaskQueue;
use crate::executor::QUANTUM;

/// What glommio's own timer is set to: longer than any thread is held up.
pub(super) const TIMER: Duration = Duration::from_secs(1 << 24);

const LISTENERS: usize = 2;
/// How long glommio is given for a look at its rings, in nanoseconds.
const LOOK_NANOSECONDS: u64 = 1000;

/// Ends the quanta of a core's tasks.
pub(super) struct Preemption {
    /// There when both listeners' requests are in the ring.
    sender: OnceCell<UnixDatagram>,
    /// Whether a byte was sent that no listener has heard.
    is_rung: Cell<bool>,
    /// Since when tasks have run without a look at the rings, in nanoseconds.
    since: Cell<u64>,
}

impl Preemption {
    pub(super) fn new() -> Self {
        Self { sender: OnceCell::new(), is_rung: Cell::new(false), since: Cell::new(0) }
    }

    /// Makes the sockets and starts the listeners. To be called once, on the core.
    pub(super) async fn start(shared: Rc<Shared>) -> io::Result<()> {
        let (sender, receiver) = UnixDatagram::pair().map_err(kernel_error)?;
        let receiver = Rc::new(receiver);
        for _ in 0..LISTENERS {
            let listener = listen(Rc::clone(&shared), Rc::clone(&receiver));
            shared.tasks.spawn(&shared.clock, TaskQueue::Foreground, listener);
        }
        while shared.in_flight() < LISTENERS {
            sleep(LOOK_NANOSECONDS).await;
        }
        // Whoever sleeps is woken by a look at the rings, which hands over all requests.
        sleep(LOOK_NANOSECONDS).await;
        let is_first = shared.tasks.preemption.sender.set(sender).is_ok();
        assert!(is_first, "a core is started once");
        Ok(())
    }

    /// Called by whatever runs on the core, at `now` nanoseconds: a quantum that is over ends when
    /// the caller's task returns to glommio. Returns whether it is over.
    pub(super) fn attend(&self, now: u64) -> bool {
        let executor = glommio::executor();
        // It grows with each look at the rings, and is reset by being asked for.
        if !executor.executor_stats().total_runtime().is_zero() {
            self.since.set(now);
            return false;
        }
        if now.saturating_sub(self.since.get()) < QUANTUM {
            return false;
        }
        if let Some(sender) = self.sender.get()
            && !self.is_rung.replace(true)
        {
            send_byte(sender);
        }
        // The first poll marks the queue as one that makes room; that is all it is for.
        let marking = pin!(executor.yield_task_queue_now());
        let marked = marking.poll(&mut Context::from_waker(Waker::noop()));
        debug_assert!(marked.is_pending(), "it yields");
        true
    }

    /// Lets what the listeners have under way come to its end, when they are gone themselves.
    pub(super) fn end(&self) {
        if let Some(sender) = self.sender.get() {
            (0..LISTENERS).for_each(|_| send_byte(sender));
        }
    }
}

/// Sends a byte at once. If there is no room there are bytes that nobody waits for.
fn send_byte(sender: &UnixDatagram) {
    let sending = pin!(sender.send(&[1]));
    let sent = sending.poll(&mut Context::from_waker(Waker::noop()));
    debug_assert!(!matches!(&sent, std::task::Poll::Ready(Err(_))), "{sent:?}");
}

/// Waits for bytes, one after the other.
async fn listen(shared: Rc<Shared>, receiver: Rc<UnixDatagram>) {
    loop {
        let receiver = Rc::clone(&receiver);
        let heard = shared.operation(async move {
            let mut byte = [0];
            receiver.recv(&mut byte).await.map_err(kernel_error)
        });
        match heard.await {
            Ok(_) => shared.tasks.preemption.is_rung.set(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("the sockets that end quanta are broken: {error}"),
        }
    }
}
