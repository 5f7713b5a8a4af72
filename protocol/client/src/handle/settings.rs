//! What a client was told when it was built.

use std::time::Duration;

use super::budget::Backoff;
use super::codec::Wire;
use crate::large::CHUNKS_UNDER_WAY;
use crate::once::ChangeName;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub wire: Wire,
    /// How the client calls itself.
    pub name: String,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long it may take to connect.
    pub connect_timeout: Duration,
    /// Connections to the port of each node.
    pub connections: usize,
    /// Whether each core of a node that offers it gets a connection of its own.
    pub core_connections: bool,
    /// Tries of a call.
    pub tries_max: u32,
    /// Whether each change that may be made once gets a name of its own.
    pub names_changes: bool,
    /// When a read is sent a second time.
    pub hedge_after: Option<Duration>,
    /// How long a connection may be silent before it is asked for a sign of life, and then again
    /// before it is given up.
    pub silence: Duration,
    /// How often a node is asked what it is.
    pub hello_every: Duration,
    /// Calls that may wait for a connection, and bytes of them.
    pub waiting_calls_max: usize,
    pub waiting_bytes_max: usize,
    /// Delays before a connection is tried again.
    pub reconnect: Backoff,
    /// Delays before a call is.
    pub retry: Backoff,
    /// Chunks of a large value that are under way at a time.
    pub chunks_under_way: usize,
    /// From how many bytes on values are compressed, if they are.
    pub compress_from: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wire: Wire::Native,
            name: "larder-client".to_owned(),
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            connections: 1,
            core_connections: true,
            tries_max: 3,
            names_changes: false,
            hedge_after: None,
            silence: Duration::from_secs(5),
            hello_every: Duration::from_secs(10),
            waiting_calls_max: 1 << 16,
            waiting_bytes_max: 64 << 20,
            reconnect: Backoff { first: Duration::from_millis(50), most: Duration::from_secs(5) },
            retry: Backoff { first: Duration::from_millis(10), most: Duration::from_secs(1) },
            chunks_under_way: CHUNKS_UNDER_WAY,
            compress_from: None,
        }
    }
}

impl Settings {
    /// A name for a change, if changes get one.
    pub(crate) fn name_change(&self) -> Option<ChangeName> {
        self.names_changes.then(ChangeName::new)
    }
}
