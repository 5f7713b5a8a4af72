//! The node in Prometheus' text format.

mod disk;
mod space;
mod time;

use std::fmt::{self, Display, Write};

use larder_engine::shard::Statistics;
use larder_runtime::file_cache::FileCacheCounters;

use super::{AdminErrors, memory};
use crate::counters::{CoreReport, ShardReport};
use crate::facts::Facts;
use crate::memory_plan::MemoryPlan;
use crate::process::{Usage, VERSION};

const NANOSECONDS: f64 = 1e9;

/// A metric's kind.
#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
}

/// Builds the text.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let mut text = String::new();
        for (label, value) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{label}=\"{value}\"").expect("a string takes all text");
        }
        let braces = if text.is_empty() { ("", "") } else { ("{", "}") };
        self.line(format_args!("{name}{}{text}{} {value}", braces.0, braces.1));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all text");
    }

    fn single(&mut self, name: &str, kind: Type, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn by_core<V: Display>(
        &mut self,
        reports: &[CoreReport],
        (name, kind, help): (&str, Type, &str),
        value: impl Fn(&CoreReport) -> V,
    ) {
        self.family(name, kind, help);
        for report in reports {
            self.sample(name, &[("core", &report.core)], value(report));
        }
    }

    fn by_shard<V: Display>(
        &mut self,
        reports: &[CoreReport],
        (name, kind, help): (&str, Type, &str),
        value: impl Fn(&Statistics) -> V,
    ) {
        self.family(name, kind, help);
        for shard in shards(reports) {
            self.sample(name, &[("shard", &shard.shard)], value(&shard.statistics));
        }
    }
}

pub(super) fn shards(reports: &[CoreReport]) -> impl Iterator<Item = &ShardReport> {
    reports.iter().flat_map(|report| &report.shards)
}

/// The node in Prometheus' text format.
pub fn render(
    facts: &Facts,
    reports: &[CoreReport],
    usage: Usage,
    admin: AdminErrors,
    now: u64,
) -> String {
    let mut out = Exposition::default();
    out.family("larder_build_info", Type::Gauge, "The node's version.");
    out.sample("larder_build_info", &[("version", &VERSION)], 1);
    let uptime = now.saturating_sub(facts.started);
    out.single("larder_uptime_seconds", Type::Gauge, "Seconds since the start.", uptime);
    out.single("larder_memory_limit_bytes", Type::Gauge, "The memory option.", facts.memory);
    let (resident, cpu) = (usage.resident_bytes, usage.user_seconds + usage.system_seconds);
    out.single("process_resident_memory_bytes", Type::Gauge, "Resident memory.", resident);
    out.single("process_cpu_seconds_total", Type::Counter, "CPU time, user and kernel.", cpu);
    const ADMIN: &str = "larder_admin_errors_total";
    out.family(ADMIN, Type::Counter, "Clients of the admin port that were not served.");
    out.sample(ADMIN, &[("step", &"accept")], admin.accept);
    out.sample(ADMIN, &[("step", &"client")], admin.client);
    put_memory(&mut out, &facts.memory_plan, reports, &usage);
    put_cores(&mut out, reports);
    time::put(&mut out, reports);
    disk::put(&mut out, facts.disk.as_ref(), reports);
    put_files(&mut out, reports);
    put_operations(&mut out, reports);
    put_shards(&mut out, reports);
    space::put(&mut out, reports);
    put_caches(&mut out, reports);
    out.0
}

/// Where the process's memory is.
fn put_memory(out: &mut Exposition, plan: &MemoryPlan, reports: &[CoreReport], usage: &Usage) {
    const NAME: &str = "larder_memory_bytes";
    out.family(
        NAME,
        Type::Gauge,
        "Resident memory by what it is for, as the node accounts for it.",
    );
    let parts = memory::parts(reports, usage);
    for (part, bytes) in &parts {
        out.sample(NAME, &[("part", part)], bytes);
    }
    let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let all = "The parts of larder_memory_bytes together.";
    out.single("larder_memory_accounted_bytes", Type::Gauge, all, sum);
    const BOUND: &str = "larder_memory_bound_bytes";
    out.family(BOUND, Type::Gauge, "The most that each part may take; together the memory option.");
    for (part, bytes) in plan.parts() {
        out.sample(BOUND, &[("part", &part)], bytes);
    }
    let bound = ("larder_connection_memory_limit_bytes", Type::Gauge, "What connections may hold.");
    out.by_core(reports, bound, |report| report.memory.bound);
}

