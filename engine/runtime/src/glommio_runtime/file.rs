//! Files: [`glommio::io::DmaFile`] behind guards.
//!
//! Every read and write goes through a buffer of glommio's, so each costs a copy that the ring's
//! do not. Only `read_at_aligned` is used: `read_at` returns bytes behind those that it has read
//! when it meets the end of a file (`io/dma_file.rs`, `min(read_size, size)` forgets the padding
//! in front). What a buffer of glommio's holds before it is filled is not initialised
//! (`sys/dma_buffer.rs`), so it is filled whole, through its pointer, before anybody sees it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::env::sleep;
use super::shared::{InFlight, Names, Pass, Shared};
use crate::buffer::Buffer;
use crate::device_model::IoDirection;
use crate::env::{DISK_ALIGNMENT, File, IoClass, OpenMode};
use crate::io_queue::IoRequest;
use crate::ring_file::{OPEN_RETRIES_MAX, OPEN_RETRY_NANOSECONDS, describe, prepare};

/// The most bytes that one operation is given: its buffer is a copy.
const OPERATION_BYTES_MAX: usize = 512 << 10;

struct OpenFile {
    file: DmaFile,
    path: PathBuf,
    len: Cell<u64>,
}

impl OpenFile {
    fn grow(&self, len: u64) {
        self.len.set(self.len.get().max(len));
    }
}

/// A file opened by [`GlommioEnv`](super::env::GlommioEnv).
#[derive(Clone)]
pub struct GlommioFile {
    file: Rc<OpenFile>,
    shared: Rc<Shared>,
}

impl std::fmt::Debug for GlommioFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "GlommioFile({}, {:?})", self.file.path.display(), self.file.file)
    }
}

/// What the kernel said, where glommio hands it on.
pub(super) fn kernel_error(error: GlommioError<()>) -> io::Error {
    error.raw_os_error().map_or_else(|| error.into(), io::Error::from_raw_os_error)
}

fn check_range(offset: u64, len: usize) {
    assert!(offset.is_multiple_of(DISK_ALIGNMENT as u64), "the offset {offset} is not aligned");
    assert!(len.is_multiple_of(DISK_ALIGNMENT), "the length {len} is not aligned");
    assert!(offset.checked_add(len as u64).is_some(), "{len} bytes at {offset} overflow");
}

impl GlommioFile {
    /// Waits until a request may go to the device.
    async fn pass(&self, class: IoClass, direction: IoDirection, bytes: usize) -> Pass {
        let request = IoRequest { class, direction, bytes: bytes as u64 };
        Pass::get(Rc::clone(&self.shared), request).await
    }

    /// Reads on until the buffer is full or the file ends.
    async fn fill(&self, offset: u64, buffer: &mut Buffer) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let len = (buffer.len() - done).min(OPERATION_BYTES_MAX);
            let read = self.file.file.read_at_aligned(offset + done as u64, len).await;
            let read = read.map_err(kernel_error)?;
            let bytes = &read[..read.len().min(len)];
            buffer[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
            self.shared.count_disk(|disk| {
                disk.reads += 1;
                disk.read_bytes += bytes.len() as u64;
            });
            // A read that ends off the alignment has met the end of the file.
            if bytes.is_empty() || (done < buffer.len() && done % DISK_ALIGNMENT != 0) {
                let message = "the range goes past the end of the file";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
        }
        Ok(())
    }

    /// Writes until everything is written.
    async fn put(&self, offset: u64, buffer: &Buffer) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let len = (buffer.len() - done).min(OPERATION_BYTES_MAX);
            let copy = filled(self.file.file.alloc_dma_buffer(len), &buffer[done..done + len]);
            let written = self.file.file.write_at(copy, offset + done as u64).await;
            let written = written.map_err(kernel_error)?.min(len);
            self.shared.count_disk(|disk| {
                disk.writes += 1;
                disk.write_bytes += written as u64;
            });
            // The next operation has to begin on the alignment as well.
            let whole = written - written % DISK_ALIGNMENT;
            if whole == 0 {
                let message = "the device accepted no bytes";
                return Err(io::Error::new(io::ErrorKind::WriteZero, message));
            }
            done += whole;
            self.file.grow(offset + done as u64);
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        self.file.file.fdatasync().await.map_err(kernel_error)?;
        self.shared.count_disk(|disk| {
            disk.syncs += 1;
        });
        Ok(())
    }

    fn described<T>(&self, operation: &'static str, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| describe(operation, &self.file.path, error))
    }

    fn write_and(
        &self,
        operation: &'static str,
        is_durable: bool,
        class: IoClass,
        (offset, buffer): (u64, Buffer),
    ) -> InFlight<(io::Result<()>, Buffer)> {
        check_range(offset, buffer.len());
        let this = self.clone();
        self.shared.operation(async move {
            let _pass = this.pass(class, IoDirection::Write, buffer.len()).await;
            let mut result = this.put(offset, &buffer).await;
            if is_durable && result.is_ok() {
                result = this.flush().await;
            }
            (this.described(operation, result), buffer)
        })
    }
}

