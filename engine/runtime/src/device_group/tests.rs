use std::sync::Arc;

use proptest::prelude::*;

use super::{BACKGROUND_LEAST, Claimant, DeviceGroup, DeviceTokens, SPARED};
use crate::device_model::{DeviceModel, nanoseconds_of, tokens_of};

const MILLISECOND: u64 = 1_000_000;

fn group(position: u64) -> DeviceGroup {
    DeviceGroup::starting_at(DeviceModel::default(), 2, position)
}

/// The bucket of what somebody waits for.
fn awaited(group: &DeviceGroup) -> DeviceTokens {
    group.tokens(Claimant::Awaited)
}

fn background(group: &DeviceGroup) -> DeviceTokens {
    group.tokens(Claimant::Background)
}

#[test]
fn a_full_bucket_is_claimed_at_once_and_then_at_the_rate_of_time() {
    let group = group(0);
    let limit = group.costs().limit();
    let at = 1_000 * MILLISECOND;
    group.replenish(at);
    let first = group.grab(Claimant::Awaited, limit);
    assert_eq!(group.deficiency(Claimant::Awaited, first), 0);
    let second = group.grab(Claimant::Awaited, limit / 2);
    assert_eq!(group.deficiency(Claimant::Awaited, second), limit / 2);
    assert_eq!(awaited(&group).owed, limit / 2);
    group.replenish(at + nanoseconds_of(limit / 4));
    assert!(group.deficiency(Claimant::Awaited, second).abs_diff(limit / 4) <= 1);
    group.replenish(at + nanoseconds_of(limit));
    assert_eq!((group.deficiency(Claimant::Awaited, second), awaited(&group).owed), (0, 0));
    assert!(awaited(&group).available.abs_diff(limit / 2) <= 1);
}

#[test]
fn what_is_given_back_serves_those_behind() {
    let group = group(u64::MAX - 5);
    let limit = group.costs().limit();
    group.replenish(MILLISECOND);
    group.grab(Claimant::Awaited, limit);
    let waiting = group.grab(Claimant::Awaited, 1_000);
    group.refund(Claimant::Awaited, 900);
    assert_eq!(group.deficiency(Claimant::Awaited, waiting), 100);
    group.refund(Claimant::Awaited, limit);
    assert_eq!(group.deficiency(Claimant::Awaited, waiting), 0);
    group.refund(Claimant::Awaited, limit);
    assert_eq!(awaited(&group).available, limit, "it runs over");
}

/// Time fills the bucket of what is waited for, and then that of the background, but for a little;
/// what nobody can use runs over.
#[test]
fn the_background_has_what_runs_over() {
    let group = group(0);
    let limit = group.costs().limit();
    let at = 1_000 * MILLISECOND;
    group.replenish(at);
    group.grab(Claimant::Background, limit);
    let waiting = group.grab(Claimant::Background, limit / 2);
    group.replenish(at + nanoseconds_of(limit / 2));
    assert!(group.deficiency(Claimant::Background, waiting) <= 1, "it has all of the time");
    let at = at + nanoseconds_of(limit / 2);
    // Now both ask for as much as comes: the background has its least.
    group.grab(Claimant::Awaited, limit);
    let waiting = group.grab(Claimant::Background, limit);
    group.replenish(at + nanoseconds_of(limit / 2));
    let least = limit / 2 / BACKGROUND_LEAST;
    assert!(group.deficiency(Claimant::Background, waiting).abs_diff(limit - least) <= 2);
    let at = at + nanoseconds_of(limit / 2);
    // What is given back of one bucket over its limit goes to the other.
    let owed = background(&group).owed;
    group.refund(Claimant::Awaited, limit);
    assert!(background(&group).owed < owed - limit / 3);
    // Of what is left where others have used tokens too, a part is for nobody.
    group.refund(Claimant::Background, 2 * limit);
    group.grab(Claimant::Awaited, limit / 4);
    group.grab(Claimant::Background, limit);
    let waiting = group.grab(Claimant::Background, limit);
    let missing = group.deficiency(Claimant::Background, waiting);
    group.replenish(at + nanoseconds_of(limit / 2));
    let least = limit / 2 / BACKGROUND_LEAST;
    let left = limit / 2 - least - limit / 4;
    let part = least + left - left / SPARED;
    let had = missing - group.deficiency(Claimant::Background, waiting);
    assert!(had.abs_diff(part) <= 2, "{had} and {part}");
    group.replenish(at + 100 * MILLISECOND);
    assert_eq!((awaited(&group).available, background(&group).available), (limit, limit));
}

#[test]
fn moments_shorter_than_the_cheapest_request_add_up() {
    let group = group(0);
    let position = group.grab(Claimant::Awaited, group.costs().limit());
    group.replenish(0);
    let claim = tokens_of(MILLISECOND) / 4;
    assert_eq!(group.grab(Claimant::Awaited, claim), position.wrapping_add(claim));
    let position = position.wrapping_add(claim);
    for nanosecond in 0..=MILLISECOND / 2 {
        group.replenish(nanosecond);
    }
    assert_eq!(group.deficiency(Claimant::Awaited, position), 0);
}

