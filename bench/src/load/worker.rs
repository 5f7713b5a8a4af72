//! One thread of the load: its connections, driven by epoll.

use std::io::{self, ErrorKind as IoErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::distribution::KeyChooser;
use super::encoder::{Encoder, Operation, Request};
use super::exchange::{Exchange, ValueCheck};
use super::locality::KeysOf;
use super::random::Random;
use super::statistics::{ErrorKind, Statistics};
use super::{Opened, Ratio, Settings};
use crate::host;

/// How often a thread adds what it counted to what others can see.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

/// Bytes that one read may bring.
const READ_BYTES: usize = 256 << 10;

/// Connections that one wait may report.
const EVENTS_MAX: usize = 256;

/// The requests that a thread still has to make.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A SET of each key of a range.
    Fill { next: u64, end: u64 },
    /// A random mix until the time or the number of operations is used up.
    Mix { chooser: KeyChooser, random: Random, ratio: Ratio, deadline: Instant, remaining: u64 },
}

impl Work {
    /// Whether no batch may start at `now`.
    fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::Fill { next, end } => next >= end,
            Self::Mix { deadline, remaining, .. } => *remaining == 0 || now >= *deadline,
        }
    }

    /// The next request, on a key of those that are asked for over its connection.
    fn next(&mut self, keys: KeysOf, encoder: &Encoder, scratch: &mut Vec<u8>) -> Option<Request> {
        match self {
            Self::Fill { next, end } => {
                let key = *next;
                *next += 1;
                (key < *end).then_some(Request { operation: Operation::Set, key })
            }
            Self::Mix { chooser, random, ratio, remaining, .. } => {
                *remaining = remaining.checked_sub(1)?;
                let of = u64::from(ratio.get) + u64::from(ratio.set);
                let is_get = random.below(of) < u64::from(ratio.get);
                let operation = if is_get { Operation::Get } else { Operation::Set };
                let draw = || chooser.next(random);
                let key = keys.draw(scratch, draw, |key, out| encoder.append_key(key, out));
                Some(Request { operation, key })
            }
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    exchange: Exchange,
    keys: KeysOf,
    /// The rest of a batch that the socket did not take at once.
    unsent: Vec<u8>,
    /// How much of `unsent` is written by now.
    written: usize,
    open: bool,
}

/// What a thread's end tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerEnd {
    /// Processor time of the thread.
    pub(super) cpu: Duration,
    /// When the last answer came.
    pub(super) last_answer: Instant,
}

/// One thread's share of the load.
pub(super) struct Worker<'a> {
    encoder: &'a Encoder,
    published: &'a Mutex<Statistics>,
    check: ValueCheck,
    depth: usize,
    timeout: Duration,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections with requests in flight.
    busy: usize,
    work: Work,
    statistics: Statistics,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    key: Vec<u8>,
    last_answer: Instant,
}

