//! The data directory: one node at a time, and nothing in it that is not ours.

#![allow(
    clippy::disallowed_methods,
    reason = "the directory is prepared once, before there is any core"
)]

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use larder_perftune::disk::DISK_FILE;
use larder_perftune::iotune::{forget_interrupted, is_interrupted};

use super::StartError;
use super::file_system::{self, Lack, refused};
use super::patience::Patience;

const LOCK_FILE: &str = "LOCK";
/// What `mkfs` leaves in the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";
const SHARD_PREFIX: &str = "shard-";
const SHARD_DIGITS: usize = 3;

/// A data directory that this process holds.
#[derive(Debug)]
pub(super) struct DataDirectory {
    /// Keeps other processes out until it is dropped.
    pub lock: File,
    /// The shards' directories.
    pub shards: Vec<PathBuf>,
    /// Whether no shard has anything yet.
    pub is_new: bool,
}

/// The shards' directories that are there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    shards: Vec<u16>,
    has_data: bool,
}

/// Locks `path`, creating it if it is missing. The lock of a process that was killed is waited for:
/// it is held until the kernel has ended its last disk operation. A new directory gets `requested`
/// shards, or
/// `default`; one with data has what it has, and must not be asked for another number.
pub(super) fn prepare(
    path: &Path,
    requested: Option<u16>,
    default: u16,
    patience: &mut Patience<'_>,
) -> Result<DataDirectory, StartError> {
    let failed = |operation| move |source| refused(operation, path, Lack::of(&source), source);
    std::fs::create_dir_all(path).map_err(failed("create"))?;
    let may_pass = |error: &StartError| matches!(error, StartError::InUse { .. });
    let lock = patience.retry(may_pass, || lock(path))?;
    forget_interrupted(path).map_err(failed("clear"))?;
    let found = look(path)?;
    file_system::check(path, &lock, &path.join(LOCK_FILE), found.has_data)?;
    let count = count(path, &found, requested, default)?;
    let shards: Vec<PathBuf> = (0..count).map(|shard| path.join(shard_name(shard))).collect();
    for shard in &shards {
        std::fs::create_dir_all(shard).map_err(failed("create the shards of"))?;
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync"))?;
    Ok(DataDirectory { lock, shards, is_new: !found.has_data })
}

fn lock(path: &Path) -> Result<File, StartError> {
    let file = path.join(LOCK_FILE);
    let failed = |source| refused("lock", path, Lack::of(&source), source);
    let mut options = File::options();
    let lock = options.create(true).truncate(false).write(true).open(&file).map_err(failed)?;
    take(&lock, path)?;
    Ok(lock)
}

/// Locks `lock`, the lock file of `path`.
fn take(lock: &File, path: &Path) -> Result<(), StartError> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(source)) => Err(refused("lock", path, Lack::of(&source), source)),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: path.to_owned() }),
    }
}

/// A data directory that no node can start on.
#[derive(Debug)]
pub(crate) struct ExistingDirectory {
    pub path: PathBuf,
    /// The directories of its shards, in order.
    pub shards: Vec<PathBuf>,
    /// Keeps nodes out until it is dropped. A directory without the file was never started on, or
    /// copied.
    #[allow(dead_code, reason = "held for what its drop does")]
    lock: Option<File>,
}

/// Locks the data directory at `path` without creating or changing anything.
pub(crate) fn hold(path: &Path) -> Result<ExistingDirectory, StartError> {
    let shards = look(path)?.shards.into_iter().map(|shard| path.join(shard_name(shard))).collect();
    let lock = match File::open(path.join(LOCK_FILE)) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(refused("lock", path, Lack::of(&source), source));
        }
    };
    if let Some(lock) = &lock {
        take(lock, path)?;
    }
    Ok(ExistingDirectory { path: path.to_owned(), shards, lock })
}

fn shard_name(shard: u16) -> String {
    format!("{SHARD_PREFIX}{shard:0SHARD_DIGITS$}")
}

fn shard_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix(SHARD_PREFIX)?;
    let is_number = digits.len() == SHARD_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

