//! How long requests take, as clients are told: each core measures some of those on its own shards
//! that come by its own connections, and says once a second what nearly all of them took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use larder_engine::operation::Operation;

use crate::connection::{After, Release};

/// One of two to this power of requests is measured, by chance: what clients do has patterns.
const SAMPLED_POWER: u32 = 3;

/// Requests that are under way and measured, at most; others are not.
const PENDING_MAX: usize = 64;

/// A figure is of the last so many seconds at least, and of twice as many at most.
const HALF_SECONDS: u32 = 30;

/// Fewer measured requests tell nothing of the slowest hundredth.
const SAMPLES_MIN: u64 = 100;

/// Four for each doubling, from a microsecond to more than an hour.
const BUCKETS: usize = 128;

/// What most requests of each core took in the last minute, by core.
#[derive(Clone, Debug)]
pub struct CoreLatencies(Arc<[[AtomicU32; 2]]>);

impl CoreLatencies {
    /// Of so many cores that have measured nothing.
    pub fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| [AtomicU32::new(0), AtomicU32::new(0)]).collect())
    }

    fn set(&self, core: usize, reads_and_writes: [u32; 2]) {
        for (shown, microseconds) in self.0[core].iter().zip(reads_and_writes) {
            shown.store(microseconds, Ordering::Relaxed);
        }
    }

    /// By core, what 99 of 100 reads took at most, in microseconds; 0 if too few were measured.
    pub fn reads(&self) -> Vec<u32> {
        self.0.iter().map(|[reads, _]| reads.load(Ordering::Relaxed)).collect()
    }

    /// The same of changes.
    pub fn writes(&self) -> Vec<u32> {
        self.0.iter().map(|[_, writes]| writes.load(Ordering::Relaxed)).collect()
    }
}

/// A request that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySample {
    /// When it was received, in nanoseconds.
    since: u64,
    is_write: bool,
}

/// How many took so long.
#[derive(Clone, Debug)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    fn note(&mut self, microseconds: u64) {
        let bucket = &mut self.counts[bucket_of(microseconds)];
        *bucket = bucket.saturating_add(1);
        self.total += 1;
    }
}

