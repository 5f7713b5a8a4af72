//! The answers to `stats`.

use std::net::SocketAddr;

use larder_protocol::memcached::error;
use larder_protocol::memcached::reply::{self, END};

use crate::counters::{ConnectionList, ConnectionReport, ConnectionState, CoreReport, Counters};
use crate::facts::Facts;
use crate::limits::{
    DESCRIPTORS_PER_CORE, DESCRIPTORS_RESERVED, LISTEN_BACKLOG, WATCHER_OUTPUT_BYTES,
};
use crate::prefixes::PrefixCounts;
use crate::process::{self, MEMCACHED_VERSION, Usage};
use crate::request::NodeRequest;

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
    /// `stats sizes_enable`, `stats sizes_disable`.
    SizesSwitch,
    /// `stats reset`.
    Reset,
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
            b"sizes_enable" | b"sizes_disable" => Self::SizesSwitch,
            _ => Self::Unknown,
        }
    }

    /// What the node is asked for it.
    pub(super) fn request(self) -> NodeRequest {
        match self {
            Self::Connections => NodeRequest::Connections,
            section => NodeRequest::Reports { reset: section == Self::Reset },
        }
    }
}

/// Appends the answer. `reports` has one for each core, `now` is in Unix seconds.
pub fn put(out: &mut Vec<u8>, section: Section, facts: &Facts, reports: &[CoreReport], now: u64) {
    let Some(lines) = lines(section, facts, reports, now) else {
        return reply::line(out, error::ERROR);
    };
    for (name, value) in &lines {
        reply::stat(out, name, value);
    }
    out.extend_from_slice(match section {
        Section::Reset => reply::RESET,
        // memcached does not end these answers.
        Section::SizesSwitch => &[],
        _ => END,
    });
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
        Section::Settings => settings(facts, &total),
        Section::Items => items(&total),
        Section::Slabs => slabs(facts, &total),
        Section::Sizes | Section::SizesSwitch => vec![("sizes_status".into(), "disabled".into())],
        Section::Reset => Vec::new(),
        Section::Connections => panic!("the cores' figures do not list connections"),
        Section::Unknown => return None,
    })
}

