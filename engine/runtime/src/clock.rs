//! The core's clocks; the only place that reads them.

use std::cell::Cell;

/// The monotonic clock with the time of the current loop turn.
pub(crate) struct Clock {
    turn: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { turn: Cell::new(monotonic_nanoseconds()) }
    }

    /// The time at which the current turn started, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.turn.get()
    }

    /// Starts a turn and returns its time.
    pub(crate) fn start_turn(&self) -> u64 {
        let now = monotonic_nanoseconds();
        self.turn.set(now);
        now
    }
}

/// Nanoseconds since an arbitrary origin, read from the clock itself.
pub(crate) fn monotonic_nanoseconds() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Whole seconds since the Unix epoch. The coarse clock is a few milliseconds behind at most and
/// costs a memory read.
pub(crate) fn unix_seconds() -> u64 {
    u64::try_from(read(libc::CLOCK_REALTIME_COARSE).tv_sec).unwrap_or(0)
}

/// Microseconds since the Unix epoch.
pub(crate) fn unix_microseconds() -> u64 {
    let time = read(libc::CLOCK_REALTIME);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock {clock} exists on every kernel that has io_uring");
    time
}
