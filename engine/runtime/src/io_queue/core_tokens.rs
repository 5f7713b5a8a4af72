//! One core's hold on the tokens of its device.

use std::sync::Arc;

use crate::device_group::DeviceGroup;
use crate::device_model::nanoseconds_of;

/// Tokens that a core has, and those that it has claimed and waits for. What it does not use when
/// it is dropped goes back.
#[derive(Debug)]
pub(super) struct CoreTokens {
    group: Arc<DeviceGroup>,
    /// Tokens that time has brought for this core.
    balance: u64,
    /// Tokens of the claim that ends at `position` which time has not brought.
    pending: u64,
    position: u64,
}

impl CoreTokens {
    pub(super) fn new(group: Arc<DeviceGroup>) -> Self {
        Self { group, balance: 0, pending: 0, position: 0 }
    }

    /// Takes `price` tokens (at most the bucket's limit), or says in how many nanoseconds they may
    /// be there. What waits on this core costs `waiting` in all: up to its part of the bucket is
    /// claimed at once, because a claim is a place in a line.
    pub(super) fn take(&mut self, price: u64, waiting: u64, now: u64) -> Result<(), u64> {
        if price > self.balance {
            self.group.replenish(now);
            self.collect();
        }
        if price > self.balance && self.pending == 0 {
            // A whole part whatever is left of the last one: who is left with more because its next
            // request is long would otherwise claim less in each round.
            let wanted = waiting.saturating_sub(self.balance).min(self.group.quantum());
            let more = wanted.max(price - self.balance);
            self.position = self.group.grab(more);
            self.pending = more;
            self.collect();
        }
        if price <= self.balance {
            self.balance -= price;
            return Ok(());
        }
        let missing = price - self.balance;
        // A claim is covered from its beginning: its last tokens are not waited for.
        let unneeded = self.pending.saturating_sub(missing);
        let more = missing.saturating_sub(self.pending);
        let deficiency = self.group.deficiency(self.position);
        Err(nanoseconds_of(deficiency.saturating_sub(unneeded).saturating_add(more)))
    }

    /// Takes back tokens that were spent in vain.
    pub(super) fn put_back(&mut self, price: u64) {
        self.balance += price;
    }

    /// Gives everything back, for the other cores.
    pub(super) fn give_up(&mut self) {
        self.group.refund(self.balance + self.pending);
        (self.balance, self.pending) = (0, 0);
    }

    /// Takes what time has brought of the claim.
    fn collect(&mut self) {
        let missing = self.group.deficiency(self.position).min(self.pending);
        self.balance += self.pending - missing;
        self.pending = missing;
    }
}

impl Drop for CoreTokens {
    fn drop(&mut self) {
        self.give_up();
    }
}
