//! How pages read: how often the device is asked, and what becomes of what it cannot read.

use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::env::Env;
use larder_runtime::random::Random;
use larder_runtime::simulation::{OperationKind, OperationKinds, SimDisk, SimEnv, Simulation};

use super::damage::{self, Damage};
use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, start};
use super::model::Reply;
use super::smoke::{delete, get, set};
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::keyed::KeyedItems;
use crate::operation::Outcome;
use crate::scan::{Page, Scan};
use crate::shard::{OperationBuf, ShardOptions};
use crate::value_log::segment;

const READS: OperationKinds = OperationKinds::of(&[OperationKind::Read]);

fn all_items() -> Scan {
    let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
    (scan.items_max, scan.bytes_max) = (10_000, 16 << 20);
    scan
}

fn with(mut scan: Scan, change: impl FnOnce(&mut Scan)) -> Scan {
    change(&mut scan);
    scan
}

fn keys_only(scan: Scan) -> Scan {
    with(scan, |scan| scan.keys_only = true)
}

fn passing(scan: Scan) -> Scan {
    with(scan, |scan| scan.passes_damage = true)
}

fn item_key(number: usize) -> Vec<u8> {
    format!("item-{number:03}").into_bytes()
}

fn key(item: &[u8]) -> Key<'_> {
    Key { namespace: DEFAULT_NAMESPACE, record: b"record", item }
}

async fn run(shard: &TestShard, item: &[u8], operation: OperationBuf) {
    shard.run(&key(item), operation, Reply::new).await.expect("nothing fails");
}

fn value(number: usize) -> Vec<u8> {
    Random::new(number as u64).bytes(1000)
}

/// One segment, of which nothing is collected.
fn one_segment() -> ShardOptions {
    ShardOptions {
        segment_bytes: 4 << 20,
        memtable_bytes: 1 << 20,
        recovery_log_bytes: 64 << 20,
        space_amplification_percent: 10_000,
        ..tiny_options()
    }
}

/// Stores items in this order, each in a block of its own, and has a table of them.
async fn store(shard: &TestShard, order: &[usize]) {
    for &number in order {
        run(shard, &item_key(number), set(&value(number))).await;
    }
    flush_memtable(shard).await;
}

/// Reads of the device that a page costs more than the same page without values.
async fn value_reads(env: &SimEnv, shard: &TestShard) -> u64 {
    let mut costs = [keys_only(all_items()), all_items()].into_iter().map(async |scan| {
        let before = env.operations_of(READS);
        let page = shard.scan(scan).await.expect("readable");
        (page, env.operations_of(READS) - before)
    });
    let (keys, index_reads) = costs.next().expect("two").await;
    let (page, reads) = costs.next().expect("two").await;
    assert_eq!(keys.items.len(), page.items.len());
    for (number, item) in page.items.iter().enumerate() {
        assert_eq!(item.value.as_ref(), Some(&value(number)), "item {number}");
    }
    reads - index_reads
}

#[test]
fn values_that_lie_side_by_side_are_read_together_in_whatever_order_they_were_stored() {
    const ITEMS: usize = 200;
    for seed in 0..3 {
        let mut order: Vec<usize> = (0..ITEMS).collect();
        if seed > 0 {
            let mut random = Random::new(seed);
            order.sort_by_cached_key(|_| random.below(u64::MAX));
        }
        let (mut life, shard) = start(seed, &one_segment());
        let env = life.env();
        life.block_on(async move {
            store(&shard, &order).await;
            // 200 blocks, of which a request takes 32.
            let reads = value_reads(&env, &shard).await;
            assert!((7..=8).contains(&reads), "seed {seed}: {reads} reads");
        })
        .expect("runs");
    }
}

#[test]
fn values_far_from_each_other_are_read_one_by_one() {
    let (mut life, shard) = start(5, &one_segment());
    let env = life.env();
    life.block_on(async move {
        for number in 0..20 {
            run(&shard, &item_key(number), set(&value(number))).await;
            run(&shard, b"between", set(&[1; 12_000])).await;
        }
        run(&shard, b"between", delete()).await;
        flush_memtable(&shard).await;
        assert_eq!(value_reads(&env, &shard).await, 20);
    })
    .expect("runs");
}

