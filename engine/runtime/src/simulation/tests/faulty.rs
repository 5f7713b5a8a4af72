//! Faults of the device, chosen failures, and damage from outside.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;

const ALWAYS: u32 = 1_000_000;

fn is_io_error(result: &io::Result<Vec<u8>>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}

/// A durable file whose page `n` is filled with `n + 1`, and the faults switched on after that.
async fn numbered(env: &SimEnv, pages: u64, faults: FaultPlan) -> SimFile {
    let file = create_durably(env, "/file").await;
    for number in 0..pages {
        put(env, &file, number, number as u8 + 1).await.unwrap();
    }
    file.sync(CLASS).await.unwrap();
    env.set_faults(faults);
    file
}

#[test]
fn a_latent_sector_error_stays_until_the_sector_is_written() {
    let (_, result) = run(options(1), async |env| {
        let once = FaultPlan { latent_sector_error_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 2, once).await;
        assert!(is_io_error(&get(&env, &file, 0).await));
        env.set_faults(FaultPlan::default());
        assert!(is_io_error(&get(&env, &file, 0).await));
        assert_eq!(uniform(&get(&env, &file, 1).await.unwrap()), Some(2));
        put(&env, &file, 0, 5).await.unwrap();
        assert_eq!(uniform(&get(&env, &file, 0).await.unwrap()), Some(5));
    });
    result.unwrap();
}

#[test]
fn a_latent_sector_error_survives_a_restart() {
    let (simulation, _) = run(options(1), async |env| {
        numbered(&env, 2, FaultPlan::default()).await;
    });
    let mut disk = simulation.crash();
    disk.lose_sector("/file", PAGE as u64 + 700);
    let mut next = Simulation::with_disk(options(2), disk.crash_with_seed(3));
    let env = next.env();
    let result = next.block_on(async {
        let file = env.open(Path::new("/file"), OpenMode::Read).await.unwrap();
        assert!(get(&env, &file, 0).await.is_ok());
        assert!(is_io_error(&get(&env, &file, 1).await));
    });
    result.unwrap();
}

#[test]
fn a_bit_flip_at_read_leaves_the_stored_data_whole() {
    let (_, result) = run(options(1), async |env| {
        let faults = FaultPlan { bit_flip_at_read_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 1, faults).await;
        let flipped = get(&env, &file, 0).await.unwrap();
        let ones: u32 = flipped.iter().map(|byte| (byte ^ 1).count_ones()).sum();
        assert_eq!(ones, 1);
        env.set_faults(FaultPlan::default());
        assert_eq!(uniform(&get(&env, &file, 0).await.unwrap()), Some(1));
    });
    result.unwrap();
}

#[test]
fn a_bit_flip_at_rest_is_one_bit_for_ever() {
    let (simulation, result) = run(options(1), async |env| {
        let faults = FaultPlan { bit_flip_at_rest_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 1, faults).await;
        file.write_durably(CLASS, 0, filled(&env, 2, 0)).await.0.unwrap();
        let (result, buffer) = file.read(CLASS, 0, env.buffer(2 * PAGE)).await;
        result.unwrap();
        buffer.to_vec()
    });
    let flipped = result.unwrap();
    assert_eq!(flipped.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_eq!(simulation.crash().read_all("/file"), flipped);
}

#[test]
fn a_stale_write_keeps_the_old_bytes() {
    let (_, result) = run(options(1), async |env| {
        let faults = FaultPlan { stale_write_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 2, faults).await;
        put(&env, &file, 1, 9).await.unwrap();
        put(&env, &file, 3, 9).await.unwrap();
        assert_eq!(file.len(), 4 * PAGE as u64);
        for (page, byte) in [(0, 1), (1, 2), (2, 0), (3, 0)] {
            assert_eq!(uniform(&get(&env, &file, page).await.unwrap()), Some(byte));
        }
    });
    result.unwrap();
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let mut places = BTreeSet::new();
    for seed in 0..200 {
        let (_, result) = run(options(seed), async |env| {
            let faults =
                FaultPlan { misdirected_write_per_million: ALWAYS, ..FaultPlan::default() };
            let file = numbered(&env, 7, faults).await;
            file.write(CLASS, 2 * PAGE as u64, filled(&env, 2, 99)).await.0.unwrap();
            assert_eq!(file.len(), 7 * PAGE as u64);
            let mut hit = Vec::new();
            for number in 0..7 {
                match uniform(&get(&env, &file, number).await.unwrap()).unwrap() {
                    99 => hit.push(number),
                    byte => assert_eq!(u64::from(byte), number + 1),
                }
            }
            hit
        });
        places.insert(result.unwrap());
    }
    let expected = [vec![0, 1], vec![4, 5], vec![5, 6]];
    assert_eq!(places, BTreeSet::from(expected));
}

#[test]
fn a_misdirected_write_with_nowhere_to_go_is_lost() {
    let (_, result) = run(options(1), async |env| {
        let faults = FaultPlan { misdirected_write_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 1, faults).await;
        put(&env, &file, 0, 9).await.unwrap();
        uniform(&get(&env, &file, 0).await.unwrap())
    });
    assert_eq!(result, Ok(Some(1)));
}

#[test]
fn a_misdirected_read_returns_another_place() {
    let (_, result) = run(options(1), async |env| {
        let faults = FaultPlan { misdirected_read_per_million: ALWAYS, ..FaultPlan::default() };
        let file = numbered(&env, 3, faults).await;
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            seen.insert(uniform(&get(&env, &file, 1).await.unwrap()).unwrap());
        }
        seen
    });
    assert_eq!(result, Ok(BTreeSet::from([1, 3])));
}

