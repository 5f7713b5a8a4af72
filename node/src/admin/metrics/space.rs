//! What the disk's space is for, what keeps it in bounds, and what a restart would cost.

use larder_engine::shard::{Ingest, Statistics};

use super::{Display, Exposition, Figure, NANOSECONDS, Type, shards};
use crate::counters::CoreReport;

const FIGURES: [Figure; 19] = [
    ("larder_collections_total", Type::Counter, "Segments of the log that were collected.", |s| {
        s.operations.collections
    }),
    ("larder_collected_records_total", Type::Counter, "Log records moved by collections.", |s| {
        s.operations.collected_records
    }),
    ("larder_collected_bytes_total", Type::Counter, "Bytes of log records so moved.", |s| {
        s.operations.collected_bytes
    }),
    (
        "larder_collected_cached_bytes_total",
        Type::Counter,
        "Of the bytes of log records moved by collections, those that were copied from the value \
         cache and not read.",
        |s| s.operations.collected_cached_bytes,
    ),
    (
        "larder_unreadable_segments",
        Type::Gauge,
        "Segments that are kept because collecting them met damage.",
        |s| s.unreadable_segments,
    ),
    ("larder_space_allocated_bytes", Type::Gauge, "Bytes of segments and tables.", |s| {
        s.space.allocated
    }),
    (
        "larder_space_leased_bytes",
        Type::Gauge,
        "Of these, bytes that leases alone keep; they do not count for the cap.",
        |s| s.space.leased,
    ),
    ("larder_leases", Type::Gauge, "Leases that are held: moments kept for pages.", |s| {
        s.leases.held
    }),
    (
        "larder_leases_ended_for_space_total",
        Type::Counter,
        "Leases that were ended before their time because space was short.",
        |s| s.leases.ended_for_space,
    ),
    (
        "larder_space_live_bytes",
        Type::Gauge,
        "Bytes of keys and values that live, estimated.",
        |s| s.space.live,
    ),
    (
        "larder_space_cap_bytes",
        Type::Gauge,
        "Bytes that the files may take, by the live bytes and --max-space-amp.",
        |s| s.space.cap,
    ),
    (
        "larder_space_headroom_bytes",
        Type::Gauge,
        "Bytes that may still be filled: collection begins when this is little.",
        |s| s.space.headroom,
    ),
    (
        "larder_pace_kept",
        Type::Gauge,
        "1 while writers are kept at the pace of collector or merges.",
        |s| u64::from(s.pace.is_kept),
    ),
    ("larder_pace_holds_total", Type::Counter, "Times that answers to writers were held.", |s| {
        s.pace.holds
    }),
    (
        "larder_recovery_log_bytes",
        Type::Gauge,
        "Bytes of the log that a start would replay now.",
        |s| s.recovery.log_bytes,
    ),
    ("larder_scrub_bytes_total", Type::Counter, "Bytes of files read to look for damage.", |s| {
        s.scrub.bytes
    }),
    ("larder_scrub_passes_total", Type::Counter, "Times that all files were so read.", |s| {
        s.scrub.passes
    }),
    ("larder_scrub_damages_total", Type::Counter, "Damaged places found, each once.", |s| {
        s.scrub.damages
    }),
    (
        "larder_scrub_last_pass_timestamp_seconds",
        Type::Gauge,
        "Unix seconds at which the last pass ended; 0 if none did.",
        |s| s.scrub.pass_ended_at,
    ),
];

pub(super) fn put(out: &mut Exposition, reports: &[CoreReport]) {
    put_node(out, reports);
    for (name, kind, help, value) in FIGURES {
        out.by_shard(reports, (name, kind, help), value);
    }
    let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
    let help = "Seconds for which answers to writers were held.";
    let held = ("larder_pace_held_seconds_total", Type::Counter, help);
    out.by_shard(reports, held, |s| seconds(s.pace.held_nanoseconds));
    let help = "Seconds that replaying larder_recovery_log_bytes would take, at the rate of this \
                start's replay, or at 100 MiB a second if that was under 64 MiB.";
    let estimate = ("larder_recovery_seconds", Type::Gauge, help);
    out.by_shard(reports, estimate, |s| seconds(s.recovery.nanoseconds));
    put_ingest(out, reports);
}

/// The budget is the whole node's: every shard has the same figures.
fn put_node(out: &mut Exposition, reports: &[CoreReport]) {
    let Some(first) = shards(reports).next() else { return };
    let space = &first.statistics.space;
    let limit: &dyn Display = match &space.node_limit {
        Some(bytes) => bytes,
        None => &"+Inf",
    };
    let help = "Bytes of disk that the node may take by --disk-limit.";
    out.single("larder_disk_limit_bytes", Type::Gauge, help, limit);
    let help = "Bytes of the node's files, and of those that space is promised to.";
    out.single("larder_disk_taken_bytes", Type::Gauge, help, space.node_taken);
    let help = "Bytes that the node may still take, by its limit and by the file system.";
    out.single("larder_disk_headroom_bytes", Type::Gauge, help, space.node_headroom);
}

fn put_ingest(out: &mut Exposition, reports: &[CoreReport]) {
    const NAME: &str = "larder_ingest";
    let help = "1 for what the log does with writes: open, waiting until something is freed, or \
                refused.";
    out.family(NAME, Type::Gauge, help);
    for shard in shards(reports) {
        for (name, state) in
            [("open", Ingest::Open), ("waiting", Ingest::Waiting), ("refused", Ingest::Refused)]
        {
            let labels: [(&str, &dyn Display); 2] = [("shard", &shard.shard), ("state", &name)];
            out.sample(NAME, &labels, u8::from(ingest(&shard.statistics) == state));
        }
    }
}

/// Flushes that find no room refuse writes as well.
fn ingest(statistics: &Statistics) -> Ingest {
    if statistics.disk_full { Ingest::Refused } else { statistics.ingest }
}
