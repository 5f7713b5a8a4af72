//! Writes a table's file from front to back in large, aligned chunks.

use std::path::{Path, PathBuf};

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use super::error::TableError;

/// Bytes of one write.
const CHUNK_BYTES: usize = 256 << 10;
const _: () = assert!(CHUNK_BYTES.is_multiple_of(DISK_ALIGNMENT));

/// A file that grows at its end. The file is created with the first write.
///
/// After an error, or when a future of it was dropped unfinished, only [`Self::remove`] may follow.
pub(super) struct TableWriter<E: Env> {
    env: E,
    path: PathBuf,
    class: IoClass,
    file: Option<E::File>,
    chunk: Option<Buffer>,
    /// Bytes of the chunk that hold data; less than `CHUNK_BYTES` between calls.
    filled: usize,
    /// Bytes that earlier chunks have written.
    written: u64,
}

impl<E: Env> TableWriter<E> {
    pub(super) fn new(env: E, path: PathBuf, class: IoClass) -> Self {
        Self { env, path, class, file: None, chunk: None, filled: 0, written: 0 }
    }

    pub(super) fn env(&self) -> &E {
        &self.env
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The offset at which the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// Appends `bytes`, and zeros up to the next multiple of the disk's alignment.
    pub(super) async fn append_padded(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        const ZEROS: [u8; DISK_ALIGNMENT] = [0; DISK_ALIGNMENT];
        self.append(bytes).await?;
        let padding = bytes.len().next_multiple_of(DISK_ALIGNMENT) - bytes.len();
        self.append(&ZEROS[..padding]).await
    }

    /// Writes what is left and flushes the device; the bytes are durable when it resolves with
    /// `Ok`, the file's name only after the directory was synced too.
    pub(super) async fn finish(&mut self) -> Result<(), TableError> {
        self.write_chunk().await?;
        let file = self.file.as_ref().expect("a finished table has bytes");
        file.sync(self.class).await.map_err(TableError::io(&self.path, "sync"))
    }

    /// Removes the file if it was created. Durable only after the directory was synced.
    pub(super) async fn remove(self) -> Result<(), TableError> {
        if self.file.is_none() {
            return Ok(());
        }
        self.env.remove(&self.path).await.map_err(TableError::io(&self.path, "remove"))
    }

    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), TableError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            if self.chunk.is_none() {
                assert!(self.filled == 0, "an earlier write was not finished");
                self.chunk = Some(self.env.buffer(CHUNK_BYTES));
            }
            let chunk = self.chunk.as_mut().expect("just made");
            chunk[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == CHUNK_BYTES {
                self.write_chunk().await?;
            }
        }
        Ok(())
    }

    async fn write_chunk(&mut self) -> Result<(), TableError> {
        if self.filled == 0 {
            return Ok(());
        }
        if self.file.is_none() {
            let file = self.env.open(&self.path, OpenMode::CreateNew).await;
            self.file = Some(file.map_err(TableError::io(&self.path, "create"))?);
        }
        let file = self.file.as_ref().expect("just created");
        let mut chunk = self.chunk.take().expect("earlier writes were finished");
        chunk.set_len(self.filled);
        let (result, mut chunk) = file.write(self.class, self.written, chunk).await;
        result.map_err(TableError::io(&self.path, "write"))?;
        self.written += self.filled as u64;
        self.filled = 0;
        chunk.set_len(CHUNK_BYTES);
        self.chunk = Some(chunk);
        Ok(())
    }
}
