//! The submission and completion ring, as narrow as the runtime needs it.
//!
//! [`Uring`](crate::uring::Uring) is the kernel's ring; the tests have one that delivers scripted
//! faults. Every operation carries a token that comes back with its completions: one completion
//! for most, several for the multishot ones, of which only the last has `more` unset.

use std::ffi::c_char;
use std::io;
use std::os::fd::RawFd;

/// One request to the kernel.
///
/// The memory behind a pointer belongs to the operation until its last completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads `len` bytes at `offset` into `memory`.
    Read {
        /// The file.
        fd: RawFd,
        /// Where the bytes go.
        memory: *mut u8,
        /// How many bytes.
        len: u32,
        /// Where in the file.
        offset: u64,
        /// Whether `memory` lies in the memory given to [`Ring::register_memory`].
        registered: bool,
    },
    /// Writes `len` bytes from `memory` at `offset`.
    Write {
        /// The file.
        fd: RawFd,
        /// Where the bytes are.
        memory: *const u8,
        /// How many bytes.
        len: u32,
        /// Where in the file.
        offset: u64,
        /// Whether `memory` lies in the memory given to [`Ring::register_memory`].
        registered: bool,
    },
    /// Flushes a file: `fdatasync`, or `fsync` when `data_only` is unset.
    Sync {
        /// The file or directory.
        fd: RawFd,
        /// Leaves out metadata that is not needed to read the data back.
        data_only: bool,
    },
    /// Opens `path`; the result is a descriptor.
    Open {
        /// Ends with a zero byte.
        path: *const c_char,
        /// `O_*` flags.
        flags: i32,
    },
    /// Renames `from` to `to`, replacing it.
    Rename {
        /// Ends with a zero byte.
        from: *const c_char,
        /// Ends with a zero byte.
        to: *const c_char,
    },
    /// Unlinks the file at `path`.
    Remove {
        /// Ends with a zero byte.
        path: *const c_char,
    },
    /// Reserves space for the file's first `len` bytes.
    Allocate {
        /// The file.
        fd: RawFd,
        /// Bytes from the start of the file.
        len: u64,
    },
    /// Accepts one connection; the result is its descriptor.
    Accept {
        /// The listening socket.
        fd: RawFd,
    },
    /// Receives into a buffer that the ring picks: once, or until cancelled (multishot).
    Receive {
        /// The socket.
        fd: RawFd,
        /// Whether one buffer is all that is wanted.
        once: bool,
    },
    /// Sends up to `len` bytes.
    Send {
        /// The socket.
        fd: RawFd,
        /// Where the bytes are.
        memory: *const u8,
        /// How many bytes.
        len: u32,
    },
    /// Sends the front of what a list of pieces says, as far as the socket takes it.
    SendPieces {
        /// The socket.
        fd: RawFd,
        /// The list. It, and what it points to, belongs to the operation like other memory.
        message: *const libc::msghdr,
    },
    /// Completes each time the descriptor becomes readable (multishot).
    Watch {
        /// The descriptor.
        fd: RawFd,
    },
    /// Cancels the operation that carries `token`.
    Cancel {
        /// The other operation's token.
        token: u64,
    },
    /// Cancels every operation on `fd`.
    CancelFile {
        /// The descriptor.
        fd: RawFd,
    },
    /// Cancels every operation of the ring.
    CancelAll,
}

/// What the kernel says about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The operation's token.
    pub token: u64,
    /// The operation's result, or a negated `errno`.
    pub result: i32,
    /// The receive buffer that the ring picked, to be given back with [`Ring::recycle`].
    pub buffer: Option<u16>,
    /// Whether the operation will complete again.
    pub more: bool,
}

/// How long [`Ring::enter`] may sleep for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so many nanoseconds.
    Nanoseconds(u64),
    /// Until there is one.
    Forever,
}

/// A submission and completion ring that belongs to one thread.
///
/// # Safety
///
/// The runtime frees memory and takes descriptors on what a ring says. An implementation promises:
///
/// - [`Ring::pop`] returns completions of operations that were pushed, with their own tokens; the
///   last of an operation, and no other, has `more` unset. After that one nothing touches the
///   operation's memory any more.
/// - The result of a read or a receive is an error, or at most the length that was asked for, and
///   that many bytes are initialised. The result of an open or an accept is an error, or a
///   descriptor that is open and belongs to nobody else.
/// - A completion's `buffer` is one whose bytes [`Ring::received`] returns, unchanged by anybody
///   until it is recycled, and which came with no other completion since it was recycled last.
pub unsafe trait Ring {
    /// Queues an operation. Never blocks and never fails: what does not fit waits in memory.
    ///
    /// # Safety
    ///
    /// The operation's pointers are valid, and stay so until its last completion was popped.
    unsafe fn push(&mut self, token: u64, operation: Operation);

    /// Whether [`Ring::enter`] without waiting would achieve something: there are operations to
    /// hand over, or completions that only the kernel can bring forward.
    fn needs_enter(&mut self) -> bool;

    /// Whether completions wait to be popped, or would after an [`Ring::enter`].
    fn has_completions(&mut self) -> bool;

    /// Hands the queued operations over and collects completions.
    ///
    /// Being interrupted, and the kernel being short of resources for the moment, is no error: it
    /// returns early and the caller comes again after popping completions.
    fn enter(&mut self, wait: Wait) -> io::Result<()>;

    /// The next completion, if one has been collected.
    fn pop(&mut self) -> Option<Completion>;

    /// Registers the memory that [`Operation::Read`] and [`Operation::Write`] call `registered`.
    ///
    /// # Safety
    ///
    /// `memory` points to `len` bytes that outlive the ring's last operation on them.
    unsafe fn register_memory(&mut self, memory: *mut u8, len: usize) -> io::Result<()>;

    /// The first `len` bytes of a receive buffer.
    ///
    /// # Safety
    ///
    /// The buffer came with a completion whose result was at least `len`, and has not been recycled
    /// since: until then the kernel does not write to it.
    unsafe fn received(&self, buffer: u16, len: usize) -> &[u8];

    /// Lets the ring use a receive buffer again.
    fn recycle(&mut self, buffer: u16);
}
