//! Files on the ring.

use std::cell::Cell;
use std::ffi::CString;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Once;
use std::task::{Context, Poll};

use crate::buffer::Buffer;
use crate::disk_request::{Failure, Outcome, Request, Success, Work};
use crate::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};
use crate::operations::Key;
use crate::ring_env::{RingEnv, Shared};

/// How often, and how long after each other, an open is tried again for want of descriptors.
pub(crate) const OPEN_RETRIES_MAX: u32 = 1000;
pub(crate) const OPEN_RETRY_NANOSECONDS: u64 = 10_000_000;

/// What the handles and the requests of a file share.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
    path: PathBuf,
    len: Cell<u64>,
    is_direct: bool,
}

impl OpenFile {
    /// Notes that the file is at least `len` bytes long.
    pub(crate) fn grow(&self, len: u64) {
        self.len.set(self.len.get().max(len));
    }
}

/// A file opened by [`RingEnv`](crate::ring_env::RingEnv).
#[derive(Clone)]
pub struct RingFile {
    file: Rc<OpenFile>,
    shared: Rc<Shared>,
}

impl std::fmt::Debug for RingFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(formatter)
    }
}

/// An I/O error with what was attempted and where.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
struct DiskError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// `source` with the operation and the path in its message.
pub(crate) fn describe(operation: &'static str, path: &Path, source: io::Error) -> io::Error {
    let kind = source.kind();
    io::Error::new(kind, DiskError { operation, path: path.to_path_buf(), source })
}

fn failure_error(operation: &'static str, path: &Path, failure: Failure) -> io::Error {
    let source = match failure {
        Failure::Os(errno) => io::Error::from_raw_os_error(errno),
        Failure::EndOfFile => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the range goes past the end of the file")
        }
        Failure::NothingWritten => {
            io::Error::new(io::ErrorKind::WriteZero, "the device accepted no bytes")
        }
    };
    describe(operation, path, source)
}

/// A path as the kernel takes it.
pub(crate) fn kernel_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|source| io::Error::new(io::ErrorKind::InvalidInput, source))
}

/// A request in progress. Dropping it cancels the request.
pub(crate) struct RequestFuture {
    shared: Rc<Shared>,
    key: Option<Key>,
}

impl RequestFuture {
    pub(crate) fn start(shared: &Rc<Shared>, mut request: Request) -> Self {
        let buffer = request.buffer.as_ref();
        request.registered = buffer.is_some_and(|buffer| shared.pool.is_registered(buffer));
        let key = shared.disk.borrow_mut().start(request, shared.clock.now());
        Self { shared: Rc::clone(shared), key: Some(key) }
    }

    /// Waits for a request that has no buffer.
    pub(crate) async fn success(self, operation: &'static str, path: &Path) -> io::Result<Success> {
        let outcome = self.await;
        outcome.result.map_err(|failure| failure_error(operation, path, failure))
    }
}

impl Future for RequestFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key.expect("a request is not polled after its end");
        let now = self.shared.clock.now();
        let polled = self.shared.disk.borrow_mut().poll(key, context, now);
        if polled.is_ready() {
            self.key = None;
        }
        polled
    }
}

impl Drop for RequestFuture {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let over = self.shared.disk.borrow_mut().abandon(key);
            drop(over);
        }
    }
}

impl RingFile {
    /// Whether requests go to the device past the page cache.
    pub fn is_direct(&self) -> bool {
        self.file.is_direct
    }

    fn transfer(
        &self,
        work: Work,
        operation: &'static str,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        let file = Rc::clone(&self.file);
        let request = Request::transfer(work, class, Rc::clone(&file), offset, buffer);
        let request = RequestFuture::start(&self.shared, request);
        async move {
            let outcome = request.await;
            let failed = |failure| failure_error(operation, &file.path, failure);
            let buffer = outcome.buffer.expect("a transfer gives its buffer back");
            (outcome.result.map(drop).map_err(failed), buffer)
        }
    }
}

impl File for RingFile {
    fn read(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Work::Read, "read", class, offset, buffer)
    }

    fn write(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Work::Write { durable: false }, "write", class, offset, buffer)
    }

    fn write_durably(
        &self,
        class: IoClass,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + 'static {
        self.transfer(Work::Write { durable: true }, "durable write", class, offset, buffer)
    }

    fn sync(&self, class: IoClass) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        let request = Request::of_file(Work::Sync { data_only: true }, class, Rc::clone(&file));
        let request = RequestFuture::start(&self.shared, request);
        async move { request.success("sync", &file.path).await.map(drop) }
    }

    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        let work = Work::Allocate { len };
        let request = Request::of_file(work, IoClass::Scrub, Rc::clone(&file));
        let request = RequestFuture::start(&self.shared, request);
        async move { request.success("allocate", &file.path).await.map(drop) }
    }

    fn len(&self) -> u64 {
        self.file.len.get()
    }
}

