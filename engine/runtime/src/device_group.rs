//! The cores that share a device, and the tokens that they share with it.
//!
//! A bucket fills with the device's time and runs over when it is full. A core that has requests
//! claims tokens at the *tail*; time, as it passes, moves the *head*. A claim is covered as far as
//! the head has come, so claims are covered in the order in which they were made: cores wait in one
//! line. Tokens that a core does not need after all move the head too, for those behind it.
//!
//! ```text
//!   claims, all cores    |--- covered ---|-- waiting --|          head < tail: the device is busy
//!                        ^             head          tail
//!   claims, all cores    |--- covered ---|.. saved up ..|         head > tail: up to `limit`
//!                        ^             tail            head
//! ```
//!
//! What is given back of a claim that is not covered goes to those who stand before it, at once,
//! and those behind it wait for as long as it would have taken: so cores may for a moment have more
//! than time has brought, by what they have claimed and given up, and the tail is then as far ahead
//! of the head.
//!
//! Invariants: each nanosecond becomes tokens once, because only who moves `replenished` past it
//! adds them; a token is in one claim, because a claim is one addition to the tail; the head is at
//! most `limit` past the tail. Positions wrap around; only their distances count.
//!
//! No order between the three words is needed, so all accesses are Relaxed: an old head shows fewer
//! covered tokens than there are, and an old tail less room than there is. Nothing else is handed
//! over through them.

use crate::device_model::{DeviceCosts, DeviceModel, tokens_of};
use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// How far the clock of one core may be behind what another has seen, in nanoseconds: longer than
/// the longest turn, at whose start it was read. What is further ahead was seen before the clock
/// was set back.
const SKEW_MAX: i64 = 60_000_000_000;

/// A word on lines of its own: two, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

/// The tokens of one device, for all cores that use it.
#[derive(Debug)]
pub struct DeviceGroup {
    model: DeviceModel,
    costs: DeviceCosts,
    cores: usize,
    /// All claims end here.
    tail: Line,
    /// Claims are covered up to here.
    head: Line,
    /// The time whose tokens are in the head, in nanoseconds.
    replenished: Line,
}

/// How the bucket of a device stands, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTokens {
    /// Tokens that nobody has claimed.
    pub available: u64,
    /// Claimed tokens that time has not brought yet.
    pub owed: u64,
    /// The most that can be available.
    pub limit: u64,
}

impl DeviceGroup {
    /// The bucket of a device that `cores` cores use; it is full. Figures of the model that no
    /// device has are taken for the nearest that one could have.
    pub fn new(model: DeviceModel, cores: usize) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self::starting_at(model, cores, 0))
    }

    fn starting_at(model: DeviceModel, cores: usize, position: u64) -> Self {
        let costs = model.costs();
        Self {
            model: model.clamped(),
            costs,
            cores: cores.max(1),
            tail: Line(AtomicU64::new(position)),
            head: Line(AtomicU64::new(position.wrapping_add(costs.limit()))),
            replenished: Line(AtomicU64::new(0)),
        }
    }

    /// What the device can do.
    pub fn model(&self) -> &DeviceModel {
        &self.model
    }

    /// What requests cost it.
    pub fn costs(&self) -> &DeviceCosts {
        &self.costs
    }

    /// The cores that use it.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// How many tokens a core that has much to do claims at once: its part of the bucket.
    pub fn quantum(&self) -> u64 {
        let cores = u64::try_from(self.cores).unwrap_or(u64::MAX);
        (self.costs.limit() / cores).max(self.costs.threshold())
    }

    /// Claims `tokens` (at most the limit) and returns the position at which the claim ends.
    pub fn grab(&self, tokens: u64) -> u64 {
        debug_assert!(tokens <= self.costs.limit(), "{tokens} tokens are never there at once");
        self.tail.0.fetch_add(tokens, Ordering::Relaxed).wrapping_add(tokens)
    }

    /// How many tokens are missing until everything up to `position` is covered.
    pub fn deficiency(&self, position: u64) -> u64 {
        distance(self.head.0.load(Ordering::Relaxed), position)
    }

    /// Adds the tokens of the time up to `now`, in nanoseconds. Fewer than the cheapest request
    /// takes are left for later.
    pub fn replenish(&self, now: u64) {
        let then = self.replenished.0.load(Ordering::Relaxed);
        let elapsed = now.wrapping_sub(then).cast_signed();
        if elapsed < 0 {
            if elapsed < -SKEW_MAX {
                self.claim_time(then, now);
            }
            return;
        }
        let tokens = tokens_of(elapsed.cast_unsigned());
        if tokens >= self.costs.threshold() && self.claim_time(then, now) {
            self.credit(tokens);
        }
    }

    /// Gives back tokens that were claimed and are not needed.
    pub fn refund(&self, tokens: u64) {
        if tokens > 0 {
            self.credit(tokens);
        }
    }

    /// How the bucket stands at this moment.
    pub fn tokens(&self) -> DeviceTokens {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let head = self.head.0.load(Ordering::Relaxed);
        DeviceTokens {
            available: distance(tail, head),
            owed: distance(head, tail),
            limit: self.costs.limit(),
        }
    }

    /// Whether this caller, alone, is to add the tokens of the time from `then` to `now`.
    fn claim_time(&self, then: u64, now: u64) -> bool {
        let order = Ordering::Relaxed;
        self.replenished.0.compare_exchange(then, now, order, order).is_ok()
    }

    /// Moves the head on by `tokens`, but not further than the limit past the tail.
    fn credit(&self, tokens: u64) {
        let mut head = self.head.0.load(Ordering::Relaxed);
        loop {
            let full = self.tail.0.load(Ordering::Relaxed).wrapping_add(self.costs.limit());
            let moved = head.wrapping_add(tokens.min(distance(head, full)));
            let order = Ordering::Relaxed;
            match self.head.0.compare_exchange_weak(head, moved, order, order) {
                Ok(_) => return,
                Err(current) => head = current,
            }
        }
    }
}

/// How far it is from one position up to another; 0 if that lies behind.
fn distance(from: u64, to: u64) -> u64 {
    u64::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(0)
}
