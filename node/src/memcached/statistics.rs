//! The answers to `stats`.

use larder_protocol::memcached::error;
use larder_protocol::memcached::reply::{self, END};

use crate::counters::{CoreReport, Counters};
use crate::facts::Facts;
use crate::limits::{DESCRIPTORS_PER_CORE, DESCRIPTORS_RESERVED};
use crate::process::{self, MEMCACHED_VERSION, Usage};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `stats`.
    General,
    /// `stats settings`.
    Settings,
    /// `stats items`.
    Items,
    /// `stats slabs`.
    Slabs,
    /// `stats conns`.
    Connections,
    /// `stats sizes`.
    Sizes,
    /// `stats reset`.
    Reset,
    /// `stats cachedump`: switched off.
    CacheDump,
    /// Anything else: an error.
    Unknown,
}

impl Section {
    /// The section that the arguments of `stats` name.
    pub fn from_arguments(arguments: &[u8]) -> Self {
        match arguments.split(|&byte| byte == b' ').next().unwrap_or_default() {
            b"" => Self::General,
            b"settings" => Self::Settings,
            b"items" => Self::Items,
            b"slabs" => Self::Slabs,
            b"conns" => Self::Connections,
            b"sizes" => Self::Sizes,
            b"reset" => Self::Reset,
            b"cachedump" => Self::CacheDump,
            _ => Self::Unknown,
        }
    }
}

/// Appends the answer. `reports` has one for each core, `now` is in Unix seconds.
pub fn put(out: &mut Vec<u8>, section: Section, facts: &Facts, reports: &[CoreReport], now: u64) {
    let Some(lines) = lines(section, facts, reports, now) else {
        let is_dump = section == Section::CacheDump;
        let text = if is_dump { error::CACHE_DUMP_NOT_ALLOWED } else { error::ERROR };
        return reply::line(out, text);
    };
    for (name, value) in &lines {
        reply::stat(out, name, value);
    }
    out.extend_from_slice(if section == Section::Reset { reply::RESET } else { END });
}

/// Names and values.
type Lines = Vec<(String, String)>;

/// What a section tells; `None` if there is no such section.
pub(crate) fn lines(
    section: Section,
    facts: &Facts,
    reports: &[CoreReport],
    now: u64,
) -> Option<Lines> {
    let total = Total::of(reports);
    Some(match section {
        Section::General => general(facts, &total, process::usage(), now),
        Section::Settings => settings(facts),
        Section::Items => items(&total),
        Section::Slabs => slabs(facts, &total),
        Section::Connections => connections(reports),
        Section::Sizes => vec![("sizes_status".into(), "disabled".into())],
        Section::Reset => Vec::new(),
        Section::CacheDump | Section::Unknown => return None,
    })
}

/// Sums over the cores.
#[derive(Default)]
struct Total {
    counters: Counters,
    connections: usize,
    entries: u64,
    bytes: u64,
    stores: u64,
    cached_items: usize,
    cached_bytes: usize,
    cache_capacity: usize,
    evictions: u64,
    receive_buffers: usize,
    buffer_shortages: u64,
}

impl Total {
    fn of(reports: &[CoreReport]) -> Self {
        let mut total = Self::default();
        for report in reports {
            total.connections += report.connections;
            total.receive_buffers += report.memory.receive_buffers;
            total.buffer_shortages += report.buffer_shortages;
            total.counters.add(&report.counters);
            for shard in &report.shards {
                let statistics = &shard.statistics;
                total.entries += statistics.index.memtable_entries + statistics.index.table_entries;
                total.bytes += statistics.index.memtable_bytes + statistics.live_bytes;
                total.stores += statistics.operations.stores;
                total.cached_items += statistics.items.entries;
                total.cached_bytes += statistics.items.bytes_used;
                total.cache_capacity += statistics.items.capacity;
                total.evictions += statistics.items.evictions;
            }
        }
        total
    }
}

/// Counters that memcached does not have.
const OWN: [&str; 7] = [
    "stalled_readers",
    "shed_connections",
    "parked",
    "refused",
    "forwarded",
    "damaged",
    "too_late",
];

