//! Starting the node, watching over it, and stopping it.
//!
//! ```text
//!   launcher                                core threads
//!   directory, memory, CPUs, sockets
//!   start threads  ----------------------->  ring
//!                  <---- Progress::Waker --
//!   -- Step::Open ------------------------>  open shards
//!                  <---- Progress::Opened -
//!   -- Step::Serve ----------------------->  accept connections
//!   supervisor     <---- Event ------------
//!   -- Control::Drain, Control::Finish --->  flush, end
//! ```

mod checks;
mod core_thread;
pub(crate) mod directory;
mod error;
mod listeners;
mod supervisor;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::SystemTime;

use larder_engine::shard::ShardOptions;
use larder_protocol::memcached::{KEY_BYTES_MAX, Limits};
use larder_runtime::wake::RemoteWaker;

pub use error::{RunError, StartError};
pub use supervisor::{CoreHandle, RunningNode, Stopper};

use crate::admin::Admin;
use crate::config::Config;
use crate::memcached::statistics::Facts;
use crate::mesh;
use crate::routing::core_of;
use crate::service::Shared;
use core_thread::{CorePlan, Progress, ShardPlan, Step};
use directory::DataDirectory;
use listeners::Listeners;

/// Where the node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The memcached port.
    pub memcached: SocketAddr,
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
        let Self { memcached, admin, core_ports, shards } = self;
        write!(formatter, "larder ready memcached={memcached} admin={admin} shards={shards}")?;
        core_ports.map_or(Ok(()), |base| write!(formatter, " cores={base}.."))
    }
}

/// Starts a node. When it returns, all shards are open and connections are accepted.
///
/// # Errors
/// Whatever keeps the node from serving; nothing is left running then.
pub fn start(config: &Config) -> Result<RunningNode, StartError> {
    let cpus = checks::choose_cpus(config.cpus.as_ref(), config.cores)?;
    let cores = cpus.len();
    let listeners = listeners::bind(config, cores)?;
    let default_shards = u16::try_from(cores).unwrap_or(crate::limits::SHARDS_MAX);
    let directory = directory::prepare(&config.data_dir, config.shards, default_shards)?;
    let shards = directory.shards.len() as u16;
    let memory = checks::shard_memory(config.memory, shards)?;
    checks::check_free_space(&config.data_dir, shards)?;
    let connections_max = checks::raise_descriptors(config.max_connections);
    let shared = Arc::new(Shared {
        facts: facts(config, &listeners, cores, connections_max),
        limits: Limits {
            item_bytes_max: usize::try_from(config.max_item_size.0).unwrap_or(usize::MAX),
            ..Limits::default()
        },
        shards,
        connections: AtomicUsize::new(0),
    });
    launch(config, &cpus, directory, memory, listeners, &shared)
}

fn facts(config: &Config, listeners: &Listeners, cores: usize, connections_max: usize) -> Facts {
    Facts {
        started: unix_seconds(),
        cores,
        memory: config.memory.0,
        port: listeners.memcached.port(),
        listen: config.listen.to_string(),
        item_bytes_max: config.max_item_size.0,
        connections_max,
        idle_timeout: config.idle_timeout,
        flush_enabled: !config.disable_flush_all,
        shutdown_enabled: config.enable_shutdown,
        durability: config.durability.to_string(),
    }
}

#[allow(clippy::disallowed_methods, reason = "the launcher has no core to ask")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn shard_options(config: &Config, shard: u16, shards: u16, memory: u64) -> ShardOptions {
    let mut options = ShardOptions::for_memory(shard, shards, memory);
    let item_bytes = usize::try_from(config.max_item_size.0).unwrap_or(usize::MAX);
    options.value_bytes_max = item_bytes;
    options.log.durability = config.durability.engine();
    assert!(item_bytes > KEY_BYTES_MAX, "the option's range leaves room for any key");
    options
}

fn launch(
    config: &Config,
    cpus: &[usize],
    directory: DataDirectory,
    memory: u64,
    listeners: Listeners,
    shared: &Arc<Shared>,
) -> Result<RunningNode, StartError> {
    let (progress, arrived) = channel();
    let (events, event_queue) = channel();
    let mut steps: Vec<Sender<Step>> = Vec::new();
    let mut cores: Vec<CoreHandle> = Vec::new();
    let mut plans: Vec<Vec<ShardPlan>> = cpus.iter().map(|_| Vec::new()).collect();
    for (number, directory) in directory.shards.iter().enumerate() {
        let number = number as u16;
        let options = shard_options(config, number, shared.shards, memory);
        let plan = ShardPlan { directory: directory.clone(), options };
        plans[core_of(number, cpus.len())].push(plan);
    }
    let mut threads = Vec::new();
    let parts = cpus.iter().zip(plans).zip(mesh::mailboxes(cpus.len())).zip(listeners.by_core);
    for (core, (((cpu, shards), ends), listeners)) in parts.enumerate() {
        let (step, step_queue) = channel();
        let (control, control_queue) = channel();
        let plan = CorePlan {
            core,
            cpu: *cpu,
            shards,
            ends,
            shared: Arc::clone(shared),
            listeners,
            steps: step_queue,
            control: control_queue,
            progress: progress.clone(),
            events: events.clone(),
        };
        threads.push(core_thread::spawn(plan)?);
        steps.push(step);
        cores.push(CoreHandle { control, waker: None });
    }
    drop(progress);
    let admin = match serve(&mut cores, &steps, &arrived, listeners.admin, shared) {
        Ok(admin) => admin,
        Err(error) => {
            // Cores that hear no more give up; the directory stays locked until they have.
            drop(steps);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a core's thread panicked while it gave up");
                }
            }
            return Err(error);
        }
    };
    let addresses = Addresses {
        memcached: listeners.memcached,
        admin: admin.address(),
        core_ports: listeners.core_ports,
        shards: shared.shards,
    };
    let queues = supervisor::Queues { events, event_queue };
    Ok(RunningNode::new(addresses, cores, threads, admin, queues, directory.lock))
}

/// Brings all cores up, and then lets all of them serve.
fn serve(
    cores: &mut [CoreHandle],
    steps: &[Sender<Step>],
    arrived: &Receiver<Progress>,
    admin: TcpListener,
    shared: &Arc<Shared>,
) -> Result<Admin, StartError> {
    bring_up(cores, steps, arrived)?;
    let admin = Admin::start(admin, cores.to_vec(), Arc::clone(shared))?;
    for step in steps {
        step.send(Step::Serve).map_err(|_| StartError::Silence)?;
    }
    Ok(admin)
}

/// Waits until every core has its shards open.
fn bring_up(
    cores: &mut [CoreHandle],
    steps: &[Sender<Step>],
    arrived: &Receiver<Progress>,
) -> Result<(), StartError> {
    let mut wakers: Vec<Option<RemoteWaker>> = vec![None; cores.len()];
    let mut opened = 0;
    while opened < cores.len() {
        match arrived.recv().map_err(|_| StartError::Silence)? {
            Progress::Failed(core, reason) => return Err(StartError::Core { core, reason }),
            Progress::Opened => opened += 1,
            Progress::Waker(core, waker) => {
                cores[core].waker = Some(waker.clone());
                wakers[core] = Some(waker);
                let Some(all) = wakers.iter().cloned().collect::<Option<Vec<_>>>() else {
                    continue;
                };
                for step in steps {
                    step.send(Step::Open(all.clone())).map_err(|_| StartError::Silence)?;
                }
            }
        }
    }
    Ok(())
}
