//! `larder bench io`: how the node's scheduler divides a disk among classes and cores.
//!
//! Each core is a thread with the ring and the I/O queue of the node, and a file of its own that
//! has no name. First all classes ask for more than there is, all the time. Then one class after
//! the other is idle, and asks for one read or write now and then, while the others go on.

mod arguments;
mod core_load;
mod report;
mod settings;
mod summary;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::ScopedJoinHandle;

use larder_perftune::disk::{DiskFile, DiskFileError};
use larder_runtime::device_group::DeviceGroup;
use larder_runtime::device_model::DeviceModel;
use larder_runtime::io_queue::IoQueueOptions;

pub use arguments::IoBenchArgs;
pub use settings::{IoBenchSettings, SharedClass};
pub use summary::{ClassPart, ComeBack, IoBenchSummary};

pub(crate) use report::describe;

use crate::error::BenchError;
use crate::host;
use crate::load::Progress;
use core_load::{CoreFound, CorePlan};
use summary::DiskFound;

/// Puts the loads on the disk, and waits until they are over.
///
/// # Errors
/// Settings, a directory or a file with figures that cannot be used; a disk that fails.
pub fn measure(
    settings: &IoBenchSettings,
    progress: &mut Progress,
) -> Result<IoBenchSummary, BenchError> {
    settings.check()?;
    let directory = settings.directory.canonicalize().ok().filter(|path| path.is_dir());
    let directory = directory.ok_or_else(|| BenchError::Directory {
        path: settings.directory.clone(),
        reason: "it is no directory; name one on the disk".to_owned(),
    })?;
    let settings = Arc::new(IoBenchSettings { directory, ..settings.clone() });
    let model = model(&settings)?;
    let device = DeviceGroup::new(model, settings.cores);
    let io = IoQueueOptions { device: Some(device), ..settings.queue_options() };
    progress.show_line(format!(
        "{} files are written; then {:.0} s of loads",
        settings.cores,
        settings.seconds_in_all()
    ));
    let cores = run_cores(&settings, &io)?;
    Ok(IoBenchSummary::new(&settings, &DiskFound { model, cores }))
}

/// What the disk of the directory can do.
fn model(settings: &IoBenchSettings) -> Result<DeviceModel, BenchError> {
    let path = &settings.io_properties;
    let refused = |error: DiskFileError| {
        BenchError::option("--io-properties", format!("{}: {error}", path.display()))
    };
    let file = DiskFile::load(path).map_err(refused)?;
    Ok(file.disk_of(&settings.directory).map_err(refused)?.model(None))
}

/// Carries the loads out on all cores at once.
fn run_cores(
    settings: &Arc<IoBenchSettings>,
    io: &IoQueueOptions,
) -> Result<Vec<CoreFound>, BenchError> {
    std::thread::scope(|scope| {
        let (ready, readies) = mpsc::channel();
        let mut starts = Vec::new();
        let mut threads: Vec<ScopedJoinHandle<'_, Result<CoreFound, String>>> = Vec::new();
        for number in 0..settings.cores {
            let (start, started) = mpsc::channel();
            let settings = Arc::clone(settings);
            let plan = CorePlan { number, settings, io: io.clone(), ready: ready.clone(), started };
            let body = move || core_load::live(plan);
            let thread = host::start_thread(scope, format!("bench-core-{number}"), body);
            threads.push(thread.map_err(|source| BenchError::System {
                action: "--cores: starting a thread".to_owned(),
                source,
            })?);
            starts.push(start);
        }
        drop(ready);
        // Fewer if one has failed, and then the others are not started.
        if readies.iter().count() == settings.cores {
            for start in &starts {
                // One that has hung up says why when it is waited for.
                let _ = start.send(());
            }
        }
        drop(starts);
        let ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a core does not panic"))
            .collect();
        first_cause(ended).map_err(|reason| BenchError::Disk { reason })
    })
}

/// What the cores have found, or why the first of them failed that did so by itself.
fn first_cause(ended: Vec<Result<CoreFound, String>>) -> Result<Vec<CoreFound>, String> {
    let failed = ended.iter().filter_map(|end| end.as_ref().err());
    let cause = failed.max_by_key(|reason| reason.as_str() != core_load::NOT_STARTED).cloned();
    cause.map_or_else(|| ended.into_iter().collect(), Err)
}
