//! Requests whose replies have not left.
//!
//! Where replies leave as their requests came, the first slot's is the next. Where they leave as
//! they are done, those that have come and may not leave yet stand in two rows: what is held, and
//! what came from elsewhere. The first of each row is the next.

use std::collections::VecDeque;
use std::ops::{Add, Sub};
use std::sync::Arc;

use larder_runtime::output_queue::OutputQueue;

use super::linked::{put_brought, put_carried};
use super::{After, ByteQueue, Handler, Release};
use crate::canary::{self, NodeDefect};
use crate::codec::{Codec, Order};
use crate::request::{Answered, CarriedAnswer, NoAnswer, ShardRequest};

/// More slots than this are given back to the allocator when all are answered.
const KEPT_SLOTS: usize = 64;

/// One request.
#[derive(Debug)]
struct Slot<T> {
    state: State<T>,
    /// The group it is of; 0 for none.
    group: u32,
}

#[derive(Debug)]
enum State<T> {
    /// The answer has not come.
    Waiting { expected_bytes: usize, token: T },
    /// The reply is the next `len` bytes of those held.
    Held { len: usize, after: After, is_error: bool },
    /// The answer came from a task or from another core, and could not leave at once. It has memory
    /// of its own, because slots that wait are many and would all be as long.
    Own { arrival: Box<Arrival>, token: T },
    /// What a part has brought is gathered, and may not leave at once.
    Gathered { after: After, token: T },
    /// A part of the reply has left, and a shard is to be asked for the next.
    Parted { request: Arc<ShardRequest>, token: T },
    /// The reply has left before those of earlier requests.
    Left,
}

/// An answer that came from a task or from another core.
#[derive(Debug)]
pub struct Arrival {
    /// The answer.
    pub answered: Answered,
    /// When it may leave.
    pub after: After,
    /// The core that is to learn when it is passed to the client's output.
    pub core: Option<usize>,
}

/// What a connection's requests hold and wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests whose replies have not come.
    pub waiting: usize,
    /// How many bytes those are expected to have.
    pub expected_bytes: usize,
    /// Bytes of replies that came and have not left.
    pub bytes: usize,
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            expected_bytes: self.expected_bytes + other.expected_bytes,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Sub for Load {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            waiting: self.waiting - other.waiting,
            expected_bytes: self.expected_bytes - other.expected_bytes,
            bytes: self.bytes - other.bytes,
        }
    }
}

/// The slots of a connection that speaks `P`.
#[derive(Debug)]
pub(super) struct Slots<P: Codec> {
    slots: VecDeque<Slot<P::Token>>,
    /// The sequence of the first slot.
    first: u64,
    /// Slots whose replies have not left.
    unanswered: usize,
    held: ByteQueue,
    /// Where replies leave as they are done: the slots that are held, and those with an answer of
    /// their own, by sequence in the order in which they came.
    held_row: VecDeque<u64>,
    own_row: VecDeque<u64>,
    /// Those whose replies have left in part.
    parted: VecDeque<u64>,
    load: Load,
    /// Bytes of the tokens besides their own size.
    token_bytes: usize,
    /// How many slots have an answer of their own.
    arrivals: usize,
    /// The rest of this group's answers is not sent; 0 for none.
    cut_group: u32,
}

impl<P: Codec> Default for Slots<P> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            unanswered: 0,
            held: ByteQueue::default(),
            held_row: VecDeque::new(),
            own_row: VecDeque::new(),
            parted: VecDeque::new(),
            load: Load::default(),
            token_bytes: 0,
            arrivals: 0,
            cut_group: 0,
        }
    }
}

impl<P: Codec> Slots<P> {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many of the slots have replies that have not left.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    pub(super) fn load(&self) -> Load {
        self.load
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Where the reply of a slot that is about to be pushed goes.
    pub(super) fn held_tail(&mut self) -> &mut Vec<u8> {
        self.held.tail()
    }

    #[inline]
    pub(super) fn push_waiting(&mut self, group: u32, expected_bytes: usize, token: P::Token) {
        self.load.waiting += 1;
        self.load.expected_bytes += expected_bytes;
        self.token_bytes += P::token_bytes(&token);
        self.unanswered += 1;
        self.slots.push_back(Slot { state: State::Waiting { expected_bytes, token }, group });
    }

    /// Pushes a slot for a part whose answer is gathered.
    pub(super) fn push_gathered(&mut self, after: After, token: P::Token) {
        self.own_row.push_back(self.next_sequence());
        self.unanswered += 1;
        self.slots.push_back(Slot { state: State::Gathered { after, token }, group: 0 });
    }

    /// Pushes a slot for what was appended to the held bytes since they were `before` long.
    /// A reply of no bytes needs none.
    pub(super) fn push_held(&mut self, before: usize, group: u32, after: After, is_error: bool) {
        let len = self.held.tail().len() - before;
        if len > 0 {
            self.load.bytes += len;
            if P::ORDER == Order::AsDone {
                self.held_row.push_back(self.next_sequence());
            }
            let state = State::Held { len, after, is_error };
            self.unanswered += 1;
            self.slots.push_back(Slot { state, group });
        }
    }

