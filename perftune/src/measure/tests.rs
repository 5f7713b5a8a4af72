//! Measuring simulated disks, whose figures are known.

use super::*;
use crate::disk::{from_toml, to_toml};

/// A disk by its figures, and a clock.
struct SimulatedDisk {
    iops: [f64; 2],
    bandwidth: [f64; 2],
    latency_us: [f64; 2],
    /// What it does together of reads and writes: 1.0 is one at the cost of the other.
    mixed: f64,
    /// What it writes at once, in bytes.
    block: u32,
    /// For so many milliseconds it writes so many times as fast.
    burst: (f64, f64),
    /// By how much rates vary, and the state of the random numbers.
    noise: f64,
    random: u64,
    milliseconds: f64,
    loads: Vec<DiskLoad>,
}

fn disk() -> SimulatedDisk {
    SimulatedDisk {
        iops: [400_000.0, 220_000.0],
        bandwidth: [3.0e9, 2.2e9],
        latency_us: [90.0, 25.0],
        mixed: 1.0,
        block: 4096,
        burst: (0.0, 1.0),
        noise: 0.0,
        random: 1,
        milliseconds: 0.0,
        loads: Vec::new(),
    }
}

impl SimulatedDisk {
    /// Requests a second of one direction, if it is alone.
    fn rate(&self, direction: usize, load: DiskLoad) -> f64 {
        // Random writes cost as much for each block; in a row they are joined.
        let blocks = match load.kind {
            LoadKind::RandomWrite => f64::from(load.length.div_ceil(self.block)),
            _ => 1.0,
        };
        let by_length = self.bandwidth[direction] / f64::from(load.length);
        let best = by_length.min(self.iops[direction] / blocks);
        let transfer = f64::from(load.length) / self.bandwidth[direction] * 1e6;
        best.min(f64::from(load.depth) * 1e6 / (self.latency_us[direction] + transfer))
    }

    fn noise(&mut self) -> f64 {
        // An additive sequence: even, and the same in each run that begins with the same number.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        1.0 + self.noise * ((self.random >> 33) as f64 / f64::from(u32::MAX >> 1) - 0.5)
    }
}

impl LoadRunner for SimulatedDisk {
    fn run(&mut self, load: DiskLoad) -> Result<LoadSample, String> {
        const PARTS: u32 = 32;
        self.loads.push(load);
        let (reads, writes) = (self.rate(0, load), self.rate(1, load));
        let plain = match load.kind {
            LoadKind::RandomRead | LoadKind::SequentialRead => reads,
            LoadKind::RandomWrite | LoadKind::SequentialWrite => writes,
            LoadKind::Mixed => 2.0 * self.mixed / (1.0 / reads + 1.0 / writes),
        };
        let is_write = matches!(load.kind, LoadKind::RandomWrite | LoadKind::SequentialWrite);
        let mut rates = Vec::new();
        for _ in 0..PARTS {
            let is_burst = is_write && self.milliseconds < self.burst.0;
            let factor = if is_burst { self.burst.1 } else { 1.0 };
            rates.push(plain * factor * self.noise());
            self.milliseconds += f64::from(load.milliseconds) / f64::from(PARTS);
        }
        let p99_us = (f64::from(load.depth) / plain * 1e6) as u32;
        Ok(LoadSample { rates, reads_per_write: 1.0, p99_us })
    }
}

fn is_near(found: u64, expected: f64, percent: f64) -> bool {
    (found as f64 - expected).abs() <= expected * percent / 100.0
}

#[test]
fn a_disk_is_measured_as_it_is() {
    for options in [MeasureOptions::quick(), MeasureOptions::full()] {
        let mut disk = disk();
        let measured = measure(&mut disk, options).expect("measured");
        let found = &measured.properties;
        assert!(is_near(found.read_iops, 400_000.0, 5.0), "{found:?}");
        assert!(is_near(found.write_iops, 220_000.0, 5.0), "{found:?}");
        assert!(is_near(found.read_bandwidth, 3.0e9, 5.0), "{found:?}");
        assert!(is_near(found.write_bandwidth, 2.2e9, 5.0), "{found:?}");
        // 400,000 a second of 90 us each need 36 at a time; the sweep goes by powers of two.
        assert_eq!(found.read_saturation_depth, Some(64));
        assert_eq!(found.write_saturation_depth, Some(8));
        assert_eq!(found.physical_block_size, Some(4096));
        assert!(is_near(found.mixed_thousandths.expect("measured"), 1000.0, 5.0), "{found:?}");
        assert_eq!(measured.notes, Vec::<String>::new());
        assert_eq!(measured.spread_percent, [0.0; 4]);
        let total: u64 = disk.loads.iter().map(|load| u64::from(load.milliseconds)).sum();
        assert!(total <= u64::from(options.milliseconds), "{total} ms");
        let lengths: Vec<u32> = measured.curves.iter().map(|curve| curve.length).collect();
        assert_eq!(lengths, [4096, 16 << 10, 64 << 10, 4096]);
        for curve in &measured.curves {
            assert!(curve.points.windows(2).all(|pair| pair[0].depth < pair[1].depth));
            assert!(curve.points.len() >= 4, "{curve:?}");
        }
    }
}

