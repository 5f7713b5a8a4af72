//! Which operation comes next on a shard, and when it is due: pure, from the seed.

use super::{BesideLoad, EngineSettings, Workload};
use crate::load::distribution::{KeyChooser, Scatter};
use crate::load::random::Random;
use crate::load::{Distribution, Ratio};

/// An operation on one of a shard's keys, by the key's place in the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Store the key's next version.
    Store(u32),
    /// Read the key.
    Read(u32),
    /// Read a key that was never stored: that of this number among them.
    ReadMissing(u64),
    /// Delete the key.
    Delete(u32),
    /// Read the next page of all keys.
    ReadPage,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Storing every key before the workload.
    Warm,
    /// The workload for so many nanoseconds, of which nothing is counted: caches fill.
    Ramp {
        /// The time.
        nanoseconds: u64,
    },
    /// The workload alone, before it is carried out beside other loads.
    Quiet,
    /// The other loads alone, for so many nanoseconds.
    Background {
        /// The time.
        nanoseconds: u64,
    },
    /// The workload.
    Measured,
    /// Reading keys back after it.
    Verify,
}

impl Phase {
    /// Whether the workload is carried out, at its rate.
    pub(super) fn is_workload(self) -> bool {
        matches!(self, Self::Ramp { .. } | Self::Quiet | Self::Measured)
    }

    /// How long it lasts, in nanoseconds, if that is not for the settings to say.
    pub(super) fn own_time(self) -> Option<u64> {
        match self {
            Self::Ramp { nanoseconds } | Self::Background { nanoseconds } => Some(nanoseconds),
            _ => None,
        }
    }

    /// Whether the loads beside the workload go on.
    pub(super) fn has_beside(self) -> bool {
        matches!(self, Self::Background { .. } | Self::Measured)
    }
}

/// The random choices of loads that are not the workload: streams of numbers of their own.
const BESIDE_STREAM: u64 = 1 << 32;
const QUIET_STREAM: u64 = 1 << 40;
const RAMP_STREAM: u64 = 1 << 41;

/// In which order a script visits keys.
#[derive(Clone, Debug)]
enum Order {
    Ascending,
    Scattered(Scatter),
    Chosen(KeyChooser),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Store,
    Read,
    ReadMissing,
    Delete,
    ReadPage,
    Mixed(Ratio),
}

/// One shard's operations, in order.
#[derive(Clone, Debug)]
pub(super) struct Script {
    kind: Kind,
    order: Order,
    random: Random,
    next: u64,
    end: u64,
}

impl Script {
    /// The operations of `phase` on shard number `shard` of `shards`, which has `keys` keys.
    pub(super) fn new(
        settings: &EngineSettings,
        phase: Phase,
        (shard, shards): (u16, u16),
        keys: u32,
    ) -> Self {
        let (workload, each_once) = match phase {
            Phase::Warm => (Workload::Fill, true),
            Phase::Ramp { .. } | Phase::Quiet | Phase::Measured => {
                (settings.workload, settings.workload.visits_each_key_once())
            }
            // Of which none begins.
            Phase::Background { .. } => (Workload::ReadRandom, false),
            Phase::Verify => (Workload::ReadRandom, true),
        };
        let asked = match phase {
            Phase::Warm | Phase::Ramp { .. } | Phase::Background { .. } => None,
            Phase::Quiet | Phase::Measured => {
                settings.operations.map(|total| part(total, shard, shards))
            }
            // In proportion to the keys, so that asking for all of them reads all of them.
            Phase::Verify => settings.verify.map(|total| {
                let share = u128::from(total) * u128::from(keys);
                u64::try_from(share.div_ceil(u128::from(settings.keys))).unwrap_or(u64::MAX)
            }),
        };
        let most = if each_once { u64::from(keys) } else { u64::MAX };
        // A shard without keys has nothing to do, whatever was asked for.
        let end = if keys == 0 { 0 } else { asked.unwrap_or(u64::MAX).min(most) };
        let places = u64::from(keys.max(1));
        let order = match workload {
            Workload::FillSeq => Order::Ascending,
            _ if each_once => Order::Scattered(Scatter::new(places)),
            _ => Order::Chosen(KeyChooser::new(settings.distribution, places)),
        };
        let kind = match workload {
            Workload::Fill | Workload::FillSeq | Workload::Overwrite => Kind::Store,
            Workload::ReadRandom => Kind::Read,
            Workload::ReadMissing => Kind::ReadMissing,
            Workload::Mixed => Kind::Mixed(settings.ratio),
            Workload::Scan => Kind::ReadPage,
            Workload::Delete => Kind::Delete,
        };
        // Other keys than later, which would lie in the caches otherwise.
        let stream = match phase {
            Phase::Ramp { .. } => RAMP_STREAM,
            Phase::Quiet => QUIET_STREAM,
            _ => 0,
        };
        let random = Random::new(settings.seed, stream | u64::from(shard));
        Self { kind, order, random, next: 0, end }
    }

