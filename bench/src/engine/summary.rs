//! The figures of a finished run, as JSON has them.

use std::time::Duration;

use larder_runtime::disk::DiskCounters;
use larder_runtime::env::IoClass;
use serde::Serialize;

use super::beside::BesideMeasured;
use super::crew::PhaseResult;
use super::space_sampler::SpaceSample;
use super::stall::StallSummary;
use super::tally::{Failure, Tally};
use super::windows::{Evenness, WINDOW, WindowSummary};
use super::{BesideSummary, EngineDurability, EngineSettings, SpaceBounds, Workload};
use crate::load::summary::{per_second, us_per_operation};
use crate::load::{ErrorSummary, OperationSummary};

/// Space that a store may take: so many times what lives in it, and so many segments for each
/// shard.
pub(super) const SPACE_FACTOR: f64 = 1.5;
const SPACE_SEGMENTS: u64 = 6;

/// What a run was asked for and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct EngineSummary {
    /// What was done.
    pub workload: Workload,
    /// Shards of the store.
    pub shards: u16,
    /// Threads that drove them.
    pub threads: usize,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of each key.
    pub key_size: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// Memory of all shards, in bytes.
    pub memory_bytes: u64,
    /// When a write counted as done.
    pub durability: EngineDurability,
    /// Operations a second that were due; none in a closed loop.
    pub rate: Option<f64>,
    /// Operations in flight on each shard, at most.
    pub concurrency: usize,
    /// Seconds that each stored item lived, if not for ever.
    pub ttl_seconds: Option<u32>,
    /// How keys were chosen.
    pub distribution: String,
    /// The seed of all random choices.
    pub seed: u64,
    /// What bounded the disk space.
    pub space_bounds: SpaceBounds,
    /// Seconds until all shards were open.
    pub open_seconds: f64,
    /// The fill before the workload, if there was one.
    pub warm: Option<WarmSummary>,
    /// Seconds from the workload's start to the end of its last operation.
    pub seconds: f64,
    /// Operations that ended and did not fail.
    pub operations: u64,
    /// Those in a second.
    pub operations_per_second: f64,
    /// Their latencies.
    pub latency: Option<OperationSummary>,
    /// Reads and deletes that found their key.
    pub found: u64,
    /// Reads and deletes that did not.
    pub missed: u64,
    /// Operations that the engine could not carry out at once: for want of room, of their turn, or
    /// of
    /// what is on the device.
    pub waited: u64,
    /// Operations that were due and had not begun when the time was up.
    pub not_begun: u64,
    /// What a scan came to, if the workload was one.
    pub scan: Option<ScanSummary>,
    /// Errors by kind; kinds that did not occur are left out.
    pub errors: Vec<ErrorSummary>,
    /// Values that were not what was stored, those of the verification included.
    pub wrong_values: u64,
    /// The first of them.
    pub wrong_value_first: String,
    /// Processor time of the whole process for each operation, in microseconds.
    pub cpu_us_per_operation: f64,
    /// The most memory that was ever resident, in bytes; the fill included.
    pub resident_peak_bytes: u64,
    /// Memory that the run itself keeps of all keys, in bytes; part of what is resident.
    pub bookkeeping_bytes: u64,
    /// Disk requests, from the workload's start to the end of the settling.
    pub device: DeviceSummary,
    /// Space on disk.
    pub space: SpaceSummary,
    /// The longest time without a completed operation on any shard.
    pub stall: StallSummary,
    /// The same for each shard alone.
    pub shard_stalls: Vec<StallSummary>,
    /// How even the workload's windows were; none if it was shorter than one.
    pub evenness: Option<Evenness>,
    /// Seconds that the engine was left alone after the workload.
    pub settle_seconds: f64,
    /// What was read back at the end, if it was asked for.
    pub verify: Option<VerifySummary>,
    /// What went on beside the workload and what that did to it, if anything did.
    pub beside: Option<BesideSummary>,
    /// Milliseconds of a window.
    pub window_milliseconds: u64,
    /// One entry for each window, those of the settling included.
    pub windows: Vec<WindowSummary>,
}