/// Two quarters of a doubling need two bits behind the first.
fn bucket_of(microseconds: u64) -> usize {
    let number = microseconds.max(1);
    let doubling = number.ilog2();
    let quarter = (u128::from(number) << 2 >> doubling) & 3;
    (doubling as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The most microseconds of a bucket.
fn bucket_end(bucket: usize) -> u32 {
    let (doubling, quarter) = (bucket / 4, bucket as u64 % 4);
    let next = ((quarter + 5) << doubling).div_ceil(4);
    u32::try_from(next - 1).unwrap_or(u32::MAX)
}

/// Reads or changes: those of the last half, and those of the one before.
#[derive(Clone, Debug, Default)]
struct Window {
    now: Histogram,
    before: Histogram,
}

impl Window {
    fn percentile(&self) -> u32 {
        let total = self.now.total + self.before.total;
        if total < SAMPLES_MIN {
            return 0;
        }
        let mut seen = 0;
        let both = self.now.counts.iter().zip(&self.before.counts);
        let enough = |(now, before): (&u32, &u32)| {
            seen += u64::from(*now) + u64::from(*before);
            seen * 100 >= total * 99
        };
        both.into_iter().position(enough).map_or(u32::MAX, bucket_end)
    }

    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// What a core measures.
#[derive(Debug, Default)]
pub struct LatencyProbe {
    /// A state of Knuth's linear congruential generator.
    chance: u64,
    pending: Vec<(LatencySample, After)>,
    reads: Window,
    writes: Window,
    seconds: u32,
}

impl LatencyProbe {
    /// Whether a request that was received at this nanosecond is measured.
    #[inline]
    pub fn sample(&mut self, operation: &Operation<'_>, since: u64) -> Option<LatencySample> {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if self.chance >> (u64::BITS - SAMPLED_POWER) != 0 {
            return None;
        }
        let is_write = !matches!(operation, Operation::Read(_));
        Some(LatencySample { since, is_write })
    }

    /// A measured request has its answer, which may leave after that.
    pub fn answered(
        &mut self,
        sample: LatencySample,
        after: After,
        (now, release): (u64, Release),
    ) {
        match release {
            Release::Now => self.note(sample, now),
            Release::Later if self.pending.len() < PENDING_MAX => {
                self.pending.push((sample, after));
            }
            Release::Later | Release::Never => {}
        }
    }

    /// Notes which answers may leave by now.
    pub fn settle(&mut self, now: u64, release: impl Fn(After) -> Release) {
        for (sample, after) in std::mem::take(&mut self.pending) {
            self.answered(sample, after, (now, release(after)));
        }
    }

    fn note(&mut self, sample: LatencySample, now: u64) {
        let window = if sample.is_write { &mut self.writes } else { &mut self.reads };
        window.now.note(now.saturating_sub(sample.since) / 1000);
    }

    /// Once a second: says what requests take.
    pub fn say(&mut self, core: usize, latencies: &CoreLatencies) {
        latencies.set(core, [self.reads.percentile(), self.writes.percentile()]);
        self.seconds += 1;
        if self.seconds.is_multiple_of(HALF_SECONDS) {
            self.reads.turn();
            self.writes.turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::operation::{Delete, Read};

    use super::*;

    #[test]
    fn buckets_are_a_quarter_of_a_doubling_wide() {
        for microseconds in (0..20_000).chain([u64::from(u32::MAX), u64::MAX]) {
            let bucket = bucket_of(microseconds);
            let end = u64::from(bucket_end(bucket));
            assert!(microseconds <= end || bucket == BUCKETS - 1, "{microseconds}: {bucket}");
            let most = microseconds.max(1).saturating_mul(5) / 4 + 1;
            assert!(end <= most, "{microseconds}: {end}");
            assert!(bucket == 0 || u64::from(bucket_end(bucket - 1)) <= end);
        }
    }

    fn probe(reads: impl Iterator<Item = u64>) -> (LatencyProbe, CoreLatencies) {
        let (mut probe, latencies) = (LatencyProbe::default(), CoreLatencies::new(2));
        for microseconds in reads {
            let sample = LatencySample { since: 5000, is_write: false };
            let now = 5000 + microseconds * 1000;
            probe.answered(sample, After::NOTHING, (now, Release::Now));
        }
        probe.say(1, &latencies);
        (probe, latencies)
    }

    #[test]
    fn a_core_says_what_ninety_nine_of_a_hundred_took() {
        let (_, latencies) = probe((0..1000).map(|at| if at < 990 { 100 } else { 9000 }));
        let told = latencies.reads();
        assert!((100..=125).contains(&told[1]), "{told:?}");
        assert_eq!((told[0], latencies.writes()), (0, vec![0, 0]));
        let (_, latencies) = probe((0..1000).map(|at| if at < 980 { 100 } else { 9000 }));
        assert!((9000..=11_250).contains(&latencies.reads()[1]), "{:?}", latencies.reads());
        let (_, latencies) = probe((0..99).map(|_| 100));
        assert_eq!(latencies.reads(), [0, 0], "too few tell nothing");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let (mut probe, latencies) = probe((0..200).map(|_| 100));
        for _ in 0..HALF_SECONDS {
            probe.say(1, &latencies);
            assert_ne!(latencies.reads()[1], 0, "it is told for half a minute at least");
        }
        (0..HALF_SECONDS).for_each(|_| probe.say(1, &latencies));
        probe.say(1, &latencies);
        assert_eq!(latencies.reads()[1], 0);
    }

    #[test]
    fn one_of_so_many_is_measured_until_its_answer_may_leave() {
        let mut probe = LatencyProbe::default();
        let mut sampled = |operation| -> Vec<LatencySample> {
            (0..800).filter_map(|_| probe.sample(&operation, 1000)).collect()
        };
        let reads = sampled(Operation::Read(Read::default()));
        let writes = sampled(Operation::Delete(Delete::default()));
        let usual = 70..130;
        assert!(usual.contains(&reads.len()) && usual.contains(&writes.len()), "{reads:?}");
        for sample in writes {
            probe.answered(sample, After::NOTHING, (2000, Release::Later));
        }
        assert_eq!(probe.pending.len(), PENDING_MAX);
        probe.settle(3000, |_| Release::Later);
        assert_eq!((probe.pending.len(), probe.writes.now.total), (PENDING_MAX, 0));
        probe.settle(401_000, |_| Release::Now);
        assert_eq!((probe.pending.len(), probe.writes.now.total), (0, PENDING_MAX as u64));
        assert_eq!(probe.writes.now.counts[bucket_of(400)], PENDING_MAX as u32);
        probe.answered(reads[0], After::NOTHING, (2000, Release::Never));
        assert_eq!((probe.pending.len(), probe.reads.now.total), (0, 0));
    }
}
