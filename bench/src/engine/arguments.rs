//! The command line of `larder bench engine`, and its way into checked [`EngineSettings`].

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{BesideLoad, EngineDurability, EngineSettings, SpaceBounds, Warm, Workload};
use crate::arguments::CpuList;
use crate::error::BenchError;
use crate::load::{Distribution, Ratio};

const ENGINE_HELP: &str = "\
Example: overwrite 100,000 keys for a minute with GC under way, and look at rate, space and latency
  larder bench engine --workload overwrite --keys 100000 --value-size 1000 --memory 1G \\
      --duration 60 --settle 10 --verify --json run.json --plot run.svg

How the load is made:
  Without --rate the loop is closed: --concurrency operations are in flight on each shard, and the
  next begins when one ends. With --rate it is open: operations are due at even distances whether or
  not earlier ones have ended, and latency counts from the moment at which one was due.
  A write has ended when its durability mode acknowledges it.

How values are checked:
  A value follows from its key and version, and versions count up with every overwrite. Whatever is
  read is compared as a whole with the version that must be there; a wrong, lost or revived value
  makes the command fail. Of data that was there before, any version is right until it is known. Of
  a scan the number of items and the lengths of values are looked at, to leave the processor to it.

What is counted:
  Live bytes are those of keys and values. Space is the blocks of all files in the directory. Bytes
  written and read are those of the engine's disk requests, from the workload's start to the end of
  --settle; write amplification is bytes written over bytes of keys and values stored.
  A stall is a time in which no operation ended although some were due.";

/// `larder bench engine`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ENGINE_HELP)]
pub struct EngineArgs {
    /// What to do
    #[arg(long, value_name = "NAME", value_enum)]
    pub workload: Workload,
    /// Bytes of each value
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub value_size: usize,
    /// Bytes of each key
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub key_size: usize,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keys: u64,
    /// Memory for all shards: bytes, or a number with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub memory: u64,
    /// Shards of a new store [default: 1]
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// When a write has ended: `sync`, `interval:<ms>` or `none`
    #[arg(long, value_name = "MODE", default_value = "sync")]
    pub durability: EngineDurability,
    /// Seconds of the workload; fill, fill-seq, delete and scan end by themselves, the first three
    /// before it
    /// [default: 10, or until they have]
    #[arg(long, value_name = "S")]
    pub duration: Option<f64>,
    /// Stop after this many operations, even if --duration is not over
    #[arg(long, value_name = "N")]
    pub operations: Option<u64>,
    /// Operations that are due in a second, over all shards [default: as many as possible]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Operations in flight on each shard
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub concurrency: usize,
    /// Seconds that each stored item lives [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u32>,
    /// How keys are chosen: `uniform`, or `zipf:THETA` (0.99 is usual), scattered over all keys
    #[arg(long, value_name = "NAME", default_value = "uniform")]
    pub distribution: Distribution,
    /// How many reads to how many stores, for the mixed workload
    #[arg(long, value_name = "GET:SET", default_value = "1:1")]
    pub ratio: Ratio,
    /// Leave the values out of a scan
    #[arg(long)]
    pub keys_only: bool,
    /// Seed of all random choices; the same seed makes the same operations
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Threads that the shards are spread over [default: one for each shard]
    #[arg(long, value_name = "T")]
    pub threads: Option<usize>,
    /// Keep the threads on these processors, for example 1 or 2,4-7
    #[arg(long, value_name = "LIST", default_value = "")]
    pub cpu: CpuList,
    /// The store [default: a fresh folder here, which is removed afterwards]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Which data the workload finds [default: fill a new store, use one that is there]
    #[arg(long, value_name = "MODE", value_enum)]
    pub warm: Option<Warm>,
    /// Leave the engine alone for so many seconds after the workload, and watch it
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub settle: f64,
    /// Close the store, open it again and read so many keys back at the end [default: none]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000",
        require_equals = true)]
    pub verify: Option<u64>,
    /// Length of a log segment of a new store
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub segment_size: u64,
    /// What bounds the disk space.
    #[command(flatten)]
    pub space: SpaceBounds,
    /// File with what the disk can do, by which the shards' requests share it (`larder iotune`)
    /// [default: only what the disk is given at once is bounded]
    #[arg(long, value_name = "FILE")]
    pub io_properties: Option<PathBuf>,
    /// Carry the workload out alone, these loads alone, and both together, and compare
    #[arg(long, value_name = "LOAD,...", value_enum, value_delimiter = ',')]
    pub beside: Vec<BesideLoad>,
    /// Overwrites a second beside the workload, over all shards [default: as many as possible]
    #[arg(long, value_name = "N")]
    pub beside_rate: Option<f64>,
    /// Carry the workload out for so many seconds beforehand, which are not counted, so that the
    /// caches are full
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    pub ramp: f64,
    /// Write the figures to this file as JSON, with one entry for each 100 ms
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw rate, space and latency over time into this file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// A number of bytes as people write it.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wanted = || format!("`{text}` is no size; write bytes, or a number with K, M, G or T");
    let unit = text.chars().last().map_or(0, |letter| match letter.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => 0,
    });
    let digits = if unit == 0 { text } else { &text[..text.len() - 1] };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { digits.parse::<u64>().ok() } else { None };
    number.and_then(|number| number.checked_mul(1 << unit)).ok_or_else(wanted)
}

