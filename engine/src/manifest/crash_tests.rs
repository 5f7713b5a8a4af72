//! Crashes at every operation, and crashes of the recovery from them.

use larder_runtime::simulation::SimEnv;

use super::test_disk::TestDisk;
use super::tests::{SMALL, directory, history, identity};
use super::*;

/// How far a run came before the crash.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    created: bool,
    acknowledged: usize,
}

fn run(disk: &mut TestDisk, history: &[(Edit, State)]) -> Progress {
    let mut progress = Progress::default();
    let env = disk.env();
    disk.run_to_crash(async {
        let created = Manifest::create_with(env, directory(), identity(), SMALL);
        // The operation that meets the crash may fail before the run ends.
        let Ok(mut manifest) = created.await else { return };
        progress.created = true;
        for (edit, state) in history {
            manifest.append(edit, state).await.expect("nothing fails");
            progress.acknowledged += 1;
        }
    });
    progress
}

/// Opens what a crash left, or creates it again if creation was cut short. `None` if there is a
/// crash in that.
fn recover(disk: &mut TestDisk, progress: Progress) -> Option<(Manifest<SimEnv>, State)> {
    let env = disk.env();
    let recovered = disk.run_to_crash(async {
        let exists = Manifest::exists(&env, directory()).expect("never taken for something else");
        if !exists {
            assert!(!progress.created, "a created shard is gone");
            let created = Manifest::create_with(env, directory(), identity(), SMALL);
            return Some((created.await.ok()?, State::default()));
        }
        let opened = Manifest::open_with(env, directory(), SMALL).await;
        let (manifest, state, superblock) = opened.expect("a crash does not look like damage");
        assert_eq!(superblock.identity, identity());
        Some((manifest, state))
    });
    recovered.map(|recovered| recovered.expect("only a crash keeps it from being created"))
}

/// Crashes the recovery at each of its operations in turn, recovering from that, until one gets
/// through; then goes on with the history from where it was found.
fn check(crashed: &TestDisk, progress: Progress, history: &[(Edit, State)], seed: u64) {
    let state_at = |step: usize| match step {
        0 => State::default(),
        step => history[step - 1].1.clone(),
    };
    let possible = |state: &State| {
        let last = (progress.acknowledged + 1).min(history.len());
        (progress.acknowledged..=last).find(|&step| state_at(step) == *state)
    };
    for operation in 0.. {
        let mut disk = crashed.duplicate();
        disk.crash_at(operation);
        let is_whole = recover(&mut disk, progress).is_some();
        let mut disk = if is_whole { disk.duplicate() } else { disk.crash(seed ^ operation) };
        let (mut manifest, state) = recover(&mut disk, progress).expect("no fault is left");
        let step =
            possible(&state).expect("an acknowledged edit is lost, or one came from nowhere");
        let after = if is_whole { step } else { history.len().min(step + 2) };
        for (edit, state) in &history[step..after] {
            disk.run(manifest.append(edit, state)).expect("appends go on");
        }
        drop(manifest);
        let (_, state) = recover(&mut disk, progress).expect("no fault is left");
        assert!(state == state_at(after), "recovering again leads to another state");
        if is_whole {
            return;
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_no_acknowledged_edit() {
    let history = history(24, 11);
    let mut clean = TestDisk::new();
    assert_eq!(run(&mut clean, &history).acknowledged, history.len());
    let mut in_between = 0;
    for operation in 0..clean.changes() {
        for seed in 0..8 {
            let mut disk = TestDisk::new();
            disk.crash_at(operation);
            let progress = run(&mut disk, &history);
            in_between += usize::from(progress.created);
            check(&disk.crash(seed * 1000 + operation), progress, &history, seed);
        }
    }
    assert!(in_between > 500, "only {in_between} crashes hit an append");
}
