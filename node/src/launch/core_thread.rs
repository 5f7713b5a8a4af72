//! The life of one core's thread: ring, shards, service, and back.

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use larder_engine::shard::{Shard, ShardOptions};
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::wake::RemoteWaker;

use super::StartError;
use crate::control::{Control, Event};
use crate::limits::OUTPUT_HIGH_WATER;
use crate::mesh::{Ends, Mesh};
use crate::service::{Engine, NodeService, Setup, Shared};

/// A shard that a core is to open.
pub(super) struct ShardPlan {
    pub directory: PathBuf,
    pub options: ShardOptions,
}

/// What a core is started with.
pub(super) struct CorePlan {
    pub core: usize,
    pub cpu: usize,
    pub shards: Vec<ShardPlan>,
    pub ends: Vec<Option<Ends>>,
    pub shared: Arc<Shared>,
    pub listeners: Vec<TcpListener>,
    pub steps: Receiver<Step>,
    pub control: Receiver<Control>,
    pub progress: Sender<Progress>,
    pub events: Sender<Event>,
}

/// What the launcher tells a core that starts. When it hangs up instead, the core gives up.
pub(super) enum Step {
    /// Every core has a ring: open the shards.
    Open(Vec<RemoteWaker>),
    /// Every shard is open: serve.
    Serve,
}

/// What a core that starts tells the launcher.
pub(super) enum Progress {
    Waker(usize, RemoteWaker),
    Opened,
    Failed(usize, String),
}

/// Starts a core's thread.
pub(super) fn spawn(plan: CorePlan) -> Result<JoinHandle<()>, StartError> {
    let name = format!("larder-core-{}", plan.core);
    let thread = std::thread::Builder::new().name(name.clone());
    thread.spawn(|| live(plan)).map_err(|source| StartError::Thread { name, source })
}

/// Runs the core and reports how it ended.
fn live(plan: CorePlan) {
    let (core, progress, events) = (plan.core, plan.progress.clone(), plan.events.clone());
    let result = match catch_unwind(AssertUnwindSafe(|| run(plan))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("the thread panicked: {}", text.unwrap_or_default()))
        }
    };
    // Whichever of the two is listened to: the launcher, or later the supervisor.
    let is_starting = match &result {
        Err(reason) => progress.send(Progress::Failed(core, reason.clone())).is_ok(),
        Ok(()) => false,
    };
    if events.send(Event::Ended { core, result }).is_err() && !is_starting {
        tracing::debug!(core, "ended after its supervisor");
    }
}

fn run(plan: CorePlan) -> Result<(), String> {
    let options = CoreOptions {
        core: plan.core,
        pin_to_cpu: Some(plan.cpu),
        output_high_water: OUTPUT_HIGH_WATER,
        ..CoreOptions::default()
    };
    let mut core = Core::new(options).map_err(|error| error.to_string())?;
    let is_heard = plan.progress.send(Progress::Waker(plan.core, core.waker())).is_ok();
    let Some(Step::Open(wakers)) = plan.steps.recv().ok().filter(|_| is_heard) else {
        return Ok(());
    };
    let engines = open_shards(&mut core, plan.shards)?;
    let is_heard = plan.progress.send(Progress::Opened).is_ok();
    let Some(Step::Serve) = plan.steps.recv().ok().filter(|_| is_heard) else { return Ok(()) };
    drop((plan.progress, plan.steps));
    let setup = Setup {
        core: plan.core,
        env: core.env(),
        shared: plan.shared,
        mesh: Mesh::new(plan.ends, &wakers),
        engines: engines.clone(),
        control: plan.control,
        events: plan.events,
    };
    let mut service = NodeService::new(setup);
    for listener in plan.listeners {
        core.network().listen(listener);
    }
    core.run(&mut service, &|service: &NodeService| service.is_finished());
    close_shards(&mut core, engines)?;
    core.shutdown();
    Ok(())
}

fn open_shards(core: &mut Core, plans: Vec<ShardPlan>) -> Result<Vec<(u16, Rc<Engine>)>, String> {
    let mut engines = Vec::new();
    for plan in plans {
        let number = plan.options.shard;
        let opening = Shard::open(core.env(), &plan.directory, plan.options);
        let (engine, report) = core
            .block_on(Box::pin(opening))
            .map_err(|error| format!("cannot open {}: {error}", plan.directory.display()))?;
        let (records, torn) = (report.records, report.torn);
        tracing::info!(shard = number, created = report.created, records, torn, "shard open");
        for damage in &report.damage {
            tracing::error!(shard = number, "acknowledged data is damaged: {damage:?}");
        }
        engines.push((number, engine));
    }
    Ok(engines)
}

/// Makes everything durable. A shard that has stopped cannot, and has said so.
fn close_shards(core: &mut Core, engines: Vec<(u16, Rc<Engine>)>) -> Result<(), String> {
    for (number, engine) in engines {
        if engine.stopped().is_some() {
            continue;
        }
        let closed = core.block_on(engine.close());
        closed.map_err(|error| format!("cannot close shard {number}: {error}"))?;
    }
    Ok(())
}
