//! What survives a power failure, and what a killed process leaves.

use std::collections::BTreeSet;
use std::rc::Rc;

use futures_lite::future::poll_once;

use super::*;
use crate::env::TaskQueue;

/// How often each crash test is tried.
const CRASHES: u64 = 300;

/// Disks after crashes of the same moment.
fn crashes(disk: &SimDisk) -> impl Iterator<Item = SimDisk> {
    (0..CRASHES).map(|seed| disk.crash_with_seed(seed))
}

/// The byte that fills page `page` of `path`; none if it is torn.
fn page(disk: &SimDisk, path: &str, page: u64) -> Option<u8> {
    let start = page * PAGE as u64;
    uniform(&disk.read_range(path, start..start + PAGE as u64))
}

#[test]
fn what_was_synced_survives_and_the_rest_survives_at_times() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        put(&env, &file, 0, 1).await.unwrap();
        file.write_durably(CLASS, PAGE as u64, filled(&env, 1, 2)).await.0.unwrap();
        file.allocate(6 * PAGE as u64).await.unwrap();
        file.sync(CLASS).await.unwrap();
        for changed in [1, 3, 4] {
            put(&env, &file, changed, 9).await.unwrap();
        }
    });
    result.unwrap();
    let mut seen = BTreeSet::new();
    for disk in crashes(&simulation.snapshot()) {
        assert_eq!(disk.files()[0].1, 6 * PAGE as u64);
        assert_eq!(page(&disk, "/file", 0), Some(1));
        assert_eq!(page(&disk, "/file", 5), Some(0));
        seen.insert([1, 3, 4].map(|number| page(&disk, "/file", number)));
    }
    // Any of the three alone, or missing alone: writes are reordered, not cut off.
    for lost in [vec![], vec![1], vec![3], vec![4], vec![1, 3], vec![3, 4], vec![1, 3, 4]] {
        let expected = [1, 3, 4].map(|number| match (lost.contains(&number), number) {
            (false, _) => Some(9),
            (true, 1) => Some(2),
            (true, _) => Some(0),
        });
        assert!(seen.contains(&expected), "{lost:?} were never lost together");
    }
    assert!(seen.iter().flatten().any(Option::is_none), "no write was torn");
}

#[test]
fn torn_writes_mix_old_new_and_garbage_sectors() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        file.write_durably(CLASS, 0, filled(&env, 2, 1)).await.0.unwrap();
        file.write(CLASS, 0, filled(&env, 2, 2)).await.0.unwrap();
    });
    result.unwrap();
    let (mut mixed, mut garbage, mut cut) = (0, 0, 0);
    for disk in crashes(&simulation.snapshot()) {
        let bytes = disk.read_all("/file");
        let sectors: Vec<&[u8]> = bytes.chunks(512).collect();
        let whole = sectors.iter().filter_map(|sector| uniform(sector)).collect::<Vec<_>>();
        assert!(whole.iter().all(|byte| [1, 2].contains(byte)));
        mixed += u32::from(whole.contains(&1) && whole.contains(&2));
        let damaged = sectors.iter().find(|sector| uniform(sector).is_none());
        assert!(sectors.len() - whole.len() <= 1, "at most one sector is damaged");
        if let Some(sector) = damaged {
            let is_cut = sector.iter().all(|byte| [1, 2].contains(byte));
            cut += u32::from(is_cut);
            garbage += u32::from(!is_cut);
        }
    }
    assert!(mixed > 20 && garbage > 3 && cut > 3, "{mixed} mixed, {garbage} garbage, {cut} cut");
}

#[test]
fn a_sync_covers_only_what_had_resolved_when_it_was_called() {
    let mut lost = 0;
    for seed in 0..CRASHES {
        let (simulation, result) = run(options(seed), async |env| {
            let file = create_durably(&env, "/file").await;
            file.write_durably(CLASS, 0, filled(&env, 2, 1)).await.0.unwrap();
            put(&env, &file, 0, 2).await.unwrap();
            let sync = file.sync(CLASS);
            put(&env, &file, 1, 2).await.unwrap();
            sync.await.unwrap();
        });
        result.unwrap();
        let disk = simulation.crash();
        assert_eq!(page(&disk, "/file", 0), Some(2), "seed {seed}");
        lost += u32::from(page(&disk, "/file", 1) == Some(1));
    }
    assert!(lost > 0, "the late write was always durable");
}