fn general(facts: &Facts, total: &Total, usage: Usage, now: u64) -> Lines {
    let mut lines: Lines = vec![
        ("pid".into(), std::process::id().to_string()),
        ("uptime".into(), now.saturating_sub(facts.started).to_string()),
        ("time".into(), now.to_string()),
        ("version".into(), MEMCACHED_VERSION.into()),
        ("pointer_size".into(), usize::BITS.to_string()),
        ("rusage_user".into(), format!("{:.6}", usage.user_seconds)),
        ("rusage_system".into(), format!("{:.6}", usage.system_seconds)),
        ("max_connections".into(), facts.connections_max.to_string()),
        ("curr_connections".into(), total.connections.to_string()),
    ];
    // Some are of this node alone: the metrics show them.
    let named = total.counters.named();
    let shown = named.iter().filter(|(name, _)| !OWN.contains(name));
    lines.extend(shown.map(|(name, value)| ((*name).into(), value.to_string())));
    lines.extend([
        ("limit_maxbytes".into(), facts.memory.to_string()),
        // At the limit connections are accepted only to be told so.
        ("accepting_conns".into(), u8::from(total.connections < facts.connections_max).to_string()),
        ("threads".into(), facts.cores.to_string()),
        ("bytes".into(), total.bytes.to_string()),
        ("curr_items".into(), total.entries.to_string()),
        ("total_items".into(), total.stores.to_string()),
        // Items that left the cache for others. Nothing is lost by it: the device has them.
        ("evictions".into(), total.evictions.to_string()),
        // Nothing of the kind is done here.
        ("reclaimed".into(), "0".into()),
        ("hash_is_expanding".into(), "0".into()),
        ("slab_reassign_running".into(), "0".into()),
        ("slabs_moved".into(), "0".into()),
        ("lru_crawler_running".into(), "0".into()),
        ("malloc_fails".into(), "0".into()),
        ("log_watchers".into(), "0".into()),
        // Nobody stops accepting: those beyond the limit are told so.
        ("listen_disabled_num".into(), "0".into()),
        ("time_in_listen_disabled_us".into(), "0".into()),
        ("reserved_fds".into(), reserved_descriptors(facts).to_string()),
        ("read_buf_bytes".into(), total.receive_buffers.to_string()),
        ("response_obj_oom".into(), "0".into()),
        ("read_buf_oom".into(), total.buffer_shortages.to_string()),
    ]);
    lines
}

fn settings(facts: &Facts) -> Lines {
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    let protocol = if facts.gate.is_some() { "ascii" } else { "auto-negotiate" };
    vec![
        ("maxbytes".into(), facts.memory.to_string()),
        ("maxconns".into(), facts.connections_max.to_string()),
        ("tcpport".into(), facts.port.to_string()),
        ("udpport".into(), "0".into()),
        ("inter".into(), facts.listen.clone()),
        // Every item has its place on disk: none goes for want of memory.
        ("evictions".into(), "off".into()),
        ("domain_socket".into(), facts.unix_socket.clone().unwrap_or_else(|| "NULL".into())),
        ("umask".into(), facts.unix_socket_mode.clone()),
        ("num_threads_per_udp".into(), "0".into()),
        ("detail_enabled".into(), "no".into()),
        ("binding_protocol".into(), protocol.into()),
        ("auth_enabled_sasl".into(), "no".into()),
        ("auth_enabled_ascii".into(), yes_no(facts.gate.is_some())),
        ("maxconns_fast".into(), "yes".into()),
        ("slab_reassign".into(), "no".into()),
        ("slab_automove".into(), "0".into()),
        ("lru_crawler".into(), "no".into()),
        ("lru_maintainer_thread".into(), "no".into()),
        ("dump_enabled".into(), "no".into()),
        ("track_sizes".into(), "no".into()),
        ("hash_algorithm".into(), "xxh3".into()),
        ("ssl_enabled".into(), "no".into()),
        ("num_threads".into(), facts.cores.to_string()),
        ("cas_enabled".into(), "yes".into()),
        ("client_flags_size".into(), "4".into()),
        ("item_size_max".into(), facts.item_bytes_max.to_string()),
        ("idle_timeout".into(), facts.idle_timeout.to_string()),
        ("flush_enabled".into(), yes_no(facts.flush_enabled)),
        ("shutdown_command".into(), yes_no(facts.shutdown_enabled)),
        ("durability".into(), facts.durability.clone()),
    ]
}

/// Descriptors that are for no connection and no file of a shard.
fn reserved_descriptors(facts: &Facts) -> u64 {
    DESCRIPTORS_RESERVED + DESCRIPTORS_PER_CORE * facts.cores as u64
}

/// There is one class of items: those in the cache.
fn items(total: &Total) -> Lines {
    if total.cached_items == 0 {
        return Vec::new();
    }
    vec![
        ("items:1:number".into(), total.cached_items.to_string()),
        ("items:1:mem_requested".into(), total.cached_bytes.to_string()),
        ("items:1:evicted".into(), total.evictions.to_string()),
    ]
}

