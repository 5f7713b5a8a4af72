//! `larder-versus`: the node and memcached, measured in the same run on the same machine.
//!
//! Each section starts the servers that it needs, drives them with this crate's load generator and
//! gives rows for one table. Rounds alternate between what is compared, so that a machine that
//! grows slower or faster meanwhile does so for both; the table shows medians with their spread.

mod disk;
mod durable;
mod error;
mod fio;
mod idle;
mod machine;
mod metrics;
mod ram;
mod ready;
mod runtimes;
mod server;
mod start;
mod table;
mod two;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use tempfile::TempDir;

pub use error::VersusError;
pub use runtimes::{RuntimesArgs, measure as measure_runtimes};

use crate::host;
use crate::load::{self, Progress, Settings, Summary};
use machine::Circumstances;
use server::{LarderOptions, MemcachedOptions, Server};
use table::{Row, Verdict};

/// The longest that a run with a fixed number of operations may take.
const COUNTED_RUN_MAX: Duration = Duration::from_secs(600);

const AFTER_HELP: &str = "\
Example:
  cargo build --release && target/release/larder-versus --only ram --seconds 3

Targets are printed beside the figures with `pass` or `fail`; a missed target does not change the
exit code, a section without figures does. Needs memcached, fio, and util-linux's taskset and
setpriv. The servers listen on 127.0.0.1 alone and end with this program.";

/// Measures the node against memcached, and prints a table of figures, ratios and targets
#[derive(Parser, Clone, Debug)]
#[command(name = "larder-versus", version, after_help = AFTER_HELP)]
pub struct VersusArgs {
    /// The node's program
    #[arg(long, value_name = "PATH", default_value = "target/release/larder")]
    pub larder: PathBuf,
    /// The memcached to compare with
    #[arg(long, value_name = "PATH", default_value = "memcached")]
    pub memcached: PathBuf,
    /// The processor that servers run on
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub server_cpu: usize,
    /// The processor that the load generator runs on
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub loader_cpu: usize,
    /// Seconds of each timed run; a fraction is allowed
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,
    /// How often each measurement is made, alternating between what is compared
    #[arg(long, value_name = "R", default_value_t = 3)]
    pub rounds: usize,
    /// Measure only these sections
    #[arg(long, value_name = "SECTION", value_enum, value_delimiter = ',')]
    pub only: Vec<Section>,
    /// Where data directories are made and removed; a directory on the disk to be measured
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keys of 1,000 bytes in the sections `disk` and `start`
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub disk_keys: u64,
    /// Write all figures to this file as JSON
    #[arg(long, value_name = "FILE", default_value = "target/larder-versus.json")]
    pub json: PathBuf,
    /// Write the table to this file as Markdown
    #[arg(long, value_name = "FILE", default_value = "target/larder-versus.md")]
    pub markdown: PathBuf,
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// CPU time per GET from RAM, one core, against memcached
    Ram,
    /// Durable SETs: group commit, and one client against the bare device
    Durable,
    /// Device reads per GET and memory, with more data than RAM
    Disk,
    /// Two cores against memcached's two threads
    Two,
    /// CPU time with a thousand idle connections
    Idle,
    /// Time to start on nothing, and after a kill with data
    Start,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Durable => "durable",
            Self::Disk => "disk",
            Self::Two => "two",
            Self::Idle => "idle",
            Self::Start => "start",
        }
    }

    fn measure(self, bench: &Workbench<'_>) -> Result<Vec<Row>, VersusError> {
        match self {
            Self::Ram => ram::measure(bench),
            Self::Durable => durable::measure(bench),
            Self::Disk => disk::measure(bench),
            Self::Two => two::measure(bench),
            Self::Idle => idle::measure(bench),
            Self::Start => start::measure(bench),
        }
    }
}

/// Measures what is asked for, prints the table on stdout, and writes both result files.
///
/// # Errors
/// An unusable option or an unwritable file; and, after all sections were tried and the results
/// written, sections that gave no figures.
pub fn run(args: &VersusArgs) -> Result<(), VersusError> {
    let bench = Workbench::new(args)?;
    let sections = match &args.only[..] {
        [] => Section::value_variants(),
        only => only,
    };
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for section in sections {
        match section.measure(&bench) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                eprintln!("{}: {error}", section.name());
                failed.push(section.name());
            }
        }
    }
    let circumstances = Circumstances::look_up(&args.larder, &args.memcached);
    println!("{}\n\n{}", circumstances.line(), table::text(&rows));
    write_results(args, &circumstances, &rows)?;
    if failed.is_empty() { Ok(()) } else { Err(VersusError::Sections(failed)) }
}

