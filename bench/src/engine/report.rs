//! The figures of a run as a person reads them.

use std::fmt::Write;
use std::time::Duration;

use super::space_sampler::SpaceSample;
use super::windows::WindowMerger;
use super::{BesideSummary, EngineSettings, EngineSummary, ScanSummary, SpaceSummary};
use crate::load::ErrorSummary;

/// What is shown while the workload goes on. `seen` is how many operations were there at the last
/// call, a second ago.
pub(super) fn progress_line(
    merger: &WindowMerger,
    seen: &mut u64,
    elapsed: Duration,
    space: SpaceSample,
    settings: &EngineSettings,
    keys: u64,
) -> String {
    let operations = merger.operations();
    let rate = operations - std::mem::replace(seen, operations);
    let part = if settings.workload.visits_each_key_once() {
        format!(", {:.0} % of the keys", operations as f64 / keys as f64 * 100.0)
    } else {
        String::new()
    };
    let errors = match merger.errors() {
        0 => String::new(),
        count => format!(", {count} errors"),
    };
    format!(
        "{:5.0} s: {rate} operations/s{part}, p99 {:.0} us, {} on disk for {} live{errors}",
        elapsed.as_secs_f64(),
        merger.latest_p99_us(),
        bytes(space.space_bytes),
        bytes(space.live_bytes),
    )
}

/// The summary in several lines, with a line feed at the end.
pub(crate) fn describe(summary: &EngineSummary) -> String {
    let mut lines = Lines::default();
    lines.head(summary);
    lines.workload(summary);
    lines.device(summary);
    lines.space(&summary.space);
    if let Some(beside) = &summary.beside {
        lines.beside(beside);
    }
    if let Some(verify) = &summary.verify {
        lines.add(format!(
            "verified after closing and opening in {:.2} s: {} found, {} not there, {} wrong",
            verify.reopen_seconds, verify.found, verify.missed, verify.wrong
        ));
        lines.errors("verify error", &verify.errors);
    }
    lines.errors("error", &summary.errors);
    lines.text
}

