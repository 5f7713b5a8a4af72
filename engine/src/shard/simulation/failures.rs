//! Every disk operation of a script fails once, at its turn, and once with all after it.
//!
//! Whatever fails: nothing is acknowledged that a power failure then takes away, a shard whose log
//! or manifest could not be written takes no more changes, and the next start has everything.

use std::cell::RefCell;
use std::rc::Rc;

use larder_runtime::env::Env;
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimEnv, Simulation,
    SimulationOptions,
};

use super::harness::{self, TestShard, tiny_options};
use super::history::Name;
use super::lives::read_all;
use super::model::{Device, Model, Start};
use super::smoke::{delete, get, set};
use super::workload::{SharedModel, clear, perform};
use crate::error::EngineError;
use crate::operation::{Operation, Store, StoreMode};
use crate::shard::{OperationBuf, ShardOptions};
use crate::value_log::Durability;

fn options(durability: Durability) -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 10;
    options.picker.level_zero_runs = 2;
    options.log.durability = durability;
    options
}

fn append(value: &[u8]) -> OperationBuf {
    OperationBuf::new(&Operation::Store(Store {
        mode: StoreMode::Append,
        value,
        client_flags: 0,
        expiry: 0,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    }))
}

/// Writes that fill segments, memtables and levels, with reads in between. Stops at the first
/// change that is refused for good; returns the first error.
async fn script(env: SimEnv, shard: TestShard, model: SharedModel) -> Option<EngineError> {
    let mut first_error = None;
    for round in 0..3u8 {
        for number in 0..12u8 {
            let key = Name::memcached(&[b'k', number]);
            let operation = match (number + round) % 6 {
                0 => set(&[round; 9000]),
                1 => append(&[round; 40]),
                2 => delete(),
                3 => get(),
                _ => set(&[number]),
            };
            let writes = operation.as_operation().may_write();
            let was_stopped = shard.stopped().is_some();
            let done = perform(&env, &shard, &model, &key, &operation).await;
            match done {
                Ok(reply) => {
                    let changed = writes && reply.outcome == crate::operation::Outcome::Stored;
                    assert!(!(was_stopped && changed), "a stopped shard has taken a change");
                }
                Err(error) => first_error = Some(first_error.unwrap_or(error)),
            }
        }
        let end = shard.log.sequence_next();
        match shard.sync().await {
            Ok(()) => model.borrow_mut().acknowledge(end),
            Err(error) => first_error = Some(first_error.unwrap_or(error)),
        }
        if round == 1
            && let Err(error) = clear(&env, &shard, &model, None).await
        {
            first_error = Some(first_error.unwrap_or(error));
        }
        // Let flushes and merges come to their end, or to their failure.
        env.sleep(50_000_000).await;
    }
    // What is tried again fails in the end, too.
    env.sleep(1_000_000_000).await;
    first_error
}

/// Runs the script with one failure and starts again after a power failure. Says whether the
/// failure had its turn.
pub(super) fn run_with(failure: FailOperation, seed: u64, durability: Durability) -> bool {
    let options = options(durability);
    let faults = FaultPlan { fail_operation: Some(failure), ..FaultPlan::default() };
    let mut life = Simulation::with_disk(
        SimulationOptions { faults, ..SimulationOptions::new(seed) },
        harness::empty_disk(harness::CAPACITY),
    );
    let model: SharedModel = Rc::new(RefCell::new(Model::default()));
    let env = life.env();
    let opened = life.block_on(harness::open(env.clone(), options.clone())).expect("runs");
    if let Ok((shard, _)) = opened {
        let work = script(env.clone(), shard.clone(), model.clone());
        let error = life.block_on(work).expect("the shard does not hang");
        let wrote = env.operations_of(failure.among) > failure.index;
        if wrote && failure.sticky && failure.failure == Failure::Io {
            let told = error.is_some() || shard.stopped().is_some();
            assert!(told, "every write fails, and nobody is told");
        }
        if failure.failure == Failure::QuotaExceeded {
            assert_eq!(shard.stopped(), None, "space may come back");
        }
        let end = shard.log.durable_end();
        model.borrow_mut().acknowledge(end);
    }
    let happened = env.operations_of(failure.among) > failure.index;
    check_after_power_failure(life, &model, &options, seed);
    happened
}

