//! What is looked at before anything is started.

use std::path::Path;

use super::StartError;
use crate::config::{CpuList, Size};
use crate::limits::{DISK_FREE_MIN, SHARD_MEMORY_MIN};

/// The part of the memory that is not the shards': code, stacks, rings, connections, replies on
/// their way.
const SHARED_MEMORY_DIVISOR: u64 = 8;

/// The memory of each of `shards` shards.
pub(super) fn shard_memory(memory: Size, shards: u16) -> Result<u64, StartError> {
    let info = rustix::system::sysinfo();
    let physical = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    if memory.0 > physical {
        return Err(StartError::TooMuchMemory { asked: memory, physical: Size(physical) });
    }
    let each = (memory.0 - memory.0 / SHARED_MEMORY_DIVISOR) / u64::from(shards);
    if each < SHARD_MEMORY_MIN {
        let unit = SHARED_MEMORY_DIVISOR - 1;
        let needed = u64::from(shards) * SHARD_MEMORY_MIN * SHARED_MEMORY_DIVISOR / unit;
        let needed = Size(needed.next_multiple_of(1 << 20));
        return Err(StartError::TooLittleMemory { asked: memory, shards, needed });
    }
    Ok(each)
}

/// Refuses a directory on a disk that is full.
pub(super) fn check_free_space(path: &Path, shards: u16) -> Result<(), StartError> {
    let space = rustix::fs::statvfs(path).map_err(|source| StartError::DataDirectory {
        operation: "ask for the free space of",
        path: path.to_owned(),
        source: source.into(),
    })?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let needed = DISK_FREE_MIN.saturating_mul(u64::from(shards));
    if free < needed {
        let (free, needed) = (Size(free), Size(needed));
        return Err(StartError::DiskFull { path: path.to_owned(), free, needed });
    }
    Ok(())
}

/// The CPUs to run on, one for each core.
pub(super) fn choose_cpus(
    cpus: Option<&CpuList>,
    cores: Option<usize>,
) -> Result<Vec<usize>, StartError> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(|source| StartError::Cpus { source: source.into() })?;
    let allowed: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    choose_among(&allowed, cpus, cores)
}

fn choose_among(
    allowed: &[usize],
    cpus: Option<&CpuList>,
    cores: Option<usize>,
) -> Result<Vec<usize>, StartError> {
    let mut chosen = cpus.map_or_else(|| allowed.to_vec(), |list| list.0.clone());
    if let Some(cpu) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed = CpuList(allowed.to_vec());
        return Err(StartError::CpuNotAllowed { cpu: *cpu, allowed });
    }
    let cores = cores.unwrap_or(chosen.len());
    if cores > chosen.len() {
        return Err(StartError::TooManyCores { cores, cpus: CpuList(chosen) });
    }
    chosen.truncate(cores);
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_by_the_shards_and_errors_name_the_option() {
        assert_eq!(shard_memory(Size(256 << 20), 2).expect("enough"), 112 << 20);
        let little = shard_memory(Size(32 << 20), 4).expect_err("too little").to_string();
        assert!(little.contains("--memory 32M") && little.contains("74M"), "{little}");
        let much = shard_memory(Size(1 << 60), 1).expect_err("too much").to_string();
        assert!(much.contains("--memory") && much.contains("has only"), "{much}");
    }

    #[test]
    fn cpus_are_chosen_from_those_allowed() {
        let list = CpuList(vec![4, 2]);
        let choose = |cpus, cores| choose_among(&[1, 2, 4], cpus, cores);
        assert_eq!(choose(None, None).expect("all"), [1, 2, 4]);
        assert_eq!(choose(None, Some(2)).expect("two"), [1, 2]);
        assert_eq!(choose(Some(&list), None).expect("those"), [4, 2]);
        let other = CpuList(vec![3]);
        let error = choose(Some(&other), None).expect_err("not allowed").to_string();
        assert!(error.contains("CPU 3") && error.contains("1,2,4"), "{error}");
        let error = choose(Some(&list), Some(3)).expect_err("too many").to_string();
        assert!(error.contains("--cores 3") && error.contains("4,2"), "{error}");
    }

    #[test]
    fn a_disk_without_room_is_refused() {
        check_free_space(Path::new("/"), 0).expect("nothing needed");
        let error = check_free_space(Path::new("/"), u16::MAX);
        if let Err(error) = error {
            assert!(error.to_string().contains("--data-dir"), "{error}");
        }
        assert!(check_free_space(Path::new("/no/such/directory"), 1).is_err());
    }
}
