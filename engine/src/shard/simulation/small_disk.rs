//! Two shards on a small disk of their own, a sixteenth of what the node's test has: it is filled,
//! a half of the keys is deleted, and writes come back whichever half that is.

use std::cell::Cell;
use std::rc::Rc;

use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::file_cache::FileCache;
use larder_runtime::random::Random;
use larder_runtime::simulation::{SimEnv, Simulation};

use super::fullness::try_run;
use super::harness::{self, TestShard, tiny_options};
use super::smoke::{delete, get, run, set};
use crate::error::EngineError;
use crate::index::table::TableOptions;
use crate::operation::Outcome;
use crate::shard::{Ingest, ShardOptions};

const SHARDS: u16 = 2;
const VALUE_BYTES: usize = 10_000;

/// Deletes that are under way at a time.
const DEPTH: usize = 32;

/// Writes are accepted again after so many nanoseconds at most.
const BACK_NANOSECONDS_MAX: u64 = 5_000_000_000;

pub(super) fn options(segment_bytes: u32) -> ShardOptions {
    let (memtable_bytes, table_bytes) = (768 << 10, u64::from(segment_bytes / 8));
    ShardOptions {
        shards: SHARDS,
        segment_bytes,
        memtable_bytes,
        recovery_log_bytes: 8 << 20,
        disk_reserve_bytes: 2 * memtable_bytes as u64 + 16 * table_bytes,
        tables: TableOptions { table_bytes, ..TableOptions::default() },
        picker: crate::index::compaction::picker::PickerOptions::default(),
        budget: DiskBudget::new(None),
        ..tiny_options()
    }
}

pub(super) fn key(number: usize) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; VALUE_BYTES]
}

/// The shards, and the keys that they must hold.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) env: SimEnv,
    pub(super) shards: Vec<TestShard>,
}

impl Node {
    pub(super) fn start(life: &mut Simulation, options: &ShardOptions) -> Self {
        let env = life.env();
        let files = FileCache::new(env.clone(), harness::FILES_MAX);
        let shards = (0..options.shards).map(|shard| {
            let options = ShardOptions { shard, ..options.clone() };
            let opening = harness::open_over(files.clone(), options);
            let (shard, report) = life.block_on(opening).expect("runs").expect("the shard opens");
            assert_eq!(report.damage, []);
            shard
        });
        Self { env, shards: shards.collect() }
    }

    /// The shard that a key is in; neighbours may be in one.
    fn of(&self, number: usize) -> &TestShard {
        &self.shards[number / 2 % self.shards.len()]
    }

    /// Stores keys from `first` on until each shard has refused one; returns those stored.
    async fn fill(&self, first: usize) -> Vec<usize> {
        let mut stored = Vec::new();
        let mut is_full = vec![false; self.shards.len()];
        for number in first.. {
            let shard = number / 2 % self.shards.len();
            if is_full.iter().all(|is_full| *is_full) {
                break;
            }
            if is_full[shard] {
                continue;
            }
            match try_run(self.of(number), &key(number), set(&value(number))).await {
                Ok(_) => stored.push(number),
                Err(EngineError::Full) => is_full[shard] = true,
                Err(error) => panic!("{error}"),
            }
        }
        stored
    }

    async fn delete(&self, numbers: &[usize]) {
        self.delete_timed(numbers, DEPTH).await;
    }

    /// Deletes keys, so many at a time; returns the nanoseconds that the slowest one took.
    async fn delete_timed(&self, numbers: &[usize], depth: usize) -> u64 {
        let slowest = Rc::new(Cell::new(0));
        for numbers in numbers.chunks(depth) {
            let left = Rc::new(Cell::new(numbers.len()));
            for number in numbers.iter().copied() {
                let (shard, left) = (self.of(number).clone(), Rc::clone(&left));
                let (env, slowest) = (self.env.clone(), Rc::clone(&slowest));
                self.env.spawn(TaskQueue::Foreground, async move {
                    let began = env.now();
                    let reply = run(&shard, &key(number), delete()).await;
                    assert_eq!(reply.outcome, Outcome::Deleted, "key {number}");
                    slowest.set(slowest.get().max(env.now() - began));
                    left.set(left.get() - 1);
                });
            }
            while left.get() > 0 {
                self.env.sleep(100_000).await;
            }
        }
        slowest.get()
    }

    /// Waits until every shard takes a write; returns the nanoseconds that it took.
    pub(super) async fn wait_for_writes(&self) -> Result<u64, String> {
        let began = self.env.now();
        for shard in &self.shards {
            while try_run(shard, b"back", set(&value(0))).await.is_err() {
                if self.env.now() - began > BACK_NANOSECONDS_MAX {
                    return Err(self.describe());
                }
                self.env.sleep(10_000_000).await;
            }
        }
        Ok(self.env.now() - began)
    }

