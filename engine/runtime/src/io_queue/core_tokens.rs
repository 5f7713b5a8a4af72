//! One core's hold on the tokens of its device.

use std::sync::Arc;

use crate::device_group::{Claimant, DeviceGroup};

/// For the background a core claims one of so many parts of what it may claim at once: what is
/// claimed and not used yet comes to the device in a moment, all of it.
const BACKGROUND_PARTS: u64 = 3;

/// Tokens that a core has, and those that it has claimed and waits for. What it does not use when
/// it is dropped goes back.
#[derive(Debug)]
pub(super) struct CoreTokens {
    group: Arc<DeviceGroup>,
    /// By [`Claimant`].
    holds: [Hold; 2],
}

/// What a core has of one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    /// Tokens that time has brought for this core.
    balance: u64,
    /// Tokens of the claim that ends at `position` which time has not brought.
    pending: u64,
    position: u64,
}

impl CoreTokens {
    pub(super) fn new(group: Arc<DeviceGroup>) -> Self {
        Self { group, holds: [Hold::default(); 2] }
    }

    /// Takes `price` tokens (at most the bucket's limit), or says in how many nanoseconds they may
    /// be there. What waits on this core for such tokens costs `waiting` in all: up to a part of
    /// the bucket is claimed at once, because a claim is a place in a line: cores with short
    /// requests would else have less of the device than those with long ones.
    pub(super) fn take(
        &mut self,
        claimant: Claimant,
        price: u64,
        waiting: u64,
        now: u64,
    ) -> Result<(), u64> {
        let group = &*self.group;
        let hold = &mut self.holds[claimant as usize];
        if price > hold.balance {
            group.replenish(now);
            hold.collect(group, claimant);
        }
        if price > hold.balance && hold.pending == 0 {
            // A whole part whatever is left of the last one: who is left with more because its next
            // request is long would otherwise claim less in each round.
            let part = match claimant {
                Claimant::Awaited => group.quantum(),
                Claimant::Background => group.quantum() / BACKGROUND_PARTS,
            };
            let wanted = waiting.saturating_sub(hold.balance).min(part);
            let more = wanted.max(price - hold.balance);
            hold.position = group.grab(claimant, more);
            hold.pending = more;
            hold.collect(group, claimant);
        }
        if price <= hold.balance {
            hold.balance -= price;
            return Ok(());
        }
        let missing = price - hold.balance;
        // A claim is covered from its beginning: its last tokens are not waited for.
        let unneeded = hold.pending.saturating_sub(missing);
        let more = missing.saturating_sub(hold.pending);
        let deficiency = group.deficiency(claimant, hold.position);
        let missing = deficiency.saturating_sub(unneeded).saturating_add(more);
        Err(group.time_of(claimant, missing))
    }

    /// Whether requests that somebody waits for have used tokens of the device lately, on any core.
    pub(super) fn are_shared(&self) -> bool {
        let awaited = self.group.tokens(Claimant::Awaited);
        awaited.available < awaited.limit
    }

    /// Whether the core has so many tokens, without a claim.
    pub(super) fn has(&mut self, claimant: Claimant, price: u64) -> bool {
        let hold = &mut self.holds[claimant as usize];
        hold.collect(&self.group, claimant);
        price <= hold.balance
    }

    /// Takes back tokens that were spent in vain.
    pub(super) fn put_back(&mut self, claimant: Claimant, price: u64) {
        self.holds[claimant as usize].balance += price;
    }

    /// Gives everything back that was claimed for this claimant, to the other cores.
    pub(super) fn give_up(&mut self, claimant: Claimant) {
        let Hold { balance, pending, .. } = std::mem::take(&mut self.holds[claimant as usize]);
        self.group.refund(claimant, balance + pending);
    }
}

impl Hold {
    /// Takes what time has brought of the claim.
    fn collect(&mut self, group: &DeviceGroup, claimant: Claimant) {
        let missing = group.deficiency(claimant, self.position).min(self.pending);
        self.balance += self.pending - missing;
        self.pending = missing;
    }
}

impl Drop for CoreTokens {
    fn drop(&mut self) {
        Claimant::BOTH.into_iter().for_each(|claimant| self.give_up(claimant));
    }
}
