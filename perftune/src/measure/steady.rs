//! What rate a disk keeps up, and how sure that is.

/// A rate that was found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SteadyRate {
    /// Requests a second that are kept up.
    pub per_second: f64,
    /// The standard deviation of the parts that were counted, in percent of it.
    pub spread_percent: f64,
    /// The rate of the beginning, if it was not kept up.
    pub burst_per_second: Option<f64>,
}

/// One of so many parts at the beginning is not counted: queues fill, and clocks rise.
const WARM_UP: usize = 8;
/// A later rate below this share of an earlier one is a fall.
const FALL: f64 = 0.8;

/// The rate that parts of a load tell of, in their order; `None` if nothing was done, or a part is
/// no number.
pub fn steady_rate(rates: &[f64]) -> Option<SteadyRate> {
    rate_behind(rates, fall)
}

/// The same of a load that is too short to tell a slow moment at its end from a fall.
pub fn even_rate(rates: &[f64]) -> Option<SteadyRate> {
    rate_behind(rates, |_| 0)
}

/// The rate behind the place that `start` finds.
fn rate_behind(rates: &[f64], start: impl Fn(&[f64]) -> usize) -> Option<SteadyRate> {
    let is_rate = |rate: &f64| rate.is_finite() && *rate >= 0.0;
    if rates.is_empty() || !rates.iter().all(is_rate) {
        return None;
    }
    let rates = &rates[rates.len() / WARM_UP..];
    let (before, after) = rates.split_at(start(rates));
    let per_second = mean(after);
    if per_second <= 0.0 {
        return None;
    }
    let variance = mean(&after.iter().map(|rate| (rate - per_second).powi(2)).collect::<Vec<_>>());
    let spread_percent = variance.sqrt() / per_second * 100.0;
    let is_fall = !before.is_empty() && per_second < mean(before) * FALL;
    let burst_per_second = is_fall.then(|| mean(before));
    Some(SteadyRate { per_second, spread_percent, burst_per_second })
}

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

/// Where the rates fall and do not rise again: the place at which the means before and behind
/// differ most, if it is a fall. A quarter of the parts is behind it at least, so that one slow
/// moment is none; nor is a disk that stands still at the end, which says nothing of its rate.
fn fall(rates: &[f64]) -> usize {
    let splits = 2..=rates.len() - rates.len().div_ceil(4);
    let difference = |split: &usize| mean(&rates[..*split]) - mean(&rates[*split..]);
    let steepest = splits.max_by(|left, right| difference(left).total_cmp(&difference(right)));
    let is_fall = |split: &usize| {
        let rate = mean(&rates[*split..]);
        rate > 0.0 && rate < mean(&rates[..*split]) * FALL
    };
    steepest.filter(is_fall).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_from_what_is_kept_up() {
        let mut rates = vec![500.0; 12];
        rates.extend([100.0; 20]);
        let found = steady_rate(&rates).expect("a rate");
        assert_eq!((found.per_second, found.burst_per_second), (100.0, Some(500.0)));
        assert_eq!(found.spread_percent, 0.0);
        let even = steady_rate(&[100.0; 16]).expect("a rate");
        assert_eq!((even.per_second, even.burst_per_second), (100.0, None));
    }

    #[test]
    fn one_slow_moment_is_no_burst() {
        let mut rates = vec![100.0; 32];
        rates[31] = 10.0;
        let found = steady_rate(&rates).expect("a rate");
        assert_eq!(found.burst_per_second, None);
        assert!(found.per_second > 95.0 && found.spread_percent > 10.0, "{found:?}");
    }

    #[test]
    fn a_halt_at_the_end_is_no_fall() {
        let mut rates = vec![100.0; 16];
        rates[12..].fill(0.0);
        let found = steady_rate(&rates).expect("a rate");
        assert!(found.per_second > 50.0 && found.burst_per_second.is_none(), "{found:?}");
        rates[12..].fill(10.0);
        assert_eq!(steady_rate(&rates).map(|rate| rate.per_second), Some(10.0));
        let even = even_rate(&rates).expect("a rate");
        assert!(even.per_second > 50.0 && even.burst_per_second.is_none(), "{even:?}");
    }

    #[test]
    fn the_beginning_is_not_counted() {
        let mut rates = vec![1.0, 1.0];
        rates.extend([100.0; 14]);
        assert_eq!(steady_rate(&rates).expect("a rate").per_second, 100.0);
    }

    #[test]
    fn nonsense_is_no_rate() {
        for rates in [&[][..], &[0.0; 16], &[f64::NAN; 16], &[-1.0; 16], &[f64::INFINITY]] {
            assert_eq!(steady_rate(rates), None, "{rates:?}");
        }
        assert_eq!(steady_rate(&[5.0]).map(|rate| rate.per_second), Some(5.0));
    }
}
