//! Repairs of the part of the log that a start replays: they keep what a start of the damaged store
//! would, and say the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_runtime::random::Random;
use larder_runtime::simulation::{FaultPlan, SimDisk};

use super::checks::{check, problems};
use super::damage::{self, Damage};
use super::harness;
use super::history::Name;
use super::repairs::{is_listed, repair, replay_from};
use crate::check::{self, Repair};
use crate::value_log::segment;

/// What each key holds; `None` if reading it says that it is damaged.
type Kept = BTreeMap<Vec<u8>, Option<Option<Vec<u8>>>>;

/// What a start keeps, and of how many damaged places it reports; `None` if it is refused.
fn start(disk: SimDisk) -> Option<(Kept, usize)> {
    let mut life = harness::life(21, disk);
    let opening = harness::open(life.env(), damage::options());
    let (shard, report) = life.block_on(opening).expect("opening does not hang").ok()?;
    let reading = async move {
        let mut kept = Kept::new();
        for number in 0..40u8 {
            let key = format!("key-{number:02}").into_bytes();
            let found = harness::stored(&shard, &Name::memcached(&key)).await;
            kept.insert(key, found.ok().map(|item| item.map(|item| item.value)));
        }
        kept
    };
    Some((life.block_on(reading).expect("reading does not hang"), report.damage.len()))
}

/// Places in the part of the log that a start replays.
fn places(disk: &SimDisk, random: &mut Random) -> Vec<(PathBuf, u64)> {
    let from = replay_from(disk);
    let is_replayed = |path: &Path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        segment::parse_file_name(&name).is_some_and(|number| number >= from)
    };
    let mut places = damage::places(disk, random, 150);
    places.retain(|(path, _)| is_replayed(path));
    assert!(!places.is_empty());
    places
}

/// Compares what a repair has kept with what a start of the damaged store keeps, if there is such
/// a start.
fn compare(repaired: &Repair, disk: SimDisk, damaged: Option<&Kept>, what: &str) {
    let (kept, reported) = start(disk).unwrap_or_else(|| panic!("{what}: it does not open"));
    assert_eq!(reported, 0, "{what}: a start reports damage again");
    for (key, found) in &kept {
        let text = key.escape_ascii();
        let found = found.as_ref().unwrap_or_else(|| panic!("{what}: {text} is damaged"));
        match damaged.map(|kept| &kept[key]) {
            Some(Some(before)) => assert_eq!(found, before, "{what}: {text}"),
            Some(None) => {
                assert_eq!(found, &None, "{what}: {text} was unreadable");
                assert!(is_listed(repaired, key), "{what}: nobody says that {text} is lost");
            }
            None => assert!(!repaired.done.is_empty(), "{what}"),
        }
    }
}

#[test]
fn a_repair_keeps_what_a_start_would_and_the_next_start_reports_nothing() {
    let mut random = Random::new(8);
    let (mut changes, mut keys, mut refused) = (0, 0, 0);
    for clean in [false, true] {
        let (disk, _) = damage::store(clean);
        for (path, offset) in places(&disk, &mut random) {
            let damage = Damage::random(&mut random);
            let mut damaged = disk.clone();
            damage.apply(&mut damaged, &path, offset, offset);
            let what = format!("{damage:?} at byte {offset} of {}", path.display());
            let report = check(&damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
            if report.problems() == 0 {
                continue;
            }
            let before = start(damaged.clone());
            let (repaired, after) = repair(damaged);
            let repaired = repaired.unwrap_or_else(|error| panic!("{what}: {error}"));
            let left = problems(&check(&after).expect("a store"));
            assert_eq!(left, [] as [String; 0], "{what}: {repaired:?}");
            changes += usize::from(!repaired.lost_changes.is_empty());
            keys += usize::from(!repaired.lost_keys.is_empty());
            refused += usize::from(before.is_none());
            if let Some((_, reported)) = &before
                && repaired.lost_keys.is_empty()
            {
                assert_eq!(repaired.lost_changes.is_empty(), *reported == 0, "{what}");
            }
            compare(&repaired, after, before.as_ref().map(|(kept, _)| kept), &what);
        }
    }
    eprintln!("{changes} lost changes, {keys} lost keys, {refused} could not have started");
    assert!(changes > 5 && keys > 5 && refused > 5, "{changes}, {keys}, {refused}");
}

#[test]
fn a_crash_while_a_damaged_log_is_repaired_loses_nothing_more() {
    let (mut disk, _) = damage::store(true);
    let mut random = Random::new(1);
    let is_reported = |place: &&(PathBuf, u64)| {
        let mut damaged = disk.clone();
        damaged.flip_bit(&place.0, place.1, 3);
        start(damaged).is_some_and(|(_, reported)| reported > 0)
    };
    let places = places(&disk, &mut random);
    let (path, offset) = places.iter().find(is_reported).expect("a place that matters");
    disk.flip_bit(path, *offset, 3);
    let (before, _) = start(disk.clone()).expect("opens");
    for operation in (1..).step_by(3) {
        let mut life = harness::life(operation, disk.clone());
        let env = life.env();
        env.set_faults(FaultPlan { crash_at_operation: Some(operation), ..Default::default() });
        let repairing = async move { check::repair(&env, Path::new(harness::DIRECTORY)).await };
        let is_whole = life.block_on(repairing).is_ok();
        let (repaired, after) = repair(life.crash());
        let repaired = repaired.expect("a store");
        let left = problems(&check(&after).expect("a store"));
        assert_eq!(left, [] as [String; 0], "crash at operation {operation}");
        let (kept, reported) = start(after).expect("opens");
        assert_eq!(reported, 0);
        for (key, value) in &kept {
            let expected = before[key].clone().unwrap_or_default();
            assert_eq!(value.as_ref(), Some(&expected), "operation {operation}, {repaired:?}");
        }
        if is_whole {
            assert!(operation > 30, "the repair took {operation} operations");
            return;
        }
    }
}