#[test]
fn a_write_in_flight_may_have_landed() {
    let mut seen = BTreeSet::new();
    for seed in 0..CRASHES {
        let (simulation, result) = run(options(seed), async |env| {
            let file = create_durably(&env, "/file").await;
            file.write_durably(CLASS, 0, filled(&env, 1, 1)).await.0.unwrap();
            let task = env.clone();
            env.spawn(TaskQueue::Flush, async move {
                put(&task, &file, 0, 2).await.unwrap();
            });
            env.sleep(5_000).await;
        });
        result.unwrap();
        let killed = simulation.snapshot().kill_with_seed(seed);
        assert!(page(&killed, "/file", 0).is_some(), "a killed process tears no page");
        seen.insert(("killed", page(&killed, "/file", 0)));
        seen.insert(("crashed", page(&simulation.crash(), "/file", 0)));
    }
    for expected in
        [("killed", Some(1)), ("killed", Some(2)), ("crashed", Some(1)), ("crashed", Some(2))]
    {
        assert!(seen.contains(&expected), "{expected:?}");
    }
}

#[test]
fn a_dropped_write_may_still_land() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let (mut simulation, result) = run(options(seed), async |env| {
            let file = create(&env, "/file").await;
            put(&env, &file, 0, 1).await.unwrap();
            let mut write = Box::pin(put(&env, &file, 0, 2));
            assert!(poll_once(&mut write).await.is_none());
            drop(write);
            // A file that is closed and removed with a write in flight harms nobody.
            let gone = create(&env, "/gone").await;
            let mut write = Box::pin(put(&env, &gone, 0, 2));
            assert!(poll_once(&mut write).await.is_none());
            env.remove(Path::new("/gone")).await.unwrap();
            drop(write);
            drop(gone);
            // A file whose opening nobody waits for is closed again.
            let mut open = Box::pin(env.open(Path::new("/late"), OpenMode::CreateNew));
            assert!(poll_once(&mut open).await.is_none());
        });
        result.unwrap();
        simulation.run_until_idle().unwrap();
        let disk = simulation.kill();
        assert_eq!(disk.used_bytes(), PAGE as u64);
        seen.insert((page(&disk, "/file", 0), disk.exists("/late")));
    }
    let landed: BTreeSet<_> = seen.iter().map(|(byte, _)| *byte).collect();
    assert_eq!(landed, BTreeSet::from([Some(1), Some(2)]));
    let created: BTreeSet<_> = seen.iter().map(|(_, created)| *created).collect();
    assert_eq!(created, BTreeSet::from([false, true]));
}

#[test]
fn names_survive_as_a_prefix_unless_synced() {
    let names = |disk: &SimDisk| -> Vec<String> {
        disk.files().iter().map(|(path, _)| path.display().to_string()).collect()
    };
    let (_, result) = run(options(1), async |env| {
        let kept = create_durably(&env, "/kept").await;
        kept.write_durably(CLASS, 0, filled(&env, 1, 1)).await.0.unwrap();
        let new = create(&env, "/new").await;
        new.write_durably(CLASS, 0, filled(&env, 1, 2)).await.0.unwrap();
        env.rename(Path::new("/new"), Path::new("/kept")).await.unwrap();
        env.rename(Path::new("/kept"), Path::new("/last")).await.unwrap();
        env.remove(Path::new("/last")).await.unwrap();
        env.snapshot()
    });
    let before_sync = result.unwrap();
    let mut seen = BTreeSet::new();
    for disk in crashes(&before_sync) {
        seen.insert((names(&disk), disk.files().first().map(|(path, _)| disk.read_all(path)[0])));
    }
    let state = |names: &[&str], first: Option<u8>| {
        (names.iter().map(ToString::to_string).collect::<Vec<_>>(), first)
    };
    let expected = [
        state(&["/kept"], Some(1)),
        state(&["/kept", "/new"], Some(1)),
        state(&["/kept"], Some(2)),
        state(&["/last"], Some(2)),
        state(&[], None),
    ];
    assert_eq!(seen, BTreeSet::from(expected));

    let mut next = Simulation::with_disk(options(2), before_sync);
    let env = next.env();
    next.block_on(async { env.sync_directory(Path::new("/")).await.unwrap() }).unwrap();
    for disk in crashes(&next.snapshot()) {
        assert!(disk.files().is_empty());
    }
}