    /// What goes on without end beside the workload on shard number `shard`, which has `keys` keys.
    pub(super) fn beside(
        settings: &EngineSettings,
        load: BesideLoad,
        shard: u16,
        keys: u32,
    ) -> Self {
        let kind = match load {
            BesideLoad::Scan => Kind::ReadPage,
            BesideLoad::Overwrite => Kind::Store,
        };
        let chooser = KeyChooser::new(Distribution::Uniform, u64::from(keys.max(1)));
        let random = Random::new(settings.seed, BESIDE_STREAM | u64::from(shard));
        let end = if keys == 0 { 0 } else { u64::MAX };
        Self { kind, order: Order::Chosen(chooser), random, next: 0, end }
    }

    /// Whether there is no other operation.
    pub(super) fn is_over(&self) -> bool {
        self.next >= self.end
    }

    /// Ends the script here.
    pub(super) fn finish(&mut self) {
        self.end = self.next;
    }

    /// How many operations were taken.
    pub(super) fn taken(&self) -> u64 {
        self.next
    }

    /// The next operation; `None` when the script is over.
    pub(super) fn next(&mut self) -> Option<Action> {
        if self.is_over() {
            return None;
        }
        let place = match &self.order {
            Order::Ascending => self.next,
            Order::Scattered(scatter) => scatter.place(self.next),
            Order::Chosen(chooser) => chooser.next(&mut self.random),
        };
        self.next += 1;
        let key = u32::try_from(place).expect("a place is below the number of keys");
        Some(match self.kind {
            Kind::Store => Action::Store(key),
            Kind::Read => Action::Read(key),
            Kind::ReadMissing => Action::ReadMissing(place),
            Kind::Delete => Action::Delete(key),
            Kind::ReadPage => Action::ReadPage,
            Kind::Mixed(ratio) => {
                let of = u64::from(ratio.get) + u64::from(ratio.set);
                let is_read = self.random.below(of) < u64::from(ratio.get);
                if is_read { Action::Read(key) } else { Action::Store(key) }
            }
        })
    }
}

/// Share number `index` of `total`, dealt out to `of` as evenly as possible.
fn part(total: u64, index: u16, of: u16) -> u64 {
    let (index, of) = (u64::from(index), u64::from(of));
    total / of + u64::from(index < total % of)
}

/// When operations may begin. Times are nanoseconds since the phase's start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As soon as there is room for another.
    Closed,
    /// At even distances of so many nanoseconds, whether or not earlier ones have ended.
    Open { interval: f64 },
}

impl Pace {
    /// One of `shards` equal parts of `rate` operations a second, or a closed loop.
    pub(super) fn new(rate: Option<f64>, shards: u16) -> Self {
        rate.map_or(Self::Closed, |rate| Self::Open { interval: 1e9 * f64::from(shards) / rate })
    }

    /// From when the latency of operation number `index` counts if it begins at `now`; `None` if it
    /// is not due yet. What is due counts from then, however late it begins: the wait before it is
    /// part of what a client would see.
    pub(super) fn begin(self, index: u64, now: u64) -> Option<u64> {
        let since = self.due(index).unwrap_or(now);
        (since <= now).then_some(since)
    }

    /// When operation number `index`, counted from zero, is due; `None` in a closed loop.
    pub(super) fn due(self, index: u64) -> Option<u64> {
        match self {
            Self::Closed => None,
            Self::Open { interval } => Some((index as f64 * interval) as u64),
        }
    }

    /// How many operations are due before `end`.
    pub(super) fn due_before(self, end: u64) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open { interval } => (end as f64 / interval).ceil() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(settings: &EngineSettings, phase: Phase, keys: u32) -> Vec<Action> {
        let mut script = Script::new(settings, phase, (0, 1), keys);
        std::iter::from_fn(|| script.next()).take(5_000).collect()
    }

