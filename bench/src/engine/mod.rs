//! `larder bench engine`: load on the engine inside this process, without sockets.
//!
//! Each shard runs on a thread of its own with the runtime that the node uses, and operations go
//! the way that the node's do. One thread samples the directory, and the runner puts together what
//! the others count.
//!
//! What is decided is in plain code that tests feed with made-up times: which operation comes next
//! and when it is due (`script`), what a key must hold (`expectations`), stalls (`stall`) and
//! windows
//! (`windows`).

mod alarm;
mod arguments;
mod bench_core;
mod beside;
mod crew;
mod expectations;
mod plot;
mod report;
mod script;
mod settings;
mod shard_keys;
mod shard_load;
mod shard_options;
mod shard_pages;
mod shard_phase;
mod space_bounds;
mod space_sampler;
mod stall;
mod store_directory;
mod summary;
mod tally;
#[cfg(test)]
mod tests;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use larder_perftune::disk::{DiskFile, DiskFileError};
use larder_runtime::device_group::DeviceGroup;
use larder_runtime::disk::DiskCounters;
use larder_runtime::io_queue::IoQueueOptions;

pub use arguments::EngineArgs;
pub(crate) use arguments::size;
pub use beside::{BesideLoad, BesideSummary, DeviceShares};
pub use settings::{EngineDurability, EngineSettings, Warm, Workload};
pub use space_bounds::{SpaceBounds, SpaceCap};
pub use stall::StallSummary;
pub use summary::{
    ClassSummary, DeviceSummary, EngineSummary, ScanSummary, SpaceSummary, VerifySummary,
    WarmSummary,
};
pub use windows::{Evenness, WindowSummary};

pub(crate) use plot::draw;
pub(crate) use report::{bytes, describe};

use crate::error::BenchError;
use crate::load::Progress;
use crate::{host, process};
use bench_core::ShardPlan;
use beside::{AloneMeasured, BesideMeasured};
use crew::Crew;
use expectations::Expectations;
use report::progress_line;
use script::Phase;
use shard_keys::ShardKeys;
use shard_options::shard_options;
use space_sampler::{Gauges, SpaceSampler};
use store_directory::StoreDirectory;
use summary::Measured;

/// Runs the workload as the settings say, and waits until it is done.
///
/// # Errors
/// Settings or a directory that cannot be used, or an engine that fails. Wrong values are no error
/// here: they are in the summary.
pub fn measure(
    settings: &EngineSettings,
    progress: &mut Progress,
) -> Result<EngineSummary, BenchError> {
    settings.check()?;
    // If the limit cannot be raised it may still suffice; if not, opening a file says so.
    let _ = host::raise_descriptor_limit();
    let store = StoreDirectory::prepare(settings)?;
    settings.space.check(&store.path)?;
    let shards = u16::try_from(store.shards.len()).expect("the number of shards was checked");
    let threads = settings.threads_for(shards)?;
    let plans = plan(settings, &store, shards)?;
    let io = disk_sharing(settings, &store, threads)?;
    let settings = Arc::new(settings.clone());
    let gauges = Arc::new(Gauges::new(shards, settings.item_bytes()));
    let sampler = SpaceSampler::new(&store.path, &gauges);
    std::thread::scope(|scope| {
        let opening = host::now();
        let mut crew = Crew::start(scope, &settings, threads, plans, &gauges, &io)?;
        let open = host::now() - opening;
        // Whatever happens, the sampler ends before the scope waits for it.
        let end = sampler.end_when_dropped();
        let warm = warm_up(&crew, &settings, &store, progress)?;
        let alone = alone(&crew, &settings, progress)?;
        let disk_before = crew.disk_counters()?;
        let kernel_before = process::storage_bytes().ok();
        let cpu_before = host::process_cpu();
        let start = host::now();
        let sampler = &sampler;
        let name = "bench-space".to_owned();
        let sampling = host::start_thread(scope, name, move || sampler.run(start))
            .map_err(|source| system("starting a thread", source))?;
        let (keys, mut seen) = (settings.keys, 0);
        let result = crew.run(Phase::Measured, start, &mut |merger, elapsed| {
            let line = progress_line(merger, &mut seen, elapsed, sampler.last(), &settings, keys);
            progress.show_line(line);
        })?;
        let cpu = (host::process_cpu() - cpu_before).saturating_sub(sampler.cpu());
        let beside = beside(&crew, alone, disk_before, &io)?;
        settle(&settings, progress);
        drop(end);
        let samples = sampling.join().expect("the sampler does not panic");
        let samples = samples.map_err(|source| system("reading --dir", source))?;
        let disk = (disk_before, crew.disk_counters()?);
        let kernel = kernel_before.zip(process::storage_bytes().ok());
        let bookkeeping_bytes = crew.bookkeeping_bytes;
        let verify = settings
            .verify
            .is_some()
            .then(|| verify(&mut crew, &settings, progress))
            .transpose()?;
        crew.close()?;
        Ok(EngineSummary::new(Measured {
            settings: &settings,
            shards,
            threads,
            open,
            warm,
            result,
            samples,
            disk,
            kernel,
            cpu,
            resident_peak_bytes: resident_peak(),
            bookkeeping_bytes,
            verify,
            beside,
        }))
    })
}

