//! Measuring a disk: what is asked of it, and what follows from its answers.
//!
//! What carries a load out is behind [`LoadRunner`], so that all of this is tested on simulated
//! disks. A measurement asks for loads one after the other, each of which depends on what came
//! before, and keeps to a time that is set beforehand.

mod curve;
mod steady;

#[cfg(test)]
mod tests;

pub use curve::{LoadCurve, LoadPoint, knee, least_gain};
pub use steady::{SteadyRate, even_rate, steady_rate};

use serde::Serialize;

use crate::disk::DiskProperties;

/// What a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// Reads at random places.
    RandomRead,
    /// Writes at random places.
    RandomWrite,
    /// Reads one after the other.
    SequentialRead,
    /// Writes one after the other.
    SequentialWrite,
    /// Reads and writes at random places, as many of the one as of the other.
    Mixed,
}

/// A load that is put on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLoad {
    /// What it does.
    pub kind: LoadKind,
    /// The length of each request, in bytes.
    pub length: u32,
    /// Requests at a time.
    pub depth: u32,
    /// How long it lasts, in milliseconds.
    pub milliseconds: u32,
}

/// What a load has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadSample {
    /// Requests a second in parts of the time, which are equally long: at least 8.
    pub rates: Vec<f64>,
    /// How many of the reads that a mixed load has done for each write.
    pub reads_per_write: f64,
    /// What 99 of 100 requests took at most, in microseconds.
    pub p99_us: u32,
}

/// What carries loads out.
pub trait LoadRunner {
    /// Puts a load on the disk for as long as it says.
    ///
    /// # Errors
    /// Why it could not be done, with what to do.
    fn run(&mut self, load: DiskLoad) -> Result<LoadSample, String>;
}

/// How much a measurement may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureOptions {
    /// The time of all loads together, in milliseconds.
    pub milliseconds: u32,
    /// Requests at a time at most.
    pub depth_max: u32,
    /// The smallest length of a request that the disk takes, in bytes.
    pub block: u32,
}

impl MeasureOptions {
    /// Ten seconds: enough to find the order of things.
    pub fn quick() -> Self {
        Self { milliseconds: 10_000, depth_max: 256, block: 4096 }
    }

    /// Two seconds for [`measure_rates`].
    pub fn rates() -> Self {
        Self { milliseconds: 2_000, depth_max: 128, ..Self::quick() }
    }

    /// Two minutes: enough to see a disk that is fast for a minute only.
    pub fn full() -> Self {
        Self { milliseconds: 120_000, ..Self::quick() }
    }
}

/// What was found out about a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The figures; the mount points are for the caller to add.
    pub properties: DiskProperties,
    /// By how many percent each of the four rates varied: reads and their bandwidth, writes and
    /// theirs.
    pub spread_percent: [f64; 4],
    /// Load against rate and latency: of the smallest reads and writes, and of longer reads.
    pub curves: Vec<LoadCurve>,
    /// What to know of the figures: each a sentence.
    pub notes: Vec<String>,
}

/// The length of requests that find the bandwidth, in bytes.
const LONG: u32 = 1 << 20;
/// How many of them at a time.
const LONG_DEPTH: u32 = 4;
/// A depth, or a length, is enough that has so much of the best rate.
const ENOUGH: f64 = 0.95;
/// What varies by more is said.
const SPREAD_PERCENT_MAX: f64 = 5.0;

/// Loads that are shorter, in milliseconds, are not searched for a fall of the rate.
const FALL_MILLISECONDS: u32 = 500;

/// Parts of the time in percent: sequential writes take most, because disks that are fast for a
/// while only are so with writes.
const SEQUENTIAL_WRITE: u32 = 34;
const SEQUENTIAL_READ: u32 = 10;
const SWEEP: u32 = 10;
const STEADY: u32 = 5;
const LENGTHS: u32 = 6;
const BLOCKS: u32 = 2;
const MIXED: u32 = 4;
const LONGER: u32 = 8;

/// Part of the time for each of the four rates, where nothing else is looked for.
const RATE: u32 = 25;
/// Writes at a time that find the rate of small ones: what waits in the disk's own memory is
/// enough to keep it busy.
const RATE_WRITE_DEPTH: u32 = 64;

/// Lengths of the longer reads whose latency is looked at, in bytes, and how many at a time.
const LONGER_LENGTHS: [u32; 2] = [16 << 10, 64 << 10];
const LONGER_DEPTHS: [u32; 4] = [1, 4, 16, 64];

