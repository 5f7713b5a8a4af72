//! A running node, as those who started it see it.

use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use larder_runtime::core_env::CoreWaker;
use larder_runtime::wake::RemoteWaker;

use super::{Addresses, RunError};
use crate::admin::Admin;
use crate::control::{Control, Event};
use crate::limits::{DRAIN_MILLISECONDS, FAILED_DRAIN_MILLISECONDS};
use crate::log::LogControl;

/// How to reach a core.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    pub(super) control: Sender<Control>,
    pub(super) waker: Option<RemoteWaker>,
}

impl CoreHandle {
    /// Sends a message; false if the core has ended.
    pub fn tell(&self, message: Control) -> bool {
        let is_heard = self.control.send(message).is_ok();
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        is_heard
    }
}

/// Both ends of the queue that the cores report to.
#[derive(Debug)]
pub(super) struct Queues {
    pub events: Sender<Event>,
    pub event_queue: Receiver<Event>,
}

/// Asks a node to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    pub(super) fn new(queues: &Queues) -> Self {
        Self(queues.events.clone())
    }

    /// Asks the node to stop in good order. [`RunningNode::join`] sees to it, or the start if that
    /// has not ended.
    pub fn stop(&self, reason: &'static str) {
        if self.0.send(Event::StopRequested(reason)).is_err() {
            tracing::debug!("the node has ended already");
        }
    }
}

/// A node that runs. Dropping it stops it.
#[derive(Debug)]
pub struct RunningNode {
    addresses: Addresses,
    supervisor: Supervisor,
    admin: Admin,
    /// Held until the last core has ended.
    lock: Option<File>,
}

/// The cores and what they report.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub cores: Vec<CoreHandle>,
    pub threads: Vec<JoinHandle<()>>,
    pub queues: Queues,
    /// What clients may change of the log.
    pub log: Option<LogControl>,
}

impl RunningNode {
    pub(super) fn new(
        addresses: Addresses,
        supervisor: Supervisor,
        admin: Admin,
        lock: File,
    ) -> Self {
        Self { addresses, supervisor, admin, lock: Some(lock) }
    }

    /// Where the node is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// A handle that can stop the node.
    pub fn stopper(&self) -> Stopper {
        Stopper::new(&self.supervisor.queues)
    }

    /// Stops the node in good order: accepts no more, answers what was received, makes everything
    /// durable. [`RunningNode::join`] waits for it.
    pub fn stop(&self) {
        self.stopper().stop("asked to stop");
    }

    /// Waits until the node is asked to stop or fails, and then for its end.
    ///
    /// # Errors
    /// A shard whose writes failed, at any time before its end, or a core that ended without being
    /// told to.
    pub fn join(mut self) -> Result<(), RunError> {
        self.supervise()
    }

    fn supervise(&mut self) -> Result<(), RunError> {
        let result = self.supervisor.run();
        self.admin.stop();
        self.lock = None;
        result
    }
}

impl Supervisor {
    /// Watches until the node is asked to stop or fails, and then ends it.
    fn run(&mut self) -> Result<(), RunError> {
        let result = loop {
            match self.queues.event_queue.recv() {
                Ok(Event::StopRequested(reason)) => {
                    tracing::info!("stopping: {reason}");
                    break self.drain(DRAIN_MILLISECONDS);
                }
                Ok(Event::ShardStopped { shard, reason }) => {
                    tracing::error!(shard, "stopping because a shard takes no more writes");
                    let failure: Result<(), RunError> =
                        Err(RunError::ShardStopped { shard, reason });
                    break failure.and(self.drain(FAILED_DRAIN_MILLISECONDS));
                }
                Ok(Event::Ended { core, result }) => break Err(unasked(core, result)),
                Ok(Event::LogLevel(level)) => {
                    if let Some(log) = &self.log {
                        log.set(level);
                    }
                }
                Ok(Event::Drained(_) | Event::Waker { .. } | Event::Opened { .. }) => {}
                Err(_) => break Ok(()),
            }
        };
        result.and(self.finish())
    }

