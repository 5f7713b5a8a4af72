//! Whole runs of a few hundred operations, on stores in temporary directories.

use std::path::Path;

use clap::Parser;
use larder_engine::key::Key;
use larder_engine::operation::{Operation, Store, StoreMode};
use larder_engine::shard::{OperationBuf, Shard};
use larder_engine::value_log::commit::Durability;
use larder_runtime::core_thread::{Core, CoreOptions};

use super::*;
use crate::load::data::{KeyFormat, ValueFormat};
use crate::load::{Distribution, Ratio};

const KEYS: u64 = 300;

fn small(workload: Workload, directory: &Path) -> EngineSettings {
    EngineSettings {
        value_size: 200,
        keys: KEYS,
        memory: 40 << 20,
        concurrency: 16,
        operations: Some(700),
        duration: Some(Duration::from_secs(60)),
        segment_bytes: 1 << 20,
        directory: Some(directory.to_owned()),
        ..EngineSettings::for_workload(workload)
    }
}

fn run(settings: &EngineSettings) -> EngineSummary {
    measure(settings, &mut Progress::hidden()).expect("a run")
}

fn assert_right(summary: &EngineSummary) {
    assert_eq!(summary.wrong_values, 0, "{}", summary.wrong_value_first);
    assert_eq!(summary.errors.len(), 0, "{:?}", summary.errors);
}

#[test]
fn every_workload_runs_and_reads_what_it_stored() {
    for (workload, operations, found, live) in [
        (Workload::Fill, 300, 0, 300),
        (Workload::FillSeq, 300, 0, 300),
        (Workload::Overwrite, 700, 0, 300),
        (Workload::ReadRandom, 700, 700, 300),
        (Workload::ReadMissing, 700, 0, 300),
        (Workload::Delete, 300, 300, 0),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let summary = run(&EngineSettings {
            distribution: Distribution::Zipf { theta: 0.99 },
            verify: Some(200),
            ..small(workload, directory.path())
        });
        assert_right(&summary);
        let name = workload.name();
        assert_eq!((summary.operations, summary.found), (operations, found), "{name}");
        assert_eq!(summary.space.live_bytes, live * 216, "{name}");
        assert_eq!(summary.warm.is_some(), workload.needs_data(), "{name}");
        let verify = summary.verify.as_ref().expect("it was asked for");
        let there = if live == 0 { 0 } else { 200 };
        assert_eq!((verify.found, verify.missed), (there, 200 - there), "{name}");
        let counted: u64 = summary.windows.iter().map(|window| window.operations).sum();
        assert_eq!(counted, operations, "{name}");
        assert!(summary.space.final_bytes >= summary.space.live_bytes, "{name}");
        let text = describe(&summary);
        assert!(text.starts_with(&format!("{name}: 1 shards")), "{text}");
    }
}

