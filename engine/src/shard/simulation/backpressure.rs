//! Merges that cannot keep up: writers are slowed, and none of them ever stops.

use std::cell::RefCell;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::FaultPlan;
use larder_runtime::urgency::URGENCY_USUAL;

use super::harness::{self, tiny_options};
use super::smoke::{run, set};
use crate::index::compaction::picker::DEBT_MAX;

const CLIENTS: u64 = 64;

const SECONDS: u64 = 20;

const WINDOWS_PER_SECOND: u64 = 10;

#[test]
fn writers_are_slowed_by_merges_that_are_behind_and_never_stop() {
    let mut options = tiny_options();
    options.memtable_bytes = 128 << 10;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 10_000;
    options.picker.level_zero_runs = 4;
    options.picker.level_zero_tables = 32;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    env.set_faults(FaultPlan {
        latency_nanoseconds: 1_000_000..=2_000_000,
        ..FaultPlan::default()
    });
    let began = env.now();
    let windows = Rc::new(RefCell::new(vec![0u32; (SECONDS * WINDOWS_PER_SECOND) as usize]));
    for client in 0..CLIENTS {
        let (shard, env, windows) = (shard.clone(), env.clone(), windows.clone());
        env.clone().spawn(TaskQueue::Foreground, async move {
            for number in 0u64.. {
                // Keys in no order, so that each table overlaps all others.
                let key = (number * CLIENTS + client).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                run(&shard, &key.to_be_bytes(), set(&[7; 30])).await;
                let window = (env.now() - began) * WINDOWS_PER_SECOND / 1_000_000_000;
                match windows.borrow_mut().get_mut(window as usize) {
                    Some(count) => *count += 1,
                    None => return,
                }
            }
        });
    }
    let mut debts = Vec::new();
    let mut urgencies = Vec::new();
    let mut is_flush_urgent = false;
    for _ in 0..SECONDS * WINDOWS_PER_SECOND {
        life.advance(1_000_000_000 / WINDOWS_PER_SECOND).expect("runs");
        debts.push(shard.index.debt());
        urgencies.push(env.urgency(TaskQueue::Compaction));
        is_flush_urgent |= env.urgency(TaskQueue::Flush) > URGENCY_USUAL;
    }
    let windows = windows.borrow();
    let pace = shard.statistics().pace;
    assert!(debts.iter().any(|debt| *debt > DEBT_MAX / 2), "merges were behind: {debts:?}");
    assert!(pace.holds > 0, "{pace:?}");
    assert!(windows.iter().all(|count| *count > 0), "writers stopped: {windows:?}");
    let mut is_behind = debts.iter().zip(&urgencies).filter(|(debt, _)| **debt > DEBT_MAX / 2);
    let is_urgent = |urgency: u32| urgency >= 2 * URGENCY_USUAL;
    assert!(is_behind.any(|(_, urgency)| is_urgent(*urgency)), "{urgencies:?}");
    assert!(is_flush_urgent, "the next memtable fills while one is written out");
    drop(windows);
    life.advance(60_000_000_000).expect("runs");
    assert!(shard.index.debt() < DEBT_MAX / 4, "merges have caught up");
    assert!(env.urgency(TaskQueue::Compaction) < 2 * URGENCY_USUAL);
    assert_eq!(env.urgency(TaskQueue::Flush), URGENCY_USUAL, "nothing is written out");
}
