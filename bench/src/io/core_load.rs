//! What one core puts on the disk, and what it counts.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use indicatif::ProgressBar;
use larder_perftune::iotune::{UnnamedFile, random_buffer};
use larder_runtime::buffer::Buffer;
use larder_runtime::core_env::CoreEnv;
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::device_model::IoDirection;
use larder_runtime::disk::DiskCounters;
use larder_runtime::env::{Env, File, IoClass, TaskQueue};
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::ring_env::RingEnv;

use super::settings::{IoBenchSettings, SharedClass};

/// What a core says that was not started because another has failed.
pub(super) const NOT_STARTED: &str = "another core has failed";

/// For how long a class is idle before it comes back, in nanoseconds: so much, and up to as much
/// again as the range. Longer than the burst that an idle class may have.
const IDLE_NANOSECONDS: u64 = 5_000_000;
const IDLE_RANGE_NANOSECONDS: u64 = 10_000_000;

/// How often it is looked whether the last requests have ended, in nanoseconds.
const DRAIN_STEP_NANOSECONDS: u64 = 1_000_000;

/// What a core is started with.
pub(super) struct CorePlan {
    pub(super) number: usize,
    pub(super) settings: Arc<IoBenchSettings>,
    pub(super) io: IoQueueOptions,
    /// Told when the file is there.
    pub(super) ready: Sender<()>,
    /// Tells when all cores have theirs.
    pub(super) started: Receiver<()>,
}

/// What was asked of the disk in some time.
pub(super) struct Counted {
    pub(super) before: DiskCounters,
    pub(super) after: DiskCounters,
    pub(super) seconds: f64,
}

/// How long a request took of a class that had been idle, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    /// Until it was given to the device.
    pub(super) waited: u64,
    /// From then on.
    pub(super) in_device: u64,
}

/// What one core has found.
pub(super) struct CoreFound {
    /// While all classes had more to ask than there is.
    pub(super) saturated: Counted,
    /// By class, in the order of the settings: the requests with which it came back.
    pub(super) returned: Vec<Vec<Returned>>,
}

/// Carries the loads out on the calling thread.
///
/// # Errors
/// Why it could not be done.
pub(super) fn live(plan: CorePlan) -> Result<CoreFound, String> {
    let CorePlan { number, settings, io, ready, started } = plan;
    let options = CoreOptions {
        core: number,
        pin_to_cpu: settings.cpu_of(number),
        io,
        ..CoreOptions::default()
    };
    let mut core = Core::new(options).map_err(|error| error.to_string())?;
    let env = core.env();
    let making = UnnamedFile::make(&env, &settings.directory, number, settings.file_bytes);
    let mut file = core.block_on(making).map_err(|error| error.to_string())?;
    let hidden = ProgressBar::hidden();
    core.block_on(file.fill(&env, u64::MAX, &hidden)).map_err(|error| error.to_string())?;
    // Who has hung up starts nobody.
    let _ = ready.send(());
    drop(ready);
    started.recv().map_err(|_| NOT_STARTED.to_owned())?;
    let load = Rc::new(CoreLoad {
        env,
        file,
        settings,
        is_over: Cell::new(false),
        workers: Cell::new(0),
        failure: RefCell::new(None),
    });
    let found = core.block_on(carry_out(&load)).map_err(|error| error.to_string());
    drop(load);
    core.shutdown();
    found
}

/// The loads of one core.
struct CoreLoad {
    env: RingEnv,
    file: UnnamedFile,
    settings: Arc<IoBenchSettings>,
    /// Whether those who ask all the time are to end.
    is_over: Cell<bool>,
    /// Those who ask all the time.
    workers: Cell<usize>,
    failure: RefCell<Option<io::Error>>,
}

/// All parts, one after the other.
async fn carry_out(load: &Rc<CoreLoad>) -> io::Result<CoreFound> {
    let saturated = saturate(load).await?;
    let mut returned = Vec::new();
    for &shared in &load.settings.classes {
        returned.push(come_back(load, shared).await?);
    }
    Ok(CoreFound { saturated, returned })
}