impl EngineArgs {
    /// The arguments as checked settings.
    pub(crate) fn settings(&self) -> Result<EngineSettings, BenchError> {
        let seconds = |option, value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| BenchError::option(option, "must be seconds, for example 10"))
        };
        let duration = self.duration.map(|duration| seconds("--duration", duration)).transpose()?;
        let settings = EngineSettings {
            value_size: self.value_size,
            key_size: self.key_size,
            keys: self.keys,
            memory: self.memory,
            shards: self.shards,
            durability: self.durability,
            operations: self.operations,
            rate: self.rate,
            concurrency: self.concurrency,
            ttl: self.ttl,
            distribution: self.distribution,
            ratio: self.ratio,
            keys_only: self.keys_only,
            seed: self.seed,
            threads: self.threads,
            cpus: self.cpu.0.clone(),
            directory: self.dir.clone(),
            warm: self.warm,
            settle: seconds("--settle", self.settle)?,
            verify: self.verify,
            segment_bytes: self.segment_size,
            space: self.space.clone(),
            io_properties: self.io_properties.clone(),
            beside: self.beside.clone(),
            beside_rate: self.beside_rate,
            ramp: seconds("--ramp", self.ramp)?,
            ..EngineSettings::for_workload(self.workload)
        };
        let settings = EngineSettings { duration: duration.or(settings.duration), ..settings };
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use larder_engine::value_log::commit::Durability;

    use super::*;
    use crate::engine::space_bounds::SpaceCap;
    use crate::{BenchArgs, BenchCommand};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn settings(arguments: &[&str]) -> Result<EngineSettings, String> {
        let line = ["bench", "engine"].iter().chain(arguments);
        let command = Command::try_parse_from(line).map_err(|error| error.to_string())?;
        let BenchCommand::Engine(engine) = command.bench.command else {
            panic!("the command is engine")
        };
        engine.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_reaches_the_settings() {
        let all = "--workload mixed --value-size 64 --key-size 20 --keys 500 --memory 256M \
                   --shards 4 --durability interval:50 --duration 0.5 --operations 900 --rate 1000 \
                   --concurrency 8 --ttl 60 --distribution zipf:0.99 --ratio 3:2 --seed 9 \
                   --threads 2 --cpu 0,2-4 --dir d --warm use --settle 2 --verify=77 \
                   --segment-size 16M --recovery-log 8M --max-space-amp 1.25 --disk-limit 3G \
                   --gc-rate 5M --io-properties io.toml --ramp 1.5";
        let settings = settings(&all.split_whitespace().collect::<Vec<_>>()).expect("accepted");
        let expected = EngineSettings {
            workload: Workload::Mixed,
            value_size: 64,
            key_size: 20,
            keys: 500,
            memory: 256 << 20,
            shards: Some(4),
            durability: EngineDurability(Durability::Interval(50_000_000)),
            duration: Some(Duration::from_millis(500)),
            operations: Some(900),
            rate: Some(1_000.0),
            concurrency: 8,
            ttl: Some(60),
            distribution: Distribution::Zipf { theta: 0.99 },
            ratio: Ratio { get: 3, set: 2 },
            keys_only: false,
            seed: 9,
            threads: Some(2),
            cpus: vec![0, 2, 3, 4],
            directory: Some(PathBuf::from("d")),
            warm: Some(Warm::Use),
            settle: Duration::from_secs(2),
            verify: Some(77),
            segment_bytes: 16 << 20,
            space: SpaceBounds {
                recovery_log: 8 << 20,
                max_space_amp: SpaceCap(Some(125)),
                disk_limit: Some(3 << 30),
                gc_rate: Some(5 << 20),
            },
            io_properties: Some(PathBuf::from("io.toml")),
            beside: Vec::new(),
            beside_rate: None,
            ramp: Duration::from_millis(1_500),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_workload_that_ends_by_itself_has_no_time_limit_unless_asked_for() {
        let duration = |arguments: &[&str]| settings(arguments).expect("accepted").duration;
        assert_eq!(duration(&["--workload", "fill"]), None);
        let limited = duration(&["--workload", "fill", "--duration", "3"]);
        assert_eq!(limited, Some(Duration::from_secs(3)));
        assert_eq!(duration(&["--workload", "scan"]), None);
        assert!(settings(&["--workload", "scan", "--keys-only"]).expect("accepted").keys_only);
        assert!(settings(&["--workload", "fill", "--keys-only"]).is_err());
        assert_eq!(duration(&["--workload", "overwrite"]), Some(Duration::from_secs(10)));
        let verify = settings(&["--workload", "fill", "--verify"]).expect("accepted").verify;
        assert_eq!(verify, Some(10_000));
    }

    #[test]
    fn durability_modes_are_read_and_written() {
        for text in ["sync", "none", "interval:250"] {
            assert_eq!(text.parse::<EngineDurability>().expect("a mode").to_string(), text);
        }
        for text in ["", "Sync", "interval", "interval:0", "interval:-1", "interval:x"] {
            assert!(text.parse::<EngineDurability>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("0", 0), ("1023", 1023), ("1k", 1024), ("64M", 64 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5G", "1GB", "99999999999T", "1Ö"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_option() {
        for (arguments, option) in [
            (&["--workload", "shuffle"][..], "--workload"),
            (&["--value-size", "7"], "--value-size"),
            (&["--value-size", "999999999"], "--value-size"),
            (&["--key-size", "6"], "--key-size"),
            (&["--key-size", "251"], "--key-size"),
            (&["--keys", "0"], "--keys"),
            (&["--keys", "9999999999"], "--keys"),
            (&["--memory", "1GB"], "--memory"),
            (&["--shards", "0"], "--shards"),
            (&["--shards", "1000"], "--shards"),
            (&["--durability", "often"], "--durability"),
            (&["--duration", "0"], "--duration"),
            (&["--duration", "nan"], "--duration"),
            (&["--operations", "0"], "--operations"),
            (&["--rate", "0"], "--rate"),
            (&["--rate", "nan"], "--rate"),
            (&["--concurrency", "0"], "--concurrency"),
            (&["--concurrency", "2000", "--value-size", "1000000"], "--concurrency"),
            (&["--ttl", "0"], "--ttl"),
            (&["--distribution", "normal"], "--distribution"),
            (&["--ratio", "0:0"], "--ratio"),
            (&["--cpu", "4-2"], "--cpu"),
            (&["--warm", "use"], "--warm"),
            (&["--warm", "fill"], "--warm"),
            (&["--settle=-1"], "--settle"),
            (&["--verify=0"], "--verify"),
            (&["--segment-size", "1000"], "--segment-size"),
            (&["--segment-size", "2G"], "--segment-size"),
            (&["--recovery-log", "1M"], "--recovery-log"),
            (&["--max-space-amp", "1.05"], "--max-space-amp"),
            (&["--disk-limit", "some"], "--disk-limit"),
            (&["--gc-rate", "x"], "--gc-rate"),
            (&["--beside", "fill"], "--beside"),
            (&["--beside", "scan"], "--beside"),
        ] {
            let fill = ["--workload", "fill"];
            let all: Vec<&str> = if option == "--workload" {
                arguments.to_vec()
            } else {
                fill.iter().chain(arguments).copied().collect()
            };
            let text = settings(&all).expect_err("refused");
            assert!(text.contains(option), "{arguments:?}: {text}");
        }
        assert!(settings(&[]).expect_err("no workload").contains("--workload"));
    }

    #[test]
    fn loads_beside_a_workload_are_for_reads() {
        let read = ["--workload", "read-random", "--rate", "100"];
        let with = |more: &[&str]| settings(&[&read[..], more].concat());
        let both = with(&["--beside", "scan,overwrite", "--beside-rate", "50"]).expect("accepted");
        assert_eq!(both.beside, [BesideLoad::Scan, BesideLoad::Overwrite]);
        assert_eq!(both.beside_rate, Some(50.0));
        for (more, option) in [
            (&["--beside", "scan,scan"][..], "--beside"),
            (&["--beside-rate", "5"], "--beside-rate"),
            (&["--beside", "scan", "--beside-rate", "5"], "--beside-rate"),
            (&["--beside", "overwrite", "--beside-rate", "0"], "--beside-rate"),
        ] {
            let text = with(more).expect_err("refused");
            assert!(text.contains(option), "{more:?}: {text}");
        }
    }

    #[test]
    fn what_depends_on_the_store_is_checked_once_it_is_known() {
        let settings = EngineSettings {
            threads: Some(3),
            memory: 64 << 20,
            ..EngineSettings::for_workload(Workload::Fill)
        };
        assert_eq!(settings.threads_for(4).expect("fewer than shards"), 3);
        let error = settings.threads_for(2).expect_err("more than shards").to_string();
        assert!(error.contains("--threads"), "{error}");
        assert_eq!(settings.shard_memory(2).expect("enough").total(), 28 << 20);
        let error = settings.shard_memory(5).expect_err("too little").to_string();
        assert!(error.contains("--memory"), "{error}");
    }
}
