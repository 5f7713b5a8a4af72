//! Repairs: whatever was damaged, a repaired store holds every value that could be read, no value
//! that was overwritten or deleted, and says which keys have lost theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_runtime::random::Random;
use larder_runtime::simulation::SimDisk;

use super::checks::{self, check, problems};
use super::damage::{self, Damage};
use super::harness;
use super::history::Name;
use super::items;
use super::smoke::{delete, run, set};
use crate::check::{self, CheckError, Repair};
use crate::index::table;
use crate::key::Key;
use crate::manifest;
use crate::shard::ShardOptions;
use crate::value_log::segment;

/// All values that a key ever had, the last one last; `None` where it was deleted.
type History = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

pub(super) fn repair(disk: SimDisk) -> (Result<Repair, CheckError>, SimDisk) {
    let mut life = harness::life(11, disk);
    let env = life.env();
    let repairing = async move { check::repair(&env, Path::new(harness::DIRECTORY)).await };
    let repaired = life.block_on(repairing).expect("repairing does not hang");
    (repaired, life.crash())
}

/// A store whose changes are all in tables, of several levels, with nothing but a few flushes
/// between the rounds.
fn flushed_store() -> (SimDisk, History) {
    flushed_store_with(0)
}

/// The same after so many more segments and flushes: each adds edits to the manifest, or makes it
/// switch files.
fn flushed_store_with(more: u8) -> (SimDisk, History) {
    let mut life = harness::life(2, harness::empty_disk(harness::CAPACITY));
    let mut options = damage::options();
    options.picker.level_zero_runs = 3;
    options.space_amplification_percent = 150;
    options.recovery_log_bytes = 512 << 10;
    let (shard, _) = harness::open_in(&mut life, &options);
    let mut history = History::new();
    for round in 0..6u8 {
        for number in (0..40u8).filter(|number| (number + round) % 3 > 0 || round == 0) {
            let key = format!("key-{number:02}").into_bytes();
            let len = [5, 60, 900, 20, 3000][usize::from(number + round) % 5];
            let value = (round + number) % 7 != 6;
            let value = value.then(|| vec![number ^ (round << 5); len]);
            let operation = value.as_ref().map_or_else(delete, |value| set(value));
            let (worker, name) = (shard.clone(), key.clone());
            life.block_on(async move { run(&worker, &name, operation).await }).expect("runs");
            history.entry(key).or_default().push(value);
        }
    }
    let worker = shard.clone();
    life.block_on(async move {
        for number in 0..more {
            // Enough for a segment: each has a frame of its own.
            for part in 0..20u8 {
                run(&worker, &[b'm', number % 2, part], set(&[number; 3000])).await;
            }
            items::flush_memtable(&worker).await;
        }
        // The collector goes on moving records for a while.
        while worker.statistics().index.memtable_entries > 0 {
            items::flush_memtable(&worker).await;
        }
        worker.close().await.expect("closes");
    })
    .expect("runs");
    let statistics = shard.statistics();
    assert!(
        statistics.index.counters.compactions > 0 && statistics.index.tables > 1,
        "{statistics:?}"
    );
    assert_eq!(statistics.index.memtable_entries, 0);
    drop(shard);
    (life.crash(), history)
}

/// Whether a repair has said that the key may have lost its value.
pub(super) fn is_listed(repair: &Repair, key: &[u8]) -> bool {
    let key = Key::memcached(key).encode();
    let is_inside = |range: &(Vec<u8>, Vec<u8>)| range.0 <= key && key <= range.1;
    repair.lost_ranges.iter().any(is_inside) || repair.lost_keys.contains(&key)
}

/// Opens a repaired store and compares it with what was written. Returns how many keys have lost
/// their value.
fn compare(disk: SimDisk, history: &History, repair: &Repair, what: &str) -> usize {
    let mut life = harness::life(12, disk);
    let opening = harness::open(life.env(), damage::options());
    let opened = life.block_on(opening).expect("opening does not hang");
    let (shard, report) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report.damage, [], "{what}");
    let mut lost = 0;
    for (key, values) in history {
        let (reader, name) = (shard.clone(), Name::memcached(key));
        let found = life.block_on(async move { harness::stored(&reader, &name).await });
        let found = found.expect("does not hang").unwrap_or_else(|error| panic!("{what}: {error}"));
        let (found, last) = (found.map(|item| item.value), values.last().expect("written"));
        let key_text = key.escape_ascii();
        if found != *last {
            assert_eq!(found, None, "{what}: {key_text} has a value that it no longer had");
            assert!(is_listed(repair, key), "{what}: {key_text} is gone, and nobody says so");
            lost += 1;
        }
    }
    lost
}