fn check_after_power_failure(
    life: Simulation,
    model: &SharedModel,
    options: &ShardOptions,
    seed: u64,
) {
    let mut life = harness::life(seed + 1, life.crash());
    let (shard, report) = harness::open_in(&mut life, options);
    let found = life.block_on(read_all(shard.clone(), model.clone(), false)).expect("runs");
    model.borrow_mut().settle(&found, &Start::of(&shard, &report, Device::Honest));
}

fn fail_each(name: &str, among: OperationKinds, failure: Failure, step: u64) {
    for durability in [Durability::Sync, Durability::Interval(1_000_000)] {
        for sticky in [false, true] {
            let mut index = 0;
            loop {
                let fail = FailOperation { index, among, failure, sticky };
                let happened = std::panic::catch_unwind(|| run_with(fail, 7 + index, durability));
                let happened = happened.unwrap_or_else(|panic| {
                    eprintln!("{name}: {fail:?} under {durability:?} has failed the test");
                    std::panic::resume_unwind(panic)
                });
                if !happened {
                    break;
                }
                index += step;
            }
            assert!(index > 10, "the script has hardly any such operation");
        }
    }
}

#[test]
fn every_write_may_fail() {
    fail_each("write", OperationKinds::of(&[OperationKind::Write]), Failure::Io, 1);
}

#[test]
fn every_flush_may_fail() {
    fail_each("flush", OperationKinds::of(&[OperationKind::Sync]), Failure::Io, 1);
}

#[test]
fn every_change_of_names_may_fail() {
    let kinds = OperationKinds::of(&[
        OperationKind::Open,
        OperationKind::Rename,
        OperationKind::Remove,
        OperationKind::SyncDirectory,
        OperationKind::Allocate,
    ]);
    fail_each("names", kinds, Failure::Io, 1);
}

#[test]
fn every_write_may_find_the_disk_full() {
    let kinds = OperationKinds::of(&[OperationKind::Write, OperationKind::Allocate]);
    fail_each("full", kinds, Failure::NoSpace, 1);
}

#[test]
fn a_quota_that_is_used_up_stops_no_shard() {
    let among = OperationKinds::of(&[OperationKind::Allocate]);
    for sticky in [false, true] {
        for index in 0.. {
            let fail = FailOperation { index, among, failure: Failure::QuotaExceeded, sticky };
            if !run_with(fail, 7 + index, Durability::Sync) {
                assert!(index > 5, "the script allocates hardly anything");
                break;
            }
        }
    }
}

#[test]
fn every_read_may_fail_once() {
    let among = OperationKinds::of(&[OperationKind::Read]);
    for index in 0.. {
        let fail = FailOperation { index, among, failure: Failure::Io, sticky: false };
        if !run_with(fail, 7 + index, Durability::Sync) {
            assert!(index > 5, "the script reads hardly anything");
            break;
        }
    }
}

#[test]
fn a_flush_that_failed_is_not_believed_later() {
    let options = options(Durability::None);
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    life.block_on(async move {
        super::smoke::run(&shard, b"key", set(b"value")).await;
        let sync = OperationKinds::of(&[OperationKind::Sync]);
        let fail = FailOperation::once(env.operations_of(sync), Failure::Io).among(sync);
        env.set_faults(FaultPlan { fail_operation: Some(fail), ..FaultPlan::default() });
        assert!(matches!(shard.sync().await, Err(EngineError::Stopped(_))));
        assert!(matches!(shard.sync().await, Err(EngineError::Stopped(_))));
        assert!(shard.stopped().is_some());
        // Reading goes on.
        assert_eq!(super::smoke::run(&shard, b"key", get()).await.value, b"value");
    })
    .expect("runs");
}
