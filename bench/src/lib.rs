//! The load generator and the comparison benchmarks.
//!
//! [`run`] is `larder bench`. [`load`] is a closed-loop load generator for any server that speaks
//! memcached's text or meta protocol; [`engine`] loads the storage engine inside this process, and
//! [`io`] the disk through the node's scheduler.
//! [`versus`] is the program `larder-versus`, which starts the node and
//! memcached itself, drives both with the same load generator and compares their figures.
//!
//! The load generator decides in plain code ([`load`]'s encoder, reply parser, exchange and
//! distributions take bytes and numbers); one module carries it out on sockets, and one module
//! ([`host`]) touches clocks, files and threads.
#![forbid(unsafe_code)]

mod arguments;
pub mod engine;
mod error;
mod host;
pub mod io;
pub mod load;
mod process;
pub mod versus;

use std::path::Path;

use serde::Serialize;

pub use arguments::{BenchArgs, BenchCommand, RunArgs};
pub use error::BenchError;

/// Carries out `larder bench ...`: prints the report on stdout and progress on stderr.
///
/// # Errors
/// An option that cannot be used, a server that cannot be reached, all connections lost, or, after
/// the report is printed, any value that was not the one its key determines.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.command {
        BenchCommand::Run(run_args) => run_load(&run_args),
        BenchCommand::Hostile(hostile_args) => run_hostile(&hostile_args),
        BenchCommand::Engine(engine_args) => run_engine(&engine_args),
        BenchCommand::Io(io_args) => run_io(&io_args),
        BenchCommand::Runtimes(args) => {
            versus::measure_runtimes(&args).map_err(|error| BenchError::Runtimes(error.to_string()))
        }
    }
}

fn run_engine(args: &engine::EngineArgs) -> Result<(), BenchError> {
    let settings = args.settings()?;
    let summary = engine::measure(&settings, &mut load::Progress::on_stderr())?;
    print!("{}", engine::describe(&summary));
    if let Some(path) = &args.json {
        write_json("--json", path, &summary)?;
    }
    if let Some(path) = &args.plot {
        write_result("--plot", path, &engine::draw(&summary))?;
    }
    match summary.wrong_values {
        0 => Ok(()),
        count => Err(BenchError::EngineWrongValues { count, first: summary.wrong_value_first }),
    }
}

fn run_io(args: &io::IoBenchArgs) -> Result<(), BenchError> {
    let summary = io::measure(&args.settings()?, &mut load::Progress::on_stderr())?;
    print!("{}", io::describe(&summary));
    args.json.as_ref().map_or(Ok(()), |path| write_json("--json", path, &summary))
}

fn run_hostile(args: &load::hostile::HostileArgs) -> Result<(), BenchError> {
    let summary = load::hostile::measure(args)?;
    print!("{}", load::hostile::render(&summary));
    args.json.as_ref().map_or(Ok(()), |path| write_json("--json", path, &summary))
}

fn write_json(
    option: &'static str,
    path: &Path,
    summary: &impl Serialize,
) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(summary).expect("a summary is plain data");
    write_result(option, path, &text)
}

fn write_result(option: &'static str, path: &Path, text: &str) -> Result<(), BenchError> {
    host::write_text(path, text).map_err(|source| BenchError::WriteFile {
        option,
        path: path.to_owned(),
        source,
    })
}

fn run_load(args: &RunArgs) -> Result<(), BenchError> {
    let settings = args.settings()?;
    let summary = load::measure(&settings, &mut load::Progress::on_stderr())?;
    print!("{}", load::render(&summary));
    if let Some(path) = &args.json {
        write_json("--json", path, &summary)?;
    }
    match summary.wrong_values {
        0 => Ok(()),
        count => Err(BenchError::WrongValues { count }),
    }
}
