//! Loads on the node's own ring, on a file that has no name. The calling thread is the core.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};

use indicatif::ProgressBar;
use larder_runtime::buffer::Buffer;
use larder_runtime::core_env::CoreEnv;
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, TaskQueue};
use larder_runtime::io_queue::IoQueueOptions;
use larder_runtime::ring_env::RingEnv;

use super::error::IotuneError;
use super::load_tally::LoadTally;
use super::unnamed_file::{RingFile, UnnamedFile, random_buffer, refused};
use crate::measure::{DiskLoad, LoadKind, LoadRunner, LoadSample};

/// The node's own cap would hide what the disk does with more.
const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
/// Memory of buffers that the ring knows, in bytes: for 256 requests of 16 KiB, or 64 of 64 KiB.
const REGISTERED_BYTES: usize = 4 << 20;

/// How much a measurement on the ring may take.
#[derive(Clone, Copy, Debug)]
pub struct RingRunnerOptions {
    /// The length of the file, in whole MiB.
    pub bytes: u64,
    /// Requests at a time at most.
    pub depth_max: u32,
    /// The file is only as long as what was written of it within this time, in milliseconds;
    /// `None` writes all of it.
    pub fill_milliseconds_max: Option<u32>,
    /// How much longer than asked for a load may take on a slow disk, in milliseconds.
    pub more_milliseconds: u32,
}

impl RingRunnerOptions {
    /// For a measurement that may take its time.
    pub fn patient(bytes: u64, depth_max: u32) -> Self {
        Self { bytes, depth_max, fill_milliseconds_max: None, more_milliseconds: 10_000 }
    }
}

/// The shortest file to measure on, in bytes.
pub(super) const FILE_BYTES_MIN: u64 = 16 << 20;

/// A core that puts loads on a file.
pub struct RingRunner {
    file: UnnamedFile,
    more_milliseconds: u32,
    progress: ProgressBar,
    milliseconds_done: u64,
    env: RingEnv,
    core: Core,
}

impl RingRunner {
    /// Makes a file in a directory and writes it once, which is what `progress` counts, and the
    /// milliseconds of loads afterwards.
    ///
    /// # Errors
    /// If there can be no ring, or no such file: no right to make it, no direct I/O, too little
    /// space, too slow a disk. Nothing is left of it.
    pub fn start(
        directory: &Path,
        options: RingRunnerOptions,
        progress: ProgressBar,
    ) -> Result<Self, IotuneError> {
        let RingRunnerOptions { bytes, depth_max, fill_milliseconds_max, more_milliseconds } =
            options;
        let io = IoQueueOptions {
            requests_in_flight_max: usize::try_from(depth_max).unwrap_or(1).max(1),
            bytes_in_flight_max: BYTES_IN_FLIGHT_MAX,
            ..IoQueueOptions::default()
        };
        let registered_bytes = REGISTERED_BYTES;
        let options = CoreOptions { io, registered_bytes, ..CoreOptions::default() };
        let mut core = Core::new(options)?;
        let env = core.env();
        let mut file = core.block_on(UnnamedFile::make(&env, directory, 0, bytes))?;
        let nanoseconds_max =
            fill_milliseconds_max.map_or(u64::MAX, |most| u64::from(most) * 1_000_000);
        let filling = file.fill(&env, nanoseconds_max, &progress);
        core.block_on(filling).map_err(|error| {
            refused(directory, &format!("the file to measure on could not be written: {error}"))
        })?;
        if file.bytes() < FILE_BYTES_MIN {
            let message = format!(
                "only {} MiB were written to it in {} ms, and at least {} are needed",
                file.bytes() >> 20,
                fill_milliseconds_max.unwrap_or(0),
                FILE_BYTES_MIN >> 20
            );
            return Err(refused(directory, &message));
        }
        Ok(Self { file, more_milliseconds, progress, milliseconds_done: 0, env, core })
    }
}

