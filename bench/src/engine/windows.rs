//! A run in windows of 100 ms: what each thread counts, put together by time.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::statistics::latencies;

/// The length of a window.
pub(super) const WINDOW: Duration = Duration::from_millis(100);

const WINDOW_NANOSECONDS: u64 = WINDOW.as_nanos() as u64;

/// What one thread did in one window.
#[derive(Clone, Debug)]
pub(super) struct WindowPart {
    pub(super) index: usize,
    pub(super) errors: u64,
    /// Of completed operations, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
}

/// Counts one thread's operations by window. Times are nanoseconds since the start.
#[derive(Debug)]
pub(super) struct WindowRecorder {
    index: usize,
    errors: u64,
    latencies: Histogram<u64>,
}

impl WindowRecorder {
    pub(super) fn new() -> Self {
        Self { index: 0, errors: 0, latencies: latencies() }
    }

    /// Ends the window that `now` is no longer in, and hands it out; `None` while it is.
    pub(super) fn roll(&mut self, now: u64) -> Option<WindowPart> {
        let index = usize::try_from(now / WINDOW_NANOSECONDS).unwrap_or(usize::MAX);
        (index > self.index).then(|| self.end(index))
    }

    /// Ends the window and goes on with number `next`.
    pub(super) fn end(&mut self, next: usize) -> WindowPart {
        let index = std::mem::replace(&mut self.index, next);
        let errors = std::mem::take(&mut self.errors);
        let latencies = std::mem::replace(&mut self.latencies, latencies());
        WindowPart { index, errors, latencies }
    }

    pub(super) fn completed(&mut self, latency: u64) {
        self.latencies.saturating_record(latency);
    }

    pub(super) fn failed(&mut self) {
        self.errors += 1;
    }
}

/// One window over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WindowSummary {
    /// Operations completed in it.
    pub operations: u64,
    /// Operations that failed in it.
    pub errors: u64,
    /// Bytes that the directory's files had on disk at its end.
    pub space_bytes: u64,
    /// Bytes of the keys and values that were there at its end.
    pub live_bytes: u64,
    /// 99th percentile of the latencies of operations completed in it, in microseconds.
    pub p99_us: f64,
}

/// A window that threads still add to.
struct OpenWindow {
    errors: u64,
    latencies: Histogram<u64>,
}

/// Puts the threads' windows together.
pub(super) struct WindowMerger {
    windows: Vec<WindowSummary>,
    /// Windows that not every thread has passed yet.
    open: VecDeque<OpenWindow>,
    /// The window that each thread is in.
    reached: Vec<usize>,
    /// All latencies of the run.
    total: Histogram<u64>,
    errors: u64,
}

impl WindowMerger {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            windows: Vec::new(),
            open: VecDeque::new(),
            reached: vec![0; threads],
            total: latencies(),
            errors: 0,
        }
    }

    /// Adds what thread number `thread` did in a window; windows come in order.
    pub(super) fn add(&mut self, thread: usize, part: &WindowPart) {
        let offset = part.index.checked_sub(self.windows.len());
        let offset = offset.expect("no thread adds to a window that all have passed");
        while self.open.len() <= offset {
            self.open.push_back(OpenWindow { errors: 0, latencies: latencies() });
        }
        let window = &mut self.open[offset];
        window.errors += part.errors;
        window.latencies.add(&part.latencies).expect("the bounds are the same");
        self.errors += part.errors;
        self.total.add(&part.latencies).expect("the bounds are the same");
        self.reached[thread] = part.index + 1;
        self.close_passed();
    }

    /// Thread number `thread` adds no more.
    pub(super) fn thread_ended(&mut self, thread: usize) {
        self.reached[thread] = usize::MAX;
        self.close_passed();
    }

    fn close_passed(&mut self) {
        let passed = self.reached.iter().copied().min().unwrap_or(0);
        while self.windows.len() < passed {
            let Some(window) = self.open.pop_front() else { break };
            self.windows.push(window.summary());
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.total.len()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    /// 99th percentile of the last window that all threads have passed, in microseconds.
    pub(super) fn latest_p99_us(&self) -> f64 {
        self.windows.last().map_or(0.0, |window| window.p99_us)
    }

    /// Ends the run: all windows, and all latencies.
    pub(super) fn finish(mut self) -> (Vec<WindowSummary>, Histogram<u64>) {
        let rest = self.open.iter().map(OpenWindow::summary);
        self.windows.extend(rest);
        (self.windows, self.total)
    }
}

impl OpenWindow {
    fn summary(&self) -> WindowSummary {
        WindowSummary {
            operations: self.latencies.len(),
            errors: self.errors,
            p99_us: self.latencies.value_at_quantile(0.99) as f64 / 1e3,
            ..WindowSummary::default()
        }
    }
}

/// How even a run was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evenness {
    /// Windows that lie in the run as a whole.
    pub windows: usize,
    /// Operations a second over them.
    pub mean_per_second: f64,
    /// Windows with less than half of the mean.
    pub windows_under_half: usize,
    /// When the window with the fewest operations began, in seconds since the start.
    pub worst_at_seconds: f64,
    /// Operations a second in it.
    pub worst_per_second: f64,
}

