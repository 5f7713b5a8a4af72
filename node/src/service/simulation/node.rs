//! The node: cores, shards and services as the launcher puts them together, and the loop that lets
//! all of them go on.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use futures_lite::future::yield_now;
use larder_engine::memory::ShardMemory;
use larder_engine::shard::{Shard, ShardOptions};
use larder_protocol::memcached::binary::BINARY_MAGIC;
use larder_runtime::core_env::CoreWaker;
use larder_runtime::env::Env;
use larder_runtime::file_cache::FileCache;
use larder_runtime::random::Random;
use larder_runtime::simulation::{
    SimClient, SimCore, SimCoreEnv, SimDisk, SimEnv, SimNetworkOptions, SimWaker, Simulation,
    SimulationOptions, TraceEntry,
};

use super::client::Client;
use crate::connection::Load;
use crate::control::{Control, Event};
use crate::facts::Facts;
use crate::latency::CoreLatencies;
use crate::ledger::Holding;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::loads::ShardLoads;
use crate::memcached::Memcached;
use crate::memcached::binary::MemcachedBinary;
use crate::mesh::{Ends, Mesh, mailboxes};
use crate::namespaces::NamespaceView;
use crate::namespaces::registry::{REGISTRY_SHARD, Registry};
use crate::native::Native;
use crate::routing::core_of;
use crate::service::{Engine, Entrance, NodeService, Setup, Shared};

/// The listener of memcached's clients, and that of native ones.
pub(super) const MEMCACHED: usize = 0;
pub(super) const NATIVE: usize = 1;

/// A run that goes on for longer is stuck, in nanoseconds of virtual time.
const RUN_NANOSECONDS_MAX: u64 = 600_000_000_000;
/// The longest that the loop sleeps where nothing happens.
const SLEEP_NANOSECONDS_MAX: u64 = 1_000_000;

/// How large a node is, and what of it is small enough to be felt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) cores: usize,
    pub(super) shards: u16,
    /// The value cache of each shard, in bytes.
    pub(super) cache_bytes: usize,
    network: SimNetworkOptions,
}

impl Size {
    pub(super) fn random(random: &mut Random) -> Self {
        let cores = random.count(1..=2);
        Self {
            cores,
            shards: random.pick(&[2, 3]),
            cache_bytes: random.pick(&[0, 64 << 10, 4 << 20]),
            network: SimNetworkOptions {
                output_high_water: OUTPUT_HIGH_WATER,
                receive_bytes_max: random.pick(&[7, 600, 16 << 10]),
                send_bytes_max: random.pick(&[100, 5000, 1 << 20]),
                events_per_turn: random.pick(&[1, 8, 64]),
            },
        }
    }
}

/// The files of a core's shards.
type Files = FileCache<SimCoreEnv>;

/// One core with its service.
struct Served {
    core: SimCore,
    service: NodeService<SimCoreEnv>,
    control: mpsc::Sender<Control>,
}

/// A node that runs.
pub(super) struct Node {
    simulation: Simulation,
    cores: Vec<Served>,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    is_stopping: bool,
}

impl Node {
    /// Starts a node on an empty disk.
    pub(super) fn start(seed: u64, size: Size, records_trace: bool) -> Self {
        let mut disk = SimDisk::new(1 << 40);
        disk.create_directory("/data");
        let options =
            SimulationOptions { record_trace: records_trace, ..SimulationOptions::new(seed) };
        let mut simulation = Simulation::with_disk(options, disk);
        let facts = Facts {
            cores: size.cores,
            shards: size.shards,
            loads: ShardLoads::new(size.shards),
            latencies: CoreLatencies::new(size.cores),
            ..Facts::example()
        };
        let shared = Arc::new(Shared {
            facts: Arc::new(facts),
            shards: size.shards,
            connections: AtomicUsize::new(0),
            events: AtomicU64::new(0),
        });
        let core = |number| SimCore::new(simulation.env(), seed, number, size.network);
        let cores: Vec<SimCore> = (0..size.cores).map(core).collect();
        let wakers: Vec<_> = cores.iter().map(SimCore::waker).collect();
        let (event_sender, events) = mpsc::channel();
        let start = |((number, core), ends): ((usize, SimCore), Vec<Option<Ends>>)| {
            let mesh = Mesh::new(ends, &wakers);
            let plan = CorePlan { number, mesh, size: &size, events: event_sender.clone() };
            plan.start(&mut simulation, core, &shared)
        };
        let cores = cores.into_iter().enumerate().zip(mailboxes(size.cores)).map(start).collect();
        Self { simulation, cores, shared, events, is_stopping: false }
    }

