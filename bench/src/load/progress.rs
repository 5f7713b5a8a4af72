//! What is shown while a run goes on: bars on a terminal, a line each second otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::statistics::Statistics;

/// Shows how a run goes on, on stderr.
#[derive(Debug)]
pub struct Progress {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Hidden,
    Lines,
    Terminal { bar: Option<ProgressBar> },
}

impl Progress {
    /// A bar and a changing line if stderr is a terminal, else a line each second.
    pub fn on_stderr() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { kind: if terminal { Kind::Terminal { bar: None } } else { Kind::Lines } }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { kind: Kind::Hidden }
    }

    pub(crate) fn begin_fill(&mut self, keys: u64) {
        if let Kind::Terminal { bar } = &mut self.kind {
            let style = ProgressStyle::with_template(
                "filling {bar:40} {pos}/{len} keys, {per_sec}, {eta} left",
            )
            .expect("the template is well formed");
            *bar = Some(ProgressBar::new(keys).with_style(style));
        }
    }

    pub(crate) fn show_fill(&mut self, stored: u64, keys: u64) {
        match &self.kind {
            Kind::Hidden => {}
            Kind::Lines => eprintln!("filling: {stored} of {keys} keys"),
            Kind::Terminal { bar } => {
                if let Some(bar) = bar {
                    bar.set_position(stored);
                }
            }
        }
    }

    pub(crate) fn end_fill(&mut self) {
        self.clear();
    }

    pub(super) fn show_interval(
        &mut self,
        interval: &Statistics,
        time: Duration,
        elapsed: Duration,
    ) {
        self.show_line(interval_line(interval, time, elapsed));
    }

    /// Shows a line that takes the place of the one before on a terminal.
    pub(crate) fn show_line(&mut self, line: String) {
        match &mut self.kind {
            Kind::Hidden => {}
            Kind::Lines => eprintln!("{line}"),
            Kind::Terminal { bar } => {
                let bar = bar.get_or_insert_with(|| {
                    let style = ProgressStyle::with_template("{msg}");
                    ProgressBar::new_spinner()
                        .with_style(style.expect("the template is well formed"))
                });
                bar.set_message(line);
                bar.tick();
            }
        }
    }

    /// Takes the bar off the terminal, so that what follows starts on a clean line.
    fn clear(&mut self) {
        if let Kind::Terminal { bar } = &mut self.kind
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn interval_line(interval: &Statistics, time: Duration, elapsed: Duration) -> String {
    let rate = interval.operations() as f64 / time.as_secs_f64().max(1e-9);
    let hits = interval
        .hit_ratio()
        .map_or_else(String::new, |ratio| format!(", {:.1} % hits", ratio * 100.0));
    let errors = match interval.errors_total() {
        0 => String::new(),
        count => format!(", {count} errors"),
    };
    let p99 = interval.p99().as_secs_f64() * 1e6;
    format!(
        "{:5.0} s: {rate:.0} operations/s{hits}, p99 {p99:.0} us{errors}",
        elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::super::encoder::Operation;
    use super::super::statistics::ErrorKind;
    use super::*;

    #[test]
    fn a_line_tells_rate_hits_latency_and_errors() {
        let mut interval = Statistics::new();
        for _ in 0..4 {
            interval.record(Operation::Get, Duration::from_nanos(120_000));
        }
        (interval.hits, interval.misses) = (3, 1);
        let half = Duration::from_millis(500);
        let line = interval_line(&interval, half, Duration::from_secs(7));
        assert_eq!(line, "    7 s: 8 operations/s, 75.0 % hits, p99 120 us");
        interval.fail(ErrorKind::ServerError, || "SERVER_ERROR".to_owned());
        assert!(interval_line(&interval, half, half).ends_with("us, 1 errors"));
    }
}
