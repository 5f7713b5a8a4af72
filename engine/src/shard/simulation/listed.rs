//! Collecting segments whose records are listed in memory.

use larder_runtime::simulation::{OperationKind, OperationKinds};

use super::harness::{self, tiny_options};
use super::smoke::{get, run, set};
use crate::collector::Victim;

/// What a collection came to.
#[derive(Debug)]
struct Outcome {
    moved_bytes: u64,
    cached_bytes: u64,
    reads: u64,
}

const SEGMENT_BYTES: u32 = 256 << 10;

/// Fills a segment of so many bytes with 50 values of 1,000 bytes and with what is overwritten,
/// overwrites the values but for every `lives_each`-th, and collects the segment, with so large a
/// value cache and memory for lists. All keys are in the memtable.
fn collect(
    segment_bytes: u32,
    lives_each: u64,
    item_cache_bytes: usize,
    listed_records_bytes: usize,
) -> Outcome {
    let mut options = tiny_options();
    // A lone client's record has a frame of its own, of 4 KiB.
    options.segment_bytes = segment_bytes;
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.item_cache_bytes = item_cache_bytes;
    options.listed_records_bytes = listed_records_bytes;
    options.space_amplification_percent = 10_000;
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options);
    let env = life.env();
    let done = life.block_on(async move {
        let key = |number: u64| format!("key-{number:03}").into_bytes();
        let lives = |number: u64| number.is_multiple_of(lives_each);
        for number in 0..50 {
            run(&shard, &key(number), set(&[number as u8; 1000])).await;
        }
        let first = harness::pointer(&shard, &key(0)).expect("a long value").segment;
        while harness::pointer(&shard, b"filler").is_none_or(|place| place.segment == first) {
            run(&shard, b"filler", set(&[1; 1000])).await;
        }
        for number in (0..50).filter(|number| !lives(*number)) {
            run(&shard, &key(number), set(&[200; 1000])).await;
        }
        let sealed = shard.journal.state().segments[&first].sealed.map(|seal| seal.end);
        let end = sealed.unwrap_or_else(|| shard.log.ends().appended[&first]);
        let reads = || env.operations_of(OperationKinds::of(&[OperationKind::Read]));
        let before = reads();
        shard.collect(Victim { number: first, generation: 0, end }).await.expect("works");
        let reads = reads() - before;
        for number in 0..50 {
            let reply = run(&shard, &key(number), get()).await;
            let value = if lives(number) { number as u8 } else { 200 };
            assert_eq!(reply.value, [value; 1000], "key {number}");
            let place = harness::pointer(&shard, &key(number)).expect("a long value");
            assert_ne!(place.segment, first, "key {number} has moved");
        }
        let operations = shard.statistics().operations;
        let (moved_bytes, cached_bytes) =
            (operations.collected_bytes, operations.collected_cached_bytes);
        Outcome { moved_bytes, cached_bytes, reads }
    });
    done.expect("runs")
}

#[test]
fn what_lives_of_a_listed_segment_is_found_without_reading_it() {
    const LISTS: usize = 1 << 20;
    let cached = collect(SEGMENT_BYTES, 10, 1 << 20, LISTS);
    assert_eq!((cached.reads, cached.cached_bytes), (0, cached.moved_bytes), "{cached:?}");
    assert!(cached.moved_bytes > 5000, "{cached:?}");
    let lone = collect(SEGMENT_BYTES, 49, 0, LISTS);
    assert_eq!((lone.reads, lone.cached_bytes), (2, 0), "a read for each: {lone:?}");
    assert!(lone.moved_bytes > 2000, "{lone:?}");
    let many = collect(SEGMENT_BYTES, 2, 0, LISTS);
    assert_eq!(many.reads, 1, "to read all at once costs less: {many:?}");
    let unlisted = collect(SEGMENT_BYTES, 10, 1 << 20, 0);
    assert_eq!((unlisted.reads, unlisted.cached_bytes), (1, 0), "{unlisted:?}");
    // The segment is read after some records were read one by one: none is moved twice.
    let both = collect(1 << 20, 1, 0, LISTS);
    let record = lone.moved_bytes / 2;
    assert_eq!(both.moved_bytes, 50 * record, "{both:?}");
    assert_eq!(both.reads, 2 * 16 + 1, "{both:?}");
}