    /// Lets everything go on until all clients are done, and all of their connections gone.
    pub(super) fn serve(&mut self, clients: &mut [Client], random: &mut Random) {
        let Self { simulation, cores, is_stopping, .. } = self;
        let env = simulation.env();
        let drive = async move {
            let mut sleep = 0;
            loop {
                let has_worked = go_on(cores, clients, random);
                let is_done = clients.iter().all(Client::is_done);
                if is_done && !std::mem::replace(is_stopping, true) {
                    stop_all(cores);
                }
                if is_done && !has_worked && cores.iter().all(Served::is_empty) {
                    // What was last given back shows in the accounts with the next turn.
                    wake_all(cores);
                    go_on(cores, clients, random);
                    return;
                }
                let is_stuck = env.now() >= RUN_NANOSECONDS_MAX;
                assert!(!is_stuck, "the run is stuck: {cores:?}, {clients:?}");
                rest(&env, has_worked, &mut sleep, random).await;
            }
        };
        simulation.block_on(drive).expect("nothing stops the run");
    }

    /// Lets everything go on for so many nanoseconds of virtual time.
    pub(super) fn go_on_for(&mut self, nanoseconds: u64, random: &mut Random) {
        let Self { simulation, cores, .. } = self;
        let env = simulation.env();
        let end = env.now() + nanoseconds;
        let drive = async move {
            let mut sleep = 0;
            while env.now() < end {
                let has_worked = go_on(cores, &mut [], random);
                rest(&env, has_worked, &mut sleep, random).await;
            }
        };
        simulation.block_on(drive).expect("nothing stops the run");
    }

    /// A client of a core's listener that the core may send so many bytes before it reads.
    pub(super) fn connect(&mut self, core: usize, listener: usize, window: usize) -> SimClient {
        self.cores[core].core.connect(listener, window)
    }

    /// Lets each core take a turn.
    pub(super) fn turn(&mut self) {
        (0..self.cores.len()).for_each(|core| self.turn_of(core));
    }

    /// Lets one core take a turn.
    pub(super) fn turn_of(&mut self, core: usize) {
        let Served { core, service, .. } = &mut self.cores[core];
        core.turn(service);
    }

    /// Questions to all cores that a core has under way.
    pub(super) fn gathers(&self, core: usize) -> usize {
        self.cores[core].service.state.gathers.len()
    }

    /// What a core has counted of what is between it and others, in bytes.
    pub(super) fn memory_between_cores(&self, core: usize) -> usize {
        self.cores[core].service.state.ledger.mailboxes()
    }

    /// What is between a core and others now, in bytes.
    pub(super) fn memory_between_cores_now(&mut self, core: usize) -> usize {
        self.cores[core].service.state.count_between_cores();
        self.memory_between_cores(core)
    }

    /// Asserts that nobody holds anything any more.
    pub(super) fn assert_nothing_is_held(&self) {
        assert_eq!(self.shared.connections.load(Ordering::Relaxed), 0);
        for Served { core, service, .. } in &self.cores {
            let state = &service.state;
            assert_eq!(core.network().connections(), 0);
            assert_eq!(state.ledger.connections(), Holding::default(), "core {}", state.core);
            assert_eq!((state.ledger.output(), state.shards.held_bytes()), (0, 0));
            let waiting = (state.lanes.parked(), state.gathers.len());
            assert_eq!(waiting, (0, 0), "core {}", state.core);
            let loads = [state.load, state.tasks, state.lanes.load()];
            assert_eq!(loads, [Load::default(); 3], "core {}", state.core);
            assert_eq!((service.table.len(), service.refused.len()), (0, 0));
        }
        let told: Vec<Event> = self.events.try_iter().collect();
        let drained = told.iter().filter(|event| matches!(event, Event::Drained(_))).count();
        assert_eq!((drained, told.len()), (self.cores.len(), drained), "{told:?}");
    }

    /// What has happened in the simulated world.
    pub(super) fn trace(&self) -> Vec<TraceEntry> {
        self.simulation.trace()
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (network, state) = (self.core.network().connections(), &self.service.state);
        let (table, tasks, lanes) = (self.service.table.len(), state.tasks, state.lanes.load());
        write!(formatter, "{network} connections, {table} known, {tasks:?}, lanes {lanes:?}")
    }
}

impl Served {
    fn is_empty(&self) -> bool {
        self.service.table.len() == 0
            && self.service.state.lanes.load() == Load::default()
            && self.service.state.tasks == Load::default()
            && self.service.state.shards.held_bytes() == 0
    }
}

