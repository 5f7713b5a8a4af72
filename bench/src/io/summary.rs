//! What came of it: plain arithmetic on what the cores have counted.

use larder_runtime::device_model::{DeviceModel, seconds_of};
use larder_runtime::env::IoClass;
use larder_runtime::io_queue::IoClassStatistics;
use serde::Serialize;

use super::core_load::{CoreFound, Counted, Returned};
use super::settings::{IoBenchSettings, SharedClass};

/// What `larder bench io` has found.
#[derive(Clone, Debug, Serialize)]
pub struct IoBenchSummary {
    /// What was asked for.
    pub settings: IoBenchSettings,
    /// What each class got while all asked for more than there is.
    pub classes: Vec<ClassPart>,
    /// By how much the class that got most for its shares had more than the one that got least;
    /// 0.05 is a twentieth.
    pub deviation: f64,
    /// The part of the disk's time that each core was charged.
    pub cores: Vec<f64>,
    /// The part of the disk's time that all were charged together.
    pub device_used: f64,
    /// The most that they may be charged in that time: all of it, and what the bucket holds.
    pub device_bound: f64,
    /// What was charged over what the file's figures say: 1 where the disk does what they say.
    pub price: f64,
    /// The least part of the disk's rate that a core left what nobody waits for at the end: less
    /// than 1 where reads took longer than the goal.
    pub background_allowed: f64,
    /// How long a read may take, in microseconds.
    pub latency_goal_us: f64,
    /// How it went to the classes that came back from idleness while the others asked for all.
    pub come_back: Vec<ComeBack>,
}

/// What one of several classes got that all asked for more than there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassPart {
    /// The class.
    pub class: &'static str,
    /// Its shares.
    pub shares: u32,
    /// Requests that ended in a second.
    pub requests_per_second: f64,
    /// Bytes that they moved in a second.
    pub bytes_per_second: f64,
    /// The part of the disk's time that it was charged.
    pub device: f64,
    /// What it was charged over its part, by its shares, of what all were charged.
    pub of_due: f64,
}

