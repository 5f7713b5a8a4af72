//! One thread of a run: a ring, some shards, and the load on them.
//!
//! ```text
//!   runner                                   thread
//!   start               ------------------>  ring, open shards
//!                       <-- Report::Opened -
//!   -- Step::Run -------------------------->  one phase
//!                       <-- Report::Window -  ... for each window
//!                       <-- Report::Ended --
//!   -- Step::CountDisk -------------------->  (the shards go on by themselves meanwhile)
//!                       <-- Report::Disk ---
//!   -- Step::Reopen, Step::Close ---------->  close shards
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Instant;

use larder_engine::shard::{Shard, ShardOptions};
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::disk::DiskCounters;
use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::network::{ConnectionId, Network, Service};
use larder_runtime::ring_env::RingEnv;
use larder_runtime::wake::RemoteWaker;

use super::EngineSettings;
use super::alarm::Alarm;
use super::expectations::Expectations;
use super::script::Phase;
use super::shard_keys::ShardKeys;
use super::shard_load::{Counting, ShardLoad};
use super::shard_phase::ShardEnd;
use super::space_sampler::Gauges;
use super::stall::{LastCompletion, Stall};
use super::tally::Tally;
use super::windows::{WINDOW, WindowPart, WindowRecorder};
use crate::host;

/// What the runner tells a thread. When it hangs up instead, the thread gives up at once.
pub(super) enum Step {
    /// Carry out a phase whose times count from the moment given.
    Run(Phase, Instant),
    /// Report what was asked of the disk.
    CountDisk,
    /// Close the shards and open them again with another budget: files that are there are counted
    /// when a shard is opened.
    Reopen(Arc<DiskBudget>),
    /// Close the shards and end.
    Close,
}

/// What a thread tells the runner, with its own number.
pub(super) enum Report {
    /// The shards are open.
    Opened { thread: usize, waker: RemoteWaker, bookkeeping_bytes: u64 },
    /// A window is over.
    Window { thread: usize, part: WindowPart },
    /// A phase is over.
    Ended { thread: usize, end: Box<PhaseEnd> },
    /// What was asked of the disk since the thread started.
    Disk(Box<DiskCounters>),
    /// The shards are closed and the thread ends.
    Closed,
    /// The thread failed.
    Failed { reason: String },
}

/// What a phase came to on one thread.
pub(super) struct PhaseEnd {
    pub(super) tally: Tally,
    /// Of what went on beside the workload.
    pub(super) beside: Tally,
    /// By number, the thread's shards.
    pub(super) shards: Vec<(u16, ShardEnd)>,
    /// The longest time without a completion on any shard that this thread ended.
    pub(super) stall_of_all: Stall,
}

/// A shard that a thread is to open.
pub(super) struct ShardPlan {
    pub(super) directory: PathBuf,
    pub(super) options: ShardOptions,
    pub(super) keys: ShardKeys,
    pub(super) expectations: Expectations,
}

/// What a thread is started with.
pub(super) struct CorePlan {
    pub(super) thread: usize,
    pub(super) settings: Arc<EngineSettings>,
    pub(super) shards: Vec<ShardPlan>,
    pub(super) gauges: Arc<Gauges>,
    /// How disk requests share the device.
    pub(super) io: IoQueueOptions,
    pub(super) last: Arc<LastCompletion>,
    pub(super) steps: Receiver<Step>,
    pub(super) reports: Sender<Report>,
}

/// Runs the thread to its end, and says so if it failed.
pub(super) fn live(plan: CorePlan) {
    let reports = plan.reports.clone();
    let result = run(plan);
    let report = result.map_or_else(|reason| Report::Failed { reason }, |()| Report::Closed);
    // A runner that has hung up wants to hear no more.
    let _ = reports.send(report);
}

