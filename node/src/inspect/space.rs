//! `larder space`: what the bytes are for.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use larder_engine::check::{self, SegmentSpace, SpaceReport};
use serde_json::{Map, Value, json};

use super::{Bytes, Held, InspectError, SpaceArgs, print};

pub(super) fn run(args: &SpaceArgs) -> Result<ExitCode, InspectError> {
    let mut held = Held::new(&args.directory)?;
    let reports =
        held.each_shard(&async |env, shard, progress| check::space(env, shard, progress).await)?;
    held.core.shutdown();
    if args.json {
        let shards = reports.iter().map(|(path, report)| in_json(path, report));
        let shards: Vec<Value> = shards.collect();
        print(&format!("{:#}\n", json!({ "shards": shards })))?;
    } else {
        print(&reports.iter().map(|(path, report)| for_people(path, report)).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts that a shard's bytes fall into: a name for programs, one for people, and the bytes.
fn parts(report: &SpaceReport) -> [(&'static str, &'static str, u64); 13] {
    let sum = |part: fn(&SegmentSpace) -> u64| report.sum(part);
    let open =
        |is_open: bool| report.sum(|it| if it.is_sealed == is_open { 0 } else { it.unwritten });
    [
        ("live", "log: live values", sum(|it| it.live)),
        ("superseded", "log: dead, freed by compaction", sum(|it| it.superseded)),
        ("dead", "log: dead records, frame headers, padding", sum(|it| it.dead)),
        ("replayed", "log: since the last flush, replayed at start", sum(|it| it.replayed)),
        ("open", "log: room in open segments", open(true)),
        ("behind_end", "log: unused behind the ends of full segments", open(false)),
        ("segment_headers", "log: segment headers", sum(|it| it.header)),
        ("spare", "log: spare segments", report.spare),
        ("tables", "tables", report.tables),
        ("manifest", "manifest", report.manifest),
        ("superblock", "superblock", report.superblock),
        ("orphans", "left behind, removed at the next start", report.orphans),
        ("foreign", "not larder's", report.foreign),
    ]
}

/// Segments of collected records: their number, the bytes of their files, and those that live.
fn collected(report: &SpaceReport) -> (usize, u64, u64) {
    let of = |bytes: fn(&SegmentSpace) -> u64| {
        report.sum(|it| if it.is_collected { bytes(it) } else { 0 })
    };
    let count = report.segments.iter().filter(|it| it.is_collected).count();
    (count, of(|it| it.file_bytes), of(|it| it.live))
}

fn in_json(path: &Path, report: &SpaceReport) -> Value {
    let bytes: Map<String, Value> =
        parts(report).iter().map(|(name, _, bytes)| ((*name).to_owned(), json!(bytes))).collect();
    let (count, file_bytes, live_bytes) = collected(report);
    let segments = report.segments.iter().map(|it| {
        json!({
            "number": it.number,
            "collected": it.is_collected,
            "sealed": it.is_sealed,
            "file_bytes": it.file_bytes,
            "header": it.header,
            "live": it.live,
            "superseded": it.superseded,
            "dead": it.dead,
            "replayed": it.replayed,
            "unwritten": it.unwritten,
        })
    });
    json!({
        "directory": path.display().to_string(),
        "total_bytes": report.total,
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
        "replayed_keys": report.replayed_keys,
        "segments": segments.collect::<Vec<_>>(),
    })
}

fn for_people(path: &Path, report: &SpaceReport) -> String {
    let mut text = format!("{}\n", path.display());
    let mut line = |name: &str, bytes: u64| {
        let share = 100.0 * bytes as f64 / report.total.max(1) as f64;
        let size = Bytes(bytes);
        writeln!(text, "  {name:<46} {bytes:>16} {size:>11} {share:>6.1} %")
            .expect("a string takes all");
    };
    for (_, name, bytes) in parts(report).iter().filter(|(_, _, bytes)| *bytes > 0) {
        line(name, *bytes);
    }
    line("total", report.total);
    let (count, bytes, live) = collected(report);
    writeln!(
        text,
        "  {count} segments of collected records hold {}, {} of that live",
        Bytes(bytes),
        Bytes(live)
    )
    .expect("a string takes all");
    writeln!(
        text,
        "  {} tables hold {} entries, {} of them tombstones; compaction would drop {} duplicates, \
         {} expired and {} of emptied namespaces, about {}\n  a start replays changes of {} keys",
        report.table_count,
        report.entries,
        report.tombstones,
        report.duplicates,
        report.expired,
        report.emptied,
        Bytes(report.debt()),
        report.replayed_keys,
    )
    .expect("a string takes all");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_shown_and_the_parts_make_up_the_total() {
        let segment = |number, is_sealed| SegmentSpace {
            number,
            is_collected: is_sealed,
            is_sealed,
            file_bytes: 63,
            header: 1,
            live: 2,
            superseded: 4,
            dead: 8,
            replayed: 16,
            unwritten: 32,
        };
        let report = SpaceReport {
            total: 2 * 63 + 64 + 128 + 256 + 512 + 1024 + 2048,
            superblock: 64,
            manifest: 128,
            segments: vec![segment(1, true), segment(2, false)],
            spare: 256,
            tables: 512,
            orphans: 1024,
            foreign: 2048,
            ..SpaceReport::default()
        };
        let sum: u64 = parts(&report).iter().map(|part| part.2).sum();
        assert_eq!(sum, report.total);
        let text = for_people(Path::new("shard"), &report);
        for (_, name, bytes) in parts(&report) {
            let shown = text.lines().find(|line| line.contains(name)).expect(name);
            assert!(shown.contains(&bytes.to_string()), "{shown}");
        }
        let json = in_json(Path::new("shard"), &report);
        assert_eq!(json["bytes"]["open"], 32);
        let collected = json!({ "segments": 1, "file_bytes": 63, "live_bytes": 2 });
        assert_eq!(json["collected"], collected);
        assert_eq!(json["segments"][0]["collected"], true);
        assert!(text.contains("1 segments of collected records"), "{text}");
        assert_eq!(json["total_bytes"], report.total);
        assert_eq!(json["segments"][0]["live"], 2);
    }
}
