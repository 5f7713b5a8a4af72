//! What goes on beside a workload, so that one can see what it does to the workload's latencies.
//!
//! The workload is carried out alone, then these loads alone, and then both together. The loads
//! have counts of their own, and no latencies.

use std::time::Duration;

use clap::ValueEnum;
use larder_runtime::device_model::{DeviceModel, IoDirection, seconds_of};
use larder_runtime::disk::DiskCounters;
use larder_runtime::env::{DISK_ALIGNMENT, IO_CLASSES, IoClass};
use serde::Serialize;

use super::EngineSettings;
use super::crew::PhaseResult;
use super::script::{Action, Pace, Script};
use super::tally::Tally;
use crate::load::summary::per_second;
use crate::load::{ErrorSummary, OperationSummary};

/// Overwrites in flight on each shard: enough for group commits, and for garbage to arise.
pub(super) const OVERWRITES_IN_FLIGHT: usize = 32;

/// What goes on beside the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BesideLoad {
    /// Read the whole store in pages, again and again
    Scan,
    /// Store keys again, chosen evenly, which brings flushes, compaction and garbage collection
    Overwrite,
}

impl BesideLoad {
    /// The load's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Overwrite => "overwrite",
        }
    }
}

/// One such load on one shard.
pub(super) struct BesideStream {
    pub(super) script: Script,
    pub(super) in_flight: usize,
    in_flight_max: usize,
    pace: Pace,
}

impl BesideStream {
    /// The load on shard number `place.0` of `place.1`, which has `keys` keys.
    pub(super) fn new(
        settings: &EngineSettings,
        load: BesideLoad,
        place: (u16, u16),
        keys: u32,
    ) -> Self {
        let (in_flight_max, rate) = match load {
            BesideLoad::Scan => (1, None),
            BesideLoad::Overwrite => (OVERWRITES_IN_FLIGHT, settings.beside_rate),
        };
        Self {
            script: Script::beside(settings, load, place.0, keys),
            in_flight: 0,
            in_flight_max,
            pace: Pace::new(rate, place.1),
        }
    }

    /// The next operation, if one may begin at `now`.
    pub(super) fn next(&mut self, now: u64) -> Option<Action> {
        if self.in_flight >= self.in_flight_max {
            return None;
        }
        self.pace.begin(self.script.taken(), now)?;
        let action = self.script.next()?;
        self.in_flight += 1;
        Some(action)
    }

    /// When the next operation is due, where that is not as soon as there is room.
    pub(super) fn due(&self) -> Option<u64> {
        let has_room = self.in_flight < self.in_flight_max && !self.script.is_over();
        self.pace.due(self.script.taken()).filter(|_| has_room)
    }
}

/// What the loads beside a workload came to, and what they did to it.
#[derive(Clone, Debug, Serialize)]
pub struct BesideSummary {
    /// The loads.
    pub loads: Vec<BesideLoad>,
    /// The workload's latencies when it was alone.
    pub quiet: Option<OperationSummary>,
    /// Operations that were due then and had not begun when the time was up.
    pub quiet_not_begun: u64,
    /// Its 99th percentile beside the loads over that when it was alone.
    pub p99_ratio: Option<f64>,
    /// Overwrites in a second when there was no workload.
    pub alone_overwrites_per_second: f64,
    /// Bytes that were scanned in a second then.
    pub alone_scanned_bytes_per_second: f64,
    /// Keys that were stored again.
    pub overwrites: u64,
    /// Those in a second.
    pub overwrites_per_second: f64,
    /// Items that were scanned.
    pub scanned: u64,
    /// Bytes of keys and values that were scanned in a second.
    pub scanned_bytes_per_second: f64,
    /// How the device was shared; `None` without its figures.
    pub device: Option<DeviceShares>,
    /// Errors of the loads, and of the workload when it was alone, by kind.
    pub errors: Vec<ErrorSummary>,
}

/// The parts of a device's time that were used, as the scheduler charges for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceShares {
    /// What reads took that clients waited for.
    pub foreground: f64,
    /// What all else took, flushes of the device too.
    pub background: f64,
    /// What all took when there was no workload.
    pub background_alone: f64,
    /// What all else took over what it could have had: as much as alone, or what the reads have
    /// left.
    pub background_kept: f64,
    /// What was charged over what the device's figures say: more than one where the device is
    /// slower than they say or reads and writes meet, less where it is found to be quicker.
    pub price: f64,
    /// What each class took, by its name; classes without any are left out.
    pub classes: Vec<(&'static str, f64)>,
}

