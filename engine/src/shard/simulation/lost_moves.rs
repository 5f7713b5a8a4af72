//! A device that has lost the log's record of a move: the item's segment is gone, and the key says
//! so, whatever the clock has shown before the item was stored.

use std::path::Path;

use larder_runtime::simulation::SimDisk;

use super::harness::{self, TestShard};
use super::items::{flush_memtable, rest};
use super::model::Reply;
use super::races::{self, collect_segment, drop_expired, write_garbage};
use super::smoke::{get, run, set, set_until};
use crate::key::Key;
use crate::manifest::LogPosition;
use crate::operation::Outcome;
use crate::value_log::segment;

/// Stores a key, and has it moved; returns where the log was before the move. The move is in the
/// log alone, with something behind it that proves that it was durable.
async fn moved(shard: &TestShard, expiry: u32) -> LogPosition {
    run(shard, b"moved", set_until(&[7; 500], expiry)).await;
    let from = harness::pointer(shard, b"moved").expect("a long value").segment;
    // Not a victim before everything is in tables.
    shard.garbage.unreadable.borrow_mut().insert(from);
    write_garbage(shard, 60).await;
    flush_memtable(shard).await;
    let position = shard.log.position();
    shard.garbage.unreadable.borrow_mut().clear();
    collect_segment(shard, from).await;
    rest(shard).await;
    assert!(shard.is_gone(from), "the item was moved");
    run(shard, b"moved", get()).await;
    for number in 0..3 {
        run(shard, b"later", set(&[number; 50])).await;
    }
    position
}

/// Makes every log record of `key` from `position` on unreadable.
fn lose_records(disk: &mut SimDisk, key: &[u8], position: LogPosition) {
    let path = Path::new(harness::DIRECTORY).join(segment::file_name(position.segment));
    let bytes = disk.read_all(&path);
    let found = bytes.windows(key.len()).enumerate().skip(position.offset as usize);
    let places: Vec<u64> = found.filter(|(_, at)| *at == key).map(|(at, _)| at as u64).collect();
    assert_eq!(places.len(), 1, "the record of the move");
    disk.flip_bit(&path, places[0], 3);
}

#[test]
fn an_item_whose_move_was_lost_is_an_error_although_the_clock_was_ahead_before() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &races::options());
    let env = life.env();
    let position = life
        .block_on(async move {
            // The clock has shown a time at which the item to come would have expired.
            let expiry = drop_expired(&shard, &env).await;
            moved(&shard, expiry).await
        })
        .expect("runs");
    let mut disk = life.crash();
    lose_records(&mut disk, &Key::memcached(b"moved").encode(), position);
    let mut life = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut life, &races::options());
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    life.block_on(async move {
        let read = shard.run(&Key::memcached(b"moved"), get(), Reply::new).await;
        assert!(read.is_err(), "{read:?}");
        // What had expired stays gone, and the others are there.
        assert_eq!(run(&shard, b"expires", get()).await.outcome, Outcome::Miss);
        assert_eq!(run(&shard, b"later", get()).await.value, [2; 50]);
    })
    .expect("runs");
}
