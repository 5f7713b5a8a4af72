//! Whether the file system of the data directory can do what the node asks of it, tried on the
//! directory's lock file, which is the node's own and empty.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::StartError;

/// What is reserved to try it, in bytes.
const TRIED_BYTES: u64 = 4096;

/// What the node needs that the file system lacks, or cannot give now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is mounted read-only.
    Writes,
    /// It cannot reserve space.
    Reservation,
    /// The quota of this user, group or project is used up.
    Quota,
    /// It is full.
    Space,
}

impl Lack {
    /// What an error that the file system answered says of it.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::Writes),
            io::ErrorKind::QuotaExceeded => Some(Self::Quota),
            io::ErrorKind::StorageFull => Some(Self::Space),
            _ => None,
        }
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Writes => "is read-only; mount it for writing (`mount -o remount,rw`)",
            Self::Reservation => {
                "cannot reserve space for files (fallocate), so writes that were promised room \
                 could fail; use ext4 or XFS"
            }
            Self::Quota => "has a quota that is used up; raise it (`setquota`, `xfs_quota`)",
            Self::Space => "is full; free some space",
        })
    }
}

/// Tries to reserve space, and direct I/O, without which the node runs but costs memory. Where
/// `has_data`, the shards find out themselves whether there is space enough for them.
pub(super) fn check(
    path: &Path,
    lock: &File,
    lock_path: &Path,
    has_data: bool,
) -> Result<(), StartError> {
    let reserved = rustix::fs::fallocate(lock, FallocateFlags::empty(), 0, TRIED_BYTES);
    if let Err(error) = reserved {
        let error = io::Error::from(error);
        let lack = match error.kind() {
            io::ErrorKind::Unsupported => Some(Lack::Reservation),
            _ => Lack::of(&error),
        };
        let is_full = matches!(lack, Some(Lack::Space | Lack::Quota));
        if !(is_full && has_data) {
            return Err(refused("reserve space in", path, lack, error));
        }
    }
    let emptied = rustix::fs::ftruncate(lock, 0).map_err(io::Error::from);
    emptied.map_err(|error| refused("truncate a file in", path, Lack::of(&error), error))?;
    let direct = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(lock_path, direct, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(Errno::INVAL) => {
            tracing::warn!(
                "the file system of {} has no direct I/O (O_DIRECT): the node works through the \
                 page cache, which takes memory beyond --memory and makes reads and writes slower; \
                 use ext4 or XFS",
                path.display()
            );
            Ok(())
        }
        Err(error) => Err(refused("open a file in", path, None, error.into())),
    }
}

/// The error of an operation on the data directory, by what it says of the file system.
pub(super) fn refused(
    operation: &'static str,
    path: &Path,
    lack: Option<Lack>,
    source: io::Error,
) -> StartError {
    let path = path.to_owned();
    match lack {
        Some(lack) => StartError::FileSystem { operation, path, lack, source },
        None => StartError::DataDirectory { operation, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_is_named_with_what_to_do() {
        for (error, part) in [
            (Errno::ROFS, "read-only; mount it for writing"),
            (Errno::DQUOT, "quota"),
            (Errno::NOSPC, "full"),
        ] {
            let error = io::Error::from(error);
            let error = refused("create", Path::new("/data"), Lack::of(&error), error).to_string();
            assert!(error.starts_with("cannot create the data directory /data"), "{error}");
            assert!(error.contains(part) && error.contains("--data-dir"), "{error}");
        }
        let plain = io::Error::from(Errno::IO);
        let plain = refused("list", Path::new("/data"), Lack::of(&plain), plain).to_string();
        assert!(!plain.contains("file system"), "{plain}");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test brings a lock file")]
    fn a_file_system_that_can_reserve_passes_and_one_that_cannot_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("LOCK");
        let lock = File::create(&path).expect("a file");
        check(directory.path(), &lock, &path, false).expect("it can");
        assert_eq!(lock.metadata().expect("it is open").len(), 0, "nothing is left");
        // /dev/null has no space to reserve, as some file systems.
        let null = File::options().write(true).open("/dev/null").expect("it is there");
        let reserved = rustix::fs::fallocate(&null, FallocateFlags::empty(), 0, TRIED_BYTES);
        assert!(reserved.is_err());
        let error = check(directory.path(), &null, &path, true).expect_err("it cannot");
        let error = error.to_string();
        assert!(error.contains("reserve space"), "{error}");
    }
}