/// The fill before a workload.
#[derive(Clone, Debug, Serialize)]
pub struct WarmSummary {
    /// Keys that were stored.
    pub stored: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Errors by kind.
    pub errors: Vec<ErrorSummary>,
}

/// What the pages of a scan came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ScanSummary {
    /// Whether values were left out.
    pub keys_only: bool,
    /// Items of all pages.
    pub items: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Items in a second.
    pub items_per_second: f64,
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// Processor time of the whole process for each item, in microseconds.
    pub cpu_us_per_item: f64,
    /// Read requests to the device in a second.
    pub device_reads_per_second: f64,
    /// Read requests to the device for each item.
    pub device_reads_per_item: f64,
    /// Bytes that the device was asked for, for each item.
    pub device_bytes_per_item: f64,
}

impl ScanSummary {
    fn new(measured: &Measured<'_>, device: &DeviceSummary) -> Self {
        let (tally, elapsed) = (&measured.result.tally, measured.result.elapsed);
        let of_items = |count: u64| count as f64 / tally.scanned.max(1) as f64;
        Self {
            keys_only: measured.settings.keys_only,
            items: tally.scanned,
            bytes: tally.scanned_bytes,
            items_per_second: per_second(tally.scanned, elapsed),
            bytes_per_second: per_second(tally.scanned_bytes, elapsed),
            cpu_us_per_item: us_per_operation(measured.cpu, tally.scanned),
            device_reads_per_second: per_second(device.reads, elapsed),
            device_reads_per_item: of_items(device.reads),
            device_bytes_per_item: of_items(device.read_bytes),
        }
    }
}

/// What was asked of the device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceSummary {
    /// Where the bytes were counted.
    pub source: &'static str,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write operations.
    pub writes: u64,
    /// Read operations.
    pub reads: u64,
    /// Flushes.
    pub syncs: u64,
    /// Bytes of keys and values that were stored.
    pub stored_bytes: u64,
    /// Bytes written over bytes stored; none if nothing was stored.
    pub write_amplification: Option<f64>,
    /// Bytes by class; classes without any are left out.
    pub classes: Vec<ClassSummary>,
    /// Bytes written as the kernel counts them for the process, if it does.
    pub kernel_written_bytes: Option<u64>,
    /// Bytes read likewise.
    pub kernel_read_bytes: Option<u64>,
}

/// One class of disk requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClassSummary {
    /// The class's name.
    pub class: &'static str,
    /// Bytes written and read.
    pub bytes: u64,
}

/// Space on disk, looked at after each window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SpaceSummary {
    /// Bytes of keys and values that were there at the end.
    pub live_bytes: u64,
    /// Bytes of all files' blocks at the end.
    pub final_bytes: u64,
    /// The most there was.
    pub peak_bytes: u64,
    /// When that was, in seconds since the start.
    pub peak_at_seconds: f64,
    /// What the space is held against: 1.5 times the live bytes and six segments for each shard.
    pub segments_allowed_bytes: u64,
    /// Windows with more space than that.
    pub windows_over_allowance: usize,
}

/// What was read back after the store was closed and opened again.
#[derive(Clone, Debug, Serialize)]
pub struct VerifySummary {
    /// Seconds of closing and opening.
    pub reopen_seconds: f64,
    /// Keys that were read and found.
    pub found: u64,
    /// Keys that were read and not there.
    pub missed: u64,
    /// Those of both that were not as they must be.
    pub wrong: u64,
    /// The first of them.
    pub wrong_first: String,
    /// Errors by kind.
    pub errors: Vec<ErrorSummary>,
}

/// The raw results of which an [`EngineSummary`] is made.
pub(super) struct Measured<'a> {
    pub(super) settings: &'a EngineSettings,
    pub(super) shards: u16,
    pub(super) threads: usize,
    pub(super) open: Duration,
    pub(super) warm: Option<WarmSummary>,
    pub(super) result: PhaseResult,
    pub(super) samples: Vec<SpaceSample>,
    /// Before and after.
    pub(super) disk: (DiskCounters, DiskCounters),
    /// Bytes written and read, before and after.
    pub(super) kernel: Option<((u64, u64), (u64, u64))>,
    pub(super) cpu: Duration,
    pub(super) resident_peak_bytes: u64,
    pub(super) bookkeeping_bytes: u64,
    pub(super) verify: Option<VerifySummary>,
    pub(super) beside: Option<BesideMeasured>,
}

