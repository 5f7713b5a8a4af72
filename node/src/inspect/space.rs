//! `larder space`, and `/space` of the admin port: what the bytes are for, in the same words.

use std::fmt::{self, Write};
use std::process::ExitCode;

use larder_engine::check;
use larder_engine::space::{CompressedSpace, LeaseSpace, SegmentSpace, SpaceReport};
use serde_json::{Map, Value, json};

use super::{Bytes, Held, InspectError, SpaceArgs, print};
use crate::counters::ShardSpace;

pub(super) fn run(args: &SpaceArgs) -> Result<ExitCode, InspectError> {
    let mut held = Held::new(&args.directory)?;
    let reports =
        held.each_shard(&async |env, shard, progress| check::space(env, shard, progress).await)?;
    held.core.shutdown();
    let shards: Vec<ShardSpace> =
        reports.into_iter().map(|(directory, report)| ShardSpace { directory, report }).collect();
    if args.json {
        print(&document(shards.iter().map(ShardSpace::in_json)))?;
    } else {
        print(&shards.iter().map(ShardSpace::for_people).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All shards as one JSON text.
pub(crate) fn document(shards: impl Iterator<Item = Value>) -> String {
    format!("{:#}\n", json!({ "shards": shards.collect::<Vec<_>>() }))
}

/// Segments of collected records: their number, the bytes of their files, and those that live.
fn collected(report: &SpaceReport) -> (usize, u64, u64) {
    let of = |bytes: fn(&SegmentSpace) -> u64| {
        report.sum(|it| if it.is_collected { bytes(it) } else { 0 })
    };
    let count = report.segments.iter().filter(|it| it.is_collected).count();
    (count, of(|it| it.file_bytes), of(|it| it.live))
}

impl ShardSpace {
    /// The report for programs.
    pub(crate) fn in_json(&self) -> Value {
        let Self { directory, report } = self;
        let parts = report.parts();
        let bytes: Map<String, Value> =
            parts.iter().map(|part| (part.name.to_owned(), json!(part.bytes))).collect();
        let (count, file_bytes, live_bytes) = collected(report);
        json!({
            "directory": directory.display().to_string(),
            "is_running": report.is_running,
            "total_bytes": report.total(),
            "bytes": bytes,
            "tables": {
                "tables": report.table_count,
                "entries": report.entries,
                "tombstones": report.tombstones,
                "duplicates": report.duplicates,
                "expired": report.expired,
                "emptied": report.emptied,
                "debt_bytes": report.debt(),
            },
            "collected": { "segments": count, "file_bytes": file_bytes, "live_bytes": live_bytes },
            "pinned": {
                "bytes": report.pinned.bytes,
                "operations": report.pinned.operations,
                "oldest_seconds": seconds(report.pinned.oldest_nanoseconds),
                "leases": report.pinned.leases.iter().map(lease_in_json).collect::<Vec<_>>(),
            },
            "unflushed_keys": report.unflushed_keys,
            "compressed": {
                "values": report.compressed.map(|compressed| compressed.values),
                "value_bytes": report.compressed.map(|compressed| compressed.value_bytes),
                "record_bytes": report.compressed.map(|compressed| compressed.record_bytes),
            },
            "segments": report.segments.iter().map(segment_in_json).collect::<Vec<_>>(),
        })
    }

    /// The report for people.
    pub(crate) fn for_people(&self) -> String {
        let Self { directory, report } = self;
        let mut text = format!("{}\n", directory.display());
        let total = report.total();
        let mut line = |name: &str, bytes: u64| {
            let share = 100.0 * bytes as f64 / total.max(1) as f64;
            let size = Bytes(bytes);
            writeln!(text, "  {name:<46} {bytes:>16} {size:>11} {share:>6.1} %")
                .expect("a string takes all");
        };
        for part in report.parts().iter().filter(|part| part.bytes > 0) {
            line(part.what, part.bytes);
        }
        line("total", total);
        text + &notes(report)
    }
}

fn lease_in_json(lease: &LeaseSpace) -> Value {
    json!({
        "number": lease.number,
        "bytes": lease.bytes,
        "seconds": seconds(lease.nanoseconds),
        "seconds_left": seconds(lease.nanoseconds_left),
    })
}

fn segment_in_json(segment: &SegmentSpace) -> Value {
    json!({
        "number": segment.number,
        "collected": segment.is_collected,
        "sealed": segment.is_sealed,
        "worth_collecting": segment.is_worth_collecting,
        "file_bytes": segment.file_bytes,
        "header": segment.header,
        "live": segment.live,
        "superseded": segment.superseded,
        "dead": segment.dead,
        "unflushed": segment.unflushed,
        "undurable": segment.undurable,
        "unwritten": segment.unwritten,
    })
}

/// What the parts do not say.
fn notes(report: &SpaceReport) -> String {
    let mut text = String::new();
    let mut line = |line: fmt::Arguments<'_>| {
        writeln!(text, "  {line}").expect("a string takes all");
    };
    let (count, bytes, live) = collected(report);
    let (bytes, live) = (Bytes(bytes), Bytes(live));
    line(format_args!("{count} segments of collected records hold {bytes}, {live} of that live"));
    line(format_args!(
        "{} tables hold {} entries, {} of them tombstones; compaction would drop {} duplicates, {} \
         expired and {} of emptied namespaces, about {}",
        report.table_count,
        report.entries,
        report.tombstones,
        report.duplicates,
        report.expired,
        report.emptied,
        Bytes(report.debt()),
    ));
    line(format_args!("a start replays changes of {} keys", report.unflushed_keys));
    if let Some(CompressedSpace { values, value_bytes, record_bytes }) = report.compressed {
        let (value_bytes, record_bytes) = (Bytes(value_bytes), Bytes(record_bytes));
        line(format_args!(
            "{values} compressed values of {value_bytes} take {record_bytes} with their keys"
        ));
    }
    if report.pinned.bytes > 0 {
        line(format_args!(
            "{} that were freed wait for {} operations under way, the oldest for {:.3} s",
            Bytes(report.pinned.bytes),
            report.pinned.operations,
            seconds(report.pinned.oldest_nanoseconds),
        ));
    }
    for lease in &report.pinned.leases {
        line(format_args!(
            "lease {} pins {} since {:.1} s, and for {:.1} s more at most",
            lease.number,
            Bytes(lease.bytes),
            seconds(lease.nanoseconds),
            seconds(lease.nanoseconds_left),
        ));
    }
    if report.is_running {
        line(format_args!(
            "the node runs: what compaction would drop is estimated from the tables' metadata"
        ));
    }
    text
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::space::PinnedFiles;

    /// Of a shard that runs, with something of every kind.
    fn full_report() -> SpaceReport {
        let segment = |number, is_sealed| SegmentSpace {
            number,
            is_collected: is_sealed,
            is_sealed,
            is_worth_collecting: is_sealed,
            file_bytes: 127,
            header: 1,
            live: 2,
            superseded: 4,
            dead: 8,
            unflushed: 16,
            undurable: 32,
            unwritten: 64,
        };
        SpaceReport {
            is_running: true,
            superblock: 64,
            manifest: 128,
            segments: vec![segment(1, true), segment(2, false)],
            free: 256,
            pinned: PinnedFiles {
                bytes: 77,
                operations: 3,
                oldest_nanoseconds: 1_500_000_000,
                leases: vec![LeaseSpace {
                    number: 4,
                    bytes: 70,
                    nanoseconds: 2_500_000_000,
                    nanoseconds_left: 9_500_000_000,
                }],
            },
            tables: 512,
            entries: 8,
            duplicates: 2,
            orphans: 1024,
            foreign: 2048,
            compressed: Some(CompressedSpace { values: 5, value_bytes: 9000, record_bytes: 2048 }),
            ..SpaceReport::default()
        }
    }

    #[test]
    fn every_part_is_shown_and_the_parts_make_up_the_total() {
        let shard = ShardSpace { directory: "shard".into(), report: full_report() };
        let report = &shard.report;
        assert_eq!(report.total(), 2 * 127 + 64 + 128 + 256 + 77 + 512 + 1024 + 2048);
        let text = shard.for_people();
        for part in report.parts().iter().filter(|part| part.bytes > 0) {
            let shown = text.lines().find(|line| line.contains(part.what)).expect(part.what);
            assert!(shown.contains(&part.bytes.to_string()), "{shown}");
        }
        let json = shard.in_json();
        for part in report.parts() {
            assert_eq!(json["bytes"][part.name], part.bytes);
        }
        assert_eq!(json["bytes"]["debt"], 128);
        assert_eq!(json["total_bytes"], report.total());
        let collected = json!({ "segments": 1, "file_bytes": 127, "live_bytes": 2 });
        assert_eq!(json["collected"], collected);
        assert_eq!(
            (&json["segments"][0]["collected"], &json["is_running"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(json["segments"][0]["live"], 2);
        assert_eq!(json["pinned"]["oldest_seconds"], 1.5);
        assert_eq!(json["compressed"]["value_bytes"], 9000);
        for part in [
            "1 segments of collected records",
            "wait for 3 operations",
            "for 1.500 s",
            "the node runs",
            "lease 4 pins 70 B since 2.5 s, and for 9.5 s more at most",
            "5 compressed values of 8.8 KiB take 2.0 KiB",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