/// Does one operation of each kind; the kinds that failed, in order.
async fn each_kind_once(env: &SimEnv) -> Vec<OperationKind> {
    let (a, b, root) = (Path::new("/a"), Path::new("/b"), Path::new("/"));
    let mut failed = Vec::new();
    let mut check = |kind, result: io::Result<()>| {
        if result.is_err() {
            failed.push(kind);
        }
    };
    let file = env.open(a, OpenMode::CreateNew).await;
    check(OperationKind::Open, file.as_ref().map(drop).map_err(|error| error.kind().into()));
    let Ok(file) = file else { return failed };
    check(OperationKind::Allocate, file.allocate(2 * PAGE as u64).await);
    check(OperationKind::Write, put(env, &file, 0, 1).await);
    let _ = put(env, &file, 1, 1).await;
    check(OperationKind::Sync, file.sync(CLASS).await);
    check(OperationKind::Read, get(env, &file, 0).await.map(drop));
    check(OperationKind::SyncDirectory, env.sync_directory(root).await);
    check(OperationKind::CreateDirectory, env.create_directory(Path::new("/d")));
    check(OperationKind::Rename, env.rename(a, b).await);
    check(OperationKind::Remove, env.remove(b).await);
    failed
}

fn failing(fail_operation: FailOperation) -> FaultPlan {
    FaultPlan { fail_operation: Some(fail_operation), ..FaultPlan::default() }
}

#[test]
fn the_chosen_operation_fails() {
    let (simulation, failed) = run(options(1), async |env| each_kind_once(&env).await);
    assert_eq!(failed, Ok(vec![]));
    assert_eq!(simulation.operations(), 10);
    assert_eq!(simulation.operations_of(OperationKinds::WRITES_AND_SYNCS), 3);
    assert_eq!(simulation.operations_of(OperationKinds::of(&[OperationKind::Rename])), 1);
    for kind in [
        OperationKind::Open,
        OperationKind::Read,
        OperationKind::Write,
        OperationKind::Sync,
        OperationKind::Allocate,
        OperationKind::SyncDirectory,
        OperationKind::CreateDirectory,
        OperationKind::Remove,
    ] {
        let plan = FailOperation::once(0, Failure::Io).among(OperationKinds::of(&[kind]));
        let (_, failed) =
            run(with_faults(1, failing(plan)), async |env| each_kind_once(&env).await);
        // A read past the end of the file that was not made longer is a failure as well.
        assert_eq!(failed.unwrap().first(), Some(&kind));
    }
    // All ten, by number: each fails, and it alone unless others build on it.
    for index in 0..10 {
        let plan = failing(FailOperation::once(index, Failure::Io));
        let (_, failed) = run(with_faults(index, plan), async |env| each_kind_once(&env).await);
        let expected = match index {
            3 => vec![],
            8 => vec![OperationKind::Rename, OperationKind::Remove],
            _ => failed.clone().unwrap()[..1].to_vec(),
        };
        assert_eq!(failed.unwrap(), expected, "operation {index}");
    }
    let plan = failing(FailOperation::once(10, Failure::Io));
    let (_, failed) = run(with_faults(1, plan), async |env| each_kind_once(&env).await);
    assert_eq!(failed, Ok(vec![]));
}

#[test]
fn a_sticky_failure_lasts() {
    let plan = FailOperation::sticky(1, Failure::NoSpace)
        .among(OperationKinds::of(&[OperationKind::Write]));
    let (_, kinds) = run(with_faults(1, failing(plan)), async |env| {
        let file = create(&env, "/file").await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(put(&env, &file, 0, 1).await.err().map(|error| error.kind()));
        }
        file.sync(CLASS).await.unwrap();
        kinds
    });
    let full = Some(ErrorKind::StorageFull);
    assert_eq!(kinds, Ok(vec![None, full, full, full]));
}

#[test]
fn failures_are_the_errors_of_the_system() {
    for (failure, code) in [
        (Failure::Io, libc::EIO),
        (Failure::NoSpace, libc::ENOSPC),
        (Failure::QuotaExceeded, libc::EDQUOT),
        (Failure::Cancelled, libc::ECANCELED),
    ] {
        assert_eq!(failure.error().raw_os_error(), Some(code));
    }
    assert_eq!(Failure::QuotaExceeded.error().kind(), ErrorKind::QuotaExceeded);
}

