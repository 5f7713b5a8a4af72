//! What can go wrong in a shard, grouped by what the caller should do about it.

use std::io;
use std::path::Path;

use crate::index::table::TableError;
use crate::manifest::ManifestError;

/// An error of one operation or of the whole shard.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The stored bytes of this key are damaged. Other keys are not affected.
    #[error("the stored data of {key} is damaged: {reason}")]
    Damaged {
        /// The key, printable.
        key: String,
        /// What is wrong and where.
        reason: String,
    },
    /// The disk or the shard's share of it is full: writes are refused, reads and deletes go on.
    #[error("the disk is full: writes are refused until space is freed")]
    Full,
    /// A write or flush failed, which is final: the shard takes no more writes.
    #[error("the shard has stopped taking writes: {0}")]
    Stopped(String),
    /// A read failed.
    #[error("reading failed: {0}")]
    Read(String),
    /// The directory cannot be opened.
    #[error("{0}")]
    Open(String),
}

impl EngineError {
    /// An error of an operation on a file, with the path in its text.
    pub fn io(path: &Path, operation: &str, source: &io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::Full;
        }
        Self::Stopped(format!("{operation} {}: {source}", path.display()))
    }
}

impl From<TableError> for EngineError {
    fn from(error: TableError) -> Self {
        match &error {
            TableError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::Full
            }
            TableError::Io { operation, .. } if *operation != "read" => {
                Self::Stopped(error.to_string())
            }
            _ => Self::Read(error.to_string()),
        }
    }
}

impl From<ManifestError> for EngineError {
    fn from(error: ManifestError) -> Self {
        Self::Stopped(error.to_string())
    }
}
