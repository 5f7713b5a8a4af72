//! Pages under a lease against a copy of the model at its beginning, whatever goes on meanwhile.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;

use super::harness::{TestShard, tiny_options};
use super::items::{flush_memtable, restart, start};
use super::scans::{
    Model, Name, Written, expected, random_scan, run, shown, without_values, write,
};
use super::smoke::{set, set_until};
use crate::error::EngineError;
use crate::key::DEFAULT_NAMESPACE;
use crate::scan::Scan;
use crate::shard::{LEASE_NANOSECONDS_MAX, LEASES_MAX, LeaseGiven, ShardOptions};
use crate::space::Purpose;

type Items = Vec<(Name, Vec<u8>)>;

/// A lease, and what its pages may show: one of these, always the same.
struct Held {
    given: LeaseGiven,
    models: Vec<Model>,
}

async fn lease(shard: &TestShard, written: &RefCell<Written>) -> Held {
    let mut models: Vec<Model> = Vec::new();
    let mut giving = Box::pin(shard.lease(u64::MAX, None));
    // The moment is one between question and answer: all that was there then may be it.
    let given = std::future::poll_fn(|context| {
        let mut note = || {
            let written = written.borrow();
            for model in [Some(&written.model), written.pending.as_ref()].into_iter().flatten() {
                if !models.contains(model) {
                    models.push(model.clone());
                }
            }
        };
        note();
        let polled = giving.as_mut().poll(context);
        note();
        polled
    });
    let given = given.await.expect("there are not too many");
    Held { given, models }
}

/// All pages of `scan`, or that the lease has ended.
async fn all_pages(shard: &TestShard, scan: &Scan) -> Result<Items, EngineError> {
    let (mut scan, mut all) = (scan.clone(), Vec::new());
    loop {
        let page = shard.scan(scan.clone()).await?;
        assert!(page.items.len() <= scan.items_max);
        all.extend(shown(&page, &scan));
        let Some(next) = &page.next else { return Ok(all) };
        scan = scan.after(next);
    }
}

impl Held {
    /// Looks at random parts, of which all pages are of one moment.
    async fn check(&mut self, shard: &TestShard, random: &mut Random, what: &str) {
        for _ in 0..2 {
            let mut scan = random_scan(random);
            scan.lease = Some(self.given.id);
            scan.items_max = scan.items_max.max(3);
            scan.bytes_max = scan.bytes_max.max(500);
            let shown = all_pages(shard, &scan).await.expect("it is held and readable");
            let is_it = |model: &Model| without_values(expected(model, &scan), &scan) == shown;
            self.models.retain(is_it);
            assert!(!self.models.is_empty(), "{what}: {scan:?} shows {shown:?}");
        }
    }
}

/// Leases are begun, looked at and ended until `done`.
async fn hold_leases(
    shard: &TestShard,
    written: &RefCell<Written>,
    (done, seed): (&Cell<bool>, u64),
) {
    let mut random = Random::new(seed);
    let mut held: Vec<Held> = Vec::new();
    while !done.get() {
        if held.len() < 4 && random.below(3) == 0 {
            held.push(lease(shard, written).await);
        }
        for lease in &mut held {
            lease.check(shard, &mut random, &format!("seed {seed}")).await;
        }
        if held.len() == 4 {
            let ended = held.remove(random.below(4) as usize);
            assert!(shard.end_lease(ended.given.id));
        }
        shard.env.sleep(random.below(3_000_000)).await;
    }
}

#[test]
fn pages_under_a_lease_are_of_its_moment_whatever_goes_on() {
    for seed in 0..12 {
        let mut options = tiny_options();
        options.memtable_bytes = 2 << 10;
        options.picker.level_zero_runs = 2;
        options.compress_from = (seed % 2 == 0).then_some(500);
        options.item_cache_bytes = if seed % 3 == 0 { 64 << 10 } else { 0 };
        let (mut life, mut shard) = start(seed, &options);
        let written = Rc::new(RefCell::new(Written::default()));
        for round in 0..2 {
            let done = Rc::new(Cell::new(false));
            let (writer, changes, is_done) = (shard.clone(), written.clone(), done.clone());
            life.env().spawn(TaskQueue::Foreground, async move {
                let mut random = Random::new(seed * 10 + round);
                for _ in 0..400 {
                    write(&writer, &changes, &mut random).await;
                }
                is_done.set(true);
            });
            let (reader, seen) = (shard.clone(), written.clone());
            let last = life.block_on(async move {
                hold_leases(&reader, &seen, (&done, seed * 10 + round + 5)).await;
                let operations = reader.statistics().operations;
                assert!(operations.collections > 0, "seed {seed}: nothing was collected");
                lease(&reader, &seen).await.given.id
            });
            (life, shard) = restart(life, shard, &options);
            let reader = shard.clone();
            let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
            scan.lease = Some(last.expect("runs"));
            let after = life.block_on(async move { reader.scan(scan).await }).expect("runs");
            assert!(matches!(after, Err(EngineError::LeaseEnded)), "seed {seed}");
        }
    }
}

