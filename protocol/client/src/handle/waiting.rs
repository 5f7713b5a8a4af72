//! How a thread waits: it reads the answers itself where nobody else does, and parks else.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::client_core::ClientCore;
use super::lane::Lane;
use super::link::Reader;
use super::operation::Operation;
use crate::clock::now;

/// Connections that a thread reads at a time. Those beyond are read by their lanes' threads.
const READ_AT_ONCE: usize = 16;

/// A time that a socket's own timeout measures well enough. Shorter ones are left to `poll`, whose
/// clock is finer, at the cost of a call more.
const LONG: Duration = Duration::from_millis(100);

/// Wakes a thread.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// What a thread waits with.
struct Waiting {
    waker: Waker,
    readers: Cell<Readers>,
}

thread_local! {
    static WAITING: Waiting = Waiting {
        waker: Waker::from(Arc::new(Parked(std::thread::current()))),
        readers: Cell::default(),
    };
}

/// Waits until the future is ready. The keeper ends every call at its deadline.
pub(super) fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    /// Ends the reading however the waiting ends.
    struct Reading;
    impl Drop for Reading {
        fn drop(&mut self) {
            stop_reading();
        }
    }
    let _reading = Reading;
    let waker = WAITING.try_with(|waiting| waiting.waker.clone());
    // A thread that is ending has no such waker any more.
    let waker = waker.unwrap_or_else(|_| Waker::from(Arc::new(Parked(std::thread::current()))));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut context) {
            return output;
        }
        stop_reading();
        std::thread::park();
    }
}

/// Leaves it to others to read, before this thread does something that may take long.
pub(super) fn stop_reading() {
    let _ = WAITING.try_with(|waiting| {
        let mut readers = waiting.readers.take();
        readers.put_back();
        waiting.readers.set(readers);
    });
}

/// Sends what was begun. Where it is this thread that waits for the request, in [`wait`], it reads
/// until there is an answer, or for as long as it can.
pub(super) fn send_and_read(core: &ClientCore, operation: &Operation, waker: &Waker) {
    let has_read = WAITING.try_with(|waiting| {
        if !waiting.waker.will_wake(waker) || operation.hedge_at.is_some() {
            return false;
        }
        let mut readers = waiting.readers.take();
        readers.read_for(core, operation);
        waiting.readers.set(readers);
        true
    });
    if !has_read.unwrap_or(false) {
        core.flush();
    }
}

/// The connections that a thread reads.
#[derive(Default)]
struct Readers {
    taken: Vec<Taken>,
}

/// One of them.
struct Taken {
    lane: Arc<Lane>,
    epoch: u64,
    reader: Reader,
}

impl Readers {
    /// Sends what was begun, and reads until the request is settled, or is with somebody else.
    fn read_for(&mut self, core: &ClientCore, operation: &Operation) {
        core.flush_with(|lane| self.flush(lane));
        while !operation.is_settled() && self.has(operation.lane()) {
            let left = operation.deadline().saturating_duration_since(now());
            if left.is_zero() || !self.read(core, left) {
                return;
            }
        }
    }

    fn flush(&mut self, lane: &Arc<Lane>) {
        if !lane.is_dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        if self.taken.len() >= READ_AT_ONCE || self.has(lane.number) {
            lane.flush();
        } else if let Some((reader, epoch)) = lane.flush_to_read() {
            self.taken.push(Taken { lane: Arc::clone(lane), epoch, reader });
        }
    }

    /// Whether this lane is one of them.
    fn has(&self, lane: u64) -> bool {
        self.taken.iter().any(|taken| taken.lane.number == lane)
    }

    /// Reads what comes in so much time at most; whether to go on with what is left of that.
    fn read(&mut self, core: &ClientCore, left: Duration) -> bool {
        if self.taken.len() > 1 || left < LONG {
            return self.poll(core, left);
        }
        // A power of two, so that it seldom is another one than the socket knows.
        let micros = 1 << left.as_micros().ilog2();
        self.read_from(0, core, Duration::from_micros(micros));
        true
    }

    /// The same of several connections, or where the end of the time is near.
    fn poll(&mut self, core: &ClientCore, left: Duration) -> bool {
        let Ok(timeout) = Timespec::try_from(left) else { return false };
        let streams = self.taken.iter().map(|taken| &**taken.reader.stream());
        let mut polled: Vec<_> = streams.map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(Errno::INTR) => return true,
            Err(_) => return false,
        }
        let is_ready: Vec<bool> =
            polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        // From the last one on, so that what goes moves none that is still to be looked at.
        for (at, _) in is_ready.iter().enumerate().rev().filter(|(_, is_ready)| **is_ready) {
            self.read_from(at, core, LONG);
        }
        true
    }

    fn read_from(&mut self, at: usize, core: &ClientCore, at_most: Duration) {
        let Taken { lane, epoch, reader } = &mut self.taken[at];
        if let Err(why) = lane.read_once((reader, *epoch), core, at_most) {
            lane.break_off(*epoch, why);
            self.taken.swap_remove(at).put_back();
        }
    }

    fn put_back(&mut self) {
        self.taken.drain(..).for_each(Taken::put_back);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.put_back();
    }
}

impl Taken {
    fn put_back(self) {
        self.lane.put_back(self.reader, self.epoch);
    }
}