impl Evenness {
    /// Of the windows that end within `elapsed`; `None` if there are none.
    pub(super) fn of(windows: &[WindowSummary], elapsed: Duration) -> Option<Self> {
        let whole = usize::try_from(elapsed.as_nanos() / WINDOW.as_nanos()).unwrap_or(usize::MAX);
        let windows = &windows[..whole.min(windows.len())];
        let counts = || windows.iter().map(|window| window.operations);
        let (worst, fewest) = counts().enumerate().min_by_key(|(_, count)| *count)?;
        let mean = counts().sum::<u64>() as f64 / windows.len() as f64;
        let window_seconds = WINDOW.as_secs_f64();
        Some(Self {
            windows: windows.len(),
            mean_per_second: mean / window_seconds,
            windows_under_half: counts().filter(|count| (*count as f64) < mean / 2.0).count(),
            worst_at_seconds: worst as f64 * window_seconds,
            worst_per_second: fewest as f64 / window_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_recorder_puts_operations_into_the_window_of_their_end() {
        let mut recorder = WindowRecorder::new();
        recorder.completed(5);
        assert!(recorder.roll(99 * MILLISECOND).is_none());
        recorder.completed(7);
        recorder.failed();
        let part = recorder.roll(350 * MILLISECOND).expect("the first window is over");
        assert_eq!((part.index, part.errors, part.latencies.len()), (0, 1, 2));
        recorder.completed(9);
        let part = recorder.roll(400 * MILLISECOND).expect("another is");
        assert_eq!((part.index, part.errors, part.latencies.len()), (3, 0, 1));
    }

    fn part(index: usize, operations: u64, latency: u64) -> WindowPart {
        let mut latencies = latencies();
        latencies.saturating_record_n(latency, operations);
        WindowPart { index, errors: 1, latencies }
    }

    #[test]
    fn windows_of_several_threads_are_put_together_by_time() {
        let mut merger = WindowMerger::new(2);
        merger.add(0, &part(0, 10, 1_000));
        merger.add(0, &part(1, 20, 1_000));
        merger.add(0, &part(4, 40, 1_000));
        merger.add(1, &part(0, 1, 500_000));
        merger.add(1, &part(2, 3, 500_000));
        assert_eq!((merger.operations(), merger.errors()), (74, 5));
        merger.thread_ended(1);
        assert!(merger.open.is_empty(), "nothing is kept of windows that all have passed");
        let (windows, total) = merger.finish();
        let operations: Vec<u64> = windows.iter().map(|window| window.operations).collect();
        assert_eq!(operations, [11, 20, 3, 0, 40]);
        assert_eq!([windows[0].errors, windows[1].errors, windows[3].errors], [2, 1, 0]);
        assert!((windows[0].p99_us - 500.0).abs() < 1.0, "the slow one of eleven");
        assert!((windows[1].p99_us - 1.0).abs() < 0.01);
        assert_eq!(total.len(), 74);
    }

    fn of_counts(counts: &[u64], elapsed_ms: u64) -> Option<Evenness> {
        let window = |&operations| WindowSummary { operations, ..WindowSummary::default() };
        let windows: Vec<_> = counts.iter().map(window).collect();
        Evenness::of(&windows, Duration::from_millis(elapsed_ms))
    }

    #[test]
    fn windows_under_half_of_the_mean_are_counted_and_the_worst_is_named() {
        // The mean is 100; 50 is half and not under it; the last window is cut off.
        let evenness = of_counts(&[150, 50, 200, 0, 100, 100, 9], 690).expect("windows");
        assert_eq!((evenness.windows, evenness.windows_under_half), (6, 1));
        assert!((evenness.mean_per_second - 1_000.0).abs() < 1e-9);
        assert!((evenness.worst_at_seconds - 0.3).abs() < 1e-9);
        assert!(evenness.worst_per_second.abs() < 1e-9);
        assert_eq!(of_counts(&[5, 5], 99), None, "no window lies in the run as a whole");
        let short = of_counts(&[5], 1_000).expect("a thread may say nothing of the last windows");
        assert_eq!(short.windows, 1);
    }
}
