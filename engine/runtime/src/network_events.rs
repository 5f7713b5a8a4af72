//! The network's side of the loop: completions in, operations out.
//!
//! Handlers of completions change a connection's state and put it on the dirty list;
//! [`RingNetwork::flush`] then issues, once per turn, whatever operation that state calls for. A
//! connection leaves the table, and its descriptor is closed, when its last operation has ended.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::connection::{Closing, Connection, Receive, ReceiveChange, Sending};
use crate::network::{Network, Service};
use crate::operations::{Key, Kind, Port, Token};
use crate::ring::{Completion, Operation, Ring};
use crate::ring_network::RingNetwork;
use crate::sockets;

/// How long accepting waits after the process ran out of descriptors or memory.
pub(crate) const ACCEPT_RETRY_NANOSECONDS: u64 = 100_000_000;

/// Connections that a listener accepts in one turn at most. A multishot accept takes all that have
/// come, and the first bytes of each follow at once: clients that connect by the thousand would
/// keep the core from everybody else for as long.
pub(crate) const ACCEPTS_PER_TURN: usize = 8;

/// How long after their bytes silent connections are probed.
pub(crate) const PROBE_NANOSECONDS: u64 = 1_000_000_000;

/// How long a peer may take to end its side after it was told that nothing follows.
pub(crate) const LINGER_NANOSECONDS: u64 = 1_000_000_000;
/// How many bytes it may send in that time: what a client has typically under way.
pub(crate) const LINGER_BYTES_MAX: u32 = 4 << 20;
/// How many connections linger at a time: each holds a descriptor.
pub(crate) const LINGERING_MAX: usize = 256;

impl RingNetwork {
    /// Takes the completion of an accept, receive, send or connection's cancellation in.
    #[inline]
    pub(crate) fn complete<R: Ring, S: Service<Self>>(
        &mut self,
        port: &mut Port<R>,
        service: &mut S,
        completion: Completion,
        now: u64,
    ) {
        let token = Token::decode(completion.token);
        match token.kind {
            Kind::Receive => self.complete_receive(port, service, token.key, completion),
            Kind::Send => self.complete_send(service, token.key, completion.result),
            Kind::Accept => self.complete_accept(service, token.key, completion, now),
            Kind::CancelConnection => self.change(token.key, |connection| connection.awaited -= 1),
            kind => panic!("{kind:?} is not the network's"),
        }
    }

    fn complete_receive<R: Ring, S: Service<Self>>(
        &mut self,
        port: &mut Port<R>,
        service: &mut S,
        key: Key,
        completion: Completion,
    ) {
        let connection = self.connections.get_mut(key).expect("a receive keeps its connection");
        let is_open = connection.closing == Closing::No;
        if completion.result > 0 && connection.note_received() {
            self.to_be_probed.push(key);
        }
        if completion.result >= 0 {
            connection.note_receive(completion.result as usize, self.receive_buffer_bytes);
        }
        if completion.result == 0 {
            connection.has_peer_ended = true;
        }
        let has_missed = completion.more && connection.receive == Receive::Cancelling;
        if has_missed {
            // The kernel was at work on the receive when it looked for what to cancel.
            connection.receive = Receive::Armed;
        }
        if !completion.more {
            connection.awaited -= 1;
            connection.receive = Receive::Off;
        }
        if has_missed || !completion.more {
            self.change(key, |_| {});
        }
        match completion.result {
            0 if is_open => service.ended(self, key.into()),
            len @ 1.. if is_open => {
                let buffer = completion.buffer.expect("bytes come in a buffer");
                // SAFETY: the completion handed the buffer out with `len` bytes, and it is
                // recycled below.
                let bytes = unsafe { port.ring.received(buffer, len as usize) };
                service.received(self, key.into(), bytes);
            }
            0.. => self.note_discarded(key, completion.result as u32),
            error => self.receive_failed(key, -error),
        }
        if let Some(buffer) = completion.buffer {
            port.ring.recycle(buffer);
        }
    }

    /// Notes what a connection that closes has received, or that its peer has ended.
    fn note_discarded(&mut self, key: Key, bytes: u32) {
        self.change(key, |connection| {
            if connection.closing == Closing::Lingering {
                connection.discarded = connection.discarded.saturating_add(bytes);
                if connection.has_peer_ended || connection.discarded > LINGER_BYTES_MAX {
                    connection.closing = Closing::Now;
                }
            }
        });
    }

