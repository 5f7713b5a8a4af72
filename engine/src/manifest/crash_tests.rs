//! Crashes at every operation, and crashes of the recovery from them.

use futures_lite::future::block_on;

use super::memory_env::{Fault, MemoryEnv};
use super::tests::{SMALL, directory, history, identity};
use super::*;

/// How far a run came before the crash.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    created: bool,
    acknowledged: usize,
}

fn run(env: &MemoryEnv, history: &[(Edit, State)]) -> Progress {
    let mut progress = Progress::default();
    let created = Manifest::create_with(env.clone(), directory(), identity(), SMALL);
    let Ok(mut manifest) = block_on(created) else { return progress };
    progress.created = true;
    for (edit, state) in history {
        if block_on(manifest.append(edit, state)).is_err() {
            break;
        }
        progress.acknowledged += 1;
    }
    progress
}

/// Opens what a crash left, or creates it again if creation was cut short. `None` if a crash was
/// injected into that.
fn recover(env: &MemoryEnv, progress: Progress) -> Option<(Manifest<MemoryEnv>, State)> {
    let exists = Manifest::exists(env, directory()).expect("never taken for something else");
    if !exists {
        assert!(!progress.created, "a created shard is gone");
        let created = Manifest::create_with(env.clone(), directory(), identity(), SMALL);
        return Some((block_on(created).ok()?, State::default()));
    }
    match block_on(Manifest::open_with(env.clone(), directory(), SMALL)) {
        Ok((manifest, state, superblock)) => {
            assert_eq!(superblock.identity, identity());
            Some((manifest, state))
        }
        Err(ManifestError::Io { source, .. }) if source.to_string() == "injected fault" => None,
        Err(error) => panic!("a crash looks like damage: {error}"),
    }
}

/// Crashes the recovery at each of its operations in turn, recovering from that, until one gets
/// through; then goes on with the history from where it was found.
fn check(crashed: &MemoryEnv, progress: Progress, history: &[(Edit, State)], seed: u64) {
    let state_at = |step: usize| match step {
        0 => State::default(),
        step => history[step - 1].1.clone(),
    };
    let possible = |state: &State| {
        let last = (progress.acknowledged + 1).min(history.len());
        (progress.acknowledged..=last).find(|&step| state_at(step) == *state)
    };
    for operation in 1.. {
        let env = crashed.duplicate();
        env.inject(operation, Fault::Crash);
        let whole = recover(&env, progress).is_some();
        let env = if whole { env.duplicate() } else { env.crash(seed ^ operation) };
        let (mut manifest, state) = recover(&env, progress).expect("no fault is left");
        let step =
            possible(&state).expect("an acknowledged edit is lost, or one came from nowhere");
        for (edit, state) in &history[step..history.len().min(step + 2)] {
            if whole {
                break;
            }
            block_on(manifest.append(edit, state)).expect("appends go on");
        }
        let after = if whole { step } else { history.len().min(step + 2) };
        drop(manifest);
        let (_, state) = recover(&env, progress).expect("no fault is left");
        assert!(state == state_at(after), "recovering again leads to another state");
        if whole {
            return;
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_no_acknowledged_edit() {
    let history = history(24, 11);
    let clean = MemoryEnv::default();
    assert_eq!(run(&clean, &history).acknowledged, history.len());
    let mut in_between = 0;
    for operation in 1..=clean.operations() {
        for seed in 0..8 {
            let env = MemoryEnv::default();
            env.inject(operation, Fault::Crash);
            let progress = run(&env, &history);
            in_between += usize::from(progress.created);
            check(&env.crash(seed * 1000 + operation), progress, &history, seed);
        }
    }
    assert!(in_between > 500, "only {in_between} crashes hit an append");
}
