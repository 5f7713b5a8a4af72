//! The ring's instance of [`Network`]: connections over TCP, or to a path of this machine.
//!
//! Bytes go from the kernel's receive buffer to [`received`](crate::network::Service::received)
//! without a copy, and the replies of a turn leave in one send per connection. While a send is in
//! the ring, new output gathers in a second queue. Buffers are held only while there is output, so
//! an idle connection costs its table entry.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::connection::{Closing, Connection};
use crate::network::{ConnectionId, Network};
use crate::operations::{Key, Slots};
use crate::output_queue::OutputQueue;
use crate::ring::Completion;
use crate::sockets;

/// A new output buffer's size, in bytes.
const OUTPUT_BYTES: usize = 4096;
/// Output buffers up to this size are kept for the next connection that needs one.
const SPARE_BYTES_MAX: usize = 64 << 10;
/// How many are kept.
const SPARE_BUFFERS_MAX: usize = 64;

/// A socket that clients connect to.
#[derive(Debug)]
pub enum ClientListener {
    /// By an address and a port.
    Tcp(TcpListener),
    /// By a path of this machine. Several cores may have the same socket.
    Local(UnixListener),
}

impl ClientListener {
    /// Sets on a TCP socket that is going to listen what its clients' connections are to have.
    ///
    /// To be called before it listens: connections that the kernel makes before a core accepts them
    /// have only what was set by then. Without it small answers wait for the client to acknowledge
    /// earlier ones, which takes it some 40 ms.
    ///
    /// # Errors
    ///
    /// If it is not a TCP socket.
    pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
        sockets::set_client_options(socket.as_fd().as_raw_fd())
    }
}

impl From<TcpListener> for ClientListener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

pub(crate) struct Listener {
    pub(crate) fd: Option<OwnedFd>,
    /// Whether its clients have addresses.
    pub(crate) has_addresses: bool,
    /// Accepts in the ring.
    pub(crate) armed: usize,
    pub(crate) is_stopping: bool,
    /// Not to be armed before that time, in nanoseconds.
    pub(crate) retry_at: u64,
}

/// A core's connections and listeners.
pub struct RingNetwork {
    pub(crate) connections: Slots<Connection>,
    pub(crate) listeners: Vec<Listener>,
    /// Whether a listener waits to be armed, cancelled or closed.
    pub(crate) has_listener_change: bool,
    /// Connections to look at when the turn ends.
    pub(crate) dirty: Vec<Key>,
    /// Completions that came while no service ran.
    pub(crate) held: VecDeque<Completion>,
    pub(crate) high_water: usize,
    pub(crate) receive_buffer_bytes: usize,
    pub(crate) has_warned_of_limit: bool,
    /// Connections to probe, and when, in nanoseconds; 0 while there are none.
    pub(crate) to_be_probed: Vec<Key>,
    pub(crate) probe_at: u64,
    /// Connections whose peers have yet to end, and until when they may, in nanoseconds.
    pub(crate) lingering: VecDeque<(Key, u64)>,
    /// The memory of all connections' output, without the last changes of those that are dirty.
    pub(crate) output_memory: usize,
    /// Receives that ended because no buffer was free.
    pub(crate) buffer_shortages: u64,
    spare: Vec<Vec<u8>>,
}

impl RingNetwork {
    pub(crate) fn new(output_high_water: usize, receive_buffer_bytes: usize) -> Self {
        Self {
            connections: Slots::new(),
            listeners: Vec::new(),
            has_listener_change: false,
            dirty: Vec::new(),
            held: VecDeque::new(),
            high_water: output_high_water,
            receive_buffer_bytes,
            has_warned_of_limit: false,
            to_be_probed: Vec::new(),
            probe_at: 0,
            lingering: VecDeque::new(),
            output_memory: 0,
            buffer_shortages: 0,
            spare: Vec::new(),
        }
    }