impl EngineSummary {
    pub(super) fn new(measured: Measured<'_>) -> Self {
        let stored_bytes = measured.result.tally.stored * measured.settings.item_bytes();
        let device = DeviceSummary::new(&measured.disk, measured.kernel, stored_bytes);
        let is_scan = measured.settings.workload == Workload::Scan;
        let scan = is_scan.then(|| ScanSummary::new(&measured, &device));
        let Measured { settings, result, verify, beside, .. } = measured;
        let elapsed = result.elapsed;
        let operations = result.latencies.len();
        let segments = SPACE_SEGMENTS * settings.segment_bytes * u64::from(measured.shards);
        let evenness = Evenness::of(&result.windows, elapsed);
        let (wrong, wrong_first) = result.tally.failure(Failure::WrongValue);
        let wrong_later = verify.as_ref().map_or((0, ""), |v| (v.wrong, v.wrong_first.as_str()));
        let others = beside.as_ref().map(|beside| beside.failures(&result));
        let wrong_beside =
            others.as_ref().map_or((0, ""), |others| others.failure(Failure::WrongValue));
        let wrongs = [(wrong, wrong_first), wrong_beside, wrong_later];
        let first = wrongs.iter().find(|(count, _)| *count > 0).map_or("", |(_, first)| first);
        Self {
            workload: settings.workload,
            shards: measured.shards,
            threads: measured.threads,
            keys: settings.keys,
            key_size: settings.key_size,
            value_size: settings.value_size,
            memory_bytes: settings.memory,
            durability: settings.durability,
            rate: settings.rate,
            concurrency: settings.concurrency,
            ttl_seconds: settings.ttl,
            distribution: settings.distribution.to_string(),
            seed: settings.seed,
            space_bounds: settings.space.clone(),
            open_seconds: measured.open.as_secs_f64(),
            warm: measured.warm,
            seconds: elapsed.as_secs_f64(),
            operations,
            operations_per_second: per_second(operations, elapsed),
            latency: OperationSummary::new(&result.latencies, elapsed),
            found: result.tally.found,
            missed: result.tally.missed,
            waited: result.waited,
            not_begun: result.not_begun,
            scan,
            errors: result.tally.errors(),
            wrong_values: wrongs.iter().map(|(count, _)| count).sum(),
            wrong_value_first: first.to_owned(),
            cpu_us_per_operation: us_per_operation(measured.cpu, operations),
            resident_peak_bytes: measured.resident_peak_bytes,
            bookkeeping_bytes: measured.bookkeeping_bytes,
            device,
            space: SpaceSummary::new(&measured.samples, segments),
            stall: result.stall.into(),
            shard_stalls: result.stalls.iter().map(|stall| (*stall).into()).collect(),
            evenness,
            settle_seconds: settings.settle.as_secs_f64(),
            verify,
            beside: beside.map(|beside| beside.sum_up(settings, &result)),
            window_milliseconds: WINDOW.as_millis() as u64,
            windows: with_space(result.windows, &measured.samples),
        }
    }
}

/// Adds what was seen of the space; windows of the settling have samples and no operations.
fn with_space(mut windows: Vec<WindowSummary>, samples: &[SpaceSample]) -> Vec<WindowSummary> {
    windows.resize(windows.len().max(samples.len()), WindowSummary::default());
    let last = samples.last().copied().unwrap_or_default();
    for (index, window) in windows.iter_mut().enumerate() {
        let sample = samples.get(index).copied().unwrap_or(last);
        window.space_bytes = sample.space_bytes;
        window.live_bytes = sample.live_bytes;
    }
    windows
}