/// A store in which the value of an item cannot be read.
fn damaged_store(number: usize) -> (Simulation, TestShard) {
    let (mut life, shard) = start(7, &one_segment());
    let worker = shard.clone();
    let work = async move {
        store(&worker, &(0..60).collect::<Vec<_>>()).await;
        let place = place_of(&worker, number).await;
        worker.close().await.expect("closes");
        place
    };
    let (file, offset) = life.block_on(work).expect("runs");
    drop(shard);
    let mut disk = life.kill();
    disk.lose_sector(Path::new(harness::DIRECTORY).join(segment::file_name(file)), offset);
    let mut life = harness::life(8, disk);
    let (shard, report) = harness::open_in(&mut life, &one_segment());
    assert_eq!(report.damage, []);
    (life, shard)
}

/// Segment and offset of an item's record.
async fn place_of(shard: &TestShard, number: usize) -> (u32, u64) {
    let encoded = key(&item_key(number)).encode();
    let hash = crate::index::table::key_hash(&encoded);
    let located = shard.locate(&encoded, hash, 0, false).await.expect("readable");
    let pointer = located.pointer().expect("in the log");
    (pointer.segment, u64::from(pointer.offset))
}

fn numbers(page: &Page) -> Vec<usize> {
    let number = |item: &[u8]| std::str::from_utf8(&item[5..]).expect("digits").parse();
    page.items.iter().map(|item| number(&item.item).expect("a number")).collect()
}

#[test]
fn a_page_ends_in_front_of_a_value_that_cannot_be_read_and_one_that_begins_there_fails() {
    for is_reverse in [false, true] {
        let (mut life, shard) = damaged_store(20);
        let scan = with(all_items(), |scan| scan.is_reverse = is_reverse);
        life.block_on(async move {
            let page = shard.scan(scan.clone()).await.expect("there are items in front");
            let before: Vec<_> = (0..20).collect();
            let above: Vec<_> = (21..60).collect();
            let reversed = |numbers: &[usize]| numbers.iter().rev().copied().collect::<Vec<_>>();
            let (front, behind) = match is_reverse {
                true => (reversed(&above), reversed(&before)),
                false => (before, above),
            };
            assert_eq!(numbers(&page), front);
            assert!(page.items.iter().zip(front).all(|(it, n)| it.value == Some(value(n))));
            let rest = scan.clone().after(page.next.as_ref().expect("there is more"));
            let failed = shard.scan(rest.clone()).await.expect_err("it begins with the damage");
            assert!(matches!(failed, EngineError::Damaged { .. }), "{failed}");
            assert!(failed.to_string().contains("item-020"), "{failed}");
            let page = shard.scan(keys_only(rest.clone())).await.expect("keys");
            assert_eq!(numbers(&page)[0], 20, "the key is there");
            let page = shard.scan(passing(rest)).await.expect("the others");
            assert_eq!((numbers(&page), page.is_damaged, page.next), (behind, true, None));
        })
        .expect("runs");
    }
}

#[test]
fn a_page_by_keys_ends_in_front_of_a_value_that_cannot_be_read() {
    let (mut life, shard) = damaged_store(3);
    let asked = |first, passes_damage| KeyedItems {
        record: b"record".to_vec(),
        // One that is not there lies between those in front of the damage.
        keys: [9, 99, 2, 3, 7].map(item_key).to_vec(),
        first,
        limits: with(all_items(), |scan| scan.passes_damage = passes_damage),
    };
    life.block_on(async move {
        let page = shard.keyed_items(asked(0, false)).await.expect("there are items in front");
        let values: Vec<_> = page.items.iter().map(|item| item.value.clone()).collect();
        assert_eq!(values, [Some(value(9)), Some(value(2))]);
        assert_eq!((page.next, page.is_damaged), (Some(3), false));
        let failed = shard.keyed_items(asked(3, false)).await.expect_err("the first is damaged");
        assert!(matches!(failed, EngineError::Damaged { .. }));
        let page = shard.keyed_items(asked(0, true)).await.expect("the others");
        let values: Vec<_> = page.items.iter().map(|item| item.value.clone()).collect();
        assert_eq!(values, [9, 2, 7].map(|number| Some(value(number))));
        assert_eq!((page.next, page.is_damaged), (None, true));
    })
    .expect("runs");
}

