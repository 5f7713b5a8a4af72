//! Overwriting without an end: the files never take more than the cap.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;
use larder_runtime::simulation::FaultPlan;

use super::harness::{self, tiny_options};
use super::smoke::{run, set};
use crate::shard::ShardOptions;

const CLIENTS: usize = 16;

/// Overwrites so many bytes in values of `value_bytes` each over and over, in an order by chance,
/// until the log has had ten times as much. Returns the most that the files took beyond one and
/// a half times what lives and six segments, in bytes, and how often a segment was collected. What
/// lives is estimated by the shard, so it counts a tenth more here.
fn most_beyond_the_cap(seed: u64, live_bytes: usize, value_bytes: usize) -> (i64, u64) {
    let mut options = ShardOptions { free_segments_max: 8, ..tiny_options() };
    options.segment_bytes = 1 << 20;
    options.memtable_bytes = 256 << 10;
    options.recovery_log_bytes = 4 << 20;
    options.log.frame_bytes_max = 64 << 10;
    options.log.queued_bytes_max = 256 << 10;
    options.tables.table_bytes = 256 << 10;
    options.picker.level_one_bytes = 512 << 10;
    options.picker.merge_bytes = 512 << 10;
    options.item_cache_bytes = if seed.is_multiple_of(2) { 0 } else { 4 << 20 };
    let segment_bytes = i64::from(options.segment_bytes);
    let mut life = harness::life(seed, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    env.set_faults(FaultPlan { latency_nanoseconds: 50_000..=500_000, ..FaultPlan::default() });
    let keys = live_bytes / value_bytes;
    let live = (keys * (value_bytes + 16)) as i64;
    let random = Rc::new(RefCell::new(Random::new(seed)));
    let (left, most) = (Rc::new(Cell::new(keys * 10)), Rc::new(Cell::new(i64::MIN)));
    let next = Rc::new(Cell::new(0));
    for _ in 0..CLIENTS {
        let (shard, env, random) = (shard.clone(), env.clone(), random.clone());
        let (left, most, next) = (left.clone(), most.clone(), next.clone());
        env.clone().spawn(TaskQueue::Foreground, async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                // Every key once, and then by chance.
                let first = next.replace(next.get() + 1);
                let key = if first < keys { first } else { random.borrow_mut().index(keys) };
                run(&shard, format!("{key:016}").as_bytes(), set(&vec![7; value_bytes])).await;
                if first >= keys {
                    let cap = live * 165 / 100 + 6 * segment_bytes;
                    most.set(most.get().max(shard.usage().allocated as i64 - cap));
                }
            }
        });
    }
    while left.get() > 0 {
        life.advance(10_000_000).expect("runs");
    }
    (most.get(), shard.statistics().operations.collections)
}

#[test]
fn files_never_take_more_than_the_cap() {
    harness::for_each_seed("files_never_take_more_than_the_cap", 1, 6, |seed| {
        for (live_bytes, value_bytes) in
            [(2 << 20, 1000), (8 << 20, 1000), (2 << 20, 400), (4 << 20, 9000)]
        {
            let (beyond, collections) = most_beyond_the_cap(seed, live_bytes, value_bytes);
            assert!(
                beyond <= 0,
                "{live_bytes} bytes in values of {value_bytes}: {beyond} too much"
            );
            assert!(collections > 0, "nothing was collected");
        }
    });
}