fn run(mut plan: CorePlan) -> Result<(), String> {
    let options = CoreOptions {
        core: plan.thread,
        pin_to_cpu: plan.settings.cpu_of_thread(plan.thread),
        io: plan.io.clone(),
        ..CoreOptions::default()
    };
    let mut core = Core::new(options).map_err(|error| error.to_string())?;
    loop {
        let (mut service, sources) = open(&mut core, plan)?;
        let waker = core.waker();
        let bookkeeping_bytes = service.bookkeeping_bytes;
        service.report(Report::Opened { thread: service.thread, waker, bookkeeping_bytes });
        core.run(&mut service, &|service: &BenchService| service.leaving.is_some());
        let leaving = service.leaving.take().expect("the service ended for a reason");
        if let Leaving::Failed(reason) = leaving {
            return Err(reason);
        }
        if matches!(leaving, Leaving::HungUp) {
            return Ok(());
        }
        plan = close(&mut core, service, sources)?;
        let Leaving::ToReopen(budget) = leaving else {
            core.shutdown();
            return Ok(());
        };
        for shard in &mut plan.shards {
            shard.options.budget = Arc::clone(&budget);
        }
    }
}

/// Where a shard was opened from, to open it again.
type Source = (PathBuf, ShardOptions);

fn open(core: &mut Core, plan: CorePlan) -> Result<(BenchService, Vec<Source>), String> {
    let env = core.env();
    let mut shards = Vec::new();
    let mut sources = Vec::new();
    let mut bookkeeping_bytes = 0;
    for shard in plan.shards {
        let place = (shard.options.shard, shard.options.shards);
        let opening = Shard::open(env.clone(), &shard.directory, shard.options.clone());
        let failed = |error| format!("cannot open {}: {error}", shard.directory.display());
        let (engine, report) = core.block_on(Box::pin(opening)).map_err(failed)?;
        if let Some(damage) = report.damage.first() {
            return Err(format!("{} is damaged: {damage:?}", shard.directory.display()));
        }
        bookkeeping_bytes += shard.keys.bytes() + shard.expectations.bytes();
        let known = (shard.keys, shard.expectations);
        shards.push(ShardLoad::new(&plan.settings, place, env.clone(), engine, known));
        sources.push((shard.directory, shard.options));
    }
    let mut service = BenchService {
        thread: plan.thread,
        settings: plan.settings,
        alarm: Alarm::new(env.clone()),
        env,
        shards,
        gauges: plan.gauges,
        io: plan.io,
        last: plan.last,
        steps: plan.steps,
        reports: plan.reports,
        bookkeeping_bytes,
        running: None,
        leaving: None,
    };
    service.publish_live_keys();
    Ok((service, sources))
}

fn close(core: &mut Core, service: BenchService, sources: Vec<Source>) -> Result<CorePlan, String> {
    let mut shards = Vec::new();
    for (load, (directory, options)) in service.shards.into_iter().zip(sources) {
        let (engine, (keys, expectations)) = load.into_parts();
        let closed = core.block_on(engine.close());
        closed.map_err(|error| format!("cannot close {}: {error}", directory.display()))?;
        drop(engine);
        shards.push(ShardPlan { directory, options, keys, expectations });
    }
    Ok(CorePlan {
        thread: service.thread,
        settings: service.settings,
        shards,
        gauges: service.gauges,
        io: service.io,
        last: service.last,
        steps: service.steps,
        reports: service.reports,
    })
}

/// Why a core's loop ends.
enum Leaving {
    ToReopen(Arc<DiskBudget>),
    ForGood,
    HungUp,
    Failed(String),
}

/// A phase under way.
struct RunningPhase {
    start: Instant,
    windows: WindowRecorder,
    tally: Tally,
    beside: Tally,
    stall_of_all: Stall,
}

/// The load of one thread, as the core drives it.
struct BenchService {
    thread: usize,
    settings: Arc<EngineSettings>,
    env: RingEnv,
    /// Wakes an idle thread to look at what has expired.
    alarm: Alarm,
    shards: Vec<ShardLoad>,
    gauges: Arc<Gauges>,
    /// For opening the shards again.
    io: IoQueueOptions,
    last: Arc<LastCompletion>,
    steps: Receiver<Step>,
    reports: Sender<Report>,
    bookkeeping_bytes: u64,
    running: Option<RunningPhase>,
    leaving: Option<Leaving>,
}

impl BenchService {
    fn report(&mut self, report: Report) {
        if self.reports.send(report).is_err() {
            self.leaving = Some(Leaving::HungUp);
        }
    }