fn slabs(facts: &Facts, total: &Total) -> Lines {
    vec![
        ("1:chunk_size".into(), facts.item_bytes_max.to_string()),
        ("1:used_chunks".into(), total.cached_items.to_string()),
        ("1:get_hits".into(), total.counters.get_hits.to_string()),
        ("1:cmd_set".into(), total.counters.cmd_set.to_string()),
        ("active_slabs".into(), "1".into()),
        ("total_malloced".into(), total.cache_capacity.to_string()),
    ]
}

/// Connections by the core that serves them; their addresses are not shown to other clients.
fn connections(reports: &[CoreReport]) -> Lines {
    let line = |report: &CoreReport| {
        (format!("core{}:connections", report.core), report.connections.to_string())
    };
    reports.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::ShardReport;

    fn report(core: usize) -> CoreReport {
        let counters = Counters { cmd_get: 3, get_hits: 2, forwarded: 1, ..Counters::default() };
        CoreReport {
            core,
            connections: 4,
            waiting: 0,
            memory: Default::default(),
            buffer_shortages: 0,
            counters,
            shards: Vec::new(),
            disk: Default::default(),
            files: Default::default(),
            turns: Default::default(),
        }
    }

    fn text(section: Section) -> String {
        text_of(section, &[report(0), report(1)])
    }

    fn text_of(section: Section, reports: &[CoreReport]) -> String {
        let facts = Facts::example();
        let mut out = Vec::new();
        put(&mut out, section, &facts, reports, 1060);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_general_section_sums_over_the_cores() {
        let text = text(Section::General);
        for line in [
            "STAT uptime 60\r\n",
            "STAT time 1060\r\n",
            "STAT pointer_size 64\r\n",
            "STAT cmd_get 6\r\n",
            "STAT get_hits 4\r\n",
            "STAT curr_connections 8\r\n",
            "STAT max_connections 99\r\n",
            "STAT limit_maxbytes 1073741824\r\n",
            "STAT threads 2\r\n",
            "STAT curr_items 0\r\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(text.ends_with("\r\nEND\r\n") && !text.contains("forwarded"), "{text}");
    }

    #[test]
    fn what_changes_is_no_constant() {
        let mut busy = report(0);
        for (connections, accepting) in [(98, 1), (99, 0), (100, 0)] {
            busy.connections = connections;
            let text = text_of(Section::General, std::slice::from_ref(&busy));
            assert!(text.contains(&format!("STAT accepting_conns {accepting}\r\n")), "{text}");
            assert!(text.contains("STAT evictions 0\r\n"), "{text}");
        }
        let mut statistics = larder_engine::shard::Statistics::default();
        statistics.items.evictions = 41;
        busy.shards.push(ShardReport { shard: 0, statistics, stopped: None });
        let text = text_of(Section::General, &[busy]);
        assert!(text.contains("STAT evictions 41\r\n"), "{text}");
    }

    #[test]
    fn what_memcached_does_not_count_is_not_shown() {
        let text = text(Section::General);
        for name in OWN {
            assert!(!text.contains(&format!("STAT {name} ")), "{name} in {text}");
        }
        let named = Counters::default().named();
        assert!(OWN.iter().all(|own| named.iter().any(|(name, _)| name == own)));
    }

    #[test]
    fn other_sections() {
        assert!(text(Section::Settings).contains("STAT item_size_max 1048576\r\n"));
        assert_eq!(text(Section::Items), "END\r\n");
        assert!(text(Section::Slabs).contains("STAT 1:get_hits 4\r\n"));
        assert!(text(Section::Connections).starts_with("STAT core0:connections 4\r\n"));
        assert_eq!(text(Section::Sizes), "STAT sizes_status disabled\r\nEND\r\n");
        assert_eq!(text(Section::Reset), "RESET\r\n");
        assert_eq!(text(Section::Unknown), "ERROR\r\n");
        let refused = "CLIENT_ERROR stats cachedump not allowed\r\n";
        assert_eq!(text(Section::CacheDump), refused);
    }

    #[test]
    fn sections_are_named_by_the_first_argument() {
        for (arguments, section) in [
            ("", Section::General),
            ("settings", Section::Settings),
            ("items", Section::Items),
            ("slabs", Section::Slabs),
            ("conns", Section::Connections),
            ("sizes", Section::Sizes),
            ("reset", Section::Reset),
            ("cachedump 1 0", Section::CacheDump),
            ("detail on", Section::Unknown),
        ] {
            assert_eq!(Section::from_arguments(arguments.as_bytes()), section);
        }
    }
}
