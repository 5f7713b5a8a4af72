use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use larder_runtime::device_model::{DeviceModel, IoDirection};
use larder_runtime::disk::DiskCounters;
use larder_runtime::env::IoClass;

use super::core_load::{CoreFound, Counted, NOT_STARTED, Returned};
use super::settings::{IoBenchSettings, SharedClass};
use super::summary::{DiskFound, IoBenchSummary, WaitSpread, deviation, quotient};
use super::{describe, first_cause, measure};
use crate::load::Progress;
use crate::{BenchArgs, BenchCommand};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

/// The settings of a command line that names a directory and a file.
fn settings(more: &[&str]) -> Result<IoBenchSettings, String> {
    let line = ["bench", "io", "--dir", "d", "--io-properties", "io.toml"];
    let command = Command::try_parse_from(line.iter().chain(more)).map_err(|it| it.to_string())?;
    let BenchCommand::Io(args) = command.bench.command else { panic!("the command is io") };
    args.settings().map_err(|error| error.to_string())
}

fn class(class: IoClass, shares: u32) -> SharedClass {
    SharedClass { class, shares }
}

#[test]
fn every_option_reaches_the_settings() {
    let all = "--classes commit=3,compaction=200 --cores 4 --cpu 0,2-3 --duration 0.5 --length 64K \
               --depth 32 --size 1G";
    let found = settings(&all.split_whitespace().collect::<Vec<_>>()).expect("accepted");
    let expected = IoBenchSettings {
        classes: vec![class(IoClass::Commit, 3), class(IoClass::Compaction, 200)],
        directory: PathBuf::from("d"),
        io_properties: PathBuf::from("io.toml"),
        cores: 4,
        cpus: vec![0, 2, 3],
        duration: Duration::from_millis(500),
        length: 64 << 10,
        depth: 32,
        file_bytes: 1 << 30,
    };
    assert_eq!(found, expected);
    assert_eq!([0, 2, 3].map(|core| found.cpu_of(core)), [Some(0), Some(3), Some(0)]);
    let usual = settings(&[]).expect("accepted");
    assert_eq!(usual.classes, [class(IoClass::Scan, 1), class(IoClass::Compaction, 4)]);
    assert_eq!((usual.cores, usual.cpu_of(1)), (2, None));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_option() {
    for (more, option) in [
        (&["--classes", "read=1"][..], "--classes"),
        (&["--classes", "read"], "--classes"),
        (&["--classes", "read=1,read=2"], "--classes"),
        (&["--classes", "read=1,reads=2"], "--classes"),
        (&["--classes", "read=0,scan=2"], "--classes"),
        (&["--classes", "read=1,scan=65537"], "--classes"),
        (&["--classes", "read=1,scan=-4"], "--classes"),
        (&["--cores", "0"], "--cores"),
        (&["--cores", "257"], "--cores"),
        (&["--cpu", "3-1"], "--cpu"),
        (&["--duration", "0.01"], "--duration"),
        (&["--duration", "nan"], "--duration"),
        (&["--duration", "1e9"], "--duration"),
        (&["--length", "0"], "--length"),
        (&["--length", "5000"], "--length"),
        (&["--length", "2M"], "--length"),
        (&["--depth", "0"], "--depth"),
        (&["--depth", "5000"], "--depth"),
        (&["--depth", "1024", "--length", "1M"], "--depth"),
        (&["--size", "15M"], "--size"),
        (&["--size", "33000000"], "--size"),
    ] {
        let text = settings(more).expect_err("refused");
        assert!(text.contains(option), "{more:?}: {text}");
    }
}

#[test]
fn a_spread_is_of_what_it_is_given() {
    let of = |values: &[u64]| WaitSpread::of(values.iter().map(|us| us * 1_000).collect());
    assert_eq!(of(&[]), WaitSpread::default());
    assert_eq!(of(&[7]), WaitSpread { p50_us: 7.0, p99_us: 7.0, max_us: 7.0 });
    let hundred: Vec<u64> = (1..=100).rev().collect();
    assert_eq!(of(&hundred), WaitSpread { p50_us: 50.0, p99_us: 99.0, max_us: 100.0 });
    assert_eq!((quotient(1.0, 4.0), quotient(0.0, 0.0), quotient(1.0, 0.0)), (0.25, 1.0, f64::MAX));
}

/// Two cores that were charged for these requests of reads and scans each, 16 KiB long, in two
/// seconds, on a disk that is charged at `price` of what its figures say.
fn found(reads: [u64; 2], scans: [u64; 2], price: f64) -> DiskFound {
    let model = DeviceModel::default();
    let cost = model.cost(IoDirection::Read, 16 << 10) as f64;
    let core = |core: usize| {
        let before = DiskCounters::default();
        let mut after = before;
        for (class, requests) in [(IoClass::Read, reads[core]), (IoClass::Scan, scans[core])] {
            let statistics = &mut after.classes[class as usize];
            statistics.completed = requests;
            statistics.bytes = requests * (16 << 10);
            statistics.charged_tokens = (requests as f64 * cost * price) as u64;
        }
        let returned = |waited| Returned { waited, in_device: 100_000 };
        CoreFound {
            saturated: Counted { before, after, seconds: 2.0 },
            returned: vec![vec![returned(800_000), returned(100_000)], vec![returned(0)]],
        }
    };
    DiskFound { model, cores: (0..2).map(core).collect() }
}

#[test]
fn parts_of_the_disk_are_compared_with_shares_and_with_the_model() {
    let settings = settings(&["--classes", "read=1,scan=4"]).expect("accepted");
    let summary = IoBenchSummary::new(&settings, &found([1_000, 1_100], [4_400, 4_000], 1.25));
    let [read, scan] = &summary.classes[..] else { panic!("two classes: {summary:?}") };
    assert_eq!((read.requests_per_second, scan.requests_per_second), (1_050.0, 4_200.0));
    assert_eq!(scan.bytes_per_second, 4_200.0 * f64::from(16 << 10));
    let is_near = |found: f64, expected: f64| (found - expected).abs() < 1e-3;
    assert!(is_near(read.of_due, 1.0) && is_near(scan.of_due, 1.0), "{summary:?}");
    assert!(is_near(summary.deviation, 0.0) && is_near(summary.price, 1.25), "{summary:?}");
    assert!(is_near(summary.cores.iter().sum(), summary.device_used), "{summary:?}");
    assert!(summary.cores[0] > summary.cores[1], "{summary:?}");
    // Half of the goal of 750 us is what the bucket holds.
    assert!(is_near(summary.device_bound, 1.0 + 0.000_375 / 2.0), "{summary:?}");
    let [read, scan] = &summary.come_back[..] else { panic!("two classes: {summary:?}") };
    assert_eq!((read.times, read.late, scan.late), (4, 0.5, 0.0), "800 us are over the goal");
    assert_eq!((read.waited.p50_us, read.waited.max_us), (100.0, 800.0));
    let text = describe(&summary);
    assert!(text.contains("within the model") && text.contains("longer than asked 50.00 %"));
}

#[test]
fn shares_that_are_not_kept_show() {
    let settings = settings(&["--classes", "read=1,scan=4"]).expect("accepted");
    let summary = IoBenchSummary::new(&settings, &found([1_000; 2], [4_400; 2], 1.0));
    assert!((summary.deviation - 0.1).abs() < 1e-3, "{summary:?}");
    let starved = IoBenchSummary::new(&settings, &found([0; 2], [4_400; 2], 1.0));
    assert!(deviation(&starved.classes) > 1e9, "{starved:?}");
    // The default disk does about 100,000 of these a second.
    let beyond = IoBenchSummary::new(&settings, &found([60_000; 2], [240_000; 2], 1.0));
    assert!(describe(&beyond).contains("beyond the model"), "{beyond:?}");
    let mut late = found([1_000; 2], [4_400; 2], 1.0);
    late.cores[1].saturated.after.flow.allowed_thousandths = 20;
    let late = IoBenchSummary::new(&settings, &late);
    assert!(describe(&late).contains("held back to 2.0 %"), "{late:?}");
    assert!(!describe(&starved).contains("held back"), "{starved:?}");
}

#[test]
fn who_failed_by_itself_is_named() {
    let failed = |reason: &str| Err(reason.to_owned());
    let ended = vec![failed(NOT_STARTED), failed("no room"), failed(NOT_STARTED)];
    assert_eq!(first_cause(ended).err(), Some("no room".to_owned()));
    assert_eq!(first_cause(Vec::new()).map(|cores| cores.len()), Ok(0));
}

fn figures(directory: &Path) -> PathBuf {
    let path = directory.join("io.toml");
    let text = "[[disk]]\nmountpoints = [\"/\"]\nread_iops = 2000\nread_bandwidth = 20000000\n\
                write_iops = 2000\nwrite_bandwidth = 20000000\n";
    crate::host::write_text(&path, text).expect("a file");
    path
}

/// On the disk that the tests were built on, because /tmp may be memory.
fn on_disk() -> tempfile::TempDir {
    let program = std::env::current_exe().expect("the tests' program");
    tempfile::tempdir_in(program.parent().expect("a directory")).expect("a directory")
}

#[test]
fn loads_are_put_on_a_disk_and_leave_nothing() {
    let directory = on_disk();
    let results = tempfile::tempdir().expect("a directory");
    let settings = IoBenchSettings {
        classes: vec![class(IoClass::Flush, 1), class(IoClass::Scan, 4)],
        directory: directory.path().to_owned(),
        io_properties: figures(results.path()),
        duration: Duration::from_millis(300),
        file_bytes: 16 << 20,
        depth: 16,
        ..settings(&[]).expect("accepted")
    };
    let summary = measure(&settings, &mut Progress::hidden()).expect("it is done");
    let names: Vec<_> = summary.classes.iter().map(|class| class.class).collect();
    assert_eq!(names, ["flush", "scan"]);
    assert!(summary.classes.iter().all(|class| class.requests_per_second > 0.0), "{summary:?}");
    assert!(summary.device_used > 0.0 && summary.cores.len() == 2, "{summary:?}");
    assert!(summary.come_back.iter().all(|class| class.times >= 2), "{summary:?}");
    let json = serde_json::to_value(&summary).expect("plain data");
    assert!(json["come_back"][0]["waited"]["p99_us"].is_number(), "{json}");
    assert_eq!(crate::host::list_names(directory.path()).expect("a list"), Vec::<String>::new());
}

#[test]
fn a_directory_or_a_file_that_cannot_be_used_is_named() {
    let results = tempfile::tempdir().expect("a directory");
    let refused = |settings: &IoBenchSettings| {
        measure(settings, &mut Progress::hidden()).expect_err("refused").to_string()
    };
    let missing = IoBenchSettings {
        directory: results.path().join("missing"),
        ..settings(&[]).expect("accepted")
    };
    assert!(refused(&missing).contains("--dir"), "{}", refused(&missing));
    let unknown = IoBenchSettings { directory: results.path().to_owned(), ..missing };
    assert!(refused(&unknown).contains("--io-properties"), "{}", refused(&unknown));
    let properties = figures(results.path());
    let too_long = IoBenchSettings { io_properties: properties, file_bytes: 1 << 40, ..unknown };
    assert!(refused(&too_long).contains("--dir"), "{}", refused(&too_long));
}
