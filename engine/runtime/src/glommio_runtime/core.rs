//! A core on glommio: its executor, and the task that takes the core's turns.
//!
//! glommio's loop is the outer one. The core's own task is one of its tasks: when a socket, a
//! timer, another task or another core has woken it, it takes one turn, in the order that
//! [`Service`] asks for, and waits again. Between turns glommio runs the other tasks, talks to its
//! rings, and sleeps.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::io::AsyncRead;
use glommio::net::TcpStream;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use super::driver::{BlockingOn, Driver, Serving};
use super::env::{GlommioEnv, sleep};
use super::file::kernel_error;
use super::network::GlommioNetwork;
use super::preemption::{self, Preemption};
use super::shared::Shared;
use super::tasks::{Panic, Tasks};
use super::wakers::{Remote, Running, core_number};
use crate::core_runtime::CoreRuntime;
use crate::core_thread::{CoreOptions, random_seed};
use crate::network::Service;
use crate::operations::Slots;
use crate::probe::{self, StartError};
use crate::random::Random;
use crate::ring_network::ClientListener;
use crate::wake::RemoteWaker;

/// What glommio asks of RLIMIT_MEMLOCK at least, in bytes (`Reactor::new` in `sys/uring.rs`).
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// How many of its rings glommio registers its memory with.
const RINGS: u64 = 3;
/// How long glommio is given to close what was dropped last, in nanoseconds.
const CLOSE_NANOSECONDS: u64 = 1_000_000;

/// One core on glommio. It belongs to the thread that made it.
pub struct GlommioCore {
    number: u64,
    waker: RemoteWaker,
    turns: Turns,
    executor: LocalExecutor,
    is_drained: bool,
}

/// What the core's own task works with.
struct Turns {
    shared: Rc<Shared>,
    network: GlommioNetwork,
    waker: RemoteWaker,
    bell: Bell,
    is_parked: bool,
    deadline: Option<Deadline>,
}

/// Where other threads' wake-ups arrive.
enum Bell {
    /// The executor has not run since.
    New(OwnedFd),
    Open(TcpStream),
    Closed,
}

/// When the network is to be looked at again, and the timer for that.
struct Deadline {
    at: u64,
    timer: Pin<Box<dyn Future<Output = ()>>>,
}

impl GlommioCore {
    /// Sets a core up for the calling thread, which from then on is the only one to use it. Of the
    /// options, those that are about the ring alone are not used: its entries, the number of its
    /// receive buffers, and the CPUs of the kernel's threads.
    ///
    /// # Errors
    /// What keeps the core from running, and what to do about it.
    pub fn new(options: CoreOptions) -> Result<Self, StartError> {
        let setup = |step| move |source| StartError::Setup { step, source };
        probe::check_kernel()?;
        // Half of the memory is glommio's, half is for the buffers that are copied to and from.
        let bytes = options.registered_bytes / 2;
        check_memlock(options.core, bytes as u64)?;
        let placement = options.pin_to_cpu.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .io_memory(bytes)
            .spin_before_park(options.spin_max)
            .preempt_timer(preemption::TIMER)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(|error| setup("set glommio's executor up")(kernel_error(error)))?;
        let (waker, bell) = RemoteWaker::on_sockets().map_err(setup("make a pair of sockets"))?;
        let number = core_number();
        let tasks = Rc::new(Tasks::new(number, Arc::new(Remote::new(waker.clone()))));
        let random = Random::new(random_seed().map_err(setup("get random bytes"))?);
        let memory = (bytes, bytes, options.receive_buffer_bytes);
        let shared = Rc::new(Shared::new(tasks, &options.io, random, memory));
        let turns = Turns {
            network: GlommioNetwork::new(Rc::clone(&shared), options.output_high_water),
            shared,
            waker: waker.clone(),
            bell: Bell::New(bell),
            is_parked: false,
            deadline: None,
        };
        let mut core = Self { number, waker, turns, executor, is_drained: false };
        let starting = Preemption::start(Rc::clone(&core.turns.shared));
        core.block_on(starting).map_err(setup("make the sockets that end quanta"))?;
        Ok(core)
    }

    /// The core's connections and listeners.
    pub fn network(&mut self) -> &mut GlommioNetwork {
        &mut self.turns.network
    }

    fn drive<D: Driver>(&mut self, driver: &mut D) {
        let running = Running::start(self.number);
        let turns = &mut self.turns;
        let ended = self.executor.run(std::future::poll_fn(|context| turns.poll(driver, context)));
        self.turns.shared.tasks.main.end();
        drop(running);
        // A panic that passes through glommio's executor takes a queue of it out of use.
        ended.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn drain(&mut self) {
        if std::mem::replace(&mut self.is_drained, true) {
            return;
        }
        let running = Running::start(self.number);
        let Turns { shared, network, bell, deadline, .. } = &mut self.turns;
        network.connections = Slots::new();
        network.listeners.clear();
        (*bell, *deadline) = (Bell::Closed, None);
        let mut is_closed = false;
        self.executor.run(std::future::poll_fn(|context| {
            shared.tasks.main.run_by(context.waker());
            if !std::mem::replace(&mut is_closed, true) {
                shared.tasks.close();
                shared.tasks.preemption.end();
            }
            shared.tasks.remote.take();
            shared.carry_on();
            let is_over = shared.tasks.len() == 0 && shared.in_flight() == 0;
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        }));
        // Files and sockets that were dropped are closed when glommio next looks at its rings.
        self.executor.run(sleep(CLOSE_NANOSECONDS));
        self.turns.shared.tasks.main.end();
        drop(running);
    }
}

impl CoreRuntime for GlommioCore {
    type Env = GlommioEnv;

