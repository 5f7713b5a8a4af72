//! A core: its ring, tasks, disk and network, and the loop that drives them.
//!
//! One turn: completions, timers, tasks, the service, then everything they asked for goes to the
//! ring. Each of these is bounded, by time, completions by their number and tasks by that of the
//! disk requests they have made; what is left waits for the next turn, so that no kind of work
//! keeps the others, or the device, from running. Between turns one
//! `io_uring_enter` hands the operations over and collects completions; it
//! sleeps there when nothing is left to do, after a bounded spin if work tends to come back soon.
//!
//! Invariant: the core frees nothing that the kernel may still touch. It cancels all operations and
//! waits for the last completion before it gives anything up, also when a panic ends it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::affinity::{self, CpuBits};
use crate::buffer_pool::BufferPool;
use crate::clock::{Clock, monotonic_nanoseconds};
use crate::core_env::LoopCounters;
use crate::disk::Disk;
use crate::driver::{BlockingOn, Driver, Serving};
use crate::env::TaskQueue;
use crate::executor::{Executor, QUANTUM};
use crate::idle::Idle;
use crate::io_queue::IoQueueOptions;
use crate::network::Service;
use crate::operations::{Key, Kind, Port, Token};
use crate::probe::{self, StartError};
use crate::random::Random;
use crate::ring::{Completion, Operation, Ring, Wait};
use crate::ring_env::{RingEnv, Shared};
use crate::ring_network::RingNetwork;
use crate::run_queue::RunQueue;
use crate::uring::Uring;
use crate::wake::RemoteWaker;

/// Glances at the ring between two looks at the mailboxes and the clock while spinning.
const GLANCES_PER_LOOK: u32 = 32;
/// Completions that one turn handles at most.
pub(crate) const COMPLETIONS_PER_TURN: usize = 64;
/// How long a turn handles completions, in nanoseconds; as long as it may run tasks.
const COMPLETIONS_NANOSECONDS: u64 = QUANTUM;
/// Between two looks at the clock while completions are handled, in units of one completion or
/// [`RECEIVED_BYTES_PER_UNIT`]: such a unit takes the service some microseconds.
const UNITS_PER_LOOK: usize = 8;
const RECEIVED_BYTES_PER_UNIT: usize = 1024;
/// How long the shutdown waits for completions before it cancels once more, in nanoseconds.
const DRAIN_ROUND_NANOSECONDS: u64 = 100_000_000;

/// How a core is set up.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// The core's number, for messages.
    pub core: usize,
    /// The CPU that the thread is bound to.
    pub pin_to_cpu: Option<usize>,
    /// The CPUs that the kernel's threads may run on which work for the ring: they do what would
    /// block, such as flushing a file. `None` leaves that to the kernel.
    pub worker_cpus: Option<CpuBits>,
    /// Operations that fit into the ring between two enters.
    pub ring_entries: u32,
    /// Receive buffers shared by the core's connections, rounded up to a power of two.
    pub receive_buffers: u16,
    /// The size of each, in bytes.
    pub receive_buffer_bytes: usize,
    /// Memory for disk buffers that is registered with the ring, in bytes.
    pub registered_bytes: usize,
    /// How disk requests share the device.
    pub io: IoQueueOptions,
    /// How long the core may spin before it sleeps; zero never spins.
    pub spin_max: Duration,
    /// Unsent output of a connection above which [`Service::drained`] will be called, in bytes.
    pub output_high_water: usize,
    /// What holds the core for longer is told of in the log and counted; zero for nothing.
    pub stall_bound: Duration,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            core: 0,
            pin_to_cpu: None,
            worker_cpus: None,
            ring_entries: 256,
            receive_buffers: 64,
            receive_buffer_bytes: 16 << 10,
            registered_bytes: 4 << 20,
            io: IoQueueOptions::default(),
            spin_max: Duration::from_micros(50),
            output_high_water: 256 << 10,
            stall_bound: Duration::from_millis(10),
        }
    }
}

