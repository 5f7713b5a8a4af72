//! What `larder bench io` is to do, checked.

use std::path::PathBuf;
use std::time::Duration;

use larder_runtime::device_model::{IoDirection, LONGEST_REQUEST};
use larder_runtime::env::{DISK_ALIGNMENT, IO_CLASSES, IoClass};
use larder_runtime::io_queue::{IoQueueOptions, check_io_class};
use serde::Serialize;

use crate::error::BenchError;

/// The most threads: each has a file and buffers.
const CORES_MAX: usize = 256;
/// The most requests of a class that a core waits for at a time.
const DEPTH_MAX: usize = 4096;
/// The most memory for buffers of all requests, in bytes.
const BUFFERS_MAX: u64 = 1 << 30;
/// The lengths of a core's file, in bytes.
const FILE_MIN: u64 = 16 << 20;
const FILE_MAX: u64 = 1 << 40;
/// The longest part, in seconds.
const DURATION_MAX: u64 = 3_600;
/// The shortest part: of a shorter one the time before the loads are even would be most.
const DURATION_MIN: Duration = Duration::from_millis(100);
/// How much of a part's length the loads get beforehand, uncounted.
const RAMP_DIVISOR: u32 = 5;
/// At most so much.
const RAMP_MAX: Duration = Duration::from_secs(2);

/// A class of disk requests, and its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedClass {
    /// The class.
    pub class: IoClass,
    /// Its shares.
    pub shares: u32,
}

impl SharedClass {
    /// What its requests do: commits and flushes write, all others read.
    pub fn direction(self) -> IoDirection {
        match self.class {
            IoClass::Commit | IoClass::Flush => IoDirection::Write,
            _ => IoDirection::Read,
        }
    }
}

/// What to put on a disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IoBenchSettings {
    /// The classes that share it.
    #[serde(skip)]
    pub classes: Vec<SharedClass>,
    /// A directory on it.
    pub directory: PathBuf,
    /// The file with what it can do.
    pub io_properties: PathBuf,
    /// Threads.
    pub cores: usize,
    /// The processors that they are bound to, in turn; none for any.
    pub cpus: Vec<usize>,
    /// How long each part is.
    pub duration: Duration,
    /// Bytes of a request.
    pub length: u64,
    /// Requests of a class that each core waits for at a time.
    pub depth: usize,
    /// The length of each core's file, in bytes.
    pub file_bytes: u64,
}

impl IoBenchSettings {
    /// Whether all of it can be done.
    ///
    /// # Errors
    /// The option, and what it may be.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let refused = |option, reason: String| Err(BenchError::option(option, reason));
        if self.classes.len() < 2 {
            return refused(
                "--classes",
                "name two or more, such as scan=1,compaction=4".to_owned(),
            );
        }
        for shared in &self.classes {
            check_io_class(shared.class, Some(shared.shares), None)
                .map_err(|reason| BenchError::option("--classes", reason))?;
        }
        if !(1..=CORES_MAX).contains(&self.cores) {
            return refused("--cores", format!("must be from 1 to {CORES_MAX}"));
        }
        if !(1..=DEPTH_MAX).contains(&self.depth) {
            return refused("--depth", format!("must be from 1 to {DEPTH_MAX}"));
        }
        if !(DURATION_MIN..=Duration::from_secs(DURATION_MAX)).contains(&self.duration) {
            return refused("--duration", format!("must be from 0.1 to {DURATION_MAX} seconds"));
        }
        let alignment = DISK_ALIGNMENT as u64;
        let is_whole = self.length > 0 && self.length.is_multiple_of(alignment);
        if !is_whole || self.length > LONGEST_REQUEST {
            let most = LONGEST_REQUEST >> 10;
            return refused("--length", format!("must be a multiple of 4K, at most {most}K"));
        }
        let is_whole = self.file_bytes.is_multiple_of(1 << 20);
        if !is_whole || !(FILE_MIN..=FILE_MAX).contains(&self.file_bytes) {
            return refused("--size", "must be whole MiB, from 16M to 1T".to_owned());
        }
        let requests = self.depth * self.cores * self.classes.len();
        let bytes = (requests as u64).saturating_mul(self.length);
        if bytes > BUFFERS_MAX {
            let reason = format!("buffers for that would take {} MiB, over 1024", bytes >> 20);
            return refused("--depth", reason);
        }
        Ok(())
    }

    /// The queue of each core. Classes that are not named have nothing to do; with the least
    /// shares they leave the burst of the others as it is.
    pub(super) fn queue_options(&self) -> IoQueueOptions {
        let mut shares = [1; IO_CLASSES];
        for shared in &self.classes {
            shares[shared.class as usize] = shared.shares;
        }
        IoQueueOptions { shares, ..IoQueueOptions::default() }
    }

    /// How long the loads go on before a part counts.
    pub(super) fn ramp(&self) -> Duration {
        (self.duration / RAMP_DIVISOR).min(RAMP_MAX)
    }

    /// How long all parts take: one of all classes, and one for each that comes back.
    pub(super) fn seconds_in_all(&self) -> f64 {
        let parts = 1.0 + self.classes.len() as f64;
        (self.duration + self.ramp()).as_secs_f64() * parts
    }

    /// The processor of core number `number`.
    pub(super) fn cpu_of(&self, number: usize) -> Option<usize> {
        self.cpus.get(number.checked_rem(self.cpus.len())?).copied()
    }
}
