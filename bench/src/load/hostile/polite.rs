//! The polite client: requests at a fixed rate, whatever the server does. Each request has a moment
//! at which it is due, and its latency counts from there, so that a server that stands still for a
//! second is seen with all requests of that second.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::super::encoder::{Encoder, Operation, Request};
use super::super::reply::{Reply, ReplyParser};
use super::super::statistics::latencies;
use crate::error::BenchError;
use crate::host;

/// How long answers are waited for after the last request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of so many requests one is a SET.
const SET_EACH: u64 = 6;

const READ_BYTES: usize = 64 << 10;

/// What a phase has measured.
pub(super) struct Latencies {
    pub(super) get: Histogram<u64>,
    pub(super) set: Histogram<u64>,
    /// By how much this thread was late itself.
    pub(super) late: Histogram<u64>,
    /// Requests that were answered with an error or something else than was expected, or not at
    /// all; and the first reason.
    pub(super) failed: (u64, Option<String>),
}

impl Latencies {
    fn new() -> Self {
        Self { get: latencies(), set: latencies(), late: latencies(), failed: (0, None) }
    }

    fn fail(&mut self, count: u64, reason: impl FnOnce() -> String) {
        self.failed.0 += count;
        if count > 0 {
            self.failed.1.get_or_insert_with(reason);
        }
    }
}

struct Connection {
    stream: TcpStream,
    parser: ReplyParser,
    waiting: VecDeque<(Operation, Instant)>,
    unsent: Vec<u8>,
}

/// The client, connected.
pub(super) struct Polite<'a> {
    target: SocketAddr,
    encoder: &'a Encoder,
    keys: u64,
    /// Time from one request to the next.
    interval: Duration,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    count: u64,
    inbound: Vec<u8>,
}

impl<'a> Polite<'a> {
    pub(super) fn connect(
        target: SocketAddr,
        encoder: &'a Encoder,
        keys: u64,
        rate: u32,
        connections: usize,
    ) -> Result<Self, BenchError> {
        let failed =
            |source| BenchError::System { action: "setting up the client".to_owned(), source };
        let mut client = Self {
            target,
            encoder,
            keys,
            interval: Duration::from_secs(1) / rate,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?,
            connections: Vec::new(),
            count: 0,
            inbound: vec![0; READ_BYTES],
        };
        for index in 0..connections {
            let connection = client.open(index).map_err(failed)?;
            client.connections.push(connection);
        }
        Ok(client)
    }

    fn open(&self, index: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.target, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        let (parser, waiting) = (ReplyParser::new(), VecDeque::new());
        Ok(Connection { stream, parser, waiting, unsent: Vec::new() })
    }

    /// Makes requests for `duration` and waits for their answers.
    pub(super) fn run(&mut self, duration: Duration) -> io::Result<Latencies> {
        let mut measured = Latencies::new();
        let start = host::now();
        let (end, mut due) = (start + duration, start);
        let mut events = Vec::with_capacity(self.connections.len());
        loop {
            let mut now = host::now();
            while due <= now && due < end {
                measured.late.saturating_record((now - due).as_nanos() as u64);
                self.request(due);
                due += self.interval;
                now = host::now();
            }
            let is_waiting = self.connections.iter().any(|one| !one.waiting.is_empty());
            if due >= end && (!is_waiting || now >= end + PATIENCE) {
                break;
            }
            let until = if due < end { due } else { end + PATIENCE };
            self.wait(&mut events, until.saturating_duration_since(now))?;
            for event in &events {
                let data = event.data;
                self.receive(data.u64() as usize, &mut measured)?;
            }
        }
        for connection in &self.connections {
            measured.fail(connection.waiting.len() as u64, || "no answer".to_owned());
        }
        Ok(measured)
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Duration) -> io::Result<()> {
        events.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn request(&mut self, due: Instant) {
        let number = self.count;
        self.count += 1;
        let operation =
            if number.is_multiple_of(SET_EACH) { Operation::Set } else { Operation::Get };
        let index = (number % self.connections.len() as u64) as usize;
        let connection = &mut self.connections[index];
        let key = number.wrapping_mul(7919) % self.keys;
        self.encoder.append(0, Request { operation, key }, &mut connection.unsent);
        connection.waiting.push_back((operation, due));
        connection.send();
    }

    fn receive(&mut self, index: usize, measured: &mut Latencies) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let end = match connection.stream.read(&mut self.inbound) {
            Ok(0) => Some("the server closed the connection".to_owned()),
            Ok(count) => connection.answered(&self.inbound[..count], measured).err(),
            Err(error) if error.kind() == IoErrorKind::WouldBlock => None,
            Err(error) => Some(error.to_string()),
        };
        connection.send();
        if let Some(reason) = end {
            measured.fail(connection.waiting.len().max(1) as u64, || reason);
            self.connections[index] = self.open(index)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Sends what the socket takes. An error shows when the socket is read.
    fn send(&mut self) {
        if let Ok(count) = self.stream.write(&self.unsent) {
            self.unsent.drain(..count);
        }
    }

    fn answered(&mut self, mut bytes: &[u8], measured: &mut Latencies) -> Result<(), String> {
        let now = host::now();
        while let Some(reply) = self.parser.next(&mut bytes).map_err(|error| error.to_string())? {
            let waiting = self.waiting.pop_front();
            let (operation, due) = waiting.ok_or("an answer to no request")?;
            let latency = now.saturating_duration_since(due).as_nanos() as u64;
            match (operation, reply) {
                (Operation::Get, Reply::Value { .. }) => measured.get.saturating_record(latency),
                (Operation::Set, Reply::Stored) => measured.set.saturating_record(latency),
                (_, reply) => measured.fail(1, || format!("{reply:?} to a {operation:?}")),
            }
        }
        Ok(())
    }
}
