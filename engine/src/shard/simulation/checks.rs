//! `check` and `space` on stores of every kind: sound ones, damaged ones, those that a crash left.

use std::path::{Path, PathBuf};

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::SimDisk;

use super::harness::{self, tiny_options};
use super::smoke::{delete, run, set};
use super::{flips, items};
use crate::check::{self, CheckError, Report};
use crate::compression::ValueCompressor;
use crate::manifest;
use crate::scan::Scan;
use crate::shard::ShardOptions;
use crate::space::{SegmentSpace, SpaceReport};
use crate::value_log::segment;

pub(super) fn check(disk: &SimDisk) -> Result<Report, CheckError> {
    let mut life = harness::life(9, disk.clone());
    let env = life.env();
    let checking = async move {
        check::check(&env, Path::new(harness::DIRECTORY), &mut |progress| {
            assert!(progress.done_bytes <= progress.total_bytes, "{progress:?}");
        })
        .await
    };
    let report = life.block_on(checking).expect("checking does not hang");
    assert_eq!(contents(&life.snapshot()), contents(disk), "checking has written");
    report
}

pub(super) fn space(disk: &SimDisk) -> SpaceReport {
    let mut life = harness::life(9, disk.clone());
    let env = life.env();
    let explaining =
        async move { check::space(&env, Path::new(harness::DIRECTORY), &mut |_| {}).await };
    life.block_on(explaining).expect("does not hang").expect("a sound store")
}

pub(super) fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().map(|(path, _)| (path.clone(), disk.read_all(&path))).collect()
}

/// The lines of a report that say that something is wrong.
pub(super) fn problems(report: &Report) -> Vec<String> {
    let of = |file: &check::FileReport| {
        let name = file.name.clone();
        let problems = file.problems.iter();
        problems.map(|problem| format!("{name}: {problem:?}")).collect::<Vec<_>>()
    };
    report.files.iter().flat_map(of).collect()
}

/// The problems but for copies of the superblock that a power cut has kept from being written.
fn unexplained(report: &Report) -> Vec<String> {
    problems(report).into_iter().filter(|problem| !problem.starts_with("SUPERBLOCK")).collect()
}

/// A value that compresses well.
fn words(len: usize) -> Vec<u8> {
    b"words that come again and again, ".iter().copied().cycle().take(len).collect()
}

/// A store after a few hundred random operations, with flushes, merges and restarts, that the
/// power cut left or that was closed.
fn random_store(seed: u64) -> SimDisk {
    let mut random = Random::new(seed);
    let options = ShardOptions { memtable_bytes: 1500, compress_from: Some(400), ..tiny_options() };
    let mut disk = harness::empty_disk(harness::CAPACITY);
    for _ in 0..random.within(&(1..=3)) {
        let mut life = harness::life(seed, disk);
        let (shard, report) = harness::open_in(&mut life, &options);
        assert_eq!(report.damage, [], "seed {seed}");
        for _ in 0..random.within(&(20..=150)) {
            let key = format!("key-{}", random.below(60)).into_bytes();
            let len = random.pick(&[0, 20, 33, 500, 5000, 20_000]);
            let value = if random.percent(50) { random.bytes(len) } else { words(len) };
            let (worker, chance) = (shard.clone(), random.below(100));
            let operation = match chance {
                0..70 => set(&value),
                70..85 => delete(),
                _ => items::touched(2_000_000_000 + chance as u32),
            };
            life.block_on(async move { run(&worker, &key, operation).await }).expect("runs");
            if chance > 95 {
                let (from, to) = (random.below(60), random.below(80));
                let (from, to) = (format!("key-{from}"), format!("key-{to}"));
                let range = Scan::of_namespace(0).from(from.as_bytes(), b"");
                let range = range.below(to.as_bytes(), b"");
                let worker = shard.clone();
                let deleting = async move { worker.delete_range(&range).await };
                life.block_on(deleting).expect("runs").expect("logged");
            }
            if chance == 7 {
                let worker = shard.clone();
                let flushing = async move { worker.flush_all(None).await };
                life.block_on(flushing).expect("runs").expect("logged");
            }
        }
        if random.percent(50) {
            life.block_on(async move { shard.close().await }).expect("runs").expect("closes");
        }
        disk = life.crash();
    }
    disk
}