/// A class that came back from idleness, one request at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComeBack {
    /// The class.
    pub class: &'static str,
    /// How often it came back.
    pub times: usize,
    /// How long its requests waited until the device got them.
    pub waited: WaitSpread,
    /// How long the device had them.
    pub in_device: WaitSpread,
    /// The part of them that waited for longer than the latency goal.
    pub late: f64,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WaitSpread {
    /// Half of them at most.
    pub p50_us: f64,
    /// All but one in a hundred at most.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What all cores have found of a disk.
pub(super) struct DiskFound {
    pub(super) model: DeviceModel,
    pub(super) cores: Vec<CoreFound>,
}

impl IoBenchSummary {
    pub(super) fn new(settings: &IoBenchSettings, found: &DiskFound) -> Self {
        let shares: u32 = settings.classes.iter().map(|shared| shared.shares).sum();
        let counted: Vec<&Counted> = found.cores.iter().map(|core| &core.saturated).collect();
        let uses: Vec<ClassUse> =
            settings.classes.iter().map(|shared| ClassUse::of(*shared, &counted, found)).collect();
        let device_used: f64 = uses.iter().map(|class| class.charged).sum();
        let by_figures: f64 = uses.iter().map(|class| class.by_figures).sum();
        let part = |(shared, class): (&SharedClass, &ClassUse)| {
            let due = device_used * f64::from(shared.shares) / f64::from(shares.max(1));
            ClassPart {
                class: shared.class.name(),
                shares: shared.shares,
                requests_per_second: class.requests,
                bytes_per_second: class.bytes,
                device: class.charged,
                of_due: quotient(class.charged, due),
            }
        };
        let classes: Vec<ClassPart> = settings.classes.iter().zip(&uses).map(part).collect();
        let of_core = |counted: &&Counted| {
            let charged = settings.classes.iter().map(|shared| {
                let (before, after) = statistics(counted, shared.class);
                seconds_of(after.charged_tokens.wrapping_sub(before.charged_tokens))
            });
            charged.sum::<f64>() / counted.seconds.max(f64::MIN_POSITIVE)
        };
        let shortest = counted.iter().map(|counted| counted.seconds).fold(f64::MAX, f64::min);
        let bucket = seconds_of(found.model.costs().limit());
        Self {
            settings: settings.clone(),
            deviation: deviation(&classes),
            classes,
            cores: counted.iter().map(of_core).collect(),
            device_used,
            device_bound: 1.0 + bucket / shortest.max(f64::MIN_POSITIVE),
            price: quotient(device_used, by_figures),
            background_allowed: counted.iter().map(allowed).fold(1.0, f64::min),
            latency_goal_us: found.model.latency_goal as f64 / 1_000.0,
            come_back: come_back(settings, found),
        }
    }
}

fn allowed(counted: &&Counted) -> f64 {
    counted.after.flow.allowed_thousandths as f64 / 1_000.0
}

/// What a class had on all cores, in a second.
struct ClassUse {
    requests: f64,
    bytes: f64,
    /// Of the disk's time, as it was charged.
    charged: f64,
    /// The same as the file's figures say.
    by_figures: f64,
}

impl ClassUse {
    fn of(shared: SharedClass, counted: &[&Counted], found: &DiskFound) -> Self {
        let costs = found.model.costs();
        let mut all = Self { requests: 0.0, bytes: 0.0, charged: 0.0, by_figures: 0.0 };
        for counted in counted {
            let (before, after) = statistics(counted, shared.class);
            let seconds = counted.seconds.max(f64::MIN_POSITIVE);
            let requests = after.completed.wrapping_sub(before.completed);
            let bytes = after.bytes.wrapping_sub(before.bytes);
            let charged = after.charged_tokens.wrapping_sub(before.charged_tokens);
            all.requests += requests as f64 / seconds;
            all.bytes += bytes as f64 / seconds;
            all.charged += seconds_of(charged) / seconds;
            all.by_figures += costs.seconds_of(shared.direction(), requests, bytes) / seconds;
        }
        all
    }
}

fn statistics(counted: &Counted, class: IoClass) -> (&IoClassStatistics, &IoClassStatistics) {
    (&counted.before.classes[class as usize], &counted.after.classes[class as usize])
}

fn come_back(settings: &IoBenchSettings, found: &DiskFound) -> Vec<ComeBack> {
    let of = |(index, shared): (usize, &SharedClass)| {
        let all = || found.cores.iter().flat_map(|core| &core.returned[index]);
        let waited: Vec<u64> = all().map(|returned: &Returned| returned.waited).collect();
        let in_device = all().map(|returned| returned.in_device).collect();
        let late = waited.iter().filter(|waited| **waited > found.model.latency_goal).count();
        ComeBack {
            class: shared.class.name(),
            times: waited.len(),
            late: quotient(late as f64, waited.len() as f64),
            waited: WaitSpread::of(waited),
            in_device: WaitSpread::of(in_device),
        }
    };
    settings.classes.iter().enumerate().map(of).collect()
}

impl WaitSpread {
    /// Of these, in nanoseconds.
    pub(super) fn of(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        let Some(last) = nanoseconds.len().checked_sub(1) else { return Self::default() };
        // The least that so many percent do not exceed.
        let at = |percent: usize| {
            let place = (nanoseconds.len() * percent).div_ceil(100).saturating_sub(1);
            nanoseconds[place.min(last)] as f64 / 1_000.0
        };
        Self { p50_us: at(50), p99_us: at(99), max_us: at(100) }
    }
}

/// By how much the class that got most for its shares had more than the one that got least.
pub(super) fn deviation(classes: &[ClassPart]) -> f64 {
    let most = classes.iter().map(|class| class.of_due).fold(0.0, f64::max);
    let least = classes.iter().map(|class| class.of_due).fold(f64::MAX, f64::min);
    quotient(most, least.min(most)) - 1.0
}

/// A part of a whole; of nothing 1 if it is nothing too, or the largest number.
pub(super) fn quotient(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole
    } else if part > 0.0 {
        f64::MAX
    } else {
        1.0
    }
}
