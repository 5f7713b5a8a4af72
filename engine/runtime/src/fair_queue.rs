//! Weighted fair queueing in virtual time, as plain values: no clock, no I/O.
//!
//! Each class has shares and a virtual time, the sum of `cost / shares` over its items taken so
//! far. The next item is the oldest one of the waiting class whose virtual time is lowest (of
//! equals, the class with the lowest index). So while several classes wait, each gets cost in
//! proportion to its shares, to within one item and its burst; and while any class waits, something
//! is taken.
//!
//! A class that was idle has fallen behind in virtual time. It may not claim all of that time at
//! once: when it wakes, its virtual time is raised to that of the last item taken less
//! `burst / the most shares of any class`. It is then ahead of its part by at most `burst` of cost,
//! and by so much less as it has fewer shares: classes that wake together are served by their
//! shares, and one with few never holds one with many up for long. With a burst of 0 an
//! idle class saves nothing up; with a larger one, a class with short bursts of items and long
//! pauses is served at once. The virtual time of the last item taken is the one before that item
//! was charged for: the start of its service, which no waiting class is behind of by more than its
//! burst.
//!
//! A class may be taken out for a while, whatever it has. It comes back as one that was idle.

use std::collections::VecDeque;

#[cfg(test)]
mod tests;

/// The most classes a queue may have. They are searched one by one, which beats a heap up to about
/// this many.
pub const CLASSES_MAX: usize = 16;

/// The most shares a class may have.
pub const SHARES_MAX: u32 = 1 << 16;

/// The highest cost of one item, and the largest burst. In bytes, a terabyte.
pub const COST_MAX: u64 = 1 << 40;

/// Binary places of virtual time below one unit of cost at one share.
const FRACTION_BITS: u32 = 22;

// A charge fits 64 bits, and is never zero: with a free item a class would be served forever.
const _: () = assert!(COST_MAX.leading_zeros() >= FRACTION_BITS);
const _: () = assert!((1u64 << FRACTION_BITS) > SHARES_MAX as u64);

/// A moment of virtual time. It only grows, and 128 bits last for 2^66 items of the highest cost.
type VirtualTime = u128;

struct Class<T> {
    shares: u32,
    virtual_time: VirtualTime,
    is_out: bool,
    items: VecDeque<(u64, T)>,
}

/// A queue of items in a few classes, which come out in proportion to the classes' shares.
pub struct FairQueue<T> {
    classes: Vec<Class<T>>,
    burst: u64,
    shares_most: u32,
    /// The virtual time at which the latest service started.
    now: VirtualTime,
    len: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue with one class for each of `shares` (1 to [`SHARES_MAX`] each, at most
    /// [`CLASSES_MAX`] classes). A class that wakes may be ahead by `burst`, in units of cost.
    pub fn new(shares: &[u32], burst: u64) -> Self {
        assert!(shares.len() <= CLASSES_MAX, "{} classes: over {CLASSES_MAX}", shares.len());
        assert!(burst <= COST_MAX, "a burst of {burst}: over {COST_MAX}");
        let class = |&shares: &u32| Class {
            shares: checked_shares(shares),
            virtual_time: 0,
            is_out: false,
            items: VecDeque::new(),
        };
        let classes = shares.iter().map(class).collect();
        let shares_most = shares.iter().copied().max().unwrap_or(1);
        Self { classes, burst, shares_most, now: 0, len: 0 }
    }

    /// Appends `item` to the class with index `class`. `cost` is 1 to [`COST_MAX`].
    pub fn push(&mut self, class: usize, cost: u64, item: T) {
        assert!((1..=COST_MAX).contains(&cost), "a cost of {cost}: not in 1..={COST_MAX}");
        if self.classes[class].items.is_empty() {
            self.wake(class);
        }
        self.classes[class].items.push_back((cost, item));
        self.len += 1;
    }

    /// Takes a class out: none of its items is next until [`FairQueue::bring_back`].
    pub fn take_out(&mut self, class: usize) {
        self.classes[class].is_out = true;
    }

    /// Brings a class back that was taken out, as if it had been idle.
    pub fn bring_back(&mut self, class: usize) {
        if std::mem::replace(&mut self.classes[class].is_out, false) {
            self.wake(class);
        }
    }

    fn wake(&mut self, class: usize) {
        let earliest = self.now.saturating_sub(charge(self.burst, self.shares_most));
        let class = &mut self.classes[class];
        class.virtual_time = class.virtual_time.max(earliest);
    }

    /// Takes the next item: its class, its cost and itself. `None` when there is none in a class
    /// that is not out.
    pub fn pop(&mut self) -> Option<(usize, u64, T)> {
        let index = self.next_class()?;
        let class = &mut self.classes[index];
        let (cost, item) = class.items.pop_front().expect("the next class has an item");
        // A class that woke with its burst starts before `now`, which never runs backwards.
        self.now = self.now.max(class.virtual_time);
        class.virtual_time += charge(cost, class.shares);
        self.len -= 1;
        Some((index, cost, item))
    }

    /// The item that [`FairQueue::pop`] took last, of this class and cost, is not wanted any more:
    /// its class is as far as if it had not been there.
    pub fn give_back(&mut self, class: usize, cost: u64) {
        let class = &mut self.classes[class];
        class.virtual_time = class.virtual_time.saturating_sub(charge(cost, class.shares));
    }

    /// What [`FairQueue::pop`] would take.
    pub fn peek(&self) -> Option<(usize, u64, &T)> {
        let index = self.next_class()?;
        let (cost, item) = self.classes[index].items.front()?;
        Some((index, *cost, item))
    }

    /// Changes the shares of a class, for items that are taken from now on.
    pub fn set_shares(&mut self, class: usize, shares: u32) {
        self.classes[class].shares = checked_shares(shares);
        self.shares_most = self.classes.iter().map(|class| class.shares).max().unwrap_or(1);
    }

    /// The number of items in all classes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item in any class.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn next_class(&self) -> Option<usize> {
        let may_be_next = |class: &Class<T>| !class.is_out && !class.items.is_empty();
        let waiting = self.classes.iter().enumerate().filter(|(_, class)| may_be_next(class));
        // Of equals this finds the first.
        waiting.min_by_key(|(_, class)| class.virtual_time).map(|(index, _)| index)
    }
}

fn checked_shares(shares: u32) -> u32 {
    assert!((1..=SHARES_MAX).contains(&shares), "{shares} shares: not in 1..={SHARES_MAX}");
    shares
}

/// How far `cost` moves a class with `shares`.
fn charge(cost: u64, shares: u32) -> VirtualTime {
    VirtualTime::from((cost << FRACTION_BITS) / u64::from(shares))
}