fn name(number: usize) -> Name {
    (b"record".to_vec(), format!("{number:03}").into_bytes())
}

fn leased(given: LeaseGiven) -> Scan {
    let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
    scan.lease = Some(given.id);
    scan
}

#[test]
fn a_lease_shows_what_has_expired_or_was_cleared_or_deleted_since() {
    let (mut life, shard) = start(1, &tiny_options());
    let env = life.env();
    life.block_on(async move {
        let now = u32::try_from(env.unix_seconds()).expect("a time of these years");
        for number in 0..60 {
            let expiry = if number % 2 == 0 { now + 5 } else { 0 };
            run(&shard, &name(number), set_until(&[1; 300], expiry)).await;
        }
        env.sleep(1_000_000_000).await;
        let first = shard.lease(u64::MAX, None).await.expect("given");
        env.sleep(6_000_000_000).await;
        let second = shard.lease(u64::MAX, None).await.expect("given");
        let range = Scan::of_items(DEFAULT_NAMESPACE, b"record", b"00");
        shard.delete_range(&range).await.expect("deletes");
        let third = shard.lease(u64::MAX, None).await.expect("given");
        shard.flush_all(None).await.expect("clears");
        run(&shard, &name(999), set(&[2; 300])).await;
        flush_memtable(&shard).await;
        env.sleep(20_000_000_000).await;
        for (given, count) in [(first, 60), (second, 30), (third, 25)] {
            let items = all_pages(&shard, &leased(given)).await.expect("held");
            assert_eq!(items.len(), count);
            assert!(items.iter().all(|(_, value)| *value == [1; 300]));
        }
        let present = all_pages(&shard, &Scan::of_namespace(DEFAULT_NAMESPACE)).await;
        assert_eq!(present.expect("readable").len(), 1);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn leases_are_few_and_end_by_themselves_or_when_they_are_ended() {
    let (mut life, shard) = start(2, &tiny_options());
    let env = life.env();
    life.block_on(async move {
        run(&shard, &name(1), set(b"value")).await;
        let mut given = Vec::new();
        for _ in 0..LEASES_MAX {
            given.push(shard.lease(u64::MAX, None).await.expect("given"));
        }
        assert!(given.iter().all(|given| given.nanoseconds == LEASE_NANOSECONDS_MAX));
        let refused = shard.lease(1, None).await;
        assert!(matches!(refused, Err(EngineError::TooManyLeases)), "{refused:?}");
        assert!(shard.end_lease(given[3].id) && !shard.end_lease(given[3].id));
        let short = shard.lease(2_000_000_000, None).await.expect("there is room again");
        let count = async |given| all_pages(&shard, &leased(given)).await.map(|items| items.len());
        let is_ended = |found: Result<usize, _>| matches!(found, Err(EngineError::LeaseEnded));
        assert!(is_ended(count(given[3]).await));
        env.sleep(1_900_000_000).await;
        assert_eq!(count(short).await.expect("it is held"), 1);
        env.sleep(200_000_000).await;
        assert!(is_ended(count(short).await));
        assert_eq!(count(given[0]).await.expect("it is held"), 1);
        assert_eq!(shard.statistics().leases.held, 7);
        env.sleep(LEASE_NANOSECONDS_MAX).await;
        assert!(is_ended(count(given[0]).await));
        let leases = shard.statistics().leases;
        assert_eq!((leases.held, leases.given, leases.ended_for_space), (0, 9, 0));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_lease_keeps_the_files_that_there_were_and_no_others() {
    let options = ShardOptions { memtable_bytes: 2 << 10, ..tiny_options() };
    let (mut life, shard) = start(3, &options);
    let env = life.env();
    life.block_on(async move {
        for number in 0..40 {
            run(&shard, &name(number), set(&[1; 2000])).await;
        }
        flush_memtable(&shard).await;
        let given = shard.lease(u64::MAX, None).await.expect("given");
        let before = shard.usage().allocated;
        // What was there dies once, and what came since many times.
        for round in 0..20u8 {
            for number in 0..40 {
                run(&shard, &name(number), set(&[round; 2000])).await;
            }
        }
        env.sleep(2_000_000_000).await;
        let pinned = shard.space_report().pinned;
        assert_eq!((pinned.operations, pinned.leases.len()), (0, 1));
        let held = pinned.leases[0];
        assert!(held.bytes >= 80_000 && held.bytes <= before, "{held:?} of {before}");
        assert_eq!(held.bytes, pinned.bytes, "nobody else keeps anything");
        assert!(held.nanoseconds >= 2_000_000_000 && held.nanoseconds_left > 0);
        let items = all_pages(&shard, &leased(given)).await.expect("held");
        assert!(items.len() == 40 && items.iter().all(|(_, value)| *value == [1; 2000]));
        assert!(shard.end_lease(given.id));
        env.sleep(1_000_000_000).await;
        let pinned = shard.space_report().pinned;
        assert_eq!((pinned.bytes, pinned.leases), (0, Vec::new()));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn the_oldest_lease_ends_when_space_is_short_and_no_write_is_refused_for_it() {
    let options = ShardOptions { memtable_bytes: 4 << 10, ..tiny_options() };
    let (mut life, shard) = start(4, &options);
    let env = life.env();
    life.block_on(async move {
        for number in 0..40 {
            run(&shard, &name(number), set(&[1; 5000])).await;
        }
        let given = [shard.lease(u64::MAX, None).await, shard.lease(u64::MAX, None).await];
        let [first, second] = given.map(|given| given.expect("given"));
        env.set_capacity((2 << 20) + (900 << 10));
        let mut has_ended = false;
        for round in 0..60u8 {
            for number in 0..40 {
                run(&shard, &name(number), set(&[round; 5000])).await;
            }
            let ended = async |given| {
                matches!(shard.scan(leased(given)).await, Err(EngineError::LeaseEnded))
            };
            let (is_first, is_second) = (ended(first).await, ended(second).await);
            assert!(is_first || !is_second, "the younger one ends later");
            has_ended |= is_first;
        }
        let leases = shard.statistics().leases;
        assert!(has_ended && leases.ended_for_space > 0, "{leases:?}");
        assert_eq!(shard.stopped(), None);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn leases_that_come_together_share_a_memtable_and_none_waits_beyond_its_deadline() {
    let (mut life, shard) = start(5, &tiny_options());
    life.block_on(async move {
        run(&shard, &name(0), set(b"v")).await;
        shard.lease(u64::MAX, None).await.expect("given");
        let flushes = |shard: &TestShard| shard.index.statistics().counters.flushes;
        run(&shard, &name(1), set(b"v")).await;
        let (now, before) = (shard.env.now(), flushes(&shard));
        let late = shard.lease(u64::MAX, Some(now + 1_000_000)).await;
        assert!(matches!(late, Err(EngineError::TooManyLeases)), "{late:?}");
        assert!(shard.env.now() - now < 2_000_000, "it does not wait for longer");
        let mut waiting = Vec::new();
        for number in 2..6 {
            run(&shard, &name(number), set(b"v")).await;
            let mut giving = Box::pin(shard.lease(u64::MAX, None));
            assert!(futures_lite::future::poll_once(&mut giving).await.is_none(), "it gathers");
            waiting.push(giving);
            shard.env.sleep(3_000_000).await;
        }
        for giving in waiting {
            let given = giving.await.expect("given");
            let page = shard.scan(leased(given)).await.expect("readable");
            assert_eq!(page.items.len(), 6, "all see what there was when the first began");
        }
        shard.env.sleep(200_000_000).await;
        assert!(flushes(&shard) - before <= 2, "{} flushes", flushes(&shard) - before);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn what_a_lease_kept_of_tables_is_about_to_be_free_when_it_has_ended() {
    let options = ShardOptions { memtable_bytes: 4 << 10, ..tiny_options() };
    let (mut life, shard) = start(6, &options);
    life.block_on(async move {
        // All of it lives in tables.
        let fill = async |round: u8| {
            for number in 0..400 {
                run(&shard, &name(number), set(&[round; 20])).await;
            }
            flush_memtable(&shard).await;
            shard.env.sleep(500_000_000).await;
        };
        fill(1).await;
        shard.lease(u64::MAX, None).await.expect("given");
        for round in 2..6 {
            fill(round).await;
        }
        assert!(shard.leases_hold() > 0 && !shard.files_are_going());
        assert!(!shard.is_freeing(), "a lease keeps all that could go");
        assert!(shard.end_lease_for_space());
        assert!(shard.is_freeing(), "writes wait for it, and are not refused");
        shard.env.sleep(500_000_000).await;
        assert!(!shard.is_freeing(), "it has gone");
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_long_value_gets_the_room_that_a_lease_keeps() {
    let options = tiny_options();
    let (mut life, shard) = start(7, &options);
    let env = life.env();
    life.block_on(async move {
        let fill = async |round: u8| {
            for number in 0..40 {
                run(&shard, &name(number), set(&[round; 5000])).await;
            }
        };
        fill(1).await;
        shard.lease(u64::MAX, None).await.expect("given");
        for round in 2..5 {
            fill(round).await;
        }
        flush_memtable(&shard).await;
        shard.env.sleep(2_000_000_000).await;
        assert!(shard.leases_hold() > 128 << 10, "{} bytes", shard.leases_hold());
        // There is room for a segment of the log, and for none that is twice as long.
        env.set_capacity(1 << 30);
        let directory = std::path::Path::new(super::harness::DIRECTORY);
        let used = (1 << 30) - env.free_space(directory).expect("it says so");
        let left = Purpose::Ingest.left(options.disk_reserve_bytes, options.segment_bytes, 1);
        let files = shard.free.borrow().ready() as u64 * u64::from(options.segment_bytes);
        env.set_capacity(used + left + (100 << 10) - files);
        run(&shard, &name(100), set(&[9; 120 << 10])).await;
        assert_eq!(shard.statistics().leases.ended_for_space, 1);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}
