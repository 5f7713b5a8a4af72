//! A shard's directory looked at from outside: what is damaged in it, and what its bytes are for.
//!
//! Nothing here is part of a running shard, and but for [`repair`] nothing here opens a file for
//! writing. Whoever calls makes sure that no shard has the directory open.
//!
//! Memory is bounded: one table's index, filter and pointers, a window of each file that is read,
//! and the changes of the log since the last flush, which a start holds in memory as well.

pub mod decoders;
mod log;
mod newest;
mod patch;
mod pointers;
pub(crate) mod reader;
mod repair;
mod report;
pub(crate) mod segments;
mod space;
mod survey;
mod tables;
mod unflushed;

use std::io;
use std::path::{Path, PathBuf};

use larder_runtime::env::Env;

use crate::manifest::ManifestError;

pub use repair::{Repair, repair};
pub use report::{FileReport, Problem, Report};
pub use space::space;

/// Why a directory could not be looked at. Damage is no such reason: it is what is looked for.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory is empty: no shard was ever finished in it.
    #[error("{} holds no shard", path.display())]
    NoShard {
        /// The directory.
        path: PathBuf,
    },
    /// Superblock or manifest say that this is not a directory to look at.
    #[error(transparent)]
    Manifest(ManifestError),
    /// A file or the directory cannot be opened, read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file was written by a newer version.
    #[error("{0}")]
    Newer(String),
    /// The question can only be answered of a directory without damage.
    #[error("{0}; run `larder check` on the directory")]
    Damaged(String),
    /// The shard itself has set damaged blocks aside, with the keys that they have lost.
    #[error(
        "{0} keeps account of blocks that a merge could not read; a repair would forget which keys \
         are lost, so nothing was changed: delete or overwrite those keys, or restore the \
         directory from a backup"
    )]
    SetAside(String),
    /// The log since the last flush is damaged, and what is left of it cannot be kept.
    #[error("{}: what was not flushed cannot be written to tables: {reason}", path.display())]
    NotWrittenOut {
        /// The shard's directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is damaged tells what the rest means, so nothing of it can be dropped.
    #[error("{0}: restore the directory from a backup")]
    Unrepairable(String),
}

impl CheckError {
    fn io(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_path_buf(), source }
    }

    /// The errors of reading the manifest that are not damage.
    fn of_manifest(error: ManifestError) -> Self {
        match error {
            ManifestError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let path = path.parent().unwrap_or(&path).to_path_buf();
                Self::NoShard { path }
            }
            error => Self::Manifest(error),
        }
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress<'a> {
    /// The file that is looked at.
    pub file: &'a str,
    /// Bytes of files that are done.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Reads every file of the shard in `directory` and checks every checksum and every pointer.
///
/// # Errors
///
/// [`CheckError`] if the directory holds no shard, one of another version, or cannot be read.
pub async fn check<E: Env>(
    env: &E,
    directory: &Path,
    progress: &mut dyn FnMut(CheckProgress<'_>),
) -> Result<Report, CheckError> {
    Ok(survey::survey(env, directory, progress).await?.report)
}
