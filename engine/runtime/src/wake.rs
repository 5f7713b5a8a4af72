//! Waking a core from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::core_env::CoreWaker;
use crate::park::ParkWord;

/// Wakes one core; cheap while that core is awake.
#[derive(Clone)]
pub struct RemoteWaker {
    target: Arc<Target>,
}

struct Target {
    word: ParkWord,
    event: OwnedFd,
}

impl RemoteWaker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and nothing else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { target: Arc::new(Target { word: ParkWord::new(), event }) })
    }

    pub(crate) fn word(&self) -> &ParkWord {
        &self.target.word
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.target.event.as_raw_fd()
    }

    /// The count in the eventfd is never read back: the core's poll fires for every write.
    fn ring_bell(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is valid for reading eight bytes.
        let written =
            unsafe { libc::write(self.target.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "an eventfd takes 2^64 wake-ups: {}", io::Error::last_os_error());
    }
}

impl CoreWaker for RemoteWaker {
    fn wake(&self) {
        if self.target.word.notify() {
            self.ring_bell();
        }
    }
}

impl std::fmt::Debug for RemoteWaker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RemoteWaker(eventfd {})", self.target.event.as_raw_fd())
    }
}
