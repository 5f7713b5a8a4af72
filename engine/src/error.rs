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
    /// The namespace is not among those that the shard takes changes of.
    #[error("there is no namespace {0}: it was dropped")]
    NoNamespace(u32),
    /// The namespace has all the space of the disk that it may have: its writes are refused, reads
    /// and deletes go on.
    #[error("namespace {0} has used up its quota")]
    OverQuota(u32),
    /// The record has as much as a record of its namespace may have: writes to it that add are
    /// refused until something is deleted.
    #[error("the record has all that a record of namespace {0} may have")]
    RecordFull(u32),
    /// Others change the record all the time, so that it cannot be counted whether there is room.
    #[error(
        "a record of namespace {0} changes too fast to be counted before it is added to: try again"
    )]
    RecordChanging(u32),
    /// There is no such lease, or it has ended: by itself, by its time, or because space was short.
    #[error("the lease has ended: begin another one, and what was read under this one anew")]
    LeaseEnded,
    /// As many leases are held as a shard gives, or the memtable is not written out in time.
    #[error("no further lease is given now: end one, or try again")]
    TooManyLeases,
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
        if is_full(source) {
            return Self::Full;
        }
        Self::Stopped(format!("{operation} {}: {source}", path.display()))
    }
}

/// Whether the file system, or the quota on it, is used up. Both pass when files are removed.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<TableError> for EngineError {
    fn from(error: TableError) -> Self {
        match &error {
            TableError::Io { source, .. } if is_full(source) => Self::Full,
            TableError::Io { operation, .. } if *operation != "read" => {
                Self::Stopped(error.to_string())
            }
            _ => Self::Read(error.to_string()),
        }
    }
}

impl From<ManifestError> for EngineError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Full { .. } => Self::Full,
            error => Self::Stopped(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_used_up_quota_are_the_same() {
        let path = Path::new("/shard/table");
        for (kind, is_full) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::Other, false),
        ] {
            let error = EngineError::io(path, "write", &kind.into());
            assert_eq!(matches!(error, EngineError::Full), is_full, "{error}");
            let (path, operation) = (path.to_path_buf(), "write");
            let error = EngineError::from(TableError::Io { path, operation, source: kind.into() });
            assert_eq!(matches!(error, EngineError::Full), is_full, "{error}");
        }
    }
}
