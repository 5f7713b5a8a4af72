//! The kernel's ring.
//!
//! One thread submits and one `io_uring_enter` per loop both hands operations over and collects
//! completions (SINGLE_ISSUER, DEFER_TASKRUN). Completion work that is due but not yet run shows in
//! a flag (TASKRUN_FLAG), so an idle check costs no system call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};

use crate::affinity::CpuBits;
use crate::probe::{self, StartError};
use crate::receive_buffers::ReceiveBuffers;
use crate::ring::{Completion, Operation, Ring, Wait};

/// Completions that fit before the kernel sets some aside, per submission entry.
const COMPLETIONS_PER_ENTRY: u32 = 4;
const RECEIVE_GROUP: u16 = 0;
const REGISTERED_MEMORY: u16 = 0;
const FILE_MODE: u32 = 0o644;

/// An io_uring instance with its receive buffers.
pub struct Uring {
    ring: IoUring,
    receive: ReceiveBuffers,
    /// Operations that did not fit.
    backlog: VecDeque<Entry>,
}

impl Uring {
    /// Sets a ring up that belongs to the calling thread.
    ///
    /// `entries` operations fit between two enters before the rest waits in memory.
    /// `receive_buffers` is a power of two.
    pub fn new(
        entries: u32,
        receive_buffers: u16,
        receive_buffer_bytes: usize,
    ) -> Result<Self, StartError> {
        let entries = entries.next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(entries * COMPLETIONS_PER_ENTRY)
            .build(entries)
            .map_err(probe::explain_setup_error)?;
        let receive = ReceiveBuffers::new(receive_buffers, receive_buffer_bytes);
        let mut uring = Self { ring, receive, backlog: VecDeque::new() };
        uring.register_receive_buffers()?;
        let register = uring.ring.submitter().register_ring_fd();
        register.map_err(|source| StartError::Setup { step: "register the ring's fd", source })?;
        Ok(uring)
    }

    /// Binds the kernel's threads that work for this ring, also those that come later.
    pub(crate) fn bind_workers(&self, cpus: CpuBits) -> io::Result<()> {
        self.ring.submitter().register_iowq_aff(&cpus.to_kernel())
    }

    fn register_receive_buffers(&mut self) -> Result<(), StartError> {
        let (address, count) = (self.receive.ring_address(), self.receive.count());
        // SAFETY: the ring's memory holds `count` initialised entries and lives as long as `self`;
        // fields are dropped in order, so the io_uring goes first.
        let result = unsafe {
            self.ring.submitter().register_buf_ring_with_flags(address, count, RECEIVE_GROUP, 0)
        };
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOMEM) => StartError::Memory { source },
            _ => StartError::Setup { step: "register the receive buffers", source },
        })
    }

    /// Moves what waits in memory to the submission queue, as far as there is room.
    fn fill_from_backlog(&mut self) {
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever queued the entry promised that its pointers stay valid.
            if unsafe { submission.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn enter_once(&mut self, wait: Wait) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let events = EnterFlags::GETEVENTS;
        // SAFETY: the queued entries' pointers are valid by the contract of `push`; the argument
        // types match the flags.
        let result = unsafe {
            match wait {
                Wait::No => submitter.enter::<libc::sigset_t>(queued, 0, events.bits(), None),
                Wait::Forever => submitter.enter::<libc::sigset_t>(queued, 1, events.bits(), None),
                Wait::Nanoseconds(nanoseconds) => {
                    let time = Timespec::new()
                        .sec(nanoseconds / 1_000_000_000)
                        .nsec((nanoseconds % 1_000_000_000) as u32);
                    let arguments = SubmitArgs::new().timespec(&time);
                    let flags = events | EnterFlags::EXT_ARG;
                    submitter.enter(queued, 1, flags.bits(), Some(&arguments))
                }
            }
        };
        result.map(drop)
    }
}

