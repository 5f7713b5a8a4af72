//! Making a connection, and reading replies from it.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_protocol::native::HelloReply;

use super::breakage::Breakage;
use super::codec::{RawReply, Wire};
use super::settings::Settings;
use crate::clock::now;

/// The room that a reader begins with, in bytes.
const READ_BYTES: usize = 128 << 10;

/// The id of the first request of a connection. Its slot and count are none that a pipeline gives.
const GREETING_ID: u64 = 1;

/// The replies of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Arc<TcpStream>,
    wire: Wire,
    /// Bytes that have come are between both places.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that there have to be before there can be another reply.
    needed: usize,
    /// How long the socket waits for bytes.
    patience: Option<Duration>,
    /// Room for replies, which is used again.
    pub replies: Vec<RawReply>,
}

/// A connection whose peer has answered.
#[derive(Debug)]
pub(crate) struct Established {
    pub stream: Arc<TcpStream>,
    pub reader: Reader,
    /// What a node has said; a memcached says nothing.
    pub hello: Option<HelloReply>,
}

/// Connects, and makes sure who is there.
pub(crate) fn establish(address: &str, settings: &Settings) -> Result<Established, Breakage> {
    let deadline = now() + settings.connect_timeout;
    let stream = connect(address, deadline).map_err(|error| Breakage::connect(address, &error))?;
    let failed = |error: Error| Breakage::failed(&error);
    stream.set_nodelay(true).map_err(failed)?;
    let mut greeting = Vec::new();
    let frame = settings.wire.greeting(&settings.name);
    frame.put(&mut greeting, GREETING_ID, 0);
    stream.set_write_timeout(Some(settings.connect_timeout)).map_err(failed)?;
    (&stream).write_all(&greeting).map_err(failed)?;
    stream.set_write_timeout(None).map_err(failed)?;
    let stream = Arc::new(stream);
    let mut reader = Reader::new(Arc::clone(&stream), settings.wire);
    let reply = loop {
        match reader.next_reply()? {
            Some(reply) => break reply,
            None => {
                let left = deadline.saturating_duration_since(now());
                if left.is_zero() {
                    return Err(Breakage::failed(&ErrorKind::TimedOut.into()));
                }
                reader.fill(Some(left))?;
            }
        }
    };
    let arrived = reply.answer(&frame)?;
    let is_ok = arrived.status.is_some_and(|status| status as u8 == 0);
    if !is_ok {
        let text = String::from_utf8_lossy(&arrived.body).into_owned();
        return Err(Breakage::Foreign(format!("it refuses to greet: {text}")));
    }
    let hello = match settings.wire {
        Wire::Native => Some(
            HelloReply::decode(&arrived.body)
                .map_err(|error| Breakage::Foreign(error.to_string()))?,
        ),
        Wire::Meta => None,
    };
    Ok(Established { stream, reader, hello })
}

fn connect(address: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::new(ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::TimedOut, "connecting took too long"));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Reader {
    fn new(stream: Arc<TcpStream>, wire: Wire) -> Self {
        let buffer = vec![0; READ_BYTES];
        let (start, end, needed, patience, replies) = (0, 0, 0, None, Vec::new());
        Self { stream, wire, buffer, start, end, needed, patience, replies }
    }

    pub(crate) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// The next reply of those that have come whole.
    pub(crate) fn next_reply(&mut self) -> Result<Option<RawReply>, Breakage> {
        match self.wire.reply(&self.buffer[self.start..self.end]) {
            Ok((reply, length)) => {
                self.start += length;
                Ok(Some(reply))
            }
            Err(Ok(needed)) => {
                self.needed = needed;
                Ok(None)
            }
            Err(Err(breakage)) => Err(breakage),
        }
    }

    /// Reads once, so that the next reply comes nearer; or nothing, if nothing comes for so long.
    /// What a length announces is not believed before it has come: the room doubles when it is
    /// full. Returns whether a part of a reply has come that is too long to come at once.
    pub(crate) fn fill(&mut self, at_most: Option<Duration>) -> Result<bool, Breakage> {
        self.make_room(self.needed);
        if self.patience != at_most {
            let failed = |error: Error| Breakage::failed(&error);
            self.stream.set_read_timeout(at_most).map_err(failed)?;
            self.patience = at_most;
        }
        match (&*self.stream).read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(Breakage::Closed),
            Ok(read) => {
                self.end += read;
                Ok(self.needed > READ_BYTES)
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
                _ => Err(Breakage::failed(&error)),
            },
        }
    }

    fn make_room(&mut self, needed: usize) {
        let held = self.end - self.start;
        if held == 0 {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > READ_BYTES && needed <= READ_BYTES {
                self.buffer = vec![0; READ_BYTES];
            }
        } else if self.start > 0 && self.start + needed.max(held + 1) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}