    fn settings(workload: Workload) -> EngineSettings {
        EngineSettings { operations: Some(3_000), ..EngineSettings::for_workload(workload) }
    }

    #[test]
    fn a_fill_and_a_delete_visit_every_key_once() {
        for workload in [Workload::Fill, Workload::FillSeq, Workload::Delete] {
            let places: Vec<u32> = actions(&settings(workload), Phase::Measured, 100)
                .into_iter()
                .map(|action| match action {
                    Action::Store(key) if workload != Workload::Delete => key,
                    Action::Delete(key) if workload == Workload::Delete => key,
                    other => panic!("{workload:?}: {other:?}"),
                })
                .collect();
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>(), "{workload:?}");
            assert_eq!(places == sorted, workload == Workload::FillSeq, "{workload:?}");
        }
    }

    #[test]
    fn other_workloads_go_on_until_the_operations_are_used_up() {
        let overwrite = actions(&settings(Workload::Overwrite), Phase::Measured, 10);
        assert_eq!(overwrite.len(), 3_000);
        assert!(overwrite.iter().all(|action| matches!(action, Action::Store(0..10))));
        let reads = actions(&settings(Workload::ReadRandom), Phase::Measured, 10);
        assert!(reads.iter().all(|action| matches!(action, Action::Read(0..10))));
        let missing = actions(&settings(Workload::ReadMissing), Phase::Measured, 10);
        assert!(missing.iter().all(|action| matches!(action, Action::ReadMissing(0..10))));
        let ratio = Ratio { get: 3, set: 1 };
        let mixed = EngineSettings { ratio, ..settings(Workload::Mixed) };
        let mixed = actions(&mixed, Phase::Measured, 10);
        let reads = mixed.iter().filter(|action| matches!(action, Action::Read(_))).count();
        assert!((2_150..2_350).contains(&reads), "{reads} of 3,000 at 3:1");
    }

    #[test]
    fn operations_are_dealt_out_and_a_shard_without_keys_has_none() {
        let settings = EngineSettings { operations: Some(7), ..settings(Workload::Overwrite) };
        let count = |shard, keys| {
            let mut script = Script::new(&settings, Phase::Measured, (shard, 3), keys);
            std::iter::from_fn(|| script.next()).count()
        };
        assert_eq!([count(0, 5), count(1, 5), count(2, 5)], [3, 2, 2]);
        assert_eq!(count(0, 0), 0);
    }

    #[test]
    fn a_verification_reads_a_sample_without_repeating_a_key() {
        let settings = EngineSettings { verify: Some(30), keys: 100, ..settings(Workload::Fill) };
        let mut read = actions(&settings, Phase::Verify, 100);
        assert_eq!(read.len(), 30);
        assert!(read.iter().all(|action| matches!(action, Action::Read(_))));
        read.sort_by_key(|action| format!("{action:?}"));
        read.dedup();
        assert_eq!(read.len(), 30);
    }

    #[test]
    fn due_times_are_evenly_spread_and_do_not_drift() {
        let pace = Pace::new(Some(3_000.0), 2);
        let due = [0, 3, 1_500, 1_500 * 3_600].map(|index| pace.due(index).expect("an open loop"));
        assert_eq!(due, [0, 2_000_000, 1_000_000_000, 3_600 * 1_000_000_000]);
        assert_eq!(pace.due_before(1_000_000_000), 1_500);
        assert_eq!(pace.due_before(1), 1, "the first is due at once");
        assert_eq!((Pace::Closed.due(7), Pace::Closed.due_before(u64::MAX)), (None, 0));
    }

    /// A shard takes nothing for 50 ms. In the closed loop one operation is slow; in the open one
    /// all
    /// that were due meanwhile are, each by the time that it had to wait.
    #[test]
    fn an_open_loop_counts_the_time_before_a_late_beginning() {
        const MILLISECOND: u64 = 1_000_000;
        let now = 50 * MILLISECOND;
        let pace = Pace::new(Some(1_000.0), 1);
        let latencies: Vec<u64> = (0..)
            .map_while(|index| pace.begin(index, now))
            .map(|since| (now - since) / MILLISECOND)
            .collect();
        assert_eq!(latencies, (0..=50).rev().collect::<Vec<_>>());
        assert_eq!(Pace::Closed.begin(0, now), Some(now));
    }
}