/// One core. It belongs to the thread that made it.
pub struct Core<R: Ring = Uring> {
    port: Port<R>,
    network: RingNetwork,
    shared: Rc<Shared>,
    waker: RemoteWaker,
    idle: Idle,
    run_queue: RunQueue,
    /// Whether the service had something to do when it was last asked.
    has_served: bool,
    is_watching_bell: bool,
    is_drained: bool,
}

/// How spinning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spun {
    InVain,
    /// Something has completed.
    Completions,
    /// Something is to be done, some of which may have been.
    Work,
}

impl Core {
    /// Sets a core up for the calling thread, which from then on is the only one to use it.
    pub fn new(options: CoreOptions) -> Result<Self, StartError> {
        probe::check_kernel()?;
        if let Some(cpu) = options.pin_to_cpu {
            affinity::pin_thread(cpu).map_err(|source| StartError::Pin { cpu, source })?;
        }
        let buffers = options.receive_buffers.clamp(1, 1 << 15).next_power_of_two();
        let ring = Uring::new(options.ring_entries, buffers, options.receive_buffer_bytes)?;
        if let Some(cpus) = options.worker_cpus {
            bind_workers(&ring, cpus, options.core);
        }
        Self::with_ring(ring, options)
    }
}

impl<R: Ring> Core<R> {
    /// A core on the given ring.
    pub fn with_ring(ring: R, options: CoreOptions) -> Result<Self, StartError> {
        let setup = |step| move |source| StartError::Setup { step, source };
        let waker = RemoteWaker::new().map_err(setup("make an eventfd"))?;
        let mut port = Port::new(ring);
        let pool = BufferPool::new(options.registered_bytes);
        register_pool(&mut port, &pool, options.core);
        let shared = Shared {
            clock: Clock::new(),
            disk: RefCell::new(Disk::new(options.io)),
            executor: Executor::new(options.core, waker.clone(), nanoseconds(options.stall_bound)),
            timers: RefCell::default(),
            pool,
            random: RefCell::new(Random::new(random_seed().map_err(setup("get random bytes"))?)),
            counters: Cell::default(),
            receive_buffer_bytes: usize::from(options.receive_buffers)
                * options.receive_buffer_bytes,
        };
        Ok(Self {
            port,
            network: RingNetwork::new(options.output_high_water, options.receive_buffer_bytes),
            shared: Rc::new(shared),
            waker,
            idle: Idle::new(nanoseconds(options.spin_max)),
            run_queue: RunQueue::new(monotonic_nanoseconds()),
            has_served: false,
            is_watching_bell: false,
            is_drained: false,
        })
    }

    /// The core's instance of the seam.
    pub fn env(&self) -> RingEnv {
        RingEnv::new(Rc::clone(&self.shared))
    }

    /// Wakes this core from other threads.
    pub fn waker(&self) -> RemoteWaker {
        self.waker.clone()
    }

    /// The core's connections and listeners.
    pub fn network(&mut self) -> &mut RingNetwork {
        &mut self.network
    }

