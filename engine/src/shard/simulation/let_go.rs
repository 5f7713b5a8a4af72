//! Writers that wait for room are let go in order, as many as there is room for: not all of them
//! whenever something has changed.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{self, tiny_options};
use super::smoke::{run, set};
use crate::operation::Outcome;
use crate::shard::ShardOptions;

const CLIENTS: u64 = 200;

const NANOSECONDS: u64 = 3_000_000_000;

/// Has many clients write without an end, values of so many bytes under one of so many keys. How
/// often one that waited was let go, in hundredths of the writes that were done.
fn let_go_percent(options: &ShardOptions, (value_bytes, keys): (usize, u64)) -> u64 {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, options);
    let env = life.env();
    env.set_faults(FaultPlan { latency_nanoseconds: 50_000..=500_000, ..FaultPlan::default() });
    let writes = Rc::new(Cell::new(0));
    for client in 0..CLIENTS {
        let (shard, writes) = (shard.clone(), writes.clone());
        env.spawn(TaskQueue::Foreground, async move {
            let mut random = Random::new(client);
            loop {
                let key = random.below(keys).to_be_bytes();
                let stored = run(&shard, &key, set(&vec![client as u8; value_bytes])).await;
                assert_eq!(stored.outcome, Outcome::Stored);
                writes.set(writes.get() + 1);
            }
        });
    }
    life.advance(NANOSECONDS).expect("runs");
    let (writes, let_go) = (writes.get(), shard.log.room().times_let_go());
    eprintln!("{value_bytes} bytes: {writes} writes, let go {let_go} times");
    assert!(writes > 10 * CLIENTS, "{writes} writes");
    let_go * 100 / writes
}

#[test]
fn a_writer_that_waits_for_space_is_let_go_about_once() {
    let options = ShardOptions { segment_bytes: 256 << 10, ..tiny_options() };
    let percent = let_go_percent(&options, (1000, 3000));
    // 3284 where all are let go whenever something has changed.
    assert!(percent < 150, "{percent}");
}

#[test]
fn a_writer_that_waits_for_a_flush_is_let_go_about_once() {
    let options = ShardOptions { memtable_bytes: 16 << 10, ..tiny_options() };
    let percent = let_go_percent(&options, (20, 100_000));
    // 545 where all are let go whenever something has changed.
    assert!(percent < 200, "{percent}");
}

#[test]
fn a_writer_that_waits_for_the_device_is_let_go_about_once() {
    let options = ShardOptions {
        segment_bytes: 4 << 20,
        memtable_bytes: 1 << 20,
        recovery_log_bytes: 8 << 20,
        space_amplification_percent: 10_000,
        ..tiny_options()
    };
    let percent = let_go_percent(&options, (2000, 1000));
    assert!(percent < 120, "{percent}");
}

/// What is kept of the log for deletes may be more than what may wait for the device.
#[test]
fn writers_go_on_at_the_cap_where_little_may_wait_for_the_device() {
    let mut options = ShardOptions { segment_bytes: 1 << 20, ..tiny_options() };
    options.log.queued_bytes_max = 64 << 10;
    assert!(options.delete_reserve_bytes() > options.log.queued_bytes_max as u64);
    let percent = let_go_percent(&options, (1000, 3000));
    assert!(percent < 150, "{percent}");
}
