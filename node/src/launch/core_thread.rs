//! The life of one core's thread: ring, shards, service, and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use larder_engine::error::EngineError;
use larder_engine::shard::{FIRST_SEGMENT_BYTES_MIN, Shard, ShardOptions};
use larder_protocol::memcached::binary::BINARY_MAGIC;
use larder_runtime::affinity::CpuBits;
use larder_runtime::core_env::CoreEnv;
use larder_runtime::core_runtime::CoreRuntime;
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::file_cache::FileCache;
#[cfg(feature = "runtime-glommio")]
use larder_runtime::glommio_runtime::GlommioCore;
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::ring_network::ClientListener;
use larder_runtime::wake::RemoteWaker;

use super::StartError;
use super::cancel::Cancel;
use super::listeners::Door;
use crate::config::{RuntimeKind, Size};
use crate::control::{Control, Event};
use crate::facts::Facts;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::memcached::Memcached;
use crate::memcached::binary::MemcachedBinary;
use crate::mesh::{Ends, Mesh};
use crate::namespaces::registry::{REGISTRY_SHARD, Registry};
use crate::namespaces::{NamespaceTable, NamespaceView};
use crate::native::Native;
use crate::service::{Engine, Entrance, NodeService, Setup, Shared};

/// A shard that a core is to open.
pub(super) struct ShardPlan {
    pub directory: PathBuf,
    pub options: ShardOptions,
}

/// What a core is started with.
pub(super) struct CorePlan {
    pub core: usize,
    pub runtime: RuntimeKind,
    pub cpu: usize,
    /// What holds the core for longer is told of; zero for nothing.
    pub stall_bound: Duration,
    /// The CPUs of the kernel's threads that work for the core's ring.
    pub worker_cpus: Option<CpuBits>,
    pub shards: Vec<ShardPlan>,
    /// Files that the core keeps open at most.
    pub files_max: usize,
    /// How its disk requests share the disk.
    pub io: IoQueueOptions,
    /// Recycled buffers for the disk, in bytes.
    pub disk_buffer_bytes: usize,
    pub ends: Vec<Option<Ends>>,
    pub shared: Arc<Shared>,
    pub listeners: Vec<(ClientListener, Door)>,
    pub steps: Receiver<Step>,
    pub control: Receiver<Control>,
    /// Set when the start is given up.
    pub cancel: Cancel,
    pub events: Sender<Event>,
}

/// What the launcher tells a core that starts. When it hangs up instead, the core gives up.
pub(super) enum Step {
    /// Every core has a ring: open the shards.
    Open(Vec<RemoteWaker>),
    /// Every shard is open, and these are the namespaces: serve.
    Serve(Arc<NamespaceTable>),
}

/// Starts a core's thread.
pub(super) fn spawn(plan: CorePlan) -> Result<JoinHandle<()>, StartError> {
    let name = format!("larder-core-{}", plan.core);
    let thread = std::thread::Builder::new().name(name.clone());
    thread.spawn(|| live(plan)).map_err(|source| StartError::Thread { name, source })
}

/// Runs the core and reports how it ended.
fn live(plan: CorePlan) {
    let (core, events) = (plan.core, plan.events.clone());
    let result = match catch_unwind(AssertUnwindSafe(|| run_on_runtime(plan))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("the thread panicked: {}", text.unwrap_or_default()))
        }
    };
    if events.send(Event::Ended { core, result }).is_err() {
        tracing::debug!(core, "ended after its supervisor");
    }
}

fn run_on_runtime(plan: CorePlan) -> Result<(), String> {
    let options = CoreOptions {
        core: plan.core,
        pin_to_cpu: Some(plan.cpu),
        stall_bound: plan.stall_bound,
        worker_cpus: plan.worker_cpus,
        output_high_water: OUTPUT_HIGH_WATER,
        registered_bytes: plan.disk_buffer_bytes,
        io: plan.io.clone(),
        ..CoreOptions::default()
    };
    match plan.runtime {
        RuntimeKind::Ring => run(plan, Core::new(options).map_err(|error| error.to_string())?),
        #[cfg(feature = "runtime-glommio")]
        RuntimeKind::Glommio => {
            run(plan, GlommioCore::new(options).map_err(|error| error.to_string())?)
        }
    }
}

