//! What is counted while a load runs: requests by slices of time, and how long each took.

use hdrhistogram::Histogram;

use crate::measure::LoadSample;

/// Parts of the time that a sample has.
const PARTS: u64 = 32;
const PARTS_MIN: u64 = 8;
/// A part is this long at least if there are more than the fewest, in nanoseconds.
const PART_NANOSECONDS: u64 = 10_000_000;
/// A load goes on until so many requests that count have ended.
const REQUESTS_MIN: u64 = 32;
/// The longest latency that is told from longer ones, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// The count of one load. All times are in nanoseconds from its beginning.
pub(super) struct LoadTally {
    duration: u64,
    /// How much longer the load may go on for want of requests.
    extension: u64,
    slice: u64,
    slices: Vec<u64>,
    latencies: Histogram<u64>,
    /// Slices at the beginning that do not count.
    warm_up: usize,
    end: Option<u64>,
}

impl LoadTally {
    /// Of a load of so many milliseconds, which may take so many more if few requests have ended.
    pub(super) fn new(milliseconds: u32, more_milliseconds: u32) -> Self {
        let duration = u64::from(milliseconds.max(1)) * 1_000_000;
        let parts = (duration / PART_NANOSECONDS).clamp(PARTS_MIN, PARTS);
        let latencies = Histogram::new_with_bounds(1_000, LATENCY_MAX, 2);
        Self {
            duration,
            extension: u64::from(more_milliseconds) * 1_000_000,
            slice: duration / parts,
            slices: Vec::new(),
            latencies: latencies.expect("the bounds are far apart"),
            warm_up: (parts / PARTS_MIN) as usize,
            end: None,
        }
    }

    /// Whether no more requests are to begin. A slow disk is given more time than was asked for,
    /// because a few requests say nothing, nor do those at the beginning.
    pub(super) fn is_over(&mut self, now: u64) -> bool {
        if self.end.is_none() && now >= self.duration {
            let whole = usize::try_from(now / self.slice).unwrap_or(usize::MAX);
            let counted = self.slices.iter().take(whole).skip(self.warm_up).sum::<u64>();
            let is_late = now >= self.duration + self.extension;
            self.end = (counted >= REQUESTS_MIN || is_late).then_some(now);
        }
        self.end.is_some()
    }

    /// Notes the end of a request; returns whether it is the first of its slice.
    pub(super) fn note(&mut self, now: u64, latency: u64) -> bool {
        self.latencies.saturating_record(latency);
        let most = (self.duration + self.extension) / self.slice;
        let index = usize::try_from((now / self.slice).min(most)).unwrap_or(usize::MAX);
        let is_first = index >= self.slices.len();
        if is_first {
            self.slices.resize(index + 1, 0);
        }
        self.slices[index] += 1;
        is_first
    }

    /// What was found. The slices are put together to at most as many parts as a sample has; what
    /// ended after the end does not count.
    pub(super) fn sample(&self, reads: u64, writes: u64) -> LoadSample {
        let end = self.end.unwrap_or(0).max(self.duration);
        let whole = usize::try_from(end / self.slice).unwrap_or(usize::MAX);
        let mut slices = self.slices.clone();
        slices.resize(whole, 0);
        let together = slices.len().div_ceil(PARTS as usize).max(1);
        let seconds = (self.slice * together as u64) as f64 / 1e9;
        let rate = |part: &[u64]| part.iter().sum::<u64>() as f64 / seconds;
        let p99_us = self.latencies.value_at_quantile(0.99).div_ceil(1_000);
        LoadSample {
            rates: slices.chunks_exact(together).map(rate).collect(),
            reads_per_write: reads as f64 / writes.max(1) as f64,
            p99_us: u32::try_from(p99_us).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn an_even_load_has_even_rates() {
        let mut tally = LoadTally::new(640, 10_000);
        for request in 0..6_400 {
            let now = request * MILLISECOND / 10;
            assert!(!tally.is_over(now));
            tally.note(now, 300_000);
        }
        assert!(tally.is_over(640 * MILLISECOND));
        tally.note(641 * MILLISECOND, 300_000);
        let sample = tally.sample(10, 5);
        assert_eq!(sample.rates, vec![10_000.0; 32]);
        assert_eq!(sample.reads_per_write, 2.0);
        assert!((300..=305).contains(&sample.p99_us), "{}", sample.p99_us);
    }

    #[test]
    fn a_slow_disk_is_given_more_time() {
        let mut tally = LoadTally::new(8, 10_000);
        let mut now = 0;
        while !tally.is_over(now) {
            now += 5 * MILLISECOND;
            tally.note(now, 5 * MILLISECOND);
        }
        assert_eq!(now, 165 * MILLISECOND, "until 32 requests are in whole slices");
        let sample = tally.sample(32, 0);
        assert!((8..=32).contains(&sample.rates.len()), "{:?}", sample.rates);
        let mean = sample.rates.iter().sum::<f64>() / sample.rates.len() as f64;
        assert!((180.0..=200.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_halt_behind_the_beginning_is_waited_for() {
        let mut tally = LoadTally::new(8, 10_000);
        for _ in 0..64 {
            tally.note(MILLISECOND / 2, 500_000);
        }
        // The thread did not run, and all that had ended meanwhile is seen late.
        for _ in 0..64 {
            tally.note(9 * MILLISECOND, 8 * MILLISECOND);
        }
        assert!(!tally.is_over(9 * MILLISECOND));
        assert!(tally.is_over(10 * MILLISECOND));
        let rates = tally.sample(128, 0).rates;
        assert!(rates[1..].iter().sum::<f64>() > 0.0, "{rates:?}");
    }

    #[test]
    fn a_dead_disk_ends_the_load_and_has_no_rate() {
        let mut tally = LoadTally::new(8, 10_000);
        assert!(!tally.is_over(10_000 * MILLISECOND));
        assert!(tally.is_over(10_008 * MILLISECOND));
        assert!(tally.sample(0, 0).rates.iter().all(|rate| *rate == 0.0));
    }
}
