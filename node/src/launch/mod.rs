//! Starting the node, watching over it, and stopping it.
//!
//! ```text
//!   launcher                                core threads
//!   directory, memory, CPUs, sockets
//!   start threads  ----------------------->  ring
//!                  <------- Event::Waker --
//!   -- Step::Open ------------------------>  open shards
//!                  <------ Event::Opened --
//!   -- Step::Serve ----------------------->  accept connections
//!   supervisor     <---- Event ------------
//!   -- Control::Drain, Control::Finish --->  flush, end
//! ```
//!
//! A request to stop counts from the beginning: before the cores serve it makes them give up.

mod cancel;
mod checks;
mod core_thread;
mod cpus;
mod descriptors;
pub(crate) mod directory;
mod disk;
mod error;
mod file_system;
mod listeners;
mod local_socket;
mod patience;
mod supervisor;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use larder_engine::memory::ShardMemory;
use larder_engine::shard::ShardOptions;
use larder_protocol::memcached::KEY_BYTES_MAX;
use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::wake::RemoteWaker;

pub use error::{RunError, StartError};
pub use file_system::Lack;
pub use supervisor::{CoreHandle, RunningNode, Stopper};

use crate::admin::Admin;
use crate::config::{Config, RuntimeKind, Size};
use crate::control::Event;
use crate::facts::{DiskFacts, Facts};
use crate::latency::CoreLatencies;
use crate::limits::RESTART_PATIENCE_MILLISECONDS;
use crate::loads::ShardLoads;
use crate::log::LogControl;
use crate::memcached::gate::Gate;
use crate::memory_plan::{MemoryNeeds, MemoryPlan};
use crate::mesh;
use crate::namespaces::NamespaceTable;
use crate::routing::core_of;
use crate::service::Shared;
use cancel::Cancel;
use core_thread::{CorePlan, ShardPlan, Step};
use cpus::ChosenCpus;
use descriptors::Needs;
use directory::DataDirectory;
use listeners::Listeners;
use patience::Patience;
use supervisor::{Queues, Supervisor};

/// Where the node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The memcached port, if there is one.
    pub memcached: Option<SocketAddr>,
    /// The path for memcached clients of this machine, if there is one.
    pub unix_socket: Option<PathBuf>,
    /// The native port.
    pub native: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
    /// The first of the per-core ports.
    pub core_ports: Option<u16>,
    /// How many shards the node has.
    pub shards: u16,
}

impl std::fmt::Display for Addresses {
    /// The line that says that the node is ready.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { memcached, unix_socket, native, admin, core_ports, shards } = self;
        match (memcached, unix_socket) {
            (Some(address), _) => write!(formatter, "larder ready memcached={address}")?,
            (None, Some(path)) => {
                write!(formatter, "larder ready memcached=unix:{}", path.display())?;
            }
            (None, None) => write!(formatter, "larder ready memcached=none")?,
        }
        write!(formatter, " native={native} admin={admin}")?;
        write!(formatter, " shards={shards}")?;
        core_ports.map_or(Ok(()), |base| write!(formatter, " cores={base}.."))
    }
}

/// A node that is about to start.
#[derive(Debug)]
pub struct Launcher {
    queues: Queues,
    log: Option<LogControl>,
}

impl Default for Launcher {
    fn default() -> Self {
        let (events, event_queue) = channel();
        Self { queues: Queues { events, event_queue }, log: None }
    }
}

impl Launcher {
    /// Lets clients of the node change how much is logged.
    pub fn with_log(self, log: LogControl) -> Self {
        Self { log: Some(log), ..self }
    }

    /// A handle that stops the node, from now on and while it runs.
    pub fn stopper(&self) -> Stopper {
        Stopper::new(&self.queues)
    }