#[test]
fn a_scan_shows_every_item_of_each_shard_in_pages() {
    for keys_only in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = EngineSettings {
            shards: Some(2),
            memory: 80 << 20,
            keys_only,
            duration: None,
            ..small(Workload::Scan, directory.path())
        };
        let summary = run(&settings);
        assert_right(&summary);
        assert_eq!(summary.operations, 2, "a page for each shard");
        let scan = summary.scan.expect("it was one");
        assert_eq!(scan.items, KEYS);
        assert_eq!(scan.bytes, KEYS * if keys_only { 16 } else { 216 });
        assert!(describe(&summary).contains("scanned 300 "));
        // For as long as it is asked for, which here is a number of pages.
        let again = EngineSettings {
            duration: Some(Duration::from_secs(60)),
            operations: Some(10),
            ..settings
        };
        assert_eq!(run(&again).scan.expect("it was one").items, 5 * KEYS);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test writes a file of figures")]
fn a_workload_is_compared_with_itself_beside_other_loads() {
    let directory = tempfile::tempdir().expect("a directory");
    let figures = directory.path().join("figures.toml");
    let settings = EngineSettings {
        shards: Some(2),
        memory: 80 << 20,
        rate: Some(400.0),
        operations: Some(300),
        beside: vec![BesideLoad::Scan, BesideLoad::Overwrite],
        beside_rate: Some(2_000.0),
        io_properties: Some(figures.clone()),
        verify: Some(100),
        ..small(Workload::ReadRandom, &directory.path().join("store"))
    };
    let mount = |text: &str| {
        let disk = "read_iops = 100000\nread_bandwidth = 500000000\nwrite_iops = 50000\n\
                    write_bandwidth = 300000000\n";
        let text = format!("[[disk]]\nmountpoints = [\"{text}\"]\n{disk}");
        std::fs::write(&figures, text).expect("written");
        measure(&settings, &mut Progress::hidden())
    };
    let refused = mount("/proc").expect_err("the store lies elsewhere").to_string();
    assert!(refused.starts_with("--io-properties: "), "{refused}");
    let there = refused.split("mounted at ").nth(1).and_then(|rest| rest.split(',').next());
    let summary = mount(there.expect("the mount")).expect("a run");
    assert_right(&summary);
    assert_eq!((summary.operations, summary.found), (300, 300));
    let beside = summary.beside.as_ref().expect("it was asked for");
    assert_eq!(beside.errors.len(), 0, "{:?}", beside.errors);
    assert_eq!(beside.quiet.as_ref().expect("reads").count, 300);
    assert!(beside.p99_ratio.expect("both have reads") > 0.0);
    // 2,000 a second for as long as 300 reads take at 400 a second, if the machine is not busy.
    assert!((1..=1_600).contains(&beside.overwrites), "{beside:?}");
    assert!(beside.scanned > 0, "{beside:?}");
    let device = beside.device.as_ref().expect("its figures are known");
    assert!(device.background > 0.0 && device.foreground >= 0.0, "{device:?}");
    assert!(device.background_alone > 0.0 && device.background_kept > 0.0, "{device:?}");
    assert!(beside.alone_overwrites_per_second > 0.0, "{beside:?}");
    let text = describe(&summary);
    assert!(text.contains("beside it scan and overwrite: "), "{text}");
    assert!(text.contains("p99 beside them is "), "{text}");
    let quiet = EngineSettings { beside: Vec::new(), beside_rate: None, ..settings.clone() };
    assert!(run(&quiet).beside.is_none());
}

#[test]
fn shards_on_threads_share_the_keys_in_each_durability_mode() {
    let modes = [Durability::Sync, Durability::Interval(20_000_000), Durability::None];
    for durability in modes {
        let directory = tempfile::tempdir().expect("a directory");
        let summary = run(&EngineSettings {
            shards: Some(3),
            threads: Some(2),
            memory: 80 << 20,
            ratio: Ratio { get: 1, set: 2 },
            durability: EngineDurability(durability),
            verify: Some(300),
            ..small(Workload::Mixed, directory.path())
        });
        assert_right(&summary);
        assert_eq!((summary.shards, summary.threads, summary.operations), (3, 2, 700));
        assert_eq!(summary.verify.expect("it was asked for").found, 300);
        assert_eq!(summary.shard_stalls.len(), 3);
        assert!(summary.device.stored_bytes > 0 && summary.found > 0);
        assert_eq!(summary.found * 216 + summary.device.stored_bytes, 700 * 216);
        // In the other modes the log may be written after the count.
        let is_written = summary.device.written_bytes > summary.device.stored_bytes;
        assert!(is_written || durability != Durability::Sync);
    }
}

#[test]
fn a_fresh_folder_is_removed_and_a_given_one_can_be_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let fresh = EngineSettings { directory: None, ..small(Workload::Fill, directory.path()) };
    assert!(run(&fresh).space.final_bytes > 0);
    let left = host::list_names(Path::new(".")).expect("a list");
    assert!(!left.iter().any(|name| name.starts_with("larder-bench-")), "{left:?}");
    run(&small(Workload::Fill, directory.path()));
    let before = host::list_names(directory.path()).expect("a list");
    assert_eq!(before, ["LOCK", "shard-000"]);
    // Nothing is known of the data now: versions are learned, and then must stay.
    run(&small(Workload::Overwrite, directory.path()));
    let summary =
        run(&EngineSettings { warm: Some(Warm::Use), ..small(Workload::Mixed, directory.path()) });
    assert_right(&summary);
    assert!(summary.warm.is_none() && summary.missed == 0 && summary.found > 0);
}

