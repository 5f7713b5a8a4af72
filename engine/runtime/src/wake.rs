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
    /// Eight bytes that are written to it end the owner's sleep.
    event: OwnedFd,
    /// The other end of it, if it has one: a wake-up may come when the owner is gone.
    #[cfg(feature = "runtime-glommio")]
    _end: Option<OwnedFd>,
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
        let target = Target {
            word: ParkWord::new(),
            event,
            #[cfg(feature = "runtime-glommio")]
            _end: None,
        };
        Ok(Self { target: Arc::new(target) })
    }

    /// A waker that writes to one end of a pair of sockets, and the end that its owner reads.
    #[cfg(feature = "runtime-glommio")]
    pub(crate) fn on_sockets() -> io::Result<(Self, OwnedFd)> {
        let (event, end) = std::os::unix::net::UnixStream::pair()?;
        let read = OwnedFd::from(end.try_clone()?);
        let (event, end) = (OwnedFd::from(event), Some(OwnedFd::from(end)));
        let target = Target { word: ParkWord::new(), event, _end: end };
        Ok((Self { target: Arc::new(target) }, read))
    }

    pub(crate) fn word(&self) -> &ParkWord {
        &self.target.word
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.target.event.as_raw_fd()
    }

    /// The count in the eventfd is never read back: the core's poll fires for every write. A pair
    /// of sockets never fills: there is one wake-up at most for each sleep.
    fn ring_bell(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is valid for reading eight bytes.
        let written =
            unsafe { libc::write(self.target.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "a wake-up always finds room: {}", io::Error::last_os_error());
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
