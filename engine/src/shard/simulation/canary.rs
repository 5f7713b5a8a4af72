//! The tests of the tests: each deliberate defect must be noticed within a few seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use larder_runtime::random::Random;
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds,
};

use super::abandoned;
use super::collection_races;
use super::damage;
use super::failed_collections;
use super::failures;
use super::items;
use super::large;
use super::lives::Lives;
use super::model::Device;
use super::races;
use super::slow_readers;
use crate::canary::{self, Defect};
use crate::value_log::Durability;

const SEEDS_MAX: u64 = 300;

/// Fails unless `test` fails with some seed while `defect` is there, and passes with the same seed
/// without it. `test` is told whether to be faulty.
fn must_be_noticed(what: &str, defect: Option<Defect>, test: impl Fn(u64, bool)) {
    let passes = |seed: u64, faulty: bool| {
        let _switched = defect.filter(|_| faulty).map(canary::with);
        catch_unwind(AssertUnwindSafe(|| test(seed, faulty))).is_ok()
    };
    let seed = (0..SEEDS_MAX).find(|seed| !passes(*seed, true));
    eprintln!("{what}: noticed by seed {seed:?}");
    let seed = seed.unwrap_or_else(|| panic!("{what} goes unnoticed"));
    assert!(passes(seed, false), "seed {seed} fails without {what} as well");
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
    notices_in(defect, |_| {});
}

/// The same in lives that are changed to suit the defect.
fn notices_in(defect: Defect, change: impl Fn(&mut Lives)) {
    must_be_noticed(&format!("{defect:?}"), Some(defect), |seed, _| lives(seed, &change));
}

