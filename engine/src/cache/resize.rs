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

/// A main queue ends with a huge page where an arena has so many of them at least: little of it is
/// lost to that, and what is not in memory yet may come in huge pages. A shorter arena's ends with
/// a unit.
const HUGE_PAGES_MIN: usize = 32;

impl<const HEADER: usize> Cache<HEADER> {
    /// Goes a step towards a capacity of `capacity_bytes`, and says whether it is reached: what is
    /// resident is then no more than that, if that is not below [`Self::capacity_min`].
    ///
    /// Becoming larger takes one step. Never larger than the cache was made. Once what was left
    /// over at the end is gone, the same capacity may allow for a little more: whoever asks again
    /// gets it.
    pub fn resize(&mut self, capacity_bytes: usize) -> bool {
        let target = self.main_bytes_at(capacity_bytes);
        let end = self.layout.small_bytes + target;
        let is_cut = !end.is_multiple_of(self.arena.fault_bytes()) || self.main.top() > end;
        if target < self.layout.main_bytes && is_cut {
            self.arena.prepare_release();
        }
        let step = self.main.occupied().saturating_sub(STEP_BYTES).max(target);
        let mut effort = Effort::for_entry(0);
        while self.main.occupied() > step {
            self.pop_tail(Queue::Main, &mut effort);
        }
        if step > self.main.len() {
            // What was given up for want of this room says nothing of what more would save.
            self.margin.forget();
        }
        if step != self.main.len() {
            self.main.set_len(step);
        }
        let released = self.release_unused(STEP_UNITS);
        self.main.len() == target && released < STEP_UNITS
    }

    /// The most bytes that are resident at the size the cache has now.
    pub fn capacity(&self) -> usize {
        self.capacity_with(self.main.len(), self.main.is_overhanging())
    }

    /// A capacity that [`Self::resize`] reaches whatever the cache holds; it may reach less.
    pub fn capacity_min(&self) -> usize {
        let shortest = self.rounded(0, self.whole_bytes());
        self.capacity_with(shortest.max(self.rounded(0, self.arena.unit_bytes())), true)
    }

    fn capacity_with(&self, main_bytes: usize, is_overhanging: bool) -> usize {
        let given_up = self.layout.main_bytes - main_bytes;
        if given_up == 0 {
            return self.capacity_max;
        }
        let partial = if is_overhanging { self.partial_bytes() } else { 0 };
        (self.reserved_bytes() - given_up + partial).min(self.capacity_max)
    }

    fn partial_bytes(&self) -> usize {
        PARTIAL_UNITS * self.arena.unit_bytes()
    }

    /// With what the main queue ends where nothing overhangs its end, in bytes.
    fn whole_bytes(&self) -> usize {
        let (fault, unit) = (self.arena.fault_bytes(), self.arena.unit_bytes());
        if self.arena.len() / fault >= HUGE_PAGES_MIN { fault } else { unit }
    }

    /// How long the main queue is at a capacity.
    fn main_bytes_at(&self, capacity_bytes: usize) -> usize {
        if capacity_bytes >= self.capacity_max {
            return self.layout.main_bytes;
        }
        let others = self.reserved_bytes() - self.layout.main_bytes;
        let wanted = capacity_bytes.saturating_sub(others);
        let whole = self.rounded(wanted, self.whole_bytes());
        if self.main.top() <= self.layout.small_bytes + whole {
            return whole;
        }
        let left = wanted.saturating_sub(self.partial_bytes());
        self.rounded(left, self.arena.unit_bytes())
    }

    /// A length of at most `main_bytes` with which the main queue ends with a whole `unit` of the
    /// arena, or as a whole; and no less than the least.
    fn rounded(&self, main_bytes: usize, unit: usize) -> usize {
        let (base, main_max) = (self.layout.small_bytes, self.layout.main_bytes);
        let shortest = (base + self.layout.main_bytes_min()).next_multiple_of(unit) - base;
        let end = (base + main_bytes.min(main_max)) / unit * unit;
        end.saturating_sub(base).max(shortest).min(main_max)
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