#[test]
fn a_sound_store_has_no_problems_and_all_its_bytes_are_explained() {
    harness::for_each_seed("a_sound_store_has_no_problems", 1, 60, |seed| {
        let disk = random_store(seed);
        let report = check(&disk).expect("a store");
        assert_eq!(unexplained(&report), [] as [String; 0]);
        let names: Vec<String> = disk.files().iter().map(|file| name(&file.0)).collect();
        let reported: Vec<&String> = report.files.iter().map(|file| &file.name).collect();
        assert_eq!(reported, names.iter().collect::<Vec<_>>());
        for file in &report.files {
            assert!(!file.checked.is_empty(), "nothing is said of {}", file.name);
        }
        check_sums(&space(&disk), &disk);
    });
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

fn check_sums(space: &SpaceReport, disk: &SimDisk) {
    let on_disk: u64 = disk.files().iter().map(|(_, len)| len).sum();
    assert_eq!(space.total(), on_disk);
    for segment in &space.segments {
        let parts = segment.header
            + segment.live
            + segment.superseded
            + segment.dead
            + segment.unflushed
            + segment.undurable
            + segment.unwritten;
        assert_eq!(parts, segment.file_bytes, "{segment:?}");
    }
}

/// A store whose segments were collected: some keys are set once, the others again and again.
fn collected_store(seed: u64, is_closed: bool) -> SimDisk {
    let mut random = Random::new(seed);
    let mut life = harness::life(seed, harness::empty_disk(harness::CAPACITY));
    let options = ShardOptions { compress_from: Some(400), ..tiny_options() };
    let (shard, _) = harness::open_in(&mut life, &options);
    let worker = shard.clone();
    let writing = async move {
        for number in 0..400u64 {
            let key = if number % 8 == 0 { 1000 + number } else { random.below(30) };
            let key = format!("key-{key}").into_bytes();
            let operation = match random.below(20) {
                0 => items::touched(2_000_000_000),
                1 => delete(),
                2..4 => set(&words(3000)),
                _ => set(&random.bytes(2000)),
            };
            run(&worker, &key, operation).await;
        }
    };
    life.block_on(writing).expect("runs");
    let operations = shard.statistics().operations;
    assert!(operations.collections > 0 && operations.collected_records > 0, "{operations:?}");
    if is_closed {
        life.block_on(async move { shard.close().await }).expect("runs").expect("closes");
    }
    life.crash()
}

#[test]
fn a_store_with_collected_segments_is_sound_and_explained() {
    let mut collected = 0;
    for seed in 1..=10 {
        for is_closed in [true, false] {
            let disk = collected_store(seed, is_closed);
            let what = format!("seed {seed}, closed: {is_closed}");
            let report = check(&disk).expect("a store");
            assert_eq!(unexplained(&report), [] as [String; 0], "{what}");
            assert!(!is_closed || report.problems() == 0, "{what}: {:?}", problems(&report));
            let space = space(&disk);
            check_sums(&space, &disk);
            let of = |segment: &&SegmentSpace| segment.is_collected && segment.live > 0;
            collected += space.segments.iter().filter(of).count();
            for segment in space.segments.iter().filter(|segment| segment.is_collected) {
                assert_eq!(segment.unflushed, 0, "{what}: {segment:?}");
            }
        }
    }
    assert!(collected > 20, "{collected} segments of collected records");
}

#[test]
fn the_newest_entry_of_a_key_must_lead_to_its_record_whatever_was_collected() {
    let disk = collected_store(1, true);
    let space = space(&disk);
    let of = |segment: &&SegmentSpace| segment.is_collected && segment.live > 0;
    let mut found = 0;
    for segment in space.segments.iter().filter(of) {
        let file = segment::file_name(segment.number);
        let path = Path::new(harness::DIRECTORY).join(&file);
        let mut life = harness::life(4, disk.clone());
        let env = life.env();
        life.block_on(async move { env.remove(&path).await }).expect("runs").expect("removed");
        let report = check(&life.kill()).expect("a store");
        let text = problems(&report).join("\n");
        assert!(text.contains("is lost: the segment is not there"), "{file}: {text}");
        found += 1;
    }
    assert!(found > 0, "{space:?}");
}

#[test]
fn space_tells_live_bytes_from_those_that_only_compaction_frees() {
    let mut options = tiny_options();
    options.picker.level_zero_runs = 100;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let worker = shard.clone();
    let values = async move {
        for number in 0..4u8 {
            run(&worker, &[b'k', number], set(&[number; 1000])).await;
        }
        items::flush_memtable(&worker).await;
        run(&worker, b"k\0", set(&[9; 500])).await;
        run(&worker, b"k\x01", delete()).await;
        run(&worker, b"k\x02", items::touched(2_000_000_000)).await;
        items::flush_memtable(&worker).await;
        // Overwritten in the log only, which a start replays.
        run(&worker, b"k\x03", set(&[7; 600])).await;
    };
    life.block_on(values).expect("runs");
    drop(shard);
    let disk = life.crash();
    let space = space(&disk);
    check_sums(&space, &disk);
    let record = |value: u64| value + 36 + 4 + 2 + 2;
    // Two of the keys have zero bytes or not: `k\0` is escaped to one byte more.
    assert_eq!(space.sum(|segment| segment.live), record(500) + 1 + record(1000));
    assert_eq!(space.sum(|segment| segment.superseded), 3 * record(1000) + 1);
    assert_eq!((space.entries, space.tombstones, space.table_count), (7, 1, 2));
    assert_eq!((space.duplicates, space.unflushed_keys), (4, 1));
    assert!(space.sum(|segment| segment.unflushed) >= 4096, "{space:?}");
    assert!(space.debt() > 0 && space.debt() < space.tables, "{space:?}");
}

#[test]
fn whatever_a_reader_is_told_a_check_tells_and_names_the_file() {
    let disk = flips::store();
    assert_eq!(problems(&check(&disk).expect("a store")), [] as [String; 0]);
    let mut found = std::collections::BTreeMap::new();
    for (number, path, offset) in flips::places(&disk).filter(|place| place.0 % 41 == 0) {
        let mut damaged = disk.clone();
        damaged.flip_bit(&path, offset, flips::bit(number));
        let what = format!("byte {offset} of {}", path.display());
        let report = check(&damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
        let name = name(&path);
        let of_file = report.files.iter().find(|file| file.name == name).expect("named");
        if flips::open_and_read(damaged, &what).is_some() {
            assert!(report.problems() > 0, "{what}: a reader is told, but not by a check");
            assert!(of_file.problem_count > 0, "{what}: {:?}", problems(&report));
        }
        *found.entry(name).or_insert(0) += of_file.problem_count;
    }
    let without: Vec<_> = found.iter().filter(|(_, count)| **count == 0).collect();
    // The last of the segments is a spare; of it only the header has a meaning.
    assert!(without.len() <= 1, "nothing is ever found in {without:?}");
}

/// The files of segments that the collector had not filled when the shard was closed.
fn open_for_collection(disk: &SimDisk) -> Vec<String> {
    let mut life = harness::life(13, disk.clone());
    let env = life.env();
    let reading = async move { manifest::read(&env, Path::new(harness::DIRECTORY)).await };
    let reading = life.block_on(reading).expect("reading does not hang").expect("a manifest");
    let segments = reading.state.segments.into_iter();
    let open = segments.filter(|(_, segment)| !segment.is_log() && segment.sealed.is_none());
    open.map(|(number, _)| segment::file_name(number)).collect()
}

#[test]
fn lost_sectors_and_missing_files_are_found_and_named() {
    let disk = flips::store();
    let sound = check(&disk).expect("a store");
    for (path, len) in disk.files() {
        let mut missing = disk.clone();
        let mut life = harness::life(4, missing);
        let (env, gone) = (life.env(), path.clone());
        life.block_on(async move { env.remove(&gone).await }).expect("runs").expect("removed");
        missing = life.kill();
        match check(&missing) {
            Ok(report) => {
                let text = problems(&report).join("\n");
                assert!(text.contains(&name(&path)), "{}: {text}", path.display());
            }
            Err(error) => {
                assert!(name(&path) == "SUPERBLOCK", "{}: {error}", path.display());
                assert!(error.to_string().contains("no SUPERBLOCK"), "{error}");
            }
        }
        let bytes = disk.read_all(&path);
        let written = (0..len).find(|at| bytes[*at as usize] != 0).expect("no file is empty");
        for offset in [written, 4096 + 64].into_iter().filter(|at| *at < len) {
            if bytes[offset as usize] == 0 {
                continue;
            }
            let mut damaged = disk.clone();
            damaged.lose_sector(&path, offset);
            let report = check(&damaged).expect("a store");
            let text = problems(&report).join("\n");
            // Nothing says where a segment ends that the collector has not filled: what nobody
            // points to there may be gone.
            let is_open = open_for_collection(&disk).contains(&name(&path));
            let is_harmless = is_open && text.is_empty() && report.pointers == sound.pointers;
            let is_found = text.contains(&name(&path));
            assert!(is_found || is_harmless, "{} at {offset}: {text}", path.display());
        }
        let mut short = disk.clone();
        short.truncate(&path, len - 4096);
        let report = check(&short).expect("a store");
        let text = problems(&report).join("\n");
        let is_noted = text.contains(&name(&path));
        // A last edit that is gone cannot be told from one that was never finished.
        assert!(is_noted || name(&path).contains("MANIFEST"), "{}: {text}", path.display());
    }
}

#[test]
fn other_directories_are_refused_with_the_reason() {
    let text = |disk: &SimDisk| check(disk).expect_err("no store to check").to_string();
    let mut disk = harness::empty_disk(harness::CAPACITY);
    disk.create_directory(harness::DIRECTORY);
    assert!(text(&disk).contains("holds no shard"), "{}", text(&disk));
    let mut newer = flips::store();
    let superblock = Path::new(harness::DIRECTORY).join("SUPERBLOCK");
    for copy in 0..4 {
        newer.write_raw(&superblock, copy * 4096 + 8, &77u32.to_le_bytes());
    }
    let text = text(&newer);
    assert!(text.contains("format 77") && text.contains("format 6"), "{text}");
}

#[test]
fn a_lost_value_is_named_by_the_table_that_points_to_it() {
    let mut disk = flips::store();
    let value = flips::value(2).expect("a value");
    assert!(value.len() >= 300, "a value that is not in the table itself");
    let compressed = ValueCompressor::default().compress(&value).expect("it is all the same byte");
    let value = compressed.bytes;
    let holds = |path: &PathBuf| {
        let bytes = disk.read_all(path);
        bytes.windows(value.len()).position(|window| window == value)
    };
    let files = disk.files().into_iter();
    let (path, at) = files
        .map(|file| file.0)
        .find_map(|path| Some((path.clone(), holds(&path)?)))
        .expect("the value is in the log");
    disk.flip_bit(&path, at as u64 + 10, 0);
    let report = check(&disk).expect("a store");
    let table = report.files.iter().find(|file| file.name.ends_with(".sst")).expect("a table");
    assert_eq!(table.problem_count, 1, "{table:?}");
    let what = &table.problems[0].what;
    for part in ["\"key-02\"", "does not match its checksum", &name(&path)] {
        assert!(what.contains(part), "{part} in {what}");
    }
}
