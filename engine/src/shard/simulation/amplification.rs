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

/// What is overwritten, and in how little space.
#[derive(Clone, Copy, Debug)]
struct Overwrites {
    live_bytes: usize,
    value_bytes: usize,
    /// The log has so many times the live bytes.
    times: usize,
    cap_percent: u32,
    item_cache_bytes: usize,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// The most that the files took beyond the cap, in bytes. What lives is estimated by the shard,
    /// so it counts a tenth more here.
    beyond: i64,
    /// How often a segment was collected.
    collections: u64,
    /// The longest time without the end of a write, in nanoseconds, once every key was there.
    stall: u64,
}

/// Overwrites the same keys over and over, in an order by chance.
fn overwrite(seed: u64, what: Overwrites) -> Outcome {
    let Overwrites { live_bytes, value_bytes, times, cap_percent, item_cache_bytes } = what;
    let mut options = ShardOptions { free_segments_max: 8, ..tiny_options() };
    options.space_amplification_percent = cap_percent;
    options.segment_bytes = 1 << 20;
    options.memtable_bytes = 256 << 10;
    options.recovery_log_bytes = 4 << 20;
    options.log.frame_bytes_max = 64 << 10;
    options.log.queued_bytes_max = 256 << 10;
    options.tables.table_bytes = 256 << 10;
    options.picker.level_one_bytes = 512 << 10;
    options.picker.merge_bytes = 512 << 10;
    options.item_cache_bytes = item_cache_bytes;
    let segment_bytes = i64::from(options.segment_bytes);
    let mut life = harness::life(seed, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    env.set_faults(FaultPlan { latency_nanoseconds: 50_000..=500_000, ..FaultPlan::default() });
    let keys = live_bytes / value_bytes;
    let live = (keys * (value_bytes + 16)) as i64;
    let random = Rc::new(RefCell::new(Random::new(seed)));
    let (left, most) = (Rc::new(Cell::new(keys * times)), Rc::new(Cell::new(i64::MIN)));
    let (next, stall, ended) =
        (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for _ in 0..CLIENTS {
        let (shard, env, random) = (shard.clone(), env.clone(), random.clone());
        let (left, most, next) = (left.clone(), most.clone(), next.clone());
        let (stall, ended) = (stall.clone(), ended.clone());
        env.clone().spawn(TaskQueue::Foreground, async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                // Every key once, and then by chance.
                let first = next.replace(next.get() + 1);
                let key = if first < keys { first } else { random.borrow_mut().index(keys) };
                run(&shard, format!("{key:016}").as_bytes(), set(&vec![7; value_bytes])).await;
                let before = ended.replace(env.now());
                if first >= keys {
                    let cap = live * i64::from(cap_percent) * 11 / 1000 + 6 * segment_bytes;
                    most.set(most.get().max(shard.usage().allocated as i64 - cap));
                    stall.set(stall.get().max(env.now() - before));
                }
            }
        });
    }
    while left.get() > 0 {
        life.advance(10_000_000).expect("runs");
    }
    let collections = shard.statistics().operations.collections;
    Outcome { beyond: most.get(), collections, stall: stall.get() }
}

#[test]
fn files_never_take_more_than_the_cap() {
    harness::for_each_seed("files_never_take_more_than_the_cap", 1, 6, |seed| {
        for (live_bytes, value_bytes) in
            [(2 << 20, 1000), (8 << 20, 1000), (2 << 20, 400), (4 << 20, 9000)]
        {
            let item_cache_bytes = if seed.is_multiple_of(2) { 0 } else { 4 << 20 };
            let what = Overwrites {
                live_bytes,
                value_bytes,
                times: 10,
                cap_percent: 150,
                item_cache_bytes,
            };
            let outcome = overwrite(seed, what);
            assert!(outcome.beyond <= 0 && outcome.collections > 0, "{what:?}: {outcome:?}");
        }
    });
}

/// With a tight cap, what tables may hide is as much as all the garbage that there may be.
#[test]
fn a_tight_cap_is_kept_and_writers_do_not_wait_long_for_it() {
    harness::for_each_seed("a_tight_cap_is_kept", 1, 2, |seed| {
        let what = Overwrites {
            live_bytes: 64 << 20,
            value_bytes: 1000,
            times: 3,
            cap_percent: 125,
            item_cache_bytes: 0,
        };
        let outcome = overwrite(seed, what);
        // Half of what an estimate of what lives may be wrong by.
        let slack = (what.live_bytes / 20) as i64;
        assert!(outcome.beyond <= -slack && outcome.collections > 0, "{outcome:?}");
        assert!(outcome.stall <= 2_000_000_000, "{outcome:?}");
    });
}
