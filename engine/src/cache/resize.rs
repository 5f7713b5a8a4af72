//! A cache that becomes smaller and larger while it is used.
//!
//! Both queues change, so that the small one stays a tenth of what there is. They are made shorter
//! from their tails, so what was not used for longest goes first, in steps that each evict and copy
//! a bounded number of bytes. The entries that are left may then overhang a queue's end, and be
//! followed by new ones at its base; until the tail has come by, what lies free between the two is
//! given back to the operating system as well, so that what is resident never waits for that.

use super::Cache;
use super::eviction::{Effort, Queue};
use super::layout::SMALL_PARTS;
use super::pages::HUGE_PAGES_MIN;
use super::ring::Ring;

/// How many bytes one step takes from what the queues hold.
const STEP_BYTES: usize = 128 << 10;

/// How many units one step gives back to the operating system.
const STEP_UNITS: usize = 8;

/// What is resident beyond what an overhanging queue holds, in units: one where each of its two
/// runs of entries begins and one where the second ends are there as a whole.
const PARTIAL_UNITS: usize = 3;

/// How long the queues are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lengths {
    small: usize,
    main: usize,
}

impl<const HEADER: usize> Cache<HEADER> {
    /// Goes a step towards a capacity of `capacity_bytes`, and says whether it is reached: what is
    /// resident is then no more than that, if that is not below [`Self::capacity_min`].
    ///
    /// Becoming larger takes one step. Never larger than the cache was made. Once what was left
    /// over at the end is gone, the same capacity may allow for a little more: whoever asks again
    /// gets it.
    pub fn resize(&mut self, capacity_bytes: usize) -> bool {
        let target = self.lengths_at(capacity_bytes);
        if self.is_cut(target) {
            self.arena.prepare_release();
        }
        let held = self.small.occupied();
        self.step_towards(Queue::Small, target.small, STEP_BYTES);
        let left = STEP_BYTES.saturating_sub(held.saturating_sub(self.small.occupied()));
        let main_before = self.main.len();
        self.step_towards(Queue::Main, target.main, left);
        if self.main.len() > main_before {
            // What was given up for want of this room says nothing of what more would save.
            self.margin.forget();
        }
        let released = self.release_unused(STEP_UNITS);
        // What the small queue gave up in this step may have made the main one longer than it was
        // to be.
        self.lengths() == self.lengths_at(capacity_bytes) && released < STEP_UNITS
    }

    /// Makes a queue `target` bytes long, or as much shorter as it can be if it gives up no more
    /// than `step_bytes` of what it holds.
    fn step_towards(&mut self, queue: Queue, target: usize, step_bytes: usize) {
        let step = self.ring(queue).occupied().saturating_sub(step_bytes).max(target);
        let mut effort = Effort::for_entry(0);
        while self.ring(queue).occupied() > step {
            self.pop_tail(queue, &mut effort);
        }
        if step != self.ring(queue).len() {
            self.ring_mut(queue).set_len(step);
        }
    }

    /// Whether queues of these lengths leave parts of the arena free that what is written to others
    /// would bring into memory as long as it brings huge pages.
    fn is_cut(&self, lengths: Lengths) -> bool {
        let fault = self.arena.fault_bytes();
        let base = self.layout.small_bytes;
        let ends_apart = |end: usize, ring: &Ring| end.is_multiple_of(fault) && ring.top() <= end;
        let is_small_cut = lengths.small < base
            && !(ends_apart(lengths.small, &self.small) && base.is_multiple_of(fault));
        let is_main_cut =
            lengths.main < self.layout.main_bytes && !ends_apart(base + lengths.main, &self.main);
        is_small_cut || is_main_cut
    }

    fn lengths(&self) -> Lengths {
        Lengths { small: self.small.len(), main: self.main.len() }
    }

    /// The most bytes that are resident at the size the cache has now.
    pub fn capacity(&self) -> usize {
        let overhanging = [&self.small, &self.main].into_iter().filter(|it| it.is_overhanging());
        self.capacity_with(self.lengths(), overhanging.count())
    }

    /// A capacity that [`Self::resize`] reaches whatever the cache holds; it may reach less.
    pub fn capacity_min(&self) -> usize {
        let small = self.whole_bytes().min(self.layout.small_bytes);
        self.capacity_with(Lengths { small, main: self.main_bytes_min() }, 2)
    }

