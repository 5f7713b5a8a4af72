use std::sync::Arc;

use proptest::prelude::*;

use super::{DeviceGroup, DeviceTokens};
use crate::device_model::{DeviceModel, nanoseconds_of, tokens_of};

const MILLISECOND: u64 = 1_000_000;

fn group(position: u64) -> DeviceGroup {
    DeviceGroup::starting_at(DeviceModel::default(), 2, position)
}

#[test]
fn a_full_bucket_is_claimed_at_once_and_then_at_the_rate_of_time() {
    let group = group(0);
    let limit = group.costs().limit();
    let at = 1_000 * MILLISECOND;
    group.replenish(at);
    let first = group.grab(limit);
    assert_eq!(group.deficiency(first), 0);
    let second = group.grab(limit / 2);
    assert_eq!(group.deficiency(second), limit / 2);
    assert_eq!(group.tokens().owed, limit / 2);
    group.replenish(at + nanoseconds_of(limit / 4));
    assert!(group.deficiency(second).abs_diff(limit / 4) <= 1);
    group.replenish(at + nanoseconds_of(limit));
    assert_eq!((group.deficiency(second), group.tokens().owed), (0, 0));
    assert!(group.tokens().available.abs_diff(limit / 2) <= 1);
}

#[test]
fn what_is_given_back_serves_those_behind() {
    let group = group(u64::MAX - 5);
    let limit = group.costs().limit();
    group.replenish(MILLISECOND);
    group.grab(limit);
    let waiting = group.grab(1_000);
    group.refund(900);
    assert_eq!(group.deficiency(waiting), 100);
    group.refund(limit);
    assert_eq!(group.deficiency(waiting), 0);
    group.refund(limit);
    assert_eq!(group.tokens().available, limit, "it runs over");
}

#[test]
fn moments_shorter_than_the_cheapest_request_add_up() {
    let group = group(0);
    let position = group.grab(group.costs().limit());
    group.replenish(0);
    let claim = tokens_of(MILLISECOND) / 4;
    assert_eq!(group.grab(claim), position.wrapping_add(claim));
    let position = position.wrapping_add(claim);
    for nanosecond in 0..=MILLISECOND / 2 {
        group.replenish(nanosecond);
    }
    assert_eq!(group.deficiency(position), 0);
}

#[test]
fn a_clock_that_stands_still_or_is_set_back_stops_nobody_for_good() {
    let group = group(0);
    let limit = group.costs().limit();
    let hour = 3_600_000 * MILLISECOND;
    group.replenish(hour);
    group.grab(limit);
    let waiting = group.grab(limit);
    for _ in 0..1_000 {
        group.replenish(hour);
    }
    assert_eq!(group.deficiency(waiting), limit, "no time has passed");
    // Another core's turn began a little earlier.
    group.replenish(hour - MILLISECOND);
    assert_eq!(group.deficiency(waiting), limit);
    // Set back by an hour: what comes from there on counts.
    group.replenish(1);
    group.replenish(1 + nanoseconds_of(limit));
    assert_eq!(group.deficiency(waiting), 0);
    // A jump ahead brings what the bucket holds and no more.
    group.replenish(1_000 * hour);
    assert_eq!(group.tokens().available, limit);
}

/// A core in the property below: it has claims, and spends what is covered.
#[derive(Clone, Copy, Default)]
struct Claimant {
    position: u64,
    pending: u64,
    spent: u64,
}

proptest! {
    /// Over any order of claims, refunds and time: what was spent is what was there at first and
    /// what time has brought, and the bucket holds no more than its limit.
    #[test]
    fn tokens_are_conserved(
        origin in prop_oneof![Just(0), any::<u64>(), u64::MAX - 100_000_000..u64::MAX],
        steps in proptest::collection::vec((0usize..4, 0u8..4, 0u64..2_000_000), 1..300),
    ) {
        let group = group(origin);
        let limit = group.costs().limit();
        let mut now = 1_000 * MILLISECOND;
        group.replenish(now);
        let start = now;
        let mut cores = [Claimant::default(); 4];
        for (core, action, amount) in steps {
            let claimant = &mut cores[core];
            match action {
                0 => now += amount,
                1 if claimant.pending == 0 => {
                    claimant.pending = amount.min(limit);
                    claimant.position = group.grab(claimant.pending);
                }
                2 => {
                    group.refund(claimant.pending);
                    claimant.pending = 0;
                }
                _ => {
                    group.replenish(now);
                    let missing = group.deficiency(claimant.position).min(claimant.pending);
                    claimant.spent += claimant.pending - missing;
                    claimant.pending = missing;
                }
            }
            let tokens = group.tokens();
            prop_assert!(tokens.available <= limit);
            let used: u64 = cores.iter().map(|core| core.spent + core.pending).sum();
            let brought = limit + tokens_of(now - start);
            prop_assert!(used + tokens.available <= brought + tokens.owed);
        }
    }
}

/// Threads that claim and give back all the time never have more than there is, but for what those
/// who come next are to wait for.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads are what is tested")]
fn threads_share_one_bucket() {
    let group = Arc::new(group(u64::MAX - 1_000_000));
    let limit = group.costs().limit();
    let end = 20 * MILLISECOND;
    let worker = |core: u64| {
        let group = Arc::clone(&group);
        std::thread::spawn(move || {
            let (mut spent, mut now) = (0, 0);
            while now < end {
                now += 10_000 + core;
                group.replenish(now.min(end));
                let claim = limit / 8;
                let position = group.grab(claim);
                let covered = claim - group.deficiency(position).min(claim);
                spent += covered;
                group.refund(claim - covered);
            }
            spent
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    let spent: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let DeviceTokens { available: left, owed, .. } = group.tokens();
    assert!(owed <= limit / 2, "{owed}: each has given up one claim at most");
    assert!(spent + left <= limit + tokens_of(end) + owed, "{spent}, {left} and {owed}");
    assert!(spent + left >= tokens_of(end) / 2, "{spent} and {left}");
}
