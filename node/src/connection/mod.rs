//! One client's connection, without its socket: bytes in, commands out, replies in, bytes out.
//!
//! Invariants:
//! - Replies leave in the order of the requests. A request whose reply cannot leave at once has a
//!   slot; slots are numbered by a sequence that never repeats in a connection.
//! - While there is no slot, replies are written straight to the output.
//! - At a limit nothing more is parsed: what has arrived stays in `input`, and the caller pauses
//!   the socket. So memory is bounded by the limits, one receive buffer, and one reply.
//! - After an error in the answer to a retrieval line, nothing more of that line is sent: the error
//!   stands in the place of `END`.

mod ahead;
mod byte_queue;
mod slots;

#[cfg(test)]
mod tests;

use larder_protocol::memcached::reply::{self, END};
use larder_protocol::memcached::{Limits, Malformed, Parsed, Parser, Request};

use crate::limits::{
    CONNECTION_REQUESTS_MAX, CONNECTION_REQUESTS_RESUME, CONNECTION_WAITING_BYTES_MAX,
    SPARE_INPUT_BYTES_MAX, SPARE_INPUTS_MAX,
};
use crate::memcached::command::Command;
use crate::process::MEMCACHED_VERSION;

use ahead::Ahead;

pub use byte_queue::ByteQueue;
pub use slots::{Arrival, Load};
use slots::{Slots, State};

/// When a reply may leave: once `shard`'s log is acknowledged up to `needs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// The shard.
    pub shard: u16,
    /// The log position; 0 for at once.
    pub needs: u64,
}

impl After {
    /// At once.
    pub const NOTHING: Self = Self { shard: 0, needs: 0 };
}

/// Whether a reply may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Yes.
    Now,
    /// Not yet.
    Later,
    /// It never may: what it says did not become durable. An error leaves instead.
    Never,
}

/// How a request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The reply is appended, and may leave after that.
    Done {
        /// When it may leave.
        after: After,
        /// Whether it is an error line.
        is_error: bool,
    },
    /// The reply will come through [`Connection::complete`].
    Waiting {
        /// How long it may be expected to be.
        expected_bytes: usize,
    },
    /// The core is at a limit: nothing was done, ask again.
    Refused,
}

/// What carries requests out.
pub trait Handler {
    /// The parser's limits.
    fn limits(&self) -> &Limits;
    /// Learns that `command` is going to be asked for soon. Nothing depends on it but speed.
    fn announce(&mut self, command: &Command<'_>);
    /// All that is known of the near future was announced.
    fn announced(&mut self);
    /// Carries out `command`, whose place among the connection's requests `asked` names.
    fn command(&mut self, command: &Command<'_>, asked: Asked, out: &mut Vec<u8>) -> Handled;
    /// Carries out a request that concerns the whole node. The connection has no earlier request
    /// that is not answered, and takes no later one before this one is.
    fn node_request(&mut self, request: &Request<'_>, sequence: u64, out: &mut Vec<u8>) -> Handled;
    /// Whether a reply may leave.
    fn release(&self, after: After) -> Release;
    /// Learns that a reply of so many bytes that came from `core` is in the client's output.
    fn passed(&mut self, core: usize, bytes: usize);
}

/// Which of a connection's requests is asked for, and what those before it hold.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The request's sequence in the connection.
    pub sequence: u64,
    /// What the connection's other requests hold and wait for.
    pub load: Load,
}

/// Why no more was taken from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All whole requests are taken.
    Input,
    /// Too many requests are not answered.
    Requests,
    /// Too much output is not sent.
    Output,
    /// The core is at a limit.
    Core,
    /// A request waits for those before it, or those after it wait for it.
    Barrier,
    /// The connection is to be closed once all requests are answered.
    Closing,
}

/// Where replies go.
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    /// Bytes that are on their way already, besides `bytes`.
    in_flight: usize,
    mark: Option<usize>,
}

impl<'a> Output<'a> {
    /// Replies go to `bytes`; `pending` bytes, those included, have not been sent. Above `mark`
    /// nothing more is executed, and without one nothing at all.
    pub fn new(bytes: &'a mut Vec<u8>, pending: usize, mark: Option<usize>) -> Self {
        let in_flight = pending.saturating_sub(bytes.len());
        Self { bytes, in_flight, mark }
    }

