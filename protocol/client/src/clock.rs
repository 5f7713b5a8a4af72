//! The clocks of a client, which runs in any program and so has its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[allow(clippy::disallowed_methods, reason = "a client has a clock of its own")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a client has a clock of its own")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