fn run<R: CoreRuntime>(plan: CorePlan, mut core: R) -> Result<(), String> {
    let greeting = Event::Waker { core: plan.core, waker: core.waker() };
    let is_heard = plan.events.send(greeting).is_ok();
    let Some(Step::Open(wakers)) = plan.steps.recv().ok().filter(|_| is_heard) else {
        return Ok(());
    };
    let files = FileCache::new(core.env(), plan.files_max);
    let Some(engines) = open_shards(&mut core, &files, plan.shards, &plan.cancel)? else {
        return Ok(());
    };
    let registry = load_registry(&mut core, &engines)?;
    let namespaces = registry.as_ref().map(|registry| Arc::new(registry.table.clone()));
    let is_heard = plan.events.send(Event::Opened { core: plan.core, namespaces }).is_ok();
    let Some(Step::Serve(namespaces)) = plan.steps.recv().ok().filter(|_| is_heard) else {
        return Ok(());
    };
    let namespaces = NamespaceView::new(namespaces);
    drop(plan.steps);
    let entrance = |(_, door): &(ClientListener, Door)| {
        entrance(door, &plan.shared.facts, plan.core, &namespaces)
    };
    let entrances = plan.listeners.iter().map(entrance).collect();
    let address = |(listener, _): &(ClientListener, Door)| match listener {
        ClientListener::Tcp(listener) => listener.local_addr().ok(),
        ClientListener::Local(_) => None,
    };
    let addresses = plan.listeners.iter().map(address).collect();
    let setup = Setup {
        core: plan.core,
        env: core.env(),
        files,
        entrances,
        addresses,
        shared: plan.shared,
        mesh: Mesh::new(plan.ends, &wakers),
        engines: engines.clone(),
        control: plan.control,
        events: plan.events,
        namespaces,
        registry,
    };
    let mut service = NodeService::new(setup);
    for (listener, _) in plan.listeners {
        core.listen(listener);
    }
    core.run(&mut service, &|service: &NodeService<R::Env>| service.is_finished());
    close_shards(&mut core, engines)?;
    // What holds files goes first: a runtime may close them only while it runs.
    drop(service);
    core.shutdown();
    Ok(())
}

/// Who speaks with the clients that come in by this door.
fn entrance<C: CoreEnv>(
    door: &Door,
    facts: &Arc<Facts>,
    core: usize,
    namespaces: &NamespaceView,
) -> Entrance<C> {
    let (facts, namespaces) = (Arc::clone(facts), namespaces.clone());
    match door {
        // Only the text protocol asks for a password.
        Door::Memcached if facts.gate.is_some() => {
            Entrance::new(move || Memcached::new(&facts, &namespaces))
        }
        Door::Memcached => {
            let (binary, same) = (Arc::clone(&facts), namespaces.clone());
            Entrance::by_first_byte(
                move || Memcached::new(&facts, &namespaces),
                BINARY_MAGIC,
                move || MemcachedBinary::new(&binary, &same),
            )
        }
        Door::Native => Entrance::new(move || Native::new(&facts, core, &namespaces)),
    }
}

/// What is remembered of the namespaces, if that shard is one of these.
fn load_registry<R: CoreRuntime>(
    core: &mut R,
    engines: &Engines<R::Env>,
) -> Result<Option<Registry>, String> {
    let keeper = engines.iter().find(|(number, _)| *number == REGISTRY_SHARD);
    let load = |(_, engine): &(u16, Rc<Engine<R::Env>>)| {
        let engine = Rc::clone(engine);
        core.block_on(Box::pin(async move { Registry::load(&engine).await }))
    };
    keeper.map(load).transpose()
}

/// A core's shards, by number.
type Engines<C> = Vec<(u16, Rc<Engine<C>>)>;

