//! A cache that becomes smaller and larger while it is used.
//!
//! Only the main queue changes. It is made shorter from its tail, so what was not used for longest
//! goes first, in steps that each evict and copy a bounded number of bytes. The entries that are
//! left may then overhang its end, and be followed by new ones at its base; until the tail has come
//! by, what lies free between the two is given back to the operating system as well, so that what
//! is resident never waits for that.

use super::Cache;
use super::eviction::{Effort, Queue};

/// How many bytes one step takes from what the main queue holds.
const STEP_BYTES: usize = 128 << 10;

/// How many units one step gives back to the operating system.
const STEP_UNITS: usize = 8;

/// What is resident beyond what an overhanging queue holds, in units: one where each of its two
/// runs of entries begins and one where the second ends are there as a whole.
const PARTIAL_UNITS: usize = 3;

impl<const HEADER: usize> Cache<HEADER> {
    /// Goes a step towards a capacity of `capacity_bytes`, and says whether it is reached: what is
    /// resident is then no more than that, if that is not below [`Self::capacity_min`].
    ///
    /// Becoming larger takes one step. Never larger than the cache was made.
    pub fn resize(&mut self, capacity_bytes: usize) -> bool {
        let target = self.main_bytes_at(capacity_bytes);
        if target < self.main.len() {
            self.arena.prepare_release();
        }
        let step = self.main.occupied().saturating_sub(STEP_BYTES).max(target);
        let mut effort = Effort::for_entry(0);
        while self.main.occupied() > step {
            self.pop_tail(Queue::Main, &mut effort);
        }
        if step != self.main.len() {
            self.main.set_len(step);
        }
        let released = self.release_unused(STEP_UNITS);
        self.main.len() == target && released < STEP_UNITS
    }

    /// The most bytes that are resident at the size the cache has now.
    pub fn capacity(&self) -> usize {
        self.capacity_with(self.main.len())
    }

    /// The least capacity that [`Self::resize`] reaches.
    pub fn capacity_min(&self) -> usize {
        self.capacity_with(self.main_bytes_at(0))
    }

    fn capacity_with(&self, main_bytes: usize) -> usize {
        let given_up = self.layout.main_bytes - main_bytes;
        if given_up == 0 {
            return self.capacity_max;
        }
        let partial = PARTIAL_UNITS * self.arena.unit_bytes();
        (self.reserved_bytes() - given_up + partial).min(self.capacity_max)
    }

    /// How long the main queue is at a capacity. It ends with a unit if it is not whole.
    fn main_bytes_at(&self, capacity_bytes: usize) -> usize {
        let main_max = self.layout.main_bytes;
        if capacity_bytes >= self.capacity_max {
            return main_max;
        }
        let unit = self.arena.unit_bytes();
        let base = self.layout.small_bytes;
        let others = self.reserved_bytes() - main_max + PARTIAL_UNITS * unit;
        let wanted = capacity_bytes.saturating_sub(others).min(main_max);
        let shortest = (base + self.layout.main_bytes_min()).next_multiple_of(unit) - base;
        (((base + wanted) / unit * unit).saturating_sub(base)).max(shortest).min(main_max)
    }

    /// Gives back what lies free while the main queue is not whole, at most so many units, and says
    /// how many.
    pub(super) fn release_unused(&mut self, units_max: usize) -> usize {
        if self.main.len() == self.layout.main_bytes {
            return 0;
        }
        let beyond = self.main.unused_from()..self.arena.len();
        let released = self.arena.release(beyond, units_max);
        if !self.main.is_overhanging() {
            return released;
        }
        released + self.arena.release(self.main.gap(), units_max - released)
    }

    /// Gives back the units that the tail of an overhanging main queue has left, which was at
    /// `tail`.
    pub(super) fn release_behind(&mut self, tail: usize) {
        let unit = self.arena.unit_bytes();
        let from = tail / unit * unit;
        let free = if self.main.is_overhanging() {
            let gap = self.main.gap();
            gap.start.max(from)..gap.end
        } else {
            self.main.unused_from().max(from)..self.arena.len()
        };
        if free.start < free.end {
            self.arena.release(free, usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests;
