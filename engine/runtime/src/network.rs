//! The seam between a core's connections and who answers them.
//!
//! A [`Service`] is sans-I/O: it is told what has happened to connections, and says through
//! [`Network`] what becomes of them. The ring (production) and the simulation (tests) are the
//! instances; whoever drives a service keeps to the same order of calls:
//!
//! 1. [`Service::begin_turn`],
//! 2. what has happened: [`Service::connected`], [`Service::received`], [`Service::ended`],
//!    [`Service::drained`], a bounded number of them,
//! 3. the core's tasks, and then [`Service::turn`],
//! 4. what the connections' state calls for is begun (receive, send, close), where
//!    [`Service::closed`] may be called,
//! 5. [`Service::publish`].

use std::net::SocketAddr;

use crate::output_queue::OutputQueue;

/// A connection's name. It is never used for another connection of the same core, short of 2^28
/// connections in the same table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl From<ConnectionId> for u64 {
    fn from(id: ConnectionId) -> Self {
        (Self::from(id.generation) << 32) | Self::from(id.index)
    }
}

impl From<u64> for ConnectionId {
    fn from(id: u64) -> Self {
        Self { index: id as u32, generation: (id >> 32) as u32 }
    }
}

/// A core's connections, as the service that answers them sees them. Nothing here waits or fails:
/// what is asked for is begun when the turn ends, and how it has ended comes as a call of
/// [`Service`].
pub trait Network {
    /// The queue to append replies to; what is in it when the turn ends is sent. `None` if the
    /// connection is closed or closing.
    fn output(&mut self, connection: ConnectionId) -> Option<&mut OutputQueue>;

    /// Bytes appended that the peer's side has not accepted yet; 0 for a connection that is gone.
    fn output_pending(&self, connection: ConnectionId) -> usize;

    /// The memory that a connection's unsent output takes, in bytes.
    fn output_memory_of(&self, connection: ConnectionId) -> usize;

    /// The memory that unsent output of all connections takes, in bytes: also of what was appended
    /// since the turn began.
    fn output_memory(&self) -> usize;

    /// The memory of empty output buffers that are kept for use, in bytes.
    fn spare_memory(&self) -> usize;

    /// How often a receive ended because all receive buffers were in use, and was begun again.
    fn buffer_shortages(&self) -> u64;

    /// Has [`Service::drained`] called after a send, even if the output is below the high-water
    /// mark.
    fn expect_drained(&mut self, connection: ConnectionId);

    /// Stops receiving. Bytes that have been received already are still delivered.
    fn pause(&mut self, connection: ConnectionId);

    /// Receives again after [`Network::pause`].
    fn resume(&mut self, connection: ConnectionId);

    /// Closes the connection without sending what is left of its output.
    fn close(&mut self, connection: ConnectionId);

    /// Closes the connection when all its output is sent and the peer has had the time to read it.
    /// From now on no input is delivered and no output taken.
    fn close_after_output(&mut self, connection: ConnectionId);

    /// Accepts no more connections.
    fn stop_listening(&mut self);
}

/// What answers the connections of a core. All calls come from the core's own thread.
pub trait Service<N: Network> {
    /// The first call of a turn, and so the first after a sleep: what was learned about the time
    /// before is old. Between turns, [`Service::turn`] may be called without it.
    fn begin_turn(&mut self) {}

    /// A client connected to the listener of that index; one that came by a path has no address.
    /// False closes the connection once what the
    /// call put into its output has been sent; [`Service::closed`] follows.
    fn connected(
        &mut self,
        network: &mut N,
        connection: ConnectionId,
        listener: usize,
        peer: Option<SocketAddr>,
    ) -> bool;

    /// Bytes arrived. They live only for the call.
    fn received(&mut self, network: &mut N, connection: ConnectionId, bytes: &[u8]);

    /// The peer will send no more. The service answers what it has and then calls
    /// [`Network::close_after_output`].
    fn ended(&mut self, network: &mut N, connection: ConnectionId);

    /// The output, which had passed the high-water mark, is down to half of it.
    fn drained(&mut self, network: &mut N, connection: ConnectionId);

    /// The connection is gone: reset, failed, or closed by the service. Called exactly once for
    /// every [`Service::connected`], unless the core shuts down first.
    fn closed(&mut self, connection: ConnectionId);

    /// Called once per turn, after completions and tasks: polls mailboxes and releases replies.
    /// Returns whether it did anything, in which case the core does not sleep yet.
    fn turn(&mut self, network: &mut N) -> bool;

    /// The last call of a turn: publishes mailboxes and wakes their owners.
    fn publish(&mut self);

    /// What took most of what was done since [`Service::begin_turn`], for people. Asked only if
    /// that was too long.
    fn heaviest(&self) -> String {
        "the service".to_owned()
    }
}