/// The first segment that a start replays.
pub(super) fn replay_from(disk: &SimDisk) -> u32 {
    let mut life = harness::life(13, disk.clone());
    let env = life.env();
    let reading = async move { manifest::read(&env, Path::new(harness::DIRECTORY)).await };
    let reading = life.block_on(reading).expect("reading does not hang").expect("a manifest");
    reading.state.replay_from.segment
}

#[test]
fn a_repaired_store_is_sound_and_holds_what_could_be_read() {
    let (disk, history) = flushed_store();
    assert_eq!(problems(&check(&disk).expect("a store")), [] as [String; 0]);
    let (nothing, same) = repair(disk.clone());
    assert_eq!(nothing.expect("a store"), Repair::default());
    assert_eq!(compare(same, &history, &Repair::default(), "nothing was damaged"), 0);

    let mut random = Random::new(5);
    let mut repaired_files = BTreeSet::new();
    let mut lost_keys = 0;
    for (path, offset) in damage::places(&disk, &mut random, 100) {
        let damage = Damage::random(&mut random);
        let mut damaged = disk.clone();
        damage.apply(&mut damaged, &path, offset, offset);
        let what = format!("{damage:?} at byte {offset} of {}", path.display());
        let Ok(report) = check(&damaged) else { continue };
        if report.problems() == 0 {
            continue;
        }
        let (repaired, after) = repair(damaged.clone());
        let repaired = match repaired {
            Ok(repaired) => repaired,
            Err(error) => {
                let names = ["MANIFEST", "SUPERBLOCK"];
                let is_head = names.iter().any(|name| path.to_string_lossy().contains(name));
                assert!(is_head && error.to_string().contains("backup"), "{what}: {error}");
                assert_eq!(checks::contents(&after), checks::contents(&damaged), "{what}");
                continue;
            }
        };
        let left = problems(&check(&after).expect("a store"));
        assert_eq!(left, [] as [String; 0], "{what}: {repaired:?}");
        assert!(!repaired.done.is_empty(), "{what}");
        let lost = compare(after, &history, &repaired, &what);
        // Damage of a few sectors costs a few keys, not the store.
        assert!(lost < history.len(), "{what}: all keys are lost");
        lost_keys += lost;
        repaired_files.insert(path);
    }
    let is = |kind: fn(&str) -> bool| {
        let name =
            |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        repaired_files.iter().filter(|path| kind(&name(path))).count()
    };
    assert!(is(|name| name == "SUPERBLOCK") == 1, "{repaired_files:?}");
    assert!(is(|name| table::parse_file_name(name).is_some()) > 1, "{repaired_files:?}");
    assert!(is(|name| segment::parse_file_name(name).is_some()) > 2, "{repaired_files:?}");
    assert!(lost_keys > 0, "no damage has cost a key");
}

#[test]
fn a_crash_during_a_repair_leaves_a_store_that_can_be_repaired() {
    let (disk, history) = flushed_store();
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let files: Vec<PathBuf> = disk.files().into_iter().map(|file| file.0).collect();
    let mut damaged = disk;
    damaged.flip_bit(files.iter().rfind(|path| is_table(path)).expect("a table"), 700, 3);
    damaged.flip_bit(files.iter().find(|path| is_segment(path)).expect("a segment"), 5000, 3);
    for operation in 1.. {
        let mut life = harness::life(operation, damaged.clone());
        let env = life.env();
        env.set_faults(larder_runtime::simulation::FaultPlan {
            crash_at_operation: Some(operation),
            ..Default::default()
        });
        let repairing = async move { check::repair(&env, Path::new(harness::DIRECTORY)).await };
        let is_whole = life.block_on(repairing).is_ok();
        let (repaired, after) = repair(life.crash());
        let repaired = repaired.expect("a store");
        let left = problems(&check(&after).expect("a store"));
        assert_eq!(left, [] as [String; 0], "crash at operation {operation}");
        if is_whole {
            assert!(operation > 20, "the repair took {operation} operations");
            return;
        }
        // What the first repair has listed is gone with it: only resurrection is looked for.
        let all = Repair { lost_ranges: vec![(Vec::new(), vec![255])], ..repaired };
        compare(after, &history, &all, &format!("crash at operation {operation}"));
    }
}

