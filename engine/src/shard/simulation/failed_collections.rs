//! A collection that has failed leaves copies behind which wait for their frame, and its segment
//! stays: what happens to their keys until a later collection writes the frame counts.

use std::path::Path;

use larder_runtime::simulation::SimDisk;

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, touched};
use super::races::write_garbage;
use super::smoke::{get, run, set, set_until};
use crate::collector::Victim;
use crate::error::EngineError;
use crate::index::table;
use crate::operation::Outcome;
use crate::shard::ShardOptions;

const EXPIRY: u32 = 1_700_100_000;

/// Collections begin when the test says so, and tables stay as they are.
fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 10_000;
    options.picker.level_zero_runs = 100;
    options.picker.level_zero_tables = 100;
    options.picker.hidden_part = 1;
    options
}

/// The segments of a key in whose way something fails, and of another.
struct Segments {
    failing: u32,
    other: u32,
}

/// A store with `touched` and behind it, in the same segment, a key whose index entry cannot be
/// read.
fn prepare() -> (SimDisk, Segments) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let (table, segments) = life
        .block_on(async move {
            let segment = |key| harness::pointer(&shard, key).expect("a long value").segment;
            run(&shard, b"touched", set_until(&[1; 500], EXPIRY)).await;
            flush_memtable(&shard).await;
            run(&shard, b"unreadable", set(&[2; 500])).await;
            let failing = segment(b"unreadable");
            let newest = shard.journal.state().table_id_next;
            flush_memtable(&shard).await;
            write_garbage(&shard, 1).await;
            run(&shard, b"other", set(&[3; 500])).await;
            let other = segment(b"other");
            assert_ne!(failing, other);
            write_garbage(&shard, 1).await;
            flush_memtable(&shard).await;
            (newest, Segments { failing, other })
        })
        .expect("runs");
    let mut disk = life.kill();
    disk.lose_sector(Path::new(harness::DIRECTORY).join(table::file_name(table)), 0);
    (disk, segments)
}

async fn collect(shard: &TestShard, number: u32) -> Result<(), EngineError> {
    let known = shard.journal.state().segments.get(&number).copied().expect("it is there");
    let end = known.sealed.expect("the log has gone on").end;
    shard.collect(Victim { number, generation: known.generation, end }).await
}

/// A touch of a key whose copy waits is not lost when the copy becomes the key's place.
#[test]
pub(super) fn against_a_touch() {
    let (disk, segments) = prepare();
    let mut life = harness::life(2, disk);
    let (shard, _) = harness::open_in(&mut life, &options());
    life.block_on(async move {
        let failed = collect(&shard, segments.failing).await;
        assert!(matches!(failed, Err(EngineError::Read(_))), "{failed:?}");
        let place = || harness::pointer(&shard, b"touched").map(|pointer| pointer.segment);
        assert_eq!(run(&shard, b"touched", touched(EXPIRY + 1000)).await.outcome, Outcome::Hit);
        assert_eq!(place(), Some(segments.failing), "its copy waits");
        collect(&shard, segments.other).await.expect("nothing else fails");
        assert_ne!(place(), Some(segments.failing), "the copy is its place");
        assert_eq!(run(&shard, b"touched", get()).await.metadata.expiry, EXPIRY + 1000);
    })
    .expect("runs");
    let mut life = harness::life(3, life.crash());
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    let reply = life.block_on(async move { run(&shard, b"touched", get()).await }).expect("runs");
    assert_eq!((reply.metadata.expiry, reply.value), (EXPIRY + 1000, vec![1; 500]));
}