/// Sums over the cores.
#[derive(Default)]
struct Total {
    counters: Counters,
    connections: usize,
    watchers: usize,
    counts_prefixes: bool,
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
            total.watchers += report.watchers;
            total.counts_prefixes |= report.counts_prefixes;
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
        ("log_watchers".into(), total.watchers.to_string()),
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

fn settings(facts: &Facts, total: &Total) -> Lines {
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    let protocol = if facts.gate.is_some() { "ascii" } else { "auto-negotiate" };
    vec![
        ("maxbytes".into(), facts.memory.to_string()),
        ("maxconns".into(), facts.connections_max.to_string()),
        ("tcpport".into(), facts.port.to_string()),
        ("udpport".into(), "0".into()),
        ("inter".into(), facts.listen.clone()),
        ("verbosity".into(), crate::log::level().to_string()),
        // Every item has its place on disk: none goes for want of memory.
        ("evictions".into(), "off".into()),
        ("domain_socket".into(), facts.unix_socket.clone().unwrap_or_else(|| "NULL".into())),
        ("umask".into(), facts.unix_socket_mode.clone()),
        ("num_threads_per_udp".into(), "0".into()),
        ("stat_key_prefix".into(), char::from(facts.prefix_delimiter).to_string()),
        ("detail_enabled".into(), yes_no(total.counts_prefixes)),
        ("tcp_backlog".into(), LISTEN_BACKLOG.to_string()),
        ("binding_protocol".into(), protocol.into()),
        ("auth_enabled_sasl".into(), "no".into()),
        ("auth_enabled_ascii".into(), yes_no(facts.gate.is_some())),
        ("maxconns_fast".into(), "yes".into()),
        ("slab_reassign".into(), "no".into()),
        ("slab_automove".into(), "0".into()),
        // It lists what is stored; what has expired goes without it.
        ("lru_crawler".into(), "yes".into()),
        ("lru_maintainer_thread".into(), "no".into()),
        ("dump_enabled".into(), yes_no(facts.dump_enabled)),
        ("watch_enabled".into(), yes_no(facts.watch_enabled)),
        ("watcher_logbuf_size".into(), WATCHER_OUTPUT_BYTES.to_string()),
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

/// There is one class, of all items: tools list what is in the classes that are named here.
fn items(total: &Total) -> Lines {
    if total.entries == 0 {
        return Vec::new();
    }
    vec![
        ("items:1:number".into(), total.entries.to_string()),
        ("items:1:mem_requested".into(), total.cached_bytes.to_string()),
        ("items:1:evicted".into(), total.evictions.to_string()),
        ("items:1:outofmemory".into(), total.counters.store_no_memory.to_string()),
        // Nothing of the kind is done here.
        ("items:1:tailrepairs".into(), "0".into()),
        ("items:1:reclaimed".into(), "0".into()),
        ("items:1:crawler_reclaimed".into(), "0".into()),
    ]
}

fn slabs(facts: &Facts, total: &Total) -> Lines {
    let counters = &total.counters;
    vec![
        ("1:chunk_size".into(), facts.item_bytes_max.to_string()),
        ("1:used_chunks".into(), total.cached_items.to_string()),
        ("1:get_hits".into(), counters.get_hits.to_string()),
        ("1:cmd_set".into(), counters.cmd_set.to_string()),
        ("1:delete_hits".into(), counters.delete_hits.to_string()),
        ("1:incr_hits".into(), counters.incr_hits.to_string()),
        ("1:decr_hits".into(), counters.decr_hits.to_string()),
        ("1:cas_hits".into(), counters.cas_hits.to_string()),
        ("1:cas_badval".into(), counters.cas_badval.to_string()),
        ("1:touch_hits".into(), counters.touch_hits.to_string()),
        ("active_slabs".into(), "1".into()),
        ("total_malloced".into(), total.cache_capacity.to_string()),
    ]
}

/// Connections and listeners, one by one.
pub(super) fn connections(facts: &Facts, list: &ConnectionList) -> Lines {
    let path = facts.unix_socket.as_deref().unwrap_or_default();
    let place = |address: Option<SocketAddr>| match address {
        Some(address) => format!("tcp:{address}"),
        None => format!("unix:{path}"),
    };
    let mut lines = Lines::new();
    for (report, state) in list.by_number() {
        let ConnectionReport { number, peer, listener, silent_seconds, .. } = report;
        let mut put = |name: &str, value: String| lines.push((format!("{number}:{name}"), value));
        if state == ConnectionState::Listening {
            put("addr", place(*listener));
        } else {
            put("addr", place(*peer));
            put("listen_addr", place(*listener));
        }
        let state = match state {
            ConnectionState::Listening => "conn_listening",
            ConnectionState::Reading => "conn_read",
            ConnectionState::Asking => "conn_parse_cmd",
            ConnectionState::Working => "conn_io_queue",
            ConnectionState::Writing => "conn_mwrite",
            ConnectionState::Watching => "conn_watch",
        };
        put("state", state.to_owned());
        put("secs_since_last_cmd", silent_seconds.to_string());
    }
    lines
}

/// Appends what was counted by prefix.
pub(super) fn put_prefixes(prefixes: &[(Box<[u8]>, PrefixCounts)], out: &mut Vec<u8>) {
    for (prefix, counts) in prefixes {
        let PrefixCounts { gets, hits, sets, deletes } = counts;
        out.extend_from_slice(b"PREFIX ");
        out.extend_from_slice(prefix);
        let counts = format!(" get {gets} hit {hits} set {sets} del {deletes}");
        reply::line(out, &counts);
    }
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::counters::ShardReport;

    fn report(core: usize) -> CoreReport {
        let counters = Counters { cmd_get: 3, get_hits: 2, forwarded: 1, ..Counters::default() };
        CoreReport {
            core,
            connections: 4,
            watchers: 1,
            counts_prefixes: false,
            waiting: 0,
            memory: Default::default(),
            buffer_shortages: 0,
            counters,
            shards: Vec::new(),
            disk: Default::default(),
            files: Default::default(),
            turns: Default::default(),
            time: Default::default(),
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
        assert!(text(Section::General).contains("STAT log_watchers 2\r\n"));
        assert_eq!(text(Section::Sizes), "STAT sizes_status disabled\r\nEND\r\n");
        assert_eq!(text(Section::Reset), "RESET\r\n");
        assert_eq!(text(Section::SizesSwitch), "STAT sizes_status disabled\r\n");
        assert_eq!(text(Section::Unknown), "ERROR\r\n");
    }

    #[test]
    fn connections_are_listed_as_memcached_lists_them() {
        let address = |text: &str| Some(text.parse().expect("an address"));
        let (listener, peer) = (address("127.0.0.1:11211"), address("10.0.0.9:5000"));
        let report = |number, peer, listener, state| ConnectionReport {
            number,
            peer,
            listener,
            state,
            silent_seconds: number + 1,
        };
        let facts = Facts { unix_socket: Some("/run/larder".to_owned()), ..Facts::example() };
        let first = [
            report(0, None, listener, ConnectionState::Listening),
            report(8, None, None, ConnectionState::Watching),
        ];
        let second = [report(7, peer, listener, ConnectionState::Working)];
        let lists = vec![Arc::from(first), Arc::from(second)];
        let lines = connections(&facts, &ConnectionList::new(lists, 7));
        let lines: Vec<String> =
            lines.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(
            lines,
            [
                "0:addr tcp:127.0.0.1:11211",
                "0:state conn_listening",
                "0:secs_since_last_cmd 1",
                "7:addr tcp:10.0.0.9:5000",
                "7:listen_addr tcp:127.0.0.1:11211",
                "7:state conn_parse_cmd",
                "7:secs_since_last_cmd 8",
                "8:addr unix:/run/larder",
                "8:listen_addr unix:/run/larder",
                "8:state conn_watch",
                "8:secs_since_last_cmd 9",
            ]
        );
    }

    #[test]
    fn prefixes_are_told_as_memcached_tells_them() {
        let counts = PrefixCounts { gets: 3, hits: 2, sets: 5, deletes: 1 };
        let mut out = Vec::new();
        put_prefixes(
            &[(b"".as_slice().into(), counts), (b"a".as_slice().into(), counts)],
            &mut out,
        );
        let expected =
            "PREFIX  get 3 hit 2 set 5 del 1\r\nPREFIX a get 3 hit 2 set 5 del 1\r\nEND\r\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
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
            ("sizes_enable", Section::SizesSwitch),
            ("nonsense", Section::Unknown),
        ] {
            assert_eq!(Section::from_arguments(arguments.as_bytes()), section);
        }
    }
}
