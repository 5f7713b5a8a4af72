//! The load generator and the comparison benchmarks.
//!
//! [`run`] is `larder bench`: a closed-loop load generator for any server that speaks memcached's
//! text or meta protocol. [`versus`] is the program `larder-versus`, which starts the node and
//! memcached itself, drives both with the same load generator and compares their figures.
//!
//! The load generator decides in plain code ([`load`]'s encoder, reply parser, exchange and
//! distributions take bytes and numbers); one module carries it out on sockets, and one module
//! ([`host`]) touches clocks, files and threads.
#![forbid(unsafe_code)]

mod arguments;
mod error;
mod host;
pub mod load;
mod process;
pub mod versus;

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
    }
}

fn run_load(args: &RunArgs) -> Result<(), BenchError> {
    let settings = args.settings()?;
    let summary = load::measure(&settings, &mut load::Progress::on_stderr())?;
    print!("{}", load::render(&summary));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        host::write_text(path, &text)
            .map_err(|source| BenchError::WriteFile { path: path.clone(), source })?;
    }
    match summary.wrong_values {
        0 => Ok(()),
        count => Err(BenchError::WrongValues { count }),
    }
}