#[test]
fn a_clock_that_stands_still_or_is_set_back_stops_nobody_for_good() {
    let group = group(0);
    let limit = group.costs().limit();
    let hour = 3_600_000 * MILLISECOND;
    group.replenish(hour);
    group.grab(Claimant::Awaited, limit);
    let waiting = group.grab(Claimant::Awaited, limit);
    for _ in 0..1_000 {
        group.replenish(hour);
    }
    assert_eq!(group.deficiency(Claimant::Awaited, waiting), limit, "no time has passed");
    // Another core's turn began a little earlier.
    group.replenish(hour - MILLISECOND);
    assert_eq!(group.deficiency(Claimant::Awaited, waiting), limit);
    // Set back by an hour: what comes from there on counts.
    group.replenish(1);
    group.replenish(1 + nanoseconds_of(limit));
    assert_eq!(group.deficiency(Claimant::Awaited, waiting), 0);
    // A jump ahead brings what the bucket holds and no more.
    group.replenish(1_000 * hour);
    assert_eq!((awaited(&group).available, background(&group).available), (limit, limit));
}

/// A core in the property below: it has claims, and spends what is covered.
#[derive(Clone, Copy, Default)]
struct Core {
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
        let mut cores = [Core::default(); 4];
        for (core, action, amount) in steps {
            let of = Claimant::BOTH[core % 2];
            let core = &mut cores[core];
            match action {
                0 => now += amount,
                1 if core.pending == 0 => {
                    core.pending = amount.min(limit);
                    core.position = group.grab(of, core.pending);
                }
                2 => {
                    group.refund(of, core.pending);
                    core.pending = 0;
                }
                _ => {
                    group.replenish(now);
                    let missing = group.deficiency(of, core.position).min(core.pending);
                    core.spent += core.pending - missing;
                    core.pending = missing;
                }
            }
            let [a, b] = Claimant::BOTH.map(|claimant| group.tokens(claimant));
            prop_assert!(a.available <= limit && b.available <= limit);
            let used: u64 = cores.iter().map(|core| core.spent + core.pending).sum();
            let brought = 2 * limit + tokens_of(now - start);
            prop_assert!(used + a.available + b.available <= brought + a.owed + b.owed);
        }
    }
}

/// A core that claims and gives up again and again while another one waits covers the other's claim
/// before its time, each round anew. All of that is owed: who comes next waits for it, and with
/// time nothing is left of it.
#[test]
fn what_is_had_before_its_time_is_waited_for_afterwards() {
    let group = group(0);
    let limit = group.costs().limit();
    let of = Claimant::Awaited;
    group.replenish(MILLISECOND);
    group.grab(of, limit);
    let claim = limit / 8;
    let rounds = 20;
    for round in 0..rounds {
        let waits = group.grab(of, claim);
        assert_eq!(group.deficiency(of, waits), (round + 1) * claim);
        for _ in 0..=round {
            let position = group.grab(of, claim);
            group.refund(of, group.deficiency(of, position).min(claim));
        }
        assert_eq!(group.deficiency(of, waits), 0, "what the other gave up has come");
        assert_eq!(awaited(&group).owed, (round + 1) * claim);
    }
    let next = group.grab(of, claim);
    assert_eq!(group.deficiency(of, next), (rounds + 1) * claim);
    group.replenish(MILLISECOND + nanoseconds_of((rounds + 1) * claim) + 1);
    assert_eq!((group.deficiency(of, next), awaited(&group).owed), (0, 0));
}

/// Threads that claim and give back all the time never have more than there is, but for what those
/// who come next are to wait for. How much that is follows from how the threads took turns.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads are what is tested")]
fn threads_share_the_buckets() {
    let group = Arc::new(group(u64::MAX - 1_000_000));
    let limit = group.costs().limit();
    let end = 20 * MILLISECOND;
    let worker = |core: u64| {
        let group = Arc::clone(&group);
        std::thread::spawn(move || {
            let of = Claimant::BOTH[core as usize % 2];
            let (mut spent, mut now) = (0, 0);
            while now < end {
                now += 10_000 + core;
                group.replenish(now.min(end));
                let claim = limit / 8;
                let position = group.grab(of, claim);
                let covered = claim - group.deficiency(of, position).min(claim);
                spent += covered;
                group.refund(of, claim - covered);
            }
            spent
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    let spent: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let (awaited, background) = (awaited(&group), background(&group));
    let (left, owed) = (awaited.available + background.available, awaited.owed + background.owed);
    assert!(spent + left <= 2 * limit + tokens_of(end) + owed, "{spent}, {left} and {owed}");
    assert!(spent + left >= tokens_of(end) / 2, "{spent} and {left}");
}