    pub(super) fn describe(&self) -> String {
        let free = self.env.free_space(harness::DIRECTORY.as_ref()).expect("known");
        let mut text = format!("free {}\n", free >> 10);
        for shard in &self.shards {
            let full = shard.state.borrow().full;
            let usage = shard.usage();
            text += &format!(
                "{full:?} {usage:?}\n victim {:?} freeing {}\n",
                shard.next_victim(),
                shard.is_freeing()
            );
            for segment in shard.space_report().segments {
                text += &format!("  {segment:?}\n");
            }
        }
        text
    }

    async fn check(&self, stored: &[usize], deleted: &[usize]) {
        for &number in stored {
            let reply = run(self.of(number), &key(number), get()).await;
            assert_eq!(reply.outcome, Outcome::Hit, "key {number}");
            assert_eq!(reply.value, value(number), "key {number}");
        }
        for &number in deleted {
            let reply = run(self.of(number), &key(number), get()).await;
            assert_eq!(reply.outcome, Outcome::Miss, "key {number}");
        }
    }
}

/// Deletes the first half of what was stored, in the order that `order` brings it into.
fn comes_back(disk_bytes: u64, options: &ShardOptions, order: Order) -> Result<u64, String> {
    let options = ShardOptions { budget: DiskBudget::new(None), ..options.clone() };
    let mut life = harness::life(1, harness::empty_disk(disk_bytes));
    let node = Node::start(&mut life, &options);
    let (filling, deleting) = (node.clone(), node.clone());
    let mut stored = life.block_on(async move { filling.fill(0).await }).expect("runs");
    order.sort(&mut stored);
    let kept = stored.split_off(stored.len() / 2);
    let (deleted, still) = (stored.clone(), kept.clone());
    let back = life.block_on(async move {
        deleting.delete(&deleted).await;
        deleting.check(&still[..20], &deleted[..20]).await;
        deleting.wait_for_writes().await
    });
    drop(node);
    let mut life = harness::life(2, life.crash());
    let node = Node::start(&mut life, &options);
    life.block_on(async move { node.check(&kept, &stored).await }).expect("runs");
    back.expect("runs")
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Stored,
    EverySecond,
    Lexical,
    Random,
    Newest,
}

impl Order {
    const ALL: [Self; 5] =
        [Self::Stored, Self::EverySecond, Self::Lexical, Self::Random, Self::Newest];

    fn sort(self, numbers: &mut [usize]) {
        match self {
            Self::Stored => {}
            Self::EverySecond => numbers.sort_by_key(|number| number % 2),
            Self::Lexical => numbers.sort_by_key(ToString::to_string),
            Self::Random => Random::new(7).shuffle(numbers),
            Self::Newest => numbers.reverse(),
        }
    }
}

fn check_all(disk_bytes: u64, options: &ShardOptions) {
    for order in Order::ALL {
        if let Err(report) = comes_back(disk_bytes, options, order) {
            panic!("{} MiB, {order:?}: writes stay refused\n{report}", disk_bytes >> 20);
        }
    }
}

#[test]
fn writes_come_back_whichever_half_of_the_keys_is_deleted() {
    for mib in [64, 80, 96] {
        // The proportions that `ShardOptions::on_disk_of` keeps on a disk of 16 times the size.
        check_all(mib << 20, &options(1 << 20));
    }
}

#[test]
fn files_that_one_shard_keeps_are_given_back_for_another_that_is_refused() {
    check_all(80 << 20, &options(4 << 20));
}

/// Fills a shard, and lets others take all but so many bytes before the next start.
fn start_beside_others(left: u64) -> (Simulation, ShardOptions, Vec<usize>, u64) {
    let mut options = ShardOptions { shards: 1, ..options(1 << 20) };
    // Where merges look for hidden garbage, the start finds some room after all.
    options.picker.hidden_part_wanted = 1;
    let mut life = harness::life(1, harness::empty_disk(32 << 20));
    let node = Node::start(&mut life, &options);
    let filling = node.clone();
    let stored = life.block_on(async move { filling.fill(0).await }).expect("runs");
    drop(node);
    let mut disk = life.crash();
    let used = disk.used_bytes();
    disk.set_capacity(used + left);
    let budget = DiskBudget::new(None);
    (harness::life(2, disk), ShardOptions { budget, ..options }, stored, used)
}

