//! One client's connection, without its socket: bytes in, commands out, replies in, bytes out.
//!
//! Invariants:
//! - Replies leave in the order that the protocol has. A request whose reply cannot leave at once
//!   has a slot; slots are numbered by a sequence that never repeats in a connection.
//! - While no other reply has to leave before, replies are written straight to the output.
//! - At a limit nothing more is parsed: what has arrived stays in `input`, and the caller pauses
//!   the socket. So memory is bounded by the limits, one receive buffer, and one reply.
//! - After an error in the answers to a group of requests, nothing more of that group is sent.

mod ahead;
mod byte_queue;
mod first_byte;
mod linked;
mod parts;
mod slots;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use larder_engine::key::Key;
use larder_engine::shard::{Acknowledgement, Answer};
use larder_runtime::output_queue::OutputQueue;

use crate::canary::{self, NodeDefect};
use crate::codec::{Codec, Extent, Grouping, Meaning, Order};
use crate::events::NodeEvent;
use crate::limits::{
    CONNECTION_REQUESTS_MAX, CONNECTION_REQUESTS_RESUME, CONNECTION_WAITING_BYTES_MAX, SLOTS_MAX,
    SPARE_INPUT_BYTES_MAX, SPARE_INPUTS_MAX,
};
use crate::request::{
    Answered, CarriedAnswer, ItemRequest, Moment, NoAnswer, NodeAnswer, NodeRequest, ShardRequest,
    Target,
};

use ahead::{Ahead, One};

pub use byte_queue::ByteQueue;
pub use first_byte::ByFirstByte;
use parts::Begun;
use slots::Slots;
pub use slots::{Arrival, Load};

/// When a reply may leave: once `shard`'s log is acknowledged up to `needs`, as was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// The shard.
    pub shard: u16,
    /// The log position; 0 for at once.
    pub needs: u64,
    /// What has to have become of it.
    pub how: Acknowledgement,
}

impl After {
    /// At once.
    pub const NOTHING: Self = Self { shard: 0, needs: 0, how: Acknowledgement::Configured };
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
        /// Whether it is an error.
        is_error: bool,
    },
    /// The reply will come through [`Conversation::complete`].
    Waiting {
        /// How long it may be expected to be.
        expected_bytes: usize,
    },
    /// The core is at a limit: nothing was done, ask again.
    Refused,
}

/// What carries requests out.
pub trait Handler {
    /// The time of this turn.
    fn now(&self) -> Moment;
    /// Where requests on `key` go.
    fn target(&self, key: &Key<'_>) -> Target;
    /// The same for a request that is going to be asked for soon.
    fn announce(&mut self, key: &Key<'_>) -> Target;
    /// All that is known of the near future was announced.
    fn announced(&mut self);
    /// Carries out `request`, whose place among the connection's requests `asked` names. If it is
    /// done at once, `put` gets the answer, or why there is none.
    fn request(
        &mut self,
        request: &ItemRequest<'_>,
        target: Target,
        asked: Asked,
        put: impl FnOnce(Result<&Answer<'_>, NoAnswer>),
    ) -> Handled;
    /// Whether a request was refused last because of what all connections hold of the memory.
    fn lacks_memory(&self) -> bool;
    /// Starts to carry out a request that is not about one item. If that cannot be, `put` gets the
    /// reason.
    fn shard_request(
        &mut self,
        request: Arc<ShardRequest>,
        asked: Asked,
        put: impl FnOnce(NoAnswer),
    ) -> Handled;
    /// Starts to carry out a request that concerns the whole node. The connection has no earlier
    /// request that is not answered, and takes no later one before this one is.
    fn node_request(&mut self, request: NodeRequest, sequence: u64) -> Handled;
    /// Whether a reply may leave.
    fn release(&self, after: After) -> Release;
    /// Learns that a reply with a value of so many bytes that came from `core` is in the client's
    /// output.
    fn passed(&mut self, core: usize, value_bytes: usize);
}

/// What a shard is asked for, and where it is.
enum Asking<'r> {
    Item(&'r ItemRequest<'r>, Target),
    Shard(Arc<ShardRequest>),
}

/// Which of a connection's requests is asked for, and what those before it hold.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The request's sequence in the connection.
    pub sequence: u64,
    /// What the connection's other requests hold and wait for.
    pub load: Load,
    /// When the request was received, or the last bytes while it waited, in nanoseconds.
    pub since: u64,
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
    queue: &'a mut OutputQueue,
    /// Bytes that are on their way already, besides those in `queue`.
    in_flight: usize,
    mark: Option<usize>,
}

impl<'a> Output<'a> {
    /// Replies go to `queue`; `pending` bytes, those included, have not been sent. Above `mark`
    /// nothing more is executed, and without one nothing at all.
    pub fn new(queue: &'a mut OutputQueue, pending: usize, mark: Option<usize>) -> Self {
        let in_flight = pending.saturating_sub(queue.len());
        Self { queue, in_flight, mark }
    }

