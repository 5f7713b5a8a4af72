//! How disk requests share the disk, as `/io` shows and changes it.

use larder_runtime::device_group::{Claimant, DeviceTokens};
use larder_runtime::device_model::seconds_of;
use larder_runtime::env::IoClass;
use serde::Serialize;

use crate::config::IoChange;
use crate::counters::CoreReport;
use crate::facts::{DiskFacts, Facts};

const NANOSECONDS: f64 = 1e9;

#[derive(Serialize)]
struct IoPage {
    /// The disk, if it is known what it can do.
    device: Option<DevicePart>,
    cores: Vec<CorePart>,
}

#[derive(Serialize)]
struct DevicePart {
    file: String,
    read_iops: u64,
    read_bandwidth: u64,
    write_iops: u64,
    write_bandwidth: u64,
    latency_goal_us: u64,
    depth_max: Option<u64>,
    mixed_thousandths: u64,
    tokens: TokenPart,
    background_tokens: TokenPart,
}

#[derive(Serialize)]
struct TokenPart {
    available: u64,
    owed: u64,
    limit: u64,
}

#[derive(Serialize)]
struct CorePart {
    core: usize,
    flow_ratio: f64,
    allowed_rate: f64,
    classes: Vec<ClassPart>,
}

#[derive(Serialize)]
struct ClassPart {
    class: &'static str,
    /// What it has now: the usual shares, times the urgency of its work.
    shares: u32,
    usual_shares: u32,
    /// Bytes a second of this core; absent without a cap.
    cap: Option<u64>,
    queued: u64,
    in_flight: u64,
    dispatched: u64,
    completed: u64,
    bytes: u64,
    splits: u64,
    queue_seconds: f64,
    device_seconds: f64,
    after_seconds: f64,
    starved_seconds: f64,
    charged_seconds: f64,
}

/// The page.
pub(super) fn document(facts: &Facts, reports: &[CoreReport]) -> String {
    let device = facts.disk.as_ref().map(device);
    let page = IoPage { device, cores: reports.iter().map(core).collect() };
    let mut text = serde_json::to_string_pretty(&page).expect("the page is plain data");
    text.push('\n');
    text
}

fn device(disk: &DiskFacts) -> DevicePart {
    let model = disk.group.model();
    DevicePart {
        file: disk.path.display().to_string(),
        read_iops: model.read_iops,
        read_bandwidth: model.read_bandwidth,
        write_iops: model.write_iops,
        write_bandwidth: model.write_bandwidth,
        latency_goal_us: model.latency_goal / 1000,
        depth_max: model.depth_max,
        mixed_thousandths: model.mixed_thousandths,
        tokens: tokens(disk, Claimant::Awaited),
        background_tokens: tokens(disk, Claimant::Background),
    }
}

fn tokens(disk: &DiskFacts, claimant: Claimant) -> TokenPart {
    let DeviceTokens { available, owed, limit } = disk.group.tokens(claimant);
    TokenPart { available, owed, limit }
}

fn core(report: &CoreReport) -> CorePart {
    CorePart {
        core: report.core,
        flow_ratio: report.disk.flow.ratio_thousandths as f64 / 1000.0,
        allowed_rate: report.disk.flow.allowed_thousandths as f64 / 1000.0,
        classes: IoClass::ALL.into_iter().map(|class| part(report, class)).collect(),
    }
}

fn part(report: &CoreReport, class: IoClass) -> ClassPart {
    let of_class = &report.disk.classes[class as usize];
    let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
    ClassPart {
        class: class.name(),
        shares: of_class.shares,
        usual_shares: of_class.usual_shares,
        cap: of_class.bandwidth_max,
        queued: of_class.queued,
        in_flight: of_class.in_flight,
        dispatched: of_class.dispatched,
        completed: of_class.completed,
        bytes: of_class.bytes,
        splits: of_class.split,
        queue_seconds: seconds(of_class.queue_nanoseconds),
        device_seconds: seconds(of_class.ring_nanoseconds),
        after_seconds: seconds(of_class.after_nanoseconds),
        starved_seconds: seconds(of_class.starved_nanoseconds),
        charged_seconds: seconds_of(of_class.charged_tokens),
    }
}

/// Reads `shares=scan=50,read=900&caps=scrub=10M`: what the options of `larder serve` take.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_change(query: &str) -> Result<IoChange, String> {
    let mut change = IoChange::default();
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| format!("{name}: `{value}` is no text"))?;
        if seen.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        seen.push(name);
        let wrong = |reason| format!("{name}: {reason}");
        match name {
            "shares" => change.shares = value.parse().map_err(wrong)?,
            "caps" => change.caps = value.parse().map_err(wrong)?,
            _ => return Err(format!("there is no `{name}` to change; there are shares and caps")),
        }
    }
    if seen.is_empty() {
        let example = "/io?shares=scan=50,compaction=100&caps=scrub=10M";
        return Err(format!("it says nothing to change; write for example {example}"));
    }
    Ok(change)
}

/// Text in which `%` and two hexadecimal digits stand for a byte.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = behind;
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal)?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_programs_and_people_write_it() {
        let plain = parse_change("shares=scan=50,read=900&caps=scrub=10M").expect("a change");
        assert_eq!(plain.shares.to_string(), "read=900,scan=50");
        assert_eq!(plain.caps.to_string(), "scrub=10M");
        let encoded = parse_change("caps=scrub%3D10M&shares=scan%3d50%2Cread=900");
        assert_eq!(encoded, Ok(plain));
        let one = parse_change("caps=scan=none&").expect("a change");
        assert_eq!(
            (one.shares.to_string().as_str(), one.caps.to_string().as_str()),
            ("", "scan=none")
        );
    }

    #[test]
    fn what_is_wrong_with_a_change_is_said() {
        for (query, part) in [
            ("", "nothing to change"),
            ("&", "nothing to change"),
            ("share=scan=5", "no `share` to change; there are shares and caps"),
            ("shares", "shares: `` is not CLASS=VALUE"),
            ("shares=scan", "shares: `scan` is not CLASS=VALUE"),
            ("shares=scan=0", "shares: scan: `0`"),
            ("caps=scan=1", "caps: scan: `1` is neither"),
            ("caps=scan=1M&caps=scan=2M", "caps is given twice"),
            ("caps=%", "caps: `%` is no text"),
            ("caps=%+1", "caps: `%+1` is no text"),
            ("caps=%ff", "caps: `%ff` is no text"),
        ] {
            let error = parse_change(query).expect_err(query);
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
