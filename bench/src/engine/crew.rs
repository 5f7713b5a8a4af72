//! The threads of a run, as the runner sees them: steps go out, reports come back.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::Scope;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use larder_runtime::core_env::CoreWaker;
use larder_runtime::disk::DiskCounters;
use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::wake::RemoteWaker;

use super::EngineSettings;
use super::bench_core::{self, CorePlan, PhaseEnd, Report, ShardPlan, Step};
use super::script::Phase;
use super::space_sampler::Gauges;
use super::stall::{LastCompletion, Stall};
use super::tally::Tally;
use super::windows::{WindowMerger, WindowSummary};
use crate::error::BenchError;
use crate::host;

/// How often progress is shown.
const TICK: Duration = Duration::from_secs(1);

/// A run is given up when no operation ends for this long, and for as long as the rate leaves
/// between
/// two of them.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a phase came to.
pub(super) struct PhaseResult {
    pub(super) windows: Vec<WindowSummary>,
    pub(super) latencies: Histogram<u64>,
    pub(super) tally: Tally,
    /// Of what went on beside the workload.
    pub(super) beside: Tally,
    /// From the start to the end of the last operation.
    pub(super) elapsed: Duration,
    pub(super) stall: Stall,
    /// By shard.
    pub(super) stalls: Vec<Stall>,
    pub(super) not_begun: u64,
    pub(super) waited: u64,
}

/// The threads of a run. When this is dropped they give up whatever they do.
pub(super) struct Crew {
    settings: Arc<EngineSettings>,
    shards: u16,
    steps: Vec<Sender<Step>>,
    wakers: Vec<Option<RemoteWaker>>,
    reports: Receiver<Report>,
    last: Arc<LastCompletion>,
    pub(super) bookkeeping_bytes: u64,
}

