//! The options that bound a run's disk space, with the meaning that they have for the node.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use larder_engine::shard::ShardOptions;
use larder_runtime::disk_budget::DiskBudget;
use serde::{Serialize, Serializer};

use super::arguments::size;
use crate::error::BenchError;
use crate::host;

/// The least log that a start may have to replay, in bytes, as the node asks for it.
const RECOVERY_LOG_MIN: u64 = 4 << 20;

/// The range of the cap in hundredths, as the node has it.
const CAP_RANGE: std::ops::RangeInclusive<u32> = 110..=10_000;

/// What bounds the disk space of all shards together.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpaceBounds {
    /// Log that a start may have to replay, of all shards
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = recovery_log)]
    pub recovery_log: u64,
    /// How much larger than what lives the files may be, at least 1.1; `none` collects nothing
    /// while there is disk space, and frees only segments in which nothing lives
    #[arg(long, value_name = "FACTOR", default_value = "1.5")]
    pub max_space_amp: SpaceCap,
    /// Disk space of all shards [default: all there is]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub disk_limit: Option<u64>,
    /// Bytes a second at which garbage is collected at most [default: as fast as is needed]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub gc_rate: Option<u64>,
}

impl Default for SpaceBounds {
    fn default() -> Self {
        let max_space_amp = SpaceCap(Some(150));
        Self { recovery_log: 256 << 20, max_space_amp, disk_limit: None, gc_rate: None }
    }
}

impl SpaceBounds {
    /// The disk space of a store that is about to be opened.
    pub(super) fn budget(&self) -> Arc<DiskBudget> {
        DiskBudget::new(self.disk_limit)
    }

    /// Sets what concerns one shard of as many as the options are for.
    pub(super) fn apply(&self, options: &mut ShardOptions) {
        let share = |bytes: u64| (bytes / u64::from(options.shards)).max(1);
        let (recovery_log, collect) = (share(self.recovery_log), self.gc_rate.map(share));
        options.recovery_log_bytes = recovery_log;
        options.collect_bytes_per_second = collect;
        options.space_amplification_percent = self.max_space_amp.0.unwrap_or(u32::MAX);
    }

    /// Checks that what is in `directory` fits.
    ///
    /// # Errors
    /// The directory holds more than the limit, or cannot be read.
    pub(super) fn check(&self, directory: &std::path::Path) -> Result<(), BenchError> {
        let Some(limit) = self.disk_limit else { return Ok(()) };
        let failed = |source| BenchError::System { action: "reading --dir".to_owned(), source };
        let there = host::allocated_bytes(directory).map_err(failed)?;
        if there <= limit {
            return Ok(());
        }
        let reason = format!("{limit} bytes are less than the {there} that the store takes");
        Err(BenchError::option("--disk-limit", reason))
    }
}

fn recovery_log(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes >= RECOVERY_LOG_MIN { Ok(bytes) } else { Err("less than 4M".to_owned()) }
}

/// How much larger than what lives the files may be, in hundredths; none is no cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceCap(pub Option<u32>);

impl FromStr for SpaceCap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let refused = || "not none nor a factor from 1.1 to 100, such as 1.5".to_owned();
        let hundredths = text.parse::<f64>().map_err(|_| refused())? * 100.0;
        let percent = hundredths.round();
        let (least, most) = (f64::from(*CAP_RANGE.start()), f64::from(*CAP_RANGE.end()));
        if (percent - hundredths).abs() > 1e-6 || !(least..=most).contains(&percent) {
            return Err(refused());
        }
        Ok(Self(Some(percent as u32)))
    }
}

impl fmt::Display for SpaceCap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(percent) => write!(formatter, "{}", f64::from(percent) / 100.0),
            None => formatter.write_str("none"),
        }
    }
}

impl Serialize for SpaceCap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::memory::ShardMemory;

    use super::*;

    #[test]
    fn caps_are_read_and_written() {
        for (text, percent) in
            [("1.5", Some(150)), ("1.1", Some(110)), ("2", Some(200)), ("100", Some(10_000))]
        {
            let cap: SpaceCap = text.parse().expect(text);
            assert_eq!((cap.0, cap.to_string().as_str()), (percent, text));
        }
        assert_eq!("none".parse::<SpaceCap>().map(|cap| cap.to_string()), Ok("none".to_owned()));
        for text in ["1.09", "1", "0", "", "-2", "100.01", "1.555", "nan", "inf", "1,5"] {
            assert!(text.parse::<SpaceCap>().expect_err(text).contains("1.1 to 100"), "{text}");
        }
    }

    #[test]
    fn a_shard_gets_its_part() {
        let limits = SpaceBounds {
            recovery_log: 64 << 20,
            max_space_amp: SpaceCap(None),
            disk_limit: Some(1 << 30),
            gc_rate: Some(8 << 20),
        };
        let memory = ShardMemory::plan(64 << 20, 1 << 20).expect("it is enough");
        let mut options = ShardOptions::for_memory(1, 4, &memory);
        limits.apply(&mut options);
        assert_eq!(options.recovery_log_bytes, 16 << 20);
        assert_eq!(options.collect_bytes_per_second, Some(2 << 20));
        assert_eq!(options.space_amplification_percent, u32::MAX);
        assert_eq!(limits.budget().limit(), Some(1 << 30));
        let (mut given, defaults) = (options.clone(), ShardOptions::for_memory(1, 4, &memory));
        SpaceBounds::default().apply(&mut given);
        assert_eq!(given.recovery_log_bytes, defaults.recovery_log_bytes);
        assert_eq!(given.collect_bytes_per_second, defaults.collect_bytes_per_second);
        assert_eq!(given.space_amplification_percent, defaults.space_amplification_percent);
        assert_eq!(SpaceBounds::default().budget().limit(), None);
    }
}
