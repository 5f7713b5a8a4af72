//! `larder iotune`: measures a disk with the node's own ring and writes its figures down.
//!
//! What is asked of the disk is decided by [`measure()`]; [`RingRunner`] carries it out. All that
//! can be refused is refused before the disk is touched, and the results are written at the end.

mod calibration;
mod error;
mod load_tally;
mod plot;
mod report;
mod result_files;
mod ring_runner;
mod surroundings;
mod unnamed_file;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

pub use calibration::{Calibration, forget_interrupted, is_interrupted};
pub use error::IotuneError;
pub use ring_runner::{RingRunner, RingRunnerOptions};
pub use unnamed_file::{UnnamedFile, random_buffer};

use crate::disk::{DiskProperties, doubts};
use crate::machine::Machine;
use crate::measure::{MeasureOptions, measure};
use crate::tree::{SystemFiles, SystemTree};
use report::Report;
use result_files::ResultFiles;

const HELP: &str = "\
Exit code: 0; 2 if it could not be done, or the figures are implausible: then nothing is written.

It measures on a file that it makes in the directory, with direct I/O. The file has no name, so
that nothing is left of it, however this ends. Measure while nothing else uses the disk. Writes are
measured without the flush that makes them durable.

`larder serve` takes the figures from the file io-properties.toml in its data directory, or from
the one that --io-properties names.

Examples:
  larder iotune --dir /mnt/nvme/larder --out /mnt/nvme/larder/io-properties.toml
  larder iotune --dir /mnt/nvme/larder --out io-properties.toml --quick --plot latency.svg";

/// `larder iotune`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct IotuneArgs {
    /// Directory on the disk that is measured
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// File that the figures are written to, as TOML; other disks that it has stay in it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Measure for 10 seconds instead of 2 minutes
    #[arg(long, conflicts_with = "seconds")]
    pub quick: bool,
    /// How long to measure, after the file is written [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: Option<u32>,
    /// Size of the file in MiB, at most half of the free space; it should be more than the disk's
    /// own memory [default: 4096; 1024 with --quick]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    pub size: Option<u64>,
    /// Also write all that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw latency against load to this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

impl IotuneArgs {
    fn options(&self) -> MeasureOptions {
        match self.seconds {
            Some(seconds) => MeasureOptions {
                milliseconds: seconds.saturating_mul(1000),
                ..MeasureOptions::full()
            },
            None if self.quick => MeasureOptions::quick(),
            None => MeasureOptions::full(),
        }
    }

    fn file_bytes(&self) -> u64 {
        let default = if self.quick { 1024 } else { 4096 };
        self.size.unwrap_or(default) << 20
    }
}

/// The exit code where something could not be done.
const EXIT_NOT_DONE: u8 = 2;

/// Does what `larder iotune` is asked for, with progress on stderr if that is a terminal.
pub fn iotune(args: &IotuneArgs) -> ExitCode {
    let progress = ProgressBar::new(args.file_bytes());
    let style = ProgressStyle::with_template("{msg} {bar:40} {percent} %, {eta} left")
        .expect("the template is well formed");
    progress.set_style(style);
    let result = run(args, &mut std::io::stdout().lock(), &progress);
    progress.finish_and_clear();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error}");
            ExitCode::from(EXIT_NOT_DONE)
        }
    }
}

/// The same with another output.
pub(crate) fn run(
    args: &IotuneArgs,
    output: &mut dyn Write,
    progress: &ProgressBar,
) -> Result<(), IotuneError> {
    let refused = |message: String| IotuneError::Directory { path: args.dir.clone(), message };
    let directory = args
        .dir
        .canonicalize()
        .map_err(|error| refused(format!("{error}; name a directory that is there")))?;
    if !directory.is_dir() {
        return Err(refused("it is no directory".to_owned()));
    }
    let tree = SystemTree::new(Path::new("/")).map_err(|error| refused(error.to_string()))?;
    let machine = Machine::read(&tree)?;
    let mount = machine
        .mount_of(&directory.display().to_string())
        .ok_or_else(|| refused("nothing is mounted there or above it".to_owned()))?;
    if let Some(message) = surroundings::refusal(mount) {
        return Err(refused(message));
    }
    let files = ResultFiles::check(&tree, args)?;
    let mut report = Report {
        directory: directory.display().to_string(),
        file_system: mount.kind.clone(),
        machine: machine_name(&tree),
        milliseconds: args.options().milliseconds,
        file_bytes: args.file_bytes(),
        disk: DiskProperties { mountpoints: vec![mount.path.clone()], ..DiskProperties::default() },
        spread_percent: [0.0; 4],
        curves: Vec::new(),
        notes: Vec::new(),
        warnings: surroundings::warnings(&machine, mount),
    };
    for warning in &report.warnings {
        writeln!(output, "warning: {warning}")?;
    }
    measure_disk(args, &directory, &mut report, progress)?;
    write!(output, "{}", report.to_text())?;
    let figures = checked_figures(&files, &report)?;
    let title = format!("{}: latency against load", report.disk.mountpoints.join(", "));
    files.write(&figures, || report.to_json(), || plot::draw(&title, &report.curves))?;
    writeln!(output, "written to {}", args.out.display())?;
    Ok(())
}

fn measure_disk(
    args: &IotuneArgs,
    directory: &Path,
    report: &mut Report,
    progress: &ProgressBar,
) -> Result<(), IotuneError> {
    let options = args.options();
    progress.set_message("writing the file");
    let runner = RingRunnerOptions::patient(args.file_bytes(), options.depth_max);
    let mut runner = RingRunner::start(directory, runner, progress.clone())?;
    progress.set_length(u64::from(options.milliseconds));
    progress.set_position(0);
    progress.reset_eta();
    progress.set_message("measuring");
    let measured = measure(&mut runner, options).map_err(IotuneError::Load)?;
    progress.finish_and_clear();
    report.take(measured);
    Ok(())
}

/// The text of the file of figures, if they can be believed.
fn checked_figures(files: &ResultFiles<'_>, report: &Report) -> Result<String, IotuneError> {
    let reasons = doubts(&report.disk, report.machine.as_deref());
    if !reasons.is_empty() {
        return Err(IotuneError::Implausible { reasons });
    }
    files.figures(&report.disk).map_err(|reason| IotuneError::Implausible { reasons: vec![reason] })
}

/// What the firmware calls the machine: of an AWS instance that is its type.
fn machine_name(tree: &SystemTree) -> Option<String> {
    let name = tree.read("/sys/devices/virtual/dmi/id/product_name").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
