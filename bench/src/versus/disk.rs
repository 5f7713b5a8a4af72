//! More data than memory: device reads for each GET, and whether the memory limit holds.

use super::error::VersusError;
use super::metrics;
use super::server::Server;
use super::table::{Row, Target};
use super::{Workbench, say};
use crate::load::Settings;

const SECTION: &str = "disk";
const VALUE_SIZE: usize = 1_000;
const CONNECTIONS: usize = 50;
const WARM_UP_GETS: u64 = 100_000;

/// The node's memory limit, as its option takes it and in MiB.
const MEMORY: &str = "256M";
const MEMORY_MEBIBYTES: f64 = 256.0;

/// Device reads for each GET, at most.
const TARGET_READS: f64 = 1.1;

/// The most resident memory over the limit.
const TARGET_MEMORY: f64 = 1.1;

/// The node's counter of device reads, and the series of those that a client waits for.
const DISK_READS: (&str, &[(&str, &str)]) = ("larder_disk_reads_total", &[("class", "read")]);

/// The node's counter of operations, and the series of GETs.
const GETS: (&str, &[(&str, &str)]) = ("larder_operations_total", &[("operation", "get")]);

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let keys = bench.args.disk_keys;
    let server = bench.larder(&bench.new_directory(), MEMORY)?;
    bench.fill(&server, keys, VALUE_SIZE)?;
    let filled = peak_mebibytes(&server)?;
    let settings = Settings {
        connections: CONNECTIONS,
        keys,
        value_size: VALUE_SIZE,
        ..bench.settings(&server)
    };
    say(&format!("{SECTION}: uniform GETs of {keys} keys"));
    let counted = bench.counted_settings(&server, WARM_UP_GETS);
    let (duration, operations) = (counted.duration, counted.operations);
    let warm_up = Settings { duration, operations, ..settings.clone() };
    bench.load_hits(&server, &warm_up)?;
    let mut reads_per_get = Vec::new();
    let mut rate = Vec::new();
    let mut p99 = Vec::new();
    for round in 0..bench.args.rounds {
        let before = Counters::read(&server)?;
        // Another seed in each round: the same keys again would be found in RAM.
        let seed = settings.seed + 1 + round as u64;
        let summary = bench.load_hits(&server, &Settings { seed, ..settings.clone() })?;
        reads_per_get.push(Counters::read(&server)?.reads_per_get_since(&before, &server)?);
        rate.push(summary.operations_per_second);
        p99.extend(summary.get.map(|get| get.p99_us));
    }
    let peak = peak_mebibytes(&server)?;
    let what = format!("uniform GETs, {keys} keys of {VALUE_SIZE} B, --memory {MEMORY}");
    let memory = |when: &str, mebibytes: f64| {
        Row::alone(SECTION, format!("peak memory, {when}"), "MiB", &[mebibytes])
            .against("--memory", &[MEMORY_MEBIBYTES])
            .wanted(Target::AtMost(TARGET_MEMORY))
    };
    Ok(vec![
        Row::alone(SECTION, format!("device reads, {what}"), "/GET", &reads_per_get)
            .wanted(Target::AtMost(TARGET_READS)),
        Row::alone(SECTION, format!("rate, {what}, {CONNECTIONS} connections"), "op/s", &rate),
        Row::alone(SECTION, format!("p99, {what}, {CONNECTIONS} connections"), "us", &p99),
        memory("fill", filled),
        memory("fill and reads", peak),
    ])
}

fn peak_mebibytes(server: &Server) -> Result<f64, VersusError> {
    Ok(server.sample()?.resident_peak_bytes as f64 / f64::from(1 << 20))
}

/// The node's counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Counters {
    disk_reads: f64,
    gets: f64,
}

impl Counters {
    fn read(server: &Server) -> Result<Self, VersusError> {
        let text = metrics::fetch(server.admin()?).map_err(|reason| server.error(reason))?;
        let value = |(name, labels): (&str, &[(&str, &str)])| {
            metrics::value(&text, name, labels)
                .ok_or_else(|| server.error(format!("/metrics has no {name} with {labels:?}")))
        };
        Ok(Self { disk_reads: value(DISK_READS)?, gets: value(GETS)? })
    }

    fn reads_per_get_since(&self, before: &Self, server: &Server) -> Result<f64, VersusError> {
        let gets = self.gets - before.gets;
        if gets <= 0.0 {
            return Err(server.error("/metrics counted no GETs"));
        }
        Ok((self.disk_reads - before.disk_reads) / gets)
    }
}
