//! One disk request: which operation is next, and what a completion means for it.
//!
//! A request is carried out in legs, one after the other and each one operation, of at most what
//! the device should be given at once; a leg that comes back short is followed by another, and an
//! error of one is the request's. A leg starts at a multiple of the alignment, so a tail
//! that came back unaligned is transferred again. A durable write ends with a leg that flushes; it
//! is queued when the last of the others has completed. Nothing here calls the kernel.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;

use crate::buffer::Buffer;
use crate::device_model::{IoDirection, LONGEST_REQUEST};
use crate::env::{DISK_ALIGNMENT, IoClass};
use crate::io_queue::IoRequest;
use crate::ring::Operation;
use crate::ring_file::OpenFile;

/// How often an interrupted or refused operation is tried again before it is an error.
const RETRIES_MAX: u8 = 32;

/// What is asked of the disk.
#[derive(Debug)]
pub(crate) enum Work {
    Read,
    Write {
        /// Whether the request ends only when its bytes are durable.
        durable: bool,
    },
    Sync {
        data_only: bool,
    },
    Open {
        path: CString,
        flags: i32,
    },
    Rename {
        from: CString,
        to: CString,
    },
    Remove {
        path: CString,
    },
    Allocate {
        len: u64,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The kernel's error number.
    Os(i32),
    /// The file ends before the range that was to be read.
    EndOfFile,
    /// The kernel accepted none of the bytes.
    NothingWritten,
}

/// What a request that succeeded brings.
#[derive(Debug)]
pub(crate) enum Success {
    Done,
    Opened(OwnedFd),
}

/// The end of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Success, Failure>,
    pub(crate) buffer: Option<Buffer>,
}

/// Where a request stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// In the I/O queue.
    Queued,
    /// In the ring, since that many nanoseconds.
    InFlight { since: u64 },
    /// Over; the result waits for the future.
    Finished(Result<Success, Failure>),
}

/// What to do after a leg's completion.
#[derive(Debug)]
pub(crate) enum Next {
    /// Queue the next leg.
    Leg,
    Finish(Result<Success, Failure>),
}

/// A request with everything that the kernel may touch on its behalf.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) work: Work,
    pub(crate) class: IoClass,
    pub(crate) stage: Stage,
    pub(crate) buffer: Option<Buffer>,
    /// Whether the buffer lies in memory that the ring knows.
    pub(crate) registered: bool,
    /// Whether the future is gone, so that nobody takes the result.
    pub(crate) is_abandoned: bool,
    pub(crate) waker: Option<Waker>,
    /// The most that one leg transfers, in bytes: a multiple of the alignment.
    pub(crate) leg_bytes_max: usize,
    /// When the request was over, in nanoseconds.
    pub(crate) ended_at: u64,
    /// Keeps the descriptor open.
    file: Option<Rc<OpenFile>>,
    /// The descriptor of a directory, which has no [`OpenFile`].
    directory: Option<OwnedFd>,
    offset: u64,
    /// Bytes to transfer in all.
    len: usize,
    /// Bytes known to be transferred.
    done: usize,
    retries: u8,
    /// Whether the leg is the flush that ends a durable write.
    is_flushing: bool,
}

impl Request {
    /// A request that needs no file and passes no I/O queue.
    pub(crate) fn of_names(work: Work) -> Self {
        Self::new(work, IoClass::Scrub, None)
    }

    pub(crate) fn sync_of_directory(directory: OwnedFd) -> Self {
        let work = Work::Sync { data_only: false };
        Self { directory: Some(directory), ..Self::new(work, IoClass::Commit, None) }
    }

    pub(crate) fn of_file(work: Work, class: IoClass, file: Rc<OpenFile>) -> Self {
        Self::new(work, class, Some(file))
    }

    /// A read or write of all of `buffer`.
    pub(crate) fn transfer(
        work: Work,
        class: IoClass,
        file: Rc<OpenFile>,
        offset: u64,
        buffer: Buffer,
    ) -> Self {
        let alignment = DISK_ALIGNMENT as u64;
        let len = buffer.len();
        assert!(offset.is_multiple_of(alignment), "the offset {offset} is not aligned");
        assert!(len.is_multiple_of(DISK_ALIGNMENT), "the length {len} is not aligned");
        assert!(offset.checked_add(len as u64).is_some(), "{len} bytes at {offset} overflow");
        let mut request = Self::new(work, class, Some(file));
        request.offset = offset;
        request.len = len;
        if len == 0 {
            match request.work {
                Work::Write { durable: true } => request.work = Work::Sync { data_only: true },
                _ => request.stage = Stage::Finished(Ok(Success::Done)),
            }
        }
        request.buffer = Some(buffer);
        request
    }

    fn new(work: Work, class: IoClass, file: Option<Rc<OpenFile>>) -> Self {
        Self {
            work,
            class,
            stage: Stage::Queued,
            buffer: None,
            registered: false,
            is_abandoned: false,
            waker: None,
            leg_bytes_max: LONGEST_REQUEST as usize,
            ended_at: 0,
            file,
            directory: None,
            offset: 0,
            len: 0,
            done: 0,
            retries: 0,
            is_flushing: false,
        }
    }

    /// Whether the leg is the write of a group commit.
    pub(crate) fn is_commit_write(&self) -> bool {
        self.is_transfer() && self.class == IoClass::Commit && !self.is_flush()
    }

    /// Whether the request goes through the I/O queue.
    pub(crate) fn is_queued_by_class(&self) -> bool {
        self.is_transfer() || self.is_flush()
    }