    /// Connections that are not gone yet.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Accepts connections from `listener` while a service runs. Returns the index that
    /// [`Service::connected`](crate::network::Service::connected) is given.
    ///
    /// # Panics
    ///
    /// If the socket does not take the options of its kind.
    pub fn listen(&mut self, listener: impl Into<ClientListener>) -> usize {
        let (fd, has_addresses) = match listener.into() {
            ClientListener::Tcp(listener) => {
                sockets::prepare_listener(&listener).expect("a TCP listener takes TCP options");
                (OwnedFd::from(listener), true)
            }
            ClientListener::Local(listener) => {
                sockets::prepare_local_listener(&listener).expect("a listener takes a backlog");
                (OwnedFd::from(listener), false)
            }
        };
        let listener =
            Listener { fd: Some(fd), has_addresses, armed: 0, is_stopping: false, retry_at: 0 };
        self.listeners.push(listener);
        self.has_listener_change = true;
        self.listeners.len() - 1
    }

    /// When [`RingNetwork::flush`] is due again, in nanoseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let probe = (self.probe_at != 0).then_some(self.probe_at);
        let linger = self.lingering.front().map(|(_, until)| *until);
        self.retry_at().into_iter().chain(probe).chain(linger).min()
    }

    /// When a listener that had to wait may be armed again, in nanoseconds.
    pub(crate) fn retry_at(&self) -> Option<u64> {
        let waiting = |listener: &&Listener| listener.armed == 0 && !listener.is_stopping;
        self.listeners.iter().filter(waiting).map(|listener| listener.retry_at).min()
    }

    /// Whether [`RingNetwork::flush`] has something to do.
    pub(crate) fn is_changed(&self) -> bool {
        self.has_listener_change || !self.dirty.is_empty()
    }

    pub(crate) fn close_key(&mut self, key: Key) {
        self.change(key, |connection| connection.closing = Closing::Now);
        self.count_output(key);
    }

    /// Brings the sum of output memory up to date with a connection's.
    pub(crate) fn count_output(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now = connection.output_memory();
        self.output_memory = self.output_memory - connection.counted + now;
        connection.counted = now;
    }

    /// Changes a connection, if it exists, and looks at it when the turn ends.
    pub(crate) fn change(&mut self, key: Key, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        change(connection);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(key);
        }
    }

    /// Keeps an output buffer for the next connection that needs one, unless it has grown large.
    pub(crate) fn recycle_output(&mut self, mut buffer: Vec<u8>) {
        let is_fit = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
        if is_fit && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

impl Network for RingNetwork {
    #[inline]
    fn output(&mut self, connection: ConnectionId) -> Option<&mut OutputQueue> {
        let key = connection.into();
        let connection = self.connections.get_mut(key)?;
        if connection.closing != Closing::No {
            return None;
        }
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(key);
        }
        let output = &mut connection.outgoing.output;
        if output.bytes().capacity() == 0 {
            let spare = self.spare.pop();
            *output.bytes() = spare.unwrap_or_else(|| Vec::with_capacity(OUTPUT_BYTES));
        }
        Some(output)
    }

    fn output_pending(&self, connection: ConnectionId) -> usize {
        self.connections
            .get(connection.into())
            .map_or(0, |connection| connection.outgoing.pending())
    }

    fn output_memory_of(&self, connection: ConnectionId) -> usize {
        self.connections.get(connection.into()).map_or(0, Connection::output_memory)
    }

    fn output_memory(&self) -> usize {
        let changed = self.dirty.iter().filter_map(|key| self.connections.get(*key));
        changed.fold(self.output_memory, |sum, connection| {
            sum - connection.counted + connection.output_memory()
        })
    }

    fn spare_memory(&self) -> usize {
        self.spare.iter().map(Vec::capacity).sum()
    }

    fn buffer_shortages(&self) -> u64 {
        self.buffer_shortages
    }

    fn expect_drained(&mut self, connection: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(connection.into()) {
            connection.outgoing.expect_drained();
        }
    }

    fn pause(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| connection.is_paused = true);
    }

    fn resume(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| connection.is_paused = false);
    }

    fn close(&mut self, connection: ConnectionId) {
        self.close_key(connection.into());
    }

    fn close_after_output(&mut self, connection: ConnectionId) {
        self.change(connection.into(), |connection| {
            if connection.closing == Closing::No {
                connection.closing = Closing::AfterOutput;
            }
        });
    }

    fn stop_listening(&mut self) {
        for listener in &mut self.listeners {
            listener.is_stopping = true;
        }
        self.has_listener_change = true;
    }
}

impl std::fmt::Debug for RingNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (connections, listeners) = (self.connections.len(), self.listeners.len());
        write!(formatter, "RingNetwork({connections} connections, {listeners} listeners)")
    }
}

#[cfg(test)]
mod tests;
