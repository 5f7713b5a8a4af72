//! Damage to files at rest, and faults of the device while the shard runs.
//!
//! Whatever is damaged: opening and reading do not panic, no key has a value that it never had, and
//! a key that has lost its value says so, or the report of the start does.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::{FaultPlan, SimDisk, SimEnv};

use super::harness::{self, TestShard, tiny_options};
use super::history::Name;
use super::lives::{Lives, read_all};
use super::model::{Device, Model, Start};
use super::smoke::{delete, run, set};
use super::workload::{SharedModel, perform};
use crate::error::EngineError;
use crate::shard::ShardOptions;

pub(super) fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1350;
    options.compress_from = Some(1000);
    options.picker.level_zero_runs = 4;
    (options.picker.hidden_part, options.picker.hidden_part_wanted) = (1, 1);
    // Enough that nothing is collected: the tables are to be damaged, not rewritten.
    options.space_amplification_percent = 10_000;
    options.recovery_log_bytes = 8 << 20;
    options
}

async fn write(env: SimEnv, shard: TestShard, model: SharedModel) {
    for round in 0..3u8 {
        for number in 0..40u8 {
            let name = Name::memcached(format!("key-{number:02}").as_bytes());
            let len = [5, 20, 60, 900, 5000][usize::from(number + round) % 5];
            let operation = if (number + round) % 5 == 0 && round > 0 {
                delete()
            } else {
                set(&vec![number ^ (round << 6); len])
            };
            perform(&env, &shard, &model, &name, &operation).await.expect("nothing fails");
        }
    }
}

/// A shard with tables in two levels, values in the log, and changes that no table has yet.
pub(super) fn store(clean: bool) -> (SimDisk, Model) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let model: SharedModel = Rc::new(RefCell::new(Model::default()));
    life.block_on(write(life.env(), shard.clone(), model.clone())).expect("runs");
    let statistics = shard.statistics();
    assert!(
        statistics.index.counters.compactions > 0 && statistics.index.tables > 1,
        "{statistics:?}"
    );
    assert!(statistics.index.memtable_entries > 2, "{statistics:?}");
    if clean {
        life.block_on(async move { shard.close().await }).expect("runs").expect("closes");
    }
    let model = model.borrow().clone();
    (life.crash(), model)
}

#[derive(Debug)]
pub(super) enum Damage {
    Flip(u8),
    ZeroSector,
    LoseSector,
    Garbage(u64),
    Truncate,
}

impl Damage {
    pub(super) fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..6 => Self::Flip(random.below(8) as u8),
            6 => Self::ZeroSector,
            7 => Self::LoseSector,
            8 => Self::Garbage(1 + random.below(3000)),
            _ => Self::Truncate,
        }
    }

    pub(super) fn apply(&self, disk: &mut SimDisk, path: &Path, offset: u64, seed: u64) {
        match *self {
            Self::Flip(bit) => disk.flip_bit(path, offset, bit),
            Self::ZeroSector => disk.zero_sector(path, offset),
            Self::LoseSector => disk.lose_sector(path, offset),
            Self::Garbage(len) => {
                let file = disk.read_all(path).len() as u64;
                disk.corrupt(path, offset..(offset + len).min(file), seed);
            }
            Self::Truncate => disk.truncate(path, offset),
        }
    }
}

/// Places to damage: mostly bytes that were written, in every file.
pub(super) fn places(disk: &SimDisk, random: &mut Random, per_file: usize) -> Vec<(PathBuf, u64)> {
    let mut places = Vec::new();
    for (path, len) in disk.files() {
        let bytes = disk.read_all(&path);
        let written: Vec<u64> = (0..len).filter(|at| bytes[*at as usize] != 0).collect();
        for _ in 0..per_file {
            let anywhere = random.percent(10) || written.is_empty();
            let offset = if anywhere { random.below(len) } else { random.pick(&written) };
            places.push((path.clone(), offset));
        }
    }
    places
}

