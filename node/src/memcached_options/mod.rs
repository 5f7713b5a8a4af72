//! `larder memcached`: the command line of memcached, as people have it in their scripts.
//!
//! What has a meaning here becomes an option of `larder serve`; of everything else one line says
//! why it changes nothing. What would leave a port open that was to be closed is refused.

mod translate;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{DurabilityMode, FileMode, Size, item_size};

pub use translate::{Translation, translate};

const HELP: &str = "\
Options of `larder serve` that are not listed here may stand in the environment (LARDER_SHARDS for
--shards) or in the file that LARDER_CONFIG names. The native port and the admin port listen on the
address of -l as well.

  LARDER_DATA_DIR=/mnt/nvme/larder larder memcached -p 11211 -m 4096 -c 10000";

/// `larder memcached`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = HELP)]
pub struct MemcachedArgs {
    /// TCP port; -1 picks a free one [default: 11211]
    #[arg(short = 'p', long = "port", value_name = "NUM", allow_hyphen_values = true)]
    pub port: Option<i32>,
    /// UDP port; there is no UDP here
    #[arg(short = 'U', long, value_name = "NUM", allow_hyphen_values = true)]
    pub udp_port: Option<i32>,
    /// Path of a socket for clients of this machine, in place of the port
    #[arg(short = 's', long, value_name = "FILE")]
    pub unix_socket: Option<PathBuf>,
    /// Mode of that socket, in octal [default: 700]
    #[arg(short = 'a', long, value_name = "MASK")]
    pub unix_mask: Option<FileMode>,
    /// Let clients stop the node with `shutdown`
    #[arg(short = 'A', long)]
    pub enable_shutdown: bool,
    /// Address to listen on [default: 0.0.0.0, all of them]
    #[arg(short = 'l', long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Run in the background; not done here
    #[arg(short = 'd', long)]
    pub daemon: bool,
    /// No limit of core files; not done here
    #[arg(short = 'r', long)]
    pub enable_coredumps: bool,
    /// User to become; not done here
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Memory in megabytes, of the whole process here; raised to what it needs at least
    #[arg(short = 'm', long, value_name = "NUM", default_value_t = 64)]
    pub memory_limit: u64,
    /// Refuse instead of evicting; nothing is evicted here
    #[arg(short = 'M', long)]
    pub disable_evictions: bool,
    /// Most connections at a time [default: 1024]
    #[arg(short = 'c', long, value_name = "NUM")]
    pub conn_limit: Option<usize>,
    /// Lock memory; not done here
    #[arg(short = 'k', long)]
    pub lock_memory: bool,
    /// Log more; up to three times
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// File for the number of the process
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Growth of slab chunks; there are no slabs here
    #[arg(short = 'f', long, value_name = "NUM")]
    pub slab_growth_factor: Option<String>,
    /// Least chunk; there are no slabs here
    #[arg(short = 'n', long, value_name = "BYTES")]
    pub slab_min_size: Option<String>,
    /// Large pages; used here wherever the system allows it
    #[arg(short = 'L', long)]
    pub enable_largepages: bool,
    /// Delimiter of key prefixes, and count requests by prefix from the start [default: :]
    #[arg(short = 'D', value_name = "CHAR")]
    pub delimiter: Option<String>,
    /// Threads: cores to run on, here [default: all]
    #[arg(short = 't', long, value_name = "NUM")]
    pub threads: Option<usize>,
    /// Requests per event; the turns of connections are shared by use here
    #[arg(short = 'R', long, value_name = "NUM")]
    pub max_reqs_per_event: Option<String>,
    /// No CAS ids; every item has one here
    #[arg(short = 'C', long)]
    pub disable_cas: bool,
    /// Connections that may wait to be accepted; 1,024 for each core here
    #[arg(short = 'b', long, value_name = "NUM")]
    pub listen_backlog: Option<String>,
    /// Protocol: ascii, binary or auto; the first byte of a connection decides here
    #[arg(short = 'B', long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Largest item [default: 1m]
    #[arg(short = 'I', long, value_name = "NUM", value_parser = item_size)]
    pub max_item_size: Option<Size>,
    /// SASL; not there, so it is refused
    #[arg(short = 'S', long)]
    pub enable_sasl: bool,
    /// Refuse `flush_all`
    #[arg(short = 'F', long)]
    pub disable_flush_all: bool,
    /// No lists of keys
    #[arg(short = 'X', long)]
    pub disable_dumping: bool,
    /// No `watch`
    #[arg(short = 'W', long)]
    pub disable_watch: bool,
    /// File of lines NAME:PASSWORD; a client must begin with one of them
    #[arg(short = 'Y', long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// File for items across restarts; all items are on disk here
    #[arg(short = 'e', long, value_name = "FILE")]
    pub memory_file: Option<PathBuf>,
    /// TLS; not there, so it is refused
    #[arg(short = 'Z', long)]
    pub enable_ssl: bool,
    /// Extended options, by commas; idle_timeout=SECONDS has a meaning here
    #[arg(short = 'o', long = "extended", value_name = "OPTIONS")]
    pub extended: Vec<String>,
    /// NAPI ids; not used here
    #[arg(short = 'N', long, value_name = "NUM")]
    pub napi_ids: Option<String>,
    /// Of `larder serve`: directory of the data [default: ./larder-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Of `larder serve`: when a write is acknowledged [default: sync]
    #[arg(long, value_name = "MODE")]
    pub durability: Option<DurabilityMode>,
    /// Of `larder serve`: port for the native protocol [default: 9411]
    #[arg(long, value_name = "PORT")]
    pub native_port: Option<u16>,
    /// Of `larder serve`: port for metrics and health [default: 9412]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Print the settings in force as TOML, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// All addresses: where memcached listens if it is not told.
const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
