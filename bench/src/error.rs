//! What can go wrong with a load run, in the words of the person who started it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a load run did not give a result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The comparison of the runtimes gave no figures.
    #[error("{0}")]
    Runtimes(String),
    /// An option's value cannot be used, alone or together with another.
    #[error("{option}: {reason}")]
    Option {
        /// The option to change, as it is written on the command line.
        option: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The target's host name has no address.
    #[error(
        "--target: {host} has no address; write it as memcached://HOST:PORT or native://HOST:PORT"
    )]
    NoAddress {
        /// The host and port as given.
        host: String,
    },
    /// A connection could not be made.
    #[error(
        "--target: connection {index} to {address} failed: {source}; is the server running, and \
         does it (and `ulimit -n`) allow --connections {connections}?"
    )]
    Connect {
        /// The server's address.
        address: String,
        /// Which connection, counted from one.
        index: usize,
        /// How many were wanted.
        connections: usize,
        /// The cause.
        source: io::Error,
    },
    /// No connection is left, so the run has no more to measure.
    #[error("the server at {address} dropped all {connections} connections; the first: {first}")]
    AllConnectionsLost {
        /// The server's address.
        address: String,
        /// How many there were.
        connections: usize,
        /// What happened to the first one.
        first: String,
    },
    /// The kernel refused something that the load generator itself needs.
    #[error("{action}: {source}")]
    System {
        /// What was attempted, with the option that leads to it if there is one.
        action: String,
        /// The cause.
        source: io::Error,
    },
    /// The process whose CPU time was wanted cannot be read.
    #[error("--server-pid {pid}: {reason}; give the id of a process that runs on this machine")]
    ServerProcess {
        /// The process id as given.
        pid: u32,
        /// What is wrong.
        reason: String,
    },
    /// A result file could not be written.
    #[error("{option} {}: {source}", path.display())]
    WriteFile {
        /// The option that asks for the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The server answered with values that were never stored.
    #[error(
        "{count} wrong values: the server answered with other bytes than were stored. If the keys \
         were loaded with another --value-size, load them again with --fill=true"
    )]
    WrongValues {
        /// How many answers were wrong.
        count: u64,
    },
    /// The store's directory cannot be used.
    #[error("--dir {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The engine failed, or one of its threads could not be started.
    #[error("the engine failed: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// A disk could not be loaded, or one of the threads could not be started.
    #[error("the disk was not measured: {reason}")]
    Disk {
        /// What is wrong.
        reason: String,
    },
    /// The engine gave back what was not stored, or lost what was.
    #[error("{count} wrong values; the first: {first}")]
    EngineWrongValues {
        /// How many.
        count: u64,
        /// What the first one was.
        first: String,
    },
}

impl BenchError {
    /// An unusable option.
    pub(crate) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Option { option, reason: reason.into() }
    }
}