    /// Lets the connections take their answers, for at most so long. A shard that stops meanwhile
    /// makes it an error, but the others' clients get their answers all the same.
    fn drain(&self, milliseconds: u64) -> Result<(), RunError> {
        for core in &self.cores {
            core.tell(Control::Drain);
        }
        let deadline = now() + Duration::from_millis(milliseconds);
        let mut result = Ok(());
        let mut drained = 0;
        while drained < self.cores.len() {
            let left = deadline.saturating_duration_since(now());
            match self.queues.event_queue.recv_timeout(left) {
                Ok(Event::Drained(_)) => drained += 1,
                Ok(Event::Ended { core, result }) => return Err(unasked(core, result)),
                Ok(Event::ShardStopped { shard, reason }) => {
                    result = result.and(Err(RunError::ShardStopped { shard, reason }));
                }
                Ok(
                    Event::StopRequested(_)
                    | Event::Waker { .. }
                    | Event::Opened { .. }
                    | Event::LogLevel(_),
                ) => {}
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("connections that did not take their answers are cut");
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        result
    }

    /// Ends the cores.
    fn finish(&mut self) -> Result<(), RunError> {
        for core in &self.cores {
            core.tell(Control::Finish);
        }
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a core's thread panicked while it reported its end");
            }
        }
        while let Ok(event) = self.queues.event_queue.try_recv() {
            result = result.and(match event {
                Event::Ended { core, result: Err(reason) } => Err(RunError::Core { core, reason }),
                Event::ShardStopped { shard, reason } => {
                    Err(RunError::ShardStopped { shard, reason })
                }
                _ => Ok(()),
            });
        }
        result
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        if self.supervisor.threads.is_empty() {
            return;
        }
        self.stop();
        if let Err(error) = self.supervise() {
            tracing::error!("{error}");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the supervisor has no core to ask")]
fn now() -> Instant {
    Instant::now()
}

fn unasked(core: usize, result: Result<(), String>) -> RunError {
    let reason = result.err().unwrap_or_else(|| "it ended without being told to".to_owned());
    RunError::Core { core, reason }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// How a node of one core ends that reports `while_draining` when it is told to drain, and
    /// `at_the_end` when it is told to finish.
    #[allow(clippy::disallowed_methods, reason = "the core is a thread")]
    fn end(while_draining: Vec<Event>, at_the_end: Vec<Event>) -> Result<(), RunError> {
        let (events, event_queue) = channel();
        let (control, messages) = channel();
        let core_events = events.clone();
        let thread = std::thread::spawn(move || {
            for script in [while_draining, at_the_end] {
                messages.recv().expect("the supervisor says when");
                let mut send = |event| core_events.send(event).expect("the supervisor listens");
                script.into_iter().for_each(&mut send);
            }
        });
        events.send(Event::StopRequested("a test")).expect("the queue is there");
        let mut supervisor = Supervisor {
            cores: vec![CoreHandle { control, waker: None }],
            threads: vec![thread],
            queues: Queues { events, event_queue },
            log: None,
        };
        supervisor.run()
    }

    fn stopped() -> Event {
        Event::ShardStopped { shard: 3, reason: "a write failed".to_owned() }
    }

    fn ended(result: Result<(), String>) -> Event {
        Event::Ended { core: 0, result }
    }

    #[test]
    fn a_shard_that_stops_during_the_shutdown_is_a_failure() {
        end(vec![Event::Drained(0)], vec![ended(Ok(()))]).expect("a good end");
        let while_draining = end(vec![stopped(), Event::Drained(0)], vec![ended(Ok(()))]);
        let after_draining = end(vec![Event::Drained(0), stopped()], vec![ended(Ok(()))]);
        let closing = end(vec![Event::Drained(0)], vec![stopped(), ended(Err("late".into()))]);
        for result in [while_draining, after_draining, closing] {
            let error = result.expect_err("the shard has stopped");
            assert!(matches!(error, RunError::ShardStopped { shard: 3, .. }), "{error}");
        }
        let failed = end(vec![Event::Drained(0)], vec![ended(Err("cannot close".into()))]);
        assert!(matches!(failed, Err(RunError::Core { core: 0, .. })), "{failed:?}");
    }
}