#[test]
fn a_failed_write_leaves_old_new_or_both() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let (_, byte) = run(options(seed), async |env| {
            let file = numbered(&env, 1, FaultPlan::default()).await;
            let index = env.operations();
            env.set_faults(failing(FailOperation::once(index, Failure::Io)));
            assert!(put(&env, &file, 0, 2).await.is_err());
            uniform(&get(&env, &file, 0).await.unwrap())
        });
        seen.insert(byte.unwrap());
    }
    assert_eq!(seen, BTreeSet::from([None, Some(1), Some(2)]));
}

#[test]
fn no_later_sync_makes_up_for_a_failed_one() {
    let mut survivors = BTreeSet::new();
    for seed in 0..100 {
        let (simulation, result) = run(options(seed), async |env| {
            let file = numbered(&env, 1, FaultPlan::default()).await;
            put(&env, &file, 0, 2).await.unwrap();
            let index = env.operations();
            env.set_faults(failing(FailOperation::once(index, Failure::Io)));
            assert!(file.sync(CLASS).await.is_err());
            file.sync(CLASS).await.unwrap();
            assert_eq!(uniform(&get(&env, &file, 0).await.unwrap()), Some(2));
        });
        result.unwrap();
        survivors.insert(uniform(&simulation.crash().read_all("/file")));
    }
    assert!(survivors.contains(&Some(1)) && survivors.contains(&Some(2)), "{survivors:?}");
}

#[test]
fn a_failed_directory_sync_may_have_kept_the_first_changes() {
    let mut survivors = BTreeSet::new();
    for seed in 0..100 {
        let (simulation, result) = run(options(seed), async |env| {
            create(&env, "/a").await;
            create(&env, "/b").await;
            let index = env.operations();
            env.set_faults(failing(FailOperation::once(index, Failure::Io)));
            assert!(env.sync_directory(Path::new("/")).await.is_err());
            assert!(env.sync_directory(Path::new("/missing")).await.is_err());
        });
        result.unwrap();
        // What is sure to survive is what survives when nothing else does.
        let disk = simulation.snapshot().enumerate_crashes(1).next().unwrap();
        survivors.insert(["/a", "/b"].map(|path| disk.exists(path)));
    }
    let expected = [[false, false], [true, false], [true, true]];
    assert_eq!(survivors, BTreeSet::from(expected));
}

#[test]
fn damage_from_outside() {
    let (simulation, _) = run(options(1), async |env| {
        numbered(&env, 3, FaultPlan::default()).await;
    });
    let disk = simulation.crash();
    let before = disk.read_all("/file");
    let damaged = |damage: &dyn Fn(&mut SimDisk)| {
        let mut copy = disk.clone();
        damage(&mut copy);
        assert_eq!(copy.read_all("/file"), copy.crash_with_seed(5).read_all("/file"));
        copy.read_all("/file")
    };
    let places = |after: &[u8]| -> Vec<usize> {
        (0..before.len()).filter(|&place| before[place] != after[place]).collect()
    };
    let flipped = damaged(&|disk| disk.flip_bit("/file", 5000, 7));
    assert_eq!((places(&flipped), flipped[5000]), (vec![5000], 2 | 0x80));
    let zeroed = damaged(&|disk| disk.zero_sector("/file", 5000));
    assert_eq!(places(&zeroed), (4608..5120).collect::<Vec<_>>());
    assert_eq!(uniform(&zeroed[4608..5120]), Some(0));
    let corrupted = damaged(&|disk| disk.corrupt("/file", 4000..4200, 1));
    let hit = places(&corrupted);
    assert!(hit.len() > 150 && hit.iter().all(|place| (4000..4200).contains(place)));
    let written = damaged(&|disk| disk.write_raw("/file", 12_000, &[7; 1000]));
    assert_eq!((written.len(), uniform(&written[12_000..])), (13_000, Some(7)));
    assert_eq!(damaged(&|disk| disk.truncate("/file", 100)), before[..100]);
    let regrown = damaged(&|disk| {
        disk.truncate("/file", 100);
        disk.truncate("/file", 5000);
    });
    assert_eq!((regrown.len(), uniform(&regrown[100..])), (5000, Some(0)));
    assert_eq!(disk.read_range("/file", 4095..4097), [1, 2]);
    assert_eq!(disk.files(), [("/file".into(), 3 * PAGE as u64)]);
}

#[test]
fn a_directory_made_from_outside_is_durable() {
    let mut disk = SimDisk::new(1 << 20);
    disk.create_directory("/data/shard");
    assert!((0..50).all(|seed| disk.crash_with_seed(seed).exists("/data/shard")));
}
