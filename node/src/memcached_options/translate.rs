//! Their options to ours: pure.

use std::net::{IpAddr, Ipv4Addr};

use super::{ANY, MemcachedArgs};
use crate::config::{Options, Size};
use crate::log::LEVELS;

/// What a command line of memcached means here.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The options of `larder serve`.
    pub options: Options,
    /// What has no meaning here, each with the reason, for people.
    pub words: Vec<String>,
    /// Whether clients come by a path alone.
    pub has_no_port: bool,
    /// What ends the prefix of a key, where requests are counted by prefix from the start.
    pub prefix_delimiter: Option<u8>,
}

/// Connections at a time, unless they say otherwise.
const CONNECTIONS: usize = 1024;

/// Translates the command line for a machine with so many CPUs.
///
/// # Errors
/// An option that must not be passed over, or has a value that means nothing; for people.
pub fn translate(args: &MemcachedArgs, cpus: usize) -> Result<Translation, String> {
    let mut words = Vec::new();
    refuse(args)?;
    pass_over(args, &mut words);
    let listen = listen(args, &mut words)?;
    let memory = args.memory_limit.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
    let log_level = LEVELS[usize::from(args.verbose.min(3))];
    let has_no_port = args.unix_socket.is_some() && matches!(args.port, None | Some(0));
    let mut options = Options {
        data_dir: args.data_dir.clone(),
        durability: args.durability,
        native_port: args.native_port,
        admin_port: args.admin_port,
        memory: Some(memory.map(Size).ok_or("-m: not a number of megabytes")?),
        listen: Some(listen),
        memcached_port: port(args, &mut words)?,
        unix_socket: args.unix_socket.clone(),
        unix_socket_mode: args.unix_mask,
        max_item_size: args.max_item_size,
        max_connections: Some(args.conn_limit.unwrap_or(CONNECTIONS)),
        enable_shutdown: Some(args.enable_shutdown),
        disable_flush_all: Some(args.disable_flush_all),
        disable_dumps: Some(args.disable_dumping),
        disable_watch: Some(args.disable_watch),
        auth_file: args.auth_file.clone(),
        log_level: Some(log_level.to_owned()),
        ..Options::default()
    };
    if options.max_connections == Some(0) || args.threads == Some(0) {
        return Err("-c, -t: not a number above 0".to_owned());
    }
    if let Some(threads) = args.threads {
        if threads > cpus {
            words.push(format!("-t {threads}: one thread for each of the {cpus} CPUs, no more"));
        }
        options.cores = Some(threads.min(cpus));
    }
    for list in &args.extended {
        for option in list.split(',').filter(|option| !option.is_empty()) {
            extended(option, &mut options, &mut words)?;
        }
    }
    let prefix_delimiter = delimiter(args)?;
    Ok(Translation { options, words, has_no_port, prefix_delimiter })
}

fn delimiter(args: &MemcachedArgs) -> Result<Option<u8>, String> {
    match args.delimiter.as_deref().map(str::as_bytes) {
        None => Ok(None),
        Some([byte]) => Ok(Some(*byte)),
        Some(_) => Err("-D: not one byte".to_owned()),
    }
}

/// What shuts people out must not be passed over.
fn refuse(args: &MemcachedArgs) -> Result<(), String> {
    if args.enable_sasl {
        return Err("-S: there is no SASL; -Y FILE asks for a password".to_owned());
    }
    if args.enable_ssl {
        return Err("-Z: there is no TLS; put a proxy before the node".to_owned());
    }
    Ok(())
}