/// Measures a disk.
///
/// # Errors
/// What the runner says; a disk that does nothing at all.
pub fn measure(runner: &mut dyn LoadRunner, options: MeasureOptions) -> Result<Measured, String> {
    let mut session = Session { runner, options, measured: Measured::default() };
    let write_bandwidth = session.bandwidth(LoadKind::SequentialWrite, SEQUENTIAL_WRITE, 3)?;
    let read_bandwidth = session.bandwidth(LoadKind::SequentialRead, SEQUENTIAL_READ, 1)?;
    let (write_iops, write_depth, write_curve) = session.iops(LoadKind::RandomWrite, 2)?;
    let (read_iops, read_depth, read_curve) = session.iops(LoadKind::RandomRead, 0)?;
    let read_length = session.saturation_length(LoadKind::SequentialRead)?;
    let write_length = session.saturation_length(LoadKind::SequentialWrite)?;
    let block = session.physical_block(write_depth)?;
    let mixed = session.mixed(read_depth, read_iops, write_iops)?;
    let longer = session.longer_reads()?;
    let mut measured = session.measured;
    measured.properties = DiskProperties {
        mountpoints: Vec::new(),
        read_iops,
        read_bandwidth,
        write_iops,
        write_bandwidth,
        read_saturation_length: Some(read_length),
        write_saturation_length: Some(write_length),
        read_saturation_depth: Some(u64::from(read_depth)),
        write_saturation_depth: Some(u64::from(write_depth)),
        latency_goal_us: None,
        physical_block_size: Some(block),
        mixed_thousandths: Some(mixed),
        duplex: None,
    };
    measured.curves = [read_curve].into_iter().chain(longer).chain([write_curve]).collect();
    Ok(measured)
}

/// Measures the four rates alone, in a time that is too short for anything else.
///
/// # Errors
/// As [`measure`].
pub fn measure_rates(
    runner: &mut dyn LoadRunner,
    options: MeasureOptions,
) -> Result<Measured, String> {
    let mut session = Session { runner, options, measured: Measured::default() };
    let write_bandwidth = session.bandwidth(LoadKind::SequentialWrite, RATE, 3)?;
    let read_bandwidth = session.bandwidth(LoadKind::SequentialRead, RATE, 1)?;
    let write_iops = session.rate(LoadKind::RandomWrite, RATE_WRITE_DEPTH, 2)?;
    let read_iops = session.rate(LoadKind::RandomRead, options.depth_max, 0)?;
    let mut measured = session.measured;
    measured.properties = DiskProperties {
        read_iops,
        read_bandwidth,
        write_iops,
        write_bandwidth,
        ..DiskProperties::default()
    };
    Ok(measured)
}

/// A measurement under way.
struct Session<'a> {
    runner: &'a mut dyn LoadRunner,
    options: MeasureOptions,
    measured: Measured,
}