    /// Does what the runner asks for next; returns whether there was anything.
    fn take_step(&mut self) -> bool {
        match self.steps.try_recv() {
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => self.leaving = Some(Leaving::HungUp),
            Ok(Step::Run(phase, start)) => {
                for shard in &mut self.shards {
                    shard.begin(&self.settings, phase, start);
                }
                self.running = Some(RunningPhase {
                    start,
                    windows: WindowRecorder::new(),
                    tally: Tally::default(),
                    beside: Tally::default(),
                    stall_of_all: Stall::default(),
                });
            }
            Ok(Step::CountDisk) => {
                let counters = Box::new(self.env.disk_counters());
                self.report(Report::Disk(counters));
            }
            Ok(Step::Reopen(budget)) => self.leaving = Some(Leaving::ToReopen(budget)),
            Ok(Step::Close) => self.leaving = Some(Leaving::ForGood),
        }
        true
    }

    /// One turn of the phase under way; returns whether there is more to do at once.
    fn work(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        let now = running.nanoseconds();
        if let Some(part) = running.windows.roll(now) {
            let thread = self.thread;
            self.report(Report::Window { thread, part });
            return true;
        }
        if matches!(self.steps.try_recv(), Err(TryRecvError::Disconnected)) {
            self.leaving = Some(Leaving::HungUp);
            return true;
        }
        let mut counting = Counting {
            windows: &mut running.windows,
            tally: &mut running.tally,
            beside: &mut running.beside,
            last: &self.last,
            stall_of_all: &mut running.stall_of_all,
        };
        let mut is_busy = false;
        for shard in &mut self.shards {
            is_busy |= shard.turn(&self.settings, &mut counting);
        }
        self.publish_live_keys();
        if let Some(reason) = self.shards.iter().find_map(ShardLoad::stopped) {
            self.leaving = Some(Leaving::Failed(reason));
            return true;
        }
        if !is_busy && self.shards.iter().all(ShardLoad::is_over) {
            self.end_phase();
            return true;
        }
        is_busy
    }

    fn end_phase(&mut self) {
        let mut running = self.running.take().expect("a phase is under way");
        let now = running.nanoseconds();
        let thread = self.thread;
        while let Some(part) = running.windows.roll(now) {
            self.report(Report::Window { thread, part });
        }
        let part = running.windows.end(usize::MAX);
        self.report(Report::Window { thread, part });
        let mut end = PhaseEnd {
            tally: running.tally,
            beside: running.beside,
            shards: Vec::new(),
            stall_of_all: running.stall_of_all,
        };
        for shard in &mut self.shards {
            end.shards.push((shard.number, shard.end_phase()));
        }
        self.publish_live_keys();
        self.report(Report::Ended { thread, end: Box::new(end) });
    }

    fn publish_live_keys(&mut self) {
        for shard in &mut self.shards {
            self.gauges.set_live_keys(shard.number, shard.live_keys());
        }
    }

    /// Does what the runner asks for. While items expire, how many are left is to be seen without
    /// any
    /// load, too.
    fn wait(&mut self) -> bool {
        let has_step = self.take_step();
        if !has_step && self.shards.iter().any(ShardLoad::expires) {
            self.publish_live_keys();
            self.alarm.set(WINDOW.as_nanos() as u64);
        }
        has_step
    }
}

impl RunningPhase {
    fn nanoseconds(&self) -> u64 {
        let elapsed = host::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// No client is ever connected: only the turns matter.
impl<N: Network> Service<N> for BenchService {
    fn connected(
        &mut self,
        _network: &mut N,
        _connection: ConnectionId,
        _listener: usize,
        _peer: Option<SocketAddr>,
    ) -> bool {
        false
    }

    fn received(&mut self, _network: &mut N, _connection: ConnectionId, _bytes: &[u8]) {}

    fn ended(&mut self, _network: &mut N, _connection: ConnectionId) {}

    fn drained(&mut self, _network: &mut N, _connection: ConnectionId) {}

    fn closed(&mut self, _connection: ConnectionId) {}

    fn turn(&mut self, _network: &mut N) -> bool {
        if self.leaving.is_some() {
            return false;
        }
        if self.running.is_some() { self.work() } else { self.wait() }
    }

    fn publish(&mut self) {}
}
