//! Two cores: two shards against memcached's two threads, with the loader on the same cores.

use super::error::VersusError;
use super::server::{LarderOptions, MemcachedOptions, Server};
use super::table::Row;
use super::{Workbench, say, server_cpu_us};
use crate::load::Settings;

const SECTION: &str = "two";
const KEYS: u64 = 100_000;
const CONNECTIONS: usize = 50;
const CORES: usize = 2;
const VALUE_SIZE: usize = 32;
const DEPTHS: [usize; 2] = [1, 16];

pub(super) fn measure(bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
    let cpus = bench.both_cpus();
    let larder = Server::larder(&LarderOptions {
        program: &bench.args.larder,
        directory: &bench.new_directory(),
        cpus: &cpus,
        shards: CORES,
        memory: "1G",
        durability: "sync",
        runtime: None,
    })?;
    let memcached = Server::memcached(&MemcachedOptions {
        program: &bench.args.memcached,
        directory: &bench.new_directory(),
        cpus: &cpus,
        threads: CORES,
    })?;
    let servers = [larder, memcached];
    for server in &servers {
        bench.fill(server, KEYS, VALUE_SIZE)?;
    }
    let mut rows = Vec::new();
    for depth in DEPTHS {
        rows.extend(compare(bench, &servers, depth)?);
    }
    Ok(rows)
}

fn compare(
    bench: &Workbench<'_>,
    servers: &[Server; 2],
    depth: usize,
) -> Result<[Row; 2], VersusError> {
    let what = format!("mg, depth {depth}, {VALUE_SIZE} B, {CORES} cores shared with the loader");
    say(&format!("{SECTION}: {what}"));
    let mut cpu = [Vec::new(), Vec::new()];
    let mut rate = [Vec::new(), Vec::new()];
    for _ in 0..bench.args.rounds {
        for (index, server) in servers.iter().enumerate() {
            let settings = Settings {
                connections: CONNECTIONS,
                depth,
                threads: CORES,
                keys: KEYS,
                value_size: VALUE_SIZE,
                cpus: Vec::new(),
                ..bench.settings(server)
            };
            let summary = bench.load_hits(server, &settings)?;
            cpu[index].push(server_cpu_us(&summary));
            rate[index].push(summary.operations_per_second);
        }
    }
    Ok([
        Row::alone(SECTION, format!("server CPU, {what}"), "us/op", &cpu[0])
            .against("memcached", &cpu[1]),
        Row::alone(SECTION, format!("rate, {what}"), "op/s", &rate[0])
            .against("memcached", &rate[1]),
    ])
}