    fn is_full(&self) -> bool {
        self.mark.is_none_or(|mark| self.in_flight + self.bytes.len() > mark)
    }
}

/// Input buffers for connections that hold a part of a request.
#[derive(Debug, Default)]
pub struct SpareInputs(Vec<Vec<u8>>);

impl SpareInputs {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// The memory of those that are kept, in bytes.
    pub fn memory(&self) -> usize {
        self.0.iter().map(Vec::capacity).sum()
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let is_fit = (1..=SPARE_INPUT_BYTES_MAX).contains(&buffer.capacity());
        if is_fit && self.0.len() < SPARE_INPUTS_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    parser: Parser,
    /// Bytes received and not taken yet, from `start`.
    input: Vec<u8>,
    start: usize,
    /// How many of them there must be before the parser can say more.
    needed: usize,
    slots: Slots,
    /// How many requests were taken.
    requests: u64,
    /// The number of the retrieval line that is being taken, or was last.
    line: u32,
    is_in_line: bool,
    /// Parsing stopped at [`CONNECTION_REQUESTS_MAX`] slots.
    is_throttled: bool,
    /// A request for the whole node is under way.
    is_barred: bool,
    is_closing: bool,
}

impl Connection {
    /// Takes bytes that were received.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        output: &mut Output<'_>,
        handler: &mut impl Handler,
        spares: &mut SpareInputs,
    ) -> Stop {
        if self.is_closing {
            return Stop::Closing;
        }
        if !self.input.is_empty() {
            self.append(bytes);
            return self.resume(output, handler, spares);
        }
        let (stop, taken) = self.parse(bytes, output, handler);
        if taken < bytes.len() && stop != Stop::Closing {
            self.input = spares.take();
            self.append(&bytes[taken..]);
        }
        stop
    }

    /// Takes bytes that were received, and no request of them before [`Self::resume`].
    pub fn store(&mut self, bytes: &[u8], spares: &mut SpareInputs) {
        if self.is_closing {
            return;
        }
        if self.input.is_empty() {
            self.input = spares.take();
        }
        self.append(bytes);
    }

    /// Keeps bytes for later. The memory grows with what has come, by half of it at a time, and not
    /// beyond the request that it is for.
    fn append(&mut self, bytes: &[u8]) {
        let len = self.input.len() + bytes.len();
        if len > self.input.capacity() {
            let end = (self.start + self.needed).max(len);
            let capacity = (len + len / 2).min(end).max(len);
            self.input.reserve_exact(capacity - self.input.len());
        }
        self.input.extend_from_slice(bytes);
    }

    /// Sends what may leave, and goes on with what was received.
    pub fn resume(
        &mut self,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
        spares: &mut SpareInputs,
    ) -> Stop {
        self.release(output, handler);
        let input = std::mem::take(&mut self.input);
        let (stop, taken) = self.parse(&input[self.start..], output, handler);
        self.start += taken;
        self.input = input;
        if self.start == self.input.len() || stop == Stop::Closing {
            self.start = 0;
            spares.give_back(std::mem::take(&mut self.input));
        } else if self.start * 2 > self.input.len() {
            self.input.drain(..self.start);
            self.start = 0;
        }
        stop
    }

    /// Takes the reply to the request at `sequence`.
    pub fn complete(&mut self, sequence: u64, arrival: Arrival) {
        self.slots.complete(sequence, State::Own(arrival));
    }

    /// Takes a reply that came from `core` and may leave. It leaves at once if it is the next one
    /// and the client takes its replies; returns whether it did.
    pub fn complete_now(
        &mut self,
        sequence: u64,
        bytes: &[u8],
        is_error: bool,
        core: usize,
        output: &mut Output<'_>,
    ) -> bool {
        let is_passed = self.slots.is_next(sequence) && !output.is_full();
        if is_passed {
            self.slots.pass(bytes, is_error, output.bytes);
        } else {
            let (bytes, after) = (bytes.to_vec(), After::NOTHING);
            self.complete(sequence, Arrival { bytes, after, is_error, core: Some(core) });
        }
        is_passed
    }