#[test]
fn a_shard_starts_where_others_have_left_next_to_nothing() {
    // The first leaves room for the shortest segment and for the manifest to grow.
    for left in [48 << 10, 200 << 10, 1 << 20] {
        let (mut life, options, stored, used) = start_beside_others(left);
        let node = Node::start(&mut life, &options);
        let env = life.env();
        let stored = life.block_on(async move {
            assert!(env.snapshot().used_bytes() <= used + left);
            node.check(&stored, &[]).await;
            // Where there is more than the reserve for deletes in the first segment, it is used.
            let new = try_run(&node.shards[0], b"new", set(&value(0))).await;
            let is_refused = matches!(new, Err(EngineError::Full));
            assert_eq!(is_refused, left < 1 << 20, "{left}: {new:?}");
            node.delete(&stored[..1]).await;
            node.check(&stored[1..], &stored[..1]).await;
            env.set_capacity(used + (64 << 20));
            node.wait_for_writes().await.expect("there is room");
            stored
        });
        let stored = stored.expect("runs");
        // What was accepted is there after the next crash as well.
        let options = ShardOptions { budget: DiskBudget::new(None), ..options };
        let mut life = harness::life(3, life.crash());
        let node = Node::start(&mut life, &options);
        life.block_on(async move {
            node.check(&stored[1..], &stored[..1]).await;
            assert_eq!(run(&node.shards[0], b"back", get()).await.outcome, Outcome::Hit);
        })
        .expect("runs");
    }
}

#[test]
fn a_shard_for_which_nothing_is_left_starts_when_there_is_room() {
    let (mut life, options, stored, used) = start_beside_others(0);
    let opened = life.block_on(harness::open(life.env(), options.clone())).expect("runs");
    assert!(matches!(opened, Err(EngineError::Full)), "{:?}", opened.err());
    let mut disk = life.crash();
    disk.set_capacity(used + (1 << 20));
    let mut life = harness::life(3, disk);
    let node = Node::start(&mut life, &ShardOptions { budget: DiskBudget::new(None), ..options });
    life.block_on(async move { node.check(&stored, &[]).await }).expect("runs");
}

#[test]
fn who_is_refused_is_not_made_to_wait_until_there_is_space() {
    let mut life = harness::life(1, harness::empty_disk(64 << 20));
    let node = Node::start(&mut life, &options(1 << 20));
    let env = life.env();
    life.block_on(async move {
        let stored = node.fill(0).await;
        let is_done = Rc::new(Cell::new(false));
        let (deleting, done) = (node.clone(), is_done.clone());
        env.spawn(TaskQueue::Foreground, async move {
            deleting.delete(&stored[..stored.len() / 2]).await;
            deleting.wait_for_writes().await.expect("there is room");
            done.set(true);
        });
        let ingest = || node.shards.iter().map(|shard| shard.state.borrow().full.ingest);
        let mut before: Vec<Ingest> = ingest().collect();
        assert!(before.contains(&Ingest::Refused), "{before:?}");
        while !is_done.get() {
            env.sleep(20_000).await;
            for (before, now) in before.iter_mut().zip(ingest()) {
                assert!((*before, now) != (Ingest::Refused, Ingest::Waiting), "it wavers");
                *before = now;
            }
        }
    })
    .expect("runs");
}

/// Stores values all the time, and tries again a moment later where they are refused.
async fn write_on(node: Node, first: usize, is_over: Rc<Cell<bool>>) {
    for number in first.. {
        if is_over.get() {
            return;
        }
        if try_run(node.of(number), &key(number), set(&value(number))).await.is_err() {
            node.env.sleep(1_000_000).await;
        }
    }
}

/// Deletes all that a full disk has, so many at a time; how long the slowest one takes.
fn slowest_delete(mib: u64, order: Order, (depth, writers): (usize, usize)) -> u64 {
    let mut life = harness::life(1, harness::empty_disk(mib << 20));
    let node = Node::start(&mut life, &options(1 << 20));
    let slowest = life.block_on(async move {
        let mut stored = node.fill(0).await;
        order.sort(&mut stored);
        let is_over = Rc::new(Cell::new(false));
        for writer in 1..=writers {
            let writing = write_on(node.clone(), writer * 1_000_000, is_over.clone());
            node.env.spawn(TaskQueue::Foreground, writing);
        }
        let slowest = node.delete_timed(&stored, depth).await;
        is_over.set(true);
        slowest
    });
    slowest.expect("runs")
}

#[test]
fn deletes_do_not_wait_until_a_full_disk_is_looked_at_again() {
    const SOON_NANOSECONDS: u64 = 10_000_000;
    for mib in [80, 96] {
        for order in [Order::Stored, Order::Newest] {
            for clients in [(1, 0), (DEPTH, 4)] {
                let slowest = slowest_delete(mib, order, clients);
                let is_soon = slowest < SOON_NANOSECONDS;
                assert!(is_soon, "{mib} MiB, {order:?}, {clients:?}: {slowest} ns");
            }
        }
    }
}
