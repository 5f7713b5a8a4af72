//! A ring without a kernel, for tests: it carries disk operations out on real files and delivers
//! the faults that a test asks for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::ring::{Completion, Operation, Ring, Wait};

const RECEIVE_BYTES: usize = 64;

/// How the next disk operation or send ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// As asked.
    Full,
    /// After so many bytes.
    Short(usize),
    /// With this error number.
    Error(i32),
    /// Not before it is cancelled or released.
    Hold,
    /// Not before it is released; cancelling it fails.
    HoldFirmly,
}

type Step = Box<dyn FnOnce(&mut FakeKernel)>;

struct Held {
    token: u64,
    operation: Operation,
    is_firm: bool,
}

/// What the test and the ring share.
pub(crate) struct FakeKernel {
    /// One reply for each disk operation and send, in order of submission; `Full` after the last.
    pub(crate) script: VecDeque<Reply>,
    /// What happens, one at a time, whenever the core would sleep.
    pub(crate) when_idle: VecDeque<Step>,
    /// Every operation that was started.
    pub(crate) log: Vec<Operation>,
    /// The bytes of all sends.
    pub(crate) sent: Vec<u8>,
    /// Completions that fit; others are set aside until the next enter.
    pub(crate) completions_max: usize,
    /// How often completions were set aside.
    pub(crate) overflows: usize,
    /// Whether registering memory fails.
    pub(crate) refuses_memory: bool,
    /// So many cancellations find nothing, as when the kernel is at work on their operation.
    pub(crate) misses_cancellations: usize,
    submitted: VecDeque<(u64, Operation)>,
    held: Vec<Held>,
    ready: VecDeque<Completion>,
    overflow: VecDeque<Completion>,
    buffers: Vec<Box<[u8]>>,
    free_buffers: VecDeque<u16>,
}

#[derive(Clone)]
pub(crate) struct FakeRing {
    pub(crate) kernel: Rc<RefCell<FakeKernel>>,
}

impl FakeRing {
    pub(crate) fn new() -> Self {
        let kernel = FakeKernel {
            script: VecDeque::new(),
            when_idle: VecDeque::new(),
            log: Vec::new(),
            sent: Vec::new(),
            completions_max: usize::MAX,
            overflows: 0,
            refuses_memory: false,
            misses_cancellations: 0,
            submitted: VecDeque::new(),
            held: Vec::new(),
            ready: VecDeque::new(),
            overflow: VecDeque::new(),
            buffers: (0..4).map(|_| vec![0; RECEIVE_BYTES].into()).collect(),
            free_buffers: (0..4).collect(),
        };
        Self { kernel: Rc::new(RefCell::new(kernel)) }
    }

    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.kernel.borrow_mut().script.extend(replies);
    }

    pub(crate) fn when_idle(&self, step: impl FnOnce(&mut FakeKernel) + 'static) {
        self.kernel.borrow_mut().when_idle.push_back(Box::new(step));
    }

    /// How many started operations satisfy `predicate`.
    pub(crate) fn count(&self, predicate: impl Fn(&Operation) -> bool) -> usize {
        self.kernel.borrow().log.iter().filter(|operation| predicate(operation)).count()
    }
}

impl FakeKernel {
    fn post(&mut self, token: u64, result: i32, buffer: Option<u16>, more: bool) {
        let completion = Completion { token, result, buffer, more };
        if self.ready.len() < self.completions_max {
            self.ready.push_back(completion);
        } else {
            self.overflows += 1;
            self.overflow.push_back(completion);
        }
    }

    /// Completes an operation that waits, with `result`.
    pub(crate) fn complete(&mut self, which: impl Fn(&Operation) -> bool, result: i32, more: bool) {
        let index = self.held.iter().position(|held| which(&held.operation));
        let index = index.expect("the operation waits");
        let token = self.held[index].token;
        if !more {
            self.held.remove(index);
        }
        self.post(token, result, None, more);
    }

