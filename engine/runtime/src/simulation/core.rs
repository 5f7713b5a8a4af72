//! A simulated core: the loop that drives a service, and the seam as that service sees it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;

use super::env::SimEnv;
use super::file::SimFile;
use super::network::{SimNetwork, SimNetworkOptions};
use super::random::{Random, Stream};
use super::wire::SimClient;
use crate::buffer::Buffer;
use crate::core_env::{CoreEnv, CoreFigures, CoreWaker, LoopCounters};
use crate::disk::DiskCounters;
use crate::env::{DirectoryEntry, Env, IO_CLASSES, IoClass, OpenMode, TaskQueue};
use crate::io_queue::{IoClassStatistics, IoQueueOptions, check_io_class};
use crate::network::Service;

/// The longest that a look at the clock finds to have passed since the last, in nanoseconds.
const LOOK_NANOSECONDS_MAX: u64 = 20_000;

/// What a core, its tasks and its wakers share.
#[derive(Debug)]
struct Shared {
    /// Something has happened since the core's last turn.
    is_awake: Cell<bool>,
    turns: Cell<u64>,
    wakes: Cell<u64>,
    random: RefCell<Random>,
    /// What the classes of disk requests were given; the simulated disk has no queue to share.
    io_classes: RefCell<[IoClassStatistics; IO_CLASSES]>,
}

/// The simulated instance of [`CoreEnv`]: a [`SimEnv`] whose tasks belong to one core, which takes
/// a turn after they have run.
#[derive(Clone)]
pub struct SimCoreEnv {
    env: SimEnv,
    shared: Rc<Shared>,
}

/// Wakes a simulated core.
#[derive(Clone, Debug)]
pub struct SimWaker(Rc<Shared>);

impl CoreWaker for SimWaker {
    fn wake(&self) {
        self.0.is_awake.set(true);
        self.0.wakes.set(self.0.wakes.get() + 1);
    }
}

impl CoreEnv for SimCoreEnv {
    type Network = SimNetwork;
    type Waker = SimWaker;

    /// Time passes while a turn goes on, so that what has a bound of time ends at any place.
    fn precise_now(&self) -> u64 {
        let passed = self.shared.random.borrow_mut().below(LOOK_NANOSECONDS_MAX);
        self.env.pass(passed);
        self.env.now()
    }

    fn unix_microseconds(&self) -> u64 {
        self.env.unix_seconds() * 1_000_000
    }

    fn figures(&self) -> CoreFigures {
        let turns = LoopCounters {
            turns: self.shared.turns.get(),
            wakes: self.shared.wakes.get(),
            ..LoopCounters::default()
        };
        let disk =
            DiskCounters { classes: *self.shared.io_classes.borrow(), ..DiskCounters::default() };
        CoreFigures { disk, turns, ..CoreFigures::default() }
    }

    fn set_io_class(
        &self,
        class: IoClass,
        shares: Option<u32>,
        bandwidth_max: Option<Option<u64>>,
    ) -> Result<(), String> {
        check_io_class(class, shares, bandwidth_max.flatten())?;
        let state = &mut self.shared.io_classes.borrow_mut()[class as usize];
        state.usual_shares = shares.unwrap_or(state.usual_shares);
        state.shares = state.usual_shares;
        state.bandwidth_max = bandwidth_max.unwrap_or(state.bandwidth_max);
        Ok(())
    }
}

impl Env for SimCoreEnv {
    type File = SimFile;

    fn now(&self) -> u64 {
        self.env.now()
    }

    fn unix_seconds(&self) -> u64 {
        self.env.unix_seconds()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn spawn(&self, queue: TaskQueue, future: impl Future<Output = ()> + 'static) {
        let shared = Rc::clone(&self.shared);
        self.env.spawn(queue, async move {
            let mut future = pin!(future);
            let run = std::future::poll_fn(|context| {
                shared.is_awake.set(true);
                future.as_mut().poll(context)
            });
            run.await;
        });
    }

    fn set_urgency(&self, claimant: u16, queue: TaskQueue, urgency: u32) {
        self.env.set_urgency(claimant, queue, urgency);
    }

    fn sleep(&self, nanoseconds: u64) -> impl Future<Output = ()> + 'static {
        self.env.sleep(nanoseconds)
    }

    fn yield_if_needed(&self) -> impl Future<Output = ()> + 'static {
        self.env.yield_if_needed()
    }

    fn buffer(&self, len: usize) -> Buffer {
        self.env.buffer(len)
    }

    fn open(
        &self,
        path: &Path,
        mode: OpenMode,
    ) -> impl Future<Output = io::Result<SimFile>> + 'static {
        self.env.open(path, mode)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.env.list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.env.create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.rename(from, to)
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.sync_directory(directory)
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        self.env.free_space(directory)
    }
}

/// A core of a simulated node. Several share one [`Simulation`](super::Simulation), which runs
/// their tasks; whoever has it lets each take turns.
pub struct SimCore {
    env: SimCoreEnv,
    network: SimNetwork,
}

impl SimCore {
    /// Core number `core` of a run with this seed.
    pub fn new(env: SimEnv, seed: u64, core: usize, options: SimNetworkOptions) -> Self {
        let of_core = seed ^ ((core as u64 + 1) << 48);
        let io_class = |shares| IoClassStatistics {
            shares,
            usual_shares: shares,
            ..IoClassStatistics::default()
        };
        let shared = Shared {
            is_awake: Cell::new(true),
            turns: Cell::new(0),
            wakes: Cell::new(0),
            random: RefCell::new(Stream::Core.of(of_core)),
            io_classes: RefCell::new(IoQueueOptions::default().shares.map(io_class)),
        };
        Self {
            env: SimCoreEnv { env, shared: Rc::new(shared) },
            network: SimNetwork::new(options, Stream::Network.of(of_core)),
        }
    }

    /// The seam.
    pub fn env(&self) -> SimCoreEnv {
        self.env.clone()
    }

    /// What wakes it.
    pub fn waker(&self) -> SimWaker {
        SimWaker(Rc::clone(&self.env.shared))
    }

    /// Its connections.
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }

    /// A client that connects to the listener of this index, and has room for `window` bytes that
    /// it has not read. Where nobody listens any more it is refused.
    pub fn connect(&mut self, listener: usize, window: usize) -> SimClient {
        self.network.connect(listener, window)
    }

    /// Takes one turn if there is a reason to: something has come, a task has run, another core has
    /// woken this one, or the last turn wanted another. Returns whether there was one.
    pub fn turn<S: Service<SimNetwork>>(&mut self, service: &mut S) -> bool {
        let shared = Rc::clone(&self.env.shared);
        let is_awake = shared.is_awake.replace(false);
        if !is_awake && !self.network.has_events(self.env.now()) {
            return false;
        }
        shared.turns.set(shared.turns.get() + 1);
        service.begin_turn();
        self.network.happen(service);
        let mut is_busy = service.turn(&mut self.network);
        // A core that spins looks again before its next turn begins.
        if shared.random.borrow_mut().percent(10) {
            is_busy |= service.turn(&mut self.network);
        }
        self.network.flush(service, self.env.now());
        service.publish();
        // Before it sleeps a core looks once more, and publishes nothing if that finds nothing.
        is_busy = is_busy || service.turn(&mut self.network) || self.network.is_changed();
        if is_busy {
            shared.is_awake.set(true);
        }
        true
    }
}