impl Crew {
    /// Starts `threads` threads inside `scope` that open the shards, and waits until they have.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        settings: &Arc<EngineSettings>,
        threads: usize,
        plans: Vec<ShardPlan>,
        gauges: &Arc<Gauges>,
        io: &IoQueueOptions,
    ) -> Result<Self, BenchError> {
        let (report, reports) = mpsc::channel();
        let mut crew = Self {
            settings: Arc::clone(settings),
            shards: u16::try_from(plans.len()).expect("the number of shards was checked"),
            steps: Vec::new(),
            wakers: vec![None; threads],
            reports,
            last: Arc::default(),
            bookkeeping_bytes: 0,
        };
        let mut shares: Vec<Vec<ShardPlan>> = (0..threads).map(|_| Vec::new()).collect();
        for (shard, plan) in plans.into_iter().enumerate() {
            shares[shard % threads].push(plan);
        }
        for (thread, shards) in shares.into_iter().enumerate() {
            let (step, steps) = mpsc::channel();
            let plan = CorePlan {
                thread,
                settings: Arc::clone(settings),
                shards,
                gauges: Arc::clone(gauges),
                io: io.clone(),
                last: Arc::clone(&crew.last),
                steps,
                reports: report.clone(),
            };
            let name = format!("bench-core-{thread}");
            host::start_thread(scope, name, move || bench_core::live(plan)).map_err(|source| {
                BenchError::System { action: "--threads: starting a thread".to_owned(), source }
            })?;
            crew.steps.push(step);
        }
        drop(report);
        crew.wait_until_open()?;
        Ok(crew)
    }

    fn wait_until_open(&mut self) -> Result<(), BenchError> {
        let mut opened = 0;
        self.bookkeeping_bytes = 0;
        while opened < self.steps.len() {
            match self.reports.recv().map_err(|_| silence())? {
                Report::Opened { thread, waker, bookkeeping_bytes } => {
                    self.wakers[thread] = Some(waker);
                    self.bookkeeping_bytes += bookkeeping_bytes;
                    opened += 1;
                }
                Report::Failed { reason } => return Err(BenchError::Engine { reason }),
                _ => unreachable!("nothing else is reported before the shards are open"),
            }
        }
        Ok(())
    }

    fn tell(&self, step: impl Fn() -> Step) -> Result<(), BenchError> {
        for (sender, waker) in self.steps.iter().zip(&self.wakers) {
            sender.send(step()).map_err(|_| silence())?;
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Ok(())
    }

    /// Carries a phase out, whose times count from `start`; `show` is called each second.
    pub(super) fn run(
        &self,
        phase: Phase,
        start: Instant,
        show: &mut dyn FnMut(&WindowMerger, Duration),
    ) -> Result<PhaseResult, BenchError> {
        self.last.reset();
        self.tell(|| Step::Run(phase, start))?;
        let mut merger = WindowMerger::new(self.steps.len());
        let mut ends = Vec::new();
        let mut tick = start + TICK;
        while ends.len() < self.steps.len() {
            match self.reports.recv_timeout(tick.saturating_duration_since(host::now())) {
                Ok(Report::Window { thread, part }) => merger.add(thread, &part),
                Ok(Report::Ended { thread, end }) => {
                    merger.thread_ended(thread);
                    ends.push(*end);
                }
                Ok(Report::Failed { reason }) => return Err(BenchError::Engine { reason }),
                Ok(_) => unreachable!("nothing else is reported in a phase"),
                Err(RecvTimeoutError::Disconnected) => return Err(silence()),
                Err(RecvTimeoutError::Timeout) => {
                    let elapsed = host::now() - start;
                    show(&merger, elapsed);
                    if !matches!(phase, Phase::Background { .. }) {
                        self.check_progress(elapsed)?;
                    }
                    tick += TICK;
                }
            }
        }
        Ok(self.result(merger, ends))
    }

    fn check_progress(&self, elapsed: Duration) -> Result<(), BenchError> {
        let shards = f64::from(self.shards);
        let pause = self.settings.rate.map_or(0.0, |rate| shards / rate);
        let allowed = SILENCE_MAX + Duration::try_from_secs_f64(pause).unwrap_or(Duration::MAX / 2);
        let silence = elapsed.saturating_sub(Duration::from_nanos(self.last.at()));
        if silence < allowed {
            return Ok(());
        }
        let reason = format!("no operation has ended for {} s", silence.as_secs());
        Err(BenchError::Engine { reason })
    }

    fn result(&self, merger: WindowMerger, ends: Vec<PhaseEnd>) -> PhaseResult {
        let (windows, latencies) = merger.finish();
        let mut result = PhaseResult {
            windows,
            latencies,
            tally: Tally::default(),
            beside: Tally::default(),
            elapsed: Duration::from_nanos(self.last.at()),
            stall: Stall::default(),
            stalls: vec![Stall::default(); usize::from(self.shards)],
            not_begun: 0,
            waited: 0,
        };
        for end in ends {
            result.tally.add(end.tally);
            result.beside.add(end.beside);
            result.stall = result.stall.max(end.stall_of_all);
            for (number, shard) in end.shards {
                result.stalls[usize::from(number)] = shard.stall;
                result.not_begun += shard.not_begun;
                result.waited += shard.waited;
            }
        }
        result
    }

    /// What all threads have asked of the disk since they started.
    pub(super) fn disk_counters(&self) -> Result<DiskCounters, BenchError> {
        self.tell(|| Step::CountDisk)?;
        let mut sum = DiskCounters::default();
        for _ in &self.steps {
            match self.reports.recv().map_err(|_| silence())? {
                Report::Disk(counters) => add(&mut sum, &counters),
                Report::Failed { reason } => return Err(BenchError::Engine { reason }),
                _ => unreachable!("nothing else is reported when the disk is asked for"),
            }
        }
        Ok(sum)
    }

    /// Closes the shards and opens them again, with `budget` for their disk space.
    pub(super) fn reopen(&mut self, budget: &Arc<DiskBudget>) -> Result<(), BenchError> {
        self.tell(|| Step::Reopen(Arc::clone(budget)))?;
        self.wait_until_open()
    }

    /// Closes the shards and ends the threads.
    pub(super) fn close(self) -> Result<(), BenchError> {
        self.tell(|| Step::Close)?;
        for _ in &self.steps {
            if let Report::Failed { reason } = self.reports.recv().map_err(|_| silence())? {
                return Err(BenchError::Engine { reason });
            }
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.steps.clear();
        for waker in self.wakers.iter().flatten() {
            waker.wake();
        }
    }
}

/// A thread has ended without a word.
fn silence() -> BenchError {
    BenchError::Engine { reason: "a thread has panicked; see above".to_owned() }
}

fn add(sum: &mut DiskCounters, counters: &DiskCounters) {
    sum.read_bytes += counters.read_bytes;
    sum.write_bytes += counters.write_bytes;
    sum.reads += counters.reads;
    sum.writes += counters.writes;
    sum.syncs += counters.syncs;
    for (sum, class) in sum.classes.iter_mut().zip(counters.classes) {
        sum.bytes += class.bytes;
        sum.reads += class.reads;
        sum.charged_tokens += class.charged_tokens;
    }
}
