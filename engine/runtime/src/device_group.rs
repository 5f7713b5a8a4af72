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
//! There are two buckets. Time fills the one for requests that somebody waits for, and what that
//! one has no room for fills the one of the background. So the background has what is left, but for
//! a [small part](SPARED) where others use tokens too; and a read that comes finds tokens, and a
//! device with little before it. While claims of the background wait, a [part](BACKGROUND_LEAST) of
//! all time goes to them first: cores whose reads take the whole device cannot stop another core's
//! merges. What the background's bucket has no room for goes back into the first.
//!
//! What is given back of a claim that is not covered goes to those who stand before it, at once,
//! and those behind it wait for as long as it would have taken: so cores may for a moment have more
//! than time has brought, by what they have claimed and given up, and the tail is then as far ahead
//! of the head.
//!
//! Invariants: each nanosecond becomes tokens once, because only who moves `replenished` past it
//! adds them; a token goes to one bucket at most, and there it is in one claim, because a claim is
//! one addition to the tail; the head is at most the bucket's limit past the tail. Positions wrap
//! around; only their distances count.
//!
//! No order between the words is needed, so all accesses are Relaxed: an old head shows fewer
//! covered tokens than there are, and an old tail less room than there is. Nothing else is handed
//! over through them.

use crate::device_model::{DeviceCosts, DeviceModel, nanoseconds_of, tokens_of};
use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// How far the clock of one core may be behind what another has seen, in nanoseconds: longer than
/// the longest turn, at whose start it was read. What is further ahead was seen before the clock
/// was set back.
const SKEW_MAX: i64 = 60_000_000_000;

/// While claims of the background wait, one in so many tokens is theirs before all others.
const BACKGROUND_LEAST: u64 = 10;

/// Where others have used tokens too since the last look, one in so many of those that are left to
/// the background is for nobody, so that what has piled up in the device goes away. A device that
/// is given all that it can do never gets to the end of it: each moment in which it happened to
/// have nothing to do is a longer queue ever after.
const SPARED: u64 = 16;

/// A word on lines of its own: two, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

/// For whom tokens are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// Requests that somebody waits for, and those of the background whose turn it is beside them.
    Awaited,
    /// What nobody waits for, while nothing else may go on its core.
    Background,
}

impl Claimant {
    /// Both, in the order in which time serves them.
    pub const BOTH: [Self; 2] = [Self::Awaited, Self::Background];

    fn other(self) -> Self {
        match self {
            Self::Awaited => Self::Background,
            Self::Background => Self::Awaited,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    /// All claims end here.
    tail: Line,
    /// Claims are covered up to here.
    head: Line,
    /// The most tokens that can be saved up.
    limit: u64,
}

/// The tokens of one device, for all cores that use it.
#[derive(Debug)]
pub struct DeviceGroup {
    model: DeviceModel,
    costs: DeviceCosts,
    cores: usize,
    /// By [`Claimant`].
    buckets: [Bucket; 2],
    /// The time whose tokens are in the buckets, in nanoseconds.
    replenished: Line,
}

/// How a bucket of a device stands, in tokens.
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
    /// The buckets of a device that `cores` cores use; they are full. Figures of the model that no
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
            buckets: Claimant::BOTH.map(|_| Bucket::new(position, costs.limit())),
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

    /// How many tokens a core that has much to do claims at once: its part of a bucket.
    pub fn quantum(&self) -> u64 {
        let cores = u64::try_from(self.cores).unwrap_or(u64::MAX);
        (self.costs.limit() / cores).max(self.costs.threshold())
    }

    /// Claims `tokens` (at most the limit) and returns the position at which the claim ends.
    pub fn grab(&self, claimant: Claimant, tokens: u64) -> u64 {
        debug_assert!(tokens <= self.costs.limit(), "{tokens} tokens are never there at once");
        let tail = &self.buckets[claimant as usize].tail.0;
        tail.fetch_add(tokens, Ordering::Relaxed).wrapping_add(tokens)
    }

    /// How many tokens are missing until everything up to `position` is covered.
    pub fn deficiency(&self, claimant: Claimant, position: u64) -> u64 {
        distance(self.buckets[claimant as usize].head.0.load(Ordering::Relaxed), position)
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
            let [awaited, background] = &self.buckets;
            let least = (tokens / BACKGROUND_LEAST).min(background.owed());
            let taken = awaited.credit(tokens - least);
            let left = tokens - least - taken;
            let spared = if taken > 0 { left / SPARED } else { 0 };
            self.refund(Claimant::Background, least + left - spared);
        }
    }

    /// Gives back tokens that were claimed and are not needed. What this bucket has no room for
    /// goes to the other.
    pub fn refund(&self, claimant: Claimant, tokens: u64) {
        let mut over = tokens;
        for claimant in [claimant, claimant.other()] {
            if over > 0 {
                over -= self.buckets[claimant as usize].credit(over);
            }
        }
    }

    /// How a bucket stands at this moment.
    pub fn tokens(&self, claimant: Claimant) -> DeviceTokens {
        let bucket = &self.buckets[claimant as usize];
        DeviceTokens { available: bucket.available(), owed: bucket.owed(), limit: bucket.limit }
    }

    /// About how long it takes until a bucket has had so many more tokens, in nanoseconds. While
    /// others take tokens too, the background has about half of the time.
    pub fn time_of(&self, claimant: Claimant, tokens: u64) -> u64 {
        let [awaited, _] = &self.buckets;
        let is_shared = claimant == Claimant::Background && awaited.available() < awaited.limit;
        nanoseconds_of(tokens).saturating_mul(if is_shared { 2 } else { 1 })
    }

    /// Whether this caller, alone, is to add the tokens of the time from `then` to `now`.
    fn claim_time(&self, then: u64, now: u64) -> bool {
        let order = Ordering::Relaxed;
        self.replenished.0.compare_exchange(then, now, order, order).is_ok()
    }
}

impl Bucket {
    fn new(position: u64, limit: u64) -> Self {
        Self {
            tail: Line(AtomicU64::new(position)),
            head: Line(AtomicU64::new(position.wrapping_add(limit))),
            limit,
        }
    }

    fn available(&self) -> u64 {
        distance(self.tail.0.load(Ordering::Relaxed), self.head.0.load(Ordering::Relaxed))
    }

    fn owed(&self) -> u64 {
        distance(self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed))
    }

    /// Moves the head on by `tokens`, but not further than the limit past the tail. Returns by how
    /// many.
    fn credit(&self, tokens: u64) -> u64 {
        let mut head = self.head.0.load(Ordering::Relaxed);
        loop {
            let full = self.tail.0.load(Ordering::Relaxed).wrapping_add(self.limit);
            let credited = tokens.min(distance(head, full));
            let moved = head.wrapping_add(credited);
            let order = Ordering::Relaxed;
            match self.head.0.compare_exchange_weak(head, moved, order, order) {
                Ok(_) => return credited,
                Err(current) => head = current,
            }
        }
    }
}

/// How far it is from one position up to another; 0 if that lies behind.
fn distance(from: u64, to: u64) -> u64 {
    u64::try_from(to.wrapping_sub(from).cast_signed()).unwrap_or(0)
}
