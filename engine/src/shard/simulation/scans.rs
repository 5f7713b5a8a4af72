//! Pages against a model: while items are written, collected and merged, and across restarts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::random::Random;

use super::harness::{TestShard, tiny_options};
use super::items::{flush_memtable, restart, start};
use super::model::Reply;
use super::smoke::{delete, get, set, set_until};
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::scan::{LastUse, Page, Scan};
use crate::shard::{Attempt, OperationBuf, ShardOptions};

pub(super) type Name = (Vec<u8>, Vec<u8>);

/// What lives, by record and item.
pub(super) type Model = BTreeMap<Name, Vec<u8>>;

#[derive(Default)]
pub(super) struct Written {
    pub(super) model: Model,
    /// What the change under way makes of the model; a page may show it or not.
    pub(super) pending: Option<Model>,
}

/// A record of a few, one with a zero byte and one that another begins with, and an item of it.
fn name(random: &mut Random) -> Name {
    let record = random.pick(&[&b"a"[..], b"ab", b"a\0", b"b\xFF", b"\xFF"]).to_vec();
    let item = format!("{:03}", random.below(60)).into_bytes();
    let item = if random.below(20) == 0 { Vec::new() } else { item };
    (record, item)
}

/// What `scan` should show of the model.
pub(super) fn expected(model: &Model, scan: &Scan) -> Vec<(Name, Vec<u8>)> {
    let (start, end) = scan.bounds(0);
    let is_within = |(record, item): &Name| {
        let key = Key { namespace: DEFAULT_NAMESPACE, record, item }.encode();
        key >= start && end.as_ref().is_none_or(|end| key < *end)
    };
    let mut all: Vec<_> = model.iter().filter(|(name, _)| is_within(name)).collect();
    // The order of encoded keys is that of the pairs.
    if scan.is_reverse {
        all.reverse();
    }
    all.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub(super) fn shown(page: &Page, scan: &Scan) -> Vec<(Name, Vec<u8>)> {
    let item = |item: &crate::scan::PageItem| {
        let name = (item.record.clone(), item.item.clone());
        let is_left_out = scan.keys_only || item.value_len > scan.value_bytes_max;
        assert_eq!(item.value.is_none(), is_left_out);
        let value = item.value.clone().unwrap_or_default();
        assert!(is_left_out || value.len() == item.value_len);
        (name, value)
    };
    page.items.iter().map(item).collect()
}

pub(super) fn without_values(items: Vec<(Name, Vec<u8>)>, scan: &Scan) -> Vec<(Name, Vec<u8>)> {
    let is_left_out = |value: &Vec<u8>| scan.keys_only || value.len() > scan.value_bytes_max;
    let value = |value: Vec<u8>| if is_left_out(&value) { Vec::new() } else { value };
    items.into_iter().map(|(name, it)| (name, value(it))).collect()
}

/// Whether the page is what the model says, as far as it goes.
fn is_right(page: &Page, scan: &Scan, model: &Model) -> bool {
    let (shown, all) = (shown(page, scan), without_values(expected(model, scan), scan));
    all.starts_with(&shown) && (page.next.is_some() || all.len() == shown.len())
}

/// A scan of a random part with random limits.
pub(super) fn random_scan(random: &mut Random) -> Scan {
    let (record, item) = name(random);
    let mut scan = match random.below(4) {
        0 => Scan::of_namespace(DEFAULT_NAMESPACE),
        1 => Scan::of_record(DEFAULT_NAMESPACE, &record),
        2 => Scan::of_items(DEFAULT_NAMESPACE, &record, &item[..item.len().min(2)]),
        _ => {
            let (below, end) = name(random);
            Scan::of_namespace(DEFAULT_NAMESPACE).from(&record, &item).below(&below, &end)
        }
    };
    scan.is_reverse = random.below(2) == 0;
    scan.keys_only = random.below(3) == 0;
    scan.items_max = random.pick(&[1, 3, 20, 1000]);
    scan.bytes_max = random.pick(&[1, 500, 20_000, 1 << 20]);
    scan.value_bytes_max = random.pick(&[usize::MAX, usize::MAX, 100]);
    scan
}

pub(super) async fn run(shard: &TestShard, name: &Name, operation: OperationBuf) {
    let key = Key { namespace: DEFAULT_NAMESPACE, record: &name.0, item: &name.1 };
    shard.run(&key, operation, Reply::new).await.expect("nothing fails");
}

pub(super) async fn write(shard: &TestShard, written: &RefCell<Written>, random: &mut Random) {
    if random.below(40) == 0 {
        return delete_range(shard, written, random).await;
    }
    let name = name(random);
    let value = (random.below(4) > 0).then(|| {
        let len = random.pick(&[5, 20, 100, 1000, 5000]);
        vec![random.below(256) as u8; len]
    });
    let mut after = written.borrow().model.clone();
    match &value {
        Some(value) => drop(after.insert(name.clone(), value.clone())),
        None => drop(after.remove(&name)),
    }
    written.borrow_mut().pending = Some(after);
    match &value {
        Some(value) => run(shard, &name, set(value)).await,
        None => run(shard, &name, delete()).await,
    }
    written.borrow_mut().settle();
}

impl Written {
    /// The change under way was made.
    fn settle(&mut self) {
        self.model = self.pending.take().expect("a change was under way");
    }
}

async fn delete_range(shard: &TestShard, written: &RefCell<Written>, random: &mut Random) {
    let range = random_scan(random);
    let mut after = written.borrow().model.clone();
    for (name, _) in expected(&after, &range) {
        after.remove(&name);
    }
    written.borrow_mut().pending = Some(after);
    let needs = shard.delete_range(&range).await.expect("there is room");
    shard.wait_acknowledged(needs).await.expect("nothing fails");
    written.borrow_mut().settle();
}

/// All pages of `scan`, one after the other.
async fn all_pages(shard: &TestShard, scan: &Scan) -> Vec<(Name, Vec<u8>)> {
    let (mut scan, mut all) = (scan.clone(), Vec::new());
    for _ in 0..1000 {
        let page = shard.scan(scan.clone()).await.expect("readable");
        assert!(page.items.len() <= scan.items_max);
        all.extend(shown(&page, &scan));
        let Some(next) = &page.next else { return all };
        scan = scan.after(next);
    }
    panic!("the pages do not come to an end");
}

#[test]
fn pages_are_snapshots_whatever_goes_on_and_follow_one_another() {
    for seed in 0..20 {
        let mut options = tiny_options();
        options.item_cache_bytes = if seed % 2 == 0 { 64 << 10 } else { 0 };
        options.block_cache_bytes = if seed % 3 == 0 { 64 << 10 } else { 0 };
        let (mut life, mut shard) = start(seed, &options);
        let written = Rc::new(RefCell::new(Written::default()));
        for round in 0..3 {
            let (writer, changes) = (shard.clone(), written.clone());
            let env = life.env();
            let done = Rc::new(std::cell::Cell::new(false));
            let is_done = done.clone();
            life.env().spawn(TaskQueue::Foreground, async move {
                let mut random = Random::new(seed * 10 + round);
                for _ in 0..400 {
                    write(&writer, &changes, &mut random).await;
                }
                is_done.set(true);
            });
            let (reader, seen) = (shard.clone(), written.clone());
            life.block_on(async move {
                let mut random = Random::new(seed * 10 + round + 5);
                while !done.get() {
                    let scan = random_scan(&mut random);
                    let (before, pending) = {
                        let seen = seen.borrow();
                        (seen.model.clone(), seen.pending.clone())
                    };
                    let page = reader.scan(scan.clone()).await.expect("readable");
                    let after = pending.unwrap_or_else(|| before.clone());
                    let right = is_right(&page, &scan, &before) || is_right(&page, &scan, &after);
                    assert!(right, "seed {seed}: {scan:?} shows {:?}", shown(&page, &scan));
                    env.sleep(random.below(2_000_000)).await;
                }
                let model = seen.borrow().model.clone();
                for _ in 0..10 {
                    let scan = random_scan(&mut random);
                    let wanted = without_values(expected(&model, &scan), &scan);
                    assert_eq!(all_pages(&reader, &scan).await, wanted, "seed {seed}: {scan:?}");
                }
                reader.close().await.expect("closes");
            })
            .expect("runs");
            (life, shard) = restart(life, shard, &options);
        }
    }
}

#[test]
fn what_has_expired_or_was_flushed_away_is_in_no_page() {
    let options = tiny_options();
    let (mut life, shard) = start(1, &options);
    let env = life.env();
    life.block_on(async move {
        let now = u32::try_from(env.unix_seconds()).expect("a time of these years");
        let scan = Scan::of_record(DEFAULT_NAMESPACE, b"r");
        for item in 0..200u32 {
            let name = (b"r".to_vec(), format!("{item:03}").into_bytes());
            let expiry = if item % 2 == 0 { now + 5 } else { 0 };
            run(&shard, &name, set_until(&[1; 300], expiry)).await;
        }
        assert_eq!(all_pages(&shard, &scan).await.len(), 200);
        flush_memtable(&shard).await;
        env.sleep(6_000_000_000).await;
        let left = all_pages(&shard, &scan).await;
        assert!(left.len() == 100 && left.iter().all(|((_, item), _)| item[2] % 2 == 1));
        shard.flush_all(None).await.expect("flushes");
        assert_eq!(all_pages(&shard, &scan).await, []);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_page_tells_of_items_in_the_value_cache_when_they_were_used_if_it_is_asked_to() {
    let options = ShardOptions { item_cache_bytes: 256 << 10, ..tiny_options() };
    let (life, shard) = start(1, &options);
    let name = |item: &[u8]| (b"r".to_vec(), item.to_vec());
    let scan = |shows_use| {
        let mut scan = Scan::of_record(DEFAULT_NAMESPACE, b"r");
        scan.shows_use = shows_use;
        scan
    };
    let (env, worker) = (life.env(), shard.clone());
    let mut life = life;
    life.block_on(async move {
        run(&worker, &name(b"read"), set(&[1; 300])).await;
        run(&worker, &name(b"written"), set(&[1; 300])).await;
        env.sleep(3_000_000_000).await;
        let now = u32::try_from(env.unix_seconds()).expect("a time of these years");
        let key = Key { namespace: DEFAULT_NAMESPACE, record: b"r", item: b"read" };
        let read = worker.try_execute(&key, None, &get().as_operation(), now, |_| ());
        assert!(matches!(read, Attempt::Done { .. }), "it is in the cache");
        let page = worker.scan(scan(false)).await.expect("readable");
        assert!(page.items.iter().all(|item| item.last_use.is_none()), "nobody has asked");
        let page = worker.scan(scan(true)).await.expect("readable");
        let used: Vec<Option<LastUse>> = page.items.iter().map(|item| item.last_use).collect();
        let at = |at, is_fetched| Some(LastUse { at, is_fetched });
        assert_eq!(used, [at(now, true), at(now - 3, false)]);
        flush_memtable(&worker).await;
    })
    .expect("runs");
    let (mut life, shard) = restart(life, shard, &options);
    life.block_on(async move {
        let page = shard.scan(scan(true)).await.expect("readable");
        assert!(page.items.len() == 2 && page.items.iter().all(|item| item.last_use.is_none()));
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_page_whose_deadline_is_near_ends_early_and_goes_forward() {
    let (mut life, shard) = start(3, &tiny_options());
    let env = life.env();
    life.block_on(async move {
        for item in 0..300u32 {
            let name = (b"r".to_vec(), format!("{item:03}").into_bytes());
            run(&shard, &name, set(&[1; 50])).await;
        }
        for is_reverse in [false, true] {
            let mut scan = Scan::of_record(DEFAULT_NAMESPACE, b"r");
            scan.is_reverse = is_reverse;
            scan.deadline = Some(env.now());
            let page = shard.scan(scan.clone()).await.expect("readable");
            assert!((1..300).contains(&page.items.len()) && page.next.is_some());
            assert_eq!(all_pages(&shard, &scan).await.len(), 300);
            scan.deadline = Some(u64::MAX);
            assert_eq!(shard.scan(scan).await.expect("readable").next, None);
        }
        shard.close().await.expect("closes");
    })
    .expect("runs");
}

#[test]
fn a_page_behind_many_deleted_items_ends_early_and_says_where() {
    let options = ShardOptions {
        memtable_bytes: 8 << 20,
        segment_bytes: 32 << 20,
        recovery_log_bytes: 64 << 20,
        recovery_log_nanoseconds: u64::MAX,
        space_amplification_percent: 10_000,
        ..tiny_options()
    };
    let (mut life, shard) = start(2, &options);
    life.block_on(async move {
        let name = |item: u32| (b"r".to_vec(), format!("{item:06}").into_bytes());
        for item in 0..6000 {
            run(&shard, &name(item), set(b"v")).await;
        }
        flush_memtable(&shard).await;
        for item in 0..5999 {
            run(&shard, &name(item), delete()).await;
        }
        let mut scan = Scan::of_record(DEFAULT_NAMESPACE, b"r");
        scan.items_max = 1;
        let ends_early = async |shard: &TestShard| {
            let page = shard.scan(scan.clone()).await.expect("readable");
            assert!(page.items.is_empty() && page.next.is_some(), "{page:?}");
        };
        let entries = || {
            let index = shard.statistics().index;
            (index.memtable_entries, index.table_entries)
        };
        assert_eq!(entries(), (5999, 6000));
        ends_early(&shard).await;
        assert_eq!(all_pages(&shard, &scan).await, [(name(5999), b"v".to_vec())]);
        flush_memtable(&shard).await;
        assert_eq!(entries(), (0, 11_999));
        ends_early(&shard).await;
        assert_eq!(all_pages(&shard, &scan).await, [(name(5999), b"v".to_vec())]);
        shard.close().await.expect("closes");
    })
    .expect("runs");
}