    /// Starts the node. When it returns, all shards are open and connections are accepted.
    ///
    /// # Errors
    /// Whatever keeps the node from serving; nothing is left running then.
    /// [`StartError::Stopped`] if it was asked to stop.
    pub fn start(self, config: &Config) -> Result<RunningNode, StartError> {
        let limit = Duration::from_millis(RESTART_PATIENCE_MILLISECONDS);
        let mut patience = Patience::new(&self.queues.event_queue, limit);
        #[cfg(feature = "runtime-glommio")]
        checks::check_runtime(config)?;
        let cpus = cpus::choose(config)?;
        let cores = cpus.cores.len();
        let gate = checks::gate(config.auth_file.as_deref())?;
        let mut listeners = listeners::bind(config, cores, &mut patience)?;
        let default_shards = u16::try_from(cores).unwrap_or(crate::limits::SHARDS_MAX);
        let (path, asked) = (&config.data_dir, config.shards);
        let directory = directory::prepare(path, asked, default_shards, &mut patience)?;
        if let Some(path) = &config.unix_socket {
            listeners.add_local(path, &local_socket::bind(path, config.unix_socket_mode)?)?;
        }
        let shards = directory.shards.len() as u16;
        let needs = Needs { connections: config.max_connections, cores, shards };
        let descriptors = descriptors::obtain(needs)?;
        let needs = MemoryNeeds {
            cores,
            shards,
            connections: descriptors.connections,
            item_bytes: item_bytes(config),
        };
        let config = &*checks::with_memory(config, needs);
        let memory = checks::plan_memory(config.memory, needs)?;
        let disk_bytes = checks::disk_bytes(path, config.disk_limit)?;
        let budget = DiskBudget::new(config.disk_limit.map(|limit| limit.0));
        let plan = ShardsPlan { config, shards, memory: &memory.shards.1, disk_bytes, budget };
        let needed = plan.options(0).disk_bytes_min();
        checks::check_space(path, &directory.shards, config.disk_limit, needed)?;
        let known = disk::find(config, &directory, &patience)?;
        let (disk, io) = disk::set_up(config, known, cores);
        let options = (0..shards).map(|shard| plan.options(shard)).collect();
        let shared = Arc::new(Shared {
            facts: Arc::new(facts(
                config,
                &listeners,
                (cores, shards),
                descriptors.connections,
                memory,
                (gate, disk, plan.options(0).large.len_max()),
            )),
            shards,
            connections: AtomicUsize::new(0),
            events: AtomicU64::new(0),
        });
        let files_max = descriptors.files_per_core;
        let (cpus, shared) = (&cpus, &shared);
        let runtime = config.runtime;
        let stall_bound = Duration::from_millis(config.stall_bound.into());
        let parts = Parts {
            runtime,
            cpus,
            directory,
            options,
            memory,
            files_max,
            stall_bound,
            io,
            listeners,
            shared,
        };
        parts.launch(self.queues, self.log)
    }
}

fn facts(
    config: &Config,
    listeners: &Listeners,
    (cores, shards): (usize, u16),
    connections_max: usize,
    memory_plan: MemoryPlan,
    (gate, disk, large_bytes_max): (Option<Arc<Gate>>, Option<DiskFacts>, u32),
) -> Facts {
    Facts {
        started: unix_seconds(),
        cores,
        memory: config.memory.0,
        memory_plan,
        shards,
        port: listeners.memcached.map_or(0, |address| address.port()),
        native_core_ports: config.native_core_ports,
        unix_socket: config.unix_socket.as_ref().map(|path| path.display().to_string()),
        unix_socket_mode: config.unix_socket_mode.to_string(),
        listen: config.listen.to_string(),
        item_bytes_max: config.max_item_size.0,
        large_bytes_max,
        connections_max,
        idle_timeout: config.idle_timeout,
        idempotency_window: config.idempotency_window,
        flush_enabled: !config.disable_flush_all,
        dump_enabled: !config.disable_dumps,
        watch_enabled: !config.disable_watch,
        prefix_delimiter: config.prefix_delimiter.unwrap_or(b':'),
        counts_prefixes: config.prefix_delimiter.is_some(),
        shutdown_enabled: config.enable_shutdown,
        gate,
        durability: config.durability.to_string(),
        targets: (config.read_target_us, config.write_target_us),
        loads: ShardLoads::new(shards),
        disk,
        latencies: CoreLatencies::new(cores),
    }
}

#[allow(clippy::disallowed_methods, reason = "the launcher has no core to ask")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What all shards have in common.
struct ShardsPlan<'a> {
    config: &'a Config,
    shards: u16,
    memory: &'a ShardMemory,
    disk_bytes: u64,
    budget: Arc<DiskBudget>,
}

impl ShardsPlan<'_> {
    fn options(&self, shard: u16) -> ShardOptions {
        let Self { config, shards, .. } = *self;
        let mut options =
            ShardOptions::for_memory(shard, shards, self.memory).on_disk_of(self.disk_bytes);
        options.recovery_log_bytes = share(config.recovery_log, shards);
        options.space_amplification_percent = config.max_space_amp.0;
        options.collect_bytes_per_second = config.gc_rate.map(|rate| share(rate, shards));
        options.scrub.bytes_per_second =
            (config.scrub_rate.0 > 0).then(|| share(config.scrub_rate, shards));
        options.budget = Arc::clone(&self.budget);
        options.large.staging_seconds = config.staging_window;
        options.compress_from = config.compress_from.engine();
        options.log.durability = config.durability.engine();
        let value_bytes_max = options.value_bytes_max;
        assert!(value_bytes_max > KEY_BYTES_MAX, "the option's range leaves room for any key");
        options
    }
}

/// The longest item.
fn item_bytes(config: &Config) -> usize {
    usize::try_from(config.max_item_size.0).unwrap_or(usize::MAX)
}

/// What one of `shards` gets of something that the node has.
fn share(size: Size, shards: u16) -> u64 {
    (size.0 / u64::from(shards.max(1))).max(1)
}

/// What a node is put together from.
struct Parts<'a> {
    runtime: RuntimeKind,
    cpus: &'a ChosenCpus,
    directory: DataDirectory,
    /// Of each shard.
    options: Vec<ShardOptions>,
    memory: MemoryPlan,
    /// Files that each core keeps open.
    files_max: usize,
    /// How each core's disk requests share the disk.
    io: IoQueueOptions,
    stall_bound: Duration,
    listeners: Listeners,
    shared: &'a Arc<Shared>,
}

