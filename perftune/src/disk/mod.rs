//! What a disk can do, as figures that people can read, check and write: `io-properties.toml`.
//!
//! ```text
//! [[disk]]
//! mountpoints = ["/mnt/nvme"]
//! read_iops = 385400            # requests of the smallest useful length, a second
//! read_bandwidth = 3087631104   # bytes a second
//! write_iops = 240628
//! write_bandwidth = 2289281280
//! ```
//!
//! The same figures are taken over from Seastar's YAML. [`DiskFile`] finds those of a directory,
//! and [`DiskProperties::model`] is what the node's disk scheduler makes of them.

mod file;
mod instances;
mod model;
mod placement;
mod toml_form;
mod yaml_form;

pub use file::{DISK_FILE, DiskFile, DiskFileError};
pub use instances::{KnownDisk, doubts, known_disk};
pub use toml_form::{from_toml, to_toml};

use std::ops::RangeInclusive;

use serde::Serialize;

/// Requests a second that are believed.
const IOPS: RangeInclusive<u64> = 10..=100_000_000;
/// Bytes a second that are believed.
const BANDWIDTH: RangeInclusive<u64> = 100_000..=1_000_000_000_000;
/// Lengths of requests, in bytes.
const LENGTH: RangeInclusive<u64> = 512..=(16 << 20);
/// Requests that a disk has at a time.
const DEPTH: RangeInclusive<u64> = 1..=65_536;
/// Goals for latency, in microseconds.
pub const LATENCY_GOAL: RangeInclusive<u64> = 10..=10_000_000;
/// Sizes of physical blocks, in bytes.
const BLOCK: RangeInclusive<u64> = 512..=65_536;
/// How much of both a disk does when it reads and writes, in thousandths.
const MIXED: RangeInclusive<u64> = 100..=2_000;

/// What the disk below some directories can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskProperties {
    /// The mount points that lie on it.
    pub mountpoints: Vec<String>,
    /// Reads a second.
    pub read_iops: u64,
    /// Bytes read a second.
    pub read_bandwidth: u64,
    /// Writes a second.
    pub write_iops: u64,
    /// Bytes written a second.
    pub write_bandwidth: u64,
    /// The length from which on reads have the full bandwidth, in bytes.
    pub read_saturation_length: Option<u64>,
    /// The length from which on writes have the full bandwidth, in bytes.
    pub write_saturation_length: Option<u64>,
    /// How many reads at a time have the full rate.
    pub read_saturation_depth: Option<u64>,
    /// How many writes at a time have the full rate.
    pub write_saturation_depth: Option<u64>,
    /// How long a request may take, in microseconds.
    pub latency_goal_us: Option<u64>,
    /// What the disk writes at once, in bytes.
    pub physical_block_size: Option<u64>,
    /// The share of its reads and the share of its writes that it does together, added up, in
    /// thousandths: 1000 is what a disk does that does one at the cost of the other.
    pub mixed_thousandths: Option<u64>,
    /// Whether reads and writes do not hinder each other at all.
    pub duplex: Option<bool>,
}

/// A disk as a file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    /// The line at which it begins, from 1.
    pub line: usize,
    /// Its figures.
    pub disk: DiskProperties,
}

/// Why figures are not taken: where, which, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {message}")]
pub struct FigureError {
    /// The line, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl FigureError {
    fn new(line: usize, key: &str, message: impl Into<String>) -> Self {
        Self { line, key: key.to_owned(), message: message.into() }
    }
}

/// A figure that a file may have.
struct Figure {
    key: &'static str,
    range: RangeInclusive<u64>,
    is_needed: bool,
    set: fn(&mut DiskProperties, u64),
    get: fn(&DiskProperties) -> Option<u64>,
}