/// The core's shards; `None` if the start was given up.
fn open_shards<R: CoreRuntime>(
    core: &mut R,
    files: &FileCache<R::Env>,
    plans: Vec<ShardPlan>,
    cancel: &Cancel,
) -> Result<Option<Engines<R::Env>>, String> {
    let mut engines = Vec::new();
    for plan in plans {
        let number = plan.options.shard;
        tracing::info!(shard = number, "opening shard");
        let opening = Shard::open(files.clone(), &plan.directory, plan.options);
        let Some(opened) = core.block_on(Box::pin(cancel.or(opening))) else { return Ok(None) };
        let (engine, report) = opened.map_err(|error| cannot_open(&plan.directory, &error))?;
        let (records, torn) = (report.records, report.torn);
        tracing::info!(shard = number, created = report.created, records, torn, "shard open");
        for damage in &report.damage {
            tracing::error!(shard = number, "acknowledged data is damaged: {damage:?}");
        }
        engines.push((number, engine));
    }
    Ok(Some(engines))
}

/// Why a shard cannot be opened, and what to do.
fn cannot_open(directory: &Path, error: &EngineError) -> String {
    let advice = match error {
        EngineError::Full => {
            let needed = Size(u64::from(FIRST_SEGMENT_BYTES_MIN));
            format!(": it needs {needed} to begin with; free some space, or raise --disk-limit")
        }
        _ => String::new(),
    };
    format!("cannot open {}: {error}{advice}", directory.display())
}

/// Makes everything durable, as far as each shard can.
///
/// # Errors
/// The first shard that cannot: also one that stopped taking writes after the service's last turn,
/// which nobody has been told of.
fn close_shards<R: CoreRuntime>(core: &mut R, engines: Engines<R::Env>) -> Result<(), String> {
    let mut result = Ok(());
    for (number, engine) in engines {
        let closed = match engine.stopped() {
            Some(reason) => Err(format!("shard {number} takes no more writes: {reason}")),
            None => core
                .block_on(engine.close())
                .map_err(|error| format!("cannot close shard {number}: {error}")),
        };
        result = result.and(closed);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::key::Key;
    use larder_engine::memory::ShardMemory;
    use larder_engine::operation::{Operation, Store, StoreMode};
    use larder_engine::shard::OperationBuf;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test takes the shard's directory away")]
    fn a_shard_that_has_stopped_unseen_is_not_closed_in_good_order() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("shard-000");
        std::fs::create_dir(&directory).expect("a directory");
        let mut core = Core::new(CoreOptions::default()).expect("a ring");
        let memory = ShardMemory::plan(32 << 20, 1 << 20).expect("it is enough");
        let options =
            ShardOptions { memtable_bytes: 4096, ..ShardOptions::for_memory(0, 1, &memory) };
        let plans = vec![ShardPlan { directory: directory.clone(), options }];
        let files = FileCache::new(core.env(), 16);
        let opened = open_shards(&mut core, &files, plans, &Cancel::default()).expect("it opens");
        let engines = opened.expect("it is not given up");
        let engine = Rc::clone(&engines[0].1);
        std::fs::remove_dir_all(&directory).expect("it is there");
        let key = Key::memcached(b"k");
        let store = OperationBuf::new(&Operation::Store(Store {
            mode: StoreMode::Append,
            value: b"more and more",
            client_flags: 0,
            expiry: 0,
            compare: None,
            invalidate: false,
            is_large: false,
            vivify: Some(0),
            version: None,
        }));
        // A memtable that is full cannot become a table where there is no directory.
        while engine.stopped().is_none() {
            let stored = core.block_on(engine.execute(&key, store.clone()));
            assert!(stored.is_ok() || engine.stopped().is_some(), "{stored:?}");
        }
        let error = close_shards(&mut core, engines).expect_err("it has stopped");
        assert!(error.contains("shard 0"), "{error}");
        drop(engine);
        core.shutdown();
    }
}