    /// Sends what may leave, in order.
    pub fn release(&mut self, output: &mut Output<'_>, handler: &mut impl Handler) {
        while !output.is_full() && self.slots.release_one(handler, output.bytes) {}
    }

    /// How many requests were taken since the connection began.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Bytes that were received and not taken.
    pub fn input_len(&self) -> usize {
        self.input.len() - self.start
    }

    /// Whether every request that was taken is answered.
    pub fn is_answered(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the next reply is there and waits only for its permission to leave.
    pub fn waits_for_log(&self) -> bool {
        self.slots.next_is_ready()
    }

    /// When the next reply may leave, if it is there.
    pub fn next_after(&self) -> Option<After> {
        self.slots.next_after()
    }

    /// Whether some of what was received is not taken yet.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// What the requests that are not answered hold and wait for.
    pub fn load(&self) -> Load {
        self.slots.load()
    }

    /// Bytes of memory that hold what was received and not taken.
    pub fn input_bytes(&self) -> usize {
        self.input.capacity()
    }

    /// Bytes of memory that requests hold which are not answered.
    pub fn waiting_bytes(&self) -> usize {
        self.slots.memory()
    }

    /// How long the input must become before the request at its front is whole, as far as is known:
    /// 0 if no part of a request is there.
    pub fn input_needed(&self) -> usize {
        if self.input.is_empty() { 0 } else { self.needed }
    }

    /// Takes no more requests.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.input = Vec::new();
        self.start = 0;
    }

    /// Why nothing more may be taken now, if so.
    fn limit(&mut self, output: &Output<'_>) -> Option<Stop> {
        if self.is_closing {
            return Some(Stop::Closing);
        }
        self.is_barred &= !self.slots.is_empty();
        if self.is_barred {
            return Some(Stop::Barrier);
        }
        let slots_max =
            if self.is_throttled { CONNECTION_REQUESTS_RESUME } else { CONNECTION_REQUESTS_MAX };
        self.is_throttled = self.slots.len() >= slots_max;
        let load = self.slots.load();
        if self.is_throttled || load.bytes + load.expected_bytes >= CONNECTION_WAITING_BYTES_MAX {
            return Some(Stop::Requests);
        }
        output.is_full().then_some(Stop::Output)
    }