#[test]
fn a_deleted_or_overwritten_value_stays_so_when_a_newer_block_is_lost() {
    let mut options = ShardOptions { memtable_bytes: 1 << 20, ..damage::options() };
    options.picker.level_zero_runs = 100;
    options.picker.level_zero_tables = 100;
    (options.picker.hidden_part, options.picker.hidden_part_wanted) = (1, 1);
    options.picker.dead_part = 2;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let worker = shard.clone();
    life.block_on(async move {
        for number in 0..20u8 {
            run(&worker, &[b'k', number + 32], set(&[1; 20])).await;
        }
        items::flush_memtable(&worker).await;
        run(&worker, b"k(", set(&[2; 20])).await;
        run(&worker, b"k)", delete()).await;
        items::flush_memtable(&worker).await;
        run(&worker, b"k*", set(&[3; 20])).await;
        items::flush_memtable(&worker).await;
        worker.close().await.expect("closes");
    })
    .expect("runs");
    drop(shard);
    let mut disk = life.crash();
    let path = Path::new(harness::DIRECTORY).join(table::file_name(1));
    disk.lose_sector(&path, 0);
    let (repaired, disk) = repair(disk);
    let repaired = repaired.expect("a store");
    assert_eq!(problems(&check(&disk).expect("a store")), [] as [String; 0]);
    let lost = |key: &str| is_listed(&repaired, key.as_bytes());
    assert!(lost("k(") && lost("k)") && !lost("k*"), "{repaired:?}");
    let mut life = harness::life(2, disk);
    let (shard, _) = harness::open_in(&mut life, &options);
    life.block_on(async move {
        let mut kept = 0;
        for number in 0..20u8 {
            let key = [b'k', number + 32];
            let found = harness::stored(&shard, &Name::memcached(&key)).await.expect("readable");
            match (&key, found.map(|item| item.value)) {
                (b"k(" | b"k)", found) => assert_eq!(found, None),
                (b"k*", found) => assert_eq!(found, Some(vec![3; 20])),
                (_, Some(value)) => {
                    assert_eq!(value, [1; 20]);
                    kept += 1;
                }
                (_, None) => {}
            }
        }
        // The lost table's filter clears nearly all keys that it never held.
        assert!(kept >= 15, "{kept} of 17 keys kept");
    })
    .expect("runs");
}

#[test]
fn a_manifest_that_has_lost_its_last_edits_makes_no_repair_drop_anything() {
    let (mut cuts, mut refused) = (0, 0);
    for more in 0..32 {
        let (disk, _) = flushed_store_with(more);
        let (cut, refusals) = cut_manifest_everywhere(&disk);
        cuts += cut;
        refused += refusals;
    }
    assert!(refused > 1 && refused < cuts, "{refused} of {cuts} refused");
}

/// Cuts the manifest short behind each of its blocks and lets it be repaired; how many cuts there
/// were, and how many were refused.
fn cut_manifest_everywhere(disk: &SimDisk) -> (usize, usize) {
    let is_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    let (path, _) = disk.files().into_iter().find(|file| is_manifest(&file.0)).expect("there");
    let bytes = disk.read_all(&path);
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("written").next_multiple_of(4096);
    let (mut cuts, mut refused) = (0, 0);
    for end in (4096..=end).step_by(4096) {
        let mut cut = disk.clone();
        cut.truncate(&path, end as u64);
        cuts += 1;
        let mut before = checks::contents(&cut);
        let (repaired, after) = repair(cut);
        let mut has_forgotten = false;
        match repaired {
            Ok(mut repaired) => {
                // Of a segment that was freed with the edits that are lost only the name is there.
                let is_name = |done: &String| done.ends_with("forgotten, its file is gone");
                has_forgotten = repaired.done.extract_if(.., |done| is_name(done)).count() > 0;
                assert_eq!(repaired, Repair::default(), "cut at {end}");
            }
            Err(error) => {
                assert!(error.to_string().contains("older than its files"), "{error}");
                refused += 1;
            }
        }
        let mut after = checks::contents(&after);
        if has_forgotten {
            for files in [&mut before, &mut after] {
                files.retain(|(path, _)| !is_manifest(Path::new(path)));
            }
        }
        assert!(after == before, "cut at {end}: files were changed");
    }
    (cuts, refused)
}