    /// Without a buffer, or interrupted, the receive is armed again when the turn ends, by which
    /// time the buffers are back. Cancelled, it is if the connection is not paused any more.
    fn receive_failed(&mut self, key: Key, errno: i32) {
        self.buffer_shortages += u64::from(errno == libc::ENOBUFS);
        if !matches!(errno, libc::ENOBUFS | libc::ECANCELED | libc::EAGAIN | libc::EINTR) {
            self.close_key(key);
        }
    }

    fn complete_send<S: Service<Self>>(&mut self, service: &mut S, key: Key, result: i32) {
        let connection = self.connections.get_mut(key).expect("a send keeps its connection");
        connection.awaited -= 1;
        let is_passing = matches!(-result, libc::EAGAIN | libc::EINTR);
        let is_broken = result <= 0 && !is_passing;
        let sent = connection.note_sent(usize::try_from(result).unwrap_or(0));
        let has_drained = connection.outgoing.take_drained(self.high_water);
        let is_open = connection.closing == Closing::No;
        let is_quiet = is_open && connection.outgoing.pending() == 0;
        if let Some(buffer) = sent {
            self.recycle_output(buffer);
        }
        self.count_output(key);
        if is_broken {
            self.close_key(key);
            return;
        }
        if !is_quiet {
            self.change(key, |_| {});
        }
        if has_drained && is_open {
            service.drained(self, key.into());
        }
    }

    fn complete_accept<S: Service<Self>>(
        &mut self,
        service: &mut S,
        key: Key,
        completion: Completion,
        now: u64,
    ) {
        let index = key.index as usize;
        self.listeners[index].armed -= 1;
        self.has_listener_change = true;
        if completion.result < 0 {
            self.accept_failed(index, -completion.result, now);
            return;
        }
        // SAFETY: the kernel has just opened the descriptor for this completion alone.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
        if self.listeners[index].is_stopping {
            return;
        }
        let (socket, peer) = if self.listeners[index].has_addresses {
            // A client that has reset the connection already has no address, and is forgotten.
            let Ok((socket, peer)) = sockets::peer_of(socket) else { return };
            (socket, Some(peer))
        } else {
            (socket, None)
        };
        let key = self.connections.insert(Connection::new(socket));
        self.change(key, |_| {});
        if !service.connected(self, key.into(), index, peer) {
            self.close_after_output(key.into());
        }
    }

    fn accept_failed(&mut self, index: usize, errno: i32, now: u64) {
        let is_of_one_client = matches!(
            errno,
            libc::EAGAIN | libc::EINTR | libc::ECONNABORTED | libc::ECANCELED | libc::EPROTO
        );
        if is_of_one_client {
            return;
        }
        self.listeners[index].retry_at = now + ACCEPT_RETRY_NANOSECONDS;
        if !self.has_warned_of_limit {
            self.has_warned_of_limit = true;
            let error = std::io::Error::from_raw_os_error(errno);
            let connections = self.connections.len();
            tracing::warn!(%error, connections, "cannot accept; trying again ten times a second");
        }
    }

    /// Issues the operations that the turn's changes call for.
    pub(crate) fn flush<R: Ring, S: Service<Self>>(
        &mut self,
        port: &mut Port<R>,
        service: &mut S,
        now: u64,
    ) {
        self.probe_silent(now);
        self.end_lingering(now);
        // A service that is told of a closed connection may append to others.
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for key in dirty.drain(..) {
                self.flush_connection(port, service, key, now);
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
        }
        let is_retry_due = || self.retry_at().is_some_and(|deadline| deadline <= now);
        if self.has_listener_change || is_retry_due() {
            self.has_listener_change = false;
            self.flush_listeners(port, now);
        }
    }

    /// Closes connections whose peers have not ended in time.
    fn end_lingering(&mut self, now: u64) {
        while let Some((key, until)) = self.lingering.front().copied() {
            if until > now && self.lingering.len() <= LINGERING_MAX {
                return;
            }
            self.lingering.pop_front();
            self.close_key(key);
        }
    }

    /// Tells the peer that nothing follows, and lets it read what was sent.
    fn start_lingering(&mut self, key: Key, now: u64) {
        let connection = self.connections.get_mut(key).expect("the caller has just seen it");
        let fd = connection.fd.as_raw_fd();
        let is_over = connection.has_peer_ended || !sockets::finish_sending(fd);
        connection.closing = if is_over { Closing::Now } else { Closing::Lingering };
        if !is_over {
            self.lingering.push_back((key, now + LINGER_NANOSECONDS));
        }
    }

