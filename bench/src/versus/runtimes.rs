//! `larder bench runtimes`: the node on its ring and on glommio, side by side.

use std::path::PathBuf;

use clap::Args;

use super::error::VersusError;
use super::server::{LarderOptions, Server};
use super::table::{self, Row};
use super::{VersusArgs, Workbench, say, server_cpu_us};
use crate::load::{OperationSummary, Ratio, Settings};

const SECTION: &str = "runtimes";
const KEYS: u64 = 100_000;
const VALUE_SIZE: usize = 1_000;
const CONNECTIONS: usize = 50;
const RUNTIMES: [&str; 2] = ["ring", "glommio"];

/// `larder bench runtimes`.
#[derive(Args, Clone, Debug)]
pub struct RuntimesArgs {
    /// The processor that the node runs on
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub server_cpu: usize,
    /// The processor that the load generator runs on
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub loader_cpu: usize,
    /// Seconds of each timed run; a fraction is allowed
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub seconds: f64,
    /// How often each measurement is made, alternating between the runtimes
    #[arg(long, value_name = "R", default_value_t = 3)]
    pub rounds: usize,
    /// Where data directories are made and removed; a directory on the disk to be measured
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What is asked of both.
struct Load {
    name: &'static str,
    ratio: Ratio,
    depth: usize,
}

const LOADS: [Load; 4] = [
    Load { name: "get, depth 1", ratio: Ratio { get: 1, set: 0 }, depth: 1 },
    Load { name: "get, depth 16", ratio: Ratio { get: 1, set: 0 }, depth: 16 },
    Load { name: "durable set, depth 1", ratio: Ratio { get: 0, set: 1 }, depth: 1 },
    Load { name: "durable set, depth 16", ratio: Ratio { get: 0, set: 1 }, depth: 16 },
];

/// Measures both runtimes with this program and prints CPU time and latencies with their ratios.
///
/// # Errors
/// A program that was built without glommio, an option that cannot be used, or a node that does not
/// start or answers wrongly.
pub fn measure(args: &RuntimesArgs) -> Result<(), VersusError> {
    if !cfg!(feature = "runtime-glommio") {
        let reason = "this larder was built without glommio; build it with \
                      `cargo build --release --features larder/runtime-glommio`";
        return Err(VersusError::Option { option: "runtimes", reason: reason.to_owned() });
    }
    let larder = std::env::current_exe().map_err(|source| VersusError::File {
        option: "the program's own path",
        path: PathBuf::from("/proc/self/exe"),
        source,
    })?;
    let bench_args = VersusArgs {
        larder,
        memcached: PathBuf::new(),
        server_cpu: args.server_cpu,
        loader_cpu: args.loader_cpu,
        seconds: args.seconds,
        rounds: args.rounds,
        only: Vec::new(),
        data_dir: args.data_dir.clone(),
        disk_keys: KEYS,
        json: PathBuf::new(),
        markdown: PathBuf::new(),
    };
    let bench = Workbench::new(&bench_args)?;
    let servers = [start(&bench, RUNTIMES[0])?, start(&bench, RUNTIMES[1])?];
    for server in &servers {
        bench.fill(server, KEYS, VALUE_SIZE)?;
    }
    let mut rows = Vec::new();
    for load in &LOADS {
        rows.extend(compare(&bench, &servers, load)?);
    }
    println!("larder on its ring, against larder on glommio\n\n{}", table::text(&rows));
    Ok(())
}

fn start(bench: &Workbench<'_>, runtime: &'static str) -> Result<Server, VersusError> {
    Server::larder(&LarderOptions {
        program: &bench.args.larder,
        directory: &bench.new_directory(),
        cpus: &bench.server_cpus(),
        shards: 1,
        memory: "1G",
        durability: "sync",
        runtime: Some(runtime),
    })
}

/// The figures of one runtime, one for each round.
#[derive(Default)]
struct Figures {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

fn compare(
    bench: &Workbench<'_>,
    servers: &[Server; 2],
    load: &Load,
) -> Result<Vec<Row>, VersusError> {
    let what = format!("{}, {VALUE_SIZE} B, {CONNECTIONS} connections", load.name);
    say(&format!("{SECTION}: {what}"));
    let mut figures = [Figures::default(), Figures::default()];
    for _ in 0..bench.args.rounds {
        for (server, figures) in servers.iter().zip(&mut figures) {
            let settings = Settings {
                connections: CONNECTIONS,
                depth: load.depth,
                keys: KEYS,
                value_size: VALUE_SIZE,
                ratio: load.ratio,
                ..bench.settings(server)
            };
            let summary = bench.load(server, &settings)?;
            let latencies: Option<&OperationSummary> =
                summary.get.as_ref().or(summary.set.as_ref());
            let latencies = latencies.ok_or_else(|| server.error("no request was answered"))?;
            figures.cpu.push(server_cpu_us(&summary));
            figures.rate.push(summary.operations_per_second);
            figures.p50.push(latencies.p50_us);
            figures.p99.push(latencies.p99_us);
        }
    }
    let [ring, glommio] = &figures;
    let row = |figure: &str, unit, ring: &[f64], glommio: &[f64]| {
        Row::alone(SECTION, format!("{figure}, {what}"), unit, ring).against("glommio", glommio)
    };
    Ok(vec![
        row("CPU", "us/op", &ring.cpu, &glommio.cpu),
        row("rate", "op/s", &ring.rate, &glommio.rate),
        row("p50", "us", &ring.p50, &glommio.p50),
        row("p99", "us", &ring.p99, &glommio.p99),
    ])
}
