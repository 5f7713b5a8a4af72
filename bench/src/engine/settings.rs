//! What an engine run is asked to do, and the limits of what can be asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use larder_engine::memory::ShardMemory;
use larder_engine::value_log::commit::Durability;
use serde::{Serialize, Serializer};

use super::beside::OVERWRITES_IN_FLIGHT;
use super::script::Phase;
use super::{BesideLoad, SpaceBounds};
use crate::error::BenchError;
use crate::load::data::{CHECK_BYTES, KEY_BYTES_MAX, VALUE_BYTES_MAX, key_bytes_min};
use crate::load::{DURATION_MAX, Distribution, KEYS_MAX, Ratio, within};

/// The most operations in flight on a shard.
const CONCURRENCY_MAX: usize = 65_536;

/// The most bytes of values in flight on a shard.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 30;

/// The most shards: their directories' names have three digits.
const SHARDS_MAX: u16 = 999;

/// The longest value that the node takes unless it is told otherwise, in bytes.
const VALUE_BYTES_DEFAULT: usize = 1 << 20;

/// The part of the memory that is not the shards': the program, and what it keeps of each window.
const SHARED_MEMORY_DIVISOR: u64 = 8;

/// The range of a segment's length in bytes: room for the longest value on one side, and the
/// 32 bits of an offset on the other.
const SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);

/// The highest rate that can be asked for, in operations a second.
const RATE_MAX: f64 = 1e9;

/// What is done to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Store every key once, in scattered order
    Fill,
    /// Store every key once, in ascending order
    FillSeq,
    /// Store keys again, chosen by --distribution
    Overwrite,
    /// Read keys, chosen by --distribution
    ReadRandom,
    /// Read keys that were never stored
    ReadMissing,
    /// Read and overwrite keys by --ratio
    Mixed,
    /// Read the whole store in the order of its keys, in pages of 1 MiB that follow each other on
    /// each shard; once, or again and again for --duration
    Scan,
    /// Delete every key once, in scattered order
    Delete,
}

impl Workload {
    /// The workload's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::FillSeq => "fill-seq",
            Self::Overwrite => "overwrite",
            Self::ReadRandom => "read-random",
            Self::ReadMissing => "read-missing",
            Self::Mixed => "mixed",
            Self::Scan => "scan",
            Self::Delete => "delete",
        }
    }

    /// Whether the workload ends by itself, when each key has had its turn.
    pub(super) fn visits_each_key_once(self) -> bool {
        matches!(self, Self::Fill | Self::FillSeq | Self::Delete)
    }

    /// Whether the workload ends by itself.
    pub(super) fn ends_by_itself(self) -> bool {
        self.visits_each_key_once() || self == Self::Scan
    }

    /// Whether the workload works on keys that are there.
    pub(super) fn needs_data(self) -> bool {
        !matches!(self, Self::Fill | Self::FillSeq)
    }
}

/// Which data a workload finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Warm {
    /// Store every key first, which is not measured
    Fill,
    /// Take the data that is in --dir as it is
    Use,
}

/// When a write is acknowledged, as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineDurability(pub Durability);

impl FromStr for EngineDurability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = || text.strip_prefix("interval:")?.parse::<u32>().ok();
        match text {
            "sync" => Ok(Self(Durability::Sync)),
            "none" => Ok(Self(Durability::None)),
            _ => interval()
                .filter(|milliseconds| *milliseconds > 0)
                .map(|milliseconds| Self(Durability::Interval(u64::from(milliseconds) * 1_000_000)))
                .ok_or_else(|| "write sync, interval:<milliseconds> or none".to_owned()),
        }
    }
}

impl fmt::Display for EngineDurability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Durability::Sync => formatter.write_str("sync"),
            Durability::Interval(nanoseconds) => {
                write!(formatter, "interval:{}", nanoseconds / 1_000_000)
            }
            Durability::None => formatter.write_str("none"),
        }
    }
}

