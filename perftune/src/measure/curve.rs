//! Where more load brings no more.

use serde::Serialize;

use super::LoadKind;

/// A depth, with what it brings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LoadPoint {
    /// Requests at a time.
    pub depth: u32,
    /// Requests a second.
    pub per_second: f64,
    /// What 99 of 100 took at most, in microseconds.
    pub p99_us: u32,
}

/// What more and more requests at a time bring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadCurve {
    /// What they do.
    pub kind: LoadKind,
    /// The length of each, in bytes.
    pub length: u32,
    /// By depth.
    pub points: Vec<LoadPoint>,
}

/// What a step to twice the length may lose before it counts.
const LOSS: f64 = 0.05;

/// The least depth that has `enough` of the best rate; more only waits longer.
pub fn knee(curve: &[LoadPoint], enough: f64) -> Option<LoadPoint> {
    let best = curve.iter().map(|point| point.per_second).fold(0.0, f64::max);
    let has_enough = |point: &&LoadPoint| point.per_second >= best * enough;
    curve.iter().filter(has_enough).min_by_key(|point| point.depth).copied()
}

/// The largest length up to which requests cost no more than the shortest: what a disk does at
/// once.
pub fn least_gain(points: &[(u32, f64)]) -> Option<u32> {
    let mut points = points.iter();
    let (mut length, mut rate) = *points.next()?;
    for (next, next_rate) in points {
        if *next_rate < rate * (1.0 - LOSS) {
            break;
        }
        (length, rate) = (*next, next_rate.max(rate));
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_the_least_depth_that_is_enough() {
        let point = |depth, per_second| LoadPoint { depth, per_second, p99_us: depth * 10 };
        let curve =
            [point(1, 10.0), point(2, 20.0), point(4, 39.0), point(8, 40.0), point(16, 39.5)];
        assert_eq!(knee(&curve, 0.95).map(|point| point.depth), Some(4));
        assert_eq!(knee(&curve, 0.99).map(|point| point.depth), Some(8));
        assert_eq!(knee(&[], 0.95), None);
    }

    #[test]
    fn the_block_is_the_longest_request_that_costs_no_more() {
        let points = [(512, 100.0), (1024, 99.0), (2048, 101.0), (4096, 100.0), (8192, 52.0)];
        assert_eq!(least_gain(&points), Some(4096));
        assert_eq!(least_gain(&points[4..]), Some(8192));
        assert_eq!(least_gain(&[]), None);
    }
}
