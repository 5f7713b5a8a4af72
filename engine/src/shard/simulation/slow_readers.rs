//! Readers that the device holds up keep the segments that they read, and no others.

use futures_lite::future;
use larder_runtime::env::Env;
use larder_runtime::simulation::{SimEnv, Simulation};

use super::harness::{self, TestShard};
use super::items::{flush_memtable, rest};
use super::races::{collect_segment, held, options, write_garbage};
use super::smoke::{get, run, set};
use crate::key::DEFAULT_NAMESPACE;
use crate::keyed::KeyedItems;
use crate::scan::{PageItem, Scan};

const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

fn start() -> (Simulation, TestShard, SimEnv) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let env = life.env();
    (life, shard, env)
}

/// Stores an item under each of the keys. Returns their segment, which is no victim before the test
/// says so.
async fn store(shard: &TestShard) -> u32 {
    for (number, key) in KEYS.into_iter().enumerate() {
        run(shard, key, set(&[number as u8; 500])).await;
    }
    let segments = KEYS.map(|key| harness::pointer(shard, key).expect("a long value").segment);
    assert_eq!(segments, [segments[0]; KEYS.len()]);
    shard.garbage.unreadable.borrow_mut().insert(segments[0]);
    segments[0]
}

/// Has segments freed that nobody reads, and their files given back or used again.
async fn free_others(shard: &TestShard) {
    let first = shard.log.position().segment + 1;
    write_garbage(shard, 3).await;
    flush_memtable(shard).await;
    rest(shard).await;
    assert!(shard.is_gone(first), "nothing points into it any more");
}

/// Moves the items out of their segment, which is freed.
async fn free_theirs(shard: &TestShard, segment: u32) {
    shard.garbage.unreadable.borrow_mut().clear();
    collect_segment(shard, segment).await;
    flush_memtable(shard).await;
    rest(shard).await;
    assert!(shard.is_gone(segment), "the items were moved");
}

fn is_somebody_waited_for(shard: &TestShard) -> bool {
    shard.free.borrow().has_files_in_use()
}

fn shown(items: &[PageItem]) -> Vec<(&[u8], u8)> {
    let of_key = |item: &&PageItem| KEYS.contains(&item.record.as_slice());
    let value = |item: &PageItem| item.value.as_ref().expect("it is shown")[0];
    items.iter().filter(of_key).map(|item| (item.record.as_slice(), value(item))).collect()
}

fn expected(values: [u8; 4]) -> Vec<(&'static [u8], u8)> {
    KEYS.into_iter().zip(values).collect()
}

#[test]
pub(super) fn a_slow_read_keeps_its_own_segment_and_no_other() {
    let (mut life, shard, env) = start();
    life.block_on(async move {
        let segment = store(&shard).await;
        let reading = held(&env, run(&shard, KEYS[1], get())).await;
        free_others(&shard).await;
        assert!(!is_somebody_waited_for(&shard), "it does not read what was freed");
        assert_eq!(shard.space_report().pinned.operations, 0);
        free_theirs(&shard, segment).await;
        // Files of freed segments are used again.
        free_others(&shard).await;
        assert!(is_somebody_waited_for(&shard));
        let pinned = shard.space_report().pinned;
        assert_eq!((pinned.operations, pinned.bytes), (1, u64::from(options().segment_bytes)));
        assert!(pinned.oldest_nanoseconds >= 200_000_000, "{pinned:?}");
        assert_eq!(reading.await.value, [1; 500]);
        rest(&shard).await;
        assert!(!is_somebody_waited_for(&shard));
        assert_eq!(shard.space_report().pinned.operations, 0);
    })
    .expect("runs");
}

#[test]
fn a_slow_page_keeps_the_segments_whose_values_it_reads_and_no_others() {
    let (mut life, shard, env) = start();
    life.block_on(async move {
        let segment = store(&shard).await;
        let page = held(&env, shard.scan(Scan::of_namespace(DEFAULT_NAMESPACE))).await;
        let (limits, keys) = (Scan::of_record(DEFAULT_NAMESPACE, KEYS[2]), vec![Vec::new()]);
        let asked = KeyedItems { record: KEYS[2].to_vec(), keys, first: 0, limits };
        let keyed = held(&env, shard.keyed_items(asked)).await;
        free_others(&shard).await;
        assert!(!is_somebody_waited_for(&shard), "they do not read what was freed");
        free_theirs(&shard, segment).await;
        free_others(&shard).await;
        assert_eq!(shard.space_report().pinned.operations, 2);
        let (page, keyed) = future::zip(page, keyed).await;
        assert_eq!(shown(&page.expect("readable").items), expected([0, 1, 2, 3]));
        assert_eq!(shown(&keyed.expect("readable").items), [(KEYS[2], 2)]);
        rest(&shard).await;
        assert!(!is_somebody_waited_for(&shard));
    })
    .expect("runs");
}

#[test]
fn a_page_that_comes_to_a_freed_segment_shows_a_later_moment() {
    let (mut life, shard, env) = start();
    life.block_on(async move {
        let segment = store(&shard).await;
        free_others(&shard).await;
        // It is the index that it waits for: what it will read is not known.
        let page = held(&env, shard.scan(Scan::of_namespace(DEFAULT_NAMESPACE))).await;
        run(&shard, KEYS[1], set(&[9; 500])).await;
        free_theirs(&shard, segment).await;
        free_others(&shard).await;
        assert!(!is_somebody_waited_for(&shard), "it has read nothing of what was freed");
        let page = page.await.expect("readable");
        assert_eq!(shown(&page.items), expected([0, 9, 2, 3]));
        env.sleep(100_000_000).await;
        assert!(!is_somebody_waited_for(&shard));
    })
    .expect("runs");
}

#[test]
fn an_item_that_does_not_expire_is_found_where_it_was_moved_to() {
    let (mut life, shard, env) = start();
    life.block_on(async move {
        let segment = store(&shard).await;
        free_others(&shard).await;
        let reading = held(&env, run(&shard, KEYS[3], get())).await;
        free_theirs(&shard, segment).await;
        free_others(&shard).await;
        assert!(!is_somebody_waited_for(&shard), "it knows of no place yet");
        assert_eq!(reading.await.value, [3; 500]);
    })
    .expect("runs");
}
