//! The figures of a finished run, as JSON and as text.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::statistics::{ErrorKind, Statistics};
use super::{Protocol, Settings};
use crate::process::ProcessSample;

/// What a run was asked for and what came of it. Rates count answered operations; errors are apart.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The server's address.
    pub target: String,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub depth: usize,
    /// The loader's threads.
    pub threads: usize,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of each key.
    pub key_size: usize,
    /// Bytes of each value.
    pub value_size: usize,
    /// GETs to SETs.
    pub ratio: String,
    /// How keys were chosen.
    pub distribution: String,
    /// The commands that were sent.
    pub protocol: Protocol,
    /// The seed of all random choices.
    pub seed: u64,
    /// The fill, if there was one.
    pub fill: Option<FillSummary>,
    /// Seconds from the start to the last answer.
    pub seconds: f64,
    /// Answered operations.
    pub operations: u64,
    /// Answered operations per second.
    pub operations_per_second: f64,
    /// The answered GETs, if any.
    pub get: Option<OperationSummary>,
    /// The answered SETs, if any.
    pub set: Option<OperationSummary>,
    /// GETs that found their key.
    pub hits: u64,
    /// GETs that did not.
    pub misses: u64,
    /// Hits over GETs, if there were GETs.
    pub hit_ratio: Option<f64>,
    /// Errors by kind; kinds that did not occur are left out.
    pub errors: Vec<ErrorSummary>,
    /// Answers that were not the value of their key.
    pub wrong_values: u64,
    /// Connections that did not last.
    pub connections_lost: usize,
    /// Processor time of the loader for each answered operation, in microseconds.
    pub loader_cpu_us_per_operation: f64,
    /// The server process, if its id was given.
    pub server: Option<ServerSummary>,
}

/// Answered operations of one kind; latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct OperationSummary {
    /// How many.
    pub count: u64,
    /// How many in a second.
    pub per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Errors of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorSummary {
    /// The kind's name.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
    /// The text of the first.
    pub first: String,
}

/// The fill before the timed run.
#[derive(Clone, Debug, Serialize)]
pub struct FillSummary {
    /// Keys to be stored.
    pub keys: u64,
    /// Keys that were stored.
    pub stored: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Errors by kind.
    pub errors: Vec<ErrorSummary>,
}

/// The server process over the timed run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerSummary {
    /// Processor time used, in seconds; a multiple of a clock tick, usually 10 ms.
    pub cpu_seconds: f64,
    /// Processor time for each answered operation, in microseconds.
    pub cpu_us_per_operation: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// The most that was ever resident, in bytes.
    pub resident_peak_bytes: u64,
}

/// The raw results of which a [`Summary`] is made.
pub(super) struct Measured<'a> {
    pub(super) settings: &'a Settings,
    pub(super) statistics: &'a Statistics,
    pub(super) elapsed: Duration,
    pub(super) loader_cpu: Duration,
    /// The server process before and after the timed run.
    pub(super) server: Option<(ProcessSample, ProcessSample)>,
    pub(super) fill: Option<FillSummary>,
}

impl Summary {
    pub(super) fn new(measured: Measured<'_>) -> Self {
        let Measured { settings, statistics, elapsed, .. } = measured;
        let operations = statistics.operations();
        Self {
            target: settings.target.to_string(),
            connections: settings.connections,
            depth: settings.depth,
            threads: settings.threads,
            keys: settings.keys,
            key_size: settings.key_size,
            value_size: settings.value_size,
            ratio: format!("{}:{}", settings.ratio.get, settings.ratio.set),
            distribution: settings.distribution.to_string(),
            protocol: settings.protocol,
            seed: settings.seed,
            fill: measured.fill,
            seconds: elapsed.as_secs_f64(),
            operations,
            operations_per_second: per_second(operations, elapsed),
            get: OperationSummary::new(&statistics.get, elapsed),
            set: OperationSummary::new(&statistics.set, elapsed),
            hits: statistics.hits,
            misses: statistics.misses,
            hit_ratio: statistics.hit_ratio(),
            errors: error_summaries(statistics),
            wrong_values: statistics.error(ErrorKind::WrongValue).count,
            connections_lost: statistics.connections_lost,
            loader_cpu_us_per_operation: us_per_operation(measured.loader_cpu, operations),
            server: measured.server.map(|(before, after)| {
                let cpu = after.cpu.saturating_sub(before.cpu);
                ServerSummary {
                    cpu_seconds: cpu.as_secs_f64(),
                    cpu_us_per_operation: us_per_operation(cpu, operations),
                    resident_bytes: after.resident_bytes,
                    resident_peak_bytes: after.resident_peak_bytes,
                }
            }),
        }
    }
}

