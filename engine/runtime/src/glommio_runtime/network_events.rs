//! The network's part of a turn: what has happened to sockets, and what follows from it.

use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::io::AsyncRead;

use super::connection::Connection;
use super::network::GlommioNetwork;
use crate::clock::monotonic_nanoseconds;
use crate::connection::Closing;
use crate::executor::QUANTUM;
use crate::network::{Network, Service};
use crate::network_events::{
    ACCEPT_RETRY_NANOSECONDS, ACCEPTS_PER_TURN, LINGER_BYTES_MAX, LINGER_NANOSECONDS, LINGERING_MAX,
};
use crate::operations::Key;
use crate::output_queue::OutputQueue;
use crate::sockets;

/// Connections that a turn receives from at most.
const CONNECTIONS_PER_TURN: usize = 64;
/// Buffers that a turn takes from one of them at most.
const RECEIVES_PER_TURN: usize = 2;

impl GlommioNetwork {
    /// Tells the service what has happened, for as long as a turn has.
    pub(super) fn happen<S: Service<Self>>(
        &mut self,
        service: &mut S,
        now: u64,
        context: &mut Context<'_>,
    ) {
        for key in std::mem::take(&mut self.drained) {
            let is_open = |connection: &Connection| connection.closing == Closing::No;
            if self.connections.get(key).is_some_and(is_open) {
                service.drained(self, key.into());
            }
        }
        for index in 0..self.listeners.len() {
            self.accept(service, index, now, context);
        }
        let mut ready = self.ready.take();
        let mut taken = 0;
        for key in &ready {
            if taken == CONNECTIONS_PER_TURN || monotonic_nanoseconds() - now >= QUANTUM {
                break;
            }
            taken += 1;
            self.attend(service, *key);
        }
        ready.drain(..taken);
        self.ready.put_back(ready);
    }

    fn accept<S: Service<Self>>(
        &mut self,
        service: &mut S,
        index: usize,
        now: u64,
        context: &mut Context<'_>,
    ) {
        if self.listeners[index].retry_at > now {
            return;
        }
        self.listeners[index].retry_at = 0;
        let shared = Rc::clone(&self.shared);
        for _ in 0..ACCEPTS_PER_TURN {
            let (stream, peer) = match self.listeners[index].poll_accept(&shared, context) {
                Poll::Pending => return,
                Poll::Ready(Ok(accepted)) => accepted,
                Poll::Ready(Err(error)) => {
                    if self.accept_failed(index, &error, now) {
                        return;
                    }
                    continue;
                }
            };
            let key = self.connections.insert(Connection::new(stream));
            let ready = std::sync::Arc::clone(&self.ready);
            self.change(key, |connection| connection.name(key, &ready));
            if !service.connected(self, key.into(), index, Some(peer)) {
                self.close_after_output(key.into());
            }
        }
        // There may be more of them.
        context.waker().wake_by_ref();
    }

    /// Returns whether the listener is to be left alone for a while.
    fn accept_failed(&mut self, index: usize, error: &std::io::Error, now: u64) -> bool {
        let is_of_one_client = matches!(
            error.raw_os_error(),
            Some(
                libc::EAGAIN
                    | libc::EINTR
                    | libc::ECONNABORTED
                    | libc::ECANCELED
                    | libc::EPROTO
                    | libc::ENOTCONN
            )
        );
        if is_of_one_client {
            return false;
        }
        self.listeners[index].retry_at = now + ACCEPT_RETRY_NANOSECONDS;
        if !self.has_warned_of_limit {
            self.has_warned_of_limit = true;
            let connections = self.connections.len();
            tracing::warn!(%error, connections, "cannot accept; trying again ten times a second");
        }
        true
    }