/// A buffer of glommio's with these bytes, which it has room for exactly.
fn filled(mut buffer: DmaBuffer, bytes: &[u8]) -> DmaBuffer {
    assert_eq!(buffer.len(), bytes.len(), "a buffer is made for what it is to hold");
    // SAFETY: the buffer has `bytes.len()` bytes of its own, just allocated.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.as_mut_ptr(), bytes.len()) };
    buffer
}

impl File for GlommioFile {
    fn read(
        &self,
        class: IoClass,
        offset: u64,
        mut buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        check_range(offset, buffer.len());
        let this = self.clone();
        self.shared.operation(async move {
            let _pass = this.pass(class, IoDirection::Read, buffer.len()).await;
            let result = this.fill(offset, &mut buffer).await;
            (this.described("read", result), buffer)
        })
    }

    fn write(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.write_and("write", false, class, (offset, buffer))
    }

    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.write_and("durable write", true, class, (offset, buffer))
    }

    fn sync(&self, class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        self.shared.operation(async move {
            let _pass = this.pass(class, IoDirection::Write, 0).await;
            let result = this.flush().await;
            this.described("sync", result)
        })
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let this = self.clone();
        self.shared.operation(async move {
            let result = this.file.file.pre_allocate(len, false).await.map_err(kernel_error);
            this.described("allocate", result)?;
            this.file.grow(len);
            Ok(())
        })
    }

    fn len(&self) -> u64 {
        self.file.len.get()
    }
}

/// Opens a file; see [`Env::open`](crate::env::Env::open).
pub(super) async fn open(
    shared: Rc<Shared>,
    path: PathBuf,
    mode: OpenMode,
) -> io::Result<GlommioFile> {
    let opening = opened(Rc::clone(&shared), path.clone(), mode);
    let file = shared.operation(opening).await.map_err(|error| refused(&path, error))?;
    let prepared = prepare(file.as_raw_fd(), &path)?;
    let file = Rc::new(OpenFile { file, path, len: Cell::new(prepared.len) });
    Ok(GlommioFile { file, shared })
}

/// Why a file was not opened, with what can be done where glommio alone is the reason.
fn refused(path: &Path, error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EINVAL) {
        let message = "this file system has no direct I/O, without which glommio opens files on \
                       tmpfs alone; start with --runtime ring, which can do without";
        let error = io::Error::new(io::ErrorKind::Unsupported, message);
        return describe("open", path, error);
    }
    describe("open", path, error)
}

async fn opened(shared: Rc<Shared>, path: PathBuf, mode: OpenMode) -> io::Result<DmaFile> {
    let names = Names::hold(Rc::clone(&shared)).await;
    let mode = keep_from_polling(&shared, &path, mode).await?;
    let mut options = OpenOptions::new();
    options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
    let opened = patiently(&options, &path).await;
    drop(names);
    opened
}

/// Keeps glommio from polling for the end of requests on the file's device (IOPOLL): there, reads
/// longer than what the device takes at once never end (its issues 633 and 635). It offers no
/// option, but looks once for each device whether polling works, with the first file that is opened
/// there, and takes every error for a no. A file that is opened for writing alone gives one.
///
/// Returns how the file is to be opened then: where it was to be made it is there.
async fn keep_from_polling(shared: &Shared, path: &Path, mode: OpenMode) -> io::Result<OpenMode> {
    let device = device_of(path)?;
    if shared.unpolled.borrow().contains(&device) {
        return Ok(mode);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(mode == OpenMode::CreateNew);
    let file = patiently(&options, path).await?;
    file.close().await.map_err(kernel_error)?;
    shared.unpolled.borrow_mut().insert(device);
    Ok(if mode == OpenMode::CreateNew { OpenMode::ReadWrite } else { mode })
}

/// The device that a path's directory is on.
#[allow(clippy::disallowed_methods, reason = "it is how the runtime's files are opened")]
fn device_of(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(std::fs::metadata(directory.unwrap_or(Path::new(".")))?.dev())
}

/// Opens a path. The descriptors of the process may be used up for a moment, by connections that
/// are refused because there are too many of them: that is waited for.
async fn patiently(options: &OpenOptions, path: &Path) -> io::Result<DmaFile> {
    let mut retries = 0;
    loop {
        match options.dma_open(path).await.map_err(kernel_error) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
                    && retries < OPEN_RETRIES_MAX =>
            {
                retries += 1;
                sleep(OPEN_RETRY_NANOSECONDS).await;
            }
            opened => return opened,
        }
    }
}