/// What of a device's time went to whom, while it was shared.
struct DeviceUse {
    /// What was charged for reads that clients wait for.
    foreground: f64,
    /// And for all else.
    background: f64,
    /// What all of it takes by the device's figures.
    by_figures: f64,
    /// What was charged for each class.
    classes: [(&'static str, f64); IO_CLASSES],
}

impl DeviceShares {
    /// Of the times in which the loads were alone, and beside the workload: what the disk was asked
    /// for before and after each, and how long it was.
    pub(super) fn new(model: &DeviceModel, alone: &DiskSpan, beside: &DiskSpan) -> Self {
        let (alone, beside) = (DeviceUse::of(model, alone), DeviceUse::of(model, beside));
        let background_alone = alone.foreground + alone.background;
        let DeviceUse { foreground, background, by_figures, classes } = beside;
        // Nothing left means that the figures are too low.
        let possible = background_alone.min(1.0 - foreground).max(0.001);
        let background_kept = background / possible;
        let price = (foreground + background) / by_figures.max(0.001);
        let classes = classes.into_iter().filter(|(_, part)| *part > 0.0).collect();
        Self { foreground, background, background_alone, background_kept, price, classes }
    }
}

impl DeviceUse {
    fn of(model: &DeviceModel, span: &DiskSpan) -> Self {
        let DiskSpan { counters: (before, after), elapsed } = span;
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let charged = |class: IoClass| {
            let charged = |counters: &DiskCounters| counters.classes[class as usize].charged_tokens;
            seconds_of(charged(after) - charged(before)) / seconds
        };
        let costs = model.costs();
        let reads = costs.seconds_of(
            IoDirection::Read,
            after.reads - before.reads,
            after.read_bytes - before.read_bytes,
        );
        // A flush costs as much as the shortest write.
        let syncs = after.syncs - before.syncs;
        let writes = costs.seconds_of(
            IoDirection::Write,
            after.writes - before.writes + syncs,
            after.write_bytes - before.write_bytes + syncs * DISK_ALIGNMENT as u64,
        );
        let foreground = charged(IoClass::Read);
        let classes = IoClass::ALL.map(|class| (class.name(), charged(class)));
        Self {
            foreground,
            background: classes.iter().map(|(_, part)| part).sum::<f64>() - foreground,
            classes,
            by_figures: (reads + writes) / seconds,
        }
    }
}

/// What the disk was asked for before and after some time.
pub(super) struct DiskSpan {
    counters: (DiskCounters, DiskCounters),
    elapsed: Duration,
}

/// The workload and the loads beside it, each when it was alone.
pub(super) struct AloneMeasured {
    pub(super) quiet: PhaseResult,
    pub(super) background: PhaseResult,
    /// What was asked of the disk before and after the loads, which took as long as the workload.
    pub(super) disk: (DiskCounters, DiskCounters),
}

/// What was counted beside a workload.
pub(super) struct BesideMeasured {
    /// All of it when it was alone.
    pub(super) alone: AloneMeasured,
    /// What was asked of the disk before and after the workload was carried out beside the loads.
    pub(super) disk: (DiskCounters, DiskCounters),
    /// What the device can do, if that is known.
    pub(super) model: Option<DeviceModel>,
}

impl BesideMeasured {
    /// The summary, where `loud` is what the workload came to beside the loads.
    pub(super) fn sum_up(&self, settings: &EngineSettings, loud: &PhaseResult) -> BesideSummary {
        let AloneMeasured { quiet, background, disk } = &self.alone;
        let time = quiet.elapsed;
        let p99 = |result: &PhaseResult| {
            let count = result.latencies.len();
            (count > 0).then(|| result.latencies.value_at_quantile(0.99) as f64)
        };
        let ratio = |(loud, quiet): (f64, f64)| loud / quiet.max(1.0);
        let (beside, elapsed) = (&loud.beside, loud.elapsed);
        let spans = (
            DiskSpan { counters: *disk, elapsed: time },
            DiskSpan { counters: self.disk, elapsed },
        );
        BesideSummary {
            loads: settings.beside.clone(),
            quiet: OperationSummary::new(&quiet.latencies, time),
            quiet_not_begun: quiet.not_begun,
            p99_ratio: p99(loud).zip(p99(quiet)).map(ratio),
            alone_overwrites_per_second: per_second(background.beside.stored, time),
            alone_scanned_bytes_per_second: per_second(background.beside.scanned_bytes, time),
            overwrites: beside.stored,
            overwrites_per_second: per_second(beside.stored, elapsed),
            scanned: beside.scanned,
            scanned_bytes_per_second: per_second(beside.scanned_bytes, elapsed),
            device: self.model.map(|model| DeviceShares::new(&model, &spans.0, &spans.1)),
            errors: self.failures(loud).errors(),
        }
    }

    /// What has failed beside the workload, and of it when it was alone.
    pub(super) fn failures(&self, loud: &PhaseResult) -> Tally {
        let mut all = loud.beside.clone();
        all.add(self.alone.quiet.tally.clone());
        all.add(self.alone.background.beside.clone());
        all
    }
}

#[cfg(test)]
mod tests {
    use larder_runtime::device_model::TOKENS_PER_MILLISECOND;

    use super::*;

    #[test]
    fn shares_of_the_device_go_by_what_was_charged_for_it() {
        // So many bytes a second that they cost nothing.
        let bandwidth = 1_000_000_000_000;
        let model = DeviceModel {
            read_iops: 1_000,
            read_bandwidth: bandwidth,
            write_iops: 500,
            write_bandwidth: bandwidth,
            ..DeviceModel::default()
        };
        let second = TOKENS_PER_MILLISECOND * 1_000;
        let (before, mut after) = (DiskCounters::default(), DiskCounters::default());
        // 800 reads, 200 of them by clients, 100 writes and 50 flushes.
        (after.reads, after.read_bytes) = (800, 800 << 12);
        (after.writes, after.write_bytes, after.syncs) = (100, 100 << 12, 50);
        after.classes[IoClass::Read as usize].charged_tokens = second / 5;
        after.classes[IoClass::Scan as usize].charged_tokens = second * 6 / 10;
        after.classes[IoClass::Commit as usize].charged_tokens = second * 3 / 10;
        let span = |counters, seconds| DiskSpan { counters, elapsed: Duration::from_secs(seconds) };
        let shares =
            DeviceShares::new(&model, &span((before, after), 1), &span((before, after), 2));
        let is_near = |found: f64, expected: f64| (found - expected).abs() < 1e-4;
        assert!(is_near(shares.foreground, 0.1), "{shares:?}");
        assert!(is_near(shares.background, 0.3 + 0.15), "{shares:?}");
        assert!(is_near(shares.background_alone, 1.1), "{shares:?}");
        assert!(is_near(shares.background_kept, 0.5), "of the nine tenths that are left");
        assert!(is_near(shares.price, 1.0), "flushes have their price: {shares:?}");
        let names: Vec<_> = shares.classes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["commit", "read", "scan"]);
        let slow = DeviceShares::new(&model, &span((before, after), 4), &span((before, after), 2));
        assert!(is_near(slow.background_alone, 0.275), "{slow:?}");
        assert!(is_near(slow.background_kept, 0.45 / 0.275), "of what it had alone");
        after.classes[IoClass::Scan as usize].charged_tokens *= 2;
        let dear = DeviceShares::new(&model, &span((before, after), 4), &span((before, after), 4));
        assert!(is_near(dear.price, 1.7 / 1.1), "{dear:?}");
        let idle =
            DeviceShares::new(&model, &span((before, before), 0), &span((before, before), 0));
        assert_eq!((idle.foreground, idle.background_kept), (0.0, 0.0));
    }

    #[test]
    fn a_load_keeps_to_its_rate_and_its_place() {
        let settings = EngineSettings {
            beside_rate: Some(1_000.0),
            ..EngineSettings::for_workload(super::super::Workload::ReadRandom)
        };
        let stream = |load| BesideStream::new(&settings, load, (0, 2), 100);
        let mut overwrite = stream(BesideLoad::Overwrite);
        assert!(matches!(overwrite.next(0), Some(Action::Store(_))));
        // 500 a second on each of two shards.
        assert_eq!((overwrite.next(1_999_999), overwrite.due()), (None, Some(2_000_000)));
        assert!(overwrite.next(2_000_000).is_some());
        let mut scan = stream(BesideLoad::Scan);
        assert_eq!(scan.next(0), Some(Action::ReadPage));
        assert_eq!((scan.next(1), scan.due()), (None, None), "pages follow each other");
        scan.in_flight = 0;
        assert!(scan.next(2).is_some());
        let mut closed = BesideStream { pace: Pace::Closed, ..stream(BesideLoad::Overwrite) };
        let begun = std::iter::from_fn(|| closed.next(0)).count();
        assert_eq!(begun, OVERWRITES_IN_FLIGHT);
    }
}