    /// Whether replies are there that have not been sent.
    fn has_unsent(&self) -> bool {
        self.in_flight > 0 || !self.queue.is_empty()
    }

    fn is_full(&self) -> bool {
        self.mark.is_none_or(|mark| self.in_flight + self.queue.len() > mark)
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

/// A connection, whatever its protocol.
pub trait Conversation {
    /// Takes bytes that were received at nanosecond `now`, and no request of them before it is
    /// driven again.
    fn store(&mut self, bytes: &[u8], now: u64, spares: &mut SpareInputs);
    /// Takes the end of the request at `sequence`.
    fn complete(&mut self, sequence: u64, arrival: Arrival);
    /// Takes an answer that came from `core` and may leave. It leaves at once if it may be the next
    /// and the client takes its replies; returns whether it did. `now` is in Unix seconds.
    fn complete_now(
        &mut self,
        sequence: u64,
        answer: Result<CarriedAnswer<'_>, NoAnswer>,
        core: usize,
        now: u32,
        output: &mut Output<'_>,
    ) -> bool;
    /// How many requests were taken since the connection began.
    fn requests(&self) -> u64;
    /// Bytes that were received and not taken.
    fn input_len(&self) -> usize;
    /// Whether every request that was taken is answered.
    fn is_answered(&self) -> bool;
    /// Whether a reply is there and waits only for its permission to leave.
    fn waits_for_log(&self) -> bool;
    /// When the next reply may leave, if it is there.
    fn next_after(&self) -> Option<After>;
    /// Whether a reply has left in part, and its next part waits for room in the output.
    fn has_parted(&self) -> bool;
    /// Whether some of what was received is not taken yet.
    fn has_input(&self) -> bool;
    /// What the requests that are not answered hold and wait for.
    fn load(&self) -> Load;
    /// Bytes of memory that hold what was received and not taken.
    fn input_bytes(&self) -> usize;
    /// Bytes of memory that requests hold which are not answered.
    fn waiting_bytes(&self) -> usize;
    /// How long the input must become before the request at its front is whole, as far as is
    /// known: 0 if no part of a request is there.
    fn input_needed(&self) -> usize;
    /// Takes no more requests.
    fn close(&mut self);
    /// Appends what a client is told that comes when there are too many.
    fn put_turned_away(&self, out: &mut Vec<u8>);
    /// Appends what a client is told whose connection holds too much memory.
    fn put_shed(&self, out: &mut Vec<u8>);
    /// Whether it takes no requests because it watches what happens, and was told so.
    fn is_watching(&self) -> bool;
    /// Appends what a client that watches is told of an event.
    fn put_event(&self, event: &NodeEvent, out: &mut Vec<u8>);
    /// Appends what it is told where so many events were skipped.
    fn put_skipped(&self, events: u64, out: &mut Vec<u8>);
}

/// A connection whose requests `H` carries out.
pub trait Drive<H: Handler>: Conversation {
    /// Takes bytes that were received.
    fn receive(
        &mut self,
        bytes: &[u8],
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop;
    /// Sends what may leave, and goes on with what was received.
    fn resume(
        &mut self,
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop;
}

/// One connection that speaks `P`.
#[derive(Debug)]
pub struct Connection<P: Codec> {
    protocol: P,
    /// Bytes received and not taken yet, from `start`.
    input: Vec<u8>,
    start: usize,
    /// How many of them there must be before the protocol can say more.
    needed: usize,
    slots: Slots<P>,
    /// When the last of them was received, in nanoseconds.
    received_at: u64,
    /// How many requests were taken.
    requests: u64,
    /// The number of the group that is being taken, or was last.
    group: u32,
    is_in_group: bool,
    /// How far the message in front is taken, if some of its parts are.
    begun: Option<Begun<P::Token>>,
    /// Parsing stopped at [`CONNECTION_REQUESTS_MAX`] slots.
    is_throttled: bool,
    /// A request for the whole node is under way.
    is_barred: bool,
    /// The client has asked to watch what happens.
    is_watching: bool,
    is_closing: bool,
}

impl<P: Codec> Conversation for Connection<P> {
    fn store(&mut self, bytes: &[u8], now: u64, spares: &mut SpareInputs) {
        if self.is_closing || self.is_watching() {
            return;
        }
        if self.input.is_empty() {
            self.input = spares.take();
        }
        self.append(bytes, now);
    }

    fn complete(&mut self, sequence: u64, arrival: Arrival) {
        if matches!(arrival.answered, Answered::Node(NodeAnswer::TooManyWatchers)) {
            self.is_watching = false;
        }
        self.slots.complete(sequence, arrival);
    }

    fn complete_now(
        &mut self,
        sequence: u64,
        answer: Result<CarriedAnswer<'_>, NoAnswer>,
        core: usize,
        now: u32,
        output: &mut Output<'_>,
    ) -> bool {
        let is_passed = self.slots.may_leave_next(sequence) && !output.is_full();
        if canary::has(NodeDefect::DropWhereFull) && self.slots.may_leave_next(sequence) {
            let mark = output.queue.mark();
            let is_dropped = output.is_full();
            self.slots.pass(&self.protocol, sequence, answer, (now, 1), output.queue);
            if is_dropped {
                output.queue.truncate(mark);
            }
            return true;
        }
        if is_passed {
            self.slots.pass(&self.protocol, sequence, answer, (now, 1), output.queue);
        } else {
            let answered = match answer {
                Ok(answer) => Answered::Item(answer.into_buf()),
                Err(failure) => Answered::Failed(failure),
            };
            self.complete(sequence, Arrival { answered, after: After::NOTHING, core: Some(core) });
        }
        is_passed
    }

    fn requests(&self) -> u64 {
        self.requests
    }

    fn input_len(&self) -> usize {
        self.input.len() - self.start
    }

    fn is_answered(&self) -> bool {
        self.slots.is_empty()
    }

    fn waits_for_log(&self) -> bool {
        self.slots.next_after().is_some()
    }

    fn has_parted(&self) -> bool {
        self.slots.has_parted()
    }

    fn next_after(&self) -> Option<After> {
        self.slots.next_after()
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    fn load(&self) -> Load {
        self.slots.load()
    }

    fn input_bytes(&self) -> usize {
        self.input.capacity()
    }

    fn waiting_bytes(&self) -> usize {
        self.slots.memory() + self.protocol.gathered_bytes()
    }

    fn input_needed(&self) -> usize {
        if self.input.is_empty() { 0 } else { self.needed }
    }

    fn close(&mut self) {
        self.is_closing = true;
        self.input = Vec::new();
        self.start = 0;
    }

    fn put_turned_away(&self, out: &mut Vec<u8>) {
        self.protocol.put_turned_away(out);
    }

    fn put_shed(&self, out: &mut Vec<u8>) {
        self.protocol.put_shed(out);
    }

    fn is_watching(&self) -> bool {
        self.is_watching && self.slots.is_empty()
    }

    fn put_event(&self, event: &NodeEvent, out: &mut Vec<u8>) {
        self.protocol.put_event(event, out);
    }

    fn put_skipped(&self, events: u64, out: &mut Vec<u8>) {
        self.protocol.put_skipped(events, out);
    }
}

impl<P: Codec, H: Handler> Drive<H> for Connection<P> {
    fn receive(
        &mut self,
        bytes: &[u8],
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop {
        if self.is_closing {
            return Stop::Closing;
        }
        let now = handler.now().nanoseconds;
        if !self.input.is_empty() {
            self.append(bytes, now);
            return self.resume(output, handler, spares);
        }
        let (stop, taken) = self.parse(bytes, now, output, handler);
        if taken < bytes.len() && stop != Stop::Closing {
            self.input = spares.take();
            self.append(&bytes[taken..], now);
        }
        stop
    }

    fn resume(
        &mut self,
        output: &mut Output<'_>,
        handler: &mut H,
        spares: &mut SpareInputs,
    ) -> Stop {
        if !self.release(output, handler) {
            return Stop::Core;
        }
        let input = std::mem::take(&mut self.input);
        let (stop, taken) = self.parse(&input[self.start..], self.received_at, output, handler);
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
}

impl<P: Codec> Connection<P> {
    /// A connection that begins.
    pub fn new(protocol: P) -> Self {
        Self {
            protocol,
            input: Vec::new(),
            start: 0,
            needed: 0,
            received_at: 0,
            slots: Slots::default(),
            requests: 0,
            group: 0,
            is_in_group: false,
            begun: None,
            is_throttled: false,
            is_barred: false,
            is_watching: false,
            is_closing: false,
        }
    }

    /// Sends what may leave, and asks for more of a reply of which a part has left. False if the
    /// core is at a limit.
    fn release(&mut self, output: &mut Output<'_>, handler: &mut impl Handler) -> bool {
        while !output.is_full() {
            let Some((sequence, request)) = self.slots.next_part() else {
                if !self.slots.release_one(&self.protocol, handler, output.queue) {
                    return true;
                }
                continue;
            };
            // It goes on whatever waits behind it.
            let since = self.received_at;
            let asked = Asked { sequence, load: Load::default(), since };
            let mut failure = None;
            match handler.shard_request(request, asked, |no_answer| failure = Some(no_answer)) {
                Handled::Refused => return false,
                Handled::Waiting { expected_bytes } => {
                    self.slots.wait_for_part(sequence, expected_bytes);
                }
                Handled::Done { .. } => {
                    let no_answer = failure.expect("what is not begun has a reason");
                    let arrival = Arrival {
                        answered: Answered::Failed(no_answer),
                        after: After::NOTHING,
                        core: None,
                    };
                    self.slots.wait_for_part(sequence, 0);
                    self.slots.complete(sequence, arrival);
                }
            }
        }
        true
    }

    /// Keeps bytes for later. The memory grows with what has come, by half of it at a time, and not
    /// beyond the request that it is for.
    fn append(&mut self, bytes: &[u8], now: u64) {
        self.received_at = now;
        let len = self.input.len() + bytes.len();
        if len > self.input.capacity() {
            let end = (self.start + self.needed).max(len);
            let capacity = (len + len / 2).min(end).max(len);
            self.input.reserve_exact(capacity - self.input.len());
        }
        self.input.extend_from_slice(bytes);
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
        self.is_throttled = self.slots.unanswered() >= slots_max || self.slots.len() >= SLOTS_MAX;
        let load = self.slots.load();
        // Where no slot is left there is nothing whose end would have this looked at again.
        let gathered = if self.slots.is_empty() { 0 } else { self.protocol.gathered_bytes() };
        let held = load.bytes + load.expected_bytes + gathered;
        if self.is_throttled || held >= CONNECTION_WAITING_BYTES_MAX {
            return Some(Stop::Requests);
        }
        output.is_full().then_some(Stop::Output)
    }

    /// Takes requests from the front of `bytes`, which were received by nanosecond `asked`; returns
    /// how many bytes are done with.
    fn parse(
        &mut self,
        bytes: &[u8],
        asked: u64,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> (Stop, usize) {
        let mut taken = 0;
        let mut room = P::Room::default();
        let mut ahead = Ahead::new();
        loop {
            if self.is_watching() {
                return (Stop::Input, bytes.len());
            }
            if let Some(stop) = self.limit(output) {
                return (stop, taken);
            }
            let rest = &bytes[taken..];
            if rest.len() < self.needed.max(1) {
                return (Stop::Input, taken);
            }
            ahead.cut(&mut self.protocol, rest);
            ahead.announce(&mut room, handler);
            for one in ahead.iter() {
                let consumed = match P::extent(one.message) {
                    Extent::Whole { consumed } => consumed,
                    Extent::Part { consumed, needed } => {
                        self.needed = needed;
                        return (Stop::Input, taken + consumed);
                    }
                    Extent::Close => {
                        self.close();
                        continue;
                    }
                };
                if let Some(stop) = self.take_one(&one, asked, &mut room, output, handler) {
                    self.protocol.rewind(one.before);
                    return (stop, taken);
                }
                self.needed = 0;
                self.requests += 1;
                taken += consumed;
            }
        }
    }

    /// Takes one message; `Some` if it cannot be taken now.
    #[inline]
    fn take_one(
        &mut self,
        one: &One<'_, '_, P>,
        asked: u64,
        room: &mut P::Room,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        if let Some(stop) = self.limit(output) {
            return Some(stop);
        }
        let message = one.message;
        // It is the message in front: what was begun goes on, whatever it would mean now.
        if self.begun.is_some() {
            return self.parts(message, asked, output, handler);
        }
        let grouping = P::grouping(message);
        if grouping == Grouping::Member && !self.is_in_group {
            self.is_in_group = true;
            self.group = self.group.wrapping_add(1).max(1);
        }
        let stop = match self.protocol.meaning(message, room, (asked, handler.now())) {
            Meaning::Shard(_) | Meaning::Node(_)
                if P::must_be_alone(message) && (output.has_unsent() || !self.is_answered()) =>
            {
                self.put_own(output, |protocol, out| protocol.put_not_alone(message, out));
                None
            }
            Meaning::Constant => {
                self.constant(message, output);
                None
            }
            Meaning::Keyed(request) => {
                let target = one.target.unwrap_or_else(|| handler.target(&request.key));
                let asking = Asking::Item(&request, target);
                self.request((message, asked), asking, output, handler)
            }
            Meaning::Shard(request) => {
                self.request((message, asked), Asking::Shard(request), output, handler)
            }
            Meaning::Parts => self.parts(message, asked, output, handler),
            Meaning::Node(request) => self.node_request(message, request, handler),
            Meaning::Close => {
                self.constant(message, output);
                self.close();
                None
            }
        };
        self.is_in_group &= grouping != Grouping::Last || stop.is_some();
        stop
    }

    /// The number of the group that a message is of; 0 for none.
    fn group_number(&self) -> u32 {
        if self.is_in_group { self.group } else { 0 }
    }

    #[inline]
    fn request(
        &mut self,
        (message, since): (&P::Message<'_>, u64),
        asking: Asking<'_>,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        let group = self.group_number();
        let (sequence, load) = (self.slots.next_sequence(), self.slots.load());
        let asked = Asked { sequence, load, since };
        let is_direct = P::ORDER == Order::AsDone || self.slots.is_empty();
        let Self { protocol, slots, .. } = self;
        let out = if is_direct { output.queue.bytes() } else { slots.held_tail() };
        let (before, now) = (out.len(), handler.now().second);
        let mut put =
            |answer: Result<&Answer<'_>, NoAnswer>| protocol.put(message, answer, now, out);
        let handled = match asking {
            Asking::Item(request, target) => handler.request(request, target, asked, put),
            Asking::Shard(request) => {
                handler.shard_request(request, asked, |no_answer| put(Err(no_answer)))
            }
        };
        match handled {
            Handled::Refused => return Some(Stop::Core),
            Handled::Waiting { expected_bytes } => {
                slots.push_waiting(group, expected_bytes, protocol.token(message));
            }
            Handled::Done { after, is_error } if is_direct => {
                let out = output.queue.bytes();
                if handler.release(after) != Release::Now {
                    slots.hold_from(out, before, group, after, is_error);
                } else if slots.takes_back(group, is_error) {
                    out.truncate(before);
                }
            }
            Handled::Done { after, is_error } => slots.push_held(before, group, after, is_error),
        }
        None
    }

    fn node_request(
        &mut self,
        message: &P::Message<'_>,
        request: NodeRequest,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        if !self.slots.is_empty() {
            return Some(Stop::Barrier);
        }
        let is_watch = matches!(request, NodeRequest::Watch(_));
        match handler.node_request(request, self.slots.next_sequence()) {
            Handled::Refused => return Some(Stop::Core),
            Handled::Waiting { expected_bytes } => {
                let token = self.protocol.token(message);
                self.slots.push_waiting(0, expected_bytes, token);
                self.is_barred = true;
                self.is_watching = is_watch;
            }
            Handled::Done { .. } => {}
        }
        None
    }

    /// Takes a message whose answer the protocol knows.
    #[inline]
    fn constant(&mut self, message: &P::Message<'_>, output: &mut Output<'_>) {
        self.put_own(output, |protocol, out| protocol.put_constant(message, out));
    }

    /// Appends a reply that needs nothing but the protocol.
    #[inline]
    fn put_own(&mut self, output: &mut Output<'_>, put: impl FnOnce(&P, &mut Vec<u8>)) {
        let group = self.group_number();
        if P::ORDER == Order::AsDone || self.slots.is_empty() {
            let out = output.queue.bytes();
            let before = out.len();
            put(&self.protocol, out);
            if self.slots.takes_back(group, false) {
                out.truncate(before);
            }
        } else {
            let before = self.slots.held_tail().len();
            put(&self.protocol, self.slots.held_tail());
            self.slots.push_held(before, group, After::NOTHING, false);
        }
    }
}