    /// Drives the core until `future` ends. Connections wait meanwhile: what happens to them is
    /// handed to the next [`Core::run`].
    ///
    /// # Panics
    ///
    /// If a task panics, or the ring fails.
    pub fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        let executor = Arc::clone(&self.shared.executor);
        executor.rested_until(monotonic_nanoseconds());
        let future = pin!(future);
        let mut driver = BlockingOn::new(future, executor, self.waker.clone());
        self.drive(&mut driver);
        driver.into_output()
    }

    /// Runs `service` until `stop` returns true. `stop` is asked once per turn, and before the core
    /// sleeps: whoever changes its answer from another thread wakes the core afterwards.
    ///
    /// # Panics
    ///
    /// If a task or the service panics, or the ring fails.
    pub fn run<S: Service<RingNetwork>>(&mut self, service: &mut S, stop: &dyn Fn(&S) -> bool) {
        let now = self.shared.clock.start_turn();
        self.shared.executor.rested_until(now);
        service.begin_turn();
        while let Some(completion) = self.network.held.pop_front() {
            self.network.complete(&mut self.port, service, completion, now);
        }
        self.drive(&mut Serving { service, stop });
    }

    /// Drops all tasks and connections, cancels every operation and waits until the kernel is done
    /// with the last of them. Services get no more calls.
    pub fn shutdown(mut self) {
        self.drain();
    }

    fn drive<D: Driver<R>>(&mut self, driver: &mut D) {
        loop {
            let is_busy = self.turn(driver);
            if driver.is_finished() {
                break;
            }
            let is_busy = is_busy || self.has_changed(driver);
            if is_busy {
                self.enter_if_needed();
            } else {
                self.idle(driver);
            }
        }
        self.enter_if_needed();
    }

    /// One turn; returns whether the driver expects more to do at once.
    fn turn<D: Driver<R>>(&mut self, driver: &mut D) -> bool {
        self.count(|counters| counters.turns += 1);
        let now = self.shared.clock.start_turn();
        self.served_until(driver, now);
        driver.begin_turn();
        let has_left = self.take_completions(driver, now);
        self.fire_timers(now);
        if self.shared.executor.has_ready() {
            let started = monotonic_nanoseconds();
            self.served_until(driver, started);
            // A device that has work while the core goes on is the faster for it.
            let has_batch = || self.shared.disk.borrow().has_batch();
            self.shared.executor.run(started, has_left || self.has_served, has_batch);
        }
        let is_busy = driver.work(&mut self.network, now);
        self.has_served = is_busy;
        driver.flush(&mut self.network, &mut self.port, now);
        self.dispatch_disk(now);
        driver.publish();
        if !self.is_watching_bell {
            self.is_watching_bell = true;
            let watch = Operation::Watch { fd: self.waker.event_fd() };
            self.port.push_plain(Token::without_slot(Kind::Wake), watch);
        }
        is_busy || has_left
    }

    /// Hands disk requests to the ring at the end of the turn that has begun at `turn_start`. What
    /// time has brought meanwhile they may use: a device would stand idle for it.
    fn dispatch_disk(&mut self, turn_start: u64) {
        let mut disk = self.shared.disk.borrow_mut();
        // A core that asks nothing of its disk needs no clock for it.
        let now = if disk.requests() == 0 { turn_start } else { monotonic_nanoseconds() };
        disk.dispatch(&mut self.port, now, now.saturating_sub(turn_start));
    }

    /// Notes that the driver, and the loop around it, have had the core until now, and whether that
    /// was for too long.
    #[inline]
    fn served_until<D: Driver<R>>(&self, driver: &D, now: u64) {
        if let Some(nanoseconds) = self.shared.executor.served_until(now) {
            self.tell_of_service(driver, nanoseconds, now);
        }
    }

    #[cold]
    fn tell_of_service<D: Driver<R>>(&self, driver: &D, nanoseconds: u64, now: u64) {
        let Some(what) = driver.heaviest() else { return };
        self.shared.executor.tell_of_stall(TaskQueue::Foreground, nanoseconds, now, || what);
    }

    /// Handles what has completed, for as long as a turn has; returns whether some is left.
    fn take_completions<D: Driver<R>>(&mut self, driver: &mut D, now: u64) -> bool {
        let mut units = 0;
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.port.pop() else { return false };
            let received = if completion.buffer.is_some() { completion.result } else { 0 };
            units += 1 + usize::try_from(received).unwrap_or(0) / RECEIVED_BYTES_PER_UNIT;
            self.complete(driver, completion, now);
            if units >= UNITS_PER_LOOK {
                units = 0;
                if monotonic_nanoseconds() - now >= COMPLETIONS_NANOSECONDS {
                    break;
                }
            }
        }
        self.port.ring.has_completions()
    }

    #[inline]
    fn complete<D: Driver<R>>(&mut self, driver: &mut D, completion: Completion, now: u64) {
        let token = Token::decode(completion.token);
        match token.kind {
            Kind::Disk => self.complete_disk(token.key, completion.result, now),
            Kind::Wake => self.complete_wake(completion),
            Kind::Cancel => {}
            Kind::Accept | Kind::Receive | Kind::Send | Kind::CancelConnection => {
                driver.complete(&mut self.network, &mut self.port, completion, now);
            }
        }
    }

    fn complete_disk(&mut self, key: Key, result: i32, now: u64) {
        let waker = self.shared.disk.borrow_mut().complete(key, result, now);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn complete_wake(&mut self, completion: Completion) {
        self.is_watching_bell = completion.more;
        if completion.result >= 0 {
            self.count(|counters| counters.wakes += 1);
        }
    }

    fn fire_timers(&mut self, now: u64) {
        loop {
            let due = self.shared.timers.borrow_mut().take_due(now);
            let Some(waker) = due else { return };
            waker.wake();
        }
    }

    fn enter_if_needed(&mut self) {
        if self.port.ring.needs_enter() {
            self.enter(Wait::No);
        }
    }

    fn enter(&mut self, wait: Wait) {
        self.count(|counters| counters.enters += 1);
        let entered = self.port.ring.enter(wait);
        entered.unwrap_or_else(|error| panic!("io_uring_enter failed: {error}"));
    }

    /// There is nothing to do: spins if that is promising, and sleeps.
    fn idle<D: Driver<R>>(&mut self, driver: &mut D) {
        let since = monotonic_nanoseconds();
        self.served_until(driver, since);
        let (expected, due) = {
            let disk = self.shared.disk.borrow();
            (disk.expected(), disk.deadline())
        };
        if let Some(is_shared) = self.run_queue.is_shared(since) {
            self.idle.set_shared(is_shared);
        }
        let budget = self.idle.spin_budget(expected);
        let spun = if budget > 0 { self.spin(driver, since, budget) } else { Spun::InVain };
        let has_worked = spun == Spun::Work || (spun == Spun::InVain && self.park(driver));
        let now = monotonic_nanoseconds();
        match spun {
            _ if has_worked => self.served_until(driver, now),
            Spun::InVain => self.shared.executor.rested_until(now),
            _ => self.shared.executor.spun_until(now),
        }
        if due.is_some_and(|due| due <= now) {
            self.idle.note_due();
        } else {
            self.idle.note_gap(expected, now - since);
        }
    }

    /// Spins until there is work or the time for it is up.
    fn spin<D: Driver<R>>(&mut self, driver: &mut D, since: u64, budget: u64) -> Spun {
        self.enter_if_needed();
        loop {
            for _ in 0..GLANCES_PER_LOOK {
                if self.port.ring.has_completions() {
                    self.enter_if_needed();
                    return Spun::Completions;
                }
                std::hint::spin_loop();
            }
            let now = monotonic_nanoseconds();
            self.shared.executor.spun_until(now);
            let is_due = self.deadline(driver).is_some_and(|deadline| deadline <= now);
            if is_due || self.has_found_work(driver, now) {
                return Spun::Work;
            }
            if now - since >= budget {
                return Spun::InVain;
            }
        }
    }

    /// Looks at everything that other threads may have left for this core.
    fn has_found_work<D: Driver<R>>(&mut self, driver: &mut D, now: u64) -> bool {
        driver.work(&mut self.network, now) || driver.is_finished() || self.has_changed(driver)
    }

    /// Whether another turn would run a task or bring something to the ring.
    fn has_changed<D: Driver<R>>(&self, driver: &D) -> bool {
        self.shared.executor.has_ready()
            || self.shared.disk.borrow().is_changed()
            || driver.is_changed(&self.network)
    }

    /// Sleeps until there is something to do; returns whether there was already, some of which may
    /// have been done.
    fn park<D: Driver<R>>(&mut self, driver: &mut D) -> bool {
        if !self.waker.word().prepare() {
            self.enter_if_needed();
            return false;
        }
        let now = monotonic_nanoseconds();
        self.shared.executor.rested_until(now);
        if self.has_found_work(driver, now) {
            self.waker.word().cancel();
            self.enter_if_needed();
            return true;
        }
        let wait = match self.deadline(driver) {
            None => Wait::Forever,
            Some(deadline) if deadline <= now => Wait::No,
            Some(deadline) => Wait::Nanoseconds(deadline - now),
        };
        self.count(|counters| counters.parks += 1);
        self.enter(wait);
        self.waker.word().awake();
        false
    }

    fn deadline<D: Driver<R>>(&self, driver: &D) -> Option<u64> {
        let timer = self.shared.timers.borrow().next();
        let disk = self.shared.disk.borrow().deadline();
        timer.into_iter().chain(disk).chain(driver.deadline(&self.network)).min()
    }

    #[inline]
    fn count(&self, count: impl FnOnce(&mut LoopCounters)) {
        let mut counters = self.shared.counters.get();
        count(&mut counters);
        self.shared.counters.set(counters);
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    fn drain(&mut self) {
        if std::mem::replace(&mut self.is_drained, true) {
            return;
        }
        self.shared.executor.close();
        let wakers = self.shared.disk.borrow_mut().close(self.shared.clock.now());
        wakers.into_iter().for_each(Waker::wake);
        for completion in std::mem::take(&mut self.network.held) {
            RingNetwork::discard(&mut self.port, completion);
        }
        while self.port.in_flight() > 0 {
            self.port.push_plain(Token::without_slot(Kind::Cancel), Operation::CancelAll);
            self.enter(Wait::No);
            self.drain_round();
        }
    }

    /// Takes completions until none is missing, or none has come for a while.
    fn drain_round(&mut self) {
        loop {
            let mut has_any = false;
            while let Some(completion) = self.port.pop() {
                has_any = true;
                let token = Token::decode(completion.token);
                match token.kind {
                    Kind::Disk => {
                        self.complete_disk(token.key, completion.result, self.shared.clock.now());
                    }
                    Kind::Wake | Kind::Cancel => {}
                    _ => RingNetwork::discard(&mut self.port, completion),
                }
            }
            if self.port.in_flight() == 0 {
                return;
            }
            if !has_any {
                let started = monotonic_nanoseconds();
                self.enter(Wait::Nanoseconds(DRAIN_ROUND_NANOSECONDS));
                if monotonic_nanoseconds() - started >= DRAIN_ROUND_NANOSECONDS {
                    return;
                }
            }
        }
    }
}

impl<R: Ring> Drop for Core<R> {
    fn drop(&mut self) {
        self.drain();
    }
}

impl<R: Ring> std::fmt::Debug for Core<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Core({:?}, {} in flight)", self.network, self.port.in_flight())
    }
}

