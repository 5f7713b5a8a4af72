//! What can go wrong with a comparison.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::BenchError;

/// Why a figure, or the whole comparison, could not be had.
#[derive(Debug, Error)]
pub enum VersusError {
    /// An option's value cannot be used.
    #[error("{option}: {reason}")]
    Option {
        /// The option to change.
        option: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A program could not be started at all.
    #[error("cannot start {program} ({option}): {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The option that names it, or the package that it is part of.
        option: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A server did not get ready, or a run against it did not give a figure.
    #[error("{server}: {reason}{}", log_suffix(log))]
    Server {
        /// The server.
        server: &'static str,
        /// What happened.
        reason: String,
        /// The end of what the server wrote to stderr.
        log: String,
    },
    /// The load generator failed.
    #[error(transparent)]
    Load(#[from] BenchError),
    /// fio failed, or its answer was not understood.
    #[error("fio: {0}")]
    Fio(String),
    /// The temporary directory or a file of results could not be written.
    #[error("{option} {}: {source}", path.display())]
    File {
        /// The option that names the place.
        option: &'static str,
        /// The place.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Some sections gave no figures; the others are in the table.
    #[error("sections without a result: {}", .0.join(", "))]
    Sections(Vec<&'static str>),
}

fn log_suffix(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; its last words:\n{log}") }
}
