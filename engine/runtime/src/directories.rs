//! What is asked of directories at once, without the ring: it happens at starts and in tests, and
//! once a second for the space that is left.

use std::io;
use std::path::Path;

use crate::env::DirectoryEntry;
use crate::ring_file::{describe, kernel_path};

/// The entries of a directory, sorted by name.
#[allow(clippy::disallowed_methods, reason = "this is what the ban refers to")]
pub(crate) fn list(directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
    let entry = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let is_directory = metadata.is_dir();
        let len = if is_directory { 0 } else { metadata.len() };
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok(DirectoryEntry { name, len, is_directory })
    };
    let read = || std::fs::read_dir(directory)?.map(entry).collect::<io::Result<Vec<_>>>();
    let mut entries = read().map_err(|error| describe("list", directory, error))?;
    entries.sort();
    Ok(entries)
}

/// Creates a directory and its missing parents; succeeds if it exists.
#[allow(clippy::disallowed_methods, reason = "this is what the ban refers to")]
pub(crate) fn create(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)
        .map_err(|error| describe("create directory", directory, error))
}

/// Bytes that files under `directory` may still grow by before the file system is full.
pub(crate) fn free_space(directory: &Path) -> io::Result<u64> {
    let failed = |error| describe("statvfs", directory, error);
    let path = kernel_path(directory).map_err(failed)?;
    // SAFETY: all-zero bytes are a valid `statvfs`.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and `space` is valid for writing.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut space) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
