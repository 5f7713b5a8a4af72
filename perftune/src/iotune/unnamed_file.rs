//! The file that loads are put on: it has no name, so that nothing is left of it however the
//! program ends.

use std::io;
use std::path::Path;

use indicatif::ProgressBar;
use larder_runtime::buffer::Buffer;
use larder_runtime::core_env::CoreEnv;
use larder_runtime::env::{Env, File, IoClass, OpenMode};
use larder_runtime::ring_env::RingEnv;

use super::error::IotuneError;

/// A file on the ring.
pub(super) type RingFile = <RingEnv as Env>::File;

/// The length of the writes that fill the file, in bytes; its size is a multiple of it.
const FILL_BYTES: usize = 1 << 20;

/// The name that the file has for a moment: this, the number of the process, that of the core, and
/// the suffix.
pub(super) const UNNAMED_PREFIX: &str = "larder-iotune-";
pub(super) const UNNAMED_SUFFIX: &str = ".tmp";

/// A file for loads of one core.
#[derive(Clone)]
pub struct UnnamedFile {
    file: RingFile,
    bytes: u64,
}

impl UnnamedFile {
    /// Makes the file for core number `core`, takes its name away, and reserves `bytes` for it: a
    /// whole number of MiB.
    ///
    /// # Errors
    /// If there can be no such file: no right to make it, no direct I/O, too little space. Nothing
    /// is left of it.
    pub async fn make(
        env: &RingEnv,
        directory: &Path,
        core: usize,
        bytes: u64,
    ) -> Result<Self, IotuneError> {
        let name = format!("{UNNAMED_PREFIX}{}-{core}{UNNAMED_SUFFIX}", std::process::id());
        let path = directory.join(name);
        let cannot = |error: io::Error| {
            refused(directory, &format!("no file can be made there to measure on: {error}"))
        };
        let opened = env.open(&path, OpenMode::CreateNew).await;
        let is_of_another = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        if opened.as_ref().is_err_and(is_of_another) {
            return opened.map(|file| Self { file, bytes }).map_err(cannot);
        }
        // Also where opening has failed: the file may have been made before that.
        let removed = env.remove(&path).await;
        let file = opened.map_err(cannot)?;
        removed.map_err(cannot)?;
        if !file.is_direct() {
            return Err(refused(
                directory,
                "its file system has no direct I/O (O_DIRECT), so the page cache would be \
                 measured; use ext4 or XFS",
            ));
        }
        let free = env.free_space(directory).map_err(cannot)?;
        if bytes > free / 2 {
            return Err(refused(
                directory,
                &format!(
                    "a file of {} MiB is to be at most half of the free space, which is {} MiB; \
                     free some, or give a smaller --size",
                    bytes >> 20,
                    free >> 20
                ),
            ));
        }
        file.allocate(bytes).await.map_err(cannot)?;
        Ok(Self { file, bytes })
    }

    /// Writes the whole file once, or as much of it as may be in so many nanoseconds: disks answer
    /// reads of what was never written without looking. It is as long as that from then on.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn fill(
        &mut self,
        env: &RingEnv,
        nanoseconds_max: u64,
        progress: &ProgressBar,
    ) -> io::Result<()> {
        let start = env.precise_now();
        let mut buffer = random_buffer(env, FILL_BYTES);
        let mut offset = 0;
        while offset < self.bytes && env.precise_now().saturating_sub(start) < nanoseconds_max {
            let (written, back) = self.file.write(IoClass::Scrub, offset, buffer).await;
            written?;
            buffer = back;
            offset += FILL_BYTES as u64;
            progress.set_position(offset);
        }
        self.file.sync(IoClass::Scrub).await?;
        self.bytes = offset;
        Ok(())
    }

    /// The file itself.
    pub fn file(&self) -> &<RingEnv as Env>::File {
        &self.file
    }

    /// Its length, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

pub(super) fn refused(directory: &Path, message: &str) -> IotuneError {
    IotuneError::Directory { path: directory.to_owned(), message: message.to_owned() }
}

/// What no disk can make shorter.
pub fn random_buffer(env: &RingEnv, length: usize) -> Buffer {
    let mut buffer = env.buffer(length);
    for part in buffer.chunks_mut(8) {
        part.copy_from_slice(&env.random().to_ne_bytes()[..part.len()]);
    }
    buffer
}
