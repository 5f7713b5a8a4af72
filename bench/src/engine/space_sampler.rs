//! What the directory takes on disk against what lives in it, looked at every 100 ms.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::host;

use super::windows::WINDOW;

/// A look at the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SpaceSample {
    /// Bytes of the blocks that its files have.
    pub(super) space_bytes: u64,
    /// Bytes of the keys and values that were there.
    pub(super) live_bytes: u64,
}

/// What the shards' threads let others see while they work.
#[derive(Debug)]
pub(super) struct Gauges {
    /// Keys that are there, by shard.
    live_keys: Vec<AtomicU64>,
    item_bytes: u64,
}

impl Gauges {
    pub(super) fn new(shards: u16, item_bytes: u64) -> Self {
        Self { live_keys: (0..shards).map(|_| AtomicU64::new(0)).collect(), item_bytes }
    }

    /// Shard number `shard` holds so many keys.
    pub(super) fn set_live_keys(&self, shard: u16, keys: u64) {
        self.live_keys[usize::from(shard)].store(keys, Ordering::Relaxed);
    }

    pub(super) fn live_bytes(&self) -> u64 {
        let keys: u64 = self.live_keys.iter().map(|keys| keys.load(Ordering::Relaxed)).sum();
        keys * self.item_bytes
    }
}

/// Looks at a store's directory while a run goes on.
#[derive(Debug)]
pub(super) struct SpaceSampler<'a> {
    directory: &'a Path,
    gauges: &'a Gauges,
    is_over: AtomicBool,
    /// Processor time that the looking took, in nanoseconds.
    cpu: AtomicU64,
    last_bytes: AtomicU64,
}

/// Ends a sampler.
pub(super) struct SamplerEnd<'a>(&'a AtomicBool);

impl Drop for SamplerEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'a> SpaceSampler<'a> {
    pub(super) fn new(directory: &'a Path, gauges: &'a Gauges) -> Self {
        let is_over = AtomicBool::new(false);
        Self { directory, gauges, is_over, cpu: AtomicU64::new(0), last_bytes: AtomicU64::new(0) }
    }

    /// Ends the sampler when what is returned is dropped.
    pub(super) fn end_when_dropped(&self) -> SamplerEnd<'_> {
        SamplerEnd(&self.is_over)
    }

    /// Processor time that the looking has taken so far.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }

    /// What was seen last.
    pub(super) fn last(&self) -> SpaceSample {
        let space_bytes = self.last_bytes.load(Ordering::Relaxed);
        SpaceSample { space_bytes, live_bytes: self.gauges.live_bytes() }
    }

    /// Samples from `start` on until it is told to end, and then once more. Sample number i is taken
    /// at the end of window i.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn run(&self, start: Instant) -> io::Result<Vec<SpaceSample>> {
        let mut samples = Vec::new();
        let mut due = start;
        loop {
            due += WINDOW;
            let is_last = self.wait_until(due);
            let space_bytes = host::allocated_bytes(self.directory)?;
            self.last_bytes.store(space_bytes, Ordering::Relaxed);
            samples.push(self.last());
            self.cpu.store(host::thread_cpu().as_nanos() as u64, Ordering::Relaxed);
            if is_last {
                return Ok(samples);
            }
        }
    }

    /// Waits until `due`, or less if it is over; returns whether it is.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            if self.is_over.load(Ordering::Acquire) {
                return true;
            }
            let left = due.saturating_duration_since(host::now());
            if left.is_zero() {
                return false;
            }
            host::sleep(left.min(WINDOW / 5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_all_files_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let below = directory.path().join("shard-000");
        host::create_dir(&below).expect("a directory");
        let before = host::allocated_bytes(directory.path()).expect("read");
        host::write_text(&below.join("a"), &"x".repeat(100_000)).expect("a file");
        // Some file systems give a file its blocks when it is written back.
        host::open_or_create(&below.join("a")).and_then(|a| a.sync_all()).expect("synced");
        let file = host::open_or_create(&below.join("hole")).expect("a file");
        file.set_len(1 << 30).expect("a hole");
        drop(file);
        let after = host::allocated_bytes(directory.path()).expect("read");
        let gauges = Gauges::new(2, 10);
        gauges.set_live_keys(0, 3);
        gauges.set_live_keys(1, 4);
        let sampler = SpaceSampler::new(directory.path(), &gauges);
        drop(sampler.end_when_dropped());
        let samples = sampler.run(host::now()).expect("sampled");
        assert_eq!((samples.len(), samples[0].live_bytes), (1, 70));
        assert_eq!(samples[0].space_bytes, after);
        assert!(after >= before + 90_000, "{before} to {after}");
        assert!(after <= before + (1 << 20), "a hole has no blocks");
        assert!(host::allocated_bytes(&directory.path().join("none")).is_err());
    }
}
