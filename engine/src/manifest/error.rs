//! What can go wrong with the manifest and the superblock.

use std::io;
use std::path::{Path, PathBuf};

use super::edit::EditError;
use crate::error::is_full;

/// Why the manifest or the superblock could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The disk refused a request. A failed write or flush is never retried.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb.
        operation: &'static str,
        /// The disk's answer.
        source: io::Error,
    },
    /// There is no space, or no quota, for an edit. Nothing was written, and it may be tried again.
    #[error("there is no space for {}", path.display())]
    Full {
        /// The file that would have to grow.
        path: PathBuf,
    },
    /// A file does not hold what was once durably written to it.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The directory was written by a version of larder with another disk format.
    #[error("{} has disk format {found}; this version reads format {supported}", path.display())]
    WrongFormat {
        /// The superblock's file.
        path: PathBuf,
        /// The format of the directory.
        found: u32,
        /// The format that this version reads and writes.
        supported: u32,
    },
    /// The directory holds files, but no superblock.
    #[error("{} holds files but no SUPERBLOCK: not the directory of a shard", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier append failed or was abandoned; nothing is written until the shard is reopened.
    #[error("an earlier write to the manifest failed: it takes no more until it is reopened")]
    Poisoned,
    /// The edit contradicts the state.
    #[error(transparent)]
    Invalid(#[from] EditError),
}

impl ManifestError {
    /// Turns an I/O error of `operation` (a verb) on `path` into a [`ManifestError::Io`].
    pub(crate) fn io(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), operation, source }
    }

    /// Whether the disk had no space for what was asked of it.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}