    /// Whether the leg moves bytes.
    pub(crate) fn is_transfer(&self) -> bool {
        matches!(self.work, Work::Read | Work::Write { .. }) && !self.is_flushing
    }

    /// Whether the leg flushes a file or directory.
    pub(crate) fn is_flush(&self) -> bool {
        self.is_flushing || matches!(self.work, Work::Sync { .. })
    }

    /// The next leg as the I/O queue sees it.
    pub(crate) fn io_request(&self) -> IoRequest {
        let bytes = self.leg_len() as u64;
        IoRequest { class: self.class, direction: self.direction(), bytes }
    }

    pub(crate) fn direction(&self) -> IoDirection {
        if matches!(self.work, Work::Read) { IoDirection::Read } else { IoDirection::Write }
    }

    fn leg_start(&self) -> usize {
        self.done - self.done % DISK_ALIGNMENT
    }

    /// The next leg's length in bytes; 0 for requests that transfer nothing.
    pub(crate) fn leg_len(&self) -> usize {
        if !self.is_transfer() {
            return 0;
        }
        (self.len - self.leg_start()).min(self.leg_bytes_max)
    }

    fn fd(&self) -> RawFd {
        match (&self.file, &self.directory) {
            (Some(file), _) => file.fd.as_raw_fd(),
            (None, Some(directory)) => directory.as_raw_fd(),
            (None, None) => panic!("{:?} needs a file", self.work),
        }
    }

    /// The next leg. Its pointers are into this request and stay valid until it is dropped.
    pub(crate) fn leg(&mut self) -> Operation {
        match self.work {
            Work::Read => self.read_leg(),
            Work::Write { .. } if self.is_flushing => {
                Operation::Sync { fd: self.fd(), data_only: true }
            }
            Work::Write { .. } => self.write_leg(),
            Work::Sync { data_only } => Operation::Sync { fd: self.fd(), data_only },
            Work::Open { ref path, flags } => Operation::Open { path: path.as_ptr(), flags },
            Work::Rename { ref from, ref to } => {
                Operation::Rename { from: from.as_ptr(), to: to.as_ptr() }
            }
            Work::Remove { ref path } => Operation::Remove { path: path.as_ptr() },
            Work::Allocate { len } => Operation::Allocate { fd: self.fd(), len },
        }
    }

    fn read_leg(&mut self) -> Operation {
        let (fd, start, len, registered) =
            (self.fd(), self.leg_start(), self.leg_len(), self.registered);
        let offset = self.offset + start as u64;
        let memory = self.transferred_buffer()[start..start + len].as_mut_ptr();
        Operation::Read { fd, memory, len: len as u32, offset, registered }
    }

    fn write_leg(&mut self) -> Operation {
        let (fd, start, len, registered) =
            (self.fd(), self.leg_start(), self.leg_len(), self.registered);
        let offset = self.offset + start as u64;
        let memory = self.transferred_buffer()[start..start + len].as_ptr();
        Operation::Write { fd, memory, len: len as u32, offset, registered }
    }

    fn transferred_buffer(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("a transfer has its buffer until it is over")
    }

    /// Bytes that a leg which ended with `result` moved.
    pub(crate) fn leg_bytes(&self, result: i32) -> u64 {
        if self.is_transfer() { u64::try_from(result).unwrap_or(0) } else { 0 }
    }

    /// Decides what follows a leg that ended with `result`.
    pub(crate) fn advance(&mut self, result: i32) -> Next {
        if result < 0 {
            return self.advance_failed(-result);
        }
        if self.is_transfer() {
            return self.advance_transfer(result as usize);
        }
        if let Work::Open { .. } = self.work {
            // SAFETY: the kernel has just opened the descriptor for this request alone.
            let opened = unsafe { OwnedFd::from_raw_fd(result) };
            return Next::Finish(Ok(Success::Opened(opened)));
        }
        if let (Work::Allocate { len }, Some(file)) = (&self.work, &self.file) {
            file.grow(*len);
        }
        Next::Finish(Ok(Success::Done))
    }

    /// An operation that was interrupted or refused for the moment is tried again; any other error
    /// is final. A flush is never tried again: the kernel may have dropped what it was to flush.
    fn advance_failed(&mut self, errno: i32) -> Next {
        let is_passing = matches!(errno, libc::EINTR | libc::EAGAIN);
        let may_retry = !self.is_flush() && !self.is_abandoned;
        if is_passing && may_retry && self.retries < RETRIES_MAX {
            self.retries += 1;
            return Next::Leg;
        }
        Next::Finish(Err(Failure::Os(errno)))
    }

    fn advance_transfer(&mut self, bytes: usize) -> Next {
        assert!(bytes <= self.leg_len(), "the kernel moved {bytes} bytes of {}", self.leg_len());
        let done = self.leg_start() + bytes;
        if done <= self.done {
            let is_read = matches!(self.work, Work::Read);
            let failure = if is_read { Failure::EndOfFile } else { Failure::NothingWritten };
            return Next::Finish(Err(failure));
        }
        self.done = done;
        if done < self.len {
            return Next::Leg;
        }
        if let (Work::Write { .. }, Some(file)) = (&self.work, &self.file) {
            file.grow(self.offset + done as u64);
        }
        if let Work::Write { durable: true } = self.work {
            self.is_flushing = true;
            return Next::Leg;
        }
        Next::Finish(Ok(Success::Done))
    }
}