    fn env(&self) -> GlommioEnv {
        GlommioEnv::new(Rc::clone(&self.turns.shared))
    }

    fn waker(&self) -> RemoteWaker {
        self.waker.clone()
    }

    fn listen(&mut self, listener: ClientListener) -> usize {
        self.turns.network.listen(listener)
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut driver = BlockingOn::new(Box::pin(future));
        self.drive(&mut driver);
        driver.into_output()
    }

    fn run<S: Service<GlommioNetwork>>(&mut self, service: &mut S, stop: &dyn Fn(&S) -> bool) {
        self.drive(&mut Serving { service, stop });
    }

    fn shutdown(mut self) {
        self.drain();
    }
}

impl Drop for GlommioCore {
    fn drop(&mut self) {
        self.drain();
    }
}

impl std::fmt::Debug for GlommioCore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.turns.shared.in_flight();
        write!(formatter, "GlommioCore({:?}, {in_flight} in flight)", self.turns.network)
    }
}

impl Turns {
    /// Takes a turn. What panics is handed on instead of passing through glommio.
    fn poll<D: Driver>(
        &mut self,
        driver: &mut D,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Panic>> {
        let tasks = Rc::clone(&self.shared.tasks);
        tasks.main.run_by(context.waker());
        if std::mem::take(&mut self.is_parked) {
            self.waker.word().awake();
        }
        tasks.remote.take();
        tasks.begin_unborn(&self.shared.clock);
        self.shared.carry_on();
        if let Some(panic) = tasks.take_panic() {
            return Poll::Ready(Err(panic));
        }
        let mut context = Context::from_waker(&tasks.main_waker);
        let took = catch_unwind(AssertUnwindSafe(|| self.take(driver, &mut context)));
        match took {
            Err(panic) => Poll::Ready(Err(panic)),
            Ok(Next::End) => Poll::Ready(Ok(())),
            Ok(Next::Again) => {
                tasks.main_waker.wake_by_ref();
                Poll::Pending
            }
            Ok(Next::Wait) => Poll::Pending,
        }
    }

    fn take<D: Driver>(&mut self, driver: &mut D, context: &mut Context<'_>) -> Next {
        self.hear(context);
        self.shared.count_turn(|counters| counters.turns += 1);
        let now = self.shared.clock.start_turn();
        self.shared.tasks.preemption.attend(now);
        driver.begin_turn();
        driver.happen(&mut self.network, now, context);
        let is_busy = driver.work(&mut self.network, context);
        driver.flush(&mut self.network, now);
        driver.publish();
        if driver.is_finished() {
            return Next::End;
        }
        if is_busy || driver.is_changed(&self.network) || !self.waker.word().prepare() {
            return Next::Again;
        }
        // What others have left since the look above is found here, or they end the sleep.
        let has_found = driver.work(&mut self.network, context)
            || driver.is_finished()
            || driver.is_changed(&self.network)
            || self.shared.tasks.remote.has_woken();
        if has_found {
            self.waker.word().cancel();
            return Next::Again;
        }
        self.is_parked = true;
        self.shared.count_turn(|counters| counters.parks += 1);
        self.await_deadline(driver.deadline(&self.network), context);
        Next::Wait
    }

    /// Takes wake-ups in. What comes later wakes the task.
    fn hear(&mut self, context: &mut Context<'_>) {
        self.bell = match std::mem::replace(&mut self.bell, Bell::Closed) {
            Bell::New(socket) => {
                // SAFETY: the descriptor is open and handed over.
                Bell::Open(unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) })
            }
            other => other,
        };
        let Bell::Open(stream) = &mut self.bell else { return };
        let mut bytes = [0; 64];
        loop {
            match Pin::new(&mut *stream).poll_read(context, &mut bytes) {
                Poll::Pending => return,
                Poll::Ready(Ok(len)) if len > 0 => {
                    self.shared.count_turn(|counters| counters.wakes += 1);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(other) => panic!("the core's bell is broken: {other:?}"),
            }
        }
    }

    /// Has the task woken at `deadline`, in nanoseconds.
    fn await_deadline(&mut self, deadline: Option<u64>, context: &mut Context<'_>) {
        let Some(at) = deadline else {
            self.deadline = None;
            return;
        };
        if self.deadline.as_ref().is_none_or(|deadline| deadline.at != at) {
            let left = at.saturating_sub(crate::clock::monotonic_nanoseconds());
            self.deadline = Some(Deadline { at, timer: Box::pin(sleep(left)) });
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.timer.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            context.waker().wake_by_ref();
        }
    }
}

/// What follows a turn.
enum Next {
    Again,
    Wait,
    End,
}

/// Checks that glommio may lock what it needs: with less than its minimum it does not start, and
/// where it cannot register its memory it goes on without, and says so only to the `log` crate.
fn check_memlock(core: usize, bytes: u64) -> Result<(), StartError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        let source = io::Error::last_os_error();
        return Err(StartError::Setup { step: "ask for RLIMIT_MEMLOCK", source });
    }
    if limit.rlim_cur < MEMLOCK_BYTES_MIN {
        let found = limit.rlim_cur;
        let message = format!("glommio asks for {MEMLOCK_BYTES_MIN} bytes, the limit is {found}");
        return Err(StartError::Memory { source: io::Error::other(message) });
    }
    if limit.rlim_cur < bytes.saturating_mul(RINGS) {
        tracing::warn!(
            core,
            limit = limit.rlim_cur,
            wanted = bytes.saturating_mul(RINGS),
            "RLIMIT_MEMLOCK may keep glommio from registering its memory, so disk requests cost \
             more; raise it (`ulimit -l`, or LimitMEMLOCK= of the unit)"
        );
    }
    Ok(())
}