#[test]
fn a_directory_is_a_name_in_its_parent() {
    let (mut simulation, result) = run(options(1), async |env| {
        env.create_directory(Path::new("/data/shard")).unwrap();
        let file = create_durably(&env, "/data/shard/file").await;
        file.write_durably(CLASS, 0, filled(&env, 1, 1)).await.0.unwrap();
    });
    result.unwrap();
    let seen: BTreeSet<_> = crashes(&simulation.snapshot())
        .map(|disk| ["/data", "/data/shard", "/data/shard/file"].map(|path| disk.exists(path)))
        .collect();
    let expected = [[false, false, false], [true, false, false], [true, true, true]];
    assert_eq!(seen, BTreeSet::from(expected));
    let env = simulation.env();
    let synced = simulation.block_on(async {
        env.sync_directory(Path::new("/data")).await.unwrap();
        env.sync_directory(Path::new("/")).await.unwrap();
    });
    synced.unwrap();
    assert!(crashes(&simulation.snapshot()).all(|disk| disk.exists("/data/shard/file")));
}

#[test]
fn lengths_survive_only_when_synced() {
    let (mut simulation, file) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        file.allocate(8 * PAGE as u64).await.unwrap();
        put(&env, &file, 9, 1).await.unwrap();
        file
    });
    let file = file.unwrap();
    let lengths = |disk: &SimDisk| -> BTreeSet<u64> {
        crashes(disk).map(|disk| disk.files()[0].1 / PAGE as u64).collect()
    };
    assert_eq!(lengths(&simulation.snapshot()), BTreeSet::from([0, 8, 10]));
    for disk in crashes(&simulation.snapshot()) {
        assert!(disk.used_bytes() <= disk.files()[0].1, "nothing lies past the end");
    }
    simulation.block_on(file.sync(CLASS)).unwrap().unwrap();
    assert_eq!(lengths(&simulation.snapshot()), BTreeSet::from([10]));
}

#[test]
fn a_killed_process_loses_nothing_that_resolved() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create(&env, "/file").await;
        put(&env, &file, 0, 1).await.unwrap();
    });
    result.unwrap();
    let disk = simulation.kill();
    assert_eq!(page(&disk, "/file", 0), Some(1));
    // It is still not durable: a power failure in the next life may take it.
    let next = Simulation::with_disk(options(2), disk);
    let lost = crashes(&next.snapshot()).filter(|disk| !disk.exists("/file")).count();
    assert!(lost > 0);
}

#[test]
fn enumeration_yields_every_combination_once() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        file.write_durably(CLASS, 0, filled(&env, 4, 1)).await.0.unwrap();
        for number in 0..4 {
            put(&env, &file, number, 2).await.unwrap();
        }
        create(&env, "/other").await;
    });
    result.unwrap();
    let snapshot = simulation.snapshot();
    let states: Vec<_> = snapshot
        .enumerate_crashes(1000)
        .map(|disk| {
            ([0, 1, 2, 3].map(|number| page(&disk, "/file", number)), disk.exists("/other"))
        })
        .collect();
    assert_eq!(states.len(), 32);
    assert_eq!(states.iter().collect::<BTreeSet<_>>().len(), 32);
    assert_eq!(snapshot.enumerate_crashes(7).count(), 7);
    let at_rest = snapshot.crash_with_seed(1);
    assert_eq!(at_rest.enumerate_crashes(1000).count(), 1);
}

#[test]
fn clones_are_independent() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        file.write_durably(CLASS, 0, filled(&env, 3, 1)).await.0.unwrap();
    });
    result.unwrap();
    let original = simulation.crash();
    let mut copy = original.clone();
    copy.flip_bit("/file", 5, 0);
    copy.truncate("/file", PAGE as u64);
    let mut next = Simulation::with_disk(options(2), original.clone());
    let env = next.env();
    let changed = next.block_on(async {
        let file = env.open(Path::new("/file"), OpenMode::ReadWrite).await.unwrap();
        file.write_durably(CLASS, 0, filled(&env, 1, 9)).await.0.unwrap();
        env.remove(Path::new("/file")).await.unwrap();
    });
    changed.unwrap();
    assert!(!next.kill().exists("/file"));
    assert_eq!(copy.read_all("/file").len(), PAGE);
    assert_eq!(copy.read_all("/file")[5], 0);
    assert_eq!(original.read_all("/file"), vec![1; 3 * PAGE]);
    assert_eq!(original.used_bytes(), 3 * PAGE as u64);
}

