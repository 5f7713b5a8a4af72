//! GETs from RAM on one core: CPU time of the server for each, against memcached.

use super::error::VersusError;
use super::server::Server;
use super::table::{Row, Target};
use super::{Workbench, say, server_cpu_us};
use crate::load::{Protocol, Settings};

const SECTION: &str = "ram";
const KEYS: u64 = 100_000;
const CONNECTIONS: usize = 50;
const VALUE_SIZES: [usize; 2] = [32, 1_000];

/// The node's CPU time over memcached's, at most: with requests one at a time, and pipelined.
const TARGET_ONE: f64 = 0.90;
const TARGET_PIPELINED: f64 = 0.50;

struct Mode {
    name: &'static str,
    protocol: Protocol,
    depth: usize,
    target: f64,
}

const MODES: [Mode; 3] = [
    Mode { name: "get, depth 1", protocol: Protocol::Text, depth: 1, target: TARGET_ONE },
    Mode { name: "mg, depth 1", protocol: Protocol::Meta, depth: 1, target: TARGET_ONE },
    Mode { name: "mg, depth 16", protocol: Protocol::Meta, depth: 16, target: TARGET_PIPELINED },
];

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let mut rows = Vec::new();
    for value_size in VALUE_SIZES {
        let servers = [bench.larder(&bench.new_directory(), "1G")?, bench.memcached()?];
        for server in &servers {
            bench.fill(server, KEYS, value_size)?;
        }
        for mode in &MODES {
            rows.extend(compare(bench, &servers, mode, value_size)?);
        }
    }
    Ok(rows)
}

fn compare(
    bench: &Workbench<'_>,
    servers: &[Server; 2],
    mode: &Mode,
    value_size: usize,
) -> Result<[Row; 2], VersusError> {
    let what = format!("{}, {value_size} B, {CONNECTIONS} connections", mode.name);
    say(&format!("{SECTION}: {what}"));
    let mut cpu = [Vec::new(), Vec::new()];
    let mut rate = [Vec::new(), Vec::new()];
    for _ in 0..bench.args.rounds {
        for (index, server) in servers.iter().enumerate() {
            let settings = Settings {
                connections: CONNECTIONS,
                depth: mode.depth,
                protocol: mode.protocol,
                keys: KEYS,
                value_size,
                ..bench.settings(server)
            };
            let summary = bench.load_hits(server, &settings)?;
            cpu[index].push(server_cpu_us(&summary));
            rate[index].push(summary.operations_per_second);
        }
    }
    Ok([
        Row::alone(SECTION, format!("server CPU, {what}"), "us/op", &cpu[0])
            .against("memcached", &cpu[1])
            .wanted(Target::AtMost(mode.target)),
        Row::alone(SECTION, format!("rate, {what}"), "op/s", &rate[0])
            .against("memcached", &rate[1]),
    ])
}
