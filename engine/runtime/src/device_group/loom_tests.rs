//! Model checks: two cores at one bucket, under every interleaving and every legal weak-memory
//! outcome. Positions start short of the wrap-around.

use loom::sync::Arc;
use loom::thread;

use super::{Claimant, DeviceGroup, SPARED, distance};
use crate::device_model::{DeviceModel, tokens_of};

const NANOSECOND_STEP: u64 = 50_000;

fn group() -> Arc<DeviceGroup> {
    let model = DeviceModel::default();
    let limit = model.costs().limit();
    // The tail wraps with the first claims, and the head has wrapped already.
    Arc::new(DeviceGroup::starting_at(model, 2, u64::MAX - limit / 8))
}

/// Whatever was given to claims and is left is what was there and what time brought.
fn head(group: &DeviceGroup, origin: u64) -> u64 {
    let order = loom::sync::atomic::Ordering::Relaxed;
    group.buckets[0].head.0.load(order).wrapping_sub(origin)
}

fn origin(group: &DeviceGroup) -> u64 {
    u64::MAX - group.costs().limit() / 8
}

#[test]
fn loom_no_token_is_in_two_claims() {
    loom::model(|| {
        let group = group();
        let limit = group.costs().limit();
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.grab(Claimant::Awaited, limit))
        };
        let mine = group.grab(Claimant::Awaited, limit);
        let theirs = other.join().expect("ends");
        // The bucket has one claim's tokens: one of the two has them all, and the other none.
        let missing = [
            group.deficiency(Claimant::Awaited, mine),
            group.deficiency(Claimant::Awaited, theirs),
        ];
        assert!(missing == [0, limit] || missing == [limit, 0], "{missing:?}");
    });
}

#[test]
fn loom_a_moment_brings_its_tokens_once() {
    loom::model(|| {
        let group = group();
        let limit = group.costs().limit();
        group.replenish(NANOSECOND_STEP);
        let claimed = group.grab(Claimant::Awaited, limit);
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.replenish(2 * NANOSECOND_STEP))
        };
        group.replenish(3 * NANOSECOND_STEP);
        other.join().expect("ends");
        let brought = head(&group, origin(&group)) - limit;
        let steps = [1, 2].map(|steps| tokens_of(steps * NANOSECOND_STEP));
        assert!(brought <= steps[1], "{brought} tokens of two steps");
        // Who comes too late leaves the time to the next one: no more is lost than a fraction.
        group.replenish(3 * NANOSECOND_STEP);
        let brought = head(&group, origin(&group)) - limit;
        assert!(steps[1] - brought <= 2, "{brought} tokens of two steps");
        assert_eq!(group.deficiency(Claimant::Awaited, claimed), 0);
    });
}

#[test]
fn loom_what_is_given_back_is_there_once_and_never_over_the_limit() {
    loom::model(|| {
        let group = group();
        let limit = group.costs().limit();
        group.replenish(NANOSECOND_STEP);
        let _spent = group.grab(Claimant::Awaited, limit);
        let waiting = group.grab(Claimant::Awaited, limit / 2);
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.refund(Claimant::Awaited, limit / 4))
        };
        group.replenish(2 * NANOSECOND_STEP);
        other.join().expect("ends");
        let covered = head(&group, origin(&group)) - limit;
        assert_eq!(covered, limit / 4 + tokens_of(NANOSECOND_STEP));
        assert_eq!(group.deficiency(Claimant::Awaited, waiting), limit / 2 - covered);
        // Far more time than the bucket holds, and a refund at the same moment.
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.refund(Claimant::Awaited, limit / 4))
        };
        group.replenish(1_000 * NANOSECOND_STEP);
        other.join().expect("ends");
        let saved = distance(waiting, head(&group, 0));
        assert_eq!(saved, limit);
    });
}

#[test]
fn loom_what_runs_over_is_in_one_bucket() {
    loom::model(|| {
        let group = group();
        group.replenish(NANOSECOND_STEP);
        let limit = group.costs().limit();
        let waiting = group.grab(Claimant::Background, limit).wrapping_add(limit);
        group.grab(Claimant::Background, limit);
        let missing = group.deficiency(Claimant::Background, waiting);
        let before = group.tokens(Claimant::Awaited);
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.grab(Claimant::Awaited, limit / 8))
        };
        group.replenish(3 * NANOSECOND_STEP);
        other.join().expect("ends");
        let brought = tokens_of(2 * NANOSECOND_STEP);
        let background = missing - group.deficiency(Claimant::Background, waiting);
        let after = group.tokens(Claimant::Awaited);
        // Before the claim of the other, with it, or after it: nothing is in both.
        let awaited = (after.available + limit / 8).saturating_sub(before.available);
        assert!(background + awaited <= brought, "{background} and {awaited} of {brought}");
        let spared = brought / SPARED + 2;
        assert!(background + awaited + spared >= brought, "{background} and {awaited}");
    });
}