    /// Looks at a connection whose socket has become ready.
    fn attend<S: Service<Self>>(&mut self, service: &mut S, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.mark().note_taken();
        connection.is_awaited = false;
        if connection.outgoing.is_sending() {
            self.send(key);
            self.change(key, |_| {});
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..RECEIVES_PER_TURN {
            let Some(connection) = self.connections.get_mut(key) else { break };
            if !connection.wants_receive() {
                break;
            }
            let (stream, waker, _) = connection.socket();
            let mut context = Context::from_waker(waker);
            match Pin::new(stream).poll_read(&mut context, &mut buffer) {
                Poll::Pending => {
                    connection.is_awaited = true;
                    break;
                }
                Poll::Ready(Ok(len)) => self.received(service, key, &buffer[..len]),
                Poll::Ready(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(_)) => self.close_key(key),
            }
        }
        self.buffer = buffer;
        // One that has more comes again when the turn ends, behind the others.
        self.change(key, |_| {});
    }

    /// Takes bytes that have arrived in; none are the end.
    fn received<S: Service<Self>>(&mut self, service: &mut S, key: Key, bytes: &[u8]) {
        let connection = self.connections.get_mut(key).expect("it has just received");
        let is_open = connection.closing == Closing::No;
        connection.has_peer_ended |= bytes.is_empty();
        if !is_open {
            self.note_discarded(key, bytes.len());
        } else if bytes.is_empty() {
            service.ended(self, key.into());
        } else {
            service.received(self, key.into(), bytes);
        }
    }

    /// Notes what a connection that closes has received, or that its peer has ended.
    fn note_discarded(&mut self, key: Key, bytes: usize) {
        self.change(key, |connection| {
            if connection.closing == Closing::Lingering {
                connection.discarded = connection.discarded.saturating_add(bytes);
                let is_much = connection.discarded > LINGER_BYTES_MAX as usize;
                if connection.has_peer_ended || is_much {
                    connection.closing = Closing::Now;
                }
            }
        });
    }

    /// Does what the turn's changes call for.
    pub(super) fn flush<S: Service<Self>>(&mut self, service: &mut S, now: u64) {
        self.end_lingering(now);
        // A service that is told of a closed connection may append to others.
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for key in dirty.drain(..) {
                self.flush_connection(service, key, now);
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
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

    fn flush_connection<S: Service<Self>>(&mut self, service: &mut S, key: Key, now: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_dirty = false;
        connection.outgoing.note_high_water(self.high_water);
        self.send(key);
        let connection = self.connections.get_mut(key).expect("sending removes nothing");
        if connection.closing == Closing::AfterOutput && connection.outgoing.pending() == 0 {
            let is_told = sockets::finish_sending(connection.stream.as_raw_fd());
            let is_over = connection.has_peer_ended || !is_told;
            connection.closing = if is_over { Closing::Now } else { Closing::Lingering };
            if !is_over {
                self.lingering.push_back((key, now + LINGER_NANOSECONDS));
            }
        }
        self.count_output(key);
        let connection = self.connections.get_mut(key).expect("it was there");
        if connection.closing == Closing::Now {
            self.end(service, key);
            return;
        }
        if connection.wants_receive() && !connection.is_awaited {
            connection.mark().list();
        }
        let output = &mut connection.outgoing.output;
        if output.is_empty() && output.bytes().capacity() > 0 {
            let unused = std::mem::take(output).into_buffer();
            self.recycle_output(unused);
            self.count_output(key);
        }
    }

    /// Takes a connection off the table; its socket closes.
    fn end<S: Service<Self>>(&mut self, service: &mut S, key: Key) {
        let mut connection = self.connections.remove(key).expect("the caller has just seen it");
        self.output_memory -= connection.counted;
        let output: OutputQueue = std::mem::take(&mut connection.outgoing.output);
        drop(connection);
        self.recycle_output(output.into_buffer());
        service.closed(key.into());
    }

    /// Whether a turn has something to do.
    pub(super) fn is_changed(&self) -> bool {
        !self.dirty.is_empty() || !self.drained.is_empty() || !self.ready.is_empty()
    }

    /// When [`GlommioNetwork::flush`] or an accept is due again, in nanoseconds.
    pub(super) fn deadline(&self) -> Option<u64> {
        let waiting = self.listeners.iter().filter(|listener| listener.is_waiting());
        let retry = waiting.map(|listener| listener.retry_at).min();
        let linger = self.lingering.front().map(|(_, until)| *until);
        retry.into_iter().chain(linger).min()
    }
}