/// What each key has, `None` if that cannot be read; keys that are not there are left out.
async fn by_key(shard: &TestShard) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for number in 0..40 {
        let key = format!("key-{number:02}").into_bytes();
        match shard.run(&Key::memcached(&key), get(), Reply::new).await {
            Ok(reply) if reply.outcome == Outcome::Hit => {
                found.insert(key, Some(reply.value));
            }
            Ok(_) => {}
            Err(EngineError::Damaged { .. } | EngineError::Read(_)) => {
                found.insert(key, None);
            }
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// The items of all pages, whether something was left out, and whether they came to the end.
async fn pages(shard: &TestShard, scan: &Scan) -> (Vec<(Vec<u8>, Vec<u8>)>, bool, bool) {
    let (mut scan, mut shown, mut is_damaged) = (scan.clone(), Vec::new(), false);
    loop {
        let page = match shard.scan(scan.clone()).await {
            Ok(page) => page,
            Err(EngineError::Damaged { .. } | EngineError::Read(_)) => {
                return (shown, is_damaged, false);
            }
            Err(error) => panic!("{error}"),
        };
        is_damaged |= page.is_damaged;
        let item = |item: crate::scan::PageItem| (item.record, item.value.expect("a value"));
        shown.extend(page.items.into_iter().map(item));
        let Some(next) = &page.next else { return (shown, is_damaged, true) };
        scan = scan.after(next);
    }
}

/// Pages of a damaged store show what reads of single keys show, up to what those cannot read.
async fn check_pages(shard: TestShard) {
    for round in 0..2 {
        let found = by_key(&shard).await;
        for is_reverse in [false, true] {
            let order = |number| if is_reverse { found.len() - 1 - number } else { number };
            let all: Vec<_> = found.iter().collect();
            let all: Vec<_> = (0..all.len()).map(|number| all[order(number)]).collect();
            let scan = with(all_items(), |scan| {
                (scan.is_reverse, scan.items_max) = (is_reverse, 7);
            });
            let (shown, is_damaged, is_whole) = pages(&shard, &scan).await;
            let what = format!("round {round}, reverse {is_reverse}: {shown:?} of {all:?}");
            assert!(!is_damaged && shown.len() <= all.len(), "{what}");
            for ((key, value), found) in shown.iter().zip(&all) {
                assert_eq!((key, Some(value)), (found.0, found.1.as_ref()), "{what}");
            }
            assert!(!is_whole || shown.len() == all.len(), "{what}");
            let (shown, is_damaged, is_whole) = pages(&shard, &passing(scan)).await;
            let what =
                format!("round {round}, reverse {is_reverse}, passing: {shown:?} of {all:?}");
            assert!(is_whole, "{what}");
            let is_there = |(key, value): &(Vec<u8>, Vec<u8>)| found[key].as_ref() == Some(value);
            assert!(shown.iter().all(is_there), "{what}");
            assert!(shown.iter().map(|(key, _)| key).is_sorted_by(|a, b| (a < b) != is_reverse));
            assert!(is_damaged || shown.len() == all.len(), "{what}");
        }
        // Merges make stubs of what cannot be read.
        shard.env.sleep(2_000_000_000).await;
    }
}

fn check_damaged(disk: SimDisk, what: &str) -> bool {
    let mut life = harness::life(3, disk);
    let opening = harness::open(life.env(), damage::options());
    let Ok((shard, _)) = life.block_on(opening).expect("opening does not hang") else {
        return false;
    };
    let checked = std::panic::AssertUnwindSafe(|| life.block_on(check_pages(shard)).expect("runs"));
    if let Err(panic) = std::panic::catch_unwind(checked) {
        eprintln!("{what}");
        std::panic::resume_unwind(panic);
    }
    true
}

#[test]
fn pages_of_a_damaged_store_show_no_other_value_and_miss_nothing() {
    let (disk, _) = damage::store(true);
    harness::for_each_seed(
        "pages_of_a_damaged_store_show_no_other_value_and_miss_nothing",
        1,
        3,
        |seed| {
            let mut random = Random::new(seed);
            let mut opened = 0;
            for (path, offset) in damage::places(&disk, &mut random, 4) {
                let kind = Damage::random(&mut random);
                let mut damaged = disk.clone();
                kind.apply(&mut damaged, &path, offset, seed);
                let what = format!("{kind:?} at byte {offset} of {}", path.display());
                opened += u32::from(check_damaged(damaged, &what));
            }
            assert!(opened > 10, "{opened} damaged stores were opened");
        },
    );
}