#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, line: impl std::fmt::Display) {
        writeln!(self.text, "{line}").expect("a string takes every text");
    }

    fn head(&mut self, summary: &EngineSummary) {
        let rate = summary.rate.map_or_else(
            || format!("{} in flight on each", summary.concurrency),
            |rate| format!("{rate:.0}/s due, at most {} in flight on each", summary.concurrency),
        );
        let ttl = summary.ttl_seconds.map_or_else(String::new, |ttl| format!(", ttl {ttl} s"));
        self.add(format!(
            "{}: {} shards on {} threads, {rate}, {} keys of {} bytes ({}), {}-byte values{ttl}, \
             durability {}",
            summary.workload.name(),
            summary.shards,
            summary.threads,
            summary.keys,
            summary.key_size,
            summary.distribution,
            summary.value_size,
            summary.durability,
        ));
        if let Some(warm) = &summary.warm {
            let (stored, seconds) = (warm.stored, warm.seconds);
            self.add(format!("filled first: {stored} keys in {seconds:.2} s"));
            self.errors("fill error", &warm.errors);
        }
    }

    fn workload(&mut self, summary: &EngineSummary) {
        self.add(format!(
            "{} operations in {:.2} s: {:.0} operations/s, {:.3} us of CPU each",
            summary.operations,
            summary.seconds,
            summary.operations_per_second,
            summary.cpu_us_per_operation,
        ));
        if let Some(latency) = &summary.latency {
            self.add(format!(
                "latency us: p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}",
                latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us
            ));
        }
        if let Some(scan) = &summary.scan {
            self.scan(scan);
        }
        if summary.found + summary.missed > 0 {
            self.add(format!("found {}, not there {}", summary.found, summary.missed));
        }
        if summary.waited > 0 {
            self.add(format!("{} operations had to wait inside the engine", summary.waited));
        }
        if summary.not_begun > 0 {
            self.add(format!("{} operations were due and not begun", summary.not_begun));
        }
        let stall = summary.stall;
        let of_shards = summary.shard_stalls.iter().map(|stall| stall.milliseconds);
        self.add(format!(
            "longest stall {:.1} ms at {:.1} s; of one shard {:.1} ms",
            stall.milliseconds,
            stall.at_seconds,
            of_shards.fold(0.0, f64::max)
        ));
        if let Some(evenness) = &summary.evenness {
            self.add(format!(
                "{} of {} windows of {} ms under half of the mean rate; worst {:.0}/s at {:.1} s",
                evenness.windows_under_half,
                evenness.windows,
                summary.window_milliseconds,
                evenness.worst_per_second,
                evenness.worst_at_seconds
            ));
        }
        self.add(format!(
            "peak memory {}, of which {} for checking values",
            bytes(summary.resident_peak_bytes),
            bytes(summary.bookkeeping_bytes)
        ));
    }

    fn beside(&mut self, beside: &BesideSummary) {
        let loads: Vec<&str> = beside.loads.iter().map(|load| load.name()).collect();
        self.add(format!(
            "beside it {}: {} overwrites ({:.0}/s), {} items scanned ({}/s)",
            loads.join(" and "),
            beside.overwrites,
            beside.overwrites_per_second,
            beside.scanned,
            bytes(beside.scanned_bytes_per_second as u64),
        ));
        self.add(format!(
            "  alone these were {:.0} overwrites/s, and {}/s scanned",
            beside.alone_overwrites_per_second,
            bytes(beside.alone_scanned_bytes_per_second as u64),
        ));
        if let Some(quiet) = &beside.quiet {
            let ratio = beside
                .p99_ratio
                .map_or_else(String::new, |ratio| format!("; p99 beside them is {ratio:.2}x that"));
            self.add(format!(
                "  latency us alone: p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}{ratio}",
                quiet.p50_us, quiet.p99_us, quiet.p999_us, quiet.max_us
            ));
        }
        if beside.quiet_not_begun > 0 {
            let count = beside.quiet_not_begun;
            self.add(format!("  {count} operations were due alone and not begun"));
        }
        if let Some(device) = &beside.device {
            self.add(format!(
                "  of the device: reads of clients {:.1} %, all else {:.1} %, alone {:.1} %: {:.1} \
                 % of what it could have had, at {:.2}x the price of its figures",
                device.foreground * 100.0,
                device.background * 100.0,
                device.background_alone * 100.0,
                device.background_kept * 100.0,
                device.price
            ));
            let part = |(class, part): &(&str, f64)| format!("{class} {:.1} %", part * 100.0);
            let parts: Vec<String> = device.classes.iter().map(part).collect();
            self.add(format!("    by class: {}", parts.join(", ")));
        }
        self.errors("  error beside it or alone", &beside.errors);
    }

    fn scan(&mut self, scan: &ScanSummary) {
        let what = if scan.keys_only { "keys" } else { "items" };
        self.add(format!(
            "scanned {} {what} with {}: {:.0} a second, {} a second, {:.3} us of CPU each",
            scan.items,
            bytes(scan.bytes),
            scan.items_per_second,
            bytes(scan.bytes_per_second as u64),
            scan.cpu_us_per_item,
        ));
        self.add(format!(
            "  read requests to the device: {:.0} a second, {:.3} and {:.0} bytes for each item",
            scan.device_reads_per_second, scan.device_reads_per_item, scan.device_bytes_per_item,
        ));
    }

    fn device(&mut self, summary: &EngineSummary) {
        let device = &summary.device;
        let amplification = device
            .write_amplification
            .map_or_else(String::new, |factor| format!(", write amplification {factor:.2}"));
        self.add(format!(
            "device ({}): {} in {} writes, {} in {} reads, {} flushes{amplification}",
            device.source,
            bytes(device.written_bytes),
            device.writes,
            bytes(device.read_bytes),
            device.reads,
            device.syncs
        ));
        let classes = device.classes.iter();
        let classes: Vec<String> =
            classes.map(|class| format!("{} {}", class.class, bytes(class.bytes))).collect();
        if !classes.is_empty() {
            self.add(format!("  by class: {}", classes.join(", ")));
        }
    }

    fn space(&mut self, space: &SpaceSummary) {
        let ratio = |of: u64| match space.live_bytes {
            0 => String::new(),
            live => format!(" ({:.2}x live)", of as f64 / live as f64),
        };
        self.add(format!(
            "space: {} live; {}{} on disk at the end, {}{} at most, at {:.1} s",
            bytes(space.live_bytes),
            bytes(space.final_bytes),
            ratio(space.final_bytes),
            bytes(space.peak_bytes),
            ratio(space.peak_bytes),
            space.peak_at_seconds,
        ));
        if space.windows_over_allowance > 0 {
            self.add(format!(
                "  in {} windows more than 1.5x live + {} of segments",
                space.windows_over_allowance,
                bytes(space.segments_allowed_bytes)
            ));
        }
    }

    fn errors(&mut self, title: &str, errors: &[ErrorSummary]) {
        for error in errors {
            self.add(format!("{title}: {} x {}, first: {}", error.count, error.kind, error.first));
        }
    }
}

/// A number of bytes with the unit that suits it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| count >> shift > 0);
    unit.map_or_else(
        || format!("{count} B"),
        |(name, shift)| format!("{:.2} {name}", count as f64 / (1u64 << shift) as f64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_get_the_unit_that_suits_them() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (1_572_864, "1.50 MiB"),
            (3 << 30, "3.00 GiB"),
            (5 << 40, "5.00 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
