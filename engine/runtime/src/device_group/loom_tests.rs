//! Model checks: two cores at one bucket, under every interleaving and every legal weak-memory
//! outcome. Positions start short of the wrap-around.

use loom::sync::Arc;
use loom::thread;

use super::{DeviceGroup, distance};
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
    group.head.0.load(order).wrapping_sub(origin)
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
            thread::spawn(move || group.grab(limit))
        };
        let mine = group.grab(limit);
        let theirs = other.join().expect("ends");
        // The bucket has one claim's tokens: one of the two has them all, and the other none.
        let missing = [group.deficiency(mine), group.deficiency(theirs)];
        assert!(missing == [0, limit] || missing == [limit, 0], "{missing:?}");
    });
}

#[test]
fn loom_a_moment_brings_its_tokens_once() {
    loom::model(|| {
        let group = group();
        let limit = group.costs().limit();
        group.replenish(NANOSECOND_STEP);
        let claimed = group.grab(limit);
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
        assert_eq!(group.deficiency(claimed), 0);
    });
}

#[test]
fn loom_what_is_given_back_is_there_once_and_never_over_the_limit() {
    loom::model(|| {
        let group = group();
        let limit = group.costs().limit();
        group.replenish(NANOSECOND_STEP);
        let _spent = group.grab(limit);
        let waiting = group.grab(limit / 2);
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.refund(limit / 4))
        };
        group.replenish(2 * NANOSECOND_STEP);
        other.join().expect("ends");
        let covered = head(&group, origin(&group)) - limit;
        assert_eq!(covered, limit / 4 + tokens_of(NANOSECOND_STEP));
        assert_eq!(group.deficiency(waiting), limit / 2 - covered);
        // Far more time than the bucket holds, and a refund at the same moment.
        let other = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.refund(limit / 4))
        };
        group.replenish(1_000 * NANOSECOND_STEP);
        other.join().expect("ends");
        let saved = distance(waiting, head(&group, 0));
        assert_eq!(saved, limit);
    });
}
