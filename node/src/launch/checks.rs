//! What is looked at before anything is started.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::StatVfs;

use super::StartError;
use crate::config::{Config, Size};
use crate::memcached::gate::Gate;
use crate::memory_plan::{MemoryNeeds, MemoryPlan};

/// That the runtime can do what is asked.
#[cfg(feature = "runtime-glommio")]
pub(super) fn check_runtime(config: &Config) -> Result<(), StartError> {
    use crate::config::RuntimeKind;
    let is_shared = config.runtime == RuntimeKind::Glommio && config.unix_socket.is_some();
    if is_shared { Err(StartError::UnixSocketOnGlommio) } else { Ok(()) }
}

/// Who may use the memcached port.
pub(super) fn gate(auth_file: Option<&Path>) -> Result<Option<Arc<Gate>>, StartError> {
    let Some(path) = auth_file else { return Ok(None) };
    let gate = Gate::read(path)
        .map_err(|reason| StartError::AuthFile { path: path.to_owned(), reason })?;
    tracing::info!("the memcached port asks for a password; the native and the admin port do not");
    Ok(Some(Arc::new(gate)))
}

/// The configuration with as much memory as is needed, if it says that this may be changed.
pub(super) fn with_memory(config: &Config, needs: MemoryNeeds) -> Cow<'_, Config> {
    let least = Size(MemoryPlan::least(needs) as u64);
    if !config.raise_memory || config.memory >= least {
        return Cow::Borrowed(config);
    }
    let asked = config.memory;
    tracing::warn!("{asked} of memory are too little; it may take {least}");
    Cow::Owned(Config { memory: least, ..config.clone() })
}

/// How the memory is divided.
pub(super) fn plan_memory(memory: Size, needs: MemoryNeeds) -> Result<MemoryPlan, StartError> {
    let info = rustix::system::sysinfo();
    let physical = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    if memory.0 > physical {
        return Err(StartError::TooMuchMemory { asked: memory, physical: Size(physical) });
    }
    let bytes = usize::try_from(memory.0).unwrap_or(usize::MAX);
    MemoryPlan::new(bytes, needs).ok_or_else(|| StartError::TooLittleMemory {
        asked: memory,
        needs,
        item: Size(needs.item_bytes as u64),
        needed: Size(MemoryPlan::least(needs) as u64),
    })
}

/// How many bytes the data may take at most: those of the file system, or of `limit`.
pub(super) fn disk_bytes(path: &Path, limit: Option<Size>) -> Result<u64, StartError> {
    let space = space_of(path)?;
    let bytes = space.f_blocks.saturating_mul(space.f_frsize);
    Ok(limit.map_or(bytes, |limit| limit.0.min(bytes)))
}

fn space_of(path: &Path) -> Result<StatVfs, StartError> {
    rustix::fs::statvfs(path).map_err(|source| StartError::DataDirectory {
        operation: "ask for the space of",
        path: path.to_owned(),
        source: source.into(),
    })
}

/// Refuses new shards for which there is no space, each of which needs `needed` bytes, and a
/// directory that has outgrown its limit. Shards that are there start with whatever there is.
pub(super) fn check_space(
    path: &Path,
    shards: &[PathBuf],
    limit: Option<Size>,
    needed: u64,
) -> Result<(), StartError> {
    let mut taken = 0;
    let mut missing = 0;
    for shard in shards {
        match bytes_of(shard) {
            Some(bytes) => taken += bytes,
            None => missing += 1,
        }
    }
    let needed = Size(needed.saturating_mul(missing));
    if let Some(limit) = limit {
        if taken > limit.0 {
            return Err(StartError::DiskLimit { limit, taken: Size(taken) });
        }
        if limit.0 - taken < needed.0 {
            let needed = Size(taken.saturating_add(needed.0));
            return Err(StartError::LowDiskLimit { limit, shards: missing, needed });
        }
    }
    let space = space_of(path)?;
    let free = Size(space.f_bavail.saturating_mul(space.f_frsize));
    if free.0 < needed.0 {
        let path = path.to_owned();
        return Err(StartError::DiskFull { path, free, shards: missing, needed });
    }
    Ok(())
}

/// Bytes of the files of a shard that is there; `None` if it is not.
#[allow(clippy::disallowed_methods, reason = "the launcher has no core to ask")]
fn bytes_of(shard: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(shard).ok()?;
    let files: Vec<_> = entries.filter_map(Result::ok).collect();
    if files.is_empty() {
        return None;
    }
    Some(files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_work_is_refused_with_the_option_and_the_figure() {
        let needs = MemoryNeeds { cores: 2, shards: 4, connections: 1000, item_bytes: 1 << 20 };
        let least = Size(MemoryPlan::least(needs) as u64);
        plan_memory(least, needs).expect("enough");
        let little =
            plan_memory(Size(least.0 - (1 << 20)), needs).expect_err("too little").to_string();
        let figures =
            [&format!("give at least {least}"), "4 shards", "2 cores", "1000 connections", "1M"];
        let has = |part: &&str| little.contains(*part);
        assert!(little.contains("--memory") && figures.iter().all(has), "{little}");
        let much = plan_memory(Size(1 << 60), needs).expect_err("too much").to_string();
        assert!(much.contains("--memory") && much.contains("has only"), "{much}");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test brings a shard's directory")]
    fn shards_that_are_there_need_no_space_and_new_ones_are_told_how_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let shards = [0, 1].map(|shard| directory.path().join(format!("shard-00{shard}")));
        for shard in &shards {
            std::fs::create_dir(shard).expect("a directory");
        }
        let check = |limit: Option<u64>, needed| {
            check_space(directory.path(), &shards, limit.map(Size), needed)
        };
        check(None, 4096).expect("there is so much");
        let error = check(None, 1 << 60).expect_err("there is not").to_string();
        let path = directory.path().display().to_string();
        let parts = [path.as_str(), "2 new shards", &Size(2 << 60).to_string(), "--data-dir"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        let error = check(Some(10 << 20), 6 << 20).expect_err("too low").to_string();
        assert!(error.contains("--disk-limit 10M") && error.contains("at least 12M"), "{error}");
        check(Some(12 << 20), 6 << 20).expect("as much as is needed");
        for shard in &shards {
            std::fs::write(shard.join("x"), [0; 4096]).expect("a file");
        }
        check(Some(8192), 1 << 60).expect("nothing is new");
        assert!(check_space(Path::new("/no/such/directory"), &[], None, 1).is_err());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the fixture is made with the standard library")]
    fn a_limit_that_the_data_exceeds_is_named_with_both_figures() {
        let folder = tempfile::tempdir().expect("a folder");
        let shard = folder.path().join("shard-000");
        let shards = [shard.clone(), folder.path().join("shard-001")];
        check_space(folder.path(), &[], Some(Size(0)), 1 << 20).expect("nothing is there");
        std::fs::create_dir(&shard).expect("made");
        std::fs::write(shard.join("segment"), [0; 3 << 10]).expect("written");
        let error = check_space(folder.path(), &shards, Some(Size(2 << 10)), 1).expect_err("more");
        let text = error.to_string();
        assert!(["--disk-limit", "2K", "3K"].iter().all(|part| text.contains(part)), "{text}");
    }
}