#[test]
fn a_device_that_skips_flushes_is_noticed() {
    must_be_noticed("skipping flushes", None, |seed, faulty| {
        lives(seed, |lives| lives.faults.skip_sync = faulty);
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
fn a_collector_that_moves_without_the_condition_is_noticed() {
    notices(Defect::MoveUnconditionally);
}

/// In races, which have no chance in them.
fn races_notice(defect: Defect, race: fn()) {
    must_be_noticed(&format!("{defect:?} in a race"), Some(defect), |_, _| race());
}

#[test]
fn a_sweep_that_does_not_look_at_the_item_is_noticed() {
    races_notice(Defect::CollectLivingChunks, large::a_large_value_stays);
}

#[test]
fn races_notice_defects_of_the_collector() {
    races_notice(Defect::MoveUnconditionally, collection_races::against_an_overwrite);
    races_notice(Defect::MoveAsLookedUp, collection_races::against_an_overwrite);
    races_notice(Defect::MoveAsLookedUp, collection_races::against_a_delete);
    races_notice(Defect::MoveAsLookedUp, failed_collections::against_a_touch);
    races_notice(Defect::BelieveTheCache, races::a_reader_that_caches_the_old_place);
    races_notice(Defect::SkipCopySync, collection_races::crashes);
    races_notice(Defect::FreeVictimEarly, collection_races::crashes);
    races_notice(Defect::ReplayFromLater, collection_races::crashes);
    let slow_read = slow_readers::a_slow_read_keeps_its_own_segment_and_no_other;
    races_notice(Defect::ReleasePinsEarly, slow_read);
}

#[test]
fn manifests_without_a_synced_directory_are_noticed() {
    notices(Defect::SkipManifestDirectorySync);
}

#[test]
fn marking_the_living_dead_is_noticed() {
    notices(Defect::MarkTheLiving);
}

#[test]
fn lists_of_records_that_are_not_whole_are_noticed() {
    notices(Defect::ListSomeRecords);
}

#[test]
fn memtables_that_forget_their_pointers_are_noticed() {
    notices_in(Defect::ForgetPointers, |lives| {
        lives.mix.outlive_expiries();
        for member in &mut lives.members {
            member.options.segment_bytes = 64 << 10;
            member.options.memtable_bytes = 4 << 10;
            member.options.picker.level_zero_runs = 1;
            member.options.picker.levels_max = 2;
        }
    });
}

#[test]
fn a_wrong_bottom_is_noticed() {
    notices_in(Defect::BottomSkipsALevel, |lives| {
        lives.mix.delete_in_phases();
        for member in &mut lives.members {
            member.options.memtable_bytes = 2 << 10;
            member.options.tables.table_bytes = 1 << 10;
            member.options.tables.block_bytes = 512;
            member.options.picker.level_one_bytes = 4 << 10;
            member.options.picker.levels_max = 5;
        }
    });
}

#[test]
fn batches_that_are_not_in_one_frame_are_noticed() {
    notices_in(Defect::SplitBatches, |lives| lives.mix.batches = true);
}

/// In lives in which ranges are deleted.
fn ranges_notice(defect: Defect, change: impl Fn(&mut Lives)) {
    notices_in(defect, |lives| {
        lives.mix.ranges = true;
        change(lives);
    });
}

#[test]
fn ranges_that_merges_drop_too_early_are_noticed() {
    ranges_notice(Defect::MergeUnflushedRanges, |lives| {
        for member in &mut lives.members {
            member.options.log.durability = Durability::None;
            member.options.log.lazy_frame_bytes = 16 << 10;
            member.options.memtable_bytes = 2 << 10;
            member.options.picker.level_zero_runs = 1;
        }
    });
}

#[test]
fn ranges_that_are_forgotten_early_are_noticed() {
    ranges_notice(Defect::ForgetRangesEarly, |_| {});
}

#[test]
fn a_cache_that_keeps_what_a_range_has_deleted_is_noticed() {
    ranges_notice(Defect::SkipCacheSweep, |lives| {
        for member in &mut lives.members {
            member.options.item_cache_bytes = 64 << 10;
        }
    });
}

#[test]
fn a_range_that_is_deleted_during_a_look_up_is_noticed() {
    ranges_notice(Defect::MissRangesMeanwhile, |lives| {
        lives.mix.outlive_expiries();
    });
}

#[test]
fn tables_without_a_synced_directory_are_noticed() {
    notices(Defect::SkipTableDirectorySync);
}

#[test]
fn segments_without_a_synced_directory_are_noticed() {
    notices(Defect::SkipSegmentDirectorySync);
}

#[test]
fn pins_that_are_released_early_are_noticed() {
    let test = |_, _| items::a_freed_segment_is_readable_while_somebody_may_read_it();
    must_be_noticed("releasing pins early", Some(Defect::ReleasePinsEarly), test);
}

#[test]
fn sealing_a_segment_at_damage_is_noticed() {
    let test = |_, _| abandoned::a_damaged_segment_that_was_left_open_loses_nothing();
    must_be_noticed("sealing at damage", Some(Defect::SealUnproven), test);
}

#[test]
fn a_replay_position_that_moves_early_is_noticed() {
    notices(Defect::ReplayFromLater);
}

#[test]
fn dropping_what_follows_damage_is_noticed() {
    let test = |seed, _| damage::damage_each(true, 20, seed);
    must_be_noticed("dropping what follows damage", Some(Defect::DropAfterDamage), test);
}

#[test]
fn tables_in_the_wrong_order_are_noticed() {
    notices(Defect::ReverseLevelZero);
}

#[test]
fn value_checksums_that_are_not_looked_at_are_noticed() {
    let defect = Some(Defect::IgnorePayloadChecksum);
    must_be_noticed("ignoring value checksums", defect, |seed, _| {
        let rates = |_: &mut Random| FaultPlan {
            bit_flip_at_read_per_million: 10_000,
            ..FaultPlan::default()
        };
        damage::faulty_lives(seed, rates, Device::Misreads);
    });
}

#[test]
fn compression_that_is_not_checked_is_noticed() {
    let defect = Some(Defect::IgnoreCompressedChecksums);
    must_be_noticed("ignoring the checksums of compressed values", defect, |seed, _| {
        let rates = |_: &mut Random| FaultPlan {
            bit_flip_at_read_per_million: 10_000,
            ..FaultPlan::default()
        };
        damage::faulty_lives(seed, rates, Device::Misreads);
    });
}

#[test]
fn values_that_are_compressed_to_something_else_are_noticed() {
    notices(Defect::SpoilCompressed);
}

#[test]
fn head_checksums_that_are_not_looked_at_are_noticed() {
    let test = |seed, _| damage::damage_each(true, 20, seed);
    must_be_noticed("ignoring head checksums", Some(Defect::IgnoreHeadChecksum), test);
}

#[test]
fn trying_a_failed_flush_again_is_noticed() {
    let among = OperationKinds::of(&[OperationKind::Sync]);
    must_be_noticed("trying a failed flush again", Some(Defect::RetryFlush), |index, _| {
        let fail = FailOperation { index, among, failure: Failure::Io, sticky: false };
        failures::run_with(fail, index, Durability::Interval(1_000_000));
    });
}
