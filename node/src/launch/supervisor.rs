//! A running node, as those who started it see it.

use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use larder_runtime::wake::RemoteWaker;

use super::{Addresses, RunError};
use crate::admin::Admin;
use crate::control::{Control, Event};
use crate::limits::{DRAIN_MILLISECONDS, FAILED_DRAIN_MILLISECONDS};

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
    /// Asks the node to stop in good order. [`RunningNode::join`] sees to it.
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
    cores: Vec<CoreHandle>,
    threads: Vec<JoinHandle<()>>,
    admin: Admin,
    queues: Queues,
    /// Held until the last core has ended.
    lock: Option<File>,
}

impl RunningNode {
    pub(super) fn new(
        addresses: Addresses,
        cores: Vec<CoreHandle>,
        threads: Vec<JoinHandle<()>>,
        admin: Admin,
        queues: Queues,
        lock: File,
    ) -> Self {
        Self { addresses, cores, threads, admin, queues, lock: Some(lock) }
    }

    /// Where the node is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A handle that can stop the node.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.queues.events.clone())
    }

    /// Stops the node in good order: accepts no more, answers what was received, makes everything
    /// durable. [`RunningNode::join`] waits for it.
    pub fn stop(&self) {
        self.stopper().stop("asked to stop");
    }

    /// Waits until the node is asked to stop or fails, and then for its end.
    ///
    /// # Errors
    /// A shard whose writes failed, or a core that ended without being told to.
    pub fn join(mut self) -> Result<(), RunError> {
        self.supervise()
    }

    fn supervise(&mut self) -> Result<(), RunError> {
        let result = loop {
            match self.queues.event_queue.recv() {
                Ok(Event::StopRequested(reason)) => {
                    tracing::info!("stopping: {reason}");
                    break self.drain(DRAIN_MILLISECONDS);
                }
                Ok(Event::ShardStopped { shard, reason }) => {
                    tracing::error!(shard, "stopping because a shard takes no more writes");
                    break self
                        .drain(FAILED_DRAIN_MILLISECONDS)
                        .and(Err(RunError::ShardStopped { shard, reason }));
                }
                Ok(Event::Ended { core, result }) => break Err(unasked(core, result)),
                Ok(Event::Drained(_)) => {}
                Err(_) => break Ok(()),
            }
        };
        result.and(self.finish())
    }

    /// Lets the connections take their answers, for at most so long.
    fn drain(&self, milliseconds: u64) -> Result<(), RunError> {
        for core in &self.cores {
            core.tell(Control::Drain);
        }
        let deadline = now() + Duration::from_millis(milliseconds);
        let mut drained = 0;
        while drained < self.cores.len() {
            let left = deadline.saturating_duration_since(now());
            match self.queues.event_queue.recv_timeout(left) {
                Ok(Event::Drained(_)) => drained += 1,
                Ok(Event::Ended { core, result }) => return Err(unasked(core, result)),
                Ok(Event::StopRequested(_) | Event::ShardStopped { .. }) => {}
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("connections that did not take their answers are cut");
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// Ends the cores, then everything else.
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
            if let Event::Ended { core, result: Err(reason) } = event {
                result = Err(RunError::Core { core, reason });
            }
        }
        self.admin.stop();
        self.lock = None;
        result
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        if self.threads.is_empty() {
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
