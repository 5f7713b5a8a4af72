//! Waiting for what the node before this one still holds.
//!
//! The kernel gives a killed process's sockets and locks back a moment after its end: only when the
//! last operation of its rings is over. A start in a hurry waits for that, but not for long: what
//! is in use then belongs to somebody who runs.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::StartError;
use crate::control::Event;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);

/// How long a start waits in all, and who can cut it short.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    /// Where a request to stop arrives.
    events: &'a Receiver<Event>,
    limit: Duration,
    /// Set with the first wait.
    deadline: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// Waits for at most `limit` together.
    pub(super) fn new(events: &'a Receiver<Event>, limit: Duration) -> Self {
        Self { events, limit, deadline: None }
    }

    /// Calls `attempt` until it succeeds, fails with an error that `may_pass` does not expect to
    /// go away, or the time is up. Says so once if it waits.
    ///
    /// # Errors
    /// The last error of `attempt`, or that the node was asked to stop meanwhile.
    pub(super) fn retry<T>(
        &mut self,
        may_pass: impl Fn(&StartError) -> bool,
        mut attempt: impl FnMut() -> Result<T, StartError>,
    ) -> Result<T, StartError> {
        loop {
            match attempt() {
                Err(error) if may_pass(&error) && !self.is_over(&error) => self.pause()?,
                result => return result,
            }
        }
    }

    /// Whether the node was asked to stop, without waiting. It is asked to only once.
    ///
    /// # Errors
    /// That it was.
    pub(super) fn check(&self) -> Result<(), StartError> {
        self.wait_until(now())
    }

    fn is_over(&mut self, error: &StartError) -> bool {
        let deadline = *self.deadline.get_or_insert_with(|| {
            let seconds = self.limit.as_secs_f32();
            tracing::warn!(
                "{error}: trying again for {seconds} s, in case its owner has just died"
            );
            now() + self.limit
        });
        now() >= deadline
    }

    fn pause(&self) -> Result<(), StartError> {
        self.wait_until(now() + RETRY)
    }

    fn wait_until(&self, until: Instant) -> Result<(), StartError> {
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(now())) {
                Ok(Event::StopRequested(reason)) => return Err(StartError::Stopped { reason }),
                Ok(event) => tracing::debug!(?event, "came before the cores were started"),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the launcher has no core to ask")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn in_use() -> StartError {
        StartError::InUse { path: "/data".into() }
    }

    fn is_in_use(error: &StartError) -> bool {
        matches!(error, StartError::InUse { .. })
    }

    #[test]
    fn what_passes_is_waited_for() {
        let (_events, queue) = channel();
        let mut attempts = 0;
        let result = Patience::new(&queue, LONG).retry(is_in_use, || {
            attempts += 1;
            if attempts < 4 { Err(in_use()) } else { Ok(attempts) }
        });
        assert_eq!(result.expect("the fourth attempt succeeds"), 4);
    }

    #[test]
    fn other_errors_and_the_end_of_patience_end_it() {
        let (_events, queue) = channel();
        let mut attempts = 0;
        let result: Result<(), _> = Patience::new(&queue, LONG).retry(is_in_use, || {
            attempts += 1;
            Err(StartError::Stopped { reason: "test" })
        });
        assert!(result.is_err() && attempts == 1);
        let mut patience = Patience::new(&queue, Duration::ZERO);
        let error = patience.retry(is_in_use, || Err::<(), _>(in_use())).expect_err("no time");
        assert!(error.to_string().contains("another larder"), "{error}");
    }

    #[test]
    fn a_request_to_stop_cuts_it_short() {
        let (events, queue) = channel();
        events.send(Event::StopRequested("a test")).expect("the queue is there");
        let stopped = Patience::new(&queue, LONG).retry(is_in_use, || Err::<(), _>(in_use()));
        assert!(matches!(stopped, Err(StartError::Stopped { reason: "a test" })), "{stopped:?}");
    }
}
