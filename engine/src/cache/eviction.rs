//! What becomes of an entry that reaches the tail of its queue.
//!
//! - dead: its bytes are reclaimed.
//! - small, used at least [`PROMOTION_USES`] times, or main has room that was never used: to main.
//! - small otherwise: evicted, its hash remembered in the ghost.
//! - main, used since it last passed: back to the head with one use less.
//! - main, while much of the room is taken by what is dead: back to the head.
//! - main otherwise: evicted.

use super::arena::{Descriptor, Location};
use super::layout::Layout;
use super::{Cache, Ring};

/// Uses in the small queue that earn an entry its place in main.
const PROMOTION_USES: u8 = 2;

/// The small queue's share of the entries, one part in this many, once the index is full.
const SMALL_ENTRY_SHARE: usize = 10;

/// The two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Small,
    Main,
}

/// How much copying of used entries one insert may still do. When it is used up, tails are evicted
/// as they come: a queue full of used entries must not stall an insert for a whole round.
pub(super) struct Effort {
    bytes_left: usize,
}

impl Effort {
    /// Bytes that any insert may copy.
    const BYTES: usize = 128 << 10;

    /// What handling an entry costs besides its bytes, as bytes: several cache misses.
    const PER_ENTRY: usize = 128;

    pub(super) fn for_entry(entry_bytes: usize) -> Self {
        Self { bytes_left: Self::BYTES + 4 * entry_bytes }
    }

    /// Takes the effort of moving an entry, of which the last one may exceed the rest.
    fn take(&mut self, entry_bytes: usize) -> bool {
        let granted = self.bytes_left > 0;
        self.bytes_left = self.bytes_left.saturating_sub(entry_bytes + Self::PER_ENTRY);
        granted
    }
}

impl<const HEADER: usize> Cache<HEADER> {
    /// Claims `bytes` bytes at the head of `queue`, popping tails until they are free.
    pub(super) fn make_room(
        &mut self,
        queue: Queue,
        bytes: usize,
        effort: &mut Effort,
    ) -> Location {
        loop {
            if let Some(offset) = self.ring_mut(queue).reserve(bytes) {
                return Location::at(offset);
            }
            self.pop_tail(queue, effort);
        }
    }

    /// Makes progress towards one entry less in a full index. Each step pops one tail, and only so
    /// many of them are kept, so a few steps suffice.
    pub(super) fn evict_for_index(&mut self, effort: &mut Effort) {
        let small_max = self.index.entries_max() / SMALL_ENTRY_SHARE;
        let from_small = self.small.live_entries > small_max || self.main.live_entries == 0;
        self.pop_tail(if from_small { Queue::Small } else { Queue::Main }, effort);
    }

    pub(super) fn pop_tail(&mut self, queue: Queue, effort: &mut Effort) {
        let tail = self.ring(queue).tail().expect("a queue without room has entries");
        let was_overhanging = self.ring(queue).is_overhanging();
        self.dispose(queue, tail, effort);
        if was_overhanging {
            self.release_behind(queue, tail);
        }
    }

    /// Pops the entry at the tail, which is at this offset, and decides what becomes of it.
    fn dispose(&mut self, queue: Queue, tail: usize, effort: &mut Effort) {
        let location = Location::at(tail);
        let descriptor = self.arena.descriptor(location);
        self.ring_mut(queue).pop(descriptor.entry_bytes::<HEADER>());
        if descriptor.dead {
            return;
        }
        self.ring_mut(queue).live_entries -= 1;
        match self.uses_when_kept(queue, descriptor, effort) {
            Some(uses) => self.move_to_main(location, descriptor, uses, effort),
            None => self.evict(queue, location, descriptor),
        }
    }

    /// The uses that a popped entry has left in main; `None` if it is not kept.
    fn uses_when_kept(
        &self,
        queue: Queue,
        descriptor: Descriptor,
        effort: &mut Effort,
    ) -> Option<u8> {
        let bytes = descriptor.entry_bytes::<HEADER>();
        let (kept, uses) = match queue {
            Queue::Small => {
                let unused_room = !self.index.is_full() && self.main.has_unused(bytes);
                (descriptor.uses >= PROMOTION_USES || unused_room, 0)
            }
            Queue::Main => {
                let kept = descriptor.uses > 0 || self.spare_bytes() > 0;
                (kept, descriptor.uses.saturating_sub(1))
            }
        };
        (kept && effort.take(bytes)).then_some(uses)
    }

    /// What may still come in without anybody having to go, in bytes: all that lives would fit into
    /// main, and the longest entry besides.
    pub(super) fn spare_bytes(&self) -> usize {
        let main = self.main.len();
        (main - Layout::entry_bytes_max(main).min(main)).saturating_sub(self.counters.bytes_used)
    }

    /// Copies a popped entry to the head of main. Its old bytes stay valid until then: room in main
    /// is made by popping main, and what was popped from main itself fits without further pops.
    fn move_to_main(
        &mut self,
        from: Location,
        descriptor: Descriptor,
        uses: u8,
        effort: &mut Effort,
    ) {
        let bytes = descriptor.entry_bytes::<HEADER>();
        let to = self.make_room(Queue::Main, bytes, effort);
        self.arena.copy(from, to, bytes);
        self.arena.set_uses(to, uses);
        self.index.relocate(descriptor.hash, from, to);
        self.main.live_entries += 1;
    }

    fn evict(&mut self, queue: Queue, location: Location, descriptor: Descriptor) {
        self.index.remove(descriptor.hash, location);
        self.counters.bytes_used -= descriptor.entry_bytes::<HEADER>();
        self.counters.evictions += 1;
        match queue {
            Queue::Small => self.ghost.push(descriptor.hash),
            Queue::Main => self.margin.push(descriptor.hash, descriptor.entry_bytes::<HEADER>()),
        }
    }

    /// Where an entry starts whose key the cache does not hold.
    pub(super) fn queue_for_new(&mut self, hash: u64) -> Queue {
        if self.ghost.take(hash, self.main_entries_expected()) {
            self.counters.ghost_hits += 1;
            return Queue::Main;
        }
        Queue::Small
    }

    /// How many entries main holds when it is full, going by the mean length of those held now. The
    /// ghost remembers as many.
    fn main_entries_expected(&self) -> usize {
        match self.counters.bytes_used.checked_div(self.index.len()) {
            Some(mean) => self.main.len() / mean,
            None => 0,
        }
    }

    pub(super) fn queue_of(&self, location: Location) -> Queue {
        if location.offset() < self.layout.small_bytes { Queue::Small } else { Queue::Main }
    }

    pub(super) fn ring(&self, queue: Queue) -> &Ring {
        match queue {
            Queue::Small => &self.small,
            Queue::Main => &self.main,
        }
    }

    pub(super) fn ring_mut(&mut self, queue: Queue) -> &mut Ring {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }
}
