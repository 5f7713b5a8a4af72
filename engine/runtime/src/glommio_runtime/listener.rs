//! A listener: one accept of glommio's after the other.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use glommio::net::{TcpListener, TcpStream};

use super::file::kernel_error;
use super::network::{end_listening, glommio_listener};
use super::shared::{InFlight, Shared};

/// What an accept brings: a client and its address.
pub(super) type Accepted = std::io::Result<(TcpStream, SocketAddr)>;

enum State {
    /// The executor has not run since.
    New(OwnedFd),
    Open {
        socket: OwnedFd,
        listener: Rc<TcpListener>,
        accept: InFlight<Accepted>,
    },
    Closed,
}

pub(super) struct Listener {
    state: State,
    /// Not to be asked before that time, in nanoseconds.
    pub(super) retry_at: u64,
    is_stopping: bool,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { state: State::New(socket), retry_at: 0, is_stopping: false }
    }

    /// Accepts no more clients.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        if let State::Open { socket, .. } = &self.state {
            end_listening(socket);
        }
    }

    /// Whether it is to be asked again later.
    pub(super) fn is_waiting(&self) -> bool {
        self.retry_at != 0 && !matches!(self.state, State::Closed)
    }

    /// The next client, if there is one. To be called while the executor runs.
    pub(super) fn poll_accept(
        &mut self,
        shared: &Rc<Shared>,
        context: &mut Context<'_>,
    ) -> Poll<Accepted> {
        if self.is_stopping && matches!(self.state, State::New(_)) {
            self.state = State::Closed;
        }
        if let State::New(socket) = &self.state {
            // One descriptor is glommio's, which does not give it out, the other one ends it.
            let listener = Rc::new(glommio_listener(match socket.try_clone() {
                Ok(socket) => socket,
                Err(error) => return Poll::Ready(Err(error)),
            }));
            let accept = accept(shared, &listener);
            if let State::New(socket) = std::mem::replace(&mut self.state, State::Closed) {
                self.state = State::Open { socket, listener, accept };
            }
        }
        let State::Open { listener, accept: current, .. } = &mut self.state else {
            return Poll::Pending;
        };
        let polled = Pin::new(&mut *current).poll(context);
        if polled.is_pending() {
            return polled;
        }
        if self.is_stopping {
            // Whoever came last is let go; nothing is under way any more.
            self.state = State::Closed;
            return Poll::Pending;
        }
        *current = accept(shared, listener);
        polled
    }
}

impl Drop for Listener {
    /// An accept that is under way ends with the socket; the core waits for that.
    fn drop(&mut self) {
        self.stop();
    }
}

/// One accept. A client that has reset the connection already has no address: asking for it has
/// closed the socket then (`AcceptedTcpStream::peer_addr` in `net/tcp_socket.rs` drops it), so it
/// is not bound.
fn accept(shared: &Rc<Shared>, listener: &Rc<TcpListener>) -> InFlight<Accepted> {
    let listener = Rc::clone(listener);
    shared.operation(async move {
        let accepted = listener.shared_accept().await.map_err(kernel_error)?;
        let peer = accepted.peer_addr().map_err(kernel_error)?;
        Ok((accepted.bind_to_executor(), peer))
    })
}