/// Opens a damaged store and reads everything; says how many keys were refused.
///
/// Of a store that was closed the manifest knows where its log ends, so that nothing may be missing
/// that is not reported. Of one that was killed the end may be.
fn read_damaged(disk: SimDisk, model: &Model, clean: bool) -> Result<usize, EngineError> {
    let mut life = harness::life(3, disk);
    let opening = harness::open(life.env(), options());
    let (shard, report) = life.block_on(opening).expect("opening does not hang")?;
    let device = if clean { Device::Misreads } else { Device::LosesWrites };
    let model: SharedModel = Rc::new(RefCell::new(model.clone()));
    let start = Start::of(&shard, &report, device);
    let reading = read_all(shard.clone(), model.clone(), true);
    let found = life.block_on(reading).expect("reading does not hang");
    let refused = found.values().filter(|found| found.is_none()).count();
    model.borrow_mut().settle(&found, &start);
    Ok(refused)
}

pub(super) fn damage_each(clean: bool, per_file: usize, seed: u64) {
    let (disk, model) = store(clean);
    assert_eq!(read_damaged(disk.clone(), &model, clean).expect("opens"), 0);
    let mut random = Random::new(seed);
    let (mut opened, mut named) = (0, 0);
    for (path, offset) in places(&disk, &mut random, per_file) {
        let damage = Damage::random(&mut random);
        let mut damaged = disk.clone();
        damage.apply(&mut damaged, &path, offset, seed);
        let what = format!("{damage:?} at byte {offset} of {}", path.display());
        let reading = std::panic::AssertUnwindSafe(|| read_damaged(damaged, &model, clean));
        match std::panic::catch_unwind(reading) {
            Ok(Ok(_)) => opened += 1,
            Ok(Err(error)) => {
                named += 1;
                let text = error.to_string();
                assert!(matches!(error, EngineError::Open(_)), "{what}: {text}");
                assert!(text.contains(harness::DIRECTORY), "{what}: no file is named: {text}");
            }
            Err(panic) => {
                eprintln!("failed: {what}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(opened > 0 && named > 0, "{opened} opened, {named} refused");
}

#[test]
fn damage_to_a_store_that_was_closed_is_never_silent() {
    damage_each(true, 300, 1);
}

#[test]
fn damage_to_a_store_that_was_killed_never_invents_values() {
    damage_each(false, 150, 2);
}

#[test]
fn one_bad_sector_leaves_the_other_keys_of_its_frame_readable() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let options = ShardOptions { memtable_bytes: 1 << 20, ..tiny_options() };
    let (shard, _) = harness::open_in(&mut life, &options);
    let worker = shard.clone();
    let keys: Vec<Vec<u8>> = (0..12u8).map(|n| format!("key-{n:02}").into_bytes()).collect();
    let written = keys.clone();
    life.block_on(async move {
        // All in one frame: they arrive while the first is on its way.
        let all = written.iter().enumerate().map(|(number, key)| {
            let worker = worker.clone();
            let operation = set(&vec![number as u8; 600]);
            Box::pin(async move { run(&worker, key, operation).await })
        });
        for waiting in all.collect::<Vec<_>>().into_iter().rev() {
            waiting.await;
        }
        worker.close().await.expect("closes");
    })
    .expect("runs");
    let pointer = harness::pointer(&shard, &keys[5]).expect("a separate value");
    drop(shard);
    let disk = life.kill();
    let path =
        Path::new(harness::DIRECTORY).join(crate::value_log::segment::file_name(pointer.segment));
    for damage in [Damage::LoseSector, Damage::ZeroSector] {
        let mut damaged = disk.clone();
        damage.apply(&mut damaged, &path, u64::from(pointer.offset), 1);
        let mut life = harness::life(2, damaged);
        let (shard, report) = harness::open_in(&mut life, &options);
        assert!(!report.damage.is_empty(), "{damage:?} is reported");
        let mut readable = 0;
        for (number, key) in keys.iter().enumerate() {
            let (reader, name) = (shard.clone(), Name::memcached(key));
            let found = life.block_on(async move { harness::stored(&reader, &name).await });
            if let Ok(Some(item)) = found.expect("runs") {
                assert_eq!(item.value, vec![number as u8; 600]);
                readable += 1;
            }
        }
        // One block holds parts of eight records at most.
        assert!(readable >= 4, "{damage:?} has hidden all but {readable} of the keys");
    }
}

/// Lives in which the device has faults of these kinds.
pub(super) fn faulty_lives(
    seed: u64,
    rates: impl FnOnce(&mut Random) -> FaultPlan,
    device: Device,
) {
    let mut lives = Lives::new(seed);
    let base = lives.faults.clone();
    let faults = rates(&mut lives.random);
    lives.suffer(FaultPlan { slow_per_million: base.slow_per_million, ..faults }, device);
    for _ in 0..lives.random.count(1..=4) {
        if !lives.try_live() {
            return;
        }
    }
    lives.try_finish();
}

#[test]
fn reads_that_fail_or_lie_are_noticed() {
    harness::for_each_seed("reads_that_fail_or_lie_are_noticed", 10_001, 300, |seed| {
        let rates = |random: &mut Random| FaultPlan {
            latent_sector_error_per_million: random.pick(&[0, 300, 3000]),
            bit_flip_at_read_per_million: random.pick(&[0, 1000, 10_000]),
            misdirected_read_per_million: random.pick(&[0, 1000, 10_000]),
            ..FaultPlan::default()
        };
        faulty_lives(seed, rates, Device::Misreads);
    });
}

#[test]
fn writes_that_are_lost_or_go_astray_never_invent_values() {
    let name = "writes_that_are_lost_or_go_astray_never_invent_values";
    harness::for_each_seed(name, 20_001, 300, |seed| {
        let rates = |random: &mut Random| FaultPlan {
            latent_sector_error_per_million: random.pick(&[0, 0, 300]),
            bit_flip_at_rest_per_million: random.pick(&[0, 1000, 10_000]),
            stale_write_per_million: random.pick(&[0, 1000, 10_000]),
            misdirected_write_per_million: random.pick(&[0, 1000, 10_000]),
            ..FaultPlan::default()
        };
        faulty_lives(seed, rates, Device::LosesWrites);
    });
}

#[test]
fn a_merge_that_meets_damage_stops_neither_reads_nor_writes() {
    let mut options = tiny_options();
    options.memtable_bytes = 1500;
    options.picker.level_zero_runs = 2;
    let mut first = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut first, &options);
    let write = async |shard: TestShard, numbers: std::ops::Range<u8>| {
        for number in numbers {
            run(&shard, &[b'k', number], set(&[number; 20])).await;
        }
        shard.env.sleep(100_000_000).await;
    };
    first.block_on(write(shard.clone(), 0..12)).expect("runs");
    assert_eq!(shard.statistics().index.tables, 1);
    drop(shard);
    let mut disk = first.crash();
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let table = disk.files().into_iter().map(|file| file.0).find(is_table).expect("one table");
    disk.lose_sector(&table, 0);

    let mut second = harness::life(2, disk);
    let (shard, _) = harness::open_in(&mut second, &options);
    for _ in 0..2 {
        second.block_on(write(shard.clone(), 1..40)).expect("runs");
    }
    // The device is asked some times before a block counts as lost.
    second.advance(5_000_000_000).expect("runs");
    let statistics = shard.statistics().index;
    assert_eq!((shard.stopped(), statistics.stubs), (None, 1), "{statistics:?}");
    assert!(statistics.counters.compactions > 0);
    second
        .block_on(async move {
            for number in 5..40 {
                let stored = harness::stored(&shard, &Name::memcached(&[b'k', number])).await;
                assert_eq!(stored.expect("readable").expect("there").value, [number; 20]);
            }
            assert!(matches!(
                harness::stored(&shard, &Name::memcached(b"k\0")).await,
                Err(EngineError::Damaged { .. })
            ));
        })
        .expect("runs");
}
