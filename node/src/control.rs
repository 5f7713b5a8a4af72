//! Messages between the supervisor and the cores. They are rare, so plain channels carry them.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use larder_runtime::wake::RemoteWaker;

use crate::config::IoChange;
use crate::counters::{CoreReport, ShardSpace};
use crate::namespaces::NamespaceTable;

/// To a core. Wake it afterwards.
#[derive(Debug)]
pub enum Control {
    /// Accept no more, answer what was received, close the connections, report
    /// [`Event::Drained`].
    Drain,
    /// Leave the loop.
    Finish,
    /// Send the core's figures.
    Report(Sender<CoreReport>),
    /// Change how classes of disk requests share the disk, and send whether that was done.
    ChangeIo(IoChange, Sender<Result<(), String>>),
    /// Send what the bytes of the core's shards are for.
    Space(Sender<Vec<ShardSpace>>),
}

/// To the launcher, and once the node serves, to the supervisor.
#[derive(Debug)]
pub enum Event {
    /// Stop the node: a client's `shutdown`, a signal, or [`crate::launch::RunningNode::stop`].
    StopRequested(&'static str),
    /// Log more or less, as [`crate::log::LogControl::set`] says.
    LogLevel(u32),
    /// The core has a ring, and this wakes it.
    Waker {
        /// The core.
        core: usize,
        /// Its waker.
        waker: RemoteWaker,
    },
    /// The core has its shards open.
    Opened {
        /// The core.
        core: usize,
        /// The namespaces, from the core with the shard that remembers them.
        namespaces: Option<Arc<NamespaceTable>>,
    },
    /// The core has no connections any more.
    Drained(usize),
    /// A shard takes no more writes.
    ShardStopped {
        /// The shard.
        shard: u16,
        /// Why.
        reason: String,
    },
    /// The core's thread has ended.
    Ended {
        /// The core.
        core: usize,
        /// Why, unless it was told to.
        result: Result<(), String>,
    },
}