/// Says of what is given and changes nothing why that is so.
fn pass_over(args: &MemcachedArgs, words: &mut Vec<String>) {
    let only_one = args.protocol.as_deref().is_some_and(|protocol| protocol != "auto");
    let given = [
        (args.udp_port.is_some_and(|port| port != 0), "-U", "there is no UDP"),
        (args.daemon, "-d", "it stays in the foreground; let systemd or nohup run it"),
        (args.enable_coredumps, "-r", "`ulimit -c` sets the limit of core files"),
        (args.user.is_some(), "-u", "it runs as the user who starts it"),
        (args.disable_evictions, "-M", "nothing is evicted in any case: all items are on disk"),
        (args.lock_memory, "-k", "memory is not locked"),
        (args.slab_growth_factor.is_some(), "-f", "there are no slabs"),
        (args.slab_min_size.is_some(), "-n", "there are no slabs"),
        (args.enable_largepages, "-L", "huge pages are asked for in any case"),
        (args.max_reqs_per_event.is_some(), "-R", "who uses much goes after who uses little"),
        (args.disable_cas, "-C", "every item has a CAS id"),
        (
            args.listen_backlog.is_some(),
            "-b",
            "1024 connections of each core may wait to be accepted",
        ),
        (only_one, "-B", "a connection's first byte says which protocol it speaks"),
        (args.memory_file.is_some(), "-e", "all items are on disk, and there after a restart"),
        (args.napi_ids.is_some(), "-N", "connections are spread over cores by the kernel"),
    ];
    let line = |(_, option, reason)| format!("{option} changes nothing: {reason}");
    words.extend(given.into_iter().filter(|(is_given, ..)| *is_given).map(line));
}

fn port(args: &MemcachedArgs, words: &mut Vec<String>) -> Result<Option<u16>, String> {
    match args.port {
        Some(-1) => Ok(Some(0)),
        Some(0) if args.unix_socket.is_none() => {
            words.push("-p 0: the port cannot be switched off; a free one is taken".to_owned());
            Ok(Some(0))
        }
        Some(0) => Ok(None),
        Some(port) => match u16::try_from(port) {
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(format!("-p {port}: not a port")),
        },
        None => Ok(None),
    }
}

fn listen(args: &MemcachedArgs, words: &mut Vec<String>) -> Result<IpAddr, String> {
    let Some(text) = &args.listen else {
        let is_local = args.unix_socket.is_some();
        return Ok(if is_local { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ANY });
    };
    let mut addresses = text.split(',').filter(|address| !address.is_empty());
    let first = addresses.next().unwrap_or_default();
    if addresses.next().is_some() {
        return Err(format!("-l {text}: give one address; 0.0.0.0 is all of them"));
    }
    let address = match first {
        "*" | "INADDR_ANY" => ANY,
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other
            .parse()
            .map_err(|_| format!("-l {other}: not an address; give the port with -p"))?,
    };
    if address.is_unspecified() {
        words.push("-l: the native port and the admin port listen there as well".to_owned());
    }
    Ok(address)
}

/// Options of -o that are known to memcached 1.6 and have no meaning here, with or without
/// `no_` before them.
const PASSED_OVER: [&str; 27] = [
    "maxconns_fast",
    "hashpower",
    "tail_repair_time",
    "hash_algorithm",
    "lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "read_buf_mem_limit",
    "lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "slab_reassign",
    "slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "slab_chunk_max",
    "slab_sizes",
    "watcher_logbuf_size",
    "worker_logbuf_size",
    "track_sizes",
    "inline_ascii_resp",
    "modern",
    "sock_cookie_id",
];

fn extended(option: &str, options: &mut Options, words: &mut Vec<String>) -> Result<(), String> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    if name == "idle_timeout" {
        let seconds = value.parse().map_err(|_| format!("-o {option}: not a number of seconds"))?;
        options.idle_timeout = Some(seconds);
        return Ok(());
    }
    if name == "drop_privileges" || name.starts_with("ssl_") {
        return Err(format!("-o {name}: there is no such protection here"));
    }
    let plain = name.strip_prefix("no_").unwrap_or(name);
    if name.starts_with("ext_") {
        words.push(format!("-o {name} changes nothing: all items are on disk, in --data-dir"));
    } else if PASSED_OVER.contains(&plain)
        || ["no_hashexpand", "no_drop_privileges"].contains(&name)
    {
        words.push(format!("-o {name} changes nothing: memory and index are managed otherwise"));
    } else {
        return Err(format!("-o {name}: no option of memcached's"));
    }
    Ok(())
}
