//! The one place where this crate touches clocks, files, threads and processor affinity.
//!
//! The load generator is a client: it measures real time against a real server, so nothing here
//! comes in through `Env`.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator lives outside the node: its clock, threads and files are its own"
)]

use std::fs::{DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The largest processor number that a thread can be pinned to.
pub(crate) const CPU_MAX: usize = CpuSet::MAX_CPU - 1;

/// The unit in which a file's blocks are counted, whatever the file system's own block is.
const BLOCK_BYTES: u64 = 512;

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, UTC; zero when the machine's clock stands before that.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// The processor time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// The processor time that all threads of this process have used.
pub(crate) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Waits for `duration`.
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Starts a named thread inside `scope`.
pub(crate) fn start_thread<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: String,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().name(name).spawn_scoped(scope, body)
}

/// Starts a thread that nobody waits for; it must end by itself.
pub(crate) fn start_detached(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}

/// Keeps the calling thread on one processor; the number must be at most [`CPU_MAX`].
pub(crate) fn pin_thread(cpu: usize) -> io::Result<()> {
    pin_thread_to(&[cpu])
}

/// Keeps the calling thread, and those that it starts, on these processors; each number must be at
/// most [`CPU_MAX`].
pub(crate) fn pin_thread_to(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Sets how nice the calling thread and those that it starts are to others, from -20 to 19; less
/// than before takes a right to it.
pub(crate) fn set_niceness(nice: i32) -> io::Result<()> {
    Ok(setpriority_process(None, nice)?)
}

/// Raises the soft limit of open files to the hard one; child processes inherit it.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// A whole text file.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// Writes a whole text file, replacing what was there.
pub(crate) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}

/// Creates a directory and its parents.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// The names in a directory, sorted.
pub(crate) fn list_names(path: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names = std::fs::read_dir(path)?.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Bytes of the blocks that the files in a directory and those below it have on disk. A file that
/// is
/// removed meanwhile counts or not.
pub(crate) fn allocated_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        bytes += metadata.blocks() * BLOCK_BYTES;
        if metadata.is_dir() {
            bytes += allocated_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Opens a file for writing, creating it if it is missing.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// Creates a file, or empties the one that is there.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    File::create(path)
}