#[test]
fn the_cap_bounds_the_space_and_none_does_not() {
    let final_bytes = |max_space_amp| {
        let directory = tempfile::tempdir().expect("a directory");
        let summary = run(&EngineSettings {
            value_size: 1_000,
            keys: 3_000,
            operations: Some(20_000),
            durability: EngineDurability(Durability::None),
            space: SpaceBounds {
                max_space_amp,
                disk_limit: Some(1 << 30),
                ..SpaceBounds::default()
            },
            verify: Some(100),
            ..small(Workload::Overwrite, directory.path())
        });
        assert_right(&summary);
        summary.space.final_bytes
    };
    let (capped, uncapped) = (final_bytes(SpaceCap(Some(150))), final_bytes(SpaceCap(None)));
    assert!(capped <= 11 << 20, "{capped}");
    assert!(uncapped >= 16 << 20, "{uncapped}");
}

#[test]
fn a_limit_below_what_a_store_takes_is_refused_with_both_figures() {
    let directory = tempfile::tempdir().expect("a directory");
    run(&small(Workload::Fill, directory.path()));
    let space = SpaceBounds { disk_limit: Some(9_999), ..SpaceBounds::default() };
    let settings = EngineSettings { space, ..small(Workload::Overwrite, directory.path()) };
    let error = measure(&settings, &mut Progress::hidden()).expect_err("too little").to_string();
    assert!(error.contains("--disk-limit") && error.contains("9999"), "{error}");
}

#[test]
fn an_open_loop_begins_as_many_as_are_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let summary = run(&EngineSettings {
        rate: Some(2_000.0),
        operations: None,
        duration: Some(Duration::from_millis(300)),
        ..small(Workload::Mixed, directory.path())
    });
    assert_right(&summary);
    assert_eq!(summary.operations + summary.not_begun, 600);
    assert_eq!(summary.rate, Some(2_000.0));
}

#[test]
fn items_that_expire_are_no_longer_live_and_may_be_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let summary = run(&EngineSettings {
        ttl: Some(1),
        settle: Duration::from_millis(2_100),
        verify: Some(100),
        ..small(Workload::Fill, directory.path())
    });
    assert_right(&summary);
    assert_eq!((summary.space.live_bytes, summary.settle_seconds), (0, 2.1));
    assert_eq!(summary.verify.expect("it was asked for").missed, 100);
    assert!(summary.windows.len() > 20, "the settling has windows too");
}

/// Stores `value` under key number `key` behind the run's back.
fn tamper(settings: &EngineSettings, key: u64, value: &[u8]) {
    let store = StoreDirectory::prepare(settings).expect("the store");
    let memory = settings.shard_memory(1).expect("enough");
    let options = shard_options(settings, (0, 1), &memory, &settings.space.budget());
    let mut core = Core::new(CoreOptions::default()).expect("a core");
    let opening = Shard::open(core.env(), &store.shards[0], options);
    let (shard, _) = core.block_on(Box::pin(opening)).expect("the shard");
    let mut bytes = Vec::new();
    KeyFormat::new(settings.key_size).append(key, &mut bytes);
    let operation = OperationBuf::new(&Operation::Store(Store {
        mode: StoreMode::Set,
        value,
        client_flags: 0,
        expiry: 0,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }));
    core.block_on(shard.run(&Key::memcached(&bytes), operation, |_| ())).expect("stored");
    core.block_on(shard.close()).expect("closed");
    drop(shard);
    core.shutdown();
}

#[test]
fn a_value_that_was_never_stored_under_its_key_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = small(Workload::Fill, directory.path());
    run(&settings);
    let mut foreign = Vec::new();
    ValueFormat::new(settings.value_size).append(8, &mut foreign);
    tamper(&settings, 7, &foreign);
    let summary = run(&small(Workload::ReadRandom, directory.path()));
    assert!(summary.wrong_values > 0);
    assert_eq!(summary.wrong_value_first, "key number 7: found the value of key number 8");
    assert_eq!(summary.errors[0].kind, "wrong value");
    let args = BenchCommandLine::parse_from([
        "bench",
        "engine",
        "--workload=read-random",
        "--keys=300",
        "--value-size=200",
        "--memory=40M",
        "--operations=700",
        &format!("--dir={}", directory.path().display()),
    ]);
    let error = crate::run(args.bench).expect_err("wrong values fail the command");
    assert!(error.to_string().contains("the value of key number 8"), "{error}");
}