/// The JSON file: all that is needed to repeat and to judge the figures.
#[derive(Serialize)]
struct Results<'a> {
    circumstances: &'a Circumstances,
    seconds: f64,
    rounds: usize,
    rows: Vec<JudgedRow<'a>>,
}

#[derive(Serialize)]
struct JudgedRow<'a> {
    #[serde(flatten)]
    row: &'a Row,
    ratio: Option<f64>,
    verdict: Option<Verdict>,
}

fn write_results(
    args: &VersusArgs,
    circumstances: &Circumstances,
    rows: &[Row],
) -> Result<(), VersusError> {
    let judged = |row| JudgedRow { row, ratio: row.ratio(), verdict: row.verdict() };
    let results = Results {
        circumstances,
        seconds: args.seconds,
        rounds: args.rounds,
        rows: rows.iter().map(judged).collect(),
    };
    let json = serde_json::to_string_pretty(&results).expect("results are plain data");
    let markdown = format!(
        "{}.\nMedian (lowest-highest) of {} rounds of {} s: `{}`\n\n{}",
        circumstances.line(),
        args.rounds,
        args.seconds,
        circumstances.command,
        table::markdown(rows)
    );
    write_file("--json", &args.json, &json)?;
    write_file("--markdown", &args.markdown, &markdown)
}

fn write_file(option: &'static str, path: &Path, text: &str) -> Result<(), VersusError> {
    let write = || {
        if let Some(parent) = path.parent() {
            host::create_dir(parent)?;
        }
        host::write_text(path, text)
    };
    write().map_err(|source| VersusError::File { option, path: path.to_owned(), source })
}

/// What the sections share: the arguments, a directory for data, ways to start and load servers.
struct Workbench<'a> {
    args: &'a VersusArgs,
    duration: Duration,
    directory: TempDir,
    /// How many directories were handed out.
    directories: Cell<u32>,
}

impl<'a> Workbench<'a> {
    fn new(args: &'a VersusArgs) -> Result<Self, VersusError> {
        let refuse =
            |option, reason: &str| Err(VersusError::Option { option, reason: reason.to_owned() });
        let duration = match Duration::try_from_secs_f64(args.seconds) {
            Ok(duration) if !duration.is_zero() => duration,
            _ => return refuse("--seconds", "must be over 0"),
        };
        if args.rounds == 0 {
            return refuse("--rounds", "must be at least 1");
        }
        if args.server_cpu > host::CPU_MAX || args.loader_cpu > host::CPU_MAX {
            return refuse("--server-cpu, --loader-cpu", "no such processor");
        }
        // Servers inherit the limit; if it cannot be raised, the idle section says what it lacks.
        let _ = host::raise_descriptor_limit();
        let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let make = || {
            host::create_dir(&parent)?;
            tempfile::Builder::new().prefix("larder-versus-").tempdir_in(&parent)
        };
        let directory = make().map_err(|source| VersusError::File {
            option: "--data-dir",
            path: parent.clone(),
            source,
        })?;
        Ok(Self { args, duration, directory, directories: Cell::new(0) })
    }

    /// A path for a new directory.
    fn new_directory(&self) -> PathBuf {
        let number = self.directories.get();
        self.directories.set(number + 1);
        self.directory.path().join(number.to_string())
    }

    fn server_cpus(&self) -> String {
        self.args.server_cpu.to_string()
    }

    /// The server's and the loader's processor, for sections that use both for the server.
    fn both_cpus(&self) -> String {
        format!("{},{}", self.args.server_cpu, self.args.loader_cpu)
    }

    /// Starts a node with one shard on the server's processor, on the data in `directory`.
    fn larder(&self, directory: &Path, memory: &str) -> Result<Server, VersusError> {
        Server::larder(&LarderOptions {
            program: &self.args.larder,
            directory,
            cpus: &self.server_cpus(),
            shards: 1,
            memory,
            durability: "sync",
            runtime: None,
        })
    }

    /// Starts memcached with one thread on the server's processor.
    fn memcached(&self) -> Result<Server, VersusError> {
        Server::memcached(&MemcachedOptions {
            program: &self.args.memcached,
            directory: &self.new_directory(),
            cpus: &self.server_cpus(),
            threads: 1,
        })
    }