impl OperationSummary {
    /// Of `latencies` in nanoseconds, measured over `elapsed`; `None` if there are none.
    pub(crate) fn new(latencies: &Histogram<u64>, elapsed: Duration) -> Option<Self> {
        let quantile = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!latencies.is_empty()).then(|| Self {
            count: latencies.len(),
            per_second: per_second(latencies.len(), elapsed),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: latencies.max() as f64 / 1e3,
        })
    }
}

impl FillSummary {
    pub(super) fn new(keys: u64, statistics: &Statistics, elapsed: Duration) -> Self {
        Self {
            keys,
            stored: statistics.operations(),
            seconds: elapsed.as_secs_f64(),
            errors: error_summaries(statistics),
        }
    }
}

fn error_summaries(statistics: &Statistics) -> Vec<ErrorSummary> {
    let of_kind = |kind: ErrorKind| {
        let error = statistics.error(kind);
        let first = error.first.clone().unwrap_or_default();
        (error.count > 0).then(|| ErrorSummary { kind: kind.name(), count: error.count, first })
    };
    ErrorKind::ALL.into_iter().filter_map(of_kind).collect()
}

pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

pub(crate) fn us_per_operation(cpu: Duration, operations: u64) -> f64 {
    if operations == 0 { 0.0 } else { cpu.as_secs_f64() * 1e6 / operations as f64 }
}

/// The summary as a person reads it, several lines with a line feed at the end.
pub fn render(summary: &Summary) -> String {
    let mut lines = Lines::default();
    lines.add(format!(
        "{} connections x {} in flight, {} threads, {} keys of {} bytes ({}), {}-byte values, \
         GET:SET {}",
        summary.connections,
        summary.depth,
        summary.threads,
        summary.keys,
        summary.key_size,
        summary.distribution,
        summary.value_size,
        summary.ratio,
    ));
    if let Some(fill) = &summary.fill {
        lines.add(format!("fill: {} of {} keys in {:.2} s", fill.stored, fill.keys, fill.seconds));
        lines.errors("fill error", &fill.errors);
    }
    lines.add(format!(
        "{} operations in {:.2} s: {:.0} operations/s",
        summary.operations, summary.seconds, summary.operations_per_second
    ));
    for (name, operation) in [("GET", &summary.get), ("SET", &summary.set)] {
        if let Some(operation) = operation {
            lines.operation(name, operation);
        }
    }
    if let Some(ratio) = summary.hit_ratio {
        lines
            .add(format!("hits {}, misses {}, hit ratio {ratio:.4}", summary.hits, summary.misses));
    }
    lines.add(format!("loader CPU {:.3} us/operation", summary.loader_cpu_us_per_operation));
    if let Some(server) = &summary.server {
        lines.add(format!(
            "server CPU {:.3} us/operation ({:.2} s); memory {:.1} MiB, peak {:.1} MiB",
            server.cpu_us_per_operation,
            server.cpu_seconds,
            mebibytes(server.resident_bytes),
            mebibytes(server.resident_peak_bytes),
        ));
    }
    lines.errors("error", &summary.errors);
    lines.text
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, line: impl std::fmt::Display) {
        writeln!(self.text, "{line}").expect("a string takes every text");
    }

    fn operation(&mut self, name: &str, operation: &OperationSummary) {
        self.add(format!(
            "{name}: {:.0}/s, latency us p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}",
            operation.per_second,
            operation.p50_us,
            operation.p90_us,
            operation.p99_us,
            operation.p999_us,
            operation.max_us,
        ));
    }

    fn errors(&mut self, title: &str, errors: &[ErrorSummary]) {
        for error in errors {
            self.add(format!("{title}: {} x {}, first: {}", error.count, error.kind, error.first));
        }
    }
}