impl LoadRunner for RingRunner {
    fn run(&mut self, load: DiskLoad) -> Result<LoadSample, String> {
        let length = u64::from(load.length);
        let is_whole = length > 0 && length.is_multiple_of(DISK_ALIGNMENT as u64);
        if !is_whole || length > self.file.bytes() {
            let bytes = self.file.bytes();
            return Err(format!("requests of {length} bytes do not fit a file of {bytes}"));
        }
        // Before the clock starts, because random bytes take their time.
        let buffer_bytes = usize::try_from(length).unwrap_or(0);
        let buffers: Vec<Buffer> =
            (0..load.depth.max(1)).map(|_| random_buffer(&self.env, buffer_bytes)).collect();
        let running = Rc::new(RunningLoad {
            load,
            file: self.file.file().clone(),
            env: self.env.clone(),
            blocks: self.file.bytes() / length,
            start: self.env.precise_now(),
            progress: self.progress.clone(),
            milliseconds_before: self.milliseconds_done,
            state: RefCell::new(LoadState {
                tally: LoadTally::new(load.milliseconds, self.more_milliseconds),
                begun: 0,
                reads: 0,
                writes: 0,
                workers: load.depth.max(1),
                failure: None,
                waker: None,
            }),
        });
        for buffer in buffers {
            self.env.spawn(TaskQueue::Foreground, work(Rc::clone(&running), buffer));
        }
        self.core.block_on(running.ended());
        self.milliseconds_done += u64::from(load.milliseconds);
        let state = running.state.borrow();
        match &state.failure {
            Some(error) => Err(error.to_string()),
            None => Ok(state.tally.sample(state.reads, state.writes)),
        }
    }
}

/// A load under way.
struct RunningLoad {
    load: DiskLoad,
    file: RingFile,
    env: RingEnv,
    /// Places in the file that a request may be at.
    blocks: u64,
    start: u64,
    progress: ProgressBar,
    milliseconds_before: u64,
    state: RefCell<LoadState>,
}

struct LoadState {
    tally: LoadTally,
    begun: u64,
    reads: u64,
    writes: u64,
    workers: u32,
    failure: Option<io::Error>,
    /// Of who waits for the end.
    waker: Option<Waker>,
}

/// One request after the other until the load is over: as many of these run as it is deep.
async fn work(running: Rc<RunningLoad>, mut buffer: Buffer) {
    while let Some((is_read, offset)) = running.next() {
        let begun = running.env.precise_now();
        let (result, back) = if is_read {
            running.file.read(IoClass::Read, offset, buffer).await
        } else {
            running.file.write(IoClass::Commit, offset, buffer).await
        };
        buffer = back;
        running.note(begun, is_read, result);
    }
    running.leave();
}

impl RunningLoad {
    /// Whether the next request reads, and where; `None` if there is none.
    fn next(&self) -> Option<(bool, u64)> {
        let mut state = self.state.borrow_mut();
        let now = self.env.precise_now().saturating_sub(self.start);
        if state.failure.is_some() || state.tally.is_over(now) {
            return None;
        }
        let number = state.begun;
        state.begun += 1;
        let is_read = match self.load.kind {
            LoadKind::RandomRead | LoadKind::SequentialRead => true,
            LoadKind::RandomWrite | LoadKind::SequentialWrite => false,
            LoadKind::Mixed => number.is_multiple_of(2),
        };
        let block = match self.load.kind {
            LoadKind::SequentialRead | LoadKind::SequentialWrite => number,
            LoadKind::RandomRead | LoadKind::RandomWrite | LoadKind::Mixed => self.env.random(),
        };
        Some((is_read, block % self.blocks * u64::from(self.load.length)))
    }

    fn note(&self, begun: u64, is_read: bool, result: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        if let Err(error) = result {
            state.failure.get_or_insert(error);
            return;
        }
        if is_read {
            state.reads += 1;
        } else {
            state.writes += 1;
        }
        let now = self.env.precise_now();
        let elapsed = now.saturating_sub(self.start);
        if state.tally.note(elapsed, now.saturating_sub(begun)) {
            let milliseconds = (elapsed / 1_000_000).min(u64::from(self.load.milliseconds));
            self.progress.set_position(self.milliseconds_before + milliseconds);
        }
    }

    fn leave(&self) {
        let mut state = self.state.borrow_mut();
        state.workers -= 1;
        let waker = if state.workers == 0 { state.waker.take() } else { None };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits until all workers have left.
    async fn ended(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.workers == 0 {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
