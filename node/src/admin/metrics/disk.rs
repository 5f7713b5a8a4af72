//! The disk: what each core has asked of it, and how its requests share it.

use std::fmt::Display;

use larder_runtime::device_group::Claimant;
use larder_runtime::device_model::seconds_of;
use larder_runtime::env::IoClass;
use larder_runtime::io_queue::IoClassStatistics;

use super::Type::{Counter, Gauge};
use super::{Exposition, NANOSECONDS, Type};
use crate::counters::CoreReport;
use crate::facts::DiskFacts;

type ClassFigure = (&'static str, Type, &'static str, fn(&IoClassStatistics) -> f64);

/// The figures of each class on each core.
const CLASS_FIGURES: [ClassFigure; 14] = [
    ("reads_total", Counter, "Reads.", |class| class.reads as f64),
    ("operations_total", Counter, "Reads, writes and flushes.", |class| class.completed as f64),
    ("bytes_total", Counter, "Bytes read and written.", |class| class.bytes as f64),
    ("queued", Gauge, "Requests that wait for their turn.", |class| class.queued as f64),
    ("in_flight", Gauge, "Requests that the device has.", |class| class.in_flight as f64),
    ("queue_seconds_total", Counter, "Time that requests waited for their turn.", |class| {
        seconds(class.queue_nanoseconds)
    }),
    (
        "device_seconds_total",
        Counter,
        "Time that requests spent in the kernel and the device.",
        |class| seconds(class.ring_nanoseconds),
    ),
    (
        "after_seconds_total",
        Counter,
        "Time from the completion of requests until who had asked went on.",
        |class| seconds(class.after_nanoseconds),
    ),
    (
        "starved_seconds_total",
        Counter,
        "Time in which requests waited and none of the class was under way.",
        |class| seconds(class.starved_nanoseconds),
    ),
    (
        "charged_seconds_total",
        Counter,
        "Time of the device that requests were charged, by its figures and what became of them.",
        |class| seconds_of(class.charged_tokens),
    ),
    ("splits_total", Counter, "Parts of long requests beyond the first.", |class| {
        class.split as f64
    }),
    ("dispatched_total", Counter, "Requests given to the device.", |class| class.dispatched as f64),
    ("shares", Gauge, "The shares of the class now: as set, times its urgency.", |class| {
        f64::from(class.shares)
    }),
    ("cap_bytes_per_second", Gauge, "The most that the core moves for the class.", |class| {
        class.bandwidth_max.map_or(f64::INFINITY, |bytes| bytes as f64)
    }),
];

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NANOSECONDS
}

/// A number as the text format has it.
fn number(value: f64) -> String {
    if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() }
}

pub(super) fn put(out: &mut Exposition, disk: Option<&DiskFacts>, reports: &[CoreReport]) {
    for (figure, kind, help, value) in CLASS_FIGURES {
        let name = format!("larder_disk_{figure}");
        out.family(&name, kind, help);
        for report in reports {
            for class in IoClass::ALL {
                let labels: [(&str, &dyn Display); 2] =
                    [("core", &report.core), ("class", &class.name())];
                out.sample(&name, &labels, number(value(&report.disk.classes[class as usize])));
            }
        }
    }
    put_cores(out, reports);
    if let Some(disk) = disk {
        put_device(out, disk);
    }
}

fn put_cores(out: &mut Exposition, reports: &[CoreReport]) {
    let reads = ("larder_disk_read_operations_total", Counter, "Reads of all classes.");
    out.by_core(reports, reads, |report| report.disk.reads);
    let bytes = ("larder_disk_read_bytes_total", Counter, "Bytes read.");
    out.by_core(reports, bytes, |report| report.disk.read_bytes);
    let writes = ("larder_disk_write_operations_total", Counter, "Writes of all classes.");
    out.by_core(reports, writes, |report| report.disk.writes);
    let bytes = ("larder_disk_written_bytes_total", Counter, "Bytes written.");
    out.by_core(reports, bytes, |report| report.disk.write_bytes);
    let syncs = ("larder_disk_flushes_total", Counter, "Flushes of the device.");
    out.by_core(reports, syncs, |report| report.disk.syncs);
    let help = "Requests given to the device for each that it has ended, smoothed: above 1.1 it is \
                slower than was measured.";
    let ratio = ("larder_disk_flow_ratio", Gauge, help);
    out.by_core(reports, ratio, |report| report.disk.flow.ratio_thousandths as f64 / 1000.0);
    let help = "The part of the measured rate that is used: below 1 background work is held back \
                because reads take too long, above 1 the disk can do more than was measured.";
    let rate = ("larder_disk_allowed_rate", Gauge, help);
    out.by_core(reports, rate, |report| report.disk.flow.allowed_thousandths as f64 / 1000.0);
}

/// The disk's tokens: as many as 2^24 a millisecond are all that it can do.
fn put_device(out: &mut Exposition, disk: &DiskFacts) {
    const TOKENS: &str = "larder_disk_tokens";
    let help = "The disk's time in tokens, 16,777,216 to a millisecond, for requests that somebody \
                waits for and for the background.";
    out.family(TOKENS, Gauge, help);
    for (whose, claimant) in [("awaited", Claimant::Awaited), ("background", Claimant::Background)]
    {
        let tokens = disk.group.tokens(claimant);
        for (state, count) in
            [("available", tokens.available), ("owed", tokens.owed), ("limit", tokens.limit)]
        {
            out.sample(TOKENS, &[("for", &whose), ("state", &state)], count);
        }
    }
    const MODEL: &str = "larder_disk_model";
    let model = disk.group.model();
    out.family(MODEL, Gauge, "What the disk can do in a second, as it was measured.");
    for (figure, value) in [
        ("reads", model.read_iops),
        ("read_bytes", model.read_bandwidth),
        ("writes", model.write_iops),
        ("written_bytes", model.write_bandwidth),
    ] {
        out.sample(MODEL, &[("figure", &figure)], value);
    }
    const GOAL: &str = "larder_disk_latency_goal_seconds";
    out.single(GOAL, Gauge, "How long a request is to take at most.", seconds(model.latency_goal));
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use larder_runtime::device_group::DeviceGroup;
    use larder_runtime::device_model::DeviceModel;

    use super::*;

    #[test]
    fn a_disk_that_is_known_is_described() {
        let model =
            DeviceModel { read_iops: 1234, latency_goal: 2_000_000, ..DeviceModel::default() };
        let disk = DiskFacts { path: PathBuf::from("/x"), group: DeviceGroup::new(model, 2) };
        let mut out = Exposition::default();
        put(&mut out, Some(&disk), &[]);
        for line in [
            "larder_disk_model{figure=\"reads\"} 1234",
            "larder_disk_latency_goal_seconds 0.002",
            "larder_disk_tokens{for=\"awaited\",state=\"owed\"} 0",
            "larder_disk_tokens{for=\"background\",state=\"owed\"} 0",
        ] {
            assert!(out.0.lines().any(|found| found == line), "{line} in\n{}", out.0);
        }
        let mut unknown = Exposition::default();
        put(&mut unknown, None, &[]);
        assert!(!unknown.0.contains("tokens"), "{}", unknown.0);
    }
}