/// Has all classes ask for more than there is.
async fn saturate(load: &Rc<CoreLoad>) -> io::Result<Counted> {
    load.start(|_| true);
    load.sleep(load.settings.ramp()).await;
    let (start, before) = (load.env.precise_now(), load.env.disk_counters());
    load.sleep(load.settings.duration).await;
    let (end, after) = (load.env.precise_now(), load.env.disk_counters());
    load.end().await?;
    let seconds = Duration::from_nanos(end.saturating_sub(start)).as_secs_f64();
    Ok(Counted { before, after, seconds })
}

/// Has a class come back from idleness again and again while the others ask for all there is.
async fn come_back(load: &Rc<CoreLoad>, shared: SharedClass) -> io::Result<Vec<Returned>> {
    load.start(|class| class != shared.class);
    load.sleep(load.settings.ramp()).await;
    let env = &load.env;
    let mut buffer = load.buffer();
    let mut returned = Vec::new();
    let length = u64::try_from(load.settings.duration.as_nanos()).unwrap_or(u64::MAX);
    let end = env.precise_now().saturating_add(length);
    while env.precise_now() < end {
        env.sleep(IDLE_NANOSECONDS + env.random() % IDLE_RANGE_NANOSECONDS).await;
        // Nothing else of this class is under way, so the counts are this request's alone.
        let before = env.disk_counters().classes[shared.class as usize];
        let (result, back) = load.request(shared, buffer).await;
        buffer = back;
        if let Err(error) = result {
            load.failure.borrow_mut().get_or_insert(error);
            break;
        }
        let after = env.disk_counters().classes[shared.class as usize];
        returned.push(Returned {
            waited: after.queue_nanoseconds.wrapping_sub(before.queue_nanoseconds),
            in_device: after.ring_nanoseconds.wrapping_sub(before.ring_nanoseconds),
        });
    }
    load.end().await?;
    Ok(returned)
}

/// One request after the other until the load is over: as many of these run as the class is deep.
async fn work(load: Rc<CoreLoad>, shared: SharedClass, mut buffer: Buffer) {
    while !load.is_over.get() {
        let (result, back) = load.request(shared, buffer).await;
        buffer = back;
        if let Err(error) = result {
            load.failure.borrow_mut().get_or_insert(error);
            load.is_over.set(true);
        }
    }
    load.workers.set(load.workers.get() - 1);
}

impl CoreLoad {
    /// Has those classes ask all the time that `is_busy` says.
    fn start(self: &Rc<Self>, is_busy: impl Fn(IoClass) -> bool) {
        self.is_over.set(false);
        for &shared in self.settings.classes.iter().filter(|shared| is_busy(shared.class)) {
            for _ in 0..self.settings.depth {
                self.workers.set(self.workers.get() + 1);
                let work = work(Rc::clone(self), shared, self.buffer());
                self.env.spawn(TaskQueue::Foreground, work);
            }
        }
    }

    /// Ends what [`CoreLoad::start`] began.
    async fn end(&self) -> io::Result<()> {
        self.is_over.set(true);
        while self.workers.get() > 0 {
            self.env.sleep(DRAIN_STEP_NANOSECONDS).await;
        }
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    async fn sleep(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.env.sleep(nanoseconds).await;
    }

    fn buffer(&self) -> Buffer {
        let length = usize::try_from(self.settings.length).expect("the length was checked");
        random_buffer(&self.env, length)
    }

    /// One request of a class, at a random place.
    async fn request(&self, shared: SharedClass, buffer: Buffer) -> (io::Result<()>, Buffer) {
        let length = self.settings.length;
        let offset = self.env.random() % (self.file.bytes() / length) * length;
        let file = self.file.file();
        match shared.direction() {
            IoDirection::Read => file.read(shared.class, offset, buffer).await,
            IoDirection::Write => file.write(shared.class, offset, buffer).await,
        }
    }
}
