//! The directory that a run works on: a fresh one, or a store that is there.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use larder_perftune::disk::DISK_FILE;
use tempfile::TempDir;

use super::{EngineSettings, Warm};
use crate::error::BenchError;
use crate::host;

/// The file that the process holds which has the store open; part of the disk format.
const LOCK_FILE: &str = "LOCK";

/// What some file systems have in their root.
const LOST_AND_FOUND: &str = "lost+found";

/// The beginning and the digits of the shards' directories' names; part of the disk format.
const SHARD_PREFIX: &str = "shard-";
const SHARD_DIGITS: usize = 3;

/// A store's directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct StoreDirectory {
    pub(super) path: PathBuf,
    /// The shards' directories, which exist.
    pub(super) shards: Vec<PathBuf>,
    /// Whether there is a store already.
    pub(super) has_data: bool,
    _lock: File,
    /// Removes the directory, if it was made for this run.
    _temporary: Option<TempDir>,
}

impl StoreDirectory {
    /// Makes, or finds, and locks the directory that the settings ask for.
    ///
    /// # Errors
    /// A directory that is neither empty nor a store, one that another process uses, one whose
    /// number of shards is another, or one without data where the workload needs it.
    pub(super) fn prepare(settings: &EngineSettings) -> Result<Self, BenchError> {
        let (path, temporary) = match &settings.directory {
            Some(path) => (path.clone(), None),
            None => {
                let here = Path::new(".");
                let made = tempfile::Builder::new().prefix("larder-bench-").tempdir_in(here);
                let made =
                    made.map_err(|error| refused(here, format!("cannot be used: {error}")))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let failed = |what: &str| {
            let (path, what) = (path.clone(), what.to_owned());
            move |error| refused(&path, format!("cannot {what}: {error}"))
        };
        host::create_dir(&path).map_err(failed("be created"))?;
        // Looked at before anything is made in it: a folder with other things stays as it is.
        let there = look(&path)?;
        let lock = lock(&path)?;
        let has_data = there.has_data;
        let count = shard_count(&path, &there, settings.shards)?;
        if settings.warm == Some(Warm::Use) && !has_data {
            return Err(refused(&path, "has no data, which --warm use needs".to_owned()));
        }
        let shards: Vec<PathBuf> = (0..count).map(|shard| path.join(shard_name(shard))).collect();
        for shard in &shards {
            host::create_dir(shard).map_err(failed("be given shards"))?;
        }
        Ok(Self { path, shards, has_data, _lock: lock, _temporary: temporary })
    }
}

fn refused(path: &Path, reason: String) -> BenchError {
    BenchError::Directory { path: path.to_owned(), reason }
}

/// What a directory holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct There {
    shards: u16,
    has_data: bool,
}

fn look(path: &Path) -> Result<There, BenchError> {
    let list = |path: &Path| {
        host::list_names(path).map_err(|error| refused(path, format!("cannot be listed: {error}")))
    };
    let mut there = There::default();
    for name in list(path)? {
        if [LOCK_FILE, LOST_AND_FOUND, DISK_FILE].contains(&name.as_str()) {
            continue;
        }
        if name != shard_name(there.shards) {
            let reason = format!("is no store: there is `{name}` in it; give an empty folder");
            return Err(refused(path, reason));
        }
        there.has_data |= !list(&path.join(name))?.is_empty();
        there.shards += 1;
    }
    Ok(there)
}

fn lock(path: &Path) -> Result<File, BenchError> {
    let failed = |error| refused(path, format!("cannot be locked: {error}"));
    let file = host::open_or_create(&path.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(refused(path, "is in use by another larder; stop it first".to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn shard_name(shard: u16) -> String {
    format!("{SHARD_PREFIX}{shard:0SHARD_DIGITS$}")
}

/// How many shards the store has, or gets.
fn shard_count(path: &Path, there: &There, asked: Option<u16>) -> Result<u16, BenchError> {
    match asked {
        Some(asked) if there.has_data && asked != there.shards => {
            let reason = format!("has {} shards; leave --shards {asked} away", there.shards);
            Err(refused(path, reason))
        }
        _ if there.has_data => Ok(there.shards),
        asked => Ok(asked.unwrap_or(1).max(there.shards)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Workload;
    use super::*;

    fn settings(path: &Path, shards: Option<u16>) -> EngineSettings {
        let directory = Some(path.to_owned());
        EngineSettings { directory, shards, ..EngineSettings::for_workload(Workload::ReadRandom) }
    }

    fn text(result: Result<StoreDirectory, BenchError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn a_store_keeps_its_shards_and_is_used_by_one_process_at_a_time() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("new");
        let store = StoreDirectory::prepare(&settings(&path, Some(2))).expect("a new store");
        assert_eq!((store.shards.len(), store.has_data), (2, false));
        assert!(store.shards[1].ends_with("shard-001") && store.shards[1].is_dir());
        let error = text(StoreDirectory::prepare(&settings(&path, None)));
        assert!(error.contains("in use by another larder"), "{error}");
        drop(store);
        host::write_text(&path.join("shard-001/x"), "data").expect("a file");
        let store = StoreDirectory::prepare(&settings(&path, None)).expect("as it is");
        assert_eq!((store.shards.len(), store.has_data), (2, true));
        drop(store);
        let error = text(StoreDirectory::prepare(&settings(&path, Some(3))));
        assert!(error.contains("has 2 shards") && error.contains("--shards 3"), "{error}");
    }

    #[test]
    fn a_folder_that_is_no_store_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a directory");
        host::write_text(&folder.path().join("thesis.txt"), "mine").expect("a file");
        let error = text(StoreDirectory::prepare(&settings(folder.path(), None)));
        assert!(error.contains("--dir") && error.contains("thesis.txt"), "{error}");
        assert_eq!(host::list_names(folder.path()).expect("a list"), ["thesis.txt"]);
        let gap = tempfile::tempdir().expect("a directory");
        host::create_dir(&gap.path().join("shard-001")).expect("a directory");
        assert!(text(StoreDirectory::prepare(&settings(gap.path(), None))).contains("shard-001"));
    }

    #[test]
    fn data_that_is_not_there_cannot_be_used() {
        let folder = tempfile::tempdir().expect("a directory");
        let asks = EngineSettings { warm: Some(Warm::Use), ..settings(folder.path(), None) };
        let error = text(StoreDirectory::prepare(&asks));
        assert!(error.contains("has no data") && error.contains("--warm"), "{error}");
    }
}