/// Has the kernel's threads that work for the ring keep to these CPUs. Where it refuses, because
/// some of them were taken from the process meanwhile, they run where the process may.
fn bind_workers(ring: &Uring, cpus: CpuBits, core: usize) {
    if let Err(error) = ring.bind_workers(cpus) {
        tracing::warn!(
            core, %error,
            "cannot bind the ring's workers to the CPUs of the plan, so they run on all that the \
             process may use: make the plan anew with `larder tune --apply`"
        );
    }
}

/// Registers the pool's memory, without which disk requests work but cost more.
fn register_pool<R: Ring>(port: &mut Port<R>, pool: &BufferPool, core: usize) {
    let (memory, bytes) = pool.region();
    if bytes == 0 {
        return;
    }
    // SAFETY: the pool lives as long as its buffers, a request owns its buffer until the last
    // completion, and the core drains the ring before it drops it.
    match unsafe { port.ring.register_memory(memory, bytes) } {
        Ok(()) => pool.set_registered(),
        Err(error) => tracing::warn!(
            core, bytes, %error,
            "cannot register the disk buffers, so disk requests cost more; if memory is short, \
             raise RLIMIT_MEMLOCK (`ulimit -l`, or LimitMEMLOCK= of the unit)"
        ),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn random_seed() -> io::Result<u64> {
    let mut seed = [0u8; 8];
    // SAFETY: `seed` is valid for writing its length.
    let len = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if len == 8 { Ok(u64::from_ne_bytes(seed)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod turn_tests;