impl Serialize for EngineDurability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an engine run does.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// What is done.
    pub workload: Workload,
    /// Bytes of each value.
    pub value_size: usize,
    /// Bytes of each key.
    pub key_size: usize,
    /// How many keys there are.
    pub keys: u64,
    /// Memory of all shards together, in bytes, divided as the node divides it.
    pub memory: u64,
    /// Shards; `None` takes as many as the directory has, or one.
    pub shards: Option<u16>,
    /// When a write counts as done.
    pub durability: EngineDurability,
    /// The run ends after this time; `None` for a workload that ends by itself.
    pub duration: Option<Duration>,
    /// The run also ends after this many operations.
    pub operations: Option<u64>,
    /// Operations a second over all shards; `None` asks for as many as possible.
    pub rate: Option<f64>,
    /// Operations in flight on each shard.
    pub concurrency: usize,
    /// Seconds that each stored item lives.
    pub ttl: Option<u32>,
    /// How keys are chosen.
    pub distribution: Distribution,
    /// Reads to writes of the mixed workload.
    pub ratio: Ratio,
    /// Whether a scan leaves values out.
    pub keys_only: bool,
    /// The seed of all random choices.
    pub seed: u64,
    /// Threads that the shards are spread over; `None` gives each shard one.
    pub threads: Option<usize>,
    /// Processors for the threads, in turn; none leaves them free.
    pub cpus: Vec<usize>,
    /// The store; `None` makes one that is removed afterwards.
    pub directory: Option<PathBuf>,
    /// Which data the workload finds; `None` fills a new store and uses one that is there.
    pub warm: Option<Warm>,
    /// How long the engine is left alone, and watched, after the workload.
    pub settle: Duration,
    /// How many keys are read back after the store was closed and opened again.
    pub verify: Option<u64>,
    /// The standard length of a log segment of a new store, in bytes.
    pub segment_bytes: u64,
    /// What bounds the disk space.
    pub space: SpaceBounds,
    /// The file of what the disk can do; without it only what it is given at once is bounded.
    pub io_properties: Option<PathBuf>,
    /// What goes on beside the workload; both are carried out alone first.
    pub beside: Vec<BesideLoad>,
    /// Overwrites a second beside it, over all shards; `None` makes as many as possible.
    pub beside_rate: Option<f64>,
    /// How long the workload is carried out beforehand without being counted, so that caches are
    /// as full as they get: only for workloads that may visit keys again.
    pub ramp: Duration,
}

impl EngineSettings {
    /// A workload on 100,000 keys of 16 bytes with values of 1,000 bytes, one shard, 1 GiB.
    pub fn for_workload(workload: Workload) -> Self {
        let ends_by_itself = workload.ends_by_itself();
        Self {
            workload,
            value_size: 1_000,
            key_size: 16,
            keys: 100_000,
            memory: 1 << 30,
            shards: None,
            durability: EngineDurability(Durability::Sync),
            duration: (!ends_by_itself).then_some(Duration::from_secs(10)),
            operations: None,
            rate: None,
            concurrency: 256,
            ttl: None,
            distribution: Distribution::Uniform,
            ratio: Ratio { get: 1, set: 1 },
            keys_only: false,
            seed: 1,
            threads: None,
            cpus: Vec::new(),
            directory: None,
            warm: None,
            settle: Duration::ZERO,
            verify: None,
            segment_bytes: 64 << 20,
            space: SpaceBounds::default(),
            io_properties: None,
            beside: Vec::new(),
            beside_rate: None,
            ramp: Duration::ZERO,
        }
    }

    /// Checks every limit and what must hold between settings.
    ///
    /// # Errors
    /// Names the option to change.
    pub fn check(&self) -> Result<(), BenchError> {
        within("--value-size", self.value_size, CHECK_BYTES, VALUE_BYTES_MAX)?;
        if self.keys == 0 || self.keys > KEYS_MAX {
            return Err(BenchError::option("--keys", format!("must be 1 to {KEYS_MAX}")));
        }
        // Keys that were never stored have the numbers after those that were.
        within("--key-size", self.key_size, key_bytes_min(2 * self.keys), KEY_BYTES_MAX)?;
        within("--concurrency", self.concurrency, 1, CONCURRENCY_MAX)?;
        let overwrites = if self.beside.is_empty() { 0 } else { OVERWRITES_IN_FLIGHT };
        let in_flight = self.concurrency + overwrites;
        if in_flight * self.value_size > IN_FLIGHT_BYTES_MAX {
            let reason = format!(
                "{in_flight} values of {} bytes in flight are over {IN_FLIGHT_BYTES_MAX} bytes",
                self.value_size
            );
            return Err(BenchError::option("--concurrency", reason));
        }
        if let Some(shards) = self.shards {
            within("--shards", usize::from(shards), 1, usize::from(SHARDS_MAX))?;
        }
        if !SEGMENT_BYTES_RANGE.contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(1 << 20)
        {
            let reason = "must be whole MiB from 1M to 1G";
            return Err(BenchError::option("--segment-size", reason));
        }
        if self.operations == Some(0) {
            return Err(BenchError::option("--operations", "must be at least 1"));
        }
        if self.verify == Some(0) {
            return Err(BenchError::option("--verify", "must be at least 1"));
        }
        if self.ttl == Some(0) {
            return Err(BenchError::option("--ttl", "must be at least 1 second"));
        }
        self.check_times()?;
        self.check_beside()?;
        self.check_data()
    }