    /// Moves what was appended to `out` since it was `before` long into a slot.
    pub(super) fn hold_from(
        &mut self,
        out: &mut Vec<u8>,
        before: usize,
        group: u32,
        after: After,
        is_error: bool,
    ) {
        let held_before = self.held.tail().len();
        self.held.tail().extend_from_slice(&out[before..]);
        out.truncate(before);
        self.push_held(held_before, group, after, is_error);
    }

    /// Notes that a reply of this group is written. Returns whether it is to be taken back, because
    /// the group was cut before.
    #[inline]
    pub(super) fn takes_back(&mut self, group: u32, is_error: bool) -> bool {
        if group == 0 {
            return false;
        }
        let is_cut = group == self.cut_group;
        if is_error {
            self.cut_group = group;
        }
        is_cut
    }

    /// Whether a reply has left in part.
    pub(super) fn has_parted(&self) -> bool {
        !self.parted.is_empty()
    }

    /// The memory of the slots and of replies that wait in them, in bytes.
    pub(super) fn memory(&self) -> usize {
        let rows = [&self.held_row, &self.own_row, &self.parted];
        let rows = rows.map(VecDeque::capacity).iter().sum::<usize>() * size_of::<u64>();
        self.slots.capacity() * size_of::<Slot<P::Token>>()
            + rows
            + self.arrivals * size_of::<Arrival>()
            + self.token_bytes
            + self.load.bytes
            + self.load.expected_bytes
    }

    /// Whether the answer to the request at `sequence` may leave before all others.
    pub(super) fn may_leave_next(&self, sequence: u64) -> bool {
        let is_first = sequence == self.first || canary::has(NodeDefect::Overtake);
        P::ORDER == Order::AsDone || (is_first && !self.slots.is_empty())
    }

    /// Sends the answer to the request at `sequence`, which may leave next. `at` is what
    /// [`Codec::put_waited`] is told.
    pub(super) fn pass(
        &mut self,
        protocol: &P,
        sequence: u64,
        answer: Result<CarriedAnswer<'_>, NoAnswer>,
        at: (u32, u8),
        out: &mut OutputQueue,
    ) {
        let group = self.stop_waiting(sequence);
        // The token is read where it lies: it is long.
        let State::Waiting { token, .. } = self.state(sequence) else { unreachable!("it waited") };
        let (mark, is_error) = (out.mark(), answer.as_ref().map_or(true, CarriedAnswer::is_large));
        match answer {
            Ok(answer) => put_carried(protocol, token, answer, at, out),
            Err(failure) => protocol.put_waited(token, Err(failure), at, out.bytes()),
        }
        *self.state(sequence) = State::Left;
        if self.takes_back(group, is_error) {
            out.truncate(mark);
        }
        self.leave();
    }

    /// Stores the end of the request at `sequence`.
    pub(super) fn complete(&mut self, sequence: u64, arrival: Arrival) {
        self.stop_waiting(sequence);
        let state = std::mem::replace(self.state(sequence), State::Left);
        let State::Waiting { token, .. } = state else { unreachable!("it waited") };
        self.load.bytes += arrival.answered.value_bytes();
        self.token_bytes += P::token_bytes(&token);
        if P::ORDER == Order::AsDone {
            self.own_row.push_back(sequence);
        }
        self.arrivals += 1;
        *self.state(sequence) = State::Own { arrival: Box::new(arrival), token };
    }

    fn slot(&mut self, sequence: u64) -> &mut Slot<P::Token> {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| self.slots.get_mut(index));
        slot.expect("a slot stays until its reply has left")
    }

    fn state(&mut self, sequence: u64) -> &mut State<P::Token> {
        &mut self.slot(sequence).state
    }

    /// Counts a request no longer whose answer has come, nor its token; returns its group.
    fn stop_waiting(&mut self, sequence: u64) -> u32 {
        let slot = self.slot(sequence);
        let State::Waiting { expected_bytes, token } = &slot.state else {
            panic!("two replies to one request")
        };
        let (group, expected_bytes) = (slot.group, *expected_bytes);
        let token_bytes = P::token_bytes(token);
        self.load.waiting -= 1;
        self.load.expected_bytes -= expected_bytes;
        self.token_bytes -= token_bytes;
        group
    }