fn put_cores(out: &mut Exposition, reports: &[CoreReport]) {
    use Type::{Counter, Gauge};
    out.by_core(reports, ("larder_connections", Gauge, "Open connections."), |r| r.connections);
    let waiting =
        ("larder_waiting_requests", Gauge, "Requests that wait for disk or another core.");
    out.by_core(reports, waiting, |report| report.waiting);
    let turns = ("larder_loop_turns_total", Counter, "Turns of the core's loop.");
    out.by_core(reports, turns, |report| report.turns.turns);
    let enters = ("larder_loop_enters_total", Counter, "Calls of io_uring_enter.");
    out.by_core(reports, enters, |report| report.turns.enters);
    let parks = ("larder_loop_parks_total", Counter, "Times that the core went to sleep.");
    out.by_core(reports, parks, |report| report.turns.parks);
    let wakes = ("larder_loop_wakes_total", Counter, "Times that another thread woke the core.");
    out.by_core(reports, wakes, |report| report.turns.wakes);
    let help = "Receives that found no buffer free and were armed again.";
    let shortages = ("larder_receive_buffer_shortages_total", Counter, help);
    out.by_core(reports, shortages, |report| report.buffer_shortages);
    let Some(first) = reports.first() else { return };
    for (index, (name, _)) in first.counters.named().iter().enumerate() {
        let metric = format!("larder_{}_total", name.trim_start_matches("total_"));
        let help = format!("The count that `stats` calls {name}.");
        out.by_core(reports, (&metric, Counter, &help), |r| r.counters.named()[index].1);
    }
}

fn put_files(out: &mut Exposition, reports: &[CoreReport]) {
    use Type::{Counter, Gauge};
    type FileFigure = (&'static str, Type, &'static str, fn(&FileCacheCounters) -> u64);
    let figures: [FileFigure; 7] = [
        ("open", Gauge, "Files that are open.", |files| files.open as u64),
        ("open_limit", Gauge, "Files that may be open.", |files| files.open_max as u64),
        ("handles", Gauge, "Files that the shards hold, open or not.", |files| {
            files.handles as u64
        }),
        ("opens_total", Counter, "Files opened.", |files| files.opens),
        ("evictions_total", Counter, "Files closed for others.", |files| files.evictions),
        ("waits_total", Counter, "Openings that waited for another file.", |files| files.waits),
        ("forced_syncs_total", Counter, "Files synced to be closed.", |files| files.syncs),
    ];
    for (figure, kind, help, value) in figures {
        let name = format!("larder_files_{figure}");
        out.by_core(reports, (&name, kind, help), |report| value(&report.files));
    }
}

fn put_operations(out: &mut Exposition, reports: &[CoreReport]) {
    const NAME: &str = "larder_operations_total";
    out.family(NAME, Type::Counter, "Operations that the engine was asked for.");
    for shard in shards(reports) {
        let operations = &shard.statistics.operations;
        for (operation, count) in [
            ("get", operations.reads),
            ("set", operations.stores),
            ("delete", operations.deletes),
            ("arithmetic", operations.arithmetics),
        ] {
            let labels: [(&str, &dyn Display); 2] =
                [("shard", &shard.shard), ("operation", &operation)];
            out.sample(NAME, &labels, count);
        }
    }
    const STOPPED: &str = "larder_shard_stopped";
    out.family(STOPPED, Type::Gauge, "1 if a write failed and the shard takes no more.");
    for shard in shards(reports) {
        let value = u8::from(shard.stopped.is_some());
        out.sample(STOPPED, &[("shard", &shard.shard)], value);
    }
}

type Figure = (&'static str, Type, &'static str, fn(&Statistics) -> u64);

