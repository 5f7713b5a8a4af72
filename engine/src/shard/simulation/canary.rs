//! The tests of the tests: each deliberate defect must be noticed within a few seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds,
};

use super::damage;
use super::failures;
use super::harness::Random;
use super::lives::Lives;
use super::model::Device;
use crate::canary::{self, Defect};
use crate::value_log::Durability;

const SEEDS_MAX: u64 = 300;

/// Fails if `test` passes with all seeds.
fn must_be_noticed(what: &str, test: impl Fn(u64)) {
    let noticed = |seed: &u64| catch_unwind(AssertUnwindSafe(|| test(*seed))).is_err();
    let seed = (0..SEEDS_MAX).find(noticed);
    eprintln!("{what}: noticed by seed {seed:?}");
    assert!(seed.is_some(), "{what} goes unnoticed");
}

fn lives(seed: u64, change: impl FnOnce(&mut Lives)) {
    let mut lives = Lives::new(seed);
    change(&mut lives);
    for _ in 0..4 {
        lives.live();
    }
    lives.finish();
}

fn notices(defect: Defect) {
    let _switched = canary::with(defect);
    must_be_noticed(&format!("{defect:?}"), |seed| lives(seed, |_| {}));
}

#[test]
fn a_device_that_skips_flushes_is_noticed() {
    must_be_noticed("skipping flushes", |seed| {
        lives(seed, |lives| lives.faults.skip_sync = true);
    });
}

#[test]
fn acknowledging_early_is_noticed() {
    notices(Defect::AcknowledgeEarly);
}

#[test]
fn dropping_tombstones_early_is_noticed() {
    notices(Defect::DropTombstoneEarly);
}

#[test]
fn freeing_segments_early_is_noticed() {
    notices(Defect::FreeSegmentEarly);
}

#[test]
fn tables_in_the_wrong_order_are_noticed() {
    notices(Defect::ReverseLevelZero);
}

#[test]
fn value_checksums_that_are_not_looked_at_are_noticed() {
    let _switched = canary::with(Defect::IgnorePayloadChecksum);
    must_be_noticed("ignoring value checksums", |seed| {
        let rates = |_: &mut Random| FaultPlan {
            bit_flip_at_read_per_million: 10_000,
            ..FaultPlan::default()
        };
        damage::faulty_lives(seed, rates, Device::Misreads);
    });
}

#[test]
fn head_checksums_that_are_not_looked_at_are_noticed() {
    let _switched = canary::with(Defect::IgnoreHeadChecksum);
    must_be_noticed("ignoring head checksums", |seed| damage::damage_each(true, 20, seed));
}

#[test]
fn trying_a_failed_flush_again_is_noticed() {
    let _switched = canary::with(Defect::RetryFlush);
    let among = OperationKinds::of(&[OperationKind::Sync]);
    must_be_noticed("trying a failed flush again", |index| {
        let fail = FailOperation { index, among, failure: Failure::Io, sticky: false };
        failures::run_with(fail, index, Durability::Interval(1_000_000));
    });
}