    fn after_of(&self, sequence: u64) -> Option<After> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        match &self.slots.get(index)?.state {
            State::Waiting { .. } | State::Parted { .. } | State::Left => None,
            State::Held { after, .. } | State::Gathered { after, .. } => Some(*after),
            State::Own { arrival, .. } => Some(arrival.after),
        }
    }

    /// When the next reply may leave, if it has come. Where there are two that could be the next,
    /// that of the later is told only if there is no earlier one.
    pub(super) fn next_after(&self) -> Option<After> {
        match P::ORDER {
            Order::AsAsked => self.after_of(self.first),
            Order::AsDone => {
                let next = self.own_row.front().or(self.held_row.front())?;
                self.after_of(*next)
            }
        }
    }

    /// Sends the next reply if it may leave; returns whether there was one.
    pub(super) fn release_one(
        &mut self,
        protocol: &P,
        handler: &mut impl Handler,
        out: &mut OutputQueue,
    ) -> bool {
        match P::ORDER {
            Order::AsAsked => self.release_at(self.first, protocol, handler, out),
            Order::AsDone => {
                if let Some(&sequence) = self.own_row.front()
                    && self.release_at(sequence, protocol, handler, out)
                {
                    self.own_row.pop_front();
                    return true;
                }
                let Some(&sequence) = self.held_row.front() else { return false };
                let is_released = self.release_at(sequence, protocol, handler, out);
                if is_released {
                    self.held_row.pop_front();
                }
                is_released
            }
        }
    }

    /// Appends the reply of so many bytes at the front of those that are held, or what says that it
    /// must never leave.
    fn release_held(&mut self, len: usize, release: Release, protocol: &P, out: &mut Vec<u8>) {
        let reply = self.held.front(len);
        if release == Release::Now {
            out.extend_from_slice(reply);
        } else {
            protocol.put_stopped(reply, out);
        }
        self.held.consume(len);
        self.load.bytes -= len;
    }

    fn release_at(
        &mut self,
        sequence: u64,
        protocol: &P,
        handler: &mut impl Handler,
        out: &mut OutputQueue,
    ) -> bool {
        let Some(after) = self.after_of(sequence) else { return false };
        let release = handler.release(after);
        if release == Release::Later {
            return false;
        }
        let mark = out.mark();
        let slot = self.slot(sequence);
        let group = slot.group;
        let mut next = None;
        let is_error = match std::mem::replace(&mut slot.state, State::Left) {
            State::Waiting { .. } | State::Parted { .. } | State::Left => {
                unreachable!("it was looked at above")
            }
            State::Held { len, is_error, .. } => {
                self.release_held(len, release, protocol, out.bytes());
                is_error
            }
            State::Gathered { token, .. } => {
                protocol.pass_part(&token, release == Release::Never, out.bytes());
                false
            }
            State::Own { arrival, mut token } => {
                let arrival = *arrival;
                self.arrivals -= 1;
                self.token_bytes -= P::token_bytes(&token);
                let value_bytes = arrival.answered.value_bytes();
                let at = (handler.now().second, u8::from(arrival.core.is_some()));
                let is_failed = arrival.answered.is_failed();
                match arrival.answered {
                    _ if release == Release::Never => {
                        protocol.put_waited(&token, Err(NoAnswer::Stopped), at, out.bytes());
                    }
                    Answered::Item(answer) => {
                        put_brought(protocol, &token, answer, at, out);
                    }
                    Answered::Shard(answer) => {
                        next = protocol.put_shard(&mut token, &answer, at, out.bytes());
                    }
                    Answered::Node(answer) => protocol.put_node(&token, &answer, out.bytes()),
                    Answered::Failed(failure) => {
                        protocol.put_waited(&token, Err(failure), at, out.bytes());
                    }
                }
                if let Some(core) = arrival.core {
                    handler.passed(core, value_bytes);
                }
                self.load.bytes -= value_bytes;
                if let Some(request) = next {
                    self.token_bytes += P::token_bytes(&token) + request.memory();
                    self.parted.push_back(sequence);
                    *self.state(sequence) = State::Parted { request, token };
                    return true;
                }
                is_failed
            }
        };
        if self.takes_back(group, is_error || release == Release::Never) {
            out.truncate(mark);
        }
        self.leave();
        true
    }

    /// A request whose reply has left in part, and what a shard is to be asked next for it.
    pub(super) fn next_part(&mut self) -> Option<(u64, Arc<ShardRequest>)> {
        let sequence = *self.parted.front()?;
        match self.state(sequence) {
            State::Parted { request, .. } => Some((sequence, Arc::clone(request))),
            _ => unreachable!("it is in the row as long as it has to ask"),
        }
    }

    /// Notes that a shard was asked for what [`Slots::next_part`] told.
    pub(super) fn wait_for_part(&mut self, sequence: u64, expected_bytes: usize) {
        let state = std::mem::replace(self.state(sequence), State::Left);
        let State::Parted { request, token } = state else {
            unreachable!("it was asked for a part")
        };
        self.parted.pop_front();
        self.token_bytes -= request.memory();
        self.load.waiting += 1;
        self.load.expected_bytes += expected_bytes;
        *self.state(sequence) = State::Waiting { expected_bytes, token };
    }

    /// Notes that a slot's reply has left, and forgets the first slots as far as theirs have.
    fn leave(&mut self) {
        self.unanswered -= 1;
        while let Some(Slot { state: State::Left, .. }) = self.slots.front() {
            // It owns nothing any more, and need not be moved to be dropped.
            std::mem::forget(self.slots.pop_front());
            self.first += 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > KEPT_SLOTS {
            self.slots = VecDeque::new();
            self.held_row = VecDeque::new();
            self.own_row = VecDeque::new();
            self.parted = VecDeque::new();
        }
    }
}