    fn capacity_with(&self, lengths: Lengths, overhanging: usize) -> usize {
        let given_up = self.arena.len() - lengths.small - lengths.main;
        if given_up == 0 {
            return self.capacity_max;
        }
        let partial = overhanging * self.partial_bytes();
        (self.reserved_bytes() - given_up + partial).min(self.capacity_max)
    }

    fn partial_bytes(&self) -> usize {
        PARTIAL_UNITS * self.arena.unit_bytes()
    }

    /// With what a queue ends where nothing overhangs its end, in bytes.
    fn whole_bytes(&self) -> usize {
        let (fault, unit) = (self.arena.fault_bytes(), self.arena.unit_bytes());
        if self.arena.len() / fault >= HUGE_PAGES_MIN { fault } else { unit }
    }

    /// The least that the main queue may be made, however it ends, in bytes.
    fn main_bytes_min(&self) -> usize {
        self.rounded(0, self.whole_bytes()).max(self.rounded(0, self.arena.unit_bytes()))
    }

    /// How long the queues are at a capacity.
    fn lengths_at(&self, capacity_bytes: usize) -> Lengths {
        if capacity_bytes >= self.capacity_max {
            return Lengths { small: self.layout.small_bytes, main: self.layout.main_bytes };
        }
        let tables = self.reserved_bytes() - self.arena.len();
        let wanted = capacity_bytes.saturating_sub(tables);
        let small = self.small_bytes_of(wanted);
        let partial = |top: usize, end: usize| if top > end { self.partial_bytes() } else { 0 };
        let left = wanted.saturating_sub(small + partial(self.small.top(), small));
        let whole = self.rounded(left, self.whole_bytes());
        match partial(self.main.top(), self.layout.small_bytes + whole) {
            0 => Lengths { small, main: whole },
            partial => {
                let main = self.rounded(left.saturating_sub(partial), self.arena.unit_bytes());
                Lengths { small, main }
            }
        }
    }

    /// How long the small queue is where both have `wanted` bytes: a tenth, rounded to what it may
    /// end with, as far as the main queue can be made that short.
    fn small_bytes_of(&self, wanted: usize) -> usize {
        let whole = self.whole_bytes();
        let share = (wanted / SMALL_PARTS + whole / 2) / whole * whole;
        let beside_main = wanted.saturating_sub(self.main_bytes_min() + 2 * self.partial_bytes());
        share.min(beside_main / whole * whole).max(whole).min(self.layout.small_bytes)
    }

    /// A length of at most `main_bytes` with which the main queue ends with a whole `unit` of the
    /// arena, or as a whole; and no less than the least.
    fn rounded(&self, main_bytes: usize, unit: usize) -> usize {
        let (base, main_max) = (self.layout.small_bytes, self.layout.main_bytes);
        let shortest = (base + self.layout.main_bytes_min()).next_multiple_of(unit) - base;
        let end = (base + main_bytes.min(main_max)) / unit * unit;
        end.saturating_sub(base).max(shortest).min(main_max)
    }

    /// Where the part of the arena ends that is a queue's when it is whole.
    fn part_end(&self, queue: Queue) -> usize {
        match queue {
            Queue::Small => self.layout.small_bytes,
            Queue::Main => self.arena.len(),
        }
    }

    /// Gives back what lies free while the queues are not whole, at most so many units, and says
    /// how many.
    pub(super) fn release_unused(&mut self, units_max: usize) -> usize {
        let mut released = 0;
        for queue in [Queue::Small, Queue::Main] {
            let ring = self.ring(queue);
            let beyond = ring.unused_from()..self.part_end(queue);
            let gap = if ring.is_overhanging() { ring.gap() } else { 0..0 };
            for free in [beyond, gap] {
                released += self.arena.release(free, units_max - released);
            }
        }
        released
    }

    /// Gives back the units that the tail of an overhanging queue has left, which was at `tail`.
    pub(super) fn release_behind(&mut self, queue: Queue, tail: usize) {
        let unit = self.arena.unit_bytes();
        let from = tail / unit * unit;
        let ring = self.ring(queue);
        let free = if ring.is_overhanging() {
            let gap = ring.gap();
            gap.start.max(from)..gap.end
        } else {
            ring.unused_from().max(from)..self.part_end(queue)
        };
        if free.start < free.end {
            self.arena.release(free, usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests;