/// Lets each core take a turn and each client do something, in any order; returns whether anything
/// was done.
fn go_on(cores: &mut [Served], clients: &mut [Client], random: &mut Random) -> bool {
    let mut has_worked = false;
    let mut order: Vec<usize> = (0..cores.len() + clients.len()).collect();
    random.shuffle(&mut order);
    for index in order {
        if let Some(Served { core, service, .. }) = cores.get_mut(index) {
            has_worked |= core.turn(service);
            continue;
        }
        let gone = clients.iter().filter(|client| client.is_done()).count();
        let client = &mut clients[index - cores.len()];
        let connect = |listener, window, core: usize| -> SimClient {
            let core = core % cores.len();
            cores[core].core.connect(listener, window)
        };
        has_worked |= client.step(gone, connect);
    }
    has_worked
}

/// Gives tasks the processor, and time the chance to pass if nothing happens.
async fn rest(env: &SimEnv, has_worked: bool, sleep: &mut u64, random: &mut Random) {
    if has_worked {
        *sleep = 0;
        return yield_now().await;
    }
    *sleep = (*sleep * 2).clamp(1000, SLEEP_NANOSECONDS_MAX);
    env.sleep(random.within(&(*sleep / 2..=*sleep))).await;
}

/// Has all cores end as they do when the node stops.
fn stop_all(cores: &[Served]) {
    for Served { control, .. } in cores {
        control.send(Control::Drain).expect("the service hears");
    }
    wake_all(cores);
}

fn wake_all(cores: &[Served]) {
    cores.iter().for_each(|served| served.core.waker().wake());
}

/// What one core is started with.
struct CorePlan<'a> {
    number: usize,
    mesh: Mesh<SimWaker>,
    size: &'a Size,
    events: mpsc::Sender<Event>,
}

impl CorePlan<'_> {
    fn start(self, simulation: &mut Simulation, core: SimCore, shared: &Arc<Shared>) -> Served {
        let Self { number, mesh, size, events } = self;
        let files = Files::new(core.env(), 64);
        let own = (0..size.shards).filter(|shard| core_of(*shard, size.cores) == number);
        let open = |shard| (shard, open(simulation, &files, shard, size));
        let engines: Vec<(u16, Rc<Engine<SimCoreEnv>>)> = own.map(open).collect();
        let keeper = engines.iter().find(|(shard, _)| *shard == REGISTRY_SHARD);
        let registry = keeper.map(|(_, engine)| {
            let loaded = simulation.block_on(Registry::load(engine));
            loaded.expect("the run goes on").expect("an empty registry")
        });
        let namespaces = NamespaceView::default();
        let (control, control_receiver) = mpsc::channel();
        let setup = Setup {
            core: number,
            env: core.env(),
            files,
            entrances: entrances(&shared.facts, number, &namespaces),
            addresses: vec![None, None],
            shared: Arc::clone(shared),
            mesh,
            engines,
            control: control_receiver,
            events,
            namespaces,
            registry,
        };
        Served { core, service: NodeService::new(setup), control }
    }
}

fn entrances(
    facts: &Arc<Facts>,
    core: usize,
    namespaces: &NamespaceView,
) -> Vec<Entrance<SimCoreEnv>> {
    let with = || (Arc::clone(facts), namespaces.clone());
    let (text, binary, native) = (with(), with(), with());
    vec![
        Entrance::by_first_byte(
            move || Memcached::new(&text.0, &text.1),
            BINARY_MAGIC,
            move || MemcachedBinary::new(&binary.0, &binary.1),
        ),
        Entrance::new(move || Native::new(&native.0, core, &native.1)),
    ]
}

fn open(
    simulation: &mut Simulation,
    files: &Files,
    shard: u16,
    size: &Size,
) -> Rc<Engine<SimCoreEnv>> {
    let memory = ShardMemory::plan(32 << 20, 1 << 20).expect("it is enough");
    let options = ShardOptions {
        segment_bytes: 4 << 20,
        memtable_bytes: 64 << 10,
        item_cache_bytes: size.cache_bytes,
        free_segments_max: 1,
        ..ShardOptions::for_memory(shard, size.shards, &memory)
    };
    let directory = PathBuf::from(format!("/data/shard-{shard:03}"));
    let opening = Shard::open(files.clone(), &directory, options);
    let (engine, _) = simulation.block_on(opening).expect("the run goes on").expect("it opens");
    engine
}