    /// Delivers bytes to the receive on any socket; without a free buffer the receive ends with
    /// ENOBUFS, as the kernel's does.
    pub(crate) fn deliver(&mut self, bytes: &[u8], more: bool) {
        let is_receive = |held: &Held| matches!(held.operation, Operation::Receive { .. });
        let index = self.held.iter().position(is_receive).expect("a receive is armed");
        let token = self.held[index].token;
        let Some(buffer) = self.free_buffers.pop_front() else {
            self.held.remove(index);
            self.post(token, -libc::ENOBUFS, None, false);
            return;
        };
        self.buffers[usize::from(buffer)][..bytes.len()].copy_from_slice(bytes);
        if !more {
            self.held.remove(index);
        }
        self.post(token, bytes.len() as i32, Some(buffer), more);
    }

    pub(crate) fn is_waiting(&self, which: impl Fn(&Operation) -> bool) -> bool {
        self.held.iter().any(|held| which(&held.operation))
    }

    pub(crate) fn free_buffers(&self) -> usize {
        self.free_buffers.len()
    }

    fn start_submitted(&mut self) {
        while let Some((token, operation)) = self.submitted.pop_front() {
            self.log.push(operation);
            self.start(token, operation);
        }
    }

    fn start(&mut self, token: u64, operation: Operation) {
        match operation {
            Operation::Accept { .. } | Operation::Receive { .. } | Operation::Watch { .. } => {
                self.held.push(Held { token, operation, is_firm: false });
            }
            Operation::Cancel { .. } if self.misses_cancellations > 0 => {
                self.misses_cancellations -= 1;
                self.post(token, -libc::ENOENT, None, false);
            }
            Operation::Cancel { token: victim } => self.cancel(token, |held| held.token == victim),
            Operation::CancelFile { fd } => {
                self.cancel(token, |held| fd_of(&held.operation) == Some(fd));
            }
            Operation::CancelAll => self.cancel(token, |_| true),
            _ => self.start_scripted(token, operation),
        }
    }

    fn start_scripted(&mut self, token: u64, operation: Operation) {
        let len = len_of(&operation);
        let result = match self.script.pop_front().unwrap_or(Reply::Full) {
            Reply::Full => self.perform(operation, len),
            Reply::Short(short) => self.perform(operation, short.min(len)),
            Reply::Error(errno) => -errno,
            Reply::Hold => {
                self.held.push(Held { token, operation, is_firm: false });
                return;
            }
            Reply::HoldFirmly => {
                self.held.push(Held { token, operation, is_firm: true });
                return;
            }
        };
        self.post(token, result, None, false);
    }

    fn cancel(&mut self, token: u64, which: impl Fn(&Held) -> bool) {
        let (hit, kept) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held: &Held| which(held) && !held.is_firm);
        self.held = kept;
        let found = hit.len() as i32;
        for held in hit {
            self.post(held.token, -libc::ECANCELED, None, false);
        }
        self.post(token, if found == 0 { -libc::ENOENT } else { 0 }, None, false);
    }

    fn perform(&mut self, operation: Operation, len: usize) -> i32 {
        // SAFETY: whoever pushed the operation promised that its pointers are valid until the
        // completion, which has not been posted yet.
        let result = unsafe {
            match operation {
                Operation::Read { fd, memory, offset, .. } => {
                    libc::pread(fd, memory.cast(), len, offset as i64) as i32
                }
                Operation::Write { fd, memory, offset, .. } => {
                    libc::pwrite(fd, memory.cast(), len, offset as i64) as i32
                }
                Operation::Sync { fd, .. } => libc::fsync(fd),
                // Direct I/O would refuse the odd lengths of short transfers.
                Operation::Open { path, flags } => libc::open(path, flags & !libc::O_DIRECT, 0o600),
                Operation::Rename { from, to } => libc::rename(from, to),
                Operation::Remove { path } => libc::unlink(path),
                Operation::Allocate { fd, len } => libc::fallocate(fd, 0, 0, len as i64),
                Operation::Send { memory, .. } => {
                    self.sent.extend_from_slice(std::slice::from_raw_parts(memory, len));
                    len as i32
                }
                Operation::SendPieces { message, .. } => {
                    let before = self.sent.len();
                    for piece in pieces_of(message) {
                        let left = len - (self.sent.len() - before);
                        self.sent.extend_from_slice(&piece[..piece.len().min(left)]);
                    }
                    len as i32
                }
                other => panic!("{other:?} is not carried out here"),
            }
        };
        if result < 0 { -io::Error::last_os_error().raw_os_error().unwrap() } else { result }
    }
}