#[test]
fn the_rates_of_a_disk_are_found_in_two_seconds() {
    let mut disk = SimulatedDisk { noise: 0.1, ..disk() };
    let measured = measure_rates(&mut disk, MeasureOptions::rates()).expect("measured");
    let found = &measured.properties;
    for (found, expected) in [
        (found.read_iops, 400_000.0),
        (found.write_iops, 220_000.0),
        (found.read_bandwidth, 3.0e9),
        (found.write_bandwidth, 2.2e9),
    ] {
        assert!(is_near(found, expected, 5.0), "{measured:?}");
    }
    assert_eq!((found.read_saturation_depth, found.mixed_thousandths), (None, None));
    assert!(measured.spread_percent.iter().all(|spread| *spread > 0.0), "{measured:?}");
    let total: u32 = disk.loads.iter().map(|load| load.milliseconds).sum();
    assert_eq!((disk.loads.len(), total), (4, 2_000));
}

#[test]
fn two_quick_runs_on_a_noisy_disk_agree() {
    let run = |random| {
        let mut disk = SimulatedDisk { noise: 0.1, random, ..disk() };
        measure(&mut disk, MeasureOptions::quick()).expect("measured")
    };
    let (one, other) = (run(1), run(99).properties);
    assert!(one.spread_percent.iter().all(|spread| (0.5..5.0).contains(spread)), "{one:?}");
    let one = one.properties;
    for (left, right) in [
        (one.read_iops, other.read_iops),
        (one.write_iops, other.write_iops),
        (one.read_bandwidth, other.read_bandwidth),
        (one.write_bandwidth, other.write_bandwidth),
    ] {
        assert!(is_near(left, right as f64, 10.0), "{left} and {right}");
    }
}

#[test]
fn a_disk_that_is_fast_for_a_while_is_found_out() {
    let mut disk = SimulatedDisk { burst: (20_000.0, 4.0), ..disk() };
    let measured = measure(&mut disk, MeasureOptions::full()).expect("measured");
    assert!(is_near(measured.properties.write_bandwidth, 2.2e9, 5.0), "{measured:?}");
    let is_told = |note: &String| note.contains("SequentialWrite") && note.contains("for a while");
    assert!(measured.notes.iter().any(is_told), "{:?}", measured.notes);
}

#[test]
fn a_disk_that_is_used_by_others_is_doubted() {
    let mut disk = SimulatedDisk { noise: 1.0, ..disk() };
    let measured = measure(&mut disk, MeasureOptions::quick()).expect("measured");
    assert!(measured.notes.iter().any(|note| note.contains("varied by")), "{measured:?}");
}

#[test]
fn reads_and_writes_that_hinder_each_other_more_are_found() {
    let mut disk = SimulatedDisk { mixed: 0.7, ..disk() };
    let measured = measure(&mut disk, MeasureOptions::quick()).expect("measured");
    let mixed = measured.properties.mixed_thousandths.expect("measured");
    assert!(is_near(mixed, 700.0, 5.0), "{mixed}");
}

#[test]
fn what_is_measured_is_a_file_that_is_taken() {
    let measured = measure(&mut disk(), MeasureOptions::quick()).expect("measured");
    let mut properties = measured.properties;
    properties.mountpoints.push("/mnt/data".to_owned());
    let disks = vec![properties];
    assert_eq!(from_toml(&to_toml(&disks)), Ok(disks));
}

#[test]
fn a_disk_that_does_nothing_is_an_error() {
    struct Dead;
    impl LoadRunner for Dead {
        fn run(&mut self, _: DiskLoad) -> Result<LoadSample, String> {
            Ok(LoadSample { rates: vec![0.0; 32], ..LoadSample::default() })
        }
    }
    let error = measure(&mut Dead, MeasureOptions::quick()).expect_err("dead");
    assert!(error.contains("did nothing"), "{error}");
}
