//! How urgent the shard's background work is: the further it is behind, the more of the core and of
//! the disk it gets. So nothing has to be stopped for it that could have been done in time.
//!
//! Each kind of work has its usual shares while it is not behind. What it asks for rises evenly
//! with how far it is, up to the shares of what clients wait for; the core gives all of it together
//! no more than that ([`larder_runtime::urgency`]). It is for the slowing of writers to see to the
//! rest ([`super::backpressure`], [`crate::space::Pace`]).

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::urgency::URGENCY_USUAL;

use super::Shard;
use super::space::Ingest;
use crate::index::compaction::picker::DEBT_MAX;
use crate::space::{SpaceLimits, SpaceUsage};

/// A thing that is as far behind as can be, in thousandths.
const WHOLE: u64 = 1000;

/// The urgency that would bring each kind of work to the shares of the foreground.
const FLUSH_MAX: u32 = 2500;
const MERGES_MAX: u32 = 5000;
const COLLECTION_MAX: u32 = 10_000;

/// How often it is looked at while a memtable is written out, in nanoseconds.
const LOOK_NANOSECONDS: u64 = 5_000_000;

/// The thousandths that `have` is of `whole`; all of them where there is no whole.
fn thousandths(have: u64, whole: u64) -> u64 {
    let part = u128::from(have) * u128::from(WHOLE) / u128::from(whole.max(1));
    u64::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

/// The urgency of what is so many thousandths behind and has `most` when all of it is.
fn rising(thousandths: u64, most: u32) -> u32 {
    let rise = u64::from(most - URGENCY_USUAL) * thousandths.min(WHOLE) / WHOLE;
    URGENCY_USUAL + u32::try_from(rise).expect("a part is not more than the whole")
}

/// The urgency of merges with this debt.
fn of_merges(debt: u32) -> u32 {
    rising(thousandths(u64::from(debt), u64::from(DEBT_MAX)), MERGES_MAX)
}

/// The urgency of collecting garbage in a shard that is so full, whose log has segments for `log`
/// bytes.
fn of_collection(usage: &SpaceUsage, limits: &SpaceLimits, log: u64) -> u32 {
    let (missing, whole) = usage.scarcity(limits, log);
    rising(thousandths(missing, whole), COLLECTION_MAX)
}

impl<E: Env> Shard<E> {
    /// A shard that is being closed is in no hurry.
    fn set_urgency(&self, queue: TaskQueue, urgency: u32) {
        let urgency = if self.state.borrow().closing { URGENCY_USUAL } else { urgency };
        self.env.set_urgency(self.options.shard, queue, urgency);
    }

    /// Says how urgent merges and the collection of garbage are; `log` are the bytes for which the
    /// log has its segments. Merges that cannot go on are not.
    pub(super) fn note_urgency(&self, usage: &SpaceUsage, limits: &SpaceLimits, log: u64) {
        let full = self.state.borrow().full;
        // What the log has left is not for writers then, or it is not this shard that lacks space.
        let is_awaited =
            full.ingest != Ingest::Open || full.reserve_in_use || self.others_are_short();
        let collection =
            if is_awaited { COLLECTION_MAX } else { of_collection(usage, limits, log) };
        self.set_urgency(TaskQueue::GarbageCollection, collection);
        let merges = of_merges(if full.merges { 0 } else { self.index.debt() });
        // Where nothing can be collected, it is merges that writers will wait for.
        let is_under_way = self.is_merging.get() && !full.merges;
        let uncovers = is_under_way && self.wants_garbage(usage, limits);
        let merges = if uncovers { merges.max(collection.min(MERGES_MAX)) } else { merges };
        self.set_urgency(TaskQueue::Compaction, merges);
    }

    /// While a memtable is written out, says how urgent that is: writers wait when the next one is
    /// due before it has ended. It never ends, and so is of any type.
    pub(super) async fn keep_flush_urgent<T>(&self) -> T {
        loop {
            self.env.sleep(LOOK_NANOSECONDS).await;
            let memtable = (self.index.active_bytes(), self.options.memtable_bytes as u64);
            let log = (self.log.bytes_since_mark(), self.options.recovery_log_bytes / 2);
            let parts = [memtable, log].map(|(have, whole)| thousandths(have, whole));
            let behind = parts.into_iter().max().expect("there are two");
            self.set_urgency(TaskQueue::Flush, rising(behind, FLUSH_MAX));
        }
    }

    /// No memtable is being written out any more.
    pub(super) fn end_flush_urgency(&self) {
        self.set_urgency(TaskQueue::Flush, URGENCY_USUAL);
    }

    /// The shard has no background work any more.
    pub(super) fn end_urgency(&self) {
        for queue in [TaskQueue::Flush, TaskQueue::Compaction, TaskQueue::GarbageCollection] {
            self.set_urgency(queue, URGENCY_USUAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgency_of_merges_rises_evenly_with_their_debt() {
        assert_eq!(of_merges(0), URGENCY_USUAL);
        assert_eq!(of_merges(DEBT_MAX / 2), (URGENCY_USUAL + MERGES_MAX) / 2);
        assert_eq!([DEBT_MAX, u32::MAX].map(of_merges), [MERGES_MAX; 2]);
        let all: Vec<u32> = (0..=DEBT_MAX).map(of_merges).collect();
        let steps = all.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(all.is_sorted() && steps.max() <= Some(4), "no step is felt");
    }

    #[test]
    fn the_urgency_of_collection_rises_as_space_runs_out() {
        let limits = SpaceLimits { amplification_percent: 150, segment_bytes: 1000 };
        let full = SpaceUsage { left: i64::MAX, in_tables: 100_000, ..SpaceUsage::default() };
        let cap = full.cap(&limits);
        let with = |headroom, log| {
            let usage = SpaceUsage { allocated: cap - headroom, ..full };
            of_collection(&usage, &limits, log)
        };
        // Garbage is collected below 3,000, and below 1,000 the log gets no segment.
        assert_eq!([with(10_000, 0), with(3000, 2000)], [URGENCY_USUAL; 2]);
        assert_eq!(
            [with(2000, 1000), with(1000, 0), with(0, 0)],
            [5500, COLLECTION_MAX, COLLECTION_MAX]
        );
        let at = |headroom| with(headroom, 0);
        let all: Vec<u32> = (0..=5000).rev().map(at).collect();
        let steps = all.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(all.is_sorted() && steps.max() <= Some(9), "no step is felt");
    }

    #[test]
    fn parts_of_nothing_and_of_everything() {
        assert_eq!([thousandths(0, 0), thousandths(0, 5)], [0; 2]);
        assert_eq!([thousandths(1, 0), thousandths(u64::MAX, 1)], [WHOLE; 2]);
        assert_eq!(thousandths(u64::MAX / 2, u64::MAX), WHOLE / 2 - 1);
        assert_eq!(rising(u64::MAX, FLUSH_MAX), FLUSH_MAX);
    }
}
