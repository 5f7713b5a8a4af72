//! The command line of `larder bench io`, and its way into checked [`IoBenchSettings`].

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use larder_runtime::env::IoClass;

use super::settings::{IoBenchSettings, SharedClass};
use crate::arguments::CpuList;
use crate::engine::size;
use crate::error::BenchError;

const IO_HELP: &str = "\
Example: two classes with one and four shares on two cores, by what `larder iotune` has found
  larder iotune --dir /mnt/nvme --out io.toml --quick
  larder bench io --classes scan=1,compaction=4 --dir /mnt/nvme --io-properties io.toml \\
      --cores 2 --duration 10 --json io.json

What is done:
  Each core is a thread with the ring and the I/O queue of a node, all on one disk, and has a file
  of --size in --dir, which has no name, so that nothing is left of it. Classes `commit` and `flush`
  write, all others read, at random places.
  First each class keeps --depth requests waiting on each core, and what each gets of the disk's
  time is compared with its shares, and all of it with what the disk can do. Then one class after
  the other is idle but for one request every 5 to 15 ms, while the others go on; how long such a
  request waits for its turn is compared with the latency goal. Each part lasts --duration, after a
  fifth of that which is not counted.

What the figures mean:
  The disk's time is counted as the scheduler charges it: a request's cost by --io-properties, and
  more where the disk turns out to be slower. The cores may use all of it, and once what the bucket
  holds. If the processors are full before the disk is, or the disk can do less than the file says,
  shares and waits show that and not the scheduler: then take longer requests (--length) or lower
  figures. Beside `read` and `commit` the other classes are held back while reads take longer than
  the goal, whatever their shares are; it is said if so.";

/// `larder bench io`.
#[derive(Args, Clone, Debug)]
#[command(after_help = IO_HELP)]
pub struct IoBenchArgs {
    /// The classes that share the disk, and their shares: two or more of commit, read, scan, flush,
    /// compaction, garbage_collection and scrub
    #[arg(long, value_name = "CLASS=SHARES,...", default_value = "scan=1,compaction=4")]
    pub classes: ClassList,
    /// A directory on the disk
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// File with what the disk can do (`larder iotune`)
    #[arg(long, value_name = "FILE")]
    pub io_properties: PathBuf,
    /// Threads, which share the disk
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub cores: usize,
    /// Keep the threads on these processors, for example 1 or 2,4-7
    #[arg(long, value_name = "LIST", default_value = "")]
    pub cpu: CpuList,
    /// Seconds of each part; a fraction is allowed
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub duration: f64,
    /// Bytes of each request: a multiple of 4K, at most 1024K
    #[arg(long, value_name = "SIZE", default_value = "16K", value_parser = size)]
    pub length: u64,
    /// Requests of each class that a core keeps waiting or under way
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub depth: usize,
    /// Length of each core's file
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size)]
    pub size: u64,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The value of `--classes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassList(pub Vec<SharedClass>);

impl FromStr for ClassList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut classes: Vec<SharedClass> = Vec::new();
        for pair in text.split(',') {
            let wanted =
                || format!("`{pair}` is not CLASS=SHARES; write for example scan=1,compaction=4");
            let (name, shares) = pair.split_once('=').ok_or_else(wanted)?;
            let class = IoClass::named(name)?;
            if classes.iter().any(|shared| shared.class == class) {
                return Err(format!("{name} is given twice"));
            }
            let shares = shares.parse().map_err(|_| wanted())?;
            classes.push(SharedClass { class, shares });
        }
        Ok(Self(classes))
    }
}

impl IoBenchArgs {
    /// The arguments as checked settings.
    pub(crate) fn settings(&self) -> Result<IoBenchSettings, BenchError> {
        let duration = Duration::try_from_secs_f64(self.duration)
            .map_err(|_| BenchError::option("--duration", "must be seconds, for example 10"))?;
        let settings = IoBenchSettings {
            classes: self.classes.0.clone(),
            directory: self.dir.clone(),
            io_properties: self.io_properties.clone(),
            cores: self.cores,
            cpus: self.cpu.0.clone(),
            duration,
            length: self.length,
            depth: self.depth,
            file_bytes: self.size,
        };
        settings.check()?;
        Ok(settings)
    }
}