/// The cores' threads before they serve.
struct Starting {
    threads: Vec<JoinHandle<()>>,
    steps: Vec<Sender<Step>>,
    cores: Vec<CoreHandle>,
    cancel: Cancel,
}

impl Parts<'_> {
    fn launch(self, queues: Queues, log: Option<LogControl>) -> Result<RunningNode, StartError> {
        let mut starting = Starting {
            threads: Vec::new(),
            steps: Vec::new(),
            cores: Vec::new(),
            cancel: Cancel::default(),
        };
        let (shared, cores) = (self.shared, self.cpus.cores.len());
        let mut plans: Vec<Vec<ShardPlan>> = (0..cores).map(|_| Vec::new()).collect();
        for (directory, options) in self.directory.shards.iter().zip(self.options) {
            let core = core_of(options.shard, cores);
            plans[core].push(ShardPlan { directory: directory.clone(), options });
        }
        let parts = self.cpus.cores.iter().zip(plans).zip(mesh::mailboxes(cores));
        let parts = parts.zip(self.listeners.by_core);
        for (core, (((cpu, shards), ends), listeners)) in parts.enumerate() {
            let (step, step_queue) = channel();
            let (control, control_queue) = channel();
            starting.steps.push(step);
            starting.cores.push(CoreHandle { control, waker: None });
            let thread = core_thread::spawn(CorePlan {
                core,
                runtime: self.runtime,
                cpu: *cpu,
                stall_bound: self.stall_bound,
                worker_cpus: self.cpus.workers,
                shards,
                files_max: self.files_max,
                io: self.io.clone(),
                disk_buffer_bytes: self.memory.cores.1.disk_buffers,
                ends,
                shared: Arc::clone(shared),
                listeners,
                steps: step_queue,
                control: control_queue,
                cancel: starting.cancel.clone(),
                events: queues.events.clone(),
            });
            match thread {
                Ok(thread) => starting.threads.push(thread),
                Err(error) => return Err(starting.give_up(error)),
            }
        }
        let admin = match starting.serve(&queues.event_queue, self.listeners.admin, shared) {
            Ok(admin) => admin,
            Err(error) => return Err(starting.give_up(error)),
        };
        let addresses = Addresses {
            memcached: self.listeners.memcached,
            unix_socket: self.shared.facts.unix_socket.as_ref().map(PathBuf::from),
            native: self.listeners.native,
            admin: admin.address(),
            core_ports: self.listeners.core_ports,
            shards: shared.shards,
        };
        let Starting { cores, threads, .. } = starting;
        let supervisor = Supervisor { cores, threads, queues, log };
        Ok(RunningNode::new(addresses, supervisor, admin, self.directory.lock))
    }
}

impl Starting {
    /// Brings all cores up, and then lets all of them serve.
    fn serve(
        &mut self,
        events: &Receiver<Event>,
        admin: TcpListener,
        shared: &Arc<Shared>,
    ) -> Result<Admin, StartError> {
        let namespaces = self.bring_up(events)?;
        let admin = Admin::start(admin, self.cores.clone(), Arc::clone(shared))?;
        self.tell(|| Step::Serve(Arc::clone(&namespaces)));
        Ok(admin)
    }

    /// Waits until every core has its shards open, and returns the namespaces that one remembers.
    fn bring_up(&mut self, events: &Receiver<Event>) -> Result<Arc<NamespaceTable>, StartError> {
        let (mut opened, mut known) = (0, None);
        while opened < self.cores.len() {
            match events.recv().expect("the launcher keeps a sender itself") {
                Event::StopRequested(reason) => return Err(StartError::Stopped { reason }),
                Event::Ended { core, result } => {
                    let reason = result.err().unwrap_or_else(|| "it ended".to_owned());
                    return Err(StartError::Core { core, reason });
                }
                Event::Opened { namespaces, .. } => {
                    opened += 1;
                    known = known.or(namespaces);
                }
                Event::Waker { core, waker } => {
                    self.cores[core].waker = Some(waker);
                    let wakers = self.cores.iter().map(|core| core.waker.clone());
                    if let Some(wakers) = wakers.collect::<Option<Vec<RemoteWaker>>>() {
                        self.tell(|| Step::Open(wakers.clone()));
                    }
                }
                event @ (Event::Drained(_) | Event::ShardStopped { .. } | Event::LogLevel(_)) => {
                    panic!("a core that does not serve yet says {event:?}")
                }
            }
        }
        Ok(known.expect("a core has the shard that remembers them"))
    }

    /// Tells every core. One that has ended says so itself.
    fn tell(&self, step: impl Fn() -> Step) {
        for (core, steps) in self.steps.iter().enumerate() {
            if steps.send(step()).is_err() {
                tracing::debug!(core, "ended before it was told to go on");
            }
        }
    }

    /// Ends the cores, which touch the directory until they have, and hands the reason on.
    fn give_up(self, reason: StartError) -> StartError {
        self.cancel.set();
        drop(self.steps);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a core's thread panicked while it gave up");
            }
        }
        reason
    }
}