fn look(path: &Path) -> Result<Found, StartError> {
    let failed =
        |source| StartError::DataDirectory { operation: "list", path: path.to_owned(), source };
    let mut found = Found::default();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_known = [LOCK_FILE, LOST_AND_FOUND, DISK_FILE].contains(&name.as_str());
        if is_known || is_interrupted(&name) {
            continue;
        }
        let Some(shard) = shard_number(&name) else {
            return Err(StartError::Foreign { path: entry.path() });
        };
        found.shards.push(shard);
        found.has_data |= std::fs::read_dir(entry.path()).map_err(failed)?.next().is_some();
    }
    found.shards.sort_unstable();
    Ok(found)
}

/// How many shards the directory has, or gets.
fn count(
    path: &Path,
    found: &Found,
    requested: Option<u16>,
    default: u16,
) -> Result<u16, StartError> {
    let there = found.shards.len() as u16;
    for (expected, shard) in found.shards.iter().enumerate() {
        if usize::from(*shard) != expected {
            let missing = path.join(shard_name(expected as u16));
            return Err(StartError::ShardMissing { path: missing });
        }
    }
    if !found.has_data {
        // A start that was interrupted may have left some of the directories.
        return Ok(requested.unwrap_or(default).max(there));
    }
    match requested {
        Some(requested) if requested != there => {
            Err(StartError::ShardCount { path: path.to_owned(), there, requested })
        }
        _ => Ok(there),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn prepare(
        path: &Path,
        requested: Option<u16>,
        default: u16,
    ) -> Result<DataDirectory, StartError> {
        let (_events, queue) = std::sync::mpsc::channel();
        super::prepare(path, requested, default, &mut Patience::new(&queue, Duration::ZERO))
    }

    fn text<T: std::fmt::Debug>(result: Result<T, StartError>) -> String {
        result.expect_err("an error").to_string()
    }

    #[test]
    fn the_shards_of_a_directory_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let prepared = prepare(&path, None, 3).expect("a new directory");
        assert_eq!((prepared.shards.len(), prepared.is_new), (3, true));
        assert!(prepared.shards[2].ends_with("shard-002") && prepared.shards[2].is_dir());
        std::fs::write(path.join("shard-001/x"), "data").expect("a file");
        drop(prepared);
        let again = prepare(&path, Some(3), 1).expect("as it is");
        assert_eq!((again.shards.len(), again.is_new), (3, false));
        drop(again);
        assert_eq!(prepare(&path, None, 7).expect("as it is").shards.len(), 3);
        let error = text(prepare(&path, Some(4), 1));
        assert!(error.contains("has 3 shards") && error.contains("--shards 4"), "{error}");
        std::fs::remove_dir(path.join("shard-000")).expect("a shard");
        assert!(text(prepare(&path, None, 1)).contains("shard-000"));
    }

    #[test]
    fn a_start_that_was_interrupted_can_be_repeated() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("shard-000")).expect("a directory");
        assert_eq!(prepare(directory.path(), Some(2), 1).expect("new").shards.len(), 2);
    }

    #[test]
    fn foreign_files_and_a_second_process_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join(LOST_AND_FOUND)).expect("a directory");
        // Figures may be there first, and a measurement may have been cut off.
        std::fs::write(directory.path().join(DISK_FILE), "x").expect("a file");
        std::fs::write(directory.path().join("larder-iotune-1.tmp"), "").expect("a file");
        let held = prepare(directory.path(), None, 1).expect("a directory");
        let error = text(prepare(directory.path(), None, 1));
        assert!(error.contains("another larder") && error.contains("--data-dir"), "{error}");
        drop(held);
        std::fs::write(directory.path().join("notes.txt"), "x").expect("a file");
        assert!(text(prepare(directory.path(), None, 1)).contains("notes.txt"));
    }

    #[test]
    fn shard_names_are_read_and_written() {
        assert_eq!(shard_name(7), "shard-007");
        assert_eq!(shard_number("shard-999"), Some(999));
        for name in ["shard-7", "shard-0007", "shard-00a", "shard-+07", "other"] {
            assert_eq!(shard_number(name), None, "{name}");
        }
    }
}
