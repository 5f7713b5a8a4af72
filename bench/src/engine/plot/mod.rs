//! A run as a picture: rate, space and latency over time, in one SVG file that needs nothing else.

mod scale;
mod svg;

use scale::{Scale, TICKS_UPRIGHT};
use svg::{Color, Line, Panel, Svg};

use super::summary::SPACE_FACTOR;
use super::{EngineSummary, WindowSummary};

/// The most points of a line: more than these cannot be told apart on a screen.
const POINTS_MAX: usize = 1_000;

/// Several neighbouring windows drawn as one point.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// The end of the last window, in seconds.
    at: f64,
    /// Mean operations a second.
    rate: f64,
    /// The most space there was, in bytes.
    space: f64,
    live: f64,
    /// The highest of the windows' 99th percentiles, in microseconds; none without operations.
    p99: Option<f64>,
}

/// Draws a run.
pub(crate) fn draw(summary: &EngineSummary) -> String {
    let window = summary.window_milliseconds as f64 / 1e3;
    let points = thin(&summary.windows, window);
    let end = summary.windows.len().max(1) as f64 * window;
    let mut svg = Svg::new(&title(summary), &subtitle(summary), end);
    svg.shade_from((summary.settle_seconds > 0.0).then_some(summary.seconds), "settling");
    rate_panel(&mut svg, &points, summary);
    space_panel(&mut svg, &points, summary.space.segments_allowed_bytes as f64);
    latency_panel(&mut svg, &points);
    svg.finish()
}

fn title(summary: &EngineSummary) -> String {
    format!(
        "larder bench engine: {}, {} keys of {} bytes, {}-byte values",
        summary.workload.name(),
        summary.keys,
        summary.key_size,
        summary.value_size
    )
}

fn subtitle(summary: &EngineSummary) -> String {
    let amplification = summary
        .device
        .write_amplification
        .map_or_else(String::new, |factor| format!(", write amplification {factor:.2}"));
    format!(
        "shards {}, durability {}: {:.0} operations/s, {:.2} us of CPU each{amplification}, longest \
         stall {:.0} ms",
        summary.shards,
        summary.durability,
        summary.operations_per_second,
        summary.cpu_us_per_operation,
        summary.stall.milliseconds
    )
}

fn thin(windows: &[WindowSummary], window_seconds: f64) -> Vec<Point> {
    let together = windows.len().div_ceil(POINTS_MAX).max(1);
    let point = |(index, windows): (usize, &[WindowSummary])| {
        let count = windows.len() as f64;
        let operations: u64 = windows.iter().map(|window| window.operations).sum();
        let busy = windows.iter().filter(|window| window.operations > 0);
        let most = windows.iter().map(|window| window.space_bytes).max().unwrap_or(0);
        Point {
            at: ((index * together) as f64 + count) * window_seconds,
            rate: operations as f64 / (count * window_seconds),
            space: most as f64,
            live: windows.last().map_or(0, |window| window.live_bytes) as f64,
            p99: busy.map(|window| window.p99_us).reduce(f64::max),
        }
    };
    windows.chunks(together).enumerate().map(point).collect()
}

fn series(points: &[Point], value: impl Fn(&Point) -> Option<f64>) -> Vec<Option<(f64, f64)>> {
    points.iter().map(|point| value(point).map(|value| (point.at, value))).collect()
}

fn highest<'a>(lines: impl IntoIterator<Item = &'a Vec<Option<(f64, f64)>>>) -> f64 {
    lines.into_iter().flatten().flatten().map(|(_, value)| *value).fold(0.0, f64::max)
}

fn rate_panel(svg: &mut Svg, points: &[Point], summary: &EngineSummary) {
    // The window in which the workload ended says nothing of its rate, nor do those after it.
    let end = summary.seconds;
    let rate = series(points, |point| (point.at <= end).then_some(point.rate));
    let scale = Scale::linear(highest([&rate]), TICKS_UPRIGHT);
    let mut panel = Panel::new("rate", "operations/s", scale);
    panel.add(Line::solid("rate in windows of 100 ms", Color::Blue, rate).filled());
    if let Some(evenness) = &summary.evenness {
        let half = evenness.mean_per_second / 2.0;
        let half = series(points, |point| (point.at <= end).then_some(half));
        panel.add(Line::dashed("half of the mean", Color::Grey, half));
    }
    svg.add(&panel);
}

fn space_panel(svg: &mut Svg, points: &[Point], segments: f64) {
    let highest_bytes =
        points.iter().map(|point| point.space.max(SPACE_FACTOR * point.live + segments));
    let (unit, divisor) = byte_unit(highest_bytes.fold(0.0, f64::max));
    let space = series(points, |point| Some(point.space / divisor));
    let cap = series(points, |point| Some(SPACE_FACTOR * point.live / divisor));
    let allowed = series(points, |point| Some((SPACE_FACTOR * point.live + segments) / divisor));
    let live = series(points, |point| Some(point.live / divisor));
    let scale = Scale::linear(highest([&space, &allowed]), TICKS_UPRIGHT);
    let mut panel = Panel::new("space", unit, scale);
    panel.add(Line::solid("on disk", Color::Blue, space));
    panel.add(Line::dotted("1.5 x live + 6 segments a shard", Color::Orange, allowed));
    panel.add(Line::dashed("1.5 x live", Color::Orange, cap));
    panel.add(Line::solid("live keys and values", Color::Grey, live));
    svg.add(&panel);
}

fn latency_panel(svg: &mut Svg, points: &[Point]) {
    let p99 = series(points, |point| point.p99.map(|microseconds| microseconds / 1e3));
    let values = || p99.iter().flatten().map(|(_, value)| *value);
    let lowest = values().fold(f64::INFINITY, f64::min);
    let scale = Scale::logarithmic(lowest, values().fold(0.0, f64::max));
    let mut panel = Panel::new("latency", "ms, log scale", scale);
    panel.add(Line::solid("99th percentile", Color::Orange, p99));
    svg.add(&panel);
}

/// The unit in which up to `bytes` are written, and its size.
fn byte_unit(bytes: f64) -> (&'static str, f64) {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let size = |shift: u32| (1u64 << shift) as f64;
    let unit = UNITS.iter().find(|(_, shift)| bytes >= size(*shift));
    unit.map_or(("bytes", 1.0), |(name, shift)| (name, size(*shift)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_thinned_without_losing_its_peaks() {
        let mut windows = vec![
            WindowSummary {
                operations: 10,
                errors: 0,
                space_bytes: 5,
                live_bytes: 4,
                p99_us: 1.0,
            };
            2_500
        ];
        windows[1_001].space_bytes = 99;
        windows[1_001].p99_us = 77.0;
        windows[1_001].operations = 0;
        let points = thin(&windows, 0.1);
        assert_eq!(points.len(), 834);
        assert!((points[333].space - 99.0).abs() < 1e-9);
        assert_eq!(points[333].p99, Some(1.0), "a window without operations has no latency");
        assert!((points[333].rate - 200.0 / 3.0).abs() < 1e-9);
        assert!((points[833].at - 250.0).abs() < 1e-9, "the last point is at the end");
        assert_eq!(thin(&[], 0.1), []);
    }

    #[test]
    fn bytes_have_the_unit_that_keeps_numbers_short() {
        assert_eq!(byte_unit(3e9).0, "GiB");
        assert_eq!(byte_unit(3e6).0, "MiB");
        assert_eq!(byte_unit(100.0), ("bytes", 1.0));
    }
}
