//! What the node was told and has found at its start.

use std::path::PathBuf;
use std::sync::Arc;

use larder_runtime::device_group::DeviceGroup;

use crate::latency::CoreLatencies;
use crate::loads::ShardLoads;
use crate::memcached::gate::Gate;
use crate::memory_plan::MemoryPlan;

/// What the node was told, as all who tell of it need it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Unix second at which the node started.
    pub started: u64,
    /// Cores that the node runs on.
    pub cores: usize,
    /// The memory option, in bytes.
    pub memory: u64,
    /// How it is divided.
    pub memory_plan: MemoryPlan,
    /// Shards of the store.
    pub shards: u16,
    /// The memcached port; 0 if there is none.
    pub port: u16,
    /// The first of the native ports that cores have for themselves, if they have such.
    pub native_core_ports: Option<u16>,
    /// The path that clients of this machine connect to.
    pub unix_socket: Option<String>,
    /// Who may, in octal.
    pub unix_socket_mode: String,
    /// The address of the listeners.
    pub listen: String,
    /// The largest item, in bytes.
    pub item_bytes_max: u64,
    /// The largest value that comes in chunks, in bytes.
    pub large_bytes_max: u32,
    /// The most connections.
    pub connections_max: usize,
    /// Seconds after which silent connections are closed; 0 for never.
    pub idle_timeout: u64,
    /// Seconds for which a request with an idempotency token is known again.
    pub idempotency_window: u32,
    /// Whether `flush_all` is allowed.
    pub flush_enabled: bool,
    /// Whether what is stored may be listed on the memcached port.
    pub dump_enabled: bool,
    /// Whether what happens may be watched there.
    pub watch_enabled: bool,
    /// What ends the prefix of a key.
    pub prefix_delimiter: u8,
    /// Whether requests are counted by prefix from the start.
    pub counts_prefixes: bool,
    /// Whether `shutdown` is allowed.
    pub shutdown_enabled: bool,
    /// Who may use the memcached port; `None` for everybody.
    pub gate: Option<Arc<Gate>>,
    /// The durability mode.
    pub durability: String,
    /// What clients are told to expect of reads and of writes, in microseconds; 0 for nothing.
    pub targets: (u32, u32),
    /// How loaded the shards are.
    pub loads: ShardLoads,
    /// How long requests take.
    pub latencies: CoreLatencies,
    /// The disk, if it is known what it can do.
    pub disk: Option<DiskFacts>,
}

/// A disk that somebody has measured.
#[derive(Clone, Debug)]
pub struct DiskFacts {
    /// The file with its figures.
    pub path: PathBuf,
    /// What it can do, and how much of that is in use.
    pub group: Arc<DeviceGroup>,
}

#[cfg(test)]
impl Facts {
    /// Those of a node with two cores that began at Unix second 1000.
    pub(crate) fn example() -> Self {
        Self {
            started: 1000,
            cores: 2,
            memory: 1 << 30,
            memory_plan: MemoryPlan::example(),
            shards: 2,
            port: 11211,
            native_core_ports: None,
            unix_socket: None,
            unix_socket_mode: "700".into(),
            listen: "127.0.0.1".into(),
            item_bytes_max: 1 << 20,
            large_bytes_max: 128 << 20,
            connections_max: 99,
            idle_timeout: 0,
            idempotency_window: 600,
            flush_enabled: true,
            dump_enabled: true,
            watch_enabled: true,
            prefix_delimiter: b':',
            counts_prefixes: false,
            shutdown_enabled: false,
            gate: None,
            durability: "sync".into(),
            targets: (0, 0),
            loads: ShardLoads::new(2),
            disk: None,
            latencies: CoreLatencies::new(2),
        }
    }
}
