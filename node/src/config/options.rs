//! The options of `larder serve`. This one definition serves the command line, the environment and
//! the file: the values of all three go through the same parser.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::io::{IoCaps, IoShares};
use super::size::{
    CompressFrom, CpuList, DurabilityMode, FileMode, RuntimeKind, Size, SpaceAmplification,
};

const HELP: &str = "\
Every option can also be set in the environment (LARDER_DATA_DIR for --data-dir) and in a TOML file
(data_dir = \"...\"). The command line wins over the environment, and that over the file.

Example:
  larder serve --data-dir /mnt/nvme/larder --memory 8G --listen 0.0.0.0 --durability sync";

/// `larder serve`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = HELP)]
pub struct ServeArgs {
    /// A TOML file with options; those given on the command line or in the environment win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings in force as TOML, and exit
    #[arg(long)]
    pub print_config: bool,
    /// The options that may come from any source.
    #[command(flatten)]
    pub options: Options,
}

/// Options that are given, from one source.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Directory of the data; created if it is missing [default: ./larder-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Memory for the whole process [default: 1G]
    #[arg(long, short = 'm', value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Shards of a new data directory; fixed from then on [default: one per core]
    #[arg(long, value_name = "N", value_parser = shards)]
    pub shards: Option<u16>,
    /// How many cores to run on [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub cores: Option<usize>,
    /// Which CPUs to run on, such as 0-3,8 [default: all that are allowed]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// File with the CPUs to run on, as `larder tune --apply` saves it; --cpus wins over one that
    /// is not named [default: /etc/larder/cpu-plan.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub cpu_plan: Option<PathBuf>,
    /// What the cores run on: `ring`, or `glommio` to compare it with, where larder was built with
    /// the feature runtime-glommio [default: ring]
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<RuntimeKind>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,
    /// Port for memcached clients; 0 picks a free one [default: 11211]
    #[arg(long, short = 'p', value_name = "PORT")]
    pub memcached_port: Option<u16>,
    /// Path of a socket for memcached clients of this machine, besides the port
    #[arg(long, value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
    /// Mode of that socket, in octal [default: 700]
    #[arg(long, value_name = "MODE")]
    pub unix_socket_mode: Option<FileMode>,
    /// Core i also listens on this port + i
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub core_ports: Option<u16>,
    /// Port for the native protocol; 0 picks a free one [default: 9411]
    #[arg(long, value_name = "PORT")]
    pub native_port: Option<u16>,
    /// Core i also listens for native clients on this port + i
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub native_core_ports: Option<u16>,
    /// Port for metrics and health over HTTP; 0 picks a free one [default: 9412]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// When a write is acknowledged: `sync`, `interval:<ms>` or `none` [default: sync]
    #[arg(long, value_name = "MODE")]
    pub durability: Option<DurabilityMode>,
    /// Compress values from this length on where that saves an eighth: a size, or `off`. Values of
    /// up to 128 bytes never are [default: 1K]
    #[arg(long, value_name = "SIZE")]
    pub compress_from: Option<CompressFrom>,
    /// What native clients are told to expect of reads, in microseconds, so that they know when to
    /// ask elsewhere; 0 tells them nothing [default: 0]
    #[arg(long, value_name = "US")]
    pub read_target_us: Option<u32>,
    /// The same of writes [default: 0]
    #[arg(long, value_name = "US")]
    pub write_target_us: Option<u32>,
    /// Log that a start may have to replay, of the whole node [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = recovery_log)]
    pub recovery_log: Option<Size>,
    /// How much larger than what lives the files may be, at least 1.1 [default: 1.5]
    #[arg(long, value_name = "FACTOR")]
    pub max_space_amp: Option<SpaceAmplification>,
    /// Disk space of the whole node [default: all there is]
    #[arg(long, value_name = "SIZE")]
    pub disk_limit: Option<Size>,
    /// Bytes a second at which garbage is collected at most [default: as fast as is needed]
    #[arg(long, value_name = "SIZE")]
    pub gc_rate: Option<Size>,
    /// Bytes a second of files that are read to look for damage, such as 16M; 0 reads none
    /// [default: 4M]
    #[arg(long, value_name = "SIZE")]
    pub scrub_rate: Option<Size>,
    /// File with what the disk can do, as `larder iotune` writes it, or Seastar's YAML
    /// [default: io-properties.toml in the data directory, if it is there]
    #[arg(long, value_name = "FILE")]
    pub io_properties: Option<PathBuf>,
    /// Measure the disk of a new data directory for two seconds, if it has no such file, and write
    /// one; --calibrate=false does not [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub calibrate: Option<bool>,
    /// Shares of classes of disk requests, such as compaction=100,scan=50 [default: 1000 for commit
    /// and read, 400 for flush, 200 for compaction, 100 for garbage_collection and scan, 50 for
    /// scrub]
    #[arg(long, value_name = "CLASS=N,...")]
    pub io_shares: Option<IoShares>,
    /// Bytes a second that classes of disk requests may move at most, of the whole node, such as
    /// compaction=50M,scrub=none [default: none]
    #[arg(long, value_name = "CLASS=SIZE,...")]
    pub io_caps: Option<IoCaps>,
    /// How long a disk request may take before the node asks less of the disk, in microseconds
    /// [default: what the file of the disk says, or 750]
    #[arg(long, value_name = "US", value_parser = io_latency_goal)]
    pub io_latency_goal: Option<u32>,
    /// Largest item: value, key and 71 bytes [default: 1M]
    #[arg(long, short = 'I', value_name = "SIZE", value_parser = item_size)]
    pub max_item_size: Option<Size>,
    /// Most connections at a time [default: 10000]
    #[arg(long, short = 'c', value_name = "N", value_parser = at_least_one)]
    pub max_connections: Option<usize>,
    /// Close connections that are silent for so many seconds; 0 never does [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub idle_timeout: Option<u64>,
    /// Milliseconds that one task or request may hold its core before the log and the metrics tell
    /// of it; 0 tells of nothing [default: 10]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub stall_bound: Option<u32>,
    /// For how many seconds a request with an idempotency token is known again [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idempotency_window: Option<u32>,
    /// For how many seconds chunks of a large value are kept for its commit [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub staging_window: Option<u32>,
    /// Let clients stop the node with `shutdown`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub enable_shutdown: Option<bool>,
    /// Refuse `flush_all`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub disable_flush_all: Option<bool>,
    /// Refuse to list what is stored: `lru_crawler metadump`, `mgdump`, `stats cachedump`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub disable_dumps: Option<bool>,
    /// Refuse `watch`, which tells what happens to all keys
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub disable_watch: Option<bool>,
    /// File of lines NAME:PASSWORD: a memcached client must begin with a `set` of one of them.
    /// It is for the text protocol of that port alone, and shuts out the binary one; the native
    /// port and the admin port ask for no password
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Log more: the same as --log-level debug
    #[arg(long, short = 'v', value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
        require_equals = true)]
    pub verbose: Option<bool>,
    /// What to log: error, warn, info, debug, trace, or a filter such as larder=debug
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "not a number above 0".to_owned())
}

fn shards(text: &str) -> Result<u16, String> {
    let max = crate::limits::SHARDS_MAX;
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {max}"))
}

fn io_latency_goal(text: &str) -> Result<u32, String> {
    let range = larder_perftune::disk::LATENCY_GOAL;
    let number = text.parse().ok().filter(|number| range.contains(&u64::from(*number)));
    number.ok_or_else(|| format!("not microseconds from {} to {}", range.start(), range.end()))
}

fn recovery_log(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let least = Size(crate::limits::RECOVERY_LOG_MIN);
    if size >= least { Ok(size) } else { Err(format!("less than {least}")) }
}

/// A size that `--max-item-size` takes.
pub(crate) fn item_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    let range = crate::limits::ITEM_BYTES_RANGE;
    if range.contains(&size.0) {
        return Ok(size);
    }
    Err(format!("not between {} and {}", Size(*range.start()), Size(*range.end())))
}
