//! Why a disk is not measured.

use std::io;
use std::path::PathBuf;

use larder_runtime::probe::StartError;

use crate::error::TuneError;

/// Why there are no figures, or why they were not written. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum IotuneError {
    /// A directory on which nothing can be measured.
    #[error("--dir {path}: {message}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A result that cannot be written where it is asked for.
    #[error("{option} {path}: {message}", path = path.display())]
    Result {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The machine makes no sense.
    #[error(transparent)]
    Machine(#[from] TuneError),
    /// There can be no ring.
    #[error(transparent)]
    Ring(#[from] StartError),
    /// A load that could not be carried out.
    #[error("the disk could not be measured: {0}")]
    Load(String),
    /// Figures that are not believed.
    #[error(
        "these figures are implausible, so nothing is written; measure again while nothing else \
         uses the disk:{}",
        reasons.iter().map(|reason| format!("\n  {reason}")).collect::<String>()
    )]
    Implausible {
        /// Which, and why.
        reasons: Vec<String>,
    },
    /// The figures cannot be printed.
    #[error("cannot write the result: {0}")]
    Print(#[from] io::Error),
}
