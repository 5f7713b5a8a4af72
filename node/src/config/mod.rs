//! What the node is told to do: command line, environment, file, defaults, in that order.

mod io;
mod options;
mod size;
mod sources;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

pub use io::{IoCap, IoCaps, IoChange, IoShares};
pub(crate) use options::item_size;
pub use options::{Options, ServeArgs};
pub use size::{
    CompressFrom, CpuList, DurabilityMode, FileMode, RuntimeKind, Size, SpaceAmplification,
};
pub use sources::{ConfigError, load};

use crate::limits;

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The directory that holds the shards; created if it is missing.
    pub data_dir: PathBuf,
    /// Memory of the whole process, in bytes.
    pub memory: Size,
    /// Whether a memory that is too little is raised to the least that works.
    #[serde(skip)]
    pub raise_memory: bool,
    /// Shards of a new directory; `None` means one per core, or what the directory has.
    pub shards: Option<u16>,
    /// Cores to run on; `None` means all of `cpus`.
    pub cores: Option<usize>,
    /// CPUs to run on; `None` means all that the process may use.
    pub cpus: Option<CpuList>,
    /// The file that says which CPUs to run on; `None` means the usual one, if it is there.
    pub cpu_plan: Option<PathBuf>,
    /// What the cores run on.
    pub runtime: RuntimeKind,
    /// The address of all listeners.
    pub listen: IpAddr,
    /// The memcached port; 0 picks a free one.
    pub memcached_port: u16,
    /// Whether there is a memcached port; clients may come by a path alone.
    #[serde(skip)]
    pub has_memcached_port: bool,
    /// A path that memcached clients of this machine connect to besides.
    pub unix_socket: Option<PathBuf>,
    /// Who may connect to it.
    pub unix_socket_mode: FileMode,
    /// Core `i` also listens on this port plus `i`.
    pub core_ports: Option<u16>,
    /// The native port; 0 picks a free one.
    pub native_port: u16,
    /// Core `i` also listens for native clients on this port plus `i`.
    pub native_core_ports: Option<u16>,
    /// The admin port; 0 picks a free one.
    pub admin_port: u16,
    /// When writes are acknowledged.
    pub durability: DurabilityMode,
    /// From which length on values are compressed, unless their namespace says otherwise.
    pub compress_from: CompressFrom,
    /// How long reads usually take, as clients are told, in microseconds; 0 tells them nothing.
    pub read_target_us: u32,
    /// The same of writes.
    pub write_target_us: u32,
    /// Log that a start may have to replay, of the whole node, in bytes.
    pub recovery_log: Size,
    /// How much larger than what lives the files may be, besides six segments for each shard.
    pub max_space_amp: SpaceAmplification,
    /// Disk space of the whole node in bytes; `None` means all that the file system has.
    pub disk_limit: Option<Size>,
    /// How fast garbage is collected at most, of the whole node, in bytes a second; `None` means as
    /// fast as is needed.
    pub gc_rate: Option<Size>,
    /// How fast files are read to look for damage, of the whole node, in bytes a second; 0 reads
    /// none.
    pub scrub_rate: Size,
    /// The file of what the disk can do; `None` means the one in the data directory, if it is
    /// there.
    pub io_properties: Option<PathBuf>,
    /// Whether the disk of a new data directory is measured, in two seconds, if it has no such
    /// file.
    pub calibrate: bool,
    /// Shares of classes of disk requests; `None` means the usual ones.
    pub io_shares: Option<IoShares>,
    /// The most that classes of disk requests may move, of the whole node; `None` means no limit.
    pub io_caps: Option<IoCaps>,
    /// How long a disk request may take, in microseconds; `None` means what the file says.
    pub io_latency_goal: Option<u32>,
    /// The largest item of the memcached port: value, key and 71 bytes.
    pub max_item_size: Size,
    /// Connections of the whole node.
    pub max_connections: usize,
    /// A connection that is silent for so many seconds is closed; 0 means never.
    pub idle_timeout: u64,
    /// For how many milliseconds one task or request may hold its core before that is told of; 0
    /// tells of nothing.
    pub stall_bound: u32,
    /// For how many seconds a native request with an idempotency token is known again.
    pub idempotency_window: u32,
    /// For how many seconds chunks of a large value are kept for its commit.
    pub staging_window: u32,
    /// Whether `shutdown` on the memcached port stops the node.
    pub enable_shutdown: bool,
    /// Whether `flush_all` on the memcached port is refused.
    pub disable_flush_all: bool,
    /// Whether lists of what is stored are refused on the memcached port.
    pub disable_dumps: bool,
    /// Whether `watch` is refused there.
    pub disable_watch: bool,
    /// What ends the prefix of a key, where requests are counted by prefix from the start.
    #[serde(skip)]
    pub prefix_delimiter: Option<u8>,
    /// The names and passwords of who may use the memcached port; `None` for everybody.
    pub auth_file: Option<PathBuf>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter of modules.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./larder-data"),
            memory: Size(1 << 30),
            raise_memory: false,
            shards: None,
            cores: None,
            cpus: None,
            cpu_plan: None,
            runtime: RuntimeKind::Ring,
            listen: IpAddr::from([127, 0, 0, 1]),
            memcached_port: 11211,
            has_memcached_port: true,
            unix_socket: None,
            unix_socket_mode: FileMode(0o700),
            core_ports: None,
            native_port: 9411,
            native_core_ports: None,
            admin_port: 9412,
            durability: DurabilityMode::Sync,
            compress_from: CompressFrom(Some(Size(limits::COMPRESS_FROM_DEFAULT))),
            read_target_us: 0,
            write_target_us: 0,
            recovery_log: Size(limits::RECOVERY_LOG_DEFAULT),
            max_space_amp: SpaceAmplification(limits::SPACE_AMPLIFICATION_DEFAULT),
            disk_limit: None,
            gc_rate: None,
            scrub_rate: Size(limits::SCRUB_RATE_DEFAULT),
            io_properties: None,
            calibrate: true,
            io_shares: None,
            io_caps: None,
            io_latency_goal: None,
            max_item_size: Size(limits::ITEM_BYTES_DEFAULT),
            max_connections: limits::CONNECTIONS_MAX_DEFAULT,
            idle_timeout: 0,
            stall_bound: limits::STALL_BOUND_DEFAULT,
            idempotency_window: limits::IDEMPOTENCY_WINDOW_DEFAULT,
            staging_window: limits::STAGING_WINDOW_DEFAULT,
            enable_shutdown: false,
            disable_flush_all: false,
            disable_dumps: false,
            disable_watch: false,
            prefix_delimiter: None,
            auth_file: None,
            log_level: "info".to_owned(),
        }
    }
}

impl Config {
    /// The settings as a file that `--config` reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is plain data")
    }
}