    /// A load of this server for the time of one run, on the loader's processor.
    fn settings(&self, server: &Server) -> Settings {
        Settings {
            duration: self.duration,
            cpus: vec![self.args.loader_cpu],
            server_pid: Some(server.pid()),
            ..Settings::against(server.address())
        }
    }

    /// A load of this server for a number of operations, however long they take.
    fn counted_settings(&self, server: &Server, operations: u64) -> Settings {
        Settings {
            duration: COUNTED_RUN_MAX,
            operations: Some(operations),
            ..self.settings(server)
        }
    }

    /// Stores every key and waits until the server is idle.
    fn fill(&self, server: &Server, keys: u64, value_size: usize) -> Result<(), VersusError> {
        say(&format!("{}: storing {keys} values of {value_size} bytes", server.name()));
        let settings = Settings {
            connections: 50,
            keys,
            value_size,
            fill: true,
            // The timed run that follows a fill is cut down to a look at the values.
            ..self.counted_settings(server, keys.min(1_000))
        };
        let summary = self.load(server, &settings)?;
        let stored = summary.fill.map_or(0, |fill| fill.stored);
        if stored != keys || summary.misses > 0 {
            let missing = summary.misses;
            let reason = format!("{stored} of {keys} keys stored, {missing} missing after that");
            return Err(server.error(reason));
        }
        server.settle()
    }

    /// Runs one load; any error or wrong value in it is an error here.
    fn load(&self, server: &Server, settings: &Settings) -> Result<Summary, VersusError> {
        let summary = load::measure(settings, &mut Progress::hidden())
            .map_err(|error| server.error(error.to_string()))?;
        let fill_errors = summary.fill.iter().flat_map(|fill| &fill.errors);
        if let Some(error) = summary.errors.iter().chain(fill_errors).next() {
            let reason = format!("{} x {}, first: {}", error.count, error.kind, error.first);
            return Err(server.error(reason));
        }
        Ok(summary)
    }

    /// Runs one load of GETs whose keys must all be there.
    fn load_hits(&self, server: &Server, settings: &Settings) -> Result<Summary, VersusError> {
        let summary = self.load(server, settings)?;
        if summary.misses > 0 || summary.hits == 0 {
            let reason = format!("{} hits, {} misses", summary.hits, summary.misses);
            return Err(server.error(reason));
        }
        Ok(summary)
    }
}

/// Processor time of the server for each operation, in microseconds.
fn server_cpu_us(summary: &Summary) -> f64 {
    summary.server.as_ref().expect("runs here have a server process").cpu_us_per_operation
}

/// Tells on stderr what is being done; a comparison takes minutes.
fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> VersusArgs {
        let words = std::iter::once("larder-versus").chain(line.split_whitespace());
        VersusArgs::try_parse_from(words).expect("accepted")
    }

    #[test]
    fn sections_can_be_chosen() {
        assert_eq!(arguments("").only, []);
        let chosen = arguments("--only ram,disk --only start").only;
        assert_eq!(chosen, [Section::Ram, Section::Disk, Section::Start]);
        for section in Section::value_variants() {
            let name = section.to_possible_value().expect("not hidden");
            assert_eq!(name.get_name(), section.name());
        }
    }

    #[test]
    fn unusable_options_are_named() {
        for (line, option) in [
            ("--seconds 0", "--seconds"),
            ("--seconds nan", "--seconds"),
            ("--rounds 0", "--rounds"),
            ("--server-cpu 99999", "--server-cpu"),
        ] {
            let error = Workbench::new(&arguments(line)).err().expect("refused").to_string();
            assert!(error.starts_with(option), "{error}");
        }
    }

    #[test]
    fn a_section_that_fails_is_named_and_the_results_are_still_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let args = VersusArgs {
            larder: "/nonexistent/larder".into(),
            data_dir: Some(path("data")),
            json: path("results/versus.json"),
            markdown: path("results/versus.md"),
            ..arguments("--only idle,start")
        };
        let error = run(&args).expect_err("no larder").to_string();
        assert_eq!(error, "sections without a result: idle, start");
        let json = host::read_text(&args.json).expect("written");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["rows"], serde_json::json!([]));
        assert_eq!(json["rounds"], 3);
        assert!(host::read_text(&args.markdown).expect("written").contains("| measurement |"));
    }
}