impl<'a> Worker<'a> {
    /// A worker on connected, non-blocking sockets, with batches of `depth` requests.
    pub(super) fn new(
        settings: &Settings,
        depth: usize,
        encoder: &'a Encoder,
        published: &'a Mutex<Statistics>,
        streams: Vec<Opened>,
        work: Work,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = host::now();
        for (index, (stream, _)) in streams.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, stream, data, epoll::EventFlags::IN)?;
        }
        let connection = |(stream, keys)| Connection {
            stream,
            exchange: Exchange::new(settings.protocol, depth, now),
            keys,
            unsent: Vec::new(),
            written: 0,
            open: true,
        };
        Ok(Self {
            encoder,
            published,
            check: ValueCheck::new(settings.value_size),
            depth,
            timeout: settings.timeout,
            epoll,
            connections: streams.into_iter().map(connection).collect(),
            busy: 0,
            work,
            statistics: Statistics::new(),
            inbound: vec![0; READ_BYTES],
            outbound: Vec::new(),
            key: Vec::new(),
            last_answer: now,
        })
    }

    /// Makes all requests of the work and waits for their answers, or until every connection is
    /// lost or given up.
    pub(super) fn run(mut self) -> io::Result<WorkerEnd> {
        let cpu_before = host::thread_cpu();
        let mut now = host::now();
        self.last_answer = now;
        for index in 0..self.connections.len() {
            self.begin(index, now);
        }
        let mut publish_at = now + PUBLISH_EVERY;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.busy > 0 {
            self.wait(&mut events, publish_at.saturating_duration_since(now))?;
            for event in &events {
                let (flags, data) = (event.flags, event.data);
                self.handle(data.u64() as usize, flags);
            }
            now = host::now();
            if now >= publish_at {
                self.publish();
                publish_at = now + PUBLISH_EVERY;
            }
            if now.saturating_duration_since(self.last_answer) >= self.timeout {
                self.give_up();
            }
        }
        self.publish();
        let cpu = host::thread_cpu().saturating_sub(cpu_before);
        Ok(WorkerEnd { cpu, last_answer: self.last_answer })
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Duration) -> io::Result<()> {
        events.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn publish(&mut self) {
        let mut published = self.published.lock().expect("no thread panics with the lock held");
        self.statistics.move_into(&mut published);
    }

    /// Writes the connection's next batch, if there is work left.
    fn begin(&mut self, index: usize, now: Instant) {
        if self.work.is_over(now) {
            return;
        }
        let connection = &mut self.connections[index];
        connection.exchange.clear();
        self.outbound.clear();
        for number in 0..self.depth as u64 {
            let next = self.work.next(connection.keys, self.encoder, &mut self.key);
            let Some(request) = next else { break };
            connection.exchange.push(request);
            self.encoder.append(number, request, &mut self.outbound);
        }
        connection.exchange.sent(host::now());
        self.busy += 1;
        match write_some(&mut connection.stream, &self.outbound) {
            Ok(written) if written == self.outbound.len() => {}
            Ok(written) => {
                connection.unsent.clear();
                connection.unsent.extend_from_slice(&self.outbound[written..]);
                connection.written = 0;
                self.listen(index, epoll::EventFlags::IN | epoll::EventFlags::OUT);
            }
            Err(error) => self.lose(index, ErrorKind::ConnectionLost, error.to_string()),
        }
    }

    fn handle(&mut self, index: usize, flags: epoll::EventFlags) {
        if !self.connections[index].open {
            return;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.write_rest(index);
        }
        let readable = epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        if flags.intersects(readable) && self.connections[index].open {
            self.read(index);
        }
    }

    fn write_rest(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        match write_some(&mut connection.stream, &connection.unsent[connection.written..]) {
            Ok(written) => {
                connection.written += written;
                if connection.written == connection.unsent.len() {
                    self.listen(index, epoll::EventFlags::IN);
                }
            }
            Err(error) => self.lose(index, ErrorKind::ConnectionLost, error.to_string()),
        }
    }

    fn read(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let count = match connection.stream.read(&mut self.inbound) {
            Ok(0) => {
                let text = "the server closed the connection".to_owned();
                return self.lose(index, ErrorKind::ConnectionLost, text);
            }
            Ok(count) => count,
            Err(error) if is_transient(&error) => return,
            Err(error) => return self.lose(index, ErrorKind::ConnectionLost, error.to_string()),
        };
        let now = host::now();
        let exchange = &mut connection.exchange;
        let was_busy = exchange.in_flight() > 0;
        let bytes = &self.inbound[..count];
        if let Err(text) = exchange.receive(bytes, now, self.check, &mut self.statistics) {
            // The exchange may have counted its last answer before the surplus one.
            self.busy -= usize::from(was_busy && exchange.in_flight() == 0);
            return self.lose(index, ErrorKind::BadReply, text);
        }
        self.last_answer = now;
        if was_busy && exchange.in_flight() == 0 {
            self.busy -= 1;
            self.begin(index, now);
        }
    }

    /// Chooses what wakes the thread for this connection.
    fn listen(&mut self, index: usize, flags: epoll::EventFlags) {
        let data = epoll::EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, &self.connections[index].stream, data, flags)
        {
            self.lose(index, ErrorKind::ConnectionLost, error.to_string());
        }
    }

    /// Takes an open connection out of the run.
    fn lose(&mut self, index: usize, kind: ErrorKind, text: String) {
        let connection = &mut self.connections[index];
        assert!(connection.open, "a connection is lost once");
        connection.open = false;
        self.busy -= usize::from(connection.exchange.in_flight() > 0);
        // A socket that was never added cannot be deleted; either way it wakes nobody any more.
        let _ = epoll::delete(&self.epoll, &connection.stream);
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        self.statistics.lose_connection(kind, text);
    }

    /// Loses every connection that waits for an answer.
    fn give_up(&mut self) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            let in_flight = connection.exchange.in_flight();
            if connection.open && in_flight > 0 {
                let seconds = self.timeout.as_secs_f64();
                let text = format!("{in_flight} requests without an answer for {seconds} s");
                self.lose(index, ErrorKind::NoAnswer, text);
            }
        }
    }
}

/// Writes what the socket takes now; zero if that is nothing.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(0) => Err(IoErrorKind::WriteZero.into()),
        Ok(written) => Ok(written),
        Err(error) if is_transient(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::Interrupted)
}