// SAFETY: completions, their results and the choice of receive buffers are the kernel's, whose
// contract is the one that the trait states; tokens travel through it unchanged.
unsafe impl Ring for Uring {
    #[inline]
    unsafe fn push(&mut self, token: u64, operation: Operation) {
        let entry = entry(operation).user_data(token);
        if self.backlog.is_empty() {
            // SAFETY: the caller promises that the operation's pointers stay valid.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    #[inline]
    fn needs_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    #[inline]
    fn has_completions(&mut self) -> bool {
        let submission = self.ring.submission();
        let brought_by_enter = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        brought_by_enter || !self.ring.completion().is_empty()
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        loop {
            self.fill_from_backlog();
            let wait = if self.backlog.is_empty() { wait } else { Wait::No };
            match self.enter_once(wait) {
                Ok(()) if self.backlog.is_empty() => return Ok(()),
                Ok(()) => {}
                Err(error) => return if is_passing(&error) { Ok(()) } else { Err(error) },
            }
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Completion> {
        let completion = self.ring.completion().next()?;
        Some(Completion {
            token: completion.user_data(),
            result: completion.result(),
            buffer: cqueue::buffer_select(completion.flags()),
            more: cqueue::more(completion.flags()),
        })
    }

    unsafe fn register_memory(&mut self, memory: *mut u8, len: usize) -> io::Result<()> {
        let memory = libc::iovec { iov_base: memory.cast(), iov_len: len };
        // SAFETY: the caller promises that the memory outlives its use.
        unsafe { self.ring.submitter().register_buffers(&[memory]) }
    }

    unsafe fn received(&self, buffer: u16, len: usize) -> &[u8] {
        // SAFETY: the caller's promise is the one that `bytes` asks for.
        unsafe { self.receive.bytes(buffer, len) }
    }

    #[inline]
    fn recycle(&mut self, buffer: u16) {
        self.receive.recycle(buffer);
    }
}

/// Whether an enter that failed so is simply to be repeated: a signal, the end of the wait, a
/// moment without memory, or completions that have to be popped first.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}

/// The submission entry of an operation.
fn entry(operation: Operation) -> Entry {
    match operation {
        Operation::Read { fd, memory, len, offset, registered: false } => {
            opcode::Read::new(Fd(fd), memory, len).offset(offset).build()
        }
        Operation::Read { fd, memory, len, offset, registered: true } => {
            opcode::ReadFixed::new(Fd(fd), memory, len, REGISTERED_MEMORY).offset(offset).build()
        }
        Operation::Write { fd, memory, len, offset, registered: false } => {
            opcode::Write::new(Fd(fd), memory, len).offset(offset).build()
        }
        Operation::Write { fd, memory, len, offset, registered: true } => {
            opcode::WriteFixed::new(Fd(fd), memory, len, REGISTERED_MEMORY).offset(offset).build()
        }
        Operation::Sync { fd, data_only } => {
            let flags = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(Fd(fd)).flags(flags).build()
        }
        Operation::Open { path, flags } => {
            opcode::OpenAt::new(HERE, path).flags(flags).mode(FILE_MODE).build()
        }
        Operation::Rename { from, to } => opcode::RenameAt::new(HERE, from, HERE, to).build(),
        Operation::Remove { path } => opcode::UnlinkAt::new(HERE, path).build(),
        Operation::Allocate { fd, len } => opcode::Fallocate::new(Fd(fd), len).build(),
        Operation::Accept { fd } => {
            let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
            opcode::Accept::new(Fd(fd), address, len).flags(libc::SOCK_CLOEXEC).build()
        }
        Operation::Receive { fd, once: false } => {
            opcode::RecvMulti::new(Fd(fd), RECEIVE_GROUP).build()
        }
        Operation::Receive { fd, once: true } => {
            // The picked buffer says how much is received.
            let receive = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), 0);
            receive.buf_group(RECEIVE_GROUP).build().flags(Flags::BUFFER_SELECT)
        }
        Operation::Send { fd, memory, len } => {
            opcode::Send::new(Fd(fd), memory, len).flags(libc::MSG_NOSIGNAL).build()
        }
        Operation::SendPieces { fd, message } => {
            opcode::SendMsg::new(Fd(fd), message).flags(libc::MSG_NOSIGNAL as u32).build()
        }
        Operation::Watch { fd } => watch(fd),
        Operation::Cancel { token } => opcode::AsyncCancel::new(token).build(),
        Operation::CancelFile { fd } => {
            opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build()
        }
        Operation::CancelAll => opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
    }
}

/// Paths are relative to the working directory.
const HERE: Fd = Fd(libc::AT_FDCWD);

fn watch(fd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build()
}