impl Session<'_> {
    /// Runs a load for some percent of the time, divided by `parts`.
    fn run(
        &mut self,
        (kind, length, depth): (LoadKind, u32, u32),
        percent: u32,
        parts: u32,
    ) -> Result<(SteadyRate, LoadSample), String> {
        let milliseconds = (self.options.milliseconds / 100 * percent / parts.max(1)).max(1);
        let load = DiskLoad { kind, length, depth, milliseconds };
        let sample = self.runner.run(load)?;
        let rate_of = if milliseconds < FALL_MILLISECONDS { even_rate } else { steady_rate };
        let rate = rate_of(&sample.rates)
            .ok_or_else(|| format!("the disk did nothing for {milliseconds} ms under {load:?}"))?;
        Ok((rate, sample))
    }

    /// Bytes a second with long requests. `figure` is the place of its spread.
    fn bandwidth(&mut self, kind: LoadKind, percent: u32, figure: usize) -> Result<u64, String> {
        let (rate, _) = self.run((kind, LONG, LONG_DEPTH), percent, 1)?;
        self.keep_spread(kind, rate, figure);
        Ok(whole(rate.per_second * f64::from(LONG)))
    }

    /// The rate of the smallest requests with so many at a time, which are kept within the bound.
    fn rate(&mut self, kind: LoadKind, depth: u32, figure: usize) -> Result<u64, String> {
        let depth = depth.clamp(1, self.options.depth_max.max(1));
        let (rate, _) = self.run((kind, self.options.block, depth), RATE, 1)?;
        self.keep_spread(kind, rate, figure);
        Ok(whole(rate.per_second))
    }

    /// The best rate of small requests, the least depth that has it, and the curve.
    fn iops(&mut self, kind: LoadKind, figure: usize) -> Result<(u64, u32, LoadCurve), String> {
        let (block, most) = (self.options.block, self.options.depth_max.max(1));
        let depths: Vec<u32> = (0..=most.ilog2()).map(|power| 1 << power).chain([most]).collect();
        let count = u32::try_from(depths.len()).unwrap_or(u32::MAX);
        let mut curve: Vec<LoadPoint> = Vec::new();
        for depth in depths {
            if curve.last().is_some_and(|point| point.depth == depth) {
                continue;
            }
            let (rate, sample) = self.run((kind, block, depth), SWEEP, count)?;
            curve.push(LoadPoint { depth, per_second: rate.per_second, p99_us: sample.p99_us });
        }
        let depth = knee(&curve, ENOUGH).map_or(1, |point| point.depth);
        let (rate, _) = self.run((kind, block, depth), STEADY, 1)?;
        self.keep_spread(kind, rate, figure);
        Ok((whole(rate.per_second), depth, LoadCurve { kind, length: block, points: curve }))
    }

    /// Rate and latency of random reads that are longer than the smallest.
    fn longer_reads(&mut self) -> Result<Vec<LoadCurve>, String> {
        let count = LONGER_LENGTHS.len() * LONGER_DEPTHS.len();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let (kind, most) = (LoadKind::RandomRead, self.options.depth_max);
        let mut curves = Vec::new();
        for length in LONGER_LENGTHS {
            let mut points = Vec::new();
            for depth in LONGER_DEPTHS.into_iter().filter(|it| *it <= most) {
                let (rate, sample) = self.run((kind, length, depth), LONGER, count)?;
                let (per_second, p99_us) = (rate.per_second, sample.p99_us);
                points.push(LoadPoint { depth, per_second, p99_us });
            }
            curves.push(LoadCurve { kind, length, points });
        }
        Ok(curves)
    }

    /// The least length of requests that has the bandwidth of long ones.
    fn saturation_length(&mut self, kind: LoadKind) -> Result<u64, String> {
        let lengths: Vec<u32> = (12..=20).map(|power| 1 << power).collect();
        let count = u32::try_from(lengths.len()).unwrap_or(u32::MAX);
        let mut points = Vec::new();
        for length in lengths {
            let (rate, _) = self.run((kind, length, LONG_DEPTH), LENGTHS, count)?;
            points.push((length, rate.per_second * f64::from(length)));
        }
        let best = points.iter().map(|(_, bandwidth)| *bandwidth).fold(0.0, f64::max);
        let enough = points.iter().find(|(_, bandwidth)| *bandwidth >= best * ENOUGH);
        Ok(enough.map_or(u64::from(LONG), |(length, _)| u64::from(*length)))
    }

    /// What the disk writes at once: writes that are longer gain nothing more in requests.
    fn physical_block(&mut self, depth: u32) -> Result<u64, String> {
        let lengths: Vec<u32> =
            (9..=14).map(|power| 1 << power).filter(|it| *it >= self.options.block).collect();
        let count = u32::try_from(lengths.len()).unwrap_or(u32::MAX);
        let mut points = Vec::new();
        for length in lengths {
            let (rate, _) = self.run((LoadKind::RandomWrite, length, depth), BLOCKS, count)?;
            points.push((length, rate.per_second));
        }
        Ok(u64::from(least_gain(&points).unwrap_or(self.options.block)))
    }

    /// The share of its reads and that of its writes that the disk does together, in thousandths.
    fn mixed(&mut self, depth: u32, reads: u64, writes: u64) -> Result<u64, String> {
        let load = (LoadKind::Mixed, self.options.block, depth.max(2));
        let (rate, sample) = self.run(load, MIXED, 1)?;
        let ratio = sample.reads_per_write.clamp(0.001, 1000.0);
        let read_part = rate.per_second * ratio / (1.0 + ratio) / reads.max(1) as f64;
        let write_part = rate.per_second / (1.0 + ratio) / writes.max(1) as f64;
        Ok(whole((read_part + write_part) * 1000.0).clamp(100, 2000))
    }

    fn keep_spread(&mut self, kind: LoadKind, rate: SteadyRate, figure: usize) {
        self.measured.spread_percent[figure] = rate.spread_percent;
        if let Some(burst) = rate.burst_per_second {
            self.measured.notes.push(format!(
                "{kind:?} began at {burst:.0} requests a second and fell to {:.0}, which is what \
                 counts: the disk is fast for a while only",
                rate.per_second
            ));
        }
        if rate.spread_percent > SPREAD_PERCENT_MAX {
            self.measured.notes.push(format!(
                "{kind:?} varied by {:.0} %: something else may use the disk",
                rate.spread_percent
            ));
        }
    }
}

/// The nearest whole number; none is negative.
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}