    /// Looks for connections whose reset went unnoticed.
    ///
    /// A multishot receive that finds data and a reset at once reports the data, sees that no more
    /// is there, and waits for an event that has passed (seen on Linux 6.18). A send would find the
    /// reset, so only connections that have received and not sent since are asked, once, a while
    /// after their last bytes.
    fn probe_silent(&mut self, now: u64) {
        if self.to_be_probed.is_empty() {
            return;
        }
        if self.probe_at == 0 {
            self.probe_at = now + PROBE_NANOSECONDS;
        }
        if now < self.probe_at {
            return;
        }
        self.probe_at = 0;
        for key in std::mem::take(&mut self.to_be_probed) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.is_to_be_probed = false;
            if connection.is_unconfirmed && sockets::is_reset(connection.fd.as_raw_fd()) {
                self.close_key(key);
            }
        }
    }

    fn flush_connection<R: Ring, S: Service<Self>>(
        &mut self,
        port: &mut Port<R>,
        service: &mut S,
        key: Key,
        now: u64,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_dirty = false;
        if connection.closing == Closing::AfterOutput && connection.outgoing.pending() == 0 {
            self.start_lingering(key, now);
        }
        self.count_output(key);
        let connection = self.connections.get_mut(key).expect("it was there");
        if connection.closing == Closing::Now {
            self.flush_closing(port, service, key);
            return;
        }
        connection.outgoing.note_high_water(self.high_water);
        let fd = connection.fd.as_raw_fd();
        let mut has_list = false;
        if let Some(sending) = connection.start_send() {
            connection.awaited += 1;
            let token = Token::new(Kind::Send, key);
            has_list = matches!(sending, Sending::Pieces(_));
            let operation = match sending {
                Sending::Bytes(memory, len) => Operation::Send { fd, memory, len },
                Sending::Pieces(message) => Operation::SendPieces { fd, message },
            };
            // SAFETY: the memory belongs to the connection, which does not touch it before the
            // send's completion and stays in the table until then.
            unsafe { port.push(token, operation) };
        }
        let token = Token::new(Kind::Receive, key);
        match connection.receive_change() {
            ReceiveChange::None => {}
            ReceiveChange::Arm => {
                connection.receive = Receive::Armed;
                connection.awaited += 1;
                let once = connection.receives_once();
                port.push_plain(token, Operation::Receive { fd, once });
            }
            ReceiveChange::Cancel => {
                connection.receive = Receive::Cancelling;
                let cancel = Operation::Cancel { token: token.encode() };
                port.push_plain(Token::without_slot(Kind::Cancel), cancel);
            }
        }
        let output = &mut connection.outgoing.output;
        if output.is_empty() && output.bytes().capacity() > 0 {
            let unused = std::mem::take(output).into_buffer();
            self.recycle_output(unused);
            self.count_output(key);
        } else if has_list {
            self.count_output(key);
        }
    }

    fn flush_closing<R: Ring, S: Service<Self>>(
        &mut self,
        port: &mut Port<R>,
        service: &mut S,
        key: Key,
    ) {
        let connection = self.connections.get_mut(key).expect("the caller has just seen it");
        let output = std::mem::take(&mut connection.outgoing.output).into_buffer();
        if connection.awaited == 0 {
            self.output_memory -= connection.counted;
            self.connections.remove(key);
            self.recycle_output(output);
            service.closed(key.into());
            return;
        }
        if !connection.is_cancel_sent {
            connection.is_cancel_sent = true;
            connection.awaited += 1;
            let fd = connection.fd.as_raw_fd();
            let token = Token::new(Kind::CancelConnection, key);
            port.push_plain(token, Operation::CancelFile { fd });
        }
        self.recycle_output(output);
    }

    fn flush_listeners<R: Ring>(&mut self, port: &mut Port<R>, now: u64) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(fd) = listener.fd.as_ref().map(AsRawFd::as_raw_fd) else { continue };
            if listener.is_stopping {
                if listener.armed == 0 {
                    listener.fd = None;
                } else {
                    let token = Token::without_slot(Kind::Cancel);
                    port.push_plain(token, Operation::CancelFile { fd });
                }
                continue;
            }
            let key = Key { index: index as u32, generation: 0 };
            while listener.armed < ACCEPTS_PER_TURN && listener.retry_at <= now {
                listener.armed += 1;
                port.push_plain(Token::new(Kind::Accept, key), Operation::Accept { fd });
            }
        }
    }

    /// Takes a completion in when the core shuts down: nothing follows from it, but what it brings
    /// is given back.
    pub(crate) fn discard<R: Ring>(port: &mut Port<R>, completion: Completion) {
        if let Some(buffer) = completion.buffer {
            port.ring.recycle(buffer);
        }
        if Token::decode(completion.token).kind == Kind::Accept && completion.result >= 0 {
            // SAFETY: the kernel has opened the descriptor for this completion alone.
            drop(unsafe { OwnedFd::from_raw_fd(completion.result) });
        }
    }
}
