//! Reads a file through a window, and goes on behind what the device cannot read.

use std::io;
use std::path::Path;

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

const BLOCK: u64 = DISK_ALIGNMENT as u64;

/// The largest request to the device in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A file that is open for reading.
pub(crate) struct Reader<'a, E: Env> {
    env: &'a E,
    file: E::File,
    /// Bytes that are read at once, if the file has them.
    ahead: usize,
    start: u64,
    held: Vec<u8>,
    /// Offsets of blocks in the window that could not be read: zeros stand for them.
    unreadable: Vec<u64>,
}

/// Bytes of a file.
pub(crate) struct Bytes<'b> {
    pub(crate) bytes: &'b [u8],
    /// Whether zeros stand for some of them: the device cannot read them, or the file ends before.
    pub(crate) is_partial: bool,
}

impl<'a, E: Env> Reader<'a, E> {
    pub(crate) async fn open(env: &'a E, path: &Path, ahead: usize) -> io::Result<Self> {
        Ok(Self::of(env, env.open(path, OpenMode::Read).await?, ahead))
    }

    /// A reader of a file that is open.
    pub(crate) fn of(env: &'a E, file: E::File, ahead: usize) -> Self {
        Self { env, file, ahead, start: 0, held: Vec::new(), unreadable: Vec::new() }
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.len()
    }

    /// The bytes `offset..offset + len`.
    pub(crate) async fn bytes(&mut self, offset: u64, len: usize) -> Bytes<'_> {
        let end = offset + len as u64;
        if offset < self.start || end > self.start + self.held.len() as u64 {
            self.fill(offset, end).await;
        }
        let is_partial = self.unreadable.iter().any(|&block| block < end && block + BLOCK > offset);
        let at = (offset - self.start) as usize;
        Bytes { bytes: &self.held[at..at + len], is_partial }
    }

    async fn fill(&mut self, offset: u64, end: u64) {
        self.start = offset - offset % BLOCK;
        let needed = end.next_multiple_of(BLOCK);
        let wanted = needed.max(self.start + self.ahead as u64);
        let there = self.file.len() - self.file.len() % BLOCK;
        let end = wanted.min(there).max(needed);
        self.held.clear();
        self.held.resize((end - self.start) as usize, 0);
        self.unreadable.clear();
        let mut at = self.start;
        while at < end {
            self.env.yield_if_needed().await;
            let len = ((end - at) as usize).min(REQUEST_BYTES_MAX);
            if !self.read(at, len).await {
                for block in (at..at + len as u64).step_by(DISK_ALIGNMENT) {
                    if !self.read(block, DISK_ALIGNMENT).await {
                        self.unreadable.push(block);
                    }
                }
            }
            at += len as u64;
        }
    }

    async fn read(&mut self, offset: u64, len: usize) -> bool {
        if offset + len as u64 > self.file.len() {
            return false;
        }
        let (result, buffer) = self.file.read(IoClass::Scrub, offset, self.env.buffer(len)).await;
        if result.is_ok() {
            let at = (offset - self.start) as usize;
            self.held[at..at + len].copy_from_slice(&buffer);
        }
        result.is_ok()
    }
}
