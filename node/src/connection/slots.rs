//! Requests whose replies have not left, in order.

use std::collections::VecDeque;
use std::ops::{Add, Sub};

use larder_protocol::memcached::reply;

use super::{After, ByteQueue, Handler, Release};
use crate::memcached::answer::STOPPED;

/// More slots than this are given back to the allocator when all are answered.
const KEPT_SLOTS: usize = 64;

/// One request.
#[derive(Debug)]
struct Slot {
    state: State,
    /// The retrieval line it is of; 0 for none.
    line: u32,
}

#[derive(Debug)]
pub(super) enum State {
    /// The reply has not come.
    Waiting { expected_bytes: usize },
    /// The reply is the next `len` bytes of those held.
    Held { len: usize, after: After, is_error: bool },
    /// The reply came from a task or from another core, and could not leave at once.
    Own(Arrival),
}

/// A reply that came from a task or from another core.
#[derive(Debug)]
pub struct Arrival {
    /// The reply.
    pub bytes: Vec<u8>,
    /// When it may leave.
    pub after: After,
    /// Whether it is an error line.
    pub is_error: bool,
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

impl Load {
    /// Notes that the reply of a slot in this state has come.
    fn arrived(&mut self, state: &State) {
        let State::Waiting { expected_bytes } = state else { panic!("two replies to one request") };
        self.waiting -= 1;
        self.expected_bytes -= expected_bytes;
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: VecDeque<Slot>,
    /// The sequence of the first slot.
    first: u64,
    held: ByteQueue,
    load: Load,
    /// The rest of this retrieval line's answer is not sent; 0 for none.
    cut_line: u32,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
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

    pub(super) fn push_waiting(&mut self, line: u32, expected_bytes: usize) {
        self.load.waiting += 1;
        self.load.expected_bytes += expected_bytes;
        self.slots.push_back(Slot { state: State::Waiting { expected_bytes }, line });
    }

    /// Pushes a slot for what was appended to the held bytes since they were `before` long.
    /// A reply of no bytes needs none.
    pub(super) fn push_held(&mut self, before: usize, line: u32, after: After, is_error: bool) {
        let len = self.held.tail().len() - before;
        if len > 0 {
            self.load.bytes += len;
            let state = State::Held { len, after, is_error };
            self.slots.push_back(Slot { state, line });
        }
    }

    /// Pushes a slot for a reply that may leave when it is its turn.
    pub(super) fn hold(&mut self, line: u32, put: impl FnOnce(&mut Vec<u8>)) {
        let before = self.held.tail().len();
        put(self.held.tail());
        self.push_held(before, line, After::NOTHING, false);
    }

    /// Moves what was appended to `out` since it was `before` long into a slot.
    pub(super) fn hold_from(
        &mut self,
        out: &mut Vec<u8>,
        before: usize,
        line: u32,
        after: After,
        is_error: bool,
    ) {
        let held_before = self.held.tail().len();
        self.held.tail().extend_from_slice(&out[before..]);
        out.truncate(before);
        self.push_held(held_before, line, after, is_error);
    }

    /// Notes that what was appended to `out` since it was `before` long has left, and takes it back
    /// if its line was cut.
    #[inline]
    pub(super) fn pass_written(
        &mut self,
        before: usize,
        line: u32,
        is_error: bool,
        out: &mut Vec<u8>,
    ) {
        if line == 0 {
            return;
        }
        if line == self.cut_line {
            out.truncate(before);
        } else if is_error {
            self.cut_line = line;
        }
    }

    /// The memory of the slots and of replies that wait in them, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.load.bytes + self.load.expected_bytes
    }

    /// Whether `sequence` is the first slot.
    pub(super) fn is_next(&self, sequence: u64) -> bool {
        sequence == self.first && !self.slots.is_empty()
    }

    /// Sends the first slot's reply.
    pub(super) fn pass(&mut self, bytes: &[u8], is_error: bool, out: &mut Vec<u8>) {
        let slot = self.pop();
        self.load.arrived(&slot.state);
        let before = out.len();
        out.extend_from_slice(bytes);
        self.pass_written(before, slot.line, is_error, out);
    }

    /// Stores the reply of the slot at `sequence`.
    pub(super) fn complete(&mut self, sequence: u64, state: State) {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| self.slots.get_mut(index));
        let slot = slot.expect("a slot stays until its reply has come");
        self.load.arrived(&slot.state);
        if let State::Own(arrival) = &state {
            self.load.bytes += arrival.bytes.len();
        }
        slot.state = state;
    }

    /// Whether the first slot's reply has come.
    pub(super) fn next_is_ready(&self) -> bool {
        self.slots.front().is_some_and(|slot| !matches!(slot.state, State::Waiting { .. }))
    }

    /// When the first slot's reply may leave, if it has come.
    pub(super) fn next_after(&self) -> Option<After> {
        match &self.slots.front()?.state {
            State::Waiting { .. } => None,
            State::Held { after, .. } | State::Own(Arrival { after, .. }) => Some(*after),
        }
    }

    /// Sends the first slot's reply if it may leave; returns whether it did.
    pub(super) fn release_one(&mut self, handler: &mut impl Handler, out: &mut Vec<u8>) -> bool {
        let (after, is_error) = match self.slots.front() {
            None | Some(Slot { state: State::Waiting { .. }, .. }) => return false,
            Some(Slot { state: State::Held { after, is_error, .. }, .. })
            | Some(Slot { state: State::Own(Arrival { after, is_error, .. }), .. }) => {
                (*after, *is_error)
            }
        };
        let release = handler.release(after);
        if release == Release::Later {
            return false;
        }
        let slot = self.pop();
        let before = out.len();
        let len = match slot.state {
            State::Waiting { .. } => unreachable!("it was looked at above"),
            State::Held { len, .. } => {
                if release == Release::Now {
                    out.extend_from_slice(self.held.front(len));
                }
                self.held.consume(len);
                len
            }
            State::Own(Arrival { bytes, core, .. }) => {
                if release == Release::Now {
                    out.extend_from_slice(&bytes);
                }
                if let Some(core) = core {
                    handler.passed(core, bytes.len());
                }
                bytes.len()
            }
        };
        self.load.bytes -= len;
        if release == Release::Never && len > 0 {
            reply::line(out, STOPPED);
        }
        self.pass_written(before, slot.line, is_error || release == Release::Never, out);
        true
    }

    fn pop(&mut self) -> Slot {
        let slot = self.slots.pop_front().expect("the caller has seen it");
        self.first += 1;
        if self.slots.is_empty() && self.slots.capacity() > KEPT_SLOTS {
            self.slots = VecDeque::new();
        }
        slot
    }
}