/// Opens a file; see [`Env::open`](crate::env::Env::open).
pub(crate) async fn open(
    shared: Rc<Shared>,
    path: PathBuf,
    mode: OpenMode,
) -> io::Result<RingFile> {
    let flags = libc::O_CLOEXEC
        | match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::ReadWrite => libc::O_RDWR,
            OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
    let mut is_direct = true;
    let fd = match open_with(&shared, &path, flags | libc::O_DIRECT).await {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            warn_buffered(&path);
            is_direct = false;
            // The file is made before the kernel finds that it cannot be opened so, and it did not
            // exist then, so it must not be refused for existing now.
            open_with(&shared, &path, flags & !libc::O_EXCL).await?
        }
        opened => opened?,
    };
    let prepared = prepare(fd.as_raw_fd(), &path)?;
    is_direct &= prepared.is_direct;
    let len = Cell::new(prepared.len);
    let file = Rc::new(OpenFile { fd, path, len, is_direct });
    Ok(RingFile { file, shared })
}

/// A file that was just opened for direct I/O.
pub(crate) struct Prepared {
    pub(crate) len: u64,
    /// Whether its file system has direct I/O; otherwise the file was made to do without.
    pub(crate) is_direct: bool,
}

/// Looks at how long a file is and what its device asks of direct I/O.
pub(crate) fn prepare(fd: RawFd, path: &Path) -> io::Result<Prepared> {
    let status = FileStatus::of(fd).map_err(|error| describe("stat", path, error))?;
    let mut is_direct = true;
    match status.direct_alignment {
        Some(0) => {
            set_buffered(fd).map_err(|error| describe("fcntl", path, error))?;
            warn_buffered(path);
            is_direct = false;
        }
        Some(alignment) if alignment > DISK_ALIGNMENT => {
            let message = format!(
                "the device asks for direct I/O aligned to {alignment} bytes; the node aligns to \
                 {DISK_ALIGNMENT}"
            );
            let error = io::Error::new(io::ErrorKind::Unsupported, message);
            return Err(describe("open", path, error));
        }
        _ => {}
    }
    Ok(Prepared { len: status.len, is_direct })
}

/// Makes the names in a directory durable.
pub(crate) async fn sync_directory(shared: Rc<Shared>, path: PathBuf) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let directory = open_with(&shared, &path, flags).await?;
    let request = RequestFuture::start(&shared, Request::sync_of_directory(directory));
    request.success("sync directory", &path).await.map(drop)
}

/// Opens a path. The descriptors of the process may be used up for a moment, by connections that
/// are refused because there are too many of them: that is waited for.
async fn open_with(shared: &Rc<Shared>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let kernel_path = kernel_path(path).map_err(|error| describe("open", path, error))?;
    let mut retries = 0;
    loop {
        let path_of_request = kernel_path.clone();
        let request = Request::of_names(Work::Open { path: path_of_request, flags });
        match RequestFuture::start(shared, request).await.result {
            Ok(Success::Opened(fd)) => return Ok(fd),
            Ok(Success::Done) => panic!("an open ends with a descriptor"),
            Err(Failure::Os(libc::EMFILE | libc::ENFILE)) if retries < OPEN_RETRIES_MAX => {
                retries += 1;
                RingEnv::new(Rc::clone(shared)).sleep(OPEN_RETRY_NANOSECONDS).await;
            }
            Err(failure) => return Err(failure_error("open", path, failure)),
        }
    }
}

/// Once for the process: one file system holds all files of a node.
fn warn_buffered(path: &Path) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let path = path.display();
        tracing::warn!(%path, "no direct I/O on this file system: the page cache is used");
    });
}

fn set_buffered(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_DIRECT) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

struct FileStatus {
    len: u64,
    /// What direct I/O has to be aligned to in bytes, 0 if the file has none; `None` if the file
    /// system does not say.
    direct_alignment: Option<usize>,
}

impl FileStatus {
    fn of(fd: RawFd) -> io::Result<Self> {
        // SAFETY: all-zero bytes are a valid `statx`.
        let mut status: libc::statx = unsafe { std::mem::zeroed() };
        let mask = libc::STATX_SIZE | libc::STATX_DIOALIGN;
        // SAFETY: the path is an empty string, and `status` is valid for writing.
        let result =
            unsafe { libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &raw mut status) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let alignment = status.stx_dio_mem_align.max(status.stx_dio_offset_align) as usize;
        let is_known = status.stx_mask & libc::STATX_DIOALIGN != 0;
        Ok(Self { len: status.stx_size, direct_alignment: is_known.then_some(alignment) })
    }
}

#[cfg(test)]
mod tests;