/// All figures that are whole numbers, in the order in which they are written.
const FIGURES: [Figure; 11] = [
    Figure {
        key: "read_iops",
        range: IOPS,
        is_needed: true,
        set: |disk, value| disk.read_iops = value,
        get: |disk| Some(disk.read_iops),
    },
    Figure {
        key: "read_bandwidth",
        range: BANDWIDTH,
        is_needed: true,
        set: |disk, value| disk.read_bandwidth = value,
        get: |disk| Some(disk.read_bandwidth),
    },
    Figure {
        key: "write_iops",
        range: IOPS,
        is_needed: true,
        set: |disk, value| disk.write_iops = value,
        get: |disk| Some(disk.write_iops),
    },
    Figure {
        key: "write_bandwidth",
        range: BANDWIDTH,
        is_needed: true,
        set: |disk, value| disk.write_bandwidth = value,
        get: |disk| Some(disk.write_bandwidth),
    },
    Figure {
        key: "read_saturation_length",
        range: LENGTH,
        is_needed: false,
        set: |disk, value| disk.read_saturation_length = Some(value),
        get: |disk| disk.read_saturation_length,
    },
    Figure {
        key: "write_saturation_length",
        range: LENGTH,
        is_needed: false,
        set: |disk, value| disk.write_saturation_length = Some(value),
        get: |disk| disk.write_saturation_length,
    },
    Figure {
        key: "read_saturation_depth",
        range: DEPTH,
        is_needed: false,
        set: |disk, value| disk.read_saturation_depth = Some(value),
        get: |disk| disk.read_saturation_depth,
    },
    Figure {
        key: "write_saturation_depth",
        range: DEPTH,
        is_needed: false,
        set: |disk, value| disk.write_saturation_depth = Some(value),
        get: |disk| disk.write_saturation_depth,
    },
    Figure {
        key: "latency_goal_us",
        range: LATENCY_GOAL,
        is_needed: false,
        set: |disk, value| disk.latency_goal_us = Some(value),
        get: |disk| disk.latency_goal_us,
    },
    Figure {
        key: "physical_block_size",
        range: BLOCK,
        is_needed: false,
        set: |disk, value| disk.physical_block_size = Some(value),
        get: |disk| disk.physical_block_size,
    },
    Figure {
        key: "mixed_thousandths",
        range: MIXED,
        is_needed: false,
        set: |disk, value| disk.mixed_thousandths = Some(value),
        get: |disk| disk.mixed_thousandths,
    },
];

/// A disk that is being read from a file.
struct DraftDisk {
    line: usize,
    disk: DiskProperties,
    seen: Vec<String>,
}

impl DraftDisk {
    fn new(line: usize) -> Self {
        Self { line, disk: DiskProperties::default(), seen: Vec::new() }
    }

    /// Remembers that a key was given; it may be given once.
    fn see(&mut self, line: usize, key: &str) -> Result<(), FigureError> {
        if self.seen.iter().any(|seen| seen == key) {
            return Err(FigureError::new(line, key, "it is given twice"));
        }
        self.seen.push(key.to_owned());
        Ok(())
    }

    fn set(&mut self, line: usize, key: &str, value: i128) -> Result<(), FigureError> {
        let Some(figure) = FIGURES.iter().find(|figure| figure.key == key) else {
            let known: Vec<&str> = FIGURES.iter().map(|figure| figure.key).collect();
            let known = known.join(", ");
            return Err(FigureError::new(line, key, format!("unknown; there are {known}")));
        };
        let (least, most) = (figure.range.start(), figure.range.end());
        let believed = u64::try_from(value).ok().filter(|value| figure.range.contains(value));
        let value = believed.ok_or_else(|| {
            FigureError::new(line, key, format!("{value} is not from {least} to {most}"))
        })?;
        (figure.set)(&mut self.disk, value);
        Ok(())
    }

    fn add_mountpoint(&mut self, line: usize, path: &str) -> Result<(), FigureError> {
        if !path.starts_with('/') {
            let message = format!("`{path}` is no absolute path");
            return Err(FigureError::new(line, "mountpoints", message));
        }
        self.disk.mountpoints.push(path.to_owned());
        Ok(())
    }

    fn finish(self) -> Result<DiskProperties, FigureError> {
        let missing = FIGURES
            .iter()
            .find(|figure| figure.is_needed && !self.seen.iter().any(|seen| seen == figure.key));
        if let Some(figure) = missing {
            return Err(FigureError::new(self.line, figure.key, "it is missing"));
        }
        if self.disk.mountpoints.is_empty() {
            return Err(FigureError::new(self.line, "mountpoints", "there is none"));
        }
        Ok(self.disk)
    }
}

/// The disks of a file, none of which has a mount point of another.
fn finish(drafts: Vec<DraftDisk>) -> Result<Vec<DiskEntry>, FigureError> {
    let mut entries: Vec<DiskEntry> = Vec::new();
    for draft in drafts {
        let line = draft.line;
        let disk = draft.finish()?;
        let known: Vec<&String> =
            entries.iter().flat_map(|entry| &entry.disk.mountpoints).collect();
        for (index, path) in disk.mountpoints.iter().enumerate() {
            if known.contains(&path) || disk.mountpoints[..index].contains(path) {
                return Err(FigureError::new(
                    line,
                    "mountpoints",
                    format!("{path} is there twice"),
                ));
            }
        }
        entries.push(DiskEntry { line, disk });
    }
    if entries.is_empty() {
        return Err(FigureError::new(1, "disk", "the file describes no disk"));
    }
    Ok(entries)
}