const FIGURES: [Figure; 27] = [
    ("larder_cached_reads_total", Type::Counter, "Reads answered by the value cache.", |s| {
        s.operations.cached
    }),
    ("larder_waited_total", Type::Counter, "Operations that had to wait.", |s| s.operations.later),
    ("larder_value_reads_total", Type::Counter, "Values read from the log.", |s| {
        s.operations.value_reads
    }),
    ("larder_flushes_total", Type::Counter, "Memtables written out.", |s| s.index.counters.flushes),
    ("larder_flush_bytes_total", Type::Counter, "Bytes of tables written by flushes.", |s| {
        s.index.counters.flush_bytes
    }),
    ("larder_compactions_total", Type::Counter, "Merges done.", |s| s.index.counters.compactions),
    ("larder_compaction_bytes_total", Type::Counter, "Bytes of tables written by merges.", |s| {
        s.index.counters.compaction_bytes
    }),
    ("larder_log_frames_total", Type::Counter, "Frames written to the log.", |s| s.log.frames),
    ("larder_log_records_total", Type::Counter, "Records appended to the log.", |s| s.log.records),
    ("larder_log_frame_bytes_total", Type::Counter, "Bytes of frames, padding included.", |s| {
        s.log.frame_bytes
    }),
    ("larder_log_record_bytes_total", Type::Counter, "Bytes of records.", |s| s.log.record_bytes),
    ("larder_compressed_values_total", Type::Counter, "Values that were stored compressed.", |s| {
        s.compression.values
    }),
    (
        "larder_compressed_before_bytes_total",
        Type::Counter,
        "Bytes of values that were stored compressed, as clients sent them.",
        |s| s.compression.bytes_before,
    ),
    (
        "larder_compressed_after_bytes_total",
        Type::Counter,
        "Bytes that these values take compressed.",
        |s| s.compression.bytes_after,
    ),
    (
        "larder_incompressible_values_total",
        Type::Counter,
        "Values of at least --compress-from that were stored as they are: to compress them would \
         not have saved an eighth.",
        |s| s.compression.incompressible,
    ),
    ("larder_memtable_entries", Type::Gauge, "Keys in memtables.", |s| s.index.memtable_entries),
    ("larder_memtable_bytes", Type::Gauge, "Bytes of memtables, estimated.", |s| {
        s.index.memtable_bytes
    }),
    ("larder_table_entries", Type::Gauge, "Entries in tables, older versions included.", |s| {
        s.index.table_entries
    }),
    ("larder_tables", Type::Gauge, "Tables.", |s| s.index.tables),
    ("larder_table_bytes", Type::Gauge, "Bytes of the tables' files.", |s| s.index.table_bytes),
    ("larder_table_memory_bytes", Type::Gauge, "Memory of table indexes and filters.", |s| {
        s.index.table_memory_bytes
    }),
    (
        "larder_memory_excess_bytes",
        Type::Gauge,
        "Memory of table indexes and filters beyond what the caches can give up.",
        |s| s.memory.excess,
    ),
    ("larder_segments", Type::Gauge, "Segments of the value log.", |s| s.segments),
    ("larder_segment_bytes", Type::Gauge, "Bytes of the segments' files.", |s| s.segment_bytes),
    ("larder_live_bytes", Type::Gauge, "Bytes of the log that tables point at.", |s| s.live_bytes),
    ("larder_waiting_keys", Type::Gauge, "Keys with operations that wait.", |s| s.waiting_keys),
    ("larder_disk_full", Type::Gauge, "1 if writes are refused for want of space.", |s| {
        u64::from(s.disk_full)
    }),
];

fn put_shards(out: &mut Exposition, reports: &[CoreReport]) {
    for (name, kind, help, value) in FIGURES {
        out.by_shard(reports, (name, kind, help), value);
    }
}

