//! Which records a shard knows to be dead.

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, touched};
use super::smoke::{delete, get, run, set};
use crate::entry::Pointer;
use crate::shard::OperationBuf;

/// Does `change` to an item with a long value, which was flushed before if `is_flushed`, on a shard
/// with so large a value cache. Returns whether the record of the value is marked afterwards.
fn is_marked_after(change: OperationBuf, is_flushed: bool, item_cache_bytes: usize) -> bool {
    let mut options = tiny_options();
    options.item_cache_bytes = item_cache_bytes;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let done = life.block_on(async move {
        run(&shard, b"key", set(&[7; 500])).await;
        run(&shard, b"other", set(&[8; 500])).await;
        let places = [b"key".as_slice(), b"other"].map(|key| place(&shard, key));
        if is_flushed {
            flush_memtable(&shard).await;
        }
        run(&shard, b"key", change).await;
        let dead = shard.garbage.dead.borrow();
        assert!(!dead.has(places[1]), "nobody has changed it");
        let now = harness::pointer(&shard, b"key");
        assert!(now.is_none_or(|now| !dead.has(now)), "what an entry points to lives");
        dead.has(places[0])
    });
    done.expect("runs")
}

fn place(shard: &TestShard, key: &[u8]) -> Pointer {
    harness::pointer(shard, key).expect("a long value")
}

#[test]
fn the_record_of_a_value_that_memory_knew_is_dead_once_it_was_replaced() {
    const CACHE: usize = 128 << 10;
    for change in [|| set(&[9; 500]), || set(b"short"), delete] {
        assert!(is_marked_after(change(), false, 0), "the memtable knew the place");
        assert!(is_marked_after(change(), true, CACHE), "the cache knew the place");
    }
    assert!(!is_marked_after(set(&[9; 500]), true, 0), "nobody knew the place");
    for keeps in [|| touched(2_000_000_000), get] {
        assert!(!is_marked_after(keeps(), false, 0) && !is_marked_after(keeps(), true, CACHE));
    }
}
