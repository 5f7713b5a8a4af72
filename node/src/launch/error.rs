//! Why the node did not start, or ended.

use std::net::SocketAddr;
use std::path::PathBuf;

use larder_perftune::disk::DiskFileError;

use super::file_system::Lack;
use crate::config::{CpuList, Size};
use crate::memory_plan::MemoryNeeds;

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something about the data directory failed.
    #[error("cannot {operation} the data directory {path}: {source}", path = path.display())]
    DataDirectory {
        /// What was attempted.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A listener that the runtime cannot have.
    #[cfg(feature = "runtime-glommio")]
    #[error(
        "--unix-socket does not go with --runtime glommio: all cores share its listener, which \
         glommio makes non-blocking for a moment at each look; leave it out, or use --runtime ring"
    )]
    UnixSocketOnGlommio,
    /// The file of names and passwords cannot be used.
    #[error("--auth-file {path}: {reason}", path = path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the disk can do cannot be taken from the file.
    #[error(
        "the figures of the disk in {path}: {reason} (`larder iotune` measures them; \
         --io-properties names another file)",
        path = path.display()
    )]
    IoProperties {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: DiskFileError,
    },
    /// The file system of the data directory cannot do what the node needs.
    #[error(
        "cannot {operation} the data directory {path}: its file system {lack}, or give another \
         --data-dir ({source})",
        path = path.display()
    )]
    FileSystem {
        /// What was attempted.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What it lacks, and what to do.
        lack: Lack,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There are not enough descriptors to run with.
    #[error(
        "the limit of open files is {allowed}, and at least {needed} are needed for {shards} \
         shards on {cores} cores, and {wanted} for all of --max-connections {connections}: raise \
         it with `ulimit -n {wanted}` or LimitNOFILE={wanted}"
    )]
    Descriptors {
        /// The hard limit.
        allowed: u64,
        /// With fewer the node does not run.
        needed: u64,
        /// With fewer some connections are refused.
        wanted: u64,
        /// The connections asked for.
        connections: usize,
        /// The cores.
        cores: usize,
        /// The shards.
        shards: u16,
    },
    /// Another process has the directory.
    #[error(
        "another larder runs on the data directory {path}; stop it, or give another --data-dir",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something in the directory is not the node's.
    #[error(
        "{path} is not a file of larder; move it away, or give a --data-dir of its own",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A shard's directory is gone.
    #[error("{path} is missing although later shards are there", path = path.display())]
    ShardMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was made with another number of shards.
    #[error(
        "the data directory {path} has {there} shards, which cannot be changed; leave out \
         --shards {requested}, or give another --data-dir",
        path = path.display()
    )]
    ShardCount {
        /// The directory.
        path: PathBuf,
        /// How many it has.
        there: u16,
        /// How many were asked for.
        requested: u16,
    },
    /// There is no space for shards that are not there yet.
    #[error(
        "the file system of {path} has only {free} free, and {shards} new shards need {needed}: \
         free some space, or give another --data-dir or fewer --shards",
        path = path.display()
    )]
    DiskFull {
        /// The data directory.
        path: PathBuf,
        /// Free bytes.
        free: Size,
        /// The shards that are not there.
        shards: u64,
        /// Bytes that they need.
        needed: Size,
    },
    /// The limit leaves no space for shards that are not there yet.
    #[error(
        "--disk-limit {limit} is too little for {shards} new shards: give at least {needed}, or \
         fewer --shards"
    )]
    LowDiskLimit {
        /// The limit.
        limit: Size,
        /// The shards that are not there.
        shards: u64,
        /// The least limit.
        needed: Size,
    },
    /// The data takes more than it may.
    #[error(
        "the data directory takes {taken} already, but --disk-limit is {limit}: raise \
         --disk-limit, or delete items while the node runs without it"
    )]
    DiskLimit {
        /// The limit.
        limit: Size,
        /// What is taken.
        taken: Size,
    },
    /// More memory than the machine has.
    #[error("--memory {asked} is too much: the machine has only {physical}")]
    TooMuchMemory {
        /// What was asked for.
        asked: Size,
        /// What there is.
        physical: Size,
    },
    /// Too little for what it is divided for.
    #[error(
        "--memory {asked} is too little for {} shards, {} cores, {} connections and items of up \
         to {item}: give at least {needed}",
        needs.shards, needs.cores, needs.connections
    )]
    TooLittleMemory {
        /// What was asked for.
        asked: Size,
        /// What it is for.
        needs: MemoryNeeds,
        /// The longest item.
        item: Size,
        /// What they need.
        needed: Size,
    },
    /// A CPU that this process may not use.
    #[error("CPU {cpu} of --cpus is not available: this process may use {allowed}")]
    CpuNotAllowed {
        /// The CPU.
        cpu: usize,
        /// Those it may use.
        allowed: CpuList,
    },
    /// A CPU plan that cannot be taken.
    #[error("--cpu-plan {path}: {reason}", path = path.display())]
    CpuPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// More cores than CPUs.
    #[error("--cores {cores} is more than there are CPUs to use: {cpus}")]
    TooManyCores {
        /// What was asked for.
        cores: usize,
        /// The CPUs.
        cpus: CpuList,
    },
    /// The CPUs cannot be found out.
    #[error("cannot ask which CPUs may be used: {source}")]
    Cpus {
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The socket with a path cannot be bound.
    #[error("cannot {operation} {path} (--unix-socket): {source}", path = path.display())]
    UnixSocket {
        /// The path.
        path: PathBuf,
        /// What was attempted.
        operation: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A port is taken.
    #[error("the address {address} is in use; give another {option}")]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// The option that sets the port.
        option: &'static str,
    },
    /// A socket cannot be bound.
    #[error("cannot listen on {address} ({option}, --listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that sets the port.
        option: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The ports of the cores do not fit below 65,536.
    #[error("{option} {base} is too high for {cores} cores: the last port would be over 65535")]
    CorePorts {
        /// The option that sets them.
        option: &'static str,
        /// The first port.
        base: u16,
        /// The cores.
        cores: usize,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread {name}: {source}")]
    Thread {
        /// The thread.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A core did not come up.
    #[error("core {core}: {reason}")]
    Core {
        /// The core.
        core: usize,
        /// Why.
        reason: String,
    },
    /// The node was asked to stop before it served: no failure, what was asked for was done.
    #[error("stopped before it was ready: {reason}")]
    Stopped {
        /// Who asked.
        reason: &'static str,
    },
}

/// Why a node that ran ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A shard has seen a failed write or flush.
    #[error("shard {shard} takes no more writes: {reason}")]
    ShardStopped {
        /// The shard.
        shard: u16,
        /// Why.
        reason: String,
    },
    /// A core's thread ended.
    #[error("core {core} failed: {reason}")]
    Core {
        /// The core.
        core: usize,
        /// Why.
        reason: String,
    },
}