/// What each shard is opened with.
fn plan(
    settings: &EngineSettings,
    store: &StoreDirectory,
    shards: u16,
) -> Result<Vec<ShardPlan>, BenchError> {
    let memory = settings.shard_memory(shards)?;
    let budget = settings.space.budget();
    let may_expire = settings.ttl.is_some();
    // Counted from another number in each run, so that a version of an earlier one is told apart.
    let version_first = u32::try_from(host::unix_seconds()).unwrap_or(0);
    let plans = ShardKeys::deal(settings, shards).into_iter().zip(&store.shards).enumerate();
    let plan = |(shard, (keys, directory)): (usize, (ShardKeys, &std::path::PathBuf))| {
        let shard = u16::try_from(shard).expect("the number of shards was checked");
        let expectations = if store.has_data {
            Expectations::unknown(keys.count(), may_expire, version_first)
        } else {
            Expectations::empty(keys.count(), may_expire)
        };
        let options = shard_options(settings, (shard, shards), &memory, &budget);
        ShardPlan { directory: directory.clone(), options, keys, expectations }
    };
    Ok(plans.map(plan).collect())
}

/// How the threads' disk requests share the device of the store.
fn disk_sharing(
    settings: &EngineSettings,
    store: &StoreDirectory,
    threads: usize,
) -> Result<IoQueueOptions, BenchError> {
    let Some(path) = &settings.io_properties else { return Ok(IoQueueOptions::default()) };
    let refused = |error: DiskFileError| {
        BenchError::option("--io-properties", format!("{}: {error}", path.display()))
    };
    let file = DiskFile::load(path).map_err(refused)?;
    let model = file.disk_of(&store.path).map_err(refused)?.model(None);
    let device = Some(DeviceGroup::new(model, threads));
    Ok(IoQueueOptions { device, ..IoQueueOptions::default() })
}

/// Carries the workload out without counting, if that is asked for.
fn ramp(crew: &Crew, settings: &EngineSettings, progress: &mut Progress) -> Result<(), BenchError> {
    if settings.ramp.is_zero() {
        return Ok(());
    }
    let nanoseconds = u64::try_from(settings.ramp.as_nanos()).unwrap_or(u64::MAX);
    crew.run(Phase::Ramp { nanoseconds }, host::now(), &mut |merger, elapsed| {
        let operations = merger.operations();
        let seconds = elapsed.as_secs_f64();
        progress.show_line(format!("not counted: {seconds:.0} s, {operations} done"));
    })?;
    Ok(())
}