    /// Takes requests from the front of `bytes`; returns how many bytes are done with.
    fn parse(
        &mut self,
        bytes: &[u8],
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> (Stop, usize) {
        let mut taken = 0;
        loop {
            if let Some(stop) = self.limit(output) {
                return (stop, taken);
            }
            let rest = &bytes[taken..];
            if rest.len() < self.needed.max(1) {
                return (Stop::Input, taken);
            }
            let ahead = Ahead::parse(&mut self.parser, handler.limits(), rest);
            announce(&ahead, handler);
            for one in ahead.iter() {
                let stop = match one.step.parsed {
                    Parsed::NeedMore { bytes } => {
                        self.needed = bytes;
                        return (Stop::Input, taken + one.step.consumed);
                    }
                    _ => self.take_one(&one.step.parsed, output, handler),
                };
                if let Some(stop) = stop {
                    self.parser = one.before.clone();
                    return (stop, taken);
                }
                self.needed = 0;
                self.requests += 1;
                taken += one.step.consumed;
            }
        }
    }

    /// Takes what was parsed; `Some` if it cannot be taken now.
    #[inline]
    fn take_one(
        &mut self,
        parsed: &Parsed<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        if let Some(stop) = self.limit(output) {
            return Some(stop);
        }
        match parsed {
            Parsed::NeedMore { .. } => None,
            Parsed::Request(request) => self.request(request, output, handler),
            Parsed::Malformed(malformed) => self.malformed(malformed, output, handler),
            Parsed::Close(_) => {
                self.close();
                None
            }
        }
    }

    /// Takes one request; `Some` if it cannot be taken now.
    #[inline]
    fn request(
        &mut self,
        request: &Request<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        match request {
            Request::Get(_) => {
                if !self.is_in_line {
                    self.is_in_line = true;
                    self.line = self.line.wrapping_add(1).max(1);
                }
                self.command(&Command::Keyed(*request), output, handler)
            }
            Request::GetEnd => {
                self.constant(END, output);
                self.is_in_line = false;
                None
            }
            Request::Version => {
                let put = |out: &mut Vec<u8>| reply::version(out, MEMCACHED_VERSION);
                self.written(put, output);
                None
            }
            Request::Verbosity { noreply } => {
                self.constant(if *noreply { b"" } else { reply::OK }, output);
                None
            }
            Request::MetaNoop => {
                self.constant(reply::META_NOOP, output);
                None
            }
            Request::Quit => {
                self.close();
                None
            }
            Request::FlushAll { .. } | Request::Stats { .. } | Request::Shutdown(_) => {
                self.node_request(request, output, handler)
            }
            _ => self.command(&Command::Keyed(*request), output, handler),
        }
    }

    fn malformed(
        &mut self,
        malformed: &Malformed<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        let Malformed { reply, is_suppressed, drop_key } = *malformed;
        let stop = if let Some(key) = drop_key {
            self.command(&Command::Drop { key, reply, is_suppressed }, output, handler)
        } else {
            let put = |out: &mut Vec<u8>| {
                if !is_suppressed {
                    reply::line(out, reply);
                }
            };
            self.written(put, output);
            None
        };
        self.is_in_line &= stop.is_some();
        stop
    }

    #[inline]
    fn command(
        &mut self,
        command: &Command<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        let load = self.slots.load();
        self.take(output, handler, |handler, sequence, out| {
            handler.command(command, Asked { sequence, load }, out)
        })
    }

    fn node_request(
        &mut self,
        request: &Request<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        if !self.slots.is_empty() {
            return Some(Stop::Barrier);
        }
        let stop = self.take(output, handler, |handler, sequence, out| {
            handler.node_request(request, sequence, out)
        });
        self.is_barred |= !self.slots.is_empty();
        stop
    }

    fn constant(&mut self, bytes: &[u8], output: &mut Output<'_>) {
        self.written(|out| out.extend_from_slice(bytes), output);
    }

    /// Takes a request whose reply is known.
    fn written(&mut self, put: impl FnOnce(&mut Vec<u8>), output: &mut Output<'_>) {
        let line = self.line_number();
        if self.slots.is_empty() {
            let before = output.bytes.len();
            put(output.bytes);
            self.slots.pass_written(before, line, false, output.bytes);
        } else {
            self.slots.hold(line, put);
        }
    }

    fn line_number(&self) -> u32 {
        if self.is_in_line { self.line } else { 0 }
    }

    #[inline]
    fn take<H: Handler>(
        &mut self,
        output: &mut Output<'_>,
        handler: &mut H,
        act: impl FnOnce(&mut H, u64, &mut Vec<u8>) -> Handled,
    ) -> Option<Stop> {
        let line = self.line_number();
        let sequence = self.slots.next_sequence();
        let is_direct = self.slots.is_empty();
        let out = if is_direct { &mut *output.bytes } else { self.slots.held_tail() };
        let before = out.len();
        match act(handler, sequence, out) {
            Handled::Refused => return Some(Stop::Core),
            Handled::Waiting { expected_bytes } => {
                assert_eq!(out.len(), before, "a request that waits has written no reply");
                self.slots.push_waiting(line, expected_bytes);
            }
            Handled::Done { after, is_error } if is_direct => {
                if handler.release(after) == Release::Now {
                    self.slots.pass_written(before, line, is_error, output.bytes);
                } else {
                    self.slots.hold_from(output.bytes, before, line, after, is_error);
                }
            }
            Handled::Done { after, is_error } => {
                self.slots.push_held(before, line, after, is_error);
            }
        }
        None
    }
}

/// Tells the handler of the keys that come, if there is more than one to tell of.
#[inline]
fn announce(ahead: &Ahead<'_>, handler: &mut impl Handler) {
    if ahead.len() > 1 {
        for request in ahead.keyed() {
            handler.announce(&Command::Keyed(*request));
        }
        handler.announced();
    }
}