/// Replaces the one page of `/state` by way of a new file, as carefully as needed.
async fn replace_state(env: &SimEnv, byte: u8) -> io::Result<()> {
    let (new, state) = (Path::new("/new"), Path::new("/state"));
    if env.list(Path::new("/")).unwrap().iter().any(|entry| entry.name == "new") {
        env.remove(new).await?;
    }
    let file = env.open(new, OpenMode::CreateNew).await?;
    file.write_durably(CLASS, 0, filled(env, 1, byte)).await.0?;
    env.rename(new, state).await?;
    env.sync_directory(Path::new("/")).await
}

/// Replaces the state twice; how many replacements were acknowledged.
async fn replace_twice(env: SimEnv, acknowledged: Rc<std::cell::Cell<u8>>) {
    for byte in 1..=2 {
        replace_state(&env, byte).await.unwrap();
        acknowledged.set(byte);
    }
}

/// Crashes `replace_twice` at every operation, in every way, and again during the next life.
/// Whether the state was always one that the acknowledgements allow.
fn replacement_survives_crashes(faults: &FaultPlan) -> bool {
    let mut is_sound = true;
    let (simulation, _) = run(with_faults(0, faults.clone()), async |env| {
        replace_twice(env, Rc::default()).await;
    });
    let operations = simulation.operations();
    assert_eq!(operations, 10);
    for point in 0..=operations {
        let plan = FaultPlan { crash_at_operation: Some(point), ..faults.clone() };
        let acknowledged = Rc::default();
        let (simulation, result) = run(with_faults(point, plan), async |env| {
            replace_twice(env, Rc::clone(&acknowledged)).await;
        });
        assert_eq!(result.is_err(), point < operations);
        assert_eq!(simulation.operations(), point);
        for disk in simulation.snapshot().enumerate_crashes(10_000) {
            is_sound &= state_is_allowed(&disk, acknowledged.get());
        }
        for disk in crashes(&simulation.snapshot()) {
            is_sound &= state_is_allowed(&disk, acknowledged.get());
            let mut next = Simulation::with_disk(with_faults(point, faults.clone()), disk);
            let env = next.env();
            next.block_on(replace_state(&env, 7)).unwrap().unwrap();
            is_sound &= state_is_allowed(&next.crash(), 7);
        }
    }
    is_sound
}

fn state_is_allowed(disk: &SimDisk, acknowledged: u8) -> bool {
    if !disk.exists("/state") {
        return acknowledged == 0;
    }
    let is_whole =
        disk.files().iter().any(|(path, len)| path == Path::new("/state") && *len == PAGE as u64);
    is_whole && page(disk, "/state", 0).is_some_and(|byte| byte >= acknowledged && byte > 0)
}

#[test]
fn a_careful_replacement_survives_a_crash_at_every_operation() {
    assert!(replacement_survives_crashes(&FaultPlan::default()));
}

#[test]
fn a_harness_on_this_disk_notices_syncs_that_do_nothing() {
    let faults = FaultPlan { skip_sync: true, ..FaultPlan::default() };
    assert!(!replacement_survives_crashes(&faults));
}

#[test]
fn a_crash_may_be_counted_among_some_kinds_of_operation() {
    let plan = FaultPlan {
        crash_at_operation: Some(1),
        crash_among: OperationKinds::of(&[OperationKind::Write]),
        ..FaultPlan::default()
    };
    let (simulation, result) = run(with_faults(1, plan), async |env| {
        for byte in 1..5 {
            let _ = replace_state(&env, byte).await;
        }
    });
    assert_eq!(result, Err(Stopped::Crashed));
    assert_eq!(simulation.operations_of(OperationKinds::of(&[OperationKind::Write])), 1);
    assert!(simulation.operations() > 1);
}

#[test]
fn after_the_crash_point_nothing_is_performed() {
    let plan = FaultPlan { crash_at_operation: Some(1), ..FaultPlan::default() };
    let (mut simulation, result) = run(with_faults(1, plan), async |env| {
        create(&env, "/file").await;
        // The second operation: refused, and the run ends with this turn although the future ends.
        assert!(env.create_directory(Path::new("/directory")).is_err());
        assert!(env.create_directory(Path::new("/directory")).is_err());
    });
    assert_eq!(result, Err(Stopped::Crashed));
    assert_eq!(simulation.block_on(async {}), Err(Stopped::Crashed));
    assert_eq!(simulation.run_until_idle(), Err(Stopped::Crashed));
    assert_eq!(simulation.operations(), 1);
    assert!(!simulation.kill().exists("/directory"));
}