fn fd_of(operation: &Operation) -> Option<RawFd> {
    match *operation {
        Operation::Read { fd, .. }
        | Operation::Write { fd, .. }
        | Operation::Sync { fd, .. }
        | Operation::Accept { fd }
        | Operation::Receive { fd, .. }
        | Operation::Send { fd, .. }
        | Operation::SendPieces { fd, .. }
        | Operation::Watch { fd } => Some(fd),
        _ => None,
    }
}

fn len_of(operation: &Operation) -> usize {
    match *operation {
        Operation::Read { len, .. }
        | Operation::Write { len, .. }
        | Operation::Send { len, .. } => len as usize,
        Operation::SendPieces { message, .. } => {
            // SAFETY: the list is valid as long as the operation has not completed.
            let pieces = unsafe { pieces_of(message) };
            pieces.map(<[u8]>::len).sum()
        }
        _ => 0,
    }
}

/// The pieces of a list.
///
/// # Safety
///
/// The list and its pieces are valid and stay so as long as they are looked at.
unsafe fn pieces_of<'a>(message: *const libc::msghdr) -> impl Iterator<Item = &'a [u8]> {
    // SAFETY: the caller promises that the list is valid.
    let pieces = unsafe {
        std::slice::from_raw_parts((*message).msg_iov.cast_const(), (*message).msg_iovlen)
    };
    pieces.iter().map(|piece| {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(piece.iov_base.cast_const().cast(), piece.iov_len) }
    })
}

// SAFETY: an operation leaves `submitted` or `held` with its last completion, and only `perform`
// touches its memory, before that; the results are those of the system calls that it makes, and
// `free_buffers` holds each buffer once.
unsafe impl Ring for FakeRing {
    unsafe fn push(&mut self, token: u64, operation: Operation) {
        self.kernel.borrow_mut().submitted.push_back((token, operation));
    }

    fn needs_enter(&mut self) -> bool {
        let kernel = self.kernel.borrow();
        !kernel.submitted.is_empty() || !kernel.overflow.is_empty()
    }

    fn has_completions(&mut self) -> bool {
        let kernel = self.kernel.borrow();
        !kernel.ready.is_empty() || !kernel.overflow.is_empty()
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        let room = kernel.completions_max.saturating_sub(kernel.ready.len());
        let flushed = room.min(kernel.overflow.len());
        let flushed: Vec<Completion> = kernel.overflow.drain(..flushed).collect();
        kernel.ready.extend(flushed);
        kernel.start_submitted();
        if wait != Wait::No && kernel.ready.is_empty() {
            match (kernel.when_idle.pop_front(), wait) {
                (Some(step), _) => step(&mut kernel),
                (None, Wait::Forever) => panic!("the core sleeps and nothing will wake it"),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        self.kernel.borrow_mut().ready.pop_front()
    }

    unsafe fn register_memory(&mut self, _memory: *mut u8, _len: usize) -> io::Result<()> {
        if self.kernel.borrow().refuses_memory {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    }

    unsafe fn received(&self, buffer: u16, len: usize) -> &[u8] {
        let kernel = self.kernel.borrow();
        let bytes = &kernel.buffers[usize::from(buffer)][..len];
        // SAFETY: the box stays where it is, and is not written to before the buffer is recycled.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) }
    }

    fn recycle(&mut self, buffer: u16) {
        let mut kernel = self.kernel.borrow_mut();
        assert!(!kernel.free_buffers.contains(&buffer), "buffer {buffer} is recycled twice");
        kernel.free_buffers.push_back(buffer);
    }
}