/// Fills the caches if that is asked for, carries the workload out alone, and then the loads that
/// are to go on beside it, if there are any.
fn alone(
    crew: &Crew,
    settings: &EngineSettings,
    progress: &mut Progress,
) -> Result<Option<AloneMeasured>, BenchError> {
    ramp(crew, settings, progress)?;
    if settings.beside.is_empty() {
        return Ok(None);
    }
    let quiet = crew.run(Phase::Quiet, host::now(), &mut |merger, elapsed| {
        let operations = merger.operations();
        progress.show_line(format!("alone: {:.0} s, {operations} done", elapsed.as_secs_f64()));
    })?;
    let before = crew.disk_counters()?;
    let nanoseconds = u64::try_from(quiet.elapsed.as_nanos()).unwrap_or(u64::MAX);
    let phase = Phase::Background { nanoseconds };
    let background = crew.run(phase, host::now(), &mut |_, elapsed| {
        progress.show_line(format!("the loads beside it alone: {:.0} s", elapsed.as_secs_f64()));
    })?;
    let disk = (before, crew.disk_counters()?);
    Ok(Some(AloneMeasured { quiet, background, disk }))
}

/// What was counted while other loads went on beside the workload, if they did.
fn beside(
    crew: &Crew,
    alone: Option<AloneMeasured>,
    disk_before: DiskCounters,
    io: &IoQueueOptions,
) -> Result<Option<BesideMeasured>, BenchError> {
    let Some(alone) = alone else { return Ok(None) };
    let disk = (disk_before, crew.disk_counters()?);
    let model = io.device.as_ref().map(|device| *device.model());
    Ok(Some(BesideMeasured { alone, disk, model }))
}

/// Stores every key, if the workload needs that and it is not there or asked for.
fn warm_up(
    crew: &Crew,
    settings: &EngineSettings,
    store: &StoreDirectory,
    progress: &mut Progress,
) -> Result<Option<WarmSummary>, BenchError> {
    let is_wanted = settings.warm.map_or(!store.has_data, |warm| warm == Warm::Fill);
    if !settings.workload.needs_data() || !is_wanted {
        return Ok(None);
    }
    progress.begin_fill(settings.keys);
    let result = crew.run(Phase::Warm, host::now(), &mut |merger, _| {
        progress.show_fill(merger.operations(), settings.keys);
    })?;
    progress.end_fill();
    Ok(Some(WarmSummary {
        stored: result.tally.stored,
        seconds: result.elapsed.as_secs_f64(),
        errors: result.tally.errors(),
    }))
}

/// Leaves the engine alone for as long as the settings say; the sampler goes on.
fn settle(settings: &EngineSettings, progress: &mut Progress) {
    let end = host::now() + settings.settle;
    loop {
        let left = end.saturating_duration_since(host::now());
        if left.is_zero() {
            return;
        }
        progress.show_line(format!("settling: {:.0} s left", left.as_secs_f64()));
        host::sleep(left.min(Duration::from_secs(1)));
    }
}

/// Closes the shards, opens them again and reads keys back.
fn verify(
    crew: &mut Crew,
    settings: &EngineSettings,
    progress: &mut Progress,
) -> Result<VerifySummary, BenchError> {
    let closing = host::now();
    crew.reopen(&settings.space.budget())?;
    let reopen_seconds = (host::now() - closing).as_secs_f64();
    let result = crew.run(Phase::Verify, host::now(), &mut |merger, _| {
        progress.show_line(format!("verifying: {} keys", merger.operations()));
    })?;
    Ok(VerifySummary::new(reopen_seconds, &result.tally))
}

fn resident_peak() -> u64 {
    process::sample(std::process::id()).map_or(0, |sample| sample.resident_peak_bytes)
}

fn system(action: &str, source: std::io::Error) -> BenchError {
    BenchError::System { action: action.to_owned(), source }
}
