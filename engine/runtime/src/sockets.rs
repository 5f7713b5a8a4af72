//! Socket options.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// Seconds of silence before the first keepalive probe, and between probes.
const KEEPALIVE_IDLE_SECONDS: libc::c_int = 60;
const KEEPALIVE_INTERVAL_SECONDS: libc::c_int = 10;
const KEEPALIVE_PROBES: libc::c_int = 6;

/// Connections that may wait to be accepted; the system's `somaxconn` limits it further. The
/// standard library's 128 overflow when a thousand clients connect at once, and each client that is
/// dropped so tries again only after a second.
const BACKLOG: libc::c_int = 4096;

/// Makes a listener ready for accepts by the ring.
///
/// It is made blocking: on a non-blocking socket the ring would report EAGAIN instead of waiting.
pub(crate) fn prepare_listener(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let fd = listener.as_raw_fd();
    set_client_options(fd)?;
    set_backlog(fd)
}

/// Sets what every client's socket is to have: small answers are sent at once, and a peer that is
/// gone is noticed. Linux hands the options of a listener on to the sockets of connections that are
/// made after they were set, so accepting costs no further system calls.
pub(crate) fn set_client_options(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)
}

/// The same for a listener that has a path.
pub(crate) fn prepare_local_listener(listener: &UnixListener) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    set_backlog(listener.as_raw_fd())
}

fn set_backlog(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers are passed. On a socket that listens this sets the backlog.
    let result = unsafe { libc::listen(fd, BACKLOG) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address of the other end; an error if it is gone already.
pub(crate) fn peer_of(socket: OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let stream = TcpStream::from(socket);
    let peer = stream.peer_addr()?;
    Ok((OwnedFd::from(stream), peer))
}

/// Whether the peer has reset the connection. Takes nothing from the socket but the error.
pub(crate) fn is_reset(fd: RawFd) -> bool {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: `byte` is valid for writing one byte.
    let result = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) };
    let is_passing = |error: io::Error| {
        matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOMEM))
    };
    result < 0 && !is_passing(io::Error::last_os_error())
}

/// Tells the peer that nothing more is sent; returns false if there is no peer any more.
pub(crate) fn finish_sending(fd: RawFd) -> bool {
    // SAFETY: no pointers are passed.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) == 0 }
}

fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is valid for reading `len` bytes.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = -1;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: `value` is valid for writing `len` bytes.
        let result =
            unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
        assert_eq!(result, 0);
        value
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Closes a connection so that the peer gets a reset.
    pub(crate) fn reset(stream: TcpStream) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let (fd, len) = (stream.as_raw_fd(), size_of_val(&linger) as libc::socklen_t);
        let value = (&raw const linger).cast();
        // SAFETY: `linger` is valid for reading `len` bytes.
        let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, len) };
        assert_eq!(result, 0);
        drop(stream);
    }

    #[test]
    fn a_reset_is_seen_and_nothing_else_is_taken_for_one() {
        let (mut client, mut accepted) = pair();
        let fd = accepted.as_raw_fd();
        assert!(!is_reset(fd), "silence");
        client.write_all(b"x").unwrap();
        assert_eq!(accepted.peek(&mut [0]).unwrap(), 1);
        assert!(!is_reset(fd), "bytes");
        accepted.read_exact(&mut [0]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(accepted.peek(&mut [0]).unwrap(), 0);
        assert!(!is_reset(fd), "the end");

        let (client, accepted) = pair();
        reset(client);
        assert!(is_reset(accepted.as_raw_fd()));
    }

    #[test]
    fn accepted_sockets_have_the_listeners_options() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        prepare_listener(&listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let fd = accepted.as_raw_fd();
        assert_ne!(option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY), 0);
        assert_ne!(option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 0);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), KEEPALIVE_IDLE_SECONDS);
        let (_, peer) = peer_of(accepted.into()).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