impl DeviceSummary {
    fn new(
        (before, after): &(DiskCounters, DiskCounters),
        kernel: Option<((u64, u64), (u64, u64))>,
        stored_bytes: u64,
    ) -> Self {
        let written_bytes = after.write_bytes - before.write_bytes;
        let classes = IoClass::ALL.into_iter().map(|class| ClassSummary {
            class: class.name(),
            bytes: after.classes[class as usize].bytes - before.classes[class as usize].bytes,
        });
        Self {
            source: "the engine's disk requests",
            written_bytes,
            read_bytes: after.read_bytes - before.read_bytes,
            writes: after.writes - before.writes,
            reads: after.reads - before.reads,
            syncs: after.syncs - before.syncs,
            stored_bytes,
            write_amplification: (stored_bytes > 0)
                .then(|| written_bytes as f64 / stored_bytes as f64),
            classes: classes.filter(|class| class.bytes > 0).collect(),
            kernel_written_bytes: kernel.map(|(before, after)| after.0 - before.0),
            kernel_read_bytes: kernel.map(|(before, after)| after.1 - before.1),
        }
    }
}

impl SpaceSummary {
    fn new(samples: &[SpaceSample], segments_allowed_bytes: u64) -> Self {
        let last = samples.last().copied().unwrap_or_default();
        // The first of the highest: when the space was there for the first time.
        let peak = samples.iter().enumerate().rev().max_by_key(|(_, sample)| sample.space_bytes);
        let allowed = |sample: &SpaceSample| {
            (sample.live_bytes as f64 * SPACE_FACTOR) as u64 + segments_allowed_bytes
        };
        let over = samples.iter().filter(|sample| sample.space_bytes > allowed(sample)).count();
        Self {
            live_bytes: last.live_bytes,
            final_bytes: last.space_bytes,
            peak_bytes: peak.map_or(0, |(_, sample)| sample.space_bytes),
            peak_at_seconds: peak
                .map_or(0.0, |(index, _)| (index + 1) as f64 * WINDOW.as_secs_f64()),
            segments_allowed_bytes,
            windows_over_allowance: over,
        }
    }
}

impl VerifySummary {
    pub(super) fn new(reopen_seconds: f64, tally: &Tally) -> Self {
        let (wrong, wrong_first) = tally.failure(Failure::WrongValue);
        Self {
            reopen_seconds,
            found: tally.found,
            missed: tally.missed,
            wrong,
            wrong_first: wrong_first.to_owned(),
            errors: tally.errors(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_held_against_what_lives_at_each_moment() {
        let sample = |space_bytes, live_bytes| SpaceSample { space_bytes, live_bytes };
        let samples = [sample(100, 0), sample(250, 100), sample(251, 100), sample(251, 101)];
        let space = SpaceSummary::new(&samples, 100);
        assert_eq!((space.windows_over_allowance, space.final_bytes), (1, 251));
        assert_eq!((space.live_bytes, space.peak_bytes), (101, 251));
        assert!((space.peak_at_seconds - 0.3).abs() < 1e-9, "the first of the highest");
        assert_eq!(SpaceSummary::new(&[], 0), SpaceSummary::default());
    }

    #[test]
    fn bytes_are_those_between_two_counts() {
        let mut counters = (DiskCounters::default(), DiskCounters::default());
        (counters.0.write_bytes, counters.1.write_bytes) = (1_000, 4_000);
        (counters.0.classes[3].bytes, counters.1.classes[3].bytes) = (50, 60);
        let device = DeviceSummary::new(&counters, Some(((1, 2), (10, 20))), 2_000);
        assert_eq!((device.written_bytes, device.read_bytes), (3_000, 0));
        assert_eq!(device.write_amplification, Some(1.5));
        assert_eq!((device.kernel_written_bytes, device.kernel_read_bytes), (Some(9), Some(18)));
        let classes: Vec<_> = device.classes.iter().map(|c| (c.class, c.bytes)).collect();
        assert_eq!(classes, [("flush", 10)]);
        assert_eq!(DeviceSummary::new(&counters, None, 0).write_amplification, None);
    }

    #[test]
    fn windows_without_operations_have_their_space() {
        let sample = SpaceSample { space_bytes: 7, live_bytes: 3 };
        let windows = with_space(vec![WindowSummary::default()], &[sample, sample]);
        assert_eq!((windows.len(), windows[1].space_bytes, windows[1].live_bytes), (2, 7, 3));
        assert_eq!(with_space(vec![WindowSummary::default(); 3], &[sample])[2].space_bytes, 7);
    }
}
