//! glommio's instance of [`Network`]: its sockets, and its accepts.
//!
//! The core's own task polls every socket itself: no task per connection. A socket that is ready
//! puts its connection into a list ([`Ready`]), and a turn takes bytes from those in the list into
//! one buffer that the whole core has. Large values are sent piece by piece, because glommio's
//! `poll_write` takes one slice.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::io::AsyncWrite;
use glommio::net::TcpListener;

use super::connection::{Connection, Ready};
use super::listener::Listener;
use super::shared::Shared;
use crate::connection::Closing;
use crate::network::{ConnectionId, Network};
use crate::operations::{Key, Slots};
use crate::output_queue::OutputQueue;
use crate::ring_network::ClientListener;
use crate::sockets;

/// A new output buffer's size, in bytes.
const OUTPUT_BYTES: usize = 4096;
/// Output buffers up to this size are kept for the next connection that needs one.
const SPARE_BYTES_MAX: usize = 64 << 10;
/// How many are kept.
const SPARE_BUFFERS_MAX: usize = 64;

/// A core's connections and listeners.
pub struct GlommioNetwork {
    pub(super) shared: Rc<Shared>,
    pub(super) connections: Slots<Connection>,
    pub(super) listeners: Vec<Listener>,
    pub(super) ready: Arc<Ready>,
    /// Connections to look at when the turn ends.
    pub(super) dirty: Vec<Key>,
    /// Connections whose services are to be told in the next turn that their output is down.
    pub(super) drained: Vec<Key>,
    pub(super) high_water: usize,
    /// What a turn receives into.
    pub(super) buffer: Vec<u8>,
    /// Connections whose peers have yet to end, and until when they may, in nanoseconds.
    pub(super) lingering: VecDeque<(Key, u64)>,
    pub(super) has_warned_of_limit: bool,
    /// The memory of all connections' output as of their last change.
    pub(super) output_memory: usize,
    spare: Vec<Vec<u8>>,
}

impl GlommioNetwork {
    pub(super) fn new(shared: Rc<Shared>, high_water: usize) -> Self {
        let ready = Ready::new(shared.tasks.main_waker.clone());
        Self {
            buffer: vec![0; shared.receive_buffer_bytes.max(1)],
            shared,
            connections: Slots::new(),
            listeners: Vec::new(),
            ready,
            dirty: Vec::new(),
            drained: Vec::new(),
            high_water,
            lingering: VecDeque::new(),
            has_warned_of_limit: false,
            output_memory: 0,
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
    /// If the socket does not take the options of its kind, or has a path: glommio looks for
    /// clients by making the listener non-blocking for a moment (`yolo_accept` in `net/mod.rs`),
    /// and such a listener is shared by all cores, one of which would find and leave it so.
    pub fn listen(&mut self, listener: ClientListener) -> usize {
        let ClientListener::Tcp(listener) = listener else {
            panic!("glommio cannot share a listener that has a path between cores");
        };
        sockets::prepare_listener(&listener).expect("a TCP listener takes TCP options");
        self.listeners.push(Listener::new(OwnedFd::from(listener)));
        self.listeners.len() - 1
    }

    pub(super) fn close_key(&mut self, key: Key) {
        self.change(key, |connection| connection.closing = Closing::Now);
        self.count_output(key);
    }

    /// Brings the sum of output memory up to date with a connection's.
    pub(super) fn count_output(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now = connection.output_memory();
        self.output_memory = self.output_memory - connection.counted + now;
        connection.counted = now;
    }

    /// Changes a connection, if it exists, and looks at it when the turn ends.
    pub(super) fn change(&mut self, key: Key, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        change(connection);
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Keeps an output buffer for the next connection that needs one, unless it has grown large.
    pub(super) fn recycle_output(&mut self, mut buffer: Vec<u8>) {
        let is_fit = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
        if is_fit && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Sends what a connection has, as far as its socket takes it; the socket wakes the connection
    /// when it takes more.
    pub(super) fn send(&mut self, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.closing == Closing::Now {
                return;
            }
            if !connection.outgoing.is_sending() && !connection.outgoing.start_send() {
                break;
            }
            let (sent, end) = write_pieces(connection);
            if sent > 0 {
                let buffer = connection.outgoing.note_sent(sent);
                if connection.outgoing.take_drained(self.high_water) {
                    self.drained.push(key);
                }
                if let Some(buffer) = buffer {
                    self.recycle_output(buffer);
                }
            }
            match end {
                Written::All => {}
                Written::Full => {
                    // What is left stays under way until the socket takes it.
                    let connection = self.connections.get_mut(key).expect("it was just there");
                    if !connection.outgoing.is_sending() {
                        connection.outgoing.start_send();
                    }
                    break;
                }
                Written::Broken => {
                    self.close_key(key);
                    return;
                }
            }
        }
        self.count_output(key);
    }
}

/// How a write of pieces has ended.
enum Written {
    All,
    /// The socket has no room.
    Full,
    /// There is no peer any more.
    Broken,
}

/// Writes what is being sent, piece by piece; returns how many bytes of it were taken.
fn write_pieces(connection: &mut Connection) -> (usize, Written) {
    let (stream, waker, outgoing) = connection.socket();
    let mut context = Context::from_waker(waker);
    let mut sent = 0;
    for piece in outgoing.unsent() {
        let mut left = piece;
        while !left.is_empty() {
            match Pin::new(&mut *stream).poll_write(&mut context, left) {
                Poll::Ready(Ok(0)) => return (sent, Written::Broken),
                Poll::Ready(Ok(written)) => {
                    let written = written.min(left.len());
                    sent += written;
                    left = &left[written..];
                }
                Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(_)) => return (sent, Written::Broken),
                Poll::Pending => return (sent, Written::Full),
            }
        }
    }
    (sent, Written::All)
}

/// A socket as glommio's listener.
pub(super) fn glommio_listener(socket: OwnedFd) -> TcpListener {
    // SAFETY: the descriptor is open and handed over.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}

/// Makes accepts from a socket end, those under way included.
pub(super) fn end_listening(socket: &impl AsRawFd) {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::ENOTCONN), "shutdown: {error}");
}

impl Network for GlommioNetwork {
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
        let connection = self.connections.get(connection.into());
        connection.map_or(0, |connection| connection.outgoing.pending())
    }

    fn output_memory_of(&self, connection: ConnectionId) -> usize {
        self.connections.get(connection.into()).map_or(0, Connection::output_memory)
    }

    fn output_memory(&self) -> usize {
        self.output_memory
    }

    fn spare_memory(&self) -> usize {
        self.spare.iter().map(Vec::capacity).sum()
    }

    fn buffer_shortages(&self) -> u64 {
        0
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
            listener.stop();
        }
    }
}

impl std::fmt::Debug for GlommioNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (connections, listeners) = (self.connections.len(), self.listeners.len());
        write!(formatter, "GlommioNetwork({connections} connections, {listeners} listeners)")
    }
}
