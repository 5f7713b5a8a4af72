//! Durable SETs: what group commit gives to many clients, and what one client pays over the bare
//! device.

use super::error::VersusError;
use super::server::Server;
use super::table::{Row, Target};
use super::{Workbench, fio, say};
use crate::host;
use crate::load::{Ratio, Settings, Summary};

const SECTION: &str = "durable";
const KEYS: u64 = 100_000;
const VALUE_SIZE: usize = 1_000;
const CLIENTS: usize = 64;

/// The rate of [`CLIENTS`] clients over the rate of one, at least.
const TARGET_GROUP: f64 = 8.0;

/// One client's median latency over a bare write and flush, at most.
const TARGET_LATENCY: f64 = 1.5;

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let fio_directory = bench.new_directory();
    host::create_dir(&fio_directory).map_err(|source| VersusError::File {
        option: "--data-dir",
        path: fio_directory.clone(),
        source,
    })?;
    let server = bench.larder(&bench.new_directory(), "1G")?;
    let mut one_rate = Vec::new();
    let mut many_rate = Vec::new();
    let mut one_p50 = Vec::new();
    let mut device = Vec::new();
    for round in 1..=bench.args.rounds {
        say(&format!("{SECTION}: SET, {VALUE_SIZE} B, 1 and {CLIENTS} clients, round {round}"));
        let one = store(bench, &server, 1)?;
        one_rate.push(one.operations_per_second);
        one_p50.push(median_us(&server, &one)?);
        let (args, seconds) = (bench.args, bench.duration.as_secs_f64());
        device.push(fio::write_and_flush_us(&fio_directory, args.server_cpu, seconds)?);
        many_rate.push(store(bench, &server, CLIENTS)?.operations_per_second);
    }
    let rate = format!("rate of durable SETs, {VALUE_SIZE} B, {CLIENTS} clients");
    let latency = format!("p50 of durable SETs, {VALUE_SIZE} B, 1 client");
    Ok(vec![
        Row::alone(SECTION, rate, "op/s", &many_rate)
            .against("larder, 1 client", &one_rate)
            .wanted(Target::AtLeast(TARGET_GROUP)),
        Row::alone(SECTION, latency, "us", &one_p50)
            .against("fio, 4 KiB write + flush", &device)
            .wanted(Target::AtMost(TARGET_LATENCY)),
    ])
}

fn store(bench: &Workbench<'_>, server: &Server, clients: usize) -> Result<Summary, VersusError> {
    let settings = Settings {
        connections: clients,
        keys: KEYS,
        value_size: VALUE_SIZE,
        ratio: Ratio { get: 0, set: 1 },
        ..bench.settings(server)
    };
    bench.load(server, &settings)
}

fn median_us(server: &Server, summary: &Summary) -> Result<f64, VersusError> {
    let set = summary.set.as_ref().ok_or_else(|| server.error("no SET was answered in time"))?;
    Ok(set.p50_us)
}