    fn check_beside(&self) -> Result<(), BenchError> {
        let refused = |option, reason: String| Err(BenchError::option(option, reason));
        let is_read = matches!(self.workload, Workload::ReadRandom | Workload::ReadMissing);
        if !self.beside.is_empty() && !is_read {
            return refused("--beside", "is for the workloads read-random and read-missing".into());
        }
        let twice = |load: &BesideLoad| self.beside.iter().filter(|it| *it == load).count() > 1;
        if let Some(load) = self.beside.iter().copied().find(|load| twice(load)) {
            return refused("--beside", format!("{} is given twice", load.name()));
        }
        let Some(rate) = self.beside_rate else { return Ok(()) };
        if !self.beside.contains(&BesideLoad::Overwrite) {
            return refused("--beside-rate", "is for --beside overwrite".into());
        }
        if !(rate > 0.0 && rate <= RATE_MAX) {
            let reason = format!("must be over 0 and at most {RATE_MAX:.0} overwrites a second");
            return refused("--beside-rate", reason);
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), BenchError> {
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
            let reason = format!("must be over 0 and at most {RATE_MAX:.0} operations a second");
            return Err(BenchError::option("--rate", reason));
        }
        let most = format!("must be over 0 and at most {} seconds", DURATION_MAX.as_secs());
        if self.duration.is_some_and(|duration| duration.is_zero() || duration > DURATION_MAX) {
            return Err(BenchError::option("--duration", most));
        }
        if self.settle > DURATION_MAX {
            return Err(BenchError::option("--settle", most));
        }
        Ok(())
    }

    fn check_data(&self) -> Result<(), BenchError> {
        if self.keys_only && self.workload != Workload::Scan {
            return Err(BenchError::option("--keys-only", "is for the workload scan"));
        }
        if self.warm.is_some() && !self.workload.needs_data() {
            let reason = format!("{} stores the data itself", self.workload.name());
            return Err(BenchError::option("--warm", reason));
        }
        if !self.ramp.is_zero() && self.workload.visits_each_key_once() {
            let reason = format!("{} visits each key once", self.workload.name());
            return Err(BenchError::option("--ramp", reason));
        }
        if self.warm == Some(Warm::Use) && self.directory.is_none() {
            return Err(BenchError::option("--warm", "use needs --dir, where the data is"));
        }
        Ok(())
    }

    /// Operations in flight on each shard: pages of a scan follow each other, nothing else does.
    pub(super) fn in_flight_max(&self, phase: Phase) -> usize {
        if matches!(phase, Phase::Background { .. }) {
            return 0;
        }
        let is_scan = self.workload == Workload::Scan && phase.is_workload();
        if is_scan { 1 } else { self.concurrency }
    }

    /// How many threads drive `shards` shards.
    ///
    /// # Errors
    /// More threads than shards.
    pub(super) fn threads_for(&self, shards: u16) -> Result<usize, BenchError> {
        let threads = self.threads.unwrap_or(usize::from(shards));
        within("--threads", threads, 1, usize::from(shards))?;
        Ok(threads)
    }

    /// The memory of each of `shards` shards.
    ///
    /// # Errors
    /// Too little for a shard to work with.
    pub(super) fn shard_memory(&self, shards: u16) -> Result<ShardMemory, BenchError> {
        let each = (self.memory - self.memory / SHARED_MEMORY_DIVISOR) / u64::from(shards);
        let each = usize::try_from(each).unwrap_or(usize::MAX);
        let value_bytes_max = self.value_size.max(VALUE_BYTES_DEFAULT);
        ShardMemory::plan(each, value_bytes_max).ok_or_else(|| {
            let least = ShardMemory::share_min(value_bytes_max) >> 20;
            let reason = format!("each of {shards} shards needs {least} MiB");
            BenchError::option("--memory", reason)
        })
    }

    /// The processor that thread number `index` is kept on.
    pub(super) fn cpu_of_thread(&self, index: usize) -> Option<usize> {
        self.cpus.get(index.checked_rem(self.cpus.len())?).copied()
    }

    /// Bytes of the key and the value of an item.
    pub(super) fn item_bytes(&self) -> u64 {
        (self.key_size + self.value_size) as u64
    }
}