#[test]
fn a_version_that_was_overwritten_and_a_key_that_was_deleted_are_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = small(Workload::Fill, directory.path());
    run(&settings);
    let mut old = Vec::new();
    ValueFormat::new(settings.value_size).append_version(5, 77, &mut old);
    tamper(&settings, 5, &old);
    let keys = ShardKeys::deal(&settings, 1).remove(0);
    let mut expectations = Expectations::empty(keys.count(), false);
    for place in 0..keys.count() {
        expectations.stored(place, 0, 0);
    }
    expectations.deleted(6);
    let summary = run_expecting(&settings, keys, expectations);
    assert_eq!((summary.found, summary.wrong), (300, 2));
    let first = summary.wrong_first;
    let either = ["key number 5: found version 77 instead of 0", "key number 6: found version 0"];
    assert!(either.iter().any(|text| first.starts_with(text)), "{first}");
}

/// Reads every key of a store once that should hold what `expectations` say.
fn run_expecting(
    settings: &EngineSettings,
    keys: ShardKeys,
    expectations: Expectations,
) -> VerifySummary {
    let store = StoreDirectory::prepare(settings).expect("the store");
    let memory = settings.shard_memory(1).expect("enough");
    let options = shard_options(settings, (0, 1), &memory, &settings.space.budget());
    let plan = ShardPlan { directory: store.shards[0].clone(), options, keys, expectations };
    let settings = Arc::new(EngineSettings { verify: Some(KEYS), ..settings.clone() });
    let gauges = Arc::new(Gauges::new(1, settings.item_bytes()));
    let verified = std::thread::scope(|scope| {
        let mut crew =
            Crew::start(scope, &settings, 1, vec![plan], &gauges, &IoQueueOptions::default())?;
        let verify = verify(&mut crew, &settings, &mut Progress::hidden())?;
        crew.close()?;
        Ok::<_, BenchError>(verify)
    });
    verified.expect("a run")
}

#[derive(Parser)]
struct BenchCommandLine {
    #[command(flatten)]
    bench: crate::BenchArgs,
}

#[test]
fn the_json_has_the_figures_and_a_line_for_each_window() {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("run.json");
    let plot = directory.path().join("run.svg");
    let args = BenchCommandLine::parse_from([
        "bench".to_owned(),
        "engine".to_owned(),
        "--workload=overwrite".to_owned(),
        "--keys=300".to_owned(),
        "--memory=40M".to_owned(),
        "--segment-size=1M".to_owned(),
        "--duration=0.35".to_owned(),
        format!("--dir={}", directory.path().join("store").display()),
        format!("--json={}", json.display()),
        format!("--plot={}", plot.display()),
    ]);
    crate::run(args.bench).expect("a run");
    let text = host::read_text(&json).expect("the figures");
    let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for number in [
        "/operations_per_second",
        "/latency/p50_us",
        "/latency/p99_us",
        "/latency/p999_us",
        "/latency/max_us",
        "/cpu_us_per_operation",
        "/resident_peak_bytes",
        "/device/written_bytes",
        "/device/read_bytes",
        "/device/write_amplification",
        "/space/peak_bytes",
        "/space/final_bytes",
        "/space/live_bytes",
        "/stall/milliseconds",
        "/shard_stalls/0/milliseconds",
        "/evenness/windows_under_half",
        "/evenness/worst_per_second",
    ] {
        assert!(figures.pointer(number).is_some_and(|value| value.is_number()), "{number}");
    }
    assert_eq!(figures["workload"], "overwrite");
    assert_eq!(figures["durability"], "sync");
    let windows = figures["windows"].as_array().expect("an array");
    assert!(windows.len() >= 4);
    for window in windows {
        let names: Vec<&str> =
            window.as_object().expect("an object").keys().map(|k| &**k).collect();
        let expected = ["errors", "live_bytes", "operations", "p99_us", "space_bytes"];
        assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(window["space_bytes"].as_u64() > window["live_bytes"].as_u64());
    }
    let drawn = host::read_text(&plot).expect("the picture");
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
    assert!(drawn.contains("on disk") && drawn.contains("99th percentile"));
}

#[test]
fn what_the_engine_refuses_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    run(&EngineSettings { shards: Some(2), ..small(Workload::Fill, directory.path()) });
    host::write_text(&directory.path().join("shard-001/SUPERBLOCK"), "garbage").expect("written");
    let settings = small(Workload::ReadRandom, directory.path());
    let error = measure(&settings, &mut Progress::hidden()).expect_err("it is no store any more");
    assert!(error.to_string().contains("shard-001"), "{error}");
}