fn put_caches(out: &mut Exposition, reports: &[CoreReport]) {
    type CacheFigure = (&'static str, Type, fn(&larder_engine::cache::CacheCounters) -> u64);
    let figures: [CacheFigure; 9] = [
        ("entries", Type::Gauge, |cache| cache.entries as u64),
        ("bytes", Type::Gauge, |cache| cache.bytes_used as u64),
        ("capacity_bytes", Type::Gauge, |cache| cache.capacity as u64),
        ("hits_total", Type::Counter, |cache| cache.hits),
        ("misses_total", Type::Counter, |cache| cache.misses),
        ("inserts_total", Type::Counter, |cache| cache.inserts),
        ("evictions_total", Type::Counter, |cache| cache.evictions),
        ("ghost_hits_total", Type::Counter, |cache| cache.ghost_hits),
        ("near_misses_total", Type::Counter, |cache| cache.near_misses),
    ];
    for (figure, kind, value) in figures {
        let name = format!("larder_cache_{figure}");
        let help = match figure {
            "near_misses_total" => {
                "Reads of the device that one more step of memory for the value cache (items) or \
                 the block cache (blocks) would have saved."
            }
            _ => "Of the value cache (items) and the block cache (blocks).",
        };
        out.family(&name, kind, help);
        for shard in shards(reports) {
            let statistics = &shard.statistics;
            for (cache, counters) in
                [("items", &statistics.items), ("blocks", &statistics.index.blocks)]
            {
                let labels: [(&str, &dyn Display); 2] =
                    [("shard", &shard.shard), ("cache", &cache)];
                out.sample(&name, &labels, value(counters));
            }
        }
    }
}

/// Whether every shard takes writes, and what `/healthz` says.
pub fn health(reports: &[CoreReport], cores: usize) -> Result<(), String> {
    if let Some((shard, reason)) =
        shards(reports).find_map(|shard| Some((shard.shard, shard.stopped.as_ref()?)))
    {
        return Err(format!("shard {shard} takes no more writes: {reason}\n"));
    }
    if reports.len() < cores {
        return Err(format!("only {} of {cores} cores answer\n", reports.len()));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::counters::CoreMemory;
    use std::collections::BTreeSet;

    pub(in crate::admin) fn reports() -> Vec<CoreReport> {
        let report = |core: usize| {
            let mut report = CoreReport {
                core,
                connections: 3,
                watchers: 0,
                counts_prefixes: false,
                waiting: 1,
                memory: CoreMemory { input: 5, output: 6, ..CoreMemory::default() },
                buffer_shortages: 2,
                counters: Default::default(),
                shards: Vec::new(),
                disk: Default::default(),
                files: Default::default(),
                turns: Default::default(),
                time: Default::default(),
            };
            let reads = &mut report.disk.classes[larder_runtime::env::IoClass::Read as usize];
            reads.reads = 7 + core as u64;
            reads.after_nanoseconds = 500_000_000;
            reads.shares = 900;
            reads.bandwidth_max = Some(1 << 20);
            report.disk.flow.ratio_thousandths = 1_250;
            report.time.cpu.queues[larder_runtime::env::TaskQueue::Scan as usize] = 250_000_000;
            report.time.cpu.idle = 3_000_000_000;
            report.time.task_shares = [1000, 400, 600, 100, 100, 50];
            report.time.stalls.counts[0] = 3;
            report.time.stalls.longest = 12_500_000;
            let mut statistics = Statistics::default();
            statistics.operations.reads = 40 + core as u64;
            statistics.ingest = larder_engine::shard::Ingest::Waiting;
            statistics.space.node_taken = 9;
            statistics.items.near_misses = 17;
            statistics.index.blocks.capacity = 7000;
            statistics.recovery.nanoseconds = 1_500_000_000;
            statistics.pace.held_nanoseconds = 2_500_000_000;
            report.shards.push(ShardReport { shard: core as u16, statistics, stopped: None });
            report
        };
        vec![report(0), report(1)]
    }

    #[test]
    fn every_sample_belongs_to_a_family_that_is_described_once() {
        let admin = AdminErrors { accept: 4, client: 5 };
        let text = render(&Facts::example(), &reports(), Usage::default(), admin, 1060);
        let mut families = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                current = rest.split(' ').next().expect("a name").to_owned();
                assert!(families.insert(current.clone()), "{current} is described twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(rest.starts_with(&format!("{current} ")), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().expect("a name");
                assert_eq!(name, current, "{line}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for line in [
            "larder_disk_reads_total{core=\"0\",class=\"read\"} 7",
            "larder_disk_reads_total{core=\"1\",class=\"read\"} 8",
            "larder_disk_after_seconds_total{core=\"1\",class=\"read\"} 0.5",
            "larder_disk_shares{core=\"0\",class=\"read\"} 900",
            "larder_disk_cap_bytes_per_second{core=\"0\",class=\"read\"} 1048576",
            "larder_disk_cap_bytes_per_second{core=\"0\",class=\"scan\"} +Inf",
            "larder_disk_flow_ratio{core=\"0\"} 1.25",
            "larder_disk_allowed_rate{core=\"1\"} 1",
            "larder_operations_total{shard=\"1\",operation=\"get\"} 41",
            "larder_connections{core=\"1\"} 3",
            "larder_memory_bytes{part=\"input\"} 10",
            "larder_memory_bytes{part=\"output\"} 12",
            "larder_memory_accounted_bytes 22",
            "larder_memory_bound_bytes{part=\"receive_buffers\"} 2097152",
            "larder_memory_excess_bytes{shard=\"1\"} 0",
            "larder_cache_capacity_bytes{shard=\"1\",cache=\"blocks\"} 7000",
            "larder_cache_near_misses_total{shard=\"0\",cache=\"items\"} 17",
            "larder_receive_buffer_shortages_total{core=\"0\"} 2",
            "larder_uptime_seconds 60",
            "larder_admin_errors_total{step=\"accept\"} 4",
            "larder_files_open_limit{core=\"1\"} 0",
            "larder_cpu_seconds_total{core=\"1\",class=\"scan\"} 0.25",
            "larder_cpu_seconds_total{core=\"1\",class=\"idle\"} 3",
            "larder_task_shares{core=\"0\",class=\"compaction\"} 600",
            "larder_stalls_total{core=\"0\",class=\"foreground\"} 3",
            "larder_stall_longest_seconds{core=\"1\"} 0.0125",
            "larder_disk_limit_bytes +Inf",
            "larder_disk_taken_bytes 9",
            "larder_ingest{shard=\"1\",state=\"open\"} 0",
            "larder_ingest{shard=\"1\",state=\"waiting\"} 1",
            "larder_recovery_seconds{shard=\"0\"} 1.5",
            "larder_pace_held_seconds_total{shard=\"0\"} 2.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_stopped_shard_or_a_silent_core_is_not_healthy() {
        let mut reports = reports();
        assert_eq!(health(&reports, 2), Ok(()));
        assert!(health(&reports, 3).expect_err("one is silent").contains("2 of 3"));
        reports[1].shards[0].stopped = Some("write failed".into());
        let text = health(&reports, 2).expect_err("one has stopped");
        assert!(text.contains("shard 1") && text.contains("write failed"));
    }
}
