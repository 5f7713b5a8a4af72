//! Requests of many callers, gathered into one stream of bytes, and replies that find their way
//! back. Neither does I/O nor waits.
//!
//! Invariants:
//! - Bytes are handed out by one sender at a time, in the order in which they came.
//! - An id is never given out twice, and a reply is taken once.
//! - What was not handed out whole was surely not carried out by anybody.

use std::collections::VecDeque;
use std::time::Instant;

use super::codec::Frame;

/// Bits of an id that name a slot; the others count, so that an id is never used again.
const SLOT_BITS: u32 = 16;

/// Requests that a connection may have under way at most, whatever a node allows.
pub(crate) const SLOTS_MAX: usize = 1 << SLOT_BITS;

/// Room for bytes that is kept when they have been sent.
const KEPT_BYTES: usize = 256 << 10;

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay<T> {
    /// Who waits for it.
    pub waiter: T,
    /// When it came.
    pub since: Instant,
    /// Bytes that have come with it and before it.
    end: u64,
}

/// What a reply says of the request that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    /// The one with this id.
    Id(u64),
    /// The oldest one, which has this id if the reply says one.
    Oldest(Option<u64>),
}

#[derive(Debug)]
struct Slot<T> {
    id: u64,
    taken: Option<UnderWay<T>>,
}

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    output: Vec<u8>,
    /// What the next bytes go into while others are sent.
    spare: Vec<u8>,
    output_bytes_max: usize,
    is_sending: bool,
    /// Bytes that have come, and those of them that were handed out.
    queued: u64,
    handed_out: u64,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    slots_max: usize,
    count: u64,
    /// Ids in the order of their requests, where replies come in order.
    order: Option<VecDeque<u64>>,
}

impl<T> Pipeline<T> {
    /// For `slots_max` requests under way, and about so many bytes that wait to be sent.
    pub(crate) fn new(slots_max: usize, output_bytes_max: usize, is_in_order: bool) -> Self {
        Self {
            output: Vec::new(),
            spare: Vec::new(),
            output_bytes_max,
            is_sending: false,
            queued: 0,
            handed_out: 0,
            slots: Vec::new(),
            free: Vec::new(),
            slots_max: slots_max.clamp(1, SLOTS_MAX),
            count: 0,
            order: is_in_order.then(VecDeque::new),
        }
    }

    /// Whether one request more may come, of so many bytes. One that is longer than all that may
    /// wait goes alone.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.under_way() < self.slots_max
            && (self.output.is_empty() || self.output.len() + bytes <= self.output_bytes_max)
    }

    /// How many requests are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many may be.
    pub(crate) fn slots_max(&self) -> usize {
        self.slots_max
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.output.len()
    }

    /// Adds a request, for which there has to be room.
    pub(crate) fn push(
        &mut self,
        waiter: T,
        frame: &Frame,
        deadline_microseconds: u32,
        since: Instant,
    ) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { id: 0, taken: None });
            (self.slots.len() - 1) as u32
        });
        self.count += 1;
        let id = self.count << SLOT_BITS | u64::from(at);
        let before = self.output.len();
        frame.put(&mut self.output, id, deadline_microseconds);
        self.queued += (self.output.len() - before) as u64;
        let taken = UnderWay { waiter, since, end: self.queued };
        self.slots[at as usize] = Slot { id, taken: Some(taken) };
        if let Some(order) = &mut self.order {
            order.push_back(id);
        }
    }

    /// All bytes that wait, for the caller to send; `None` if there are none, or somebody sends.
    pub(crate) fn begin_send(&mut self) -> Option<Vec<u8>> {
        if self.is_sending || self.output.is_empty() {
            return None;
        }
        self.is_sending = true;
        Some(self.hand_out())
    }

    /// What has come while `sent` was sent, for the same sender to send next; `None` if nothing
    /// has, and whoever comes next sends.
    pub(crate) fn go_on_sending(&mut self, mut sent: Vec<u8>) -> Option<Vec<u8>> {
        sent.clear();
        if sent.capacity() <= KEPT_BYTES {
            self.spare = sent;
        }
        self.is_sending = !self.output.is_empty();
        self.is_sending.then(|| self.hand_out())
    }

    fn hand_out(&mut self) -> Vec<u8> {
        self.handed_out = self.queued;
        std::mem::replace(&mut self.output, std::mem::take(&mut self.spare))
    }

    /// The last `bytes` that were handed out were not sent, and never will be.
    pub(crate) fn give_up(&mut self, bytes: usize) {
        self.handed_out = self.handed_out.saturating_sub(bytes as u64);
    }

    /// Takes the request out that a reply is for; `None` if there is none.
    pub(crate) fn take(&mut self, reply: ReplyTo) -> Option<UnderWay<T>> {
        let id = match (reply, &mut self.order) {
            (ReplyTo::Id(id), _) => id,
            (ReplyTo::Oldest(said), Some(order)) => {
                let id = order.pop_front()?;
                if said.is_some_and(|said| said != id) {
                    return None;
                }
                id
            }
            (ReplyTo::Oldest(_), None) => return None,
        };
        let at = id & ((1 << SLOT_BITS) - 1);
        let slot = self.slots.get_mut(at as usize).filter(|slot| slot.id == id)?;
        let taken = slot.taken.take()?;
        self.free.push(at as u32);
        Some(taken)
    }

    /// The requests that are under way, in no order.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &UnderWay<T>> {
        self.slots.iter().filter_map(|slot| slot.taken.as_ref())
    }

    /// All that were under way when the connection broke, and whether each may have been received.
    pub(crate) fn into_waiters(self) -> impl Iterator<Item = (T, bool)> {
        let handed_out = self.handed_out;
        let taken = self.slots.into_iter().filter_map(|slot| slot.taken);
        taken.map(move |taken| (taken.waiter, taken.end <= handed_out))
    }
}
